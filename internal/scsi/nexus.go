package scsi

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// Mapping is what one LUN of a nexus leads to.
type Mapping struct {
	LU       *LogicalUnit // nil where the unit is not there now: commands end with NOT READY, not as if there were no such LUN
	ReadOnly bool
}

// LUNMap is what an I_T nexus sees: LUN number (0 to 16383) to unit. It is not changed
// after it was given to a nexus.
type LUNMap map[uint16]Mapping

// maxLUN is the highest LUN that flat space addressing can name (SAM-5 §4.7.7.4).
const maxLUN = 16383

// NexusConfig describes an I_T nexus.
type NexusConfig struct {
	Initiator     unit.Initiator // name and relative target port
	InitiatorName string         // initiator device name, for transport ids and displays
	TransportID   []byte         // SPC-4 §7.6.4 TransportID of the initiator port
	LUNs          LUNMap
}

// Nexus is an I_T nexus: one initiator port at one target port.
type Nexus struct {
	target *Target
	cfg    NexusConfig
	group  atomic.Uint32 // target port group of the port
	luns   atomic.Pointer[lunTable]
	lane   unit.Lane

	mu     sync.Mutex // serialises SetLUNs and Close; above Target.mu
	closed bool
}

// Lane returns the lane of the nexus's reads.
func (n *Nexus) Lane() unit.Lane { return n.lane }

// lunTable finds the path of a LUN. It is never changed once published.
type lunTable struct {
	low  []*path          // LUNs below 256
	high map[uint16]*path // all others
	luns []uint16         // sorted, with those whose unit is not there now
}

// awaits reports whether a LUN is mapped, but its unit is not there now.
func (lt *lunTable) awaits(lun uint16) bool {
	_, mapped := slices.BinarySearch(lt.luns, lun)
	return mapped && lt.get(lun) == nil
}

func (lt *lunTable) get(lun uint16) *path {
	if int(lun) < len(lt.low) {
		return lt.low[lun]
	}
	return lt.high[lun]
}

func newLUNTable(paths map[uint16]*path) *lunTable {
	lt := &lunTable{luns: slices.Sorted(maps.Keys(paths))}
	for _, lun := range lt.luns {
		if lun >= 256 {
			if lt.high == nil {
				lt.high = make(map[uint16]*path)
			}
			lt.high[lun] = paths[lun]
			continue
		}
		for len(lt.low) <= int(lun) {
			lt.low = append(lt.low, nil)
		}
		lt.low[lun] = paths[lun]
	}
	return lt
}

// NewNexus establishes an I_T nexus. Every mapped unit reports POWER ON OCCURRED (29/00) or
// I_T NEXUS LOSS (29/07) where it has not seen, or has lost, this initiator port.
func (t *Target) NewNexus(c NexusConfig) (*Nexus, error) {
	if c.Initiator.Name == "" {
		return nil, fmt.Errorf("scsi: nexus without initiator port name")
	}
	if _, ok := t.Port(c.Initiator.Port); !ok {
		return nil, fmt.Errorf("scsi: nexus of %s: no target port with relative identifier %d", c.Initiator.Name, c.Initiator.Port)
	}
	n := &Nexus{target: t, cfg: c, lane: unit.NewLane()}
	n.luns.Store(&lunTable{})
	n.setGroup()
	t.mu.Lock()
	t.nexuses[n] = struct{}{}
	_, returns := t.seen[c.Initiator]
	t.mu.Unlock()
	code := wire.PowerOnReset
	if returns {
		code = wire.NexusLossOccurred
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setLocked(c.LUNs, code)
	return n, nil
}

// setGroup looks the nexus's target port group up.
func (n *Nexus) setGroup() {
	if p, ok := n.target.Port(n.cfg.Initiator.Port); ok {
		n.group.Store(uint32(p.Group))
	}
}

// Target returns the target device.
func (n *Nexus) Target() *Target { return n.target }

// Initiator returns the initiator port name and the relative target port.
func (n *Nexus) Initiator() unit.Initiator { return n.cfg.Initiator }

// InitiatorName returns the name of the initiator device.
func (n *Nexus) InitiatorName() string { return n.cfg.InitiatorName }

// TransportID returns the TransportID of the initiator port. The caller must not
// change it.
func (n *Nexus) TransportID() []byte { return n.cfg.TransportID }

// Group returns the target port group through which the nexus goes.
func (n *Nexus) Group() uint16 { return uint16(n.group.Load()) }

// find returns the path of the LUN in a command, nil for none.
func (n *Nexus) find(lun uint64) *path {
	l, ok := wire.DecodeLUN(lun)
	if !ok {
		return nil
	}
	return n.luns.Load().get(l)
}

// LUNs returns the numbers of the LUNs that lead to a unit, in order.
func (n *Nexus) LUNs() []uint16 {
	lt := n.luns.Load()
	list := make([]uint16, 0, len(lt.luns))
	for _, lun := range lt.luns {
		if p := lt.get(lun); p != nil && !p.isClosed() {
			list = append(list, lun)
		}
	}
	return list
}

// inventory returns the LUNs that REPORT LUNS tells: a host must not take a unit for
// removed that may come back.
func (n *Nexus) inventory() []uint16 {
	lt := n.luns.Load()
	return slices.DeleteFunc(slices.Clone(lt.luns), func(lun uint16) bool {
		p := lt.get(lun)
		return p != nil && p.isClosed()
	})
}

// awaits reports whether the LUN in a command is mapped, but its unit is not there now.
func (n *Nexus) awaits(lun uint64) bool {
	l, ok := wire.DecodeLUN(lun)
	return ok && n.luns.Load().awaits(l)
}

// Lookup returns what a LUN leads to, in the 8-byte form.
func (n *Nexus) Lookup(lun uint64) (Mapping, bool) {
	p := n.find(lun)
	if p == nil || p.isClosed() {
		return Mapping{}, false
	}
	return Mapping{LU: p.lu, ReadOnly: p.readOnly.Load()}, true
}

// Visit lets a command change the unit of a LUN that is not its own, until leave is called. Task
// management of the unit, and the end of the mapping, wait for that, so it takes no longer than a request to the
// device. It returns false where the LUN does not lead to the unit any more.
func (n *Nexus) Visit(lun uint64, lu *LogicalUnit) (leave func(), ok bool) {
	p := n.find(lun)
	if p == nil || p.lu != lu || !p.enter() {
		return nil, false
	}
	return p.leaveVisit, true
}

// Visible calls f for each LUN and its unit that the nexus sees, in order, until
// f returns false.
func (n *Nexus) Visible(f func(lun uint16, m Mapping) bool) {
	for _, lun := range n.LUNs() {
		p := n.luns.Load().get(lun)
		if p != nil && !f(lun, Mapping{LU: p.lu, ReadOnly: p.readOnly.Load()}) {
			return
		}
	}
}

// SetLUNs replaces what the nexus sees, and raises REPORTED LUNS DATA HAS
// CHANGED (3F/0E) where it differs. Commands under way on an unmapped unit end, and then the
// SCSI-2 reservation that the nexus has on it.
func (n *Nexus) SetLUNs(m LUNMap) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || !n.setLocked(m, wire.PowerOnReset) {
		return
	}
	for _, p := range n.paths() {
		p.attend(wire.ReportedLUNsChanged)
	}
}

