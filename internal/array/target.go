package array

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// UpdateTarget returns the state with the target's names, alias and CHAP digests
// changed by edit. A name fails with KindBusy while hosts use volumes by it: inUse
// is asked for ISCSI or NVMeTCP.
func (s *State) UpdateTarget(etag string, inUse func(Protocol) bool, edit func(*Target)) (*State, Plan, error) {
	doc := *s.Document
	old := doc.Target
	if err := CheckEtag("the target", etag, old.Etag()); err != nil {
		return nil, Plan{}, err
	}
	doc.Target.CHAP = slices.Clone(old.CHAP)
	doc.Target.Referrals = slices.Clone(old.Referrals)
	edit(&doc.Target)
	iqn, err := NormalizeISCSIName(doc.Target.IQN)
	if err != nil {
		return nil, Plan{}, err
	}
	doc.Target.IQN = iqn
	if iqn != old.IQN && inUse(ISCSI) || doc.Target.SubsystemNQN != old.SubsystemNQN && inUse(NVMeTCP) {
		return nil, Plan{}, Errorf(KindBusy, "the target's name cannot change while there are sessions: log them out first")
	}
	d := differ{subject: "the target"}
	d.add("iqn", old.IQN, iqn)
	d.add("subsystem_nqn", old.SubsystemNQN, doc.Target.SubsystemNQN)
	d.add("alias", old.Alias, doc.Target.Alias)
	d.add("chap_algorithms", old.CHAP, doc.Target.CHAP)
	d.add("nvme_referrals", old.Referrals, doc.Target.Referrals)
	if len(d.fields) == 0 {
		return s, d.plan, nil
	}
	doc.Target.Rev++
	state, err := s.with(doc)
	return state, d.plan, err
}

// Portal returns the portal with an address and port; port 0 stands for 3260. It
// fails with KindNotFound.
func (s *State) Portal(address netip.Addr, port uint16) (*Portal, error) {
	if port == 0 {
		port = DefaultPort
	}
	for _, p := range s.Document.Portals {
		if p.Address == address && p.Port == port {
			return p, nil
		}
	}
	return nil, Errorf(KindNotFound, "portal %s does not exist", netip.AddrPortFrom(address, port))
}

// MaxReferrals is how many other discovery services a target refers to.
const MaxReferrals = 16

// ParseReferral returns the address and port of another NVMe discovery service, whose
// port is 8009 unless the text says otherwise, or a KindInvalid error.
func ParseReferral(text string) (netip.AddrPort, error) {
	text = strings.TrimSpace(text)
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		var address netip.Addr
		address, err = ParsePortalAddress(text)
		at = netip.AddrPortFrom(address, NVMeDiscovery.DefaultPort())
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if err != nil || !validReferral(at) {
		return netip.AddrPort{}, Errorf(KindInvalid, "referral %q: give the address of another discovery service, or address:port", text)
	}
	return at, nil
}

func validReferral(at netip.AddrPort) bool {
	a := at.Addr()
	return a.IsValid() && at.Port() != 0 && !a.IsUnspecified() && !a.IsMulticast() && !a.Is4In6() && a.Zone() == ""
}

// ParsePortalAddress returns the address of a portal, or a KindInvalid error.
func ParsePortalAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.Trim(strings.TrimSpace(s), "[]"))
	if err != nil || a.IsMulticast() {
		return netip.Addr{}, Errorf(KindInvalid, "address %q: give the IPv4 or IPv6 address to listen on", s)
	}
	return a.Unmap(), nil
}

