package scsi

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The POWER CONDITION field of START STOP UNIT (SBC-3 table 78).
const (
	powerStartValid = 0x0
	powerActive     = 0x1
	powerIdle       = 0x2
	powerStandby    = 0x3
	powerControl    = 0x7
)

// startStop runs START STOP UNIT (SBC-3 §5.24). The power conditions save no
// power and change nothing that an initiator can see; stopping flushes first.
func startStop(t *Task) {
	condition, flags := t.CDB[4]>>4, t.CDB[4]
	starts := condition == powerStartValid && flags&0x01 != 0
	if !starts && t.LU.unit.Reservations.Conflicts(t.Nexus.cfg.Initiator, unit.AccessWrite) {
		t.Finish(StatusReservationConflict)
		return
	}
	if t.CDB[3]&0x0F != 0 { // POWER CONDITION MODIFIER: one idle, one standby
		t.FailField(false, 3, 3)
		return
	}
	switch condition {
	case powerStartValid:
	case powerActive, powerIdle, powerStandby, powerControl:
		t.Finish(StatusGood)
		return
	default:
		t.FailField(false, 4, 7)
		return
	}
	switch {
	case flags&0x02 != 0: // LOEJ: the medium is not removable
		t.FailField(false, 4, 1)
	case starts:
		t.LU.setFlag(flagStopped, false)
		t.Finish(StatusGood)
	case flags&0x04 != 0: // NO_FLUSH
		t.LU.setFlag(flagStopped, true)
		t.Finish(StatusGood)
	default:
		t.Step = stopFlushed
		t.Req = block.Request{Op: block.Flush, Done: t}
		t.LU.unit.Device().Submit(&t.Req)
	}
}

func stopFlushed(t *Task) {
	if t.Req.Err != nil {
		t.FailIO(t.Req.Err)
		return
	}
	t.LU.setFlag(flagStopped, true)
	t.Finish(StatusGood)
}

// preventAllow runs PREVENT ALLOW MEDIUM REMOVAL (SPC-4 §6.13). There is
// no medium to remove, and so nothing to remember.
func preventAllow(t *Task) {
	prevent := t.CDB[4] & 0x03
	if prevent > 1 {
		t.FailField(false, 4, 1)
		return
	}
	if prevent == 1 && t.LU.unit.Reservations.Conflicts(t.Nexus.cfg.Initiator, unit.AccessWrite) {
		t.Finish(StatusReservationConflict)
		return
	}
	t.Finish(StatusGood)
}

// sendDiagnostic runs SEND DIAGNOSTIC (SPC-4 §6.42): the default self-test, which
// a unit that answers has passed. There are no diagnostic pages to send.
func sendDiagnostic(t *Task) {
	switch {
	case wire.Uint16(t.CDB[3:]) != 0:
		t.FailField(false, 3, -1)
	default:
		t.Finish(StatusGood)
	}
}

// receiveDiagnostic runs RECEIVE DIAGNOSTIC RESULTS (SPC-4 §6.24), with the
// Supported Diagnostic Pages page alone.
func receiveDiagnostic(t *Task) {
	if t.CDB[1]&0x01 == 0 { // PCV
		t.FailField(false, 1, 0)
		return
	}
	if t.CDB[2] != 0 {
		t.FailField(false, 2, -1)
		return
	}
	t.Reply([]byte{0, 0, 0, 1, 0}, int(wire.Uint16(t.CDB[3:])))
}
