package array

import (
	"fmt"
	"slices"
)

// To names what a mapping leads to: a host or a host group, exactly one of them.
type To struct {
	Host  string
	Group string
}

// resolveTo returns the ids of what to names.
func (s *State) resolveTo(to To) (host, group string, err error) {
	switch {
	case to.Host != "" && to.Group == "":
		h, err := s.Host(to.Host)
		if err != nil {
			return "", "", err
		}
		return h.ID, "", nil
	case to.Group != "" && to.Host == "":
		g, err := s.HostGroup(to.Group)
		if err != nil {
			return "", "", err
		}
		return "", g.ID, nil
	}
	return "", "", Errorf(KindInvalid, "name a host or a host group, one of the two")
}

// Mapping returns the mapping of a volume to a host or host group. It fails with
// KindNotFound.
func (s *State) Mapping(volume string, to To) (*Mapping, error) {
	v, _, err := s.Volume(volume)
	if err != nil {
		return nil, err
	}
	host, group, err := s.resolveTo(to)
	if err != nil {
		return nil, err
	}
	for _, m := range s.Document.Mappings {
		if m.Volume == v.ID && m.Host == host && m.Group == group {
			return m, nil
		}
	}
	return nil, Errorf(KindNotFound, "volume %s is not mapped to %s", volume, to.Host+to.Group)
}

// CreateMapping returns the state with a volume mapped. A nil lun stands for the
// lowest number that is free on every host concerned.
func (s *State) CreateMapping(env Env, volume string, to To, lun *uint32, readOnly bool) (*State, *Mapping, Plan, error) {
	var plan Plan
	v, _, err := s.Volume(volume)
	if err != nil {
		return nil, nil, plan, err
	}
	host, group, err := s.resolveTo(to)
	if err != nil {
		return nil, nil, plan, err
	}
	doc := *s.Document
	m := &Mapping{
		Object: Object{ID: fmt.Sprintf("map-%d", doc.Next.Mapping), Rev: 1, Created: env.Now().UTC()},
		Volume: v.ID, Host: host, Group: group, ReadOnly: readOnly,
	}
	switch {
	case lun == nil:
		if m.LUN, err = s.freeLUN(m); err != nil {
			return nil, nil, plan, err
		}
	case *lun > MaxLUN:
		return nil, nil, plan, Errorf(KindInvalid, "LUN %d: use 0 to %d", *lun, MaxLUN)
	default:
		m.LUN = uint16(*lun)
	}
	doc.Next.Mapping++
	doc.Mappings = append(slices.Clip(doc.Mappings), m)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	mode := "read and write"
	if readOnly {
		mode = "read-only"
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("map volume %s to %s as LUN %d, %s", volume, s.toName(m), m.LUN, mode))
	if m.LUN > 255 {
		plan.Warnings = append(plan.Warnings, "some initiators do not look beyond LUN 255")
	}
	return state, m, plan, nil
}

// freeLUN returns the lowest LUN that is free on the hosts of a mapping, and, for a
// group, among its own mappings even while it has no hosts.
func (s *State) freeLUN(m *Mapping) (uint16, error) {
	taken := make(map[uint16]bool)
	hosts := s.hostsOf(m)
	for _, other := range s.Document.Mappings {
		if m.Group != "" && other.Group == m.Group ||
			slices.ContainsFunc(s.hostsOf(other), func(id string) bool { return slices.Contains(hosts, id) }) {
			taken[other.LUN] = true
		}
	}
	for lun := range uint16(MaxLUN + 1) {
		if !taken[lun] {
			return lun, nil
		}
	}
	return 0, Errorf(KindExists, "every LUN of %s is taken", s.toName(m))
}

// UpdateMapping returns the state with a mapping's read-only flag set.
func (s *State) UpdateMapping(volume string, to To, etag string, readOnly bool) (*State, *Mapping, Plan, error) {
	old, err := s.Mapping(volume, to)
	if err != nil {
		return nil, nil, Plan{}, err
	}
	what := fmt.Sprintf("mapping of volume %s to %s", volume, s.toName(old))
	if err := CheckEtag(what, etag, old.Etag()); err != nil {
		return nil, nil, Plan{}, err
	}
	d := differ{subject: what}
	d.add("read_only", old.ReadOnly, readOnly)
	if len(d.fields) == 0 {
		return s, old, d.plan, nil
	}
	m := *old
	m.Rev++
	m.ReadOnly = readOnly
	doc := *s.Document
	doc.Mappings = replace(doc.Mappings, old, &m)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, d.plan, err
	}
	return state, &m, d.plan, nil
}

// DeleteMapping returns the state without a mapping.
func (s *State) DeleteMapping(volume string, to To, etag string) (*State, *Mapping, Plan, error) {
	var plan Plan
	m, err := s.Mapping(volume, to)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckEtag(fmt.Sprintf("mapping of volume %s to %s", volume, s.toName(m)), etag, m.Etag()); err != nil {
		return nil, nil, plan, err
	}
	doc := *s.Document
	doc.Mappings = remove(doc.Mappings, m)
	plan.Steps = append(plan.Steps, fmt.Sprintf("unmap volume %s from %s (LUN %d)", volume, s.toName(m), m.LUN))
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	return state, m, plan, nil
}
