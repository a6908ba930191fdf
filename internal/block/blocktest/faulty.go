package blocktest

import (
	"slices"
	"sync"

	"lintel.io/lintel/internal/block"
)

// Fault describes requests that end with an error.
type Fault struct {
	// Ops are the operations that fail; none stands for all.
	Ops []block.Op
	// Off and Len are the bytes that fail; a Len of 0 stands for the whole
	// device. A Flush has no range: it fails where Ops says so.
	Off, Len int64
	// Kind is the kind of the error.
	Kind block.Kind
	// Count is how many requests fail before the fault is over, 0 for no end.
	Count int
}

func (f *Fault) hits(r *block.Request) bool {
	if len(f.Ops) > 0 && !slices.Contains(f.Ops, r.Op) {
		return false
	}
	return r.Op == block.Flush || f.Len == 0 || r.Off < f.Off+f.Len && f.Off < r.Off+r.Length()
}

// A change is a write that only the volatile cache of a Faulty knows.
type change struct {
	op       block.Op
	off, end int64
	data     []byte
}

// Faulty is a device with a volatile write cache, on top of another device that
// stands for the medium. Nothing reaches the medium but by a Flush or FUA, and
// PowerCut forgets the rest. It fails and holds requests to order.
//
// Requests complete inside Submit unless held, and wait there for the medium,
// which therefore should be a mem device.
type Faulty struct {
	mu     sync.Mutex // held while the medium is used; never while a request completes
	medium block.Device
	info   block.Info
	log    []change // the cache, in the order of arrival
	faults []*Fault
	full   bool
	hold   []block.Op
	held   []*block.Request
	queued sync.Cond // held has grown; its lock is mu
	count  [block.Zero + 1]int
	closed bool
}

var _ block.Device = (*Faulty)(nil)

// NewFaulty returns a device without faults whose medium is dev. Closing it closes dev.
func NewFaulty(dev block.Device) *Faulty {
	f := &Faulty{medium: dev, info: dev.Info()}
	f.info.Volatile = true
	f.info.Lends = false
	f.info.Inline = false
	f.queued.L = &f.mu
	return f
}

// Inject adds a fault; the function returned takes it away.
func (f *Faulty) Inject(fault Fault) (remove func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &fault
	f.faults = append(f.faults, p)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.faults = slices.DeleteFunc(f.faults, func(q *Fault) bool { return p == q })
	}
}

// SetFull says that the medium has no space left: a Write or Zero that needs
// some fails with block.KindNoSpace, one of allocated bytes succeeds.
func (f *Faulty) SetFull(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = full
}

// Hold keeps further requests of the given operations, all where none is named,
// until Release. Held requests have had no effect.
func (f *Faulty) Hold(ops ...block.Op) {
	if len(ops) == 0 {
		ops = []block.Op{block.Read, block.Write, block.Flush, block.Discard, block.Zero}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = ops
}

// WaitHeld waits until n requests are held.
func (f *Faulty) WaitHeld(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.held) < n {
		f.queued.Wait()
	}
}

// Held returns how many requests are held.
func (f *Faulty) Held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.held)
}

// Release ends Hold and runs what it kept, in order.
func (f *Faulty) Release() {
	f.mu.Lock()
	held := f.held
	f.hold, f.held = nil, nil
	f.mu.Unlock()
	for _, r := range held {
		f.finish(r)
	}
}

// Count returns how many requests of an operation have been submitted.
func (f *Faulty) Count(op block.Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[op]
}

// PowerCut loses every change that was neither flushed nor written with FUA, and
// ends held requests, without effect, with block.KindGone. Afterwards the
// device works again, as after a restart.
func (f *Faulty) PowerCut() {
	f.mu.Lock()
	f.log = nil
	held := f.held
	f.hold, f.held = nil, nil
	f.mu.Unlock()
	for _, r := range held {
		end(r, newError(r, block.KindGone))
	}
}

// Info returns the medium's, but says that writes are volatile.
func (f *Faulty) Info() block.Info { return f.info }

// Size returns the medium's.
func (f *Faulty) Size() int64 { return f.medium.Size() }

