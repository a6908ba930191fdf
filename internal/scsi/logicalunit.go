package scsi

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The bits of LogicalUnit.flags: what the dispatcher asks of each command.
const (
	flagDescriptorSense uint32 = 1 << iota // D_SENSE
	flagWriteProtect                       // SWP
	flagTaskAborted                        // TAS
	flagStopped                            // stopped by START STOP UNIT
	flagSanitize                           // a sanitize operation goes on or has failed
)

// LogicalUnit is a unit.Unit as SCSI presents it: with mode pages, unit
// attentions, and sanitize state.
type LogicalUnit struct {
	target         *Target
	unit           *unit.Unit
	deviceReadOnly bool
	flags          atomic.Uint32
	sanitize       atomic.Uint32 // a SanitizeState
	progress       atomic.Uint32 // of the sanitize operation
	threshold      atomic.Uint32 // soft threshold of a thin unit, in percent
	reached        atomic.Bool   // and whether the used space is past it
	order          order

	mu     sync.Mutex // above path.mu
	closed bool
	paths  map[*path]struct{}
	past   unit.Stats // of paths that are gone
	modes  modes
}

// errClosed says that a unit was removed.
var errClosed = errors.New("the unit was removed")

func newLogicalUnit(t *Target, u *unit.Unit) (*LogicalUnit, error) {
	lu := &LogicalUnit{
		target:         t,
		unit:           u,
		deviceReadOnly: u.Device().Info().ReadOnly,
		paths:          make(map[*path]struct{}),
	}
	if err := lu.loadModes(); err != nil {
		return nil, fmt.Errorf("scsi: unit %s: saved mode parameters: %w", u.ID(), err)
	}
	return lu, nil
}

// Unit returns the shared unit below.
func (lu *LogicalUnit) Unit() *unit.Unit { return lu.unit }

// ReadOnly reports whether the unit takes no writes from anybody, by its
// attribute or its device.
func (lu *LogicalUnit) ReadOnly() bool {
	return lu.deviceReadOnly || lu.unit.Attributes().ReadOnly
}

// WriteThrough reports whether every write has to be stable before it is
// answered: the write cache is off (WCE=0).
func (lu *LogicalUnit) WriteThrough() bool { return lu.unit.Attributes().WriteThrough }

// SoftwareWriteProtected reports whether an initiator has set SWP in the control
// mode page.
func (lu *LogicalUnit) SoftwareWriteProtected() bool { return lu.flags.Load()&flagWriteProtect != 0 }

// Stopped reports whether START STOP UNIT has stopped the unit.
func (lu *LogicalUnit) Stopped() bool { return lu.flags.Load()&flagStopped != 0 }

func (lu *LogicalUnit) setFlag(flag uint32, on bool) {
	if on {
		lu.flags.Or(flag)
	} else {
		lu.flags.And(^flag)
	}
}

// taskAbortedStatus reports whether TAS is set: commands that another nexus
// aborts end with TASK ABORTED.
func (lu *LogicalUnit) taskAbortedStatus() bool { return lu.flags.Load()&flagTaskAborted != 0 }

// othersMode returns how tasks of other nexuses are cancelled.
func (lu *LogicalUnit) othersMode() uint32 {
	if lu.taskAbortedStatus() {
		return cancelStatus
	}
	return cancelSilent
}

// reserved reports whether a reservation of another initiator keeps a command
// out: a persistent one (SPC-4 §5.13), or SCSI-2 RESERVE (SPC-2 §5.5.1).
func (lu *LogicalUnit) reserved(from unit.Initiator, op *operation) bool {
	if op.Access != unit.AccessNone {
		return lu.unit.Reservations.Conflicts(from, op.Access)
	}
	return !op.AllowReserved && lu.unit.Reservations.Reserved(from)
}

// reset does what a logical unit reset does beside ending commands (SAM-5
// §6.3.3).
func (lu *LogicalUnit) reset() {
	lu.unit.Reservations.Reset()
	lu.setFlag(flagStopped, false)
	lu.restoreModes()
	lu.unit.Notify(unit.EventReset, nil)
}

