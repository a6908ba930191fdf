package array

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// VolumeNumber returns the number in the id of a volume made by the pool.
func (p *PoolDocument) VolumeNumber(id string) (uint64, bool) {
	digits, ok := strings.CutPrefix(id, p.ID+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != digits {
		return 0, false
	}
	return n, true
}

// DefaultPhysicalExponent returns the exponent of a volume for which none was
// asked: physical blocks of 4 KiB.
func DefaultPhysicalExponent(blockSize uint32) uint8 {
	if blockSize == 4096 {
		return 0
	}
	return 3
}

// CreateVolume returns the state with one more volume in the named pool ("" for
// the system pool). Name, Size, Kind, Path, BlockSize, PhysicalExponent and the
// flags are taken from spec; identity fields too, and where they are empty the
// volume gets its own. Size is rounded up to the extent.
func (s *State) CreateVolume(env Env, pool string, spec Volume) (*State, *Volume, Plan, error) {
	var plan Plan
	p, err := s.Pool(pool)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckName("volume", spec.Name); err != nil {
		return nil, nil, plan, err
	}
	if _, taken := s.names[spec.Name]; taken {
		return nil, nil, plan, Errorf(KindExists, "volume %q exists already", spec.Name)
	}
	v := spec
	v.Object = Object{ID: fmt.Sprintf("%s-%d", p.ID, p.NextVolume), Rev: 1, Created: env.Now().UTC()}
	v.Truncate = false
	if v.BlockSize == 0 {
		v.BlockSize = 512
	}
	if v.Size, err = roundVolume(&v, p, &plan); err != nil {
		return nil, nil, plan, err
	}
	if err := s.completeIdentity(env, &v); err != nil {
		return nil, nil, plan, err
	}
	next := *p
	next.NextVolume++
	next.Volumes = append(slices.Clip(p.Volumes), &v)
	state, err := s.withPool(next)
	if err != nil {
		return nil, nil, plan, err
	}
	thin := "thick"
	if v.Thin {
		thin = "thin"
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("create %s volume %s of %s (%s) in pool %s, naa_id %s", thin, v.Name, FormatSize(v.Size), v.Kind, p.Name, v.NAA))
	switch v.Kind {
	case VolumeMem:
		plan.Warnings = append(plan.Warnings, "the data is in memory and lost when the array stops")
	case VolumeNull:
		plan.Warnings = append(plan.Warnings, "a null volume forgets what is written: use it for measurements only")
	}
	return state, &v, plan, nil
}

// roundVolume returns the size a volume gets for the size that was asked for.
func roundVolume(v *Volume, p *PoolDocument, plan *Plan) (uint64, error) {
	if v.Kind == VolumeDisk {
		return v.Size - v.Size%uint64(max(v.BlockSize, 1)), nil
	}
	size, ok := RoundUp(v.Size, p.Extent)
	if !ok {
		return 0, Errorf(KindInvalid, "size %s: use at most %s", FormatSize(v.Size), FormatSize(MaxVolumeSize))
	}
	if size != v.Size {
		plan.Steps = append(plan.Steps, fmt.Sprintf("round the size up from %s to %s, a multiple of the extent of %s", FormatSize(v.Size), FormatSize(size), FormatSize(p.Extent)))
	}
	return size, nil
}

// completeIdentity normalizes the identity fields and fills in the empty ones.
func (s *State) completeIdentity(env Env, v *Volume) (err error) {
	if v.NAA == "" {
		if v.NAA, err = s.newNAA(env); err != nil {
			return err
		}
	} else if v.NAA, err = NormalizeNAA(v.NAA); err != nil {
		return err
	}
	if v.EUI64 == "" {
		tail, err := randomHex(env.Random, 10)
		if err != nil {
			return err
		}
		v.EUI64 = s.Document.Settings.NAAPrefix + tail
	} else if v.EUI64, err = NormalizeEUI64(v.EUI64); err != nil {
		return err
	}
	if v.Serial == "" {
		if v.Serial, err = randomHex(env.Random, 16); err != nil {
			return err
		}
	}
	if v.T10ID == "" {
		v.T10ID = v.ID
	}
	if v.Vendor == "" {
		v.Vendor = DefaultVendor
	}
	if v.Product == "" {
		v.Product = DefaultProduct
	}
	return nil
}

// newNAA returns an NAA 6 identifier whose first 8 bytes no volume has.
func (s *State) newNAA(env Env) (string, error) {
	taken := make(map[string]bool, len(s.volumes))
	for _, ref := range s.volumes {
		taken[naaKey(ref.volume.NAA)] = true
	}
	for range 64 {
		tail, err := randomHex(env.Random, 25)
		if err != nil {
			return "", err
		}
		if naa := "6" + s.Document.Settings.NAAPrefix + tail; !taken[naaKey(naa)] {
			return naa, nil
		}
	}
	return "", Errorf(KindInternal, "no free NAA identifier was found: the source of random bytes repeats itself")
}

// UpdateVolume returns the state with a volume changed by edit. While the volume is in
// use (a session sees it), changes of identity and geometry fail with KindBusy.
func (s *State) UpdateVolume(env Env, name, etag string, inUse bool, edit func(*Volume)) (*State, *Volume, Plan, error) {
	var plan Plan
	old, p, err := s.Volume(name)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckEtag("volume "+name, etag, old.Etag()); err != nil {
		return nil, nil, plan, err
	}
	v := *old
	edit(&v)
	if err := s.completeIdentity(env, &v); err != nil {
		return nil, nil, plan, err
	}
	if v.Kind != old.Kind || v.Path != old.Path || v.Disk != old.Disk || v.BlockSize != old.BlockSize || v.Size != old.Size {
		return nil, nil, plan, Errorf(KindInvalid, "volume %s: pool, kind, path, block size and size cannot be set; make another volume, or resize", name)
	}
	if v.Name != old.Name {
		if _, taken := s.names[v.Name]; taken {
			return nil, nil, plan, Errorf(KindExists, "volume %q exists already", v.Name)
		}
	}
	d := differ{subject: "volume " + old.Name}
	d.add("naa_id", old.NAA, v.NAA)
	d.add("eui64_id", old.EUI64, v.EUI64)
	d.add("t10_dev_id", old.T10ID, v.T10ID)
	d.add("usn", old.Serial, v.Serial)
	d.add("vendor", old.Vendor, v.Vendor)
	d.add("physical_exponent", old.PhysicalExponent, v.PhysicalExponent)
	d.add("thin", old.Thin, v.Thin)
	if inUse && len(d.fields) > 0 {
		return nil, nil, plan, Errorf(KindBusy, "volume %s is in use: %s cannot change while a session sees it; unmap it or log its hosts out first", name, strings.Join(d.fields, ", "))
	}
	if len(d.fields) > 0 {
		d.warn("hosts may take the volume for another one when its identity or geometry changes")
	}
	d.add("name", old.Name, v.Name)
	d.add("product", old.Product, v.Product)
	d.add("revision", old.Revision, v.Revision)
	d.add("rotational", old.Rotational, v.Rotational)
	d.add("read_only", old.ReadOnly, v.ReadOnly)
	d.add("write_through", old.WriteThrough, v.WriteThrough)
	d.add("thin_threshold_percent", old.ThinThreshold, v.ThinThreshold)
	d.add("comment", old.Comment, v.Comment)
	if len(d.fields) == 0 {
		return s, old, d.plan, nil
	}
	if old.Thin && !v.Thin {
		d.plan.allocates(&v, p, v.Size)
	}
	state, nv, err := s.replaceVolume(p, old, v)
	return state, nv, d.plan, err
}

// allocates adds the step that takes the space of a thick volume from its pool.
func (p *Plan) allocates(v *Volume, from *PoolDocument, size uint64) {
	if v.Kind == VolumeFile && !v.Thin {
		p.Steps = append(p.Steps, fmt.Sprintf("allocate %s for volume %s in pool %s", FormatSize(size), v.Name, from.Name))
	}
}

func (s *State) replaceVolume(p *PoolDocument, old *Volume, v Volume) (*State, *Volume, error) {
	v.Rev++
	next := *p
	next.Volumes = replace(p.Volumes, old, &v)
	state, err := s.withPool(next)
	if err != nil {
		return nil, nil, err
	}
	return state, &v, nil
}

// ResizeVolume returns the state with a volume of another size, rounded up to the
// extent. A smaller size fails with KindBusy unless shrink allows it.
func (s *State) ResizeVolume(name, etag string, size uint64, shrink bool) (*State, *Volume, Plan, error) {
	var plan Plan
	old, p, err := s.Volume(name)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckEtag("volume "+name, etag, old.Etag()); err != nil {
		return nil, nil, plan, err
	}
	v := *old
	v.Size = size
	if v.Size, err = roundVolume(&v, p, &plan); err != nil {
		return nil, nil, plan, err
	}
	switch {
	case v.Kind == VolumeDisk:
		return nil, nil, plan, Errorf(KindBusy, "volume %s is a disk: its size is the device's", name)
	case v.Size == old.Size:
		return s, old, plan, nil
	case v.Size < old.Size && !shrink:
		return nil, nil, plan, Errorf(KindBusy, "volume %s has %s: a smaller size destroys what lies beyond it and has to be allowed explicitly", name, FormatSize(old.Size))
	case v.Size < old.Size:
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("the last %s of the data are destroyed", FormatSize(old.Size-v.Size)))
	}
	v.Truncate = v.Kind == VolumeFile && v.Size < old.Size
	if v.Size > old.Size {
		plan.allocates(&v, p, v.Size-old.Size)
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("resize volume %s from %s to %s", name, FormatSize(old.Size), FormatSize(v.Size)))
	state, nv, err := s.replaceVolume(p, old, v)
	return state, nv, plan, err
}

