package scsi

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/unit"
)

// Target is the SCSI target device: what one array is to its initiators. Its
// logical units are reached through target ports, each in one target port
// group (one group a head).
type Target struct {
	cfg   TargetConfig
	table *table
	name  atomic.Pointer[string]
	ports atomic.Pointer[[]PortConfig] // sorted by Relative, never changed once published

	mu      sync.Mutex // above LogicalUnit.mu
	units   map[*unit.Unit]*LogicalUnit
	nexuses map[*Nexus]struct{}
	seen    map[unit.Initiator]struct{} // whose nexus was lost, for 29/07
}

// maxSeen bounds how many lost initiators are remembered.
const maxSeen = 4096

// TargetConfig describes a Target.
type TargetConfig struct {
	// Name is the SCSI target device name (the IQN) at first, at most 223 bytes.
	Name string
	// Families are the tables of command families beside the SPC base
	// commands of this package (sbc.Commands(), reserve.Commands(), ...).
	Families [][]Command
	// Pages are vital product data pages that command families give, by page
	// code (8Fh third-party copy): the function returns what follows the 4-byte
	// header, nil where the unit has no such page.
	Pages map[byte]func(*LogicalUnit) []byte
	// Available, where not nil, tells how many bytes a thin unit can still
	// allocate (the log page of logical block provisioning); false where unknown.
	Available func(*LogicalUnit) (uint64, bool)
	// OnReset, where not nil, is told when a target reset that the nexus asked
	// for has ended its commands; the transport drops sessions on a cold reset.
	OnReset func(*Nexus, Function)
}

// NewTarget returns a target without ports or units. It fails where two
// commands of the families have the same codes.
func NewTarget(c TargetConfig) (*Target, error) {
	if c.Name == "" || len(c.Name) > 223 {
		return nil, fmt.Errorf("scsi: target name %q: 1 to 223 bytes", c.Name)
	}
	tb, err := newTable(c.Families)
	if err != nil {
		return nil, err
	}
	t := &Target{
		cfg:     c,
		table:   tb,
		units:   make(map[*unit.Unit]*LogicalUnit),
		nexuses: make(map[*Nexus]struct{}),
		seen:    make(map[unit.Initiator]struct{}),
	}
	t.name.Store(&c.Name)
	t.ports.Store(new([]PortConfig))
	return t, nil
}

// Name returns the SCSI target device name.
func (t *Target) Name() string { return *t.name.Load() }

// SetName gives the SCSI target device another name, of 1 to 223 bytes. Nexuses that
// were made under the old one find the new one in the Device Identification page.
func (t *Target) SetName(name string) { t.name.Store(&name) }

// PortConfig describes a target port.
type PortConfig struct {
	// Name is the SCSI target port name (for iSCSI "iqn...,t,0x0001").
	Name string
	// Relative is the relative target port identifier, 1 to 65535, unique in the array.
	Relative uint16
	// Group is the target port group, 1 to 65535.
	Group uint16
	// Protocol is the SPC-4 protocol identifier (5 for iSCSI).
	Protocol uint8
}

// SetPorts replaces the list of target ports (REPORT TARGET PORT GROUPS and VPD
// 83h list them). Nothing changes where it returns an error.
func (t *Target) SetPorts(ports []PortConfig) error {
	list := slices.Clone(ports)
	slices.SortFunc(list, func(a, b PortConfig) int { return int(a.Relative) - int(b.Relative) })
	for i, p := range list {
		if p.Relative == 0 || p.Group == 0 {
			return fmt.Errorf("scsi: target port %s: relative port %d and group %d must not be 0", p.Name, p.Relative, p.Group)
		}
		if i > 0 && list[i-1].Relative == p.Relative {
			return fmt.Errorf("scsi: target ports %s and %s share the relative identifier %d", list[i-1].Name, p.Name, p.Relative)
		}
	}
	t.ports.Store(&list)
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range t.nexuses {
		n.setGroup()
	}
	return nil
}

// Ports returns the target ports in order of their relative identifiers. The
// caller must not change the list.
func (t *Target) Ports() []PortConfig { return *t.ports.Load() }

// Port returns the port with a relative target port identifier.
func (t *Target) Port(relative uint16) (PortConfig, bool) {
	list := t.Ports()
	i, ok := slices.BinarySearchFunc(list, relative, func(p PortConfig, r uint16) int { return int(p.Relative) - int(r) })
	if !ok {
		return PortConfig{}, false
	}
	return list[i], true
}

// AddUnit makes a unit known to the target. It can be mapped afterwards.
func (t *Target) AddUnit(u *unit.Unit) (*LogicalUnit, error) {
	lu, err := newLogicalUnit(t, u)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.units[u] != nil {
		return nil, fmt.Errorf("scsi: unit %s is known already", u.ID())
	}
	t.units[u] = lu
	return lu, nil
}

// Units returns the target's logical units in order of their ids.
func (t *Target) Units() []*LogicalUnit {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.units), func(a, b *LogicalUnit) int {
		if a.unit.ID() < b.unit.ID() {
			return -1
		}
		return 1
	})
}

// RemoveUnit ends the commands on a unit and forgets it. done is called when
// no command can reach the unit's device any more.
func (t *Target) RemoveUnit(lu *LogicalUnit, done func()) {
	t.mu.Lock()
	delete(t.units, lu.unit)
	t.mu.Unlock()
	d := unit.NewDrain(done)
	for _, p := range lu.shut() {
		p.close(cancelGone, d)
	}
	d.Release()
}

// lost remembers an initiator whose nexus has ended.
func (t *Target) lostLocked(i unit.Initiator) {
	if len(t.seen) >= maxSeen {
		for old := range t.seen {
			delete(t.seen, old)
			break
		}
	}
	t.seen[i] = struct{}{}
}
