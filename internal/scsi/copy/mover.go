package copy

import (
	"errors"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// endpoint is a unit that a copy reads or writes.
type endpoint struct {
	lu      *scsi.LogicalUnit
	lun     uint64 // by which the nexus sees it
	byToken bool   // it is read by a token, whether or not the nexus sees it
}

func (e endpoint) unit() *unit.Unit { return e.lu.Unit() }

// bytes returns the capacity.
func (e endpoint) bytes() uint64 { return e.unit().Blocks() << e.unit().BlockShift() }

// allow reports, as the sense of a failed copy, why a nexus may not access the
// endpoint now.
func (e endpoint) allow(n *scsi.Nexus, access unit.Access) error {
	u := e.unit()
	var m scsi.Mapping
	if !e.byToken {
		var ok bool
		if m, ok = n.Lookup(e.lun); !ok || m.LU != e.lu {
			return aborted(wire.CopyTargetNotReachable)
		}
	}
	if state := u.Group().State(n.Group()); state != unit.Optimized && state != unit.NonOptimized {
		return aborted(wire.CopyTargetNotReachable)
	}
	if sanitize, _ := e.lu.SanitizeState(); sanitize != scsi.SanitizeIdle || e.lu.Stopped() {
		return aborted(wire.CopyTargetNotReachable)
	}
	if u.Reservations.Conflicts(n.Initiator(), access) {
		return aborted(wire.ThirdPartyDeviceFailure)
	}
	if access == unit.AccessWrite && (m.ReadOnly || e.lu.ReadOnly() || e.lu.SoftwareWriteProtected()) {
		return aborted(wire.WriteProtected)
	}
	return nil
}

// enter is allow for a write that follows at once, and is over when leave is called: what takes the unit from
// the nexus waits for it.
func (e endpoint) enter(n *scsi.Nexus) (leave func(), err error) {
	leave, ok := n.Visit(e.lun, e.lu)
	if !ok {
		return nil, aborted(wire.CopyTargetNotReachable)
	}
	if err := e.allow(n, unit.AccessWrite); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// mover moves bytes for one command, one request at a time. It waits for each.
type mover struct {
	task *scsi.Task
	buf  *block.Buffer
	req  block.Request
	wait chan struct{}
}

var (
	_ block.Completer  = (*mover)(nil)
	_ unit.RangeWaiter = (*mover)(nil)
)

func newMover(t *scsi.Task) *mover {
	return &mover{task: t, buf: block.Get(chunkBytes), wait: make(chan struct{}, 1)}
}

func (m *mover) close() { m.buf.Put() }

// Cancelled reports whether the mover gives up to wait for a range.
func (m *mover) Cancelled() bool { return m.task.Cancelled() }

// RequestDone and RangeReady end the mover's wait.
func (m *mover) RequestDone(*block.Request)  { m.wait <- struct{}{} }
func (m *mover) RangeReady(*unit.RangeGuard) { m.wait <- struct{}{} }

func (m *mover) submit(u *unit.Unit, op block.Op, flags block.Flags, off, n int64, data []byte) error {
	m.req = block.Request{Op: op, Flags: flags, Off: off, Len: n, Data: data, Done: m}
	u.Device().Submit(&m.req)
	<-m.wait
	return m.req.Err
}

// holding runs f while the range of bytes is held against atomic writes.
func (m *mover) holding(u *unit.Unit, off, n int64, f func() error) error {
	shift, guard := u.BlockShift(), &m.task.Guard
	if !u.Ranges.Shared(guard, uint64(off)>>shift, uint64(n)>>shift, m) {
		<-m.wait
	}
	if !guard.Held() {
		return errCancelled
	}
	defer u.Ranges.Release(guard)
	return f()
}

// read fills the first n bytes of the buffer.
func (m *mover) read(src endpoint, off, n int64) error {
	u := src.unit()
	f := func() error { return m.submit(u, block.Read, 0, off, n, m.buf.Bytes(int(n))) }
	lane := m.task.Nexus.Lane()
	if !u.Ranges.BeginRead(lane) {
		return m.holding(u, off, n, f)
	}
	defer u.Ranges.EndRead(lane)
	return f()
}

// write stores n bytes: those in the buffer, or zeros.
func (m *mover) write(dst endpoint, off, n int64, zeros bool) error {
	u := dst.unit()
	var flags block.Flags
	if dst.lu.WriteThrough() {
		flags = block.FUA
	}
	return m.holding(u, off, n, func() error {
		if m.task.Cancelled() {
			return errCancelled
		}
		leave, err := dst.enter(m.task.Nexus)
		if err != nil {
			return err
		}
		defer leave()
		switch {
		case !zeros:
			return m.submit(u, block.Write, flags, off, n, m.buf.Bytes(int(n)))
		case u.Attributes().Thin:
			return m.submit(u, block.Discard, flags, off, n, nil)
		}
		return m.submit(u, block.Zero, flags, off, n, nil)
	})
}

// piece says how many of the n bytes at off the next step takes, a multiple of
// unit, and whether they are unallocated and read as zeros.
func piece(src endpoint, off, n, unit int64) (int64, bool) {
	allocated, same, err := src.unit().Device().Extent(off, min(n, holeBytes))
	if same = same / unit * unit; err != nil || same == 0 {
		allocated, same = true, n // reading tells
	}
	if allocated {
		return min(same, chunkBytes), false
	}
	return same, true
}

// job is n bytes to be moved.
type job struct {
	src, dst       endpoint
	srcOff, dstOff int64
	n              int64
	zeros          bool                 // there is no source
	changed        func() bool          // tells that the source is not what it was, nil for never
	moved          func(n int64)        // counts
	failed         func(e error) error  // turns a device's error into that of the copy
	allow          func() (cause error) // asks whether both endpoints may be accessed
}

// move does a job. The source is not held while the destination is waited for, so
// that two copies cannot wait for each other.
func (m *mover) move(j job) error {
	step := int64(1) << max(j.dst.unit().BlockShift(), 12)
	for j.n > 0 {
		if m.task.Cancelled() {
			return errCancelled
		}
		if err := j.allow(); err != nil {
			return err
		}
		n, zeros := min(j.n, holeBytes), true
		if !j.zeros {
			n, zeros = piece(j.src, j.srcOff, j.n, step)
		}
		if !zeros {
			if err := m.read(j.src, j.srcOff, n); err != nil {
				return j.failed(err)
			}
		}
		if j.changed != nil && j.changed() {
			return illegal(wire.TokenRevoked)
		}
		var refused *senseError
		if err := m.write(j.dst, j.dstOff, n, zeros); errors.Is(err, errCancelled) || errors.As(err, &refused) {
			return err
		} else if err != nil {
			return j.failed(err)
		}
		j.srcOff, j.dstOff, j.n = j.srcOff+n, j.dstOff+n, j.n-n
		j.moved(n)
	}
	return nil
}
