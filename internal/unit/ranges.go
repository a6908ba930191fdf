package unit

import (
	"sync"
	"sync/atomic"
)

// RangeWaiter is told when its wait for a range is over.
type RangeWaiter interface {
	// RangeReady is called once for each wait, from the goroutine that released
	// the range in the way, or ended the read, or ran what Cancel returned, and
	// without any lock held. The range is held, unless the waiter is cancelled and the
	// wait was given up. It may submit I/O and release the range.
	RangeReady(*RangeGuard)
	// Cancelled reports whether the waiter will do nothing with the range any
	// more; it then does not wait for it. It must not block or call Ranges.
	// Who makes it true calls Cancel afterwards.
	Cancelled() bool
}

// RangeGuard is a hold on, or a wait for, a range of blocks. The zero value is
// ready for use; the caller owns it, embeds it in its task and reuses it after
// Release or Cancel. It must not be copied while it is held or waits.
type RangeGuard struct {
	first, count uint64
	exclusive    bool
	held         bool
	waits        atomic.Pointer[Ranges] // where it waits, else nil; changed under the mu of it
	behindReads  bool                   // one of the blockers are the reads that hold no range
	blockers     int                    // guards ahead that conflict, while waiting
	waiter       RangeWaiter
	prev, next   *RangeGuard
}

// Held reports whether the guard holds its range. Only its owner may ask.
func (g *RangeGuard) Held() bool { return g.held }

func (g *RangeGuard) conflicts(o *RangeGuard) bool {
	if !g.exclusive && !o.exclusive || g.count == 0 || o.count == 0 {
		return false
	}
	if g.first >= o.first {
		return g.first-o.first < o.count
	}
	return o.first-g.first < g.count
}

// guardList is an intrusive list in order of arrival.
type guardList struct{ head, tail *RangeGuard }

func (l *guardList) push(g *RangeGuard) {
	g.prev, g.next = l.tail, nil
	if l.tail != nil {
		l.tail.next = g
	} else {
		l.head = g
	}
	l.tail = g
}

func (l *guardList) remove(g *RangeGuard) {
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		l.head = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	} else {
		l.tail = g.prev
	}
	g.prev, g.next = nil, nil
}

// Ranges orders I/O of one unit that overlaps. Ordinary writes hold their range
// shared among themselves; operations that must be atomic against every other
// write (COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, the fused NVMe pair,
// SANITIZE) hold theirs alone, and so does an ordinary write that outlives who asked for
// it (Fence). Waiters whose ranges overlap are served in order of arrival, so neither kind starves.
//
// Reads must not see half of an atomic operation either. While there is none they
// are only counted (BeginRead), and the first operation to come waits until all of
// them, wherever they read, have ended; while there is one they hold their range
// shared.
//
// Each waiter counts the conflicting guards ahead of it, and those reads as one; a
// guard that leaves lowers the counts behind it, and who reaches zero holds its range.
type Ranges struct {
	atomics atomic.Int32 // exclusive guards, held or waiting; changed under mu
	// reads counts those that hold no range; none begins while atomics is not zero.
	reads [lanes]struct {
		atomic.Int64
		_ [56]byte // a cache line each
	}

	mu      sync.Mutex
	held    guardList
	waiting guardList
	marks   map[*RangeMark]struct{} // unchanged ones
}

// Shared takes [first, first+count) for an ordinary write. It returns true
// where there is nothing to wait for: the range is held, or w is cancelled;
// otherwise w.RangeReady(g) is called later.
func (r *Ranges) Shared(g *RangeGuard, first, count uint64, w RangeWaiter) bool {
	g.first, g.count, g.exclusive, g.waiter = first, count, false, w
	r.mu.Lock()
	if len(r.marks) != 0 {
		r.touchLocked(g)
	}
	if r.atomics.Load() == 0 {
		g.held = true
		r.held.push(g)
		r.mu.Unlock()
		return true
	}
	held := r.enterLocked(g)
	r.mu.Unlock()
	return held
}

// Exclusive takes [first, first+count) alone, like Shared.
func (r *Ranges) Exclusive(g *RangeGuard, first, count uint64, w RangeWaiter) bool {
	g.first, g.count, g.exclusive, g.waiter = first, count, true, w
	r.mu.Lock()
	if len(r.marks) != 0 {
		r.touchLocked(g)
	}
	r.atomics.Add(1)
	held := r.enterLocked(g)
	r.mu.Unlock()
	return held
}

// Lane says where the reads of one nexus or queue are counted, so that processors
// that serve different ones do not wait for each other's memory.
type Lane uint8

const lanes = 8

var lastLane atomic.Uint32

// NewLane returns a lane for a new nexus or queue. Several share one.
func NewLane() Lane { return Lane(lastLane.Add(1) % lanes) }

// BeginRead lets a read in that ends with EndRead on the same lane. It returns false while
// an exclusive hold or wait exists: the read then takes its range shared. It costs
// two atomic operations and takes no lock.
func (r *Ranges) BeginRead(l Lane) bool {
	if r.atomics.Load() != 0 {
		return false
	}
	r.reads[l].Add(1)
	if r.atomics.Load() == 0 {
		return true
	}
	r.EndRead(l)
	return false
}

// EndRead ends a read that BeginRead let in, and starts whoever waited for it.
func (r *Ranges) EndRead(l Lane) {
	if r.reads[l].Add(-1) == 0 && r.atomics.Load() != 0 {
		r.readsEnded()
	}
}

// reading reports whether reads are under way that hold no range.
func (r *Ranges) reading() bool {
	for i := range r.reads {
		if r.reads[i].Load() != 0 {
			return true
		}
	}
	return false
}

