package array

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// NewState returns the state made of a document and its pools, which are not
// changed afterwards, or an error that names the rule they break. What an
// earlier version of the program did not write is completed.
func NewState(doc *Document, pools []*PoolDocument) (*State, error) {
	return derive(nil, complete(doc), pools)
}

// Follow is NewState for documents that come from outside and follow this state: what is equal
// in both is the same pointer afterwards, so that it is seen not to have changed.
func (s *State) Follow(doc *Document, pools []*PoolDocument) (*State, error) {
	doc = complete(doc)
	keepEqual(doc.Portals, s.Document.Portals)
	if reflect.DeepEqual(doc, s.Document) {
		doc = s.Document
	}
	pools = slices.Clone(pools)
	for i, p := range pools {
		j := slices.IndexFunc(s.Pools, func(old *PoolDocument) bool { return old.ID == p.ID })
		if j < 0 {
			continue
		}
		for k, v := range p.Volumes {
			if old, _ := s.VolumeByID(v.ID); old != nil && reflect.DeepEqual(v, old) {
				p.Volumes[k] = old
			}
		}
		if reflect.DeepEqual(p, s.Pools[j]) {
			pools[i] = s.Pools[j]
		}
	}
	return derive(s, doc, pools)
}

// keepEqual replaces what list has in common with old by what old has.
func keepEqual[T any](list, old []*T) {
	for i, x := range list {
		if j := slices.IndexFunc(old, func(o *T) bool { return reflect.DeepEqual(x, o) }); j >= 0 {
			list[i] = old[j]
		}
	}
}

// derive is NewState for a state that follows a valid one: volumes that are the same
// are not checked by themselves again.
func derive(before *State, doc *Document, pools []*PoolDocument) (*State, error) {
	s := index(doc, pools)
	if err := s.validate(before); err != nil {
		return nil, err
	}
	return s, nil
}

// index returns the state without checking it.
func index(doc *Document, pools []*PoolDocument) *State {
	total := 0
	for _, p := range pools {
		total += len(p.Volumes)
	}
	s := &State{
		Document: doc,
		Pools:    slices.SortedFunc(slices.Values(pools), func(a, b *PoolDocument) int { return cmp.Compare(a.Name, b.Name) }),
		volumes:  make(map[string]volumeRef, total),
		names:    make(map[string]string, total),
		hosts:    make(map[string]*Host, len(doc.Hosts)),
		groups:   make(map[string]*HostGroup, len(doc.HostGroups)),
	}
	for _, p := range s.Pools {
		for _, v := range p.Volumes {
			s.volumes[v.ID] = volumeRef{v, p}
			s.names[v.Name] = v.ID
		}
	}
	for _, h := range doc.Hosts {
		s.hosts[h.ID] = h
	}
	for _, g := range doc.HostGroups {
		s.groups[g.ID] = g
	}
	return s
}

// with returns the state with another document.
func (s *State) with(doc Document) (*State, error) {
	doc.Generation++
	return derive(s, &doc, s.Pools)
}

// withPool returns the state with another version of one of its pools.
func (s *State) withPool(pool PoolDocument) (*State, error) {
	return s.withBoth(s.Document, pool)
}

func (s *State) withBoth(doc *Document, pool PoolDocument) (*State, error) {
	pool.Generation++
	pools := slices.Clone(s.Pools)
	i := slices.IndexFunc(pools, func(p *PoolDocument) bool { return p.ID == pool.ID })
	pools[i] = &pool
	return derive(s, doc, pools)
}

// Env is what changes take from the world.
type Env struct {
	Now    func() time.Time
	Random interface{ Read([]byte) (int, error) } // a source of unpredictable bytes
}

// Pool returns the pool of that name; "" stands for the system pool. It fails
// with KindNotFound.
func (s *State) Pool(name string) (*PoolDocument, error) {
	for _, p := range s.Pools {
		if p.Name == name || name == "" && p.System {
			return p, nil
		}
	}
	if name == "" {
		return nil, Errorf(KindNotFound, "the array has no system pool")
	}
	return nil, Errorf(KindNotFound, "pool %q does not exist", name)
}

// Volume returns the volume of that name and its pool. It fails with
// KindNotFound.
func (s *State) Volume(name string) (*Volume, *PoolDocument, error) {
	if id, ok := s.names[name]; ok {
		ref := s.volumes[id]
		return ref.volume, ref.pool, nil
	}
	return nil, nil, Errorf(KindNotFound, "volume %q does not exist", name)
}

// VolumeByID returns the volume of that id and its pool, nil for none.
func (s *State) VolumeByID(id string) (*Volume, *PoolDocument) {
	ref := s.volumes[id]
	return ref.volume, ref.pool
}

// Host returns the host of that name. It fails with KindNotFound.
func (s *State) Host(name string) (*Host, error) {
	for _, h := range s.Document.Hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, Errorf(KindNotFound, "host %q does not exist", name)
}

// HostByID returns the host of that id, nil for none.
func (s *State) HostByID(id string) *Host { return s.hosts[id] }

// HostGroup returns the host group of that name. It fails with KindNotFound.
func (s *State) HostGroup(name string) (*HostGroup, error) {
	for _, g := range s.Document.HostGroups {
		if g.Name == name {
			return g, nil
		}
	}
	return nil, Errorf(KindNotFound, "host group %q does not exist", name)
}

// HostGroupByID returns the host group of that id, nil for none.
func (s *State) HostGroupByID(id string) *HostGroup { return s.groups[id] }

// GroupsOf returns the host groups that a host is in, ordered by name.
func (s *State) GroupsOf(hostID string) []*HostGroup {
	var in []*HostGroup
	for _, g := range s.Document.HostGroups {
		if slices.Contains(g.Hosts, hostID) {
			in = append(in, g)
		}
	}
	slices.SortFunc(in, func(a, b *HostGroup) int { return cmp.Compare(a.Name, b.Name) })
	return in
}

// MappingsOf returns the mappings of a volume.
func (s *State) MappingsOf(volumeID string) []*Mapping {
	var of []*Mapping
	for _, m := range s.Document.Mappings {
		if m.Volume == volumeID {
			of = append(of, m)
		}
	}
	return of
}

// hostsOf returns the ids of the hosts that a mapping concerns.
func (s *State) hostsOf(m *Mapping) []string {
	if m.Host != "" {
		return []string{m.Host}
	}
	if g := s.groups[m.Group]; g != nil {
		return g.Hosts
	}
	return nil
}

// Etag returns what identifies this version of an object.
func (o *Object) Etag() string { return fmt.Sprintf("%s.%d", o.ID, o.Rev) }

// Etag returns what identifies this version of the target.
func (t *Target) Etag() string { return fmt.Sprintf("target.%d", t.Rev) }

// CheckEtag returns a KindConflict error unless want is empty or is.
func CheckEtag(what, want, is string) error {
	if want == "" || want == is {
		return nil
	}
	return Errorf(KindConflict, "%s has changed since it was read: read it again and repeat", what)
}
