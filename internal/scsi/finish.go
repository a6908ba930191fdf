package scsi

import (
	"errors"

	"lintel.io/lintel/internal/block"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// Sense is a sense key with additional sense code and qualifier, and what goes with them.
type Sense = wire.Sense

// Finish ends the task with a status that carries no sense data.
func (t *Task) Finish(s Status) {
	t.Status = s
	p := t.path
	if p == nil {
		t.Owner.TaskDone(t)
		return
	}
	lu, owner, ordered := t.LU, t.Owner, t.Attr == AttrOrdered
	p.mu.Lock()
	p.unlinkLocked(t)
	p.countLocked(t)
	drains := t.drains
	t.drains = nil
	p.mu.Unlock()
	if mode := t.cancelled.Load(); mode != cancelNone {
		t.applyCancel(mode)
	}
	owner.TaskDone(t)
	for _, d := range drains {
		d.Release()
	}
	if ordered {
		lu.order.leave()
	}
	if ordered || lu.order.held.Load() != 0 {
		lu.order.wake(lu)
	}
}

// Fail ends the task with CHECK CONDITION and the given sense.
func (t *Task) Fail(s Sense) {
	t.putSense(&s)
	t.Finish(StatusCheckCondition)
}

func (t *Task) putSense(s *Sense) {
	if t.LU != nil && t.LU.flags.Load()&flagDescriptorSense != 0 {
		t.SenseLen = s.PutDescriptor(t.Sense[:])
	} else {
		t.SenseLen = s.PutFixed(t.Sense[:])
	}
}

// fail ends the task with a sense that has no more than key and code.
func (t *Task) fail(key uint8, code uint16) { t.Fail(Sense{Key: key, Code: code}) }

// FailField ends the task with ILLEGAL REQUEST, INVALID FIELD IN CDB (or in
// PARAMETER LIST where inData) and a field pointer to the byte and bit; bit -1 for
// the whole byte.
func (t *Task) FailField(inData bool, byteOffset, bit int) {
	code := wire.InvalidFieldInCDB
	if inData {
		code = wire.InvalidFieldInParameterList
	}
	t.Fail(Sense{Key: wire.KeyIllegalRequest, Code: code, Specific: wire.FieldPointer(inData, byteOffset, bit)})
}

// FailIO ends the task with the sense that a device error stands for:
// KindMedium 3/11/00 for a read and 4/0C/02 for all else, with the LBA of the first bad
// block, where known, in INFORMATION, KindNoSpace 7/27/07 (DATA PROTECT, SPACE
// ALLOCATION FAILED WRITE PROTECT), KindReadOnly 7/27/00, KindGone 2/04/01 while it may
// come back, else 4/44/00.
func (t *Task) FailIO(err error) { t.Fail(t.IOSense(err)) }

// IOSense returns the sense that FailIO ends a task with.
func (t *Task) IOSense(err error) Sense {
	switch block.KindOf(err) {
	case block.KindMedium:
		s := Sense{Key: wire.KeyMediumError, Code: wire.UnrecoveredReadError}
		var e *block.Error
		if errors.As(err, &e) {
			if e.Op != block.Read {
				// A host takes a write that failed with MEDIUM ERROR for the
				// failure of its path (Linux does), and tries the paths in turn for ever.
				s.Key, s.Code = wire.KeyHardwareError, wire.WriteError
			}
			s.Information, s.HasInfo = uint64(max(e.Off, 0))>>t.LU.unit.BlockShift(), e.Off >= 0
		}
		return s
	case block.KindNoSpace:
		return Sense{Key: wire.KeyDataProtect, Code: wire.SpaceAllocationFailed}
	case block.KindReadOnly:
		return Sense{Key: wire.KeyDataProtect, Code: wire.WriteProtected}
	case block.KindGone:
		return Sense{Key: wire.KeyNotReady, Code: wire.BecomingReady}
	}
	return Sense{Key: wire.KeyHardwareError, Code: wire.InternalTargetFailure}
}
