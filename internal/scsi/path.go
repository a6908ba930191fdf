package scsi

import (
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// path is an I_T_L nexus: one LUN of one nexus. It keeps the tasks under way, so
// that task management finds them, and the unit attentions that wait for the
// initiator.
type path struct {
	nexus    *Nexus
	lu       *LogicalUnit
	lun      uint16
	readOnly atomic.Bool // the mapping is

	mu         sync.Mutex // leaf: nothing is called with it held
	closed     bool
	tasks      *Task         // list of tasks under way, newest first
	epoch      atomic.Uint32 // counts how often others have ended the tasks of the path; changed under mu
	cutCode    uint16        // the unit attention of the last time, 0 for none
	attentions []uint16
	visits     int           // commands of other LUNs that change the unit at the moment
	visited    []*unit.Drain // who waits for the last of them to leave
	stats      unit.Stats
	meter      unit.Meter
}

var _ unit.Watcher = (*path)(nil)

// linkLocked puts t into the list of tasks under way.
func (p *path) linkLocked(t *Task) {
	t.prev, t.next = nil, p.tasks
	if p.tasks != nil {
		p.tasks.prev = t
	}
	p.tasks = t
}

func (p *path) unlinkLocked(t *Task) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		p.tasks = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
}

// leave is close, and the end of a SCSI-2 reservation that the nexus has on the unit: not before its
// tasks have ended, so that none of them can change what the next holder sees.
func (p *path) leave(mode uint32, d *unit.Drain) {
	d.Hold()
	own := unit.NewDrain(func() {
		p.lu.unit.Reservations.NexusLost(p.nexus.cfg.Initiator)
		d.Release()
	})
	p.close(mode, own)
	own.Release()
}

// count returns the counts of the path's commands.
func (p *path) count() unit.Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	for t := p.tasks; t != nil; t = t.next {
		s.InFlight++
	}
	return s
}

// countLocked adds a finished task to the statistics.
func (p *path) countLocked(t *Task) {
	if t.Status != StatusGood && t.Status != StatusConditionMet {
		p.stats.Errors++
		return
	}
	if t.op == nil {
		return
	}
	switch t.op.class {
	case classRead:
		p.stats.Reads++
		p.stats.ReadBytes += uint64(len(t.DataIn))
		p.stats.ReadTime += t.stamp.Took()
	case classWrite:
		p.stats.Writes++
		p.stats.WriteBytes += uint64(len(t.DataOut))
		p.stats.WriteTime += t.stamp.Took()
	default:
		p.stats.Others++
	}
}

// close takes no more tasks, and cancels those under way. d is held until they
// have ended.
func (p *path) close(mode uint32, d *unit.Drain) {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.lu.unit.Detach(p)
	d.Hold()
	own := unit.NewDrain(func() {
		p.lu.forget(p)
		d.Release()
	})
	p.cancel(mode, own, everyTask)
	own.Release()
}

// enter counts a command of another LUN in, unless the path is closed.
func (p *path) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.visits++
	return true
}

func (p *path) leaveVisit() {
	p.mu.Lock()
	var visited []*unit.Drain
	if p.visits--; p.visits == 0 {
		visited, p.visited = p.visited, nil
	}
	p.mu.Unlock()
	for _, d := range visited {
		d.Release()
	}
}

// cut makes the end of the path's tasks, by another nexus, also that of those that have
// arrived and are not executed yet, as their data is still on its way. code is the unit attention for them
// where they end silently, 0 for none.
func (p *path) cut(code uint16) {
	p.mu.Lock()
	p.cutCode = code
	p.epoch.Add(1)
	p.mu.Unlock()
}

func (p *path) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// Initiator identifies the path in the reservation table.
func (p *path) Initiator() unit.Initiator { return p.nexus.cfg.Initiator }

// AbortTasks ends the path's commands for PREEMPT AND ABORT (SPC-4 §5.13.11.2.6).
func (p *path) AbortTasks(done func()) {
	d := unit.NewDrain(func() { go done() })
	p.cut(wire.CommandsClearedByOther)
	n := p.cancel(p.lu.othersMode(), d, func(t *Task) bool { return t.CDB[0] != wire.OpPersistentOut })
	if n > 0 && !p.lu.taskAbortedStatus() {
		p.attend(wire.CommandsClearedByOther)
	}
	d.Release()
}
