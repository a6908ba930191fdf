package copy

import (
	"crypto/subtle"
	"encoding/binary"
	"io"
	"time"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The ROD types (SPC-4 table 110, SBC-3 §4.30.4).
const (
	typePointInTime      = 0x00800000 // default
	typeChangeVulnerable = 0x00800001
	typeAnyPointInTime   = 0x0080FFFF
	typeBlockZero        = 0xFFFF0001
)

// tokenLength is the length of a ROD token, in bytes.
const tokenLength = 512

// tokenField is the value of the ROD TOKEN LENGTH field.
const tokenField = tokenLength - 8

// insufficientTokens is INSUFFICIENT RESOURCES TO CREATE ROD TOKEN.
const insufficientTokens uint16 = 0x550D

// token stands for blocks of a unit as they were when it was made. Who has its
// bytes, of which 32 are a secret, may read those blocks until the token
// expires. All but the marks is guarded by Manager.mu.
type token struct {
	id      uint64
	text    [tokenLength]byte
	src     endpoint
	ranges  []blockRange
	marks   []unit.RangeMark
	size    int64 // bytes
	timeout time.Duration
	expires time.Time
	users   int // commands that read through it
	deleted bool
}

// revoked reports whether blocks of the token have changed.
func (tk *token) revoked() bool {
	for i := range tk.marks {
		if tk.marks[i].Changed() {
			return true
		}
	}
	return false
}

type tokens struct {
	byID   map[uint64]*token
	ofUnit map[*unit.Unit]int
}

func (ts *tokens) drop(tk *token) {
	if ts.byID[tk.id] != tk {
		return
	}
	u := tk.src.unit()
	for i := range tk.marks {
		u.Ranges.Unmark(&tk.marks[i])
	}
	delete(ts.byID, tk.id)
	if ts.ofUnit[u]--; ts.ofUnit[u] == 0 {
		delete(ts.ofUnit, u)
	}
}

// sweep forgets the tokens that nobody can use any more.
func (ts *tokens) sweep(now time.Time) {
	for _, tk := range ts.byID {
		if tk.users == 0 && now.After(tk.expires) {
			ts.drop(tk)
		}
	}
}

// issue keeps a token whose ranges are marked, gives it its bytes, and returns
// them.
func (m *Manager) issue(tk *token) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.tokens.sweep(now)
	u := tk.src.unit()
	if len(m.tokens.byID) >= maxTokens || m.tokens.ofUnit[u] >= maxTokensOfUnit {
		return nil, illegal(insufficientTokens)
	}
	var random [8 + 32]byte
	if _, err := io.ReadFull(m.random, random[:]); err != nil {
		return nil, illegal(insufficientTokens)
	}
	tk.id = binary.BigEndian.Uint64(random[:])
	if m.tokens.byID[tk.id] != nil {
		return nil, illegal(insufficientTokens)
	}
	tk.expires = now.Add(tk.timeout)
	tk.write(random[8:])
	m.tokens.byID[tk.id] = tk
	m.tokens.ofUnit[u]++
	return append([]byte(nil), tk.text[:]...), nil
}

// write fills the token's bytes in (SPC-4 §5.16.6.4).
func (tk *token) write(secret []byte) {
	a := tk.src.unit().Attributes()
	b := tk.text[:]
	binary.BigEndian.PutUint32(b, typeChangeVulnerable)
	binary.BigEndian.PutUint16(b[6:], tokenField)
	binary.BigEndian.PutUint64(b[8:], tk.id)
	creator := b[16:48] // a CSCD descriptor
	creator[0] = descriptorIdentifier
	creator[4], creator[5], creator[7] = wire.CodeBinary, wire.DesignatorNAA, byte(len(a.NAA))
	copy(creator[8:28], a.NAA)
	wire.PutUint24(creator[29:], a.BlockSize)
	binary.BigEndian.PutUint64(b[56:], uint64(tk.size)) // NUMBER OF BYTES REPRESENTED, 16 bytes
	copy(b[128:], secret)
}

