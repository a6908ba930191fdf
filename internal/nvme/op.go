package nvme

import (
	"sync"

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
type op struct {
	r     *Request
	pair  *Request // the second half of a fused pair
	u     *unit.Unit
	next  func(*op) step
	turn  unit.Turn
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
type step = unit.Step

const (
	again   = unit.Again
	waiting = unit.Waiting
	ended   = unit.Ended
)

var (
	_ block.Completer  = (*op)(nil)
	_ unit.RangeWaiter = (*op)(nil)
	_ unit.Stepper     = (*op)(nil)
)

var ops = sync.Pool{New: func() any { return new(op) }}

// startOp runs a command as an op whose first step is next.
func startOp(r *Request, next func(*op) step) *op {
	o := ops.Get().(*op)
	o.r, o.u, o.next = r, r.ns.unit, next
	return o
}

// RequestDone continues the op.
func (o *op) RequestDone(*block.Request) { o.turn.Resume(o) }

// Cancelled reports whether the op gives up to wait for a range.
func (o *op) Cancelled() bool { return o.cancelled() }

// RangeReady continues the op.
func (o *op) RangeReady(*unit.RangeGuard) { o.turn.Resume(o) }

// Next makes the next step.
func (o *op) Next() unit.Step { return o.next(o) }

func (o *op) run() { o.turn.Run(o) }

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
	if o.reads = o.u.Ranges.BeginRead(o.r.queue.lane); o.reads {
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
		o.u.Ranges.EndRead(o.r.queue.lane)
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
