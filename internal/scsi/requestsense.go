package scsi

import (
	wire "lintel.io/lintel/internal/wire/scsi"
)

// requestSense runs REQUEST SENSE (SPC-4 §6.39): it reports, and clears, a
// pending unit attention, else what keeps the unit from being ready.
func requestSense(t *Task) {
	s := t.noUnitSense()
	if t.LU != nil {
		if code, ok := t.path.takeAttention(); ok {
			s = Sense{Key: wire.KeyUnitAttention, Code: code}
		} else {
			s = t.LU.conditionSense()
		}
	}
	var b [MaxSense]byte
	put := s.PutFixed
	if t.CDB[1]&1 != 0 {
		put = s.PutDescriptor
	}
	t.Reply(b[:put(b[:])], int(t.CDB[4]))
}

// conditionSense tells what state the unit is in, as REQUEST SENSE reports it.
func (lu *LogicalUnit) conditionSense() Sense {
	flags := lu.flags.Load()
	switch {
	case flags&flagSanitize != 0:
		return lu.sanitizeSense()
	case flags&flagStopped != 0:
		return Sense{Key: wire.KeyNotReady, Code: wire.InitializingCommandRequired}
	}
	return Sense{Key: wire.KeyNoSense, Code: wire.NoAdditionalSense}
}