// AddPortal returns the state with one more portal: no protocol stands for iSCSI, port 0
// for the one of the protocol, tag 0 for the lowest that was never used, group 0 for
// that of the portals with this tag or else the head's own. A group that is not there
// yet is made.
func (s *State) AddPortal(env Env, spec Portal) (*State, *Portal, Plan, error) {
	var plan Plan
	p := &spec
	doc := *s.Document
	p.Object = Object{ID: fmt.Sprintf("portal-%d", doc.Next.Portal), Rev: 1, Created: env.Now().UTC()}
	p.Protocol = cmp.Or(p.Protocol, ISCSI)
	p.Port = cmp.Or(p.Port, p.Protocol.DefaultPort())
	if other, err := s.Portal(p.Address, p.Port); err == nil {
		return nil, nil, plan, Errorf(KindExists, "portal %s exists already, for %s", other.AddrPort(), other.Protocol)
	}
	if p.Tag = cmp.Or(p.Tag, doc.Next.PortalTag); p.Tag == 0 {
		return nil, nil, plan, Errorf(KindExists, "every tag was used: name one")
	}
	doc.Next.Portal++
	if i := slices.IndexFunc(doc.Portals, func(o *Portal) bool { return o.Tag == p.Tag }); i >= 0 {
		p.Group = cmp.Or(p.Group, doc.Portals[i].Group)
	}
	p.Group = cmp.Or(p.Group, doc.Target.PortGroups[0].ID)
	if doc.portGroup(p.Group) < 0 {
		doc.Target.PortGroups = append(slices.Clip(doc.Target.PortGroups), PortGroup{ID: p.Group, Head: doc.Target.PortGroups[0].Head})
		doc.Target.Rev++
		plan.Steps = append(plan.Steps, fmt.Sprintf("make target port group %d, in which every pool is optimized", p.Group))
	}
	if p.Tag >= doc.Next.PortalTag && doc.Next.PortalTag != 0 {
		doc.Next.PortalTag = p.Tag + 1 // 0 after 65535: none is left
	}
	doc.Portals = append(slices.Clip(doc.Portals), p)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	step := fmt.Sprintf("listen on %s for %s with tag %d", p.AddrPort(), p.Protocol, p.Tag)
	if p.TLS {
		step += ", with TLS"
	}
	plan.Steps = append(plan.Steps, step)
	if p.TLS && !slices.ContainsFunc(doc.Hosts, func(h *Host) bool { return h.TLSKey != "" }) {
		plan.Warnings = append(plan.Warnings, "no host has a TLS key, so none can connect to this portal")
	}
	if !p.TLS && !p.Address.IsLoopback() {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("%s is not encrypted: use a private network, %s, for this portal", p.Protocol.title(), p.Protocol.protection()))
	}
	return state, p, plan, nil
}

// RemovePortal returns the state without a portal.
func (s *State) RemovePortal(address netip.Addr, port uint16, etag string) (*State, *Portal, Plan, error) {
	var plan Plan
	p, err := s.Portal(address, port)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckEtag("portal "+p.AddrPort().String(), etag, p.Etag()); err != nil {
		return nil, nil, plan, err
	}
	doc := *s.Document
	doc.Portals = remove(doc.Portals, p)
	plan.Steps = append(plan.Steps, fmt.Sprintf("stop listening on %s and log its sessions out", p.AddrPort()))
	if i := doc.portGroup(p.Group); i > 0 && !slices.ContainsFunc(doc.Portals, func(o *Portal) bool { return o.Group == p.Group }) {
		doc.Target.PortGroups = slices.Delete(slices.Clone(doc.Target.PortGroups), i, i+1)
		doc.Target.Rev++
		plan.Steps = append(plan.Steps, fmt.Sprintf("forget target port group %d", p.Group))
	}
	if len(doc.Portals) == 0 {
		plan.Warnings = append(plan.Warnings, "it is the last portal: no initiator can log in without one")
	}
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	return state, p, plan, nil
}

// portGroup returns the index of a target port group, negative for one that does not exist.
func (d *Document) portGroup(id uint16) int {
	return slices.IndexFunc(d.Target.PortGroups, func(g PortGroup) bool { return g.ID == id })
}

// SetAccessState returns the state with the access state of a pool through a port group
// set; port group 0 stands for the only one.
func (s *State) SetAccessState(pool string, portGroup uint16, access AccessState, etag string) (*State, Plan, error) {
	doc := *s.Document
	if err := CheckEtag("the target", etag, doc.Target.Etag()); err != nil {
		return nil, Plan{}, err
	}
	p, err := s.Pool(pool)
	if err != nil {
		return nil, Plan{}, err
	}
	groups := slices.Clone(doc.Target.PortGroups)
	if portGroup == 0 {
		if len(groups) != 1 {
			return nil, Plan{}, Errorf(KindInvalid, "the target has %d port groups: name one with --port-group", len(groups))
		}
		portGroup = groups[0].ID
	}
	i := doc.portGroup(portGroup)
	if i < 0 {
		return nil, Plan{}, Errorf(KindNotFound, "target port group %d does not exist", portGroup)
	}
	if !access.valid() {
		return nil, Plan{}, Errorf(KindInvalid, "access state %q is unknown", access)
	}
	d := differ{subject: fmt.Sprintf("pool %s through target port group %d", p.Name, portGroup)}
	d.add("access state", groups[i].State(p.ID), access)
	if len(d.fields) == 0 {
		return s, d.plan, nil
	}
	if access != Optimized && access != NonOptimized {
		d.warn("hosts cannot read or write the pool's volumes through these ports in this state")
	}
	states := maps.Clone(groups[i].States)
	if states == nil {
		states = make(map[string]AccessState)
	}
	states[p.ID] = access
	if access == Optimized {
		delete(states, p.ID)
	}
	groups[i].States = states
	doc.Target.PortGroups = groups
	doc.Target.Rev++
	state, err := s.with(doc)
	return state, d.plan, err
}
