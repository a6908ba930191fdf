package scsi_test

import (
	"testing"
	"testing/synctest"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// manage starts a function and returns where its response arrives.
func manage(n *scsitest.Nexus, f scsi.Function, lun uint16, tag uint64) chan scsi.Response {
	done := make(chan scsi.Response, 1)
	n.Nexus.Manage(f, wire.EncodeLUN(lun), tag, func(r scsi.Response) { done <- r })
	return done
}

// pending fails the test where a response is there already.
func pending(t *testing.T, done chan scsi.Response) {
	t.Helper()
	synctest.Wait()
	if len(done) != 0 {
		t.Fatal("the response came before the command had ended")
	}
}

func wantResponse(t *testing.T, got, want scsi.Response) {
	t.Helper()
	if got != want {
		t.Fatalf("response %d, want %d", got, want)
	}
}

func wantAborted(t *testing.T, p *scsitest.Pending) {
	t.Helper()
	if r := p.Wait(); !r.Aborted {
		t.Fatalf("got %v, want no response", r)
	}
}

// TestAbortTask checks ABORT TASK (SAM-5 §7.2, RFC 7143 §11.5.1).
func TestAbortTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 1)
		n, other := b.Nexus("a", 1), b.Nexus("b", 1)
		p, q := n.Start(0, scsi.AttrSimple, parkCDB, nil), n.Start(0, scsi.AttrSimple, parkCDB, nil)
		task, rest := <-parked, <-parked
		wantResponse(t, other.Manage(scsi.AbortTask, 0, p.Tag()+1000), scsi.TaskDoesNotExist)
		done := manage(n, scsi.AbortTask, 0, p.Tag())
		pending(t, done)
		if !task.Cancelled() || rest.Cancelled() {
			t.Error("another task than the named one is cancelled")
		}
		again := manage(n, scsi.AbortTask, 0, p.Tag())
		task.Finish(scsi.StatusGood)
		wantResponse(t, <-done, scsi.FunctionComplete)
		wantResponse(t, <-again, scsi.FunctionComplete)
		wantAborted(t, p)
		wantResponse(t, n.Manage(scsi.AbortTask, 0, p.Tag()), scsi.TaskDoesNotExist)
		rest.Finish(scsi.StatusGood)
		wantGood(t, q.Wait())
	})
}

// TestAbortTaskSet checks ABORT TASK SET (SAM-5 §7.3).
func TestAbortTaskSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 2)
		n, other := b.Nexus("a", 1), b.Nexus("b", 1)
		mine := []*scsitest.Pending{n.Start(0, scsi.AttrSimple, parkCDB, nil), n.Start(0, scsi.AttrSimple, parkCDB, nil)}
		elsewhere := n.Start(1, scsi.AttrSimple, parkCDB, nil)
		others := other.Start(0, scsi.AttrSimple, parkCDB, nil)
		done := manage(n, scsi.AbortTaskSet, 0, 0)
		(<-parked).Finish(scsi.StatusGood)
		pending(t, done)
		(<-parked).Finish(scsi.StatusGood)
		wantResponse(t, <-done, scsi.FunctionComplete)
		wantAborted(t, mine[0])
		wantAborted(t, mine[1])
		(<-parked).Finish(scsi.StatusGood)
		(<-parked).Finish(scsi.StatusGood)
		wantGood(t, elsewhere.Wait())
		wantGood(t, others.Wait())
		wantResponse(t, n.Manage(scsi.AbortTaskSet, 0, 0), scsi.FunctionComplete)
		wantAttentions(t, other, 0)
	})
}

// TestClearTaskSet checks CLEAR TASK SET and TAS (SAM-5 §7.4, §5.6).
func TestClearTaskSet(t *testing.T) {
	for _, tas := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b, parked := parking(t, 1)
			n, other := b.Nexus("a", 1), b.Nexus("b", 1)
			if tas {
				page := modePage(t, n, 0, 0x0A, 0)
				page[5] |= 0x40
				wantGood(t, modeSelect(n, false, page))
				wantAttentions(t, other, 0, wire.ModeParametersChanged)
			}
			mine, others := n.Start(0, scsi.AttrSimple, parkCDB, nil), other.Start(0, scsi.AttrSimple, parkCDB, nil)
			done := manage(n, scsi.ClearTaskSet, 0, 0)
			(<-parked).Finish(scsi.StatusGood)
			pending(t, done)
			(<-parked).Finish(scsi.StatusGood)
			wantResponse(t, <-done, scsi.FunctionComplete)
			wantAborted(t, mine)
			wantAttentions(t, n, 0)
			if tas {
				wantStatus(t, others.Wait(), scsi.StatusTaskAborted)
				wantAttentions(t, other, 0)
				return
			}
			wantAborted(t, others)
			wantAttentions(t, other, 0, wire.CommandsClearedByOther)
		})
	}
}

