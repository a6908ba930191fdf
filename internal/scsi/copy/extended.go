package copy

import (
	"errors"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// inexactSegment is INEXACT SEGMENT: the bytes are no whole number of blocks.
const inexactSegment uint16 = 0x260A

// plan is a segment with its units found and its ranges checked.
type plan struct {
	src, dst       endpoint
	srcOff, dstOff int64
	n              int64
}

// runExtendedCopy is EXTENDED COPY(LID1) (SPC-4 §6.4). The list is checked as a
// whole before the first byte is copied. Initiators that discard results may use
// a list identifier again while it is in use: then nothing is kept.
func (m *Manager) runExtendedCopy(t *scsi.Task) {
	want := length(t.CDB)
	if want == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	if uint32(len(t.DataOut)) < want {
		finish(t, illegal(wire.ParameterListLengthError))
		return
	}
	list, err := parseCopyList(t.DataOut)
	if err != nil {
		finish(t, err)
		return
	}
	var r *result
	if list.usage != usageNone {
		key := resultKey{t.Nexus.Initiator(), t.LU.Unit().ID(), true, uint32(list.id)}
		r = m.begin(key, actionExtendedCopy, t.LU.Unit().BlockShift())
		if r == nil && list.usage == usageHold {
			finish(t, illegal(wire.OperationInProgress))
			return
		}
	}
	m.start(t, r, func() error { return m.extendedCopy(t, list, r) })
}

func (m *Manager) extendedCopy(t *scsi.Task, list copyList, r *result) error {
	plans := make([]plan, len(list.segments))
	for i, s := range list.segments {
		var err error
		if plans[i], err = s.plan(t, list.targets); err != nil {
			return atSegment(err, i)
		}
	}
	mv := newMover(t)
	defer mv.close()
	for i, p := range plans {
		err := mv.move(job{
			src: p.src, dst: p.dst, srcOff: p.srcOff, dstOff: p.dstOff, n: p.n,
			moved:  func(n int64) { m.count(r, n) },
			failed: func(err error) error { return deviceError(t, err) },
			allow:  func() error { return p.allow(t.Nexus) },
		})
		if err != nil {
			return atSegment(err, i)
		}
		m.countSegment(r)
	}
	return nil
}

// atSegment adds the number of the segment that failed to the sense (SPC-4
// §5.16.7.4): the low half of COMMAND-SPECIFIC INFORMATION.
func atSegment(err error, i int) error {
	var e *senseError
	if errors.As(err, &e) {
		e.sense.CommandSpecific, e.sense.HasCommandSpecific = uint64(i), true
	}
	return err
}

func (p *plan) allow(n *scsi.Nexus) error {
	if err := p.src.allow(n, unit.AccessRead); err != nil {
		return err
	}
	return p.dst.allow(n, unit.AccessWrite)
}

// plan checks a segment against its units.
func (s *segment) plan(t *scsi.Task, targets []target) (p plan, err error) {
	find := func(id uint16) (endpoint, error) {
		switch {
		case id == ownUnit:
			return endpoint{lu: t.LU, lun: t.LUN}, nil
		case int(id) >= len(targets):
			return endpoint{}, aborted(wire.CopyTargetNotReachable)
		}
		return targets[id].resolve(t.Nexus)
	}
	if p.src, err = find(s.src); err != nil {
		return p, err
	}
	if p.dst, err = find(s.dst); err != nil {
		return p, err
	}
	if err := p.allow(t.Nexus); err != nil {
		return p, err
	}
	from, to := p.src.unit(), p.dst.unit()
	n := s.count
	switch {
	case s.inBytes:
	case s.ofDestination:
		n <<= to.BlockShift()
	default:
		n <<= from.BlockShift()
	}
	if n%uint64(from.BlockSize()) != 0 || n%uint64(to.BlockSize()) != 0 ||
		uint32(s.srcByte)%from.BlockSize() != 0 || uint32(s.dstByte)%to.BlockSize() != 0 {
		return p, aborted(inexactSegment)
	}
	// Out of range is reported without an additional sense code, as SPC-4
	// has none for the units of a copy.
	srcFirst, srcOK := within(p.src, s.srcLBA, uint64(s.srcByte), n)
	dstFirst, dstOK := within(p.dst, s.dstLBA, uint64(s.dstByte), n)
	if !srcOK || !dstOK {
		return p, aborted(wire.NoAdditionalSense)
	}
	p.srcOff, p.dstOff, p.n = srcFirst, dstFirst, int64(n)
	return p, nil
}

// within returns the byte offset of a range, and whether it lies in the unit.
func within(e endpoint, lba, offset, n uint64) (int64, bool) {
	u := e.unit()
	if lba > u.Blocks() {
		return 0, false
	}
	first := lba<<u.BlockShift() + offset
	return int64(first), first <= e.bytes() && n <= e.bytes()-first
}
