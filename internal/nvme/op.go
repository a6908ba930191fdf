package nvme

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

const (
	// chunk is how many bytes one step of an op moves at most.
	chunk = 1 << 20
	// zeroChunk is how many bytes one step sets to zero at most: devices that
	// have no better way write them.
	zeroChunk = 16 << 20
)

// op is a command of more than one step. It advances through its next functions:
// each looks at how the step before ended, and either starts one asynchronous step as the
// last thing it does, or asks to go on, or ends the op.
//
//	   again              a request completed, a range is held
//	  +-----+      +------------------------------------------+
//	  v     |      v                                          |
//	next ---+--> waiting ---------------------------------- resume
//	  |
//	  +--------> end
type op struct {
	r     *Request
	pair  *Request // the second half of a fused pair
	u     *unit.Unit
	next  func(*op) step
	turn  atomic.Int32
	req   block.Request
	reads bool // counted by Ranges.BeginRead
	buf   *block.Buffer

	data     []byte // what the host sent
	start    int64  // first byte of the unit that it is about
	pos, end int64  // bytes of the unit that are left to do
	flags    block.Flags
	zero     block.Op // Zero or Discard, of Write Zeroes
	ranges   []byte   // of Dataset Management and Copy, those left to do
	to       int64    // where Copy writes next
}

// step is what a next function has done.
type step uint8

const (
	again   step = iota // call next again
	waiting             // a request or a range is under way
	ended               // the op does not exist any more
)

// Whose turn it is between the goroutine that started a step and the one that
// completes it: the later one of the two goes on.
const (
	turnNone      int32 = iota
	turnStarted         // the starter has gone
	turnCompleted       // the step has completed
)

var (
	_ block.Completer  = (*op)(nil)
	_ unit.RangeWaiter = (*op)(nil)
)

var ops = sync.Pool{New: func() any { return new(op) }}

// startOp runs a command as an op whose first step is next.
func startOp(r *Request, next func(*op) step) *op {
	o := ops.Get().(*op)
	o.r, o.u, o.next = r, r.ns.unit, next
	return o
}

// RequestDone continues the op.
func (o *op) RequestDone(*block.Request) { o.resume() }

// Cancelled reports whether the op gives up to wait for a range.
func (o *op) Cancelled() bool { return o.cancelled() }

// RangeReady continues the op.
func (o *op) RangeReady(*unit.RangeGuard) { o.resume() }

func (o *op) resume() {
	if o.turn.Swap(turnCompleted) == turnStarted {
		o.run()
	}
}

// maxSteps is how many steps an op makes on a goroutine that is not its own: that
// of a transport, or of a device that completes a request.
const maxSteps = 32

// run advances the op until it waits or ends, elsewhere if that takes long.
func (o *op) run() {
	if !o.advance(maxSteps) {
		go o.advance(math.MaxInt)
	}
}

// advance makes up to steps steps and reports whether the op waits or has ended
// then. From the time on that an op counts as long it lets others have the
// processor between its steps.
func (o *op) advance(steps int) bool {
	for i := range steps {
		if i >= maxSteps {
			runtime.Gosched()
		}
		o.turn.Store(turnNone)
		switch o.next(o) {
		case ended:
			return true
		case waiting:
			if o.turn.CompareAndSwap(turnNone, turnStarted) {
				return true
			}
		case again:
		}
	}
	return false
}

// cancelled reports whether the op has to stop before its next step.
func (o *op) cancelled() bool {
	return o.r.isCancelled() || o.pair != nil && o.pair.isCancelled()
}

// submit starts a request on [off, off+n).
func (o *op) submit(kind block.Op, data []byte, off, n int64, then func(*op) step) step {
	o.next = then
	r := &o.req
	r.Op, r.Flags, r.Off, r.Len, r.Data, r.Done = kind, o.flags, off, n, data, o
	if kind == block.Read || kind == block.Flush {
		r.Flags = 0
	}
	o.u.Device().Submit(r)
	return waiting
}

// read starts a read of [pos, pos+n), into the op's buffer where the device does
// not lend; req.Data is then what it has read.
func (o *op) read(n int64, then func(*op) step) step {
	if o.u.Device().Info().Lends {
		return o.submit(block.Read, nil, o.pos, n, then)
	}
	if o.buf != nil && int64(cap(o.buf.Bytes(0))) < n {
		o.buf.Put()
		o.buf = nil
	}
	if o.buf == nil {
		o.buf = block.Get(int(n))
	}
	return o.submit(block.Read, o.buf.Bytes(int(n)), o.pos, n, then)
}

// beginRead takes [pos, pos+n) for reading until release; then follows.
func (o *op) beginRead(n int64, then func(*op) step) step {
	if o.reads = o.u.Ranges.BeginRead(); o.reads {
		o.next = then
		return again
	}
	return o.shared(o.pos, n, then)
}

// shared takes [off, off+n) shared, exclusive alone; then follows when it is held, or the
// op cancelled.
func (o *op) shared(off, n int64, then func(*op) step) step {
	o.next = then
	if o.u.Ranges.Shared(&o.r.guard, uint64(off)>>o.u.BlockShift(), uint64(n)>>o.u.BlockShift(), o) {
		return again
	}
	return waiting
}

func (o *op) exclusive(off, n int64, then func(*op) step) step {
	o.next = then
	if o.u.Ranges.Exclusive(&o.r.guard, uint64(off)>>o.u.BlockShift(), uint64(n)>>o.u.BlockShift(), o) {
		return again
	}
	return waiting
}

func (o *op) release() {
	if o.reads {
		o.u.Ranges.EndRead()
		o.reads = false
	}
	if o.r.guard.Held() {
		o.u.Ranges.Release(&o.r.guard)
	}
}

// left returns the size of the next chunk.
func (o *op) left() int64 { return min(chunk, o.end-o.pos) }

// finish ends the op and its command; the second half of a fused pair ends with
// failed fused command where the first does not succeed, else with s too.
func (o *op) finish(s wire.Status) step {
	o.release()
	if o.buf != nil {
		o.buf.Put()
	}
	r, pair := o.r, o.pair
	*o = op{}
	ops.Put(o)
	r.finish(s)
	if pair != nil {
		if !s.OK() {
			s = wire.AbortedFailedFused.DNR()
		}
		pair.finish(s)
	}
	return ended
}

// stop ends an op that was cancelled.
func (o *op) stop() step { return o.finish(wire.AbortRequested) }

// failIO ends the op and its command with the error of its last request.
func (o *op) failIO() step { return o.finish(o.r.ioStatus(o.req.Err)) }
