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

// mappedVolume returns the id of a volume that mappings name: where no pool has it now, it has
// no name but its id.
func (s *State) mappedVolume(name string) (string, error) {
	v, _, err := s.Volume(name)
	if err == nil {
		return v.ID, nil
	}
	if v, _ := s.VolumeByID(name); v == nil && len(s.MappingsOf(name)) > 0 {
		return name, nil
	}
	return "", err
}

// Mapping returns the mapping of a volume to a host or host group. A volume whose pool is
// missing is named by its id. It fails with KindNotFound.
func (s *State) Mapping(volume string, to To) (*Mapping, error) {
	id, err := s.mappedVolume(volume)
	if err != nil {
		return nil, err
	}
	host, group, err := s.resolveTo(to)
	if err != nil {
		return nil, err
	}
	for _, m := range s.Document.Mappings {
		if m.Volume == id && m.Host == host && m.Group == group {
			return m, nil
		}
	}
	return nil, Errorf(KindNotFound, "volume %s is not mapped to %s", volume, to.Host+to.Group)
}

// MappingSpec is how CreateMapping maps a volume.
type MappingSpec struct {
	LUN      *uint32 // nil for the lowest number that is free on every host concerned
	NSID     *uint32 // nil for LUN + 1, or another one that is free
	ReadOnly bool
}

// CreateMapping returns the state with a volume mapped. Where the namespace id that
// belongs to the LUN does not exist or is taken, the mapping gets the highest free
// one, and none at all where all are taken.
func (s *State) CreateMapping(env Env, volume string, to To, spec MappingSpec) (*State, *Mapping, Plan, error) {
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
		Volume: v.ID, Host: host, Group: group, ReadOnly: spec.ReadOnly,
	}
	luns, nsids := s.taken(m)
	switch {
	case spec.LUN == nil:
		free := slices.Index(luns, false)
		if free < 0 {
			return nil, nil, plan, Errorf(KindExists, "every LUN of %s is taken", s.toName(m))
		}
		m.LUN = uint16(free)
	case *spec.LUN > MaxLUN:
		return nil, nil, plan, Errorf(KindInvalid, "LUN %d: use 0 to %d", *spec.LUN, MaxLUN)
	default:
		m.LUN = uint16(*spec.LUN)
	}
	switch {
	case spec.NSID == nil:
		m.NSID = freeNSID(nsids, m.LUN)
	case *spec.NSID == 0 || *spec.NSID > MaxNSID:
		return nil, nil, plan, Errorf(KindInvalid, "NSID %d: use 1 to %d", *spec.NSID, MaxNSID)
	default:
		m.NSID = *spec.NSID
	}
	doc.Next.Mapping++
	doc.Mappings = append(slices.Clip(doc.Mappings), m)
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	mode := "read and write"
	if m.ReadOnly {
		mode = "read-only"
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("map volume %s to %s as %s, %s", volume, s.toName(m), m.numbers(), mode))
	if m.NSID == 0 {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("every NSID of %s is taken: the volume is there over iSCSI only", s.toName(m)))
	}
	if m.LUN > 255 {
		plan.Warnings = append(plan.Warnings, "some initiators do not look beyond LUN 255")
	}
	return state, m, plan, nil
}

// numbers says under which numbers a mapping shows its volume.
func (m *Mapping) numbers() string {
	if m.NSID == 0 {
		return fmt.Sprintf("LUN %d", m.LUN)
	}
	return fmt.Sprintf("LUN %d and NSID %d", m.LUN, m.NSID)
}

// taken returns which LUNs and NSIDs are taken on the hosts of a mapping, and, for a
// group, among its own mappings even while it has no hosts. NSID 0 counts as taken.
func (s *State) taken(m *Mapping) (luns, nsids []bool) {
	luns, nsids = make([]bool, MaxLUN+1), make([]bool, MaxNSID+1)
	hosts := s.hostsOf(m)
	for _, other := range s.Document.Mappings {
		if m.Group != "" && other.Group == m.Group ||
			slices.ContainsFunc(s.hostsOf(other), func(id string) bool { return slices.Contains(hosts, id) }) {
			luns[other.LUN], nsids[other.NSID] = true, true
		}
	}
	nsids[0] = true
	return luns, nsids
}

// freeNSID returns the namespace id for a LUN: the one that belongs to it, or else
// the highest that is free, which is the last to be missed by another LUN; 0
// where none is.
func freeNSID(taken []bool, lun uint16) uint32 {
	if nsid := defaultNSID(lun); !taken[nsid] {
		return nsid
	}
	for nsid := uint32(MaxNSID); nsid > 0; nsid-- {
		if !taken[nsid] {
			return nsid
		}
	}
	return 0
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
	plan.Steps = append(plan.Steps, fmt.Sprintf("unmap volume %s from %s (%s)", volume, s.toName(m), m.numbers()))
	state, err := s.with(doc)
	if err != nil {
		return nil, nil, plan, err
	}
	return state, m, plan, nil
}