// SanitizeState is how far a sanitize operation is (SBC-3 §4.11).
type SanitizeState uint32

// The sanitize states.
const (
	SanitizeIdle SanitizeState = iota
	SanitizeRunning
	SanitizeFailed
)

// SanitizeState returns the state of the sanitize operation and, while it runs,
// its progress in 65536ths.
func (lu *LogicalUnit) SanitizeState() (s SanitizeState, progress uint16) {
	return SanitizeState(lu.sanitize.Load()), uint16(lu.progress.Load())
}

// StartSanitize enters the running state; false where an operation runs already.
func (lu *LogicalUnit) StartSanitize() bool {
	for {
		old := lu.sanitize.Load()
		if SanitizeState(old) == SanitizeRunning {
			return false
		}
		if lu.sanitize.CompareAndSwap(old, uint32(SanitizeRunning)) {
			lu.progress.Store(0)
			lu.setFlag(flagSanitize, true)
			lu.unit.SetSeal(unit.Sanitizing)
			return true
		}
	}
}

// SetSanitizeProgress tells how far the running operation is, in 65536ths.
func (lu *LogicalUnit) SetSanitizeProgress(done uint16) { lu.progress.Store(uint32(done)) }

// SetSanitizeState enters a state: idle when the operation has succeeded or a
// failure was left by EXIT FAILURE MODE, failed when it has not.
func (lu *LogicalUnit) SetSanitizeState(s SanitizeState) {
	lu.setFlag(flagSanitize, s != SanitizeIdle)
	lu.unit.SetSeal([...]unit.Seal{SanitizeIdle: unit.Unsealed, SanitizeRunning: unit.Sanitizing, SanitizeFailed: unit.SanitizeFailed}[s])
	lu.sanitize.Store(uint32(s)) // last: the next operation may begin
}

// sanitizeSense is the sense of commands that are refused because of sanitize.
func (lu *LogicalUnit) sanitizeSense() Sense {
	state, progress := lu.SanitizeState()
	if state == SanitizeFailed {
		return Sense{Key: wire.KeyMediumError, Code: wire.SanitizeFailed}
	}
	return Sense{Key: wire.KeyNotReady, Code: wire.SanitizeInProgress, Specific: wire.Progress(progress)}
}

// join adds a path and lets the unit tell it events.
func (lu *LogicalUnit) join(p *path) error {
	lu.mu.Lock()
	if lu.closed {
		lu.mu.Unlock()
		return errClosed
	}
	lu.paths[p] = struct{}{}
	lu.mu.Unlock()
	lu.unit.Attach(p)
	if p.isClosed() { // the unit was removed meanwhile
		lu.unit.Detach(p)
	}
	return nil
}

// forget drops a closed path whose tasks have ended.
func (lu *LogicalUnit) forget(p *path) {
	p.mu.Lock()
	s := p.stats
	p.stats = unit.Stats{}
	p.mu.Unlock()
	lu.mu.Lock()
	defer lu.mu.Unlock()
	delete(lu.paths, p)
	lu.past.Add(s)
}

// shut takes no more paths and returns those that there are.
func (lu *LogicalUnit) shut() []*path {
	lu.mu.Lock()
	lu.closed = true
	lu.mu.Unlock()
	return lu.listPaths()
}

func (lu *LogicalUnit) listPaths() []*path {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	list := make([]*path, 0, len(lu.paths))
	for p := range lu.paths {
		list = append(list, p)
	}
	return list
}

// enabled counts the tasks under way that are not dormant, and the ORDERED ones
// of them.
func (lu *LogicalUnit) enabled() (tasks, ordered int) {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	for p := range lu.paths {
		p.mu.Lock()
		for t := p.tasks; t != nil; t = t.next {
			if t.dormant {
				continue
			}
			tasks++
			if t.Attr == AttrOrdered {
				ordered++
			}
		}
		p.mu.Unlock()
	}
	return tasks, ordered
}

// Stats returns the counts of the unit's SCSI commands since it was added.
func (lu *LogicalUnit) Stats() unit.Stats {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	s := lu.past
	for p := range lu.paths {
		s.Add(p.count())
	}
	return s
}
