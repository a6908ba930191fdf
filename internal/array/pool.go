package array

import (
	"fmt"
	"slices"
)

// New returns the state of a new array with one file pool, the system pool, and
// no portals.
func New(env Env, name, head, pool string) (*State, error) {
	id, err := randomHex(env.Random, 12)
	if err != nil {
		return nil, err
	}
	doc := &Document{
		Format: Format, Generation: 1,
		Object:   Object{ID: "a" + id, Rev: 1, Created: env.Now().UTC()},
		Name:     name,
		Settings: Settings{NAAPrefix: DefaultNAAPrefix},
		Target: Target{
			Rev: 1, IQN: fmt.Sprintf("%s:%s.%s", DefaultIQNBase, name, id), SubsystemNQN: defaultNQN("a" + id),
			PortGroups: []PortGroup{{ID: 1, Head: head}},
		},
		Next: Counters{Host: 1, HostGroup: 1, Mapping: 1, Portal: 1, PortalTag: 1},
	}
	p, err := newPool(env, doc.ID, pool, PoolFile, "")
	if err != nil {
		return nil, err
	}
	p.System = true
	return NewState(doc, []*PoolDocument{p})
}

func newPool(env Env, arrayID, name string, kind PoolKind, comment string) (*PoolDocument, error) {
	id, err := randomHex(env.Random, 12)
	if err != nil {
		return nil, err
	}
	return &PoolDocument{
		Format: Format, Generation: 1,
		Object: Object{ID: "p" + id, Rev: 1, Created: env.Now().UTC()},
		Name:   name, Kind: kind, ArrayID: arrayID, Epoch: 1, Extent: FileExtent, Comment: comment,
		NextVolume: 1,
	}, nil
}

// CreatePool returns the state with one more pool.
func (s *State) CreatePool(env Env, name string, kind PoolKind, comment string) (*State, *PoolDocument, Plan, error) {
	var plan Plan
	if _, err := s.Pool(name); err == nil && name != "" {
		return nil, nil, plan, Errorf(KindExists, "pool %q exists already", name)
	}
	p, err := newPool(env, s.Document.ID, name, kind, comment)
	if err != nil {
		return nil, nil, plan, err
	}
	state, err := NewState(s.Document, append(slices.Clone(s.Pools), p))
	if err != nil {
		return nil, nil, plan, err
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("create pool %s (%s)", name, kind))
	return state, p, plan, nil
}

// DeletePool returns the state without a pool. It fails with KindBusy where the pool
// has volumes or is the system pool.
func (s *State) DeletePool(name, etag string) (*State, *PoolDocument, Plan, error) {
	var plan Plan
	if name == "" {
		return nil, nil, plan, Errorf(KindInvalid, "pool name is missing")
	}
	p, err := s.Pool(name)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckEtag("pool "+name, etag, p.Etag()); err != nil {
		return nil, nil, plan, err
	}
	if p.System {
		return nil, nil, plan, Errorf(KindBusy, "pool %s is the system pool, which keeps the array's configuration: it cannot be deleted", name)
	}
	if len(p.Volumes) > 0 {
		return nil, nil, plan, Errorf(KindBusy, "pool %s has %d volumes: delete them first", name, len(p.Volumes))
	}
	doc := *s.Document
	doc.Target.PortGroups = slices.Clone(doc.Target.PortGroups)
	for i := range doc.Target.PortGroups {
		doc.Target.PortGroups[i].States = without(doc.Target.PortGroups[i].States, p.ID)
	}
	doc.Generation++
	state, err := NewState(&doc, remove(s.Pools, p))
	if err != nil {
		return nil, nil, plan, err
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("delete pool %s", name))
	return state, p, plan, nil
}

func without(states map[string]AccessState, pool string) map[string]AccessState {
	kept := make(map[string]AccessState, len(states))
	for id, state := range states {
		if id != pool {
			kept[id] = state
		}
	}
	return kept
}

// UpdateArray returns the state with the array's name and settings changed by edit.
func (s *State) UpdateArray(etag string, edit func(name *string, settings *Settings)) (*State, Plan, error) {
	doc := *s.Document
	if err := CheckEtag("the array", etag, doc.Etag()); err != nil {
		return nil, Plan{}, err
	}
	edit(&doc.Name, &doc.Settings)
	prefix, err := NormalizeNAAPrefix(doc.Settings.NAAPrefix)
	if err != nil {
		return nil, Plan{}, err
	}
	doc.Settings.NAAPrefix = prefix
	d := differ{subject: "the array"}
	d.add("name", s.Document.Name, doc.Name)
	d.add("naa_prefix", s.Document.Settings.NAAPrefix, prefix)
	if len(d.fields) == 0 {
		return s, d.plan, nil
	}
	doc.Rev++
	state, err := s.with(doc)
	return state, d.plan, err
}
