package scsi

import (
	"slices"
	"sync"
	"sync/atomic"
)

// order keeps what ORDERED tasks ask for (SAM-5 §8.6.3): such a task waits for
// all that came before it, and all that comes later waits for it. It costs one
// atomic load as long as nobody sends one.
//
// held counts the ORDERED tasks that are dormant or enabled. A task is in its
// path's list before it looks at held, and an ORDERED task raises held before it
// looks at the lists, so one of the two sees the other.
type order struct {
	held atomic.Int32

	mu      sync.Mutex // above path.mu
	dormant []*Task    // in order of arrival
	waking  bool
	again   bool
}

// admit reports whether t may start now; it is kept, and started later, if not.
func (o *order) admit(lu *LogicalUnit, t *Task) bool {
	if t.Attr == AttrHeadOfQueue {
		return true
	}
	o.mu.Lock()
	if t.Attr == AttrOrdered {
		o.held.Add(1)
	} else if o.held.Load() == 0 {
		o.mu.Unlock()
		return true
	}
	t.path.mu.Lock()
	t.dormant = true
	t.path.mu.Unlock()
	o.dormant = append(o.dormant, t)
	o.mu.Unlock()
	o.wake(lu)
	return false
}

// dropLocked takes a cancelled task out of the queue.
func (o *order) dropLocked(t *Task) {
	if i := slices.Index(o.dormant, t); i >= 0 {
		o.dormant = slices.Delete(o.dormant, i, i+1)
	}
}

// leave is called after an ORDERED task has ended.
func (o *order) leave() { o.held.Add(-1) }

// wake starts the dormant tasks whose turn has come. Calls from inside of the
// tasks it starts only ask it to look again.
func (o *order) wake(lu *LogicalUnit) {
	o.mu.Lock()
	if o.waking {
		o.again = true
		o.mu.Unlock()
		return
	}
	o.waking = true
	for {
		o.again = false
		for len(o.dormant) > 0 && o.readyLocked(lu, o.dormant[0]) {
			t := o.dormant[0]
			o.dormant = slices.Delete(o.dormant, 0, 1)
			t.path.mu.Lock()
			t.dormant = false
			t.path.mu.Unlock()
			o.mu.Unlock()
			t.start()
			o.mu.Lock()
		}
		if !o.again {
			break
		}
	}
	o.waking = false
	o.mu.Unlock()
}

// readyLocked reports whether nothing in front of t keeps it dormant.
func (o *order) readyLocked(lu *LogicalUnit, t *Task) bool {
	enabled, ordered := lu.enabled()
	if t.Attr == AttrOrdered {
		return enabled == 0
	}
	return ordered == 0
}