// DeleteVolume returns the state without a volume, whose id is left in its pool's
// list of doomed ones. It fails with KindBusy where the volume is mapped, unless
// force removes its mappings too.
func (s *State) DeleteVolume(name, etag string, force bool) (*State, *Volume, Plan, error) {
	var plan Plan
	v, p, err := s.Volume(name)
	if err != nil {
		return nil, nil, plan, err
	}
	if err := CheckEtag("volume "+name, etag, v.Etag()); err != nil {
		return nil, nil, plan, err
	}
	doc := s.Document
	if mappings := s.MappingsOf(v.ID); len(mappings) > 0 {
		if !force {
			return nil, nil, plan, Errorf(KindBusy, "volume %s is mapped to %s: unmap it first, or use --force", name, s.toName(mappings[0]))
		}
		for _, m := range mappings {
			plan.Steps = append(plan.Steps, fmt.Sprintf("unmap volume %s from %s (%s)", name, s.toName(m), m.numbers()))
		}
		next := *doc
		next.Mappings = slices.DeleteFunc(slices.Clone(doc.Mappings), func(m *Mapping) bool { return m.Volume == v.ID })
		next.Generation++
		doc = &next
	}
	next := *p
	next.Volumes = remove(p.Volumes, v)
	if v.Kind == VolumeFile {
		next.Doomed = append(slices.Clip(p.Doomed), v.ID)
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("the data of volume %s (%s) is destroyed", name, FormatSize(v.Size)))
	}
	plan.Steps = append(plan.Steps, fmt.Sprintf("delete volume %s of %s (%s) from pool %s", name, FormatSize(v.Size), v.Kind, p.Name))
	state, err := s.withBoth(doc, next)
	if err != nil {
		return nil, nil, plan, err
	}
	return state, v, plan, nil
}

// Tidy returns the state without notes of a pool on work that is done: the ids in Doomed
// whose backing is removed, and Truncate of volumes whose backing was cut.
func (s *State) Tidy(poolID string, removed, cut []string) (*State, error) {
	i := slices.IndexFunc(s.Pools, func(p *PoolDocument) bool { return p.ID == poolID })
	if i < 0 {
		return s, nil
	}
	next := *s.Pools[i]
	next.Doomed = slices.DeleteFunc(slices.Clone(next.Doomed), func(id string) bool { return slices.Contains(removed, id) })
	next.Volumes = slices.Clone(next.Volumes)
	for k, v := range next.Volumes {
		if v.Truncate && slices.Contains(cut, v.ID) {
			whole := *v
			whole.Truncate = false
			next.Volumes[k] = &whole
		}
	}
	pools := slices.Clone(s.Pools)
	pools[i] = &next
	return NewState(s.Document, pools)
}
