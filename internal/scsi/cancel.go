package scsi

import "lintel.io/lintel/internal/unit"

// How a task is cancelled.
const (
	cancelNone   uint32 = iota
	cancelSilent        // no response
	cancelStatus        // TASK ABORTED (SAM-5 §5.3.1), for tasks of other nexuses where TAS=1
	cancelGone          // as for a LUN that leads nowhere any more, or not now
)

func everyTask(*Task) bool { return true }

// cancel ends the path's tasks that match, and returns how many. d is held
// until each has been given back to its owner, and until the commands of other LUNs
// that change the unit at the moment have left: none can reach the device then.
func (p *path) cancel(mode uint32, d *unit.Drain, match func(*Task) bool) int {
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
		d.Hold()
		if w := t.Guard.Cancel(); w != nil {
			wake = append(wake, w)
		}
		if t.dormant {
			t.dormant = false
			dormant = append(dormant, t)
			o.dropLocked(t)
		}
	}
	if p.visits > 0 {
		d.Hold()
		p.visited = append(p.visited, d)
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
		s := t.noUnitSense()
		t.putSense(&s)
		t.Status = StatusCheckCondition
	}
}
