package copy

import (
	"errors"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// senseError ends a command with CHECK CONDITION.
type senseError struct{ sense scsi.Sense }

func (e *senseError) Error() string { return e.sense.String() }

// errCancelled says that task management has ended the command.
var errCancelled = errors.New("copy was aborted")

func illegal(code uint16) error {
	return &senseError{scsi.Sense{Key: wire.KeyIllegalRequest, Code: code}}
}

// badField is INVALID FIELD IN PARAMETER LIST with its pointer.
func badField(offset, bit int) error {
	return &senseError{scsi.Sense{
		Key:      wire.KeyIllegalRequest,
		Code:     wire.InvalidFieldInParameterList,
		Specific: wire.FieldPointer(true, offset, bit),
	}}
}

func aborted(code uint16) error {
	return &senseError{scsi.Sense{Key: wire.KeyCopyAborted, Code: code}}
}

// deviceError turns a device's error into the sense of a copy. What an
// administrator has to act on keeps its own sense; the rest is a failure of the
// device that the copy was to use.
func deviceError(t *scsi.Task, err error) error {
	switch block.KindOf(err) {
	case block.KindNoSpace, block.KindReadOnly:
		return &senseError{t.IOSense(err)}
	}
	return aborted(wire.ThirdPartyDeviceFailure)
}

// senseOf returns the sense that an error stands for.
func senseOf(err error) scsi.Sense {
	var e *senseError
	if errors.As(err, &e) {
		return e.sense
	}
	return scsi.Sense{Key: wire.KeyAbortedCommand}
}

// finish ends a task with what an error stands for.
func finish(t *scsi.Task, err error) {
	if err == nil || errors.Is(err, errCancelled) {
		t.Finish(scsi.StatusGood) // nobody sees the status of an aborted command
		return
	}
	t.Fail(senseOf(err))
}