// TestLogicalUnitReset checks LOGICAL UNIT RESET (SAM-5 §7.7, §6.3.3).
func TestLogicalUnitReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 2)
		n, other := b.Nexus("a", 1), b.Nexus("b", 2)
		if err := b.Units[0].Reservations.ReserveUnit(n.Initiator()); err != nil {
			t.Fatal(err)
		}
		mine := n.Start(0, scsi.AttrSimple, parkCDB, nil)
		elsewhere := n.Start(1, scsi.AttrSimple, parkCDB, nil)
		first, second := <-parked, <-parked
		done := manage(n, scsi.LogicalUnitReset, 0, 0)
		pending(t, done)
		first.Finish(scsi.StatusGood)
		wantResponse(t, <-done, scsi.FunctionComplete)
		wantAborted(t, mine)
		wantAttentions(t, n, 0, wire.BusDeviceResetOccurred)
		wantAttentions(t, other, 0, wire.BusDeviceResetOccurred)
		wantAttentions(t, other, 1)
		second.Finish(scsi.StatusGood)
		wantGood(t, elsewhere.Wait())
	})
}

// TestTargetReset checks TARGET WARM RESET and TARGET COLD RESET (SAM-5 §6.3.2, RFC 7143 §11.5.1).
func TestTargetReset(t *testing.T) {
	for _, f := range []scsi.Function{scsi.TargetWarmReset, scsi.TargetColdReset} {
		told := make(chan scsi.Function, 1)
		b := scsitest.New(t, scsitest.Config{Units: 3, OnReset: func(_ *scsi.Nexus, f scsi.Function) { told <- f }})
		n, other := b.NewNexus("a", 1, scsi.LUNMap{0: {LU: b.LUs[0]}, 1: {LU: b.LUs[1]}, 2: {LU: b.LUs[1]}}), b.Nexus("b", 1)
		attentions(t, n, 0)
		wantResponse(t, n.Manage(f, 0, 0), scsi.FunctionComplete)
		if got := <-told; got != f {
			t.Errorf("the transport was told of function %d", got)
		}
		wantAttentions(t, n, 0, wire.BusDeviceResetOccurred)
		wantAttentions(t, other, 0, wire.BusDeviceResetOccurred)
		wantAttentions(t, other, 1, wire.BusDeviceResetOccurred)
		wantAttentions(t, other, 2) // the nexus that asked does not see this unit
	}
}

// TestNexusReset checks I_T NEXUS RESET (SAM-5 §7.6).
func TestNexusReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 2)
		n, other := b.Nexus("a", 1), b.Nexus("b", 1)
		if err := b.Units[1].Reservations.ReserveUnit(n.Initiator()); err != nil {
			t.Fatal(err)
		}
		p, q := n.Start(0, scsi.AttrSimple, parkCDB, nil), n.Start(1, scsi.AttrSimple, parkCDB, nil)
		done := manage(n, scsi.ITNexusReset, 0, 0)
		(<-parked).Finish(scsi.StatusGood)
		pending(t, done)
		(<-parked).Finish(scsi.StatusGood)
		wantResponse(t, <-done, scsi.FunctionComplete)
		wantAborted(t, p)
		wantAborted(t, q)
		wantAttentions(t, n, 0, wire.NexusLossOccurred)
		wantAttentions(t, other, 1) // neither a reservation conflict nor an attention
	})
}

// TestQueryTask checks QUERY TASK and QUERY TASK SET (SAM-5 §7.9, §7.10).
func TestQueryTask(t *testing.T) {
	b, parked := parking(t, 1)
	n := b.Nexus("a", 1)
	wantResponse(t, n.Manage(scsi.QueryTaskSet, 0, 0), scsi.FunctionComplete)
	p := n.Start(0, scsi.AttrSimple, parkCDB, nil)
	wantResponse(t, n.Manage(scsi.QueryTaskSet, 0, 0), scsi.FunctionSucceeded)
	wantResponse(t, n.Manage(scsi.QueryTask, 0, p.Tag()), scsi.FunctionSucceeded)
	wantResponse(t, n.Manage(scsi.QueryTask, 0, p.Tag()+1), scsi.FunctionComplete)
	(<-parked).Finish(scsi.StatusGood)
	wantGood(t, p.Wait())
}

