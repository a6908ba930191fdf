package unit

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// AccessState is the asymmetric access state of a group through one target
// port group; the values are those of SPC-4 §5.15.2 and table 306.
type AccessState uint8

// The access states.
const (
	Optimized     AccessState = 0x0
	NonOptimized  AccessState = 0x1
	Standby       AccessState = 0x2
	Unavailable   AccessState = 0x3
	Offline       AccessState = 0xE
	Transitioning AccessState = 0xF
)

func (s AccessState) String() string {
	switch s {
	case Optimized:
		return "active/optimized"
	case NonOptimized:
		return "active/non-optimized"
	case Standby:
		return "standby"
	case Unavailable:
		return "unavailable"
	case Offline:
		return "offline"
	case Transitioning:
		return "transitioning"
	}
	return fmt.Sprintf("access state %d", uint8(s))
}

// Group is the failover unit as initiators see it: the units of one pool, an
// ALUA device group, an ANA group. It has one access state for each target
// port group. Its methods may be called concurrently.
type Group struct {
	id   uint16
	name string

	states    atomic.Pointer[[]tpgState] // sorted by tpg, never changed once published
	preferred atomic.Uint32              // tpg, 0 for none

	mu     sync.Mutex // above Unit.mu
	units  map[*Unit]struct{}
	chosen map[uint16]AccessState // the administrator's states by tpg
}

type tpgState struct {
	tpg   uint16
	state AccessState
}

// NewGroup returns a group without units. Every target port group is optimized
// until a state is set for it, as it is on an array with one head.
func NewGroup(id uint16, name string) *Group {
	g := &Group{id: id, name: name, units: make(map[*Unit]struct{}), chosen: make(map[uint16]AccessState)}
	g.states.Store(new([]tpgState))
	return g
}

// ID returns the group's number, unique in the array.
func (g *Group) ID() uint16 { return g.id }

// Name returns the name of the group's pool.
func (g *Group) Name() string { return g.name }

// State returns the access state through a target port group. It costs one
// atomic load and takes no lock.
func (g *Group) State(tpg uint16) AccessState {
	for _, s := range *g.states.Load() {
		if s.tpg == tpg {
			return s.state
		}
	}
	return Optimized
}

// SetState sets the access state that the administrator has chosen for one target
// port group, and raises EventAccessState on every unit of the group where it
// differs. Choosing what was chosen before changes nothing, so that what an
// initiator has set since stays.
func (g *Group) SetState(tpg uint16, state AccessState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.chosen[tpg] == state {
		return
	}
	g.chosen[tpg] = state
	g.setLocked(map[uint16]AccessState{tpg: state}, Initiator{})
}

// SetStates sets the access states through several target port groups in one
// step, as SET TARGET PORT GROUPS does, and raises EventAccessState where one
// differs for every watcher but those of the initiator that asked for it
// (SPC-4 §5.15.2.4). It changes nothing and returns false where one group is in
// another state by the administrator's choice: a host whose better path is gone
// must not declare the worse one good for all.
func (g *Group) SetStates(states map[uint16]AccessState, by Initiator) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for tpg, state := range states {
		if chosen := g.chosen[tpg]; chosen != Optimized && chosen != state {
			return false
		}
	}
	g.setLocked(states, by)
	return true
}

func (g *Group) setLocked(states map[uint16]AccessState, except Initiator) {
	changed := false
	list := slices.Clone(*g.states.Load())
	for _, tpg := range slices.Sorted(maps.Keys(states)) {
		if g.State(tpg) != states[tpg] {
			changed = true
		}
		i, found := slices.BinarySearchFunc(list, tpg, func(s tpgState, tpg uint16) int { return int(s.tpg) - int(tpg) })
		if found {
			list[i].state = states[tpg]
		} else {
			list = slices.Insert(list, i, tpgState{tpg, states[tpg]})
		}
	}
	g.states.Store(&list)
	if !changed {
		return
	}
	for u := range g.units {
		u.notify(EventAccessState, func(w Watcher) bool { return w.Initiator() != except })
	}
}

// Preferred returns the preferred target port group, 0 for none (the PREF bit
// of SPC-4 §6.37).
func (g *Group) Preferred() uint16 { return uint16(g.preferred.Load()) }

// SetPreferred names the preferred target port group, 0 for none.
func (g *Group) SetPreferred(tpg uint16) { g.preferred.Store(uint32(tpg)) }

// Units returns the units of the group, in order of their ids.
func (g *Group) Units() []*Unit {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Keys(g.units), func(a, b *Unit) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
}

func (g *Group) add(u *Unit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.units[u] = struct{}{}
}

func (g *Group) remove(u *Unit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.units, u)
}
