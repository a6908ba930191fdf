package nvme

import "sync/atomic"

// drain calls done when everything it is held for has ended.
type drain struct {
	n    atomic.Int32
	done func()
}

// newDrain returns a drain that is held once, by the caller.
func newDrain(done func()) *drain {
	d := &drain{done: done}
	d.n.Store(1)
	return d
}

func (d *drain) hold() { d.n.Add(1) }

func (d *drain) release() {
	if d.n.Add(-1) == 0 {
		d.done()
	}
}
