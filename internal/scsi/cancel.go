package scsi

import (
	"sync/atomic"

	wire "lintel.io/lintel/internal/wire/scsi"
)

// How a task is cancelled.
const (
	cancelNone   uint32 = iota
	cancelSilent        // no response
	cancelStatus        // TASK ABORTED (SAM-5 §5.3.1), for tasks of other nexuses where TAS=1
	cancelGone          // LOGICAL UNIT NOT SUPPORTED: the LUN leads nowhere any more
)

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

func everyTask(*Task) bool { return true }

// cancel ends the path's tasks that match, and returns how many. d is held
// until each has been given back to its owner: none can reach the device then.
func (p *path) cancel(mode uint32, d *drain, match func(*Task) bool) int {
	n := 0
	var dormant []*Task
	var wake []func()
	o := &p.lu.order
	o.mu.Lock()
	p.mu.Lock()
	for t := p.tasks; t != nil; t = t.next {
		if !match(t) {
			continue
		}
		n++
		t.cancelled.CompareAndSwap(cancelNone, mode)
		t.drains = append(t.drains, d)
		d.hold()
		if w := t.Guard.Cancel(); w != nil {
			wake = append(wake, w)
		}
		if t.dormant {
			t.dormant = false
			dormant = append(dormant, t)
			o.dropLocked(t)
		}
	}
	p.mu.Unlock()
	o.mu.Unlock()
	for _, w := range wake {
		w()
	}
	for _, t := range dormant {
		t.Finish(StatusTaskAborted)
	}
	return n
}

// applyCancel gives a cancelled task the result that its initiator sees.
func (t *Task) applyCancel(mode uint32) {
	t.DataIn = nil
	t.SenseLen = 0
	switch mode {
	case cancelSilent:
		t.Aborted = true
	case cancelStatus:
		t.Status = StatusTaskAborted
	case cancelGone:
		t.putSense(&Sense{Key: wire.KeyIllegalRequest, Code: wire.LogicalUnitNotSupported})
		t.Status = StatusCheckCondition
	}
}
