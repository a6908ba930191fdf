package sbc

import (
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
)

// chunk is how many bytes one step of an op moves at most.
const chunk = 1 << 20

// op is a command of more than one step, or one that goes on after it has been
// answered. It advances through its next functions: each looks at how the step
// before ended, and either starts one asynchronous step as the last thing it does,
// or asks to go on, or ends the op.
type op struct {
	t     *scsi.Task // nil once it has been answered
	u     *unit.Unit
	next  func(*op) step
	turn  unit.Turn
	req   block.Request
	guard *unit.RangeGuard // that of the task, or own where the op can outlive it
	own   unit.RangeGuard
	lane  unit.Lane
	reads bool // counted by Ranges.BeginRead
	buf   *block.Buffer

	data     []byte // what the initiator sent
	start    int64  // first byte of the unit that it is about
	pos, end int64  // bytes of the unit that are left to do
	flags    block.Flags
	alike    bool        // data is one block that stands for all
	zero     block.Op    // Zero or Discard, of WRITE SAME
	status   scsi.Status // of PRE-FETCH
	detached bool

	descriptors []byte      // of UNMAP, those left to do
	sanitizing  *sanitizing // of SANITIZE
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

// startOp runs a task as an op whose first step is next.
func startOp(t *scsi.Task, next func(*op) step) *op {
	o := ops.Get().(*op)
	o.t, o.u, o.next, o.guard, o.lane = t, t.LU.Unit(), next, &t.Guard, t.Nexus.Lane()
	return o
}

// maxDetached bounds the ops that go on after their answer.
const maxDetached = 64

var detachedOps atomic.Int32

// detach parts the op from its task, which is then free to be answered (IMMED).
// It returns false, and the task waits, where too many ops go on already.
func (o *op) detach() bool {
	if detachedOps.Add(1) > maxDetached {
		detachedOps.Add(-1)
		return false
	}
	o.t, o.guard, o.detached = nil, &o.own, true
	return true
}

// runDetached answers the task and runs the op without it, or with it where too
// many go on.
func (o *op) runDetached(s scsi.Status) {
	t := o.t
	detached := o.detach()
	o.run()
	if detached {
		t.Finish(s)
	}
}

// RequestDone continues the op.
func (o *op) RequestDone(*block.Request) { o.turn.Resume(o) }

// Cancelled reports whether the op gives up to wait for a range.
func (o *op) Cancelled() bool { return o.guard != &o.own && o.cancelled() }

// RangeReady continues the op.
func (o *op) RangeReady(*unit.RangeGuard) { o.turn.Resume(o) }

// Next makes the next step.
func (o *op) Next() unit.Step { return o.next(o) }

func (o *op) run() { o.turn.Run(o) }

// cancelled reports whether the op has to stop before its next step.
func (o *op) cancelled() bool { return o.t != nil && o.t.Cancelled() }

// submit starts a request on [pos, pos+n).
func (o *op) submit(kind block.Op, data []byte, n int64, then func(*op) step) step {
	o.next = then
	r := &o.req
	r.Op, r.Flags, r.Off, r.Len, r.Data, r.Done = kind, o.flags, o.pos, n, data, o
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
		return o.submit(block.Read, nil, n, then)
	}
	return o.submit(block.Read, o.buffer(n), n, then)
}

// write starts a write of data at pos.
func (o *op) write(data []byte, then func(*op) step) step {
	return o.submit(block.Write, data, int64(len(data)), then)
}

// buffer returns the op's buffer, n bytes long. It keeps its content from one
// call to the next unless n grows.
func (o *op) buffer(n int64) []byte {
	if o.buf != nil && int64(cap(o.buf.Bytes(0))) < n {
		o.buf.Put()
		o.buf = nil
	}
	if o.buf == nil {
		o.buf = block.Get(int(n))
	}
	return o.buf.Bytes(int(n))
}

// beginRead takes [pos, pos+n) for reading until release; then follows.
func (o *op) beginRead(n int64, then func(*op) step) step {
	if o.reads = o.u.Ranges.BeginRead(o.lane); o.reads {
		o.next = then
		return again
	}
	return o.shared(n, then)
}

// shared takes [pos, pos+n) shared, exclusive alone; then follows when it is held, or the
// op cancelled.
func (o *op) shared(n int64, then func(*op) step) step {
	o.next = then
	if o.u.Ranges.Shared(o.guard, uint64(o.pos)>>o.u.BlockShift(), uint64(n)>>o.u.BlockShift(), o) {
		return again
	}
	return waiting
}

func (o *op) exclusive(n int64, then func(*op) step) step {
	o.next = then
	if o.u.Ranges.Exclusive(o.guard, uint64(o.pos)>>o.u.BlockShift(), uint64(n)>>o.u.BlockShift(), o) {
		return again
	}
	return waiting
}

func (o *op) release() {
	if o.reads {
		o.u.Ranges.EndRead(o.lane)
		o.reads = false
	}
	if o.guard.Held() {
		o.u.Ranges.Release(o.guard)
	}
}

// close gives back all that the op holds, itself included, and returns its task.
func (o *op) close() *scsi.Task {
	o.release()
	if o.buf != nil {
		o.buf.Put()
	}
	if o.detached {
		detachedOps.Add(-1)
	}
	t := o.t
	*o = op{} // an op at its end holds no range, so that its guard may be cleared
	ops.Put(o)
	return t
}

// good ends the op and its task, if that still waits, with GOOD.
func (o *op) good() step { return o.finish(scsi.StatusGood) }

func (o *op) finish(s scsi.Status) step {
	if t := o.close(); t != nil {
		t.Finish(s)
	}
	return ended
}

// failIO ends the op and its task with the error of its last request.
func (o *op) failIO() step {
	err := o.req.Err
	if t := o.close(); t != nil {
		t.FailIO(err)
	}
	return ended
}
