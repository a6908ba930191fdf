package array

import (
	"cmp"
	"net/netip"
	"slices"
)

// LUN is one logical unit that a host sees.
type LUN struct {
	Number   uint16
	Volume   *Volume // nil where no pool has it now
	Pool     *PoolDocument
	ReadOnly bool // by the mapping or the volume
}

// Namespace is one namespace that a host sees.
type Namespace struct {
	ID       uint32
	Volume   *Volume // nil where no pool has it now
	Pool     *PoolDocument
	ReadOnly bool // by the mapping or the volume
}

// Match returns the host that an initiator belongs to, nil for none. Among the hosts that
// have a pattern for the name and allow the address, the most specific pattern
// wins, then the longest network, then the older host. The name is compared
// in lower case; IPv4 addresses in IPv6 form count as IPv4, zones are ignored.
func (s *State) Match(initiator string, from netip.Addr) *Host {
	name, err := NormalizeISCSIName(initiator)
	if err != nil {
		return nil
	}
	return s.match(name, from, func(h *Host) []string { return h.Initiators })
}

// MatchNQN is Match for the NQN of an NVMe host. Case counts.
func (s *State) MatchNQN(nqn string, from netip.Addr) *Host {
	if CheckNQN(nqn) != nil {
		return nil
	}
	return s.match(nqn, from, func(h *Host) []string { return h.NQNs })
}

func (s *State) match(name string, from netip.Addr, patterns func(*Host) []string) *Host {
	from = from.Unmap().WithZone("")
	var best *Host
	bestName, bestNet := -1, -1
	for _, h := range s.Document.Hosts { // older hosts come first
		net := 0
		if len(h.Addresses) > 0 {
			net = -1
			for _, p := range h.Addresses {
				if p.Contains(from) {
					net = max(net, p.Bits()+1)
				}
			}
			if net < 0 {
				continue
			}
		}
		for _, pattern := range patterns(h) {
			if !MatchPattern(pattern, name) {
				continue
			}
			if spec := specificity(pattern); spec > bestName || spec == bestName && net > bestNet {
				best, bestName, bestNet = h, spec, net
			}
		}
	}
	return best
}

// LUNs returns what a host sees, through its groups too, ordered by number.
func (s *State) LUNs(hostID string) []LUN {
	var luns []LUN
	for _, m := range s.Document.Mappings {
		if !s.concerns(m, hostID) {
			continue
		}
		v, p := s.VolumeByID(m.Volume)
		luns = append(luns, LUN{Number: m.LUN, Volume: v, Pool: p, ReadOnly: m.ReadOnly || v != nil && v.ReadOnly})
	}
	slices.SortFunc(luns, func(a, b LUN) int { return int(a.Number) - int(b.Number) })
	return luns
}

// Namespaces returns what a host sees over NVMe, through its groups too, ordered by
// namespace id. Mappings without one are left out.
func (s *State) Namespaces(hostID string) []Namespace {
	var list []Namespace
	for _, m := range s.Document.Mappings {
		if m.NSID == 0 || !s.concerns(m, hostID) {
			continue
		}
		v, p := s.VolumeByID(m.Volume)
		list = append(list, Namespace{ID: m.NSID, Volume: v, Pool: p, ReadOnly: m.ReadOnly || v != nil && v.ReadOnly})
	}
	slices.SortFunc(list, func(a, b Namespace) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// concerns reports whether a mapping leads to a host.
func (s *State) concerns(m *Mapping, hostID string) bool {
	return m.Host == hostID || m.Host == "" && slices.Contains(s.hostsOf(m), hostID)
}

// Access returns the access state of a pool through a port group; optimized
// where either is unknown.
func (s *State) Access(portGroup uint16, poolID string) AccessState {
	for i := range s.Document.Target.PortGroups {
		if g := &s.Document.Target.PortGroups[i]; g.ID == portGroup {
			return g.State(poolID)
		}
	}
	return Optimized
}