func (r *Ranges) readsEnded() {
	r.mu.Lock()
	if r.reading() { // on other lanes, or of a later time; the last of them comes here too
		r.mu.Unlock()
		return
	}
	var list []ready
	for o := r.waiting.head; o != nil; {
		next := o.next
		if o.behindReads {
			o.behindReads = false
			list = r.unblockLocked(o, list)
		}
		o = next
	}
	r.mu.Unlock()
	wake(list)
}

// Atomic reports whether any exclusive hold or wait exists.
func (r *Ranges) Atomic() bool { return r.atomics.Load() != 0 }

// Release gives the range of g back and starts whoever waited for it.
func (r *Ranges) Release(g *RangeGuard) {
	r.mu.Lock()
	if !g.held {
		r.mu.Unlock()
		panic("unit: release of a range that is not held")
	}
	g.held = false
	r.held.remove(g)
	if g.exclusive {
		r.atomics.Add(-1)
	}
	if r.waiting.head == nil {
		r.mu.Unlock()
		return
	}
	ready := r.leaveLocked(g, r.waiting.head)
	r.mu.Unlock()
	wake(ready)
}

// Fence has everybody wait for g who comes to its range while g holds it, as if it held it
// alone: what is still done for somebody who is gone must not take effect after what is asked for
// next. It does nothing where g holds nothing. Anybody may call it who knows that the guard's owner
// has not ended.
func (r *Ranges) Fence(g *RangeGuard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !g.held || g.exclusive {
		return
	}
	g.exclusive = true
	r.atomics.Add(1)
	for o := r.waiting.head; o != nil; o = o.next {
		if !o.exclusive && o.conflicts(g) { // those that want it alone wait for g already
			o.blockers++
		}
	}
}

// Cancel gives up a wait and returns what tells its waiter and those who waited for it, to
// be called without any lock held; nil where the guard does not wait. Anybody may call it
// who knows that the guard's owner has not ended.
func (g *RangeGuard) Cancel() (wakeAll func()) {
	for {
		r := g.waits.Load()
		if r == nil {
			return nil
		}
		if list := r.cancel(g); list != nil {
			return func() { wake(list) }
		}
	}
}

// cancel returns nil where g does not wait any more.
func (r *Ranges) cancel(g *RangeGuard) []ready {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.waits.Load() != r {
		return nil
	}
	after := g.next
	r.waiting.remove(g)
	g.waits.Store(nil)
	g.behindReads = false
	if g.exclusive {
		r.atomics.Add(-1)
	}
	return append(r.leaveLocked(g, after), ready{g, g.waiter})
}

// RangeMark remembers whether a range may have been changed since it was marked.
type RangeMark struct {
	first, count uint64
	changed      atomic.Bool
}

// Changed reports whether anyone has taken blocks of the range since Mark. What
// was read from the range before Changed returned false is what the range held
// when it was marked.
func (m *RangeMark) Changed() bool { return m.changed.Load() }

// touchLocked ends the marks that g overlaps.
func (r *Ranges) touchLocked(g *RangeGuard) {
	for m := range r.marks {
		if g.conflicts(&RangeGuard{first: m.first, count: m.count, exclusive: true}) {
			m.changed.Store(true)
			delete(r.marks, m)
		}
	}
}

// Mark begins to watch the range that g holds exclusively, so that no write to
// it is under way. Each mark costs every write some nanoseconds, until Unmark or
// the first change.
func (r *Ranges) Mark(m *RangeMark, g *RangeGuard) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m.first, m.count = g.first, g.count
	m.changed.Store(false)
	if r.marks == nil {
		r.marks = make(map[*RangeMark]struct{})
	}
	r.marks[m] = struct{}{}
}

// Unmark ends watching. It may be called at any time, any number of times.
func (r *Ranges) Unmark(m *RangeMark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.marks, m)
}

// enterLocked puts g among the holders or behind the waiters; it returns false where g
// waits.
func (r *Ranges) enterLocked(g *RangeGuard) bool {
	g.blockers = 0
	if g.exclusive && r.reading() {
		g.behindReads = true
		g.blockers++
	}
	for o := r.held.head; o != nil; o = o.next {
		if g.conflicts(o) {
			g.blockers++
		}
	}
	for o := r.waiting.head; o != nil; o = o.next {
		if g.conflicts(o) {
			g.blockers++
		}
	}
	if g.blockers == 0 {
		g.held = true
		r.held.push(g)
		return true
	}
	g.waits.Store(r) // before asking, so that either Cancelled or Cancel tells
	if g.waiter.Cancelled() {
		g.waits.Store(nil)
		g.behindReads = false
		if g.exclusive {
			r.atomics.Add(-1)
		}
		return true
	}
	r.waiting.push(g)
	return false
}

// ready is a waiter to be told. The guard's links belong to the list of
// holders by then, so the rare contended case pays for a slice.
type ready struct {
	guard  *RangeGuard
	waiter RangeWaiter
}

// leaveLocked tells the waiters from o on that g is out of their way and moves
// those that nothing blocks any more to the holders.
func (r *Ranges) leaveLocked(g, o *RangeGuard) []ready {
	var list []ready
	for o != nil {
		next := o.next
		if o.conflicts(g) {
			list = r.unblockLocked(o, list)
		}
		o = next
	}
	return list
}

// unblockLocked tells a waiter that one of its blockers is gone, and adds it to the list
// if that was the last.
func (r *Ranges) unblockLocked(o *RangeGuard, list []ready) []ready {
	if o.blockers--; o.blockers > 0 {
		return list
	}
	r.waiting.remove(o)
	o.waits.Store(nil)
	o.held = true
	r.held.push(o)
	return append(list, ready{o, o.waiter})
}

func wake(list []ready) {
	for _, w := range list {
		w.waiter.RangeReady(w.guard)
	}
}
