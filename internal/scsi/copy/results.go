package copy

import (
	"encoding/binary"
	"errors"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// resultKey names a copy operation: list identifiers belong to an I_T_L nexus,
// those of one and of four bytes are apart.
type resultKey struct {
	from  unit.Initiator
	unit  unit.ID
	short bool // LID1
	id    uint32
}

// result is what is known of a copy operation, under way or ended. It is guarded
// by Manager.mu.
type result struct {
	key      resultKey
	action   byte
	running  bool
	failed   bool
	aborted  bool
	sense    []byte // fixed format, where failed
	bytes    int64
	segments int
	shift    uint8  // of the unit's block size
	token    []byte // of a POPULATE TOKEN that has succeeded
}

// results keeps the last operations. The oldest that have ended make room.
type results struct {
	entries map[resultKey]*result
	order   []*result // oldest first
}

// begin notes an operation under way; nil where one with the same list
// identifier has not ended.
func (m *Manager) begin(key resultKey, action byte, shift uint8) *result {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old := m.results.entries[key]; old != nil {
		if old.running {
			return nil
		}
		m.results.drop(old)
	}
	for i := 0; len(m.results.order) >= maxResults && i < len(m.results.order); {
		if old := m.results.order[i]; old.running {
			i++
		} else {
			m.results.drop(old)
		}
	}
	r := &result{key: key, action: action, shift: shift, running: true}
	m.results.entries[key] = r
	m.results.order = append(m.results.order, r)
	return r
}

func (rs *results) drop(r *result) {
	delete(rs.entries, r.key)
	for i, o := range rs.order {
		if o == r {
			rs.order = append(rs.order[:i], rs.order[i+1:]...)
			return
		}
	}
}

// count adds moved bytes; r may be nil.
func (m *Manager) count(r *result, n int64) {
	if r != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		r.bytes += n
	}
}

func (m *Manager) countSegment(r *result) {
	if r != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		r.segments++
	}
}

// end notes how an operation has ended; r may be nil.
func (m *Manager) end(r *result, err error) {
	if r == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r.running = false
	switch {
	case errors.Is(err, errCancelled):
		r.failed, r.aborted = true, true
	case err != nil:
		s := senseOf(err)
		r.failed = true
		r.sense = make([]byte, wire.FixedSenseLength)
		s.PutFixed(r.sense)
	}
}

// lookup returns a copy of the result that a RECEIVE COPY command asks for.
func (m *Manager) lookup(t *scsi.Task, short bool, id uint32) (result, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.results.entries[resultKey{t.Nexus.Initiator(), t.LU.Unit().ID(), short, id}]
	if r == nil {
		return result{}, false
	}
	return *r, true
}

// runCopyStatus is RECEIVE COPY STATUS(LID1) (SPC-4 §6.25).
func (m *Manager) runCopyStatus(t *scsi.Task) {
	r, ok := m.lookup(t, true, uint32(t.CDB[2]))
	if !ok {
		t.FailField(false, 2, -1)
		return
	}
	b := make([]byte, 12)
	binary.BigEndian.PutUint32(b, 8)
	switch {
	case r.running:
	case r.failed:
		b[4] = 0x02
	default:
		b[4] = 0x01
	}
	binary.BigEndian.PutUint16(b[5:], uint16(r.segments))
	units, count := transferCount(r.bytes)
	b[7] = units
	binary.BigEndian.PutUint32(b[8:], count)
	reply(t, b)
}

// transferCount returns the TRANSFER COUNT UNITS, as a power of 1024, and the
// count that fits.
func transferCount(bytes int64) (units byte, count uint32) {
	for bytes > 1<<32-1 {
		bytes >>= 10
		units++
	}
	return units, uint32(bytes)
}

// runReceiveData is RECEIVE COPY DATA(LID1) (SPC-4 §6.21): no segment holds data.
func (m *Manager) runReceiveData(t *scsi.Task) {
	if r, ok := m.lookup(t, true, uint32(t.CDB[2])); !ok || r.running {
		t.FailField(false, 2, -1)
		return
	}
	reply(t, make([]byte, 4))
}

// runFailureDetails is RECEIVE COPY FAILURE DETAILS(LID1) (SPC-4 §6.22).
func (m *Manager) runFailureDetails(t *scsi.Task) {
	r, ok := m.lookup(t, true, uint32(t.CDB[2]))
	if !ok || r.running {
		t.FailField(false, 2, -1)
		return
	}
	if !r.failed || r.aborted {
		reply(t, make([]byte, 4))
		return
	}
	b := make([]byte, 60, 60+len(r.sense))
	b[56] = byte(scsi.StatusCheckCondition)
	binary.BigEndian.PutUint16(b[58:], uint16(len(r.sense)))
	b = append(b, r.sense...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	reply(t, b)
}

// runTokenInformation is RECEIVE ROD TOKEN INFORMATION (SPC-4 §6.28).
func (m *Manager) runTokenInformation(t *scsi.Task) {
	const (
		completed  = 0x01
		withErrors = 0x02
		foreground = 0x11
		terminated = 0x60
		blocks     = 0xF1 // TRANSFER COUNT UNITS
	)
	r, ok := m.lookup(t, false, wire.Uint32(t.CDB[2:]))
	if !ok {
		t.FailField(false, 2, -1)
		return
	}
	b := make([]byte, 32, 32+wire.FixedSenseLength+4+2+tokenLength)
	b[4] = r.action
	switch {
	case r.running:
		b[5] = foreground
		binary.BigEndian.PutUint32(b[8:], 100) // ESTIMATED STATUS UPDATE DELAY, ms
	case r.aborted:
		b[5] = terminated
	case r.failed:
		b[5], b[12] = withErrors, byte(scsi.StatusCheckCondition)
	default:
		b[5] = completed
	}
	binary.BigEndian.PutUint16(b[6:], 1) // OPERATION COUNTER
	b[13], b[14] = byte(len(r.sense)), byte(len(r.sense))
	b[15] = blocks
	binary.BigEndian.PutUint64(b[16:], uint64(r.bytes)>>r.shift)
	binary.BigEndian.PutUint16(b[24:], uint16(r.segments))
	b = append(b, r.sense...)
	if r.token == nil {
		b = append(b, 0, 0, 0, 0)
	} else {
		b = binary.BigEndian.AppendUint32(b, 2+tokenLength)
		b = append(append(b, 0, 0), r.token...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	reply(t, b)
}
