package scsi_test

import (
	"testing"
	"testing/synctest"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
)

func registerKey(t *testing.T, r *unit.Reservations, n *scsitest.Nexus, key uint64) {
	t.Helper()
	if err := r.Register(unit.Register{From: n.Initiator(), TransportID: n.TransportID(), NewKey: key}); err != nil {
		t.Fatal(err)
	}
}

func preemptAndAbort(t *testing.T, r *unit.Reservations, n *scsitest.Nexus, key, target uint64, done func()) {
	t.Helper()
	if err := r.Preempt(unit.Preempt{From: n.Initiator(), Key: key, Target: target, Type: 1, Abort: true}, done); err != nil {
		t.Fatal(err)
	}
}

// TestOrderedTask checks the ORDERED and HEAD OF QUEUE task attributes (SAM-5 §8.6).
func TestOrderedTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 1)
		n, other := b.Nexus("a", 1), b.Nexus("b", 1)
		before := other.Start(0, scsi.AttrSimple, parkCDB, nil)
		ordered := n.Start(0, scsi.AttrOrdered, parkCDB, nil)
		after := other.Start(0, scsi.AttrSimple, parkCDB, nil)
		second := n.Start(0, scsi.AttrOrdered, parkCDB, nil)
		last := n.Start(0, scsi.AttrSimple, parkCDB, nil)
		next := func(want *scsitest.Pending) *scsi.Task {
			t.Helper()
			synctest.Wait()
			if len(parked) != 1 {
				t.Fatalf("%d tasks are enabled, want one", len(parked))
			}
			task := <-parked
			if task.Tag != want.Tag() || task.Nexus.Initiator() != want.Task.Nexus.Initiator() {
				t.Fatalf("task %d of %s is enabled", task.Tag, task.Nexus.InitiatorName())
			}
			return task
		}
		task := next(before)
		wantGood(t, n.Start(0, scsi.AttrHeadOfQueue, testUnitReady, nil).Wait())
		task.Finish(scsi.StatusGood)
		next(ordered).Finish(scsi.StatusGood)
		next(after).Finish(scsi.StatusGood)
		next(second).Finish(scsi.StatusGood)
		next(last).Finish(scsi.StatusGood)
		for _, p := range []*scsitest.Pending{before, ordered, after, second, last} {
			wantGood(t, p.Wait())
		}
		wantGood(t, n.Do(0, testUnitReady, nil))
	})
}

// TestOrderedInline checks that ORDERED tasks that complete at once do not nest (SAM-5 §8.6.3).
func TestOrderedInline(t *testing.T) {
	b, parked := parking(t, 1)
	n := b.Nexus("a", 1)
	blocker := n.Start(0, scsi.AttrSimple, parkCDB, nil)
	var list []*scsitest.Pending
	for i := range 1000 {
		attr := scsi.AttrOrdered
		if i%3 == 0 {
			attr = scsi.AttrSimple
		}
		if p := n.Start(0, attr, testUnitReady, nil); i > 0 {
			list = append(list, p)
		}
	}
	for _, p := range list {
		if p.Done() {
			t.Fatal("a task ran ahead of an ORDERED one")
		}
	}
	(<-parked).Finish(scsi.StatusGood)
	wantGood(t, blocker.Wait())
	for _, p := range list {
		wantGood(t, p.Wait())
	}
}

// TestAbortDormantTask checks ABORT TASK on a task that waits for its turn (SAM-5 §7.2, §8.6.3).
func TestAbortDormantTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 1)
		n := b.Nexus("a", 1)
		first := n.Start(0, scsi.AttrSimple, parkCDB, nil)
		ordered := n.Start(0, scsi.AttrOrdered, parkCDB, nil)
		simple := n.Start(0, scsi.AttrSimple, parkCDB, nil)
		if r := n.Manage(scsi.AbortTask, 0, ordered.Tag()); r != scsi.FunctionComplete {
			t.Fatalf("response %d", r)
		}
		wantAborted(t, ordered)
		a, c := <-parked, <-parked // what it held back runs
		a.Finish(scsi.StatusGood)
		c.Finish(scsi.StatusGood)
		wantGood(t, first.Wait())
		wantGood(t, simple.Wait())
	})
}
