package scsi

import (
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// Manage runs a task management function. tag names the task of ABORT TASK
// and QUERY TASK. done is called, possibly before Manage returns, when every
// affected command has ended.
func (n *Nexus) Manage(f Function, lun, tag uint64, done func(Response)) {
	switch f {
	case TargetWarmReset, TargetColdReset:
		n.resetTarget(f, done)
		return
	case ITNexusReset:
		n.resetNexus(done)
		return
	case ClearACA, QueryAsyncEvent:
		done(FunctionNotSupported)
		return
	case TaskReassign:
		done(ReassignNotSupported)
		return
	case AbortTask, AbortTaskSet, ClearTaskSet, LogicalUnitReset, QueryTask, QueryTaskSet:
	default:
		done(FunctionNotSupported)
		return
	}
	p := n.find(lun)
	if p == nil || p.isClosed() {
		done(n.manageNoUnit(f, lun))
		return
	}
	p.manage(f, tag, done)
}

// manageNoUnit answers a function for a LUN that leads to no unit, and has no tasks.
func (n *Nexus) manageNoUnit(f Function, lun uint64) Response {
	switch {
	case !n.awaits(lun):
		return LUNDoesNotExist
	case f == AbortTask:
		return TaskDoesNotExist
	}
	return FunctionComplete
}

// manage runs a function that concerns one logical unit.
func (p *path) manage(f Function, tag uint64, done func(Response)) {
	complete := unit.NewDrain(func() { done(FunctionComplete) })
	switch f {
	case AbortTask:
		found := p.cancel(cancelSilent, complete, func(t *Task) bool { return t.Tag == tag })
		if found == 0 {
			done(TaskDoesNotExist)
			return
		}
	case AbortTaskSet:
		p.cancel(cancelSilent, complete, everyTask)
	case ClearTaskSet:
		p.lu.clear(p, complete, wire.CommandsClearedByOther)
	case LogicalUnitReset:
		complete.Hold()
		p.lu.resetAfter(p, complete.Release)
	case QueryTask:
		done(p.query(func(t *Task) bool { return t.Tag == tag }))
		return
	case QueryTaskSet:
		done(p.query(everyTask))
		return
	}
	complete.Release()
}

// query answers QUERY TASK and QUERY TASK SET (SAM-5 §7.9, §7.10).
func (p *path) query(match func(*Task) bool) Response {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := p.tasks; t != nil; t = t.next {
		if match(t) {
			return FunctionSucceeded
		}
	}
	return FunctionComplete
}

// clear ends the commands of all nexuses on the unit (SAM-5 §7.4); of the nexus of by, the
// transport has ended those that have arrived and are not executed yet. The nexuses
// other than that of by, where their commands end without status, get the unit
// attention code; 0 for none.
func (lu *LogicalUnit) clear(by *path, d *unit.Drain, code uint16) {
	others := lu.othersMode()
	for _, p := range lu.listPaths() {
		mode := others
		if p.nexus == by.nexus {
			mode = cancelSilent
		} else {
			p.cut(code)
		}
		if n := p.cancel(mode, d, everyTask); n > 0 && mode == cancelSilent && p.nexus != by.nexus && code != 0 {
			p.attend(code)
		}
	}
}

// resetAfter ends all commands on the unit, then resets it and calls done.
func (lu *LogicalUnit) resetAfter(by *path, done func()) {
	d := unit.NewDrain(func() {
		// On a goroutine of its own: mode parameters may be waiting for storage.
		go func() {
			lu.reset()
			done()
		}()
	})
	lu.clear(by, d, 0)
	d.Release()
}

// resetTarget resets the logical units that the nexus sees: those of others are
// none of its business (SAM-5 §6.3.2, RFC 7143 §11.5.1).
func (n *Nexus) resetTarget(f Function, done func(Response)) {
	d := unit.NewDrain(func() {
		done(FunctionComplete)
		if n.target.cfg.OnReset != nil {
			n.target.cfg.OnReset(n, f)
		}
	})
	seen := make(map[*LogicalUnit]bool)
	for _, p := range n.paths() {
		if seen[p.lu] {
			continue
		}
		seen[p.lu] = true
		d.Hold()
		p.lu.resetAfter(p, d.Release)
	}
	d.Release()
}

// resetNexus ends the nexus's commands on every unit as the loss of the nexus
// does (SAM-5 §7.6).
func (n *Nexus) resetNexus(done func(Response)) {
	paths := n.paths()
	d := unit.NewDrain(func() {
		for _, p := range paths {
			p.lu.unit.Reservations.NexusLost(n.cfg.Initiator)
			p.attend(wire.NexusLossOccurred)
		}
		done(FunctionComplete)
	})
	for _, p := range paths {
		p.cancel(cancelSilent, d, everyTask)
	}
	d.Release()
}