// use finds the token with these bytes and keeps it until unuse.
func (m *Manager) use(text []byte) (*token, error) {
	if binary.BigEndian.Uint32(text) != typeChangeVulnerable {
		return nil, illegal(wire.UnsupportedTokenType)
	}
	if binary.BigEndian.Uint16(text[6:]) != tokenField {
		return nil, illegal(wire.InvalidTokenLength)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	tk := m.tokens.byID[binary.BigEndian.Uint64(text[8:])]
	switch {
	case tk == nil:
		return nil, illegal(wire.TokenUnknown)
	case subtle.ConstantTimeCompare(tk.text[:], text) == 0:
		return nil, illegal(wire.TokenCorrupt)
	case tk.deleted:
		return nil, illegal(wire.TokenDeleted)
	case m.now().After(tk.expires):
		return nil, illegal(wire.TokenExpired)
	case tk.revoked():
		return nil, illegal(wire.TokenRevoked)
	}
	tk.users++
	return tk, nil
}

// unuse ends a use; the token's time begins anew. A deleted token is forgotten.
func (m *Manager) unuse(tk *token, deleted bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tk.users--
	tk.deleted = tk.deleted || deleted
	tk.expires = m.now().Add(tk.timeout)
	if tk.deleted && tk.users == 0 {
		m.tokens.drop(tk)
	}
}

// runPopulateToken is POPULATE TOKEN (SBC-3 §5.8).
func (m *Manager) runPopulateToken(t *scsi.Task) {
	if length(t.CDB) == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	p, err := parsePopulate(t.DataOut, length(t.CDB))
	if err == nil {
		err = checkRanges(p.ranges, t.LU.Unit())
	}
	if err == nil && overlap(p.ranges) {
		err = badField(populateRanges, -1)
	}
	m.runTokenCommand(t, actionPopulateToken, err, func(r *result) error { return m.populate(t, p, r) })
}

// runTokenCommand runs the long part of a command with a 4-byte list identifier,
// unless its parameters were wrong.
func (m *Manager) runTokenCommand(t *scsi.Task, action byte, err error, run func(*result) error) {
	if err != nil {
		finish(t, err)
		return
	}
	u := t.LU.Unit()
	r := m.begin(resultKey{t.Nexus.Initiator(), u.ID(), false, wire.Uint32(t.CDB[6:])}, action, u.BlockShift())
	if r == nil {
		finish(t, illegal(wire.OperationInProgress))
		return
	}
	m.start(t, r, func() error { return run(r) })
}

// mark marks the token's ranges, each when no write to it is under way.
func (tk *token) mark(t *scsi.Task) error {
	u := tk.src.unit()
	ready := waiter{t, make(chan struct{}, 1)}
	for i, b := range tk.ranges {
		if !u.Ranges.Exclusive(&t.Guard, b.first, b.count, ready) {
			<-ready.c
		}
		if !t.Guard.Held() {
			return errCancelled
		}
		u.Ranges.Mark(&tk.marks[i], &t.Guard)
		u.Ranges.Release(&t.Guard)
		tk.size += int64(b.count) << u.BlockShift()
	}
	return nil
}

// populate marks the ranges and makes the token.
func (m *Manager) populate(t *scsi.Task, p populateList, r *result) error {
	u := t.LU.Unit()
	tk := &token{src: endpoint{lu: t.LU, byToken: true}, ranges: p.ranges, timeout: p.timeout, marks: make([]unit.RangeMark, len(p.ranges))}
	err := tk.mark(t)
	if err == nil {
		err = checkRanges(p.ranges, u) // it may have shrunk
	}
	if err == nil && t.Cancelled() {
		err = errCancelled
	}
	var text []byte
	if err == nil {
		text, err = m.issue(tk)
	}
	if err != nil {
		for i := range tk.marks {
			u.Ranges.Unmark(&tk.marks[i])
		}
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.token, r.bytes, r.segments = text, tk.size, len(p.ranges)
	return nil
}

// waiter lets a goroutine wait for a range.
type waiter struct {
	t *scsi.Task
	c chan struct{}
}

func (w waiter) RangeReady(*unit.RangeGuard) { w.c <- struct{}{} }
func (w waiter) Cancelled() bool             { return w.t.Cancelled() }

// runWriteUsingToken is WRITE USING TOKEN (SBC-3 §5.49).
func (m *Manager) runWriteUsingToken(t *scsi.Task) {
	if length(t.CDB) == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	w, err := parseWriteToken(t.DataOut, length(t.CDB))
	if err == nil {
		err = checkRanges(w.ranges, t.LU.Unit())
	}
	m.runTokenCommand(t, actionWriteToken, err, func(r *result) error { return m.writeToken(t, w, r) })
}

func (m *Manager) writeToken(t *scsi.Task, w writeTokenList, r *result) error {
	j := job{
		dst:    endpoint{lu: t.LU, lun: t.LUN},
		moved:  func(n int64) { m.count(r, n) },
		failed: func(err error) error { return &senseError{t.IOSense(err)} },
	}
	j.allow = func() error { return j.dst.allow(t.Nexus, unit.AccessWrite) }
	if binary.BigEndian.Uint32(w.token) == typeBlockZero {
		if binary.BigEndian.Uint16(w.token[6:]) != tokenField {
			return illegal(wire.InvalidTokenLength)
		}
		j.zeros = true
		return m.writeRanges(t, w.ranges, j, nil, 0, r)
	}
	tk, err := m.use(w.token)
	if err != nil {
		return err
	}
	err = m.writeFrom(t, w, j, tk, r)
	m.unuse(tk, err == nil && w.deleteToken)
	return err
}

func (m *Manager) writeFrom(t *scsi.Task, w writeTokenList, j job, tk *token, r *result) error {
	shift := t.LU.Unit().BlockShift()
	if tk.src.unit().BlockShift() != shift {
		return illegal(wire.InvalidTokenOperation)
	}
	size := uint64(tk.size) >> shift
	if w.offset > size {
		return badField(writeOffset, -1)
	}
	if blocksOf(w.ranges) > size-w.offset {
		return badField(writeRanges, -1)
	}
	j.src, j.changed = tk.src, tk.revoked
	j.allow = func() error {
		if err := tk.src.allow(t.Nexus, unit.AccessRead); err != nil {
			return err
		}
		return j.dst.allow(t.Nexus, unit.AccessWrite)
	}
	j.failed = func(err error) error { return deviceError(t, err) }
	return m.writeRanges(t, w.ranges, j, tk, w.offset, r)
}

// writeRanges moves the token's blocks from offset on into the ranges, one after
// the other; there is no token where j writes zeros.
func (m *Manager) writeRanges(t *scsi.Task, ranges []blockRange, j job, tk *token, offset uint64, r *result) error {
	mv := newMover(t)
	defer mv.close()
	shift := t.LU.Unit().BlockShift()
	for _, dst := range ranges {
		for dst.count > 0 {
			n := dst.count
			if tk != nil {
				first, left := tk.at(offset)
				n = min(n, left)
				j.srcOff = int64(first) << shift
			}
			j.dstOff, j.n = int64(dst.first)<<shift, int64(n)<<shift
			if err := mv.move(j); err != nil {
				return err
			}
			offset, dst.first, dst.count = offset+n, dst.first+n, dst.count-n
		}
		m.countSegment(r)
	}
	return nil
}

// at returns the source block that a block of the token stands for, and how many
// follow it.
func (tk *token) at(offset uint64) (first, count uint64) {
	for _, b := range tk.ranges {
		if offset < b.count {
			return b.first + offset, b.count - offset
		}
		offset -= b.count
	}
	return 0, 0
}
