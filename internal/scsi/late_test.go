package scsi_test

import (
	"slices"
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// counting returns a bench whose WRITE counts how often it was executed.
func counting(t *testing.T, units int) (b *scsitest.Bench, writes *int) {
	writes = new(int)
	families := testCommands(nil)
	families[0][1].Run = func(t *scsi.Task) {
		*writes++
		t.Finish(scsi.StatusGood)
	}
	return scsitest.New(t, scsitest.Config{Units: units, Families: families}), writes
}

// TestLateCommand checks that a write whose data arrives after another initiator has ended the
// commands of the unit is not executed: CLEAR TASK SET, LOGICAL UNIT RESET, TARGET WARM RESET,
// PREEMPT AND ABORT (SAM-5 §7.4, §7.7, §6.3.2, SPC-4 §5.13.11.2.6).
func TestLateCommand(t *testing.T) {
	function := func(f scsi.Function) func(*scsitest.Bench, *scsitest.Nexus) {
		return func(_ *scsitest.Bench, by *scsitest.Nexus) { by.Manage(f, 0, 0) }
	}
	for name, c := range map[string]struct {
		end  func(*scsitest.Bench, *scsitest.Nexus)
		code uint16
	}{
		"CLEAR TASK SET":     {function(scsi.ClearTaskSet), wire.CommandsClearedByOther},
		"LOGICAL UNIT RESET": {function(scsi.LogicalUnitReset), wire.BusDeviceResetOccurred},
		"TARGET WARM RESET":  {function(scsi.TargetWarmReset), wire.BusDeviceResetOccurred},
		"PREEMPT AND ABORT": {func(b *scsitest.Bench, by *scsitest.Nexus) {
			for i, n := range []unit.Initiator{by.Initiator(), {Name: "iqn.2026-11.io.lintel.test:n,i,0x400000000001", Port: 1}} {
				if err := b.Units[0].Reservations.Register(unit.Register{From: n, NewKey: uint64(1 + i)}); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan struct{})
			if err := b.Units[0].Reservations.Preempt(unit.Preempt{From: by.Initiator(), Key: 1, Target: 2, Abort: true}, func() { close(done) }); err != nil {
				t.Fatal(err)
			}
			<-done
		}, wire.RegistrationsPreempted},
	} {
		t.Run(name, func(t *testing.T) {
			b, writes := counting(t, 1)
			by, n := b.Nexus("by", 1), b.Nexus("n", 1)
			late, own := n.Arrive(0, scsi.AttrSimple, writeCDB, make([]byte, 512)), by.Arrive(0, scsi.AttrSimple, writeCDB, make([]byte, 512))
			c.end(b, by)
			n.Execute(late.Task)
			if wantAborted(t, late); *writes != 0 {
				t.Error("the write was executed")
			}
			want := []uint16{c.code}
			if c.code == wire.RegistrationsPreempted {
				want = append(want, wire.CommandsClearedByOther)
			}
			codes := attentions(t, n, 0)
			if !slices.Equal(slices.Sorted(slices.Values(codes)), slices.Sorted(slices.Values(want))) {
				t.Errorf("unit attentions %04X, want %04X", codes, want)
			}
			wantGood(t, n.Do(0, writeCDB, make([]byte, 512)))
			attentions(t, by, 0)
			by.Execute(own.Task) // that of who asked is for the transport to end
			wantGood(t, own.Wait())
		})
	}
}

// TestLateCommandStatus checks that TASK ABORTED tells of such a command where TAS is set (SAM-5 §5.6).
func TestLateCommandStatus(t *testing.T) {
	b, writes := counting(t, 1)
	by, n := b.Nexus("by", 1), b.Nexus("n", 1)
	page := modePage(t, by, 0, 0x0A, 0)
	page[5] |= 0x40
	wantGood(t, modeSelect(by, false, page))
	attentions(t, n, 0)
	late := n.Arrive(0, scsi.AttrSimple, writeCDB, make([]byte, 512))
	wantResponse(t, by.Manage(scsi.ClearTaskSet, 0, 0), scsi.FunctionComplete)
	n.Execute(late.Task)
	if wantStatus(t, late.Wait(), scsi.StatusTaskAborted); *writes != 0 {
		t.Error("the write was executed")
	}
	wantAttentions(t, n, 0)
}

// TestLateCommandRemapped checks that a write whose data arrives after its LUN was given to another unit
// does not reach that unit (SAM-5 §5.11).
func TestLateCommandRemapped(t *testing.T) {
	b, writes := counting(t, 2)
	n := b.NewNexus("n", 1, scsi.LUNMap{0: {LU: b.LUs[0]}})
	attentions(t, n, 0)
	late := n.Arrive(0, scsi.AttrSimple, writeCDB, make([]byte, 512))
	n.SetLUNs(scsi.LUNMap{0: {LU: b.LUs[1]}})
	attentions(t, n, 0)
	n.Execute(late.Task)
	if wantSense(t, late.Wait(), wire.KeyIllegalRequest, wire.LogicalUnitNotSupported); *writes != 0 {
		t.Error("the write reached the other unit")
	}
	wantGood(t, n.Do(0, writeCDB, make([]byte, 512)))
}

// TestReservationOutlivesCommands checks that the SCSI-2 reservation of a lost or unmapped nexus ends after
// the commands that it was made for (SAM-5 §6.3.4, SPC-2 §5.5.1).
func TestReservationOutlivesCommands(t *testing.T) {
	for name, end := range map[string]func(b *scsitest.Bench, n *scsitest.Nexus){
		"nexus loss": func(_ *scsitest.Bench, n *scsitest.Nexus) { n.Nexus.Close(func() {}) },
		"unmapping":  func(b *scsitest.Bench, n *scsitest.Nexus) { n.SetLUNs(scsi.LUNMap{1: {LU: b.LUs[1]}}) },
	} {
		t.Run(name, func(t *testing.T) {
			b, parked := parking(t, 2)
			n, other := b.Nexus("a", 1), b.Nexus("b", 1)
			r := &b.Units[0].Reservations
			if err := r.ReserveUnit(n.Initiator()); err != nil {
				t.Fatal(err)
			}
			n.Start(0, scsi.AttrSimple, parkCDB, nil)
			task := <-parked
			end(b, n)
			if !r.Reserved(other.Initiator()) {
				t.Error("the reservation ended before the command")
			}
			task.Finish(scsi.StatusGood)
			if r.Reserved(other.Initiator()) {
				t.Error("the reservation has not ended")
			}
		})
	}
}

// TestReservationOfTwoLUNs checks that a SCSI-2 reservation stays for as long as a LUN of its nexus leads to the unit (SPC-2 §5.5.1).
func TestReservationOfTwoLUNs(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n, other := b.NewNexus("a", 1, scsi.LUNMap{0: {LU: b.LUs[0]}, 5: {LU: b.LUs[0]}}), b.Nexus("b", 1)
	r := &b.Units[0].Reservations
	if err := r.ReserveUnit(n.Initiator()); err != nil {
		t.Fatal(err)
	}
	n.SetLUNs(scsi.LUNMap{5: {LU: b.LUs[0]}})
	if !r.Reserved(other.Initiator()) {
		t.Error("the reservation ended with one of two LUNs")
	}
	n.SetLUNs(scsi.LUNMap{})
	if r.Reserved(other.Initiator()) {
		t.Error("the reservation has not ended")
	}
}
