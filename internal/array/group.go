package array

import (
	"fmt"
	"slices"
	"strings"
)

// hostIDs returns the ids of named hosts.
func (s *State) hostIDs(names []string) ([]string, error) {
	ids := make([]string, 0, len(names))
	for _, name := range names {
		h, err := s.Host(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, h.ID)
	}
	return ids, nil
}

// HostNames returns the names of the group's hosts, ordered.
func (s *State) HostNames(g *HostGroup) []string {
	names := make([]string, 0, len(g.Hosts))
	for _, id := range g.Hosts {
		names = append(names, s.hosts[id].Name)
	}
	slices.Sort(names)
	return names
}

// CreateHostGroup returns the state with one more host group of the named hosts.
func (s *State) CreateHostGroup(env Env, name string, hosts []string, comment string) (*State, *HostGroup, Plan, error) {
	var plan Plan
	if err := s.checkHostName(name); err != nil {
		return nil, nil, plan, err
	}
	ids, err := s.hostIDs(hosts)
	if err != nil {
		return nil, nil, plan, err
	}
	doc := *s.Document
	g := &HostGroup{
		Object: Object{ID: fmt.Sprintf("group-%d", doc.Next.HostGroup), Rev: 1, Created: env.Now().UTC()},
		Name:   name, Hosts: ids, Comment: comment,
	}
	doc.Next.HostGroup++
	doc.HostGroups = append(slices.Clip(doc.HostGroups), g)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("create host group %s of hosts %s", name, listOr(hosts, "none")))
	return state, g, plan, nil
}

// HostGroupSpec is what UpdateHostGroup edits; hosts are named.
type HostGroupSpec struct {
	Name    string
	Hosts   []string
	Comment string
}

// UpdateHostGroup returns the state with a host group changed by edit.
func (s *State) UpdateHostGroup(name, etag string, edit func(*HostGroupSpec)) (*State, *HostGroup, Plan, error) {
	old, err := s.HostGroup(name)
	if err != nil {
		return nil, nil, Plan{}, err
	}
	if err := CheckEtag("host group "+name, etag, old.Etag()); err != nil {
		return nil, nil, Plan{}, err
	}
	was := HostGroupSpec{Name: old.Name, Hosts: s.HostNames(old), Comment: old.Comment}
	spec := HostGroupSpec{Name: was.Name, Hosts: slices.Clone(was.Hosts), Comment: was.Comment}
	edit(&spec)
	ids, err := s.hostIDs(spec.Hosts)
	if err != nil {
		return nil, nil, Plan{}, err
	}
	if spec.Name != old.Name {
		if err := s.checkHostName(spec.Name); err != nil {
			return nil, nil, Plan{}, err
		}
	}
	d := differ{subject: "host group " + old.Name}
	d.add("name", was.Name, spec.Name)
	slices.Sort(spec.Hosts)
	d.add("hosts", strings.Join(was.Hosts, ","), strings.Join(spec.Hosts, ","))
	d.add("comment", was.Comment, spec.Comment)
	if len(d.fields) == 0 {
		return s, old, d.plan, nil
	}
	g := *old
	g.Rev++
	g.Name, g.Hosts, g.Comment = spec.Name, ids, spec.Comment
	doc := *s.Document
	doc.HostGroups = replace(doc.HostGroups, old, &g)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, d.plan, err
	}
	return state, &g, d.plan, nil
}

// DeleteHostGroup returns the state without a host group. It fails with KindBusy
// where the group has mappings, unless force removes them too.
func (s *State) DeleteHostGroup(name, etag string, force bool) (*State, *HostGroup, Plan, error) {
	var plan Plan
	g, err := s.HostGroup(name)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckEtag("host group "+name, etag, g.Etag()); err != nil {
		return nil, nil, plan, err
	}
	doc := *s.Document
	mine := func(m *Mapping) bool { return m.Group == g.ID }
	if err := s.unmapAll(&doc, "host group "+name, mine, force, &plan); err != nil {
		return nil, nil, plan, err
	}
	doc.HostGroups = remove(doc.HostGroups, g)
	plan.Steps = append(plan.Steps, "delete host group "+name)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	return state, g, plan, nil
}
