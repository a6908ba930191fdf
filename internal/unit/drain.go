package unit

import "sync/atomic"

// Drain calls a function when everything it is held for has ended.
type Drain struct {
	n    atomic.Int32
	done func()
}

// NewDrain returns a drain that is held once, by the caller.
func NewDrain(done func()) *Drain {
	d := &Drain{done: done}
	d.n.Store(1)
	return d
}

// Hold holds the drain once more. The caller knows that it is held.
func (d *Drain) Hold() { d.n.Add(1) }

// Release takes back one hold, and calls the function if that was the last.
func (d *Drain) Release() {
	if d.n.Add(-1) == 0 {
		d.done()
	}
}
