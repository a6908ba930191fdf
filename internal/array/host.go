package array

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// ParseNetwork returns the network that an address ("192.0.2.7") or a prefix
// ("192.0.2.0/24") stands for, or a KindInvalid error.
func ParseNetwork(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, Errorf(KindInvalid, "address %q: write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", s)
	}
	return p.Masked(), nil
}

// normalize brings names and keys into the form they are kept in.
func (h *Host) normalize() error {
	initiators := make([]string, 0, len(h.Initiators))
	for _, i := range h.Initiators {
		n, err := NormalizePattern(i)
		if err != nil {
			return err
		}
		initiators = append(initiators, n)
	}
	h.Initiators = initiators
	for _, key := range []*string{&h.DHCHAPKey, &h.DHCHAPCtrlKey, &h.TLSKey} {
		*key = strings.TrimSpace(*key)
	}
	return nil
}

// checkHostName returns a KindExists error where a host or host group has the name.
func (s *State) checkHostName(name string) error {
	if _, err := s.Host(name); err == nil {
		return Errorf(KindExists, "host %q exists already", name)
	}
	if _, err := s.HostGroup(name); err == nil {
		return Errorf(KindExists, "host group %q exists already: hosts and host groups share their names", name)
	}
	return nil
}

// CreateHost returns the state with one more host.
func (s *State) CreateHost(env Env, spec Host) (*State, *Host, Plan, error) {
	var plan Plan
	if err := s.checkHostName(spec.Name); err != nil {
		return nil, nil, plan, err
	}
	h := spec
	doc := *s.Document
	h.Object = Object{ID: fmt.Sprintf("host-%d", doc.Next.Host), Rev: 1, Created: env.Now().UTC()}
	if err := h.normalize(); err != nil {
		return nil, nil, plan, err
	}
	doc.Next.Host++
	doc.Hosts = append(slices.Clip(doc.Hosts), &h)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("create host %s with initiators %s", h.Name, listOr(slices.Concat(h.Initiators, h.NQNs), "none")))
	plan.Warnings = append(plan.Warnings, h.warnings()...)
	return state, &h, plan, nil
}

// Proof has what a host has to prove to log in: when it changes, the sessions that it has end.
type Proof struct{ user, secret, mutualUser, mutualSecret, key, ctrlKey, tlsKey string }

// String hides the secrets.
func (Proof) String() string { return "what a host has to prove" }

// Proof returns what the host has to prove over ISCSI or NVMeTCP.
func (h *Host) Proof(p Protocol) Proof {
	if p == ISCSI {
		return Proof{user: h.CHAPUser, secret: h.CHAPSecret, mutualUser: h.MutualUser, mutualSecret: h.MutualSecret}
	}
	return Proof{key: h.DHCHAPKey, ctrlKey: h.DHCHAPCtrlKey, tlsKey: h.TLSKey}
}

// warnings tells what a host's terms leave open.
func (h *Host) warnings() []string {
	var list []string
	if len(h.Initiators) == 0 && len(h.NQNs) == 0 {
		list = append(list, "no initiator belongs to the host until one is named")
	}
	if slices.Contains(h.Initiators, "*") && h.CHAPUser == "" && len(h.Addresses) == 0 {
		list = append(list, "every initiator that reaches a portal belongs to this host: there is neither CHAP nor an address limit")
	}
	if slices.Contains(h.NQNs, "*") && h.DHCHAPKey == "" && h.TLSKey == "" && len(h.Addresses) == 0 {
		list = append(list, "every NVMe host that reaches a portal belongs to this host: there is neither DH-HMAC-CHAP nor TLS nor an address limit")
	}
	if h.CHAPUser != "" && len(h.NQNs) > 0 && h.DHCHAPKey == "" && h.TLSKey == "" {
		list = append(list, "CHAP is for iSCSI alone: over NVMe the host is let in by its NQN without proof, as it has neither dhchap_key nor tls_key")
	}
	if h.DHCHAPKey != "" && len(h.Initiators) > 0 && h.CHAPUser == "" {
		list = append(list, "DH-HMAC-CHAP is for NVMe alone: over iSCSI the host is let in by its name without proof, as it has no chap_user")
	}
	if h.TLSKey != "" && len(h.NQNs) == 0 {
		list = append(list, "the TLS key is for NVMe, and the host has no NQN")
	}
	return list
}

func listOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