// TestRefusedFunctions checks CLEAR ACA, TASK REASSIGN and unknown LUNs (SAM-5 §7.5, RFC 7143 §11.6.1).
func TestRefusedFunctions(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{}).Nexus("a", 1)
	wantResponse(t, n.Manage(scsi.ClearACA, 0, 0), scsi.FunctionNotSupported)
	wantResponse(t, n.Manage(scsi.TaskReassign, 0, 0), scsi.ReassignNotSupported)
	wantResponse(t, n.Manage(scsi.QueryAsyncEvent, 0, 0), scsi.FunctionNotSupported)
	wantResponse(t, n.Manage(99, 0, 0), scsi.FunctionNotSupported)
	wantResponse(t, n.Manage(scsi.LogicalUnitReset, 9, 0), scsi.LUNDoesNotExist)
}

// TestPreemptAborts checks the end of commands by PREEMPT AND ABORT (SPC-4 §5.13.11.2.6).
func TestPreemptAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 1)
		n, victim := b.Nexus("a", 1), b.Nexus("b", 1)
		r := &b.Units[0].Reservations
		registerKey(t, r, n, 1)
		registerKey(t, r, victim, 2)
		p := victim.Start(0, scsi.AttrSimple, parkCDB, nil)
		done := make(chan scsi.Response, 1)
		preemptAndAbort(t, r, n, 1, 2, func() { done <- scsi.FunctionComplete })
		pending(t, done)
		(<-parked).Finish(scsi.StatusGood)
		<-done
		wantAborted(t, p)
		got := attentions(t, victim, 0)
		if len(got) != 2 || got[0] != wire.CommandsClearedByOther || got[1] != wire.RegistrationsPreempted {
			t.Errorf("unit attentions %04X", got)
		}
	})
}

// TestNexusLoss checks the loss of an I_T nexus (SAM-5 §6.3.4).
func TestNexusLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 1)
		n := b.Nexus("a", 1)
		p := n.Start(0, scsi.AttrSimple, parkCDB, nil)
		closed := false
		n.Nexus.Close(func() { closed = true })
		synctest.Wait()
		if closed {
			t.Fatal("the nexus is closed while its command runs")
		}
		wantSense(t, n.Do(0, testUnitReady, nil), wire.KeyIllegalRequest, wire.LogicalUnitNotSupported)
		(<-parked).Finish(scsi.StatusGood)
		if !closed {
			t.Error("the nexus is not closed")
		}
		wantAborted(t, p)
		n.Close()
		n.SetLUNs(b.LUNs())
		if len(n.LUNs()) != 0 || b.Units[0].Attached() != 0 {
			t.Error("a closed nexus sees units")
		}
	})
}

// TestUnmap checks commands on a LUN that is taken away (SAM-5 §5.11).
func TestUnmap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 2)
		n := b.Nexus("a", 1)
		p := n.Start(1, scsi.AttrSimple, parkCDB, nil)
		n.SetLUNs(scsi.LUNMap{0: {LU: b.LUs[0]}})
		(<-parked).Finish(scsi.StatusGood)
		wantSense(t, p.Wait(), wire.KeyIllegalRequest, wire.LogicalUnitNotSupported)
	})
}

// TestRemoveUnit checks that a removed unit's commands have ended when it is let go (SAM-5 §5.11).
func TestRemoveUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 2)
		n := b.Nexus("a", 1)
		if _, err := b.Target.AddUnit(b.Units[1]); err == nil {
			t.Error("a unit was added twice")
		}
		p := n.Start(1, scsi.AttrSimple, parkCDB, nil)
		removed := false
		b.Target.RemoveUnit(b.LUs[1], func() { removed = true })
		synctest.Wait()
		if removed {
			t.Fatal("the unit is removed while a command runs")
		}
		wantSense(t, n.Do(1, testUnitReady, nil), wire.KeyIllegalRequest, wire.LogicalUnitNotSupported)
		wantResponse(t, n.Manage(scsi.AbortTaskSet, 1, 0), scsi.LUNDoesNotExist)
		if luns := n.LUNs(); len(luns) != 1 || len(b.Target.Units()) != 1 {
			t.Errorf("LUNs %d, units %d", luns, len(b.Target.Units()))
		}
		if _, ok := n.Lookup(wire.EncodeLUN(1)); ok {
			t.Error("the LUN still leads somewhere")
		}
		(<-parked).Finish(scsi.StatusGood)
		if !removed {
			t.Error("the unit is not removed")
		}
		wantSense(t, p.Wait(), wire.KeyIllegalRequest, wire.LogicalUnitNotSupported)
		n.SetLUNs(b.LUNs()) // the removed unit is not taken
		if luns := n.LUNs(); len(luns) != 1 {
			t.Errorf("LUNs %d", luns)
		}
	})
}
