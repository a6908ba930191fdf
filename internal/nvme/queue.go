package nvme

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// QueueConfig describes a transport connection.
type QueueConfig struct {
	Remote                   netip.AddrPort
	Local                    netip.AddrPort
	Port                     uint16 // id of the port (portal) that was reached
	TLS                      TLS
	HeaderDigest, DataDigest bool
	// InCapsule is how much data a command capsule of an I/O queue may hold, in bytes (a
	// multiple of 16; admin and Fabrics commands always have 8192).
	InCapsule int
	// Kill ends the connection from the controller's side. It must not block
	// and may be called from any goroutine, also from inside Execute, more
	// than once. The transport then calls Close.
	Kill func(error)
}

// MaxQueueDepth is how many entries a queue has at most (MQES).
const MaxQueueDepth = 1024

// defaultInCapsule is how much data a command capsule holds where the transport does not say.
const defaultInCapsule = 8192

// Queue is a submission and completion queue pair: one transport connection. It
// becomes the admin queue or an I/O queue of a controller by its first command,
// Connect. DataOutLength, Execute and Close are called one at a time; everything
// else may be called concurrently.
type Queue struct {
	sub    *Subsystem
	cfg    QueueConfig
	lane   unit.Lane
	passed atomic.Bool // authentication, or none is demanded
	ahead  bool        // the command before was a first half; of DataOutLength alone

	mu         sync.Mutex // leaf
	ctrl       *Controller
	id         uint16
	depth      int
	noFlow     bool
	connecting bool
	auth       *authentication // nil where the host has no key
	closed     bool
	requests   *Request // list of commands under way, newest first
	first      *Request // the first half of a fused pair, which waits for the second to arrive
	parkings   uint64   // how many requests were made to wait
	counts     counts
	meter      unit.Meter
}

// Depth returns how many entries the queue has: at most one fewer
// commands are under way with flow control, that many without. Before Connect it
// is 2.
func (q *Queue) Depth() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return max(q.depth, 2)
}

// FlowControl reports whether the SQ head pointer is kept; where not, completions
// carry FFFFh (NVMe Base 2.0 §6.3, CATTR bit 2 of Connect).
func (q *Queue) FlowControl() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.noFlow
}

// ID returns the queue identifier: 0 for the admin queue, as also before Connect.
func (q *Queue) ID() uint16 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.id
}

// Controller returns the controller that the queue belongs to, nil before Connect.
func (q *Queue) Controller() *Controller {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ctrl
}

// DataOutLength is called once for each command, in order of arrival, before
// Execute. It returns how many bytes of data the host sends for the command: 0
// where there are none or where the command will fail; the transport then drops
// what came in the capsule, and Execute gives the status.
func (q *Queue) DataOutLength(r *Request) int {
	r.Refuse, r.length = wire.Success, 0
	r.fused, r.fusing = nil, fuseNone
	e := r.SQE
	if e.Fuse() != wire.FuseNone || q.ahead {
		q.fuse(r)
	}
	if r.Refuse != 0 {
		return 0
	}
	if e.PSDT() != wire.PSDTSGL {
		r.Refuse = wire.InvalidField.DNR()
		return 0
	}
	direction := e.Opcode() & 3
	limit := MaxTransferBytes
	if e.Opcode() == wire.FabricsCommand {
		direction, limit = e.FabricsType()&3, maxAdminBytes
	} else if !q.passed.Load() { // no memory for the data of strangers
		r.Refuse = wire.AuthenticationRequired.DNR()
		if q.Controller() == nil {
			r.Refuse = wire.CommandSequenceError.DNR()
		}
		return 0
	}
	_, length, kind := e.SGL()
	if length == 0 || direction == directionNone {
		return 0
	}
	if kind != wire.SGLTransport && (kind != wire.SGLOffset || direction != directionOut) {
		r.Refuse = wire.SGLTypeInvalid.DNR()
		return 0
	}
	if direction == directionOut && q.ID() == 0 {
		limit = maxAdminBytes
	}
	if int64(length) > int64(limit) {
		r.Refuse = wire.InvalidField.DNR()
		return 0
	}
	r.length = int(length)
	if direction == directionOut {
		return r.length
	}
	return 0
}

// The data transfer directions of opcodes (NVMe Base 2.0 figure 86).
const (
	directionNone = 0
	directionOut  = 1 // host to controller
)