// Submit implements block.Device.
func (f *Faulty) Submit(r *block.Request) {
	f.mu.Lock()
	if int(r.Op) < len(f.count) {
		f.count[r.Op]++
	}
	if slices.Contains(f.hold, r.Op) && !f.closed {
		f.held = append(f.held, r)
		f.queued.Broadcast()
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()
	f.finish(r)
}

func (f *Faulty) finish(r *block.Request) {
	f.mu.Lock()
	err := f.run(r)
	f.mu.Unlock()
	end(r, err)
}

func end(r *block.Request, err error) {
	r.Err = err
	r.Done.RequestDone(r)
}

func newError(r *block.Request, kind block.Kind) error {
	return &block.Error{Op: r.Op, Kind: kind, Off: r.Off}
}

func (f *Faulty) run(r *block.Request) error {
	if f.closed {
		return &block.Error{Op: r.Op, Kind: block.KindGone, Off: r.Off, Err: block.ErrClosed}
	}
	if err := block.Check(r, &f.info, f.medium.Size()); err != nil {
		return err
	}
	for i, fault := range f.faults {
		if !fault.hits(r) {
			continue
		}
		if fault.Count--; fault.Count == 0 {
			f.faults = slices.Delete(f.faults, i, i+1)
		}
		return &block.Error{Op: r.Op, Kind: fault.Kind, Off: max(r.Off, fault.Off)}
	}
	switch r.Op {
	case block.Read:
		return f.read(r)
	case block.Flush:
		return f.flush()
	}
	return f.change(r)
}

func (f *Faulty) read(r *block.Request) error {
	q := block.Request{Op: block.Read, Off: r.Off, Data: r.Data}
	if err := Do(f.medium, &q); err != nil {
		return err
	}
	off, stop := r.Off, r.Off+int64(len(r.Data))
	for _, c := range f.log {
		from, to := max(off, c.off), min(stop, c.end)
		if from >= to {
			continue
		}
		if c.op == block.Write {
			copy(r.Data[from-off:to-off], c.data[from-c.off:])
		} else {
			clear(r.Data[from-off : to-off])
		}
	}
	return nil
}

func (f *Faulty) change(r *block.Request) error {
	n := r.Length()
	if n == 0 {
		return nil
	}
	if f.full && r.Op != block.Discard {
		for off := r.Off; off < r.Off+n; {
			allocated, run, err := f.extent(off, r.Off+n-off)
			if err != nil || !allocated {
				return newError(r, block.KindNoSpace)
			}
			off += run
		}
	}
	if r.Flags&block.FUA != 0 {
		q := block.Request{Op: r.Op, Flags: r.Flags, Off: r.Off, Len: r.Len, Data: r.Data}
		if err := Do(f.medium, &q); err != nil || len(f.log) == 0 {
			return err
		}
		// Older changes still in the cache must not come out on top.
	}
	f.log = append(f.log, change{r.Op, r.Off, r.Off + n, slices.Clone(r.Data)})
	return nil
}

func (f *Faulty) flush() error {
	for len(f.log) > 0 {
		c := f.log[0]
		q := block.Request{Op: c.op, Off: c.off, Len: c.end - c.off}
		if c.op == block.Write {
			q.Data = alignedBytes(len(c.data))
			copy(q.Data, c.data)
		}
		if err := Do(f.medium, &q); err != nil {
			return err
		}
		f.log = f.log[1:]
	}
	return Do(f.medium, &block.Request{Op: block.Flush})
}

// Extent implements block.Device.
func (f *Faulty) Extent(off, limit int64) (bool, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.extent(off, limit)
}

func (f *Faulty) extent(off, limit int64) (bool, int64, error) {
	allocated, n, err := f.medium.Extent(off, limit)
	if err != nil {
		return allocated, n, err
	}
	for _, c := range f.log {
		switch {
		case off < c.off:
			n = min(n, c.off-off)
		case off < c.end && c.op != block.Zero:
			// A discard may be too small to deallocate: it is allocated until flushed.
			allocated = allocated || c.op == block.Write
			n = min(n, c.end-off)
		case off < c.end:
			n = min(n, c.end-off)
		}
	}
	return allocated, n, nil
}

// Resize flushes and implements block.Device.
func (f *Faulty) Resize(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.medium.Resize(size)
	}
	if err := f.flush(); err != nil {
		return err
	}
	return f.medium.Resize(size)
}

// Used returns the medium's.
func (f *Faulty) Used() (int64, error) { return f.medium.Used() }

// Close ends held requests with block.KindGone, flushes, and closes the medium.
func (f *Faulty) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	err := f.flush()
	f.closed = true
	held := f.held
	f.hold, f.held = nil, nil
	if cerr := f.medium.Close(); err == nil {
		err = cerr
	}
	f.mu.Unlock()
	for _, r := range held {
		end(r, newError(r, block.KindGone))
	}
	return err
}