// UpdateHost returns the state with a host changed by edit. A host whose CHAPUser
// becomes empty loses its CHAP secrets, one whose DHCHAPKey does its other key too.
func (s *State) UpdateHost(name, etag string, edit func(*Host)) (*State, *Host, Plan, error) {
	old, err := s.Host(name)
	if err != nil {
		return nil, nil, Plan{}, err
	}
	if err := CheckEtag("host "+name, etag, old.Etag()); err != nil {
		return nil, nil, Plan{}, err
	}
	h := *old
	h.Initiators, h.NQNs, h.Addresses = slices.Clone(old.Initiators), slices.Clone(old.NQNs), slices.Clone(old.Addresses)
	edit(&h)
	if err := h.normalize(); err != nil {
		return nil, nil, Plan{}, err
	}
	if old.CHAPUser != "" && h.CHAPUser == "" {
		h.CHAPSecret, h.MutualUser, h.MutualSecret = "", "", ""
	}
	if old.MutualUser != "" && h.MutualUser == "" {
		h.MutualSecret = ""
	}
	if old.DHCHAPKey != "" && h.DHCHAPKey == "" && h.DHCHAPCtrlKey == old.DHCHAPCtrlKey {
		h.DHCHAPCtrlKey = ""
	}
	if h.Name != old.Name {
		if err := s.checkHostName(h.Name); err != nil {
			return nil, nil, Plan{}, err
		}
	}
	d := differ{subject: "host " + old.Name}
	d.add("name", old.Name, h.Name)
	d.add("initiators", strings.Join(old.Initiators, ","), strings.Join(h.Initiators, ","))
	d.add("nqns", strings.Join(old.NQNs, ","), strings.Join(h.NQNs, ","))
	d.add("addresses", old.Addresses, h.Addresses)
	d.add("chap_user", old.CHAPUser, h.CHAPUser)
	d.addSecret("chap_secret", old.CHAPSecret, h.CHAPSecret)
	d.add("mutual_user", old.MutualUser, h.MutualUser)
	d.addSecret("mutual_secret", old.MutualSecret, h.MutualSecret)
	d.addSecret("dhchap_key", old.DHCHAPKey, h.DHCHAPKey)
	d.addSecret("dhchap_ctrl_key", old.DHCHAPCtrlKey, h.DHCHAPCtrlKey)
	d.addSecret("tls_key", old.TLSKey, h.TLSKey)
	d.add("comment", old.Comment, h.Comment)
	if len(d.fields) == 0 {
		return s, old, d.plan, nil
	}
	if slices.ContainsFunc(d.fields, func(f string) bool { return f == "initiators" || f == "nqns" || f == "addresses" }) {
		d.warn("sessions of initiators that no longer belong to the host lose its volumes")
	}
	for _, w := range h.warnings() {
		if !slices.Contains(old.warnings(), w) {
			d.warn(w)
		}
	}
	h.Rev++
	doc := *s.Document
	doc.Hosts = replace(doc.Hosts, old, &h)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, d.plan, err
	}
	return state, &h, d.plan, nil
}

// DeleteHost returns the state without a host. It fails with KindBusy where the host
// has mappings or is in a group, unless force removes these too.
func (s *State) DeleteHost(name, etag string, force bool) (*State, *Host, Plan, error) {
	var plan Plan
	h, err := s.Host(name)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckEtag("host "+name, etag, h.Etag()); err != nil {
		return nil, nil, plan, err
	}
	doc := *s.Document
	if groups := s.GroupsOf(h.ID); len(groups) > 0 {
		if !force {
			return nil, nil, plan, Errorf(KindBusy, "host %s is in host group %s: take it out first, or use --force", name, groups[0].Name)
		}
		for _, g := range groups {
			plan.Steps = append(plan.Steps, fmt.Sprintf("take host %s out of host group %s", name, g.Name))
			next := *g
			next.Rev++
			next.Hosts = slices.DeleteFunc(slices.Clone(g.Hosts), func(id string) bool { return id == h.ID })
			doc.HostGroups = replace(doc.HostGroups, g, &next)
		}
	}
	mine := func(m *Mapping) bool { return m.Host == h.ID }
	if err := s.unmapAll(&doc, "host "+name, mine, force, &plan); err != nil {
		return nil, nil, plan, err
	}
	doc.Hosts = remove(doc.Hosts, h)
	plan.Steps = append(plan.Steps, "delete host "+name)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	return state, h, plan, nil
}

// unmapAll takes the mappings that go with an object out of doc.
func (s *State) unmapAll(doc *Document, what string, mine func(*Mapping) bool, force bool, plan *Plan) error {
	i := slices.IndexFunc(doc.Mappings, mine)
	if i < 0 {
		return nil
	}
	if !force {
		return Errorf(KindBusy, "volume %s is mapped to %s: unmap it first, or use --force", s.volumeName(doc.Mappings[i].Volume), what)
	}
	for _, m := range doc.Mappings {
		if mine(m) {
			plan.Steps = append(plan.Steps, fmt.Sprintf("unmap volume %s from %s (%s)", s.volumeName(m.Volume), what, m.numbers()))
		}
	}
	doc.Mappings = slices.DeleteFunc(slices.Clone(doc.Mappings), mine)
	return nil
}
