package copy

import (
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// stopAt starts a copy of two chunks from LUN 0 to LUN 1, sent to LUN 0, and lets it go on to the
// first request of a kind to a unit.
func (r *rig) stopAt(i int, op block.Op) (p *scsitest.Pending, request chan struct{}) {
	r.Helper()
	request = make(chan struct{})
	r.probes[i].stopped[op] = request
	params := copyParameters(1, 0, list(r.describe(0), r.describe(1)), list(blockToBlock(0, 1, 4096, 0, 0)))
	p = r.n.Start(0, scsi.AttrSimple, outCDB(actionExtendedCopy, 0, len(params)), params)
	<-request
	return p, request
}

// TestCopyLosesUnit checks that EXTENDED COPY(LID1) sent to one unit writes no more to another that is taken
// from its initiator meanwhile (SPC-4 §5.16.7.4, §5.13.11.2.6).
func TestCopyLosesUnit(t *testing.T) {
	other := unit.Initiator{Name: "iqn.other", Port: 1}
	for name, c := range map[string]struct {
		take func(*rig)
		code uint16
	}{
		"unmapped":  {func(r *rig) { r.n.SetLUNs(scsi.LUNMap{0: {LU: r.LUs[0]}}) }, wire.CopyTargetNotReachable},
		"read-only": {func(r *rig) { r.n.SetLUNs(scsi.LUNMap{0: {LU: r.LUs[0]}, 1: {LU: r.LUs[1], ReadOnly: true}}) }, wire.WriteProtected},
		"other LUN": {func(r *rig) { r.n.SetLUNs(scsi.LUNMap{0: {LU: r.LUs[0]}, 1: {LU: r.LUs[0]}}) }, wire.CopyTargetNotReachable},
		"reserved": {func(r *rig) {
			rs := &r.Units[1].Reservations
			if err := rs.Register(unit.Register{From: other, NewKey: 1}); err != nil {
				t.Fatal(err)
			}
			if err := rs.Reserve(other, 1, unit.WriteExclusive); err != nil {
				t.Fatal(err)
			}
		}, wire.ThirdPartyDeviceFailure},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			p, reading := r.stopAt(0, block.Read)
			c.take(r)
			delete(r.probes[0].stopped, block.Read)
			reading <- struct{}{}
			if res := p.Wait(); !res.Is(wire.KeyCopyAborted, c.code) {
				t.Errorf("got %v, want COPY ABORTED with %04X", res, c.code)
			}
			if n := r.probes[1].count(block.Write); n != 0 {
				t.Errorf("%d writes to a unit that was taken away", n)
			}
		})
	}
}

// TestCopyIsWaitedFor checks that what takes a unit from an initiator waits for the request that an EXTENDED
// COPY(LID1) sent to another unit has under way on it: PREEMPT AND ABORT, LOGICAL UNIT RESET, the loss of the
// nexus (SPC-4 §5.13.11.2.6, SAM-5 §6.3.3, §6.3.4).
func TestCopyIsWaitedFor(t *testing.T) {
	for name, take := range map[string]func(r *rig, done func()){
		"preempt and abort": func(r *rig, done func()) {
			rs := &r.Units[1].Reservations
			other := unit.Initiator{Name: "iqn.other", Port: 1}
			for i, from := range []unit.Initiator{other, r.n.Initiator()} {
				if err := rs.Register(unit.Register{From: from, NewKey: uint64(1 + i)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := rs.Reserve(r.n.Initiator(), 2, unit.WriteExclusiveRegistrantsOnly); err != nil {
				t.Fatal(err)
			}
			if err := rs.Preempt(unit.Preempt{From: other, Key: 1, Target: 2, Type: unit.WriteExclusiveRegistrantsOnly, Abort: true}, done); err != nil {
				t.Fatal(err)
			}
		},
		"reset": func(r *rig, done func()) {
			r.Nexus("b", 1).Nexus.Manage(scsi.LogicalUnitReset, wire.EncodeLUN(1), 0, func(scsi.Response) { done() })
		},
		"nexus loss": func(r *rig, done func()) { r.n.Nexus.Close(done) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			p, writing := r.stopAt(1, block.Write)
			done := make(chan struct{})
			take(r, func() { close(done) })
			select {
			case <-done:
				t.Error("done with a write under way")
			case <-time.After(10 * time.Millisecond):
			}
			delete(r.probes[1].stopped, block.Write)
			writing <- struct{}{}
			<-done
			p.Wait()
		})
	}
}

// TestAbortedBeforeSlot checks ABORT TASK of a copy that waits for those of others (SAM-5 §7.2).
func TestAbortedBeforeSlot(t *testing.T) {
	r := newRig(t)
	for range maxConcurrent {
		r.m.slots <- struct{}{}
	}
	params := copyParameters(1, 0, list(r.describe(0), r.describe(1)), list(blockToBlock(0, 1, 8, 0, 0)))
	p := r.n.Start(0, scsi.AttrSimple, outCDB(actionExtendedCopy, 0, len(params)), params)
	if got := r.n.Manage(scsi.AbortTask, 0, p.Tag()); got != scsi.FunctionComplete {
		t.Errorf("response %d", got)
	}
	if res := p.Wait(); !res.Aborted {
		t.Errorf("got %v", res)
	}
	for range maxConcurrent {
		<-r.m.slots
	}
	r.good(r.extendedCopy(params))
}