// Execute runs a command for which DataOutLength was called.
// r.Owner.RequestDone is called once, possibly before Execute returns.
func (q *Queue) Execute(r *Request) {
	r.queue, r.ns, r.DataIn = q, nil, nil
	r.Status, r.Result = wire.Success, [2]uint32{}
	if r.cancelled.Load() != 0 {
		r.cancelled.Store(0)
	}
	e := r.SQE
	r.lba = e.SLBA()
	q.mu.Lock()
	if q.closed {
		r.cancelled.Store(uint32(wire.AbortedSQDeletion))
	}
	q.linkLocked(r)
	r.stamp = q.meter.Start()
	c, id := q.ctrl, q.id
	if c != nil && id != 0 {
		// Found under the lock, so that who takes a namespace away finds the command.
		r.ns = c.table.Load().get(e.NSID())
	}
	fused := r.fusing != fuseNone
	q.mu.Unlock()
	switch {
	case fused: // cancelled too, for the sake of the other half
		q.executeFused(r)
		return
	case r.isCancelled():
		r.finish(wire.AbortedSQDeletion)
		return
	case r.Refuse != 0:
		r.finish(r.Refuse)
		return
	}
	if c != nil && !c.traffic.Load() {
		c.traffic.Store(true)
	}
	if e.Opcode() == wire.FabricsCommand {
		r.runFabrics(c)
		return
	}
	if s := q.admit(c); s != 0 {
		r.finish(s)
		return
	}
	if id == 0 {
		r.runAdmin(c)
		return
	}
	r.runIO(c)
}

// admit says why the queue takes no admin or I/O commands now.
func (q *Queue) admit(c *Controller) wire.Status {
	switch {
	case c == nil:
		return wire.CommandSequenceError.DNR()
	case !q.passed.Load():
		return wire.AuthenticationRequired.DNR()
	case c.status.Load()&(wire.CSTSReady|wire.CSTSFatal) != wire.CSTSReady:
		return wire.CommandSequenceError.DNR()
	}
	return wire.Success
}

// errQueueClosed says why the controller ends when its admin queue does.
var errQueueClosed = errors.New("the admin queue was closed")

// Close ends the queue: its commands are cancelled. done is called when none of them
// can reach a device any more; RequestDone has been called for all of them
// then. DataOutLength and Execute are not called after Close.
func (q *Queue) Close(done func()) {
	d := unit.NewDrain(func() {
		if c := q.Controller(); c != nil {
			c.leave(q)
		}
		done()
	})
	q.mu.Lock()
	q.closed = true
	c, id, a := q.ctrl, q.id, q.auth
	q.mu.Unlock()
	if a != nil {
		a.timer.Stop()
	}
	if c != nil && id == 0 {
		c.Kill(errQueueClosed)
	}
	q.cancel(wire.AbortedSQDeletion, d, everyRequest)
	d.Release()
}

func everyRequest(*Request) bool { return true }

// cancel ends the commands under way that match, and returns how many. d is held
// until each has been given back to its owner: none can reach a device then.
func (q *Queue) cancel(s wire.Status, d *unit.Drain, match func(*Request) bool) int {
	n := 0
	var parked []*Request
	var wake []func()
	q.mu.Lock()
	for r := q.requests; r != nil; r = r.next {
		if !match(r) {
			continue
		}
		n++
		r.cancelled.CompareAndSwap(0, uint32(s))
		r.drains = append(r.drains, d)
		d.Hold()
		if w := r.guard.Cancel(); w != nil {
			wake = append(wake, w)
		}
		r.fenceLocked()
		if r.fused != nil { // a pair waits with the guard of its first half
			if w := r.fused.guard.Cancel(); w != nil {
				wake = append(wake, w)
			}
		}
		if r.parked {
			r.parked = false
			parked = append(parked, r)
			q.leavePairLocked(r) // the other half is not parked: they would have been run
		}
	}
	q.mu.Unlock()
	// Who cancels may hold locks that the end of a queue needs.
	for _, w := range wake {
		go w()
	}
	for _, r := range parked {
		go r.finish(s)
	}
	return n
}

// fence has what comes from now on wait for the changes under way.
func (q *Queue) fence() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for r := q.requests; r != nil; r = r.next {
		r.fenceLocked()
	}
}

func (q *Queue) linkLocked(r *Request) {
	r.prev, r.next = nil, q.requests
	if q.requests != nil {
		q.requests.prev = r
	}
	q.requests = r
}

func (q *Queue) unlinkLocked(r *Request) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		q.requests = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
}