// setLocked publishes a new table and reports whether LUNs came or went. New
// paths begin with the unit attention code.
func (n *Nexus) setLocked(m LUNMap, code uint16) bool {
	old := n.luns.Load()
	paths := make(map[uint16]*path, len(m))
	changed := false
	for lun, mapping := range m {
		if lun > maxLUN {
			continue
		}
		if mapping.LU == nil {
			paths[lun] = nil
			changed = changed || !old.awaits(lun)
			continue
		}
		if p := old.get(lun); p != nil && p.lu == mapping.LU && !p.isClosed() {
			if p.readOnly.Swap(mapping.ReadOnly) != mapping.ReadOnly {
				p.attend(wire.ModeParametersChanged) // WP in the device-specific parameter
			}
			paths[lun] = p
			continue
		}
		p := &path{nexus: n, lu: mapping.LU, lun: lun, attentions: []uint16{code}}
		p.readOnly.Store(mapping.ReadOnly)
		if mapping.LU.join(p) == nil {
			paths[lun] = p
			changed = true
		}
	}
	n.luns.Store(newLUNTable(paths))
	gone := unit.NewDrain(func() {})
	for _, lun := range old.luns {
		now, mapped := paths[lun]
		switch p := old.get(lun); {
		case p == nil:
			changed = changed || !mapped
		case p != now:
			changed = true
			if sees(paths, p.lu) {
				p.close(cancelGone, gone)
			} else {
				p.leave(cancelGone, gone)
			}
		}
	}
	gone.Release()
	return changed
}

// sees reports whether a LUN leads to the unit.
func sees(paths map[uint16]*path, lu *LogicalUnit) bool {
	for _, p := range paths {
		if p != nil && p.lu == lu {
			return true
		}
	}
	return false
}

// paths returns the paths of the nexus in order of their LUNs.
func (n *Nexus) paths() []*path {
	lt := n.luns.Load()
	list := make([]*path, 0, len(lt.luns))
	for _, lun := range lt.luns {
		if p := lt.get(lun); p != nil {
			list = append(list, p)
		}
	}
	return list
}

// Close ends the nexus (I_T nexus loss, SAM-5 §6.3.4): its commands are
// aborted, and then SCSI-2 reservations released. done is called when none
// of its commands can reach a device any more.
func (n *Nexus) Close(done func()) {
	d := unit.NewDrain(done)
	for _, p := range n.shut() {
		p.leave(cancelSilent, d)
	}
	d.Release()
}

// shut takes no more commands and returns the paths that there were.
func (n *Nexus) shut() []*path {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	paths := n.paths()
	n.luns.Store(&lunTable{})
	n.target.mu.Lock()
	defer n.target.mu.Unlock()
	delete(n.target.nexuses, n)
	n.target.lostLocked(n.cfg.Initiator)
	return paths
}

// Stats returns the counts of the nexus's commands on the units that it sees now.
func (n *Nexus) Stats() unit.Stats {
	var s unit.Stats
	for _, p := range n.paths() {
		s.Add(p.count())
	}
	return s
}
