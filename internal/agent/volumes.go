package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/pool"
)

type volumeService struct{ *Agent }

var _ lintelv1connect.VolumeServiceHandler = volumeService{}

func (a *Agent) volumeMessage(v *array.Volume, p *array.PoolDocument, mappings int, status view) *lintelv1.Volume {
	s := status.volume(v.ID)
	m := &lintelv1.Volume{
		Id: v.ID, Etag: v.Etag(), Created: timeMessage(v.Created),
		Spec: &lintelv1.VolumeSpec{
			Name: v.Name, Pool: p.Name, SizeBytes: v.Size, Kind: messageOf(volumeKinds, v.Kind), Path: v.Path,
			BlockSize: v.BlockSize, PhysicalExponent: new(uint32(v.PhysicalExponent)),
			NaaId: v.NAA, Eui64Id: v.EUI64, T10DevId: v.T10ID, Usn: v.Serial,
			Vendor: v.Vendor, Product: v.Product, Revision: v.Revision,
			Rotational: v.Rotational, Thin: new(v.Thin), ReadOnly: v.ReadOnly, WriteThrough: v.WriteThrough,
			ThinThresholdPercent: uint32(v.ThinThreshold), Comment: v.Comment,
		},
		Status: &lintelv1.VolumeStatus{Mappings: uint32(mappings), Nguid: v.NGUID(), Uuid: v.UUID()},
	}
	m.Status.State, m.Status.Reason = volumeState(s), s.Reason
	if fault := s.Health.Fault; s.Online && fault != nil {
		m.Status.Reason, m.Status.DegradedSince = fault.Reason, timeMessage(fault.Since)
	}
	if s.answers() {
		m.Status.UsedBytes, m.Status.FailedRequests = new(s.UsedBytes), new(s.Health.Failed)
	}
	if status.knowsVolume(v.ID) {
		m.Status.Sessions = new(uint32(s.Sessions))
	}
	return m
}

func volumeState(s VolumeStatus) lintelv1.VolumeState {
	switch {
	case !s.Online:
		return lintelv1.VolumeState_VOLUME_STATE_OFFLINE
	case s.Health.Fault != nil:
		return lintelv1.VolumeState_VOLUME_STATE_DEGRADED
	}
	return lintelv1.VolumeState_VOLUME_STATE_ONLINE
}

// mappingCounts returns the number of mappings by volume id.
func mappingCounts(s *array.State) map[string]int {
	counts := make(map[string]int)
	for _, m := range s.Document.Mappings {
		counts[m.Volume]++
	}
	return counts
}

func (s volumeService) ListVolumes(ctx context.Context, req *connect.Request[lintelv1.ListVolumesRequest]) (*connect.Response[lintelv1.ListVolumesResponse], error) {
	state := s.State()
	resp := new(lintelv1.ListVolumesResponse)
	if name := req.Msg.GetPool(); name != "" {
		if _, err := state.Pool(name); err != nil {
			return nil, err
		}
	}
	counts, status := mappingCounts(state), s.look(ctx, AllVolumes)
	for _, p := range state.Pools {
		if name := req.Msg.GetPool(); name != "" && p.Name != name {
			continue
		}
		for _, v := range p.Volumes {
			resp.Volumes = append(resp.Volumes, s.volumeMessage(v, p, counts[v.ID], status))
		}
	}
	slices.SortFunc(resp.Volumes, func(a, b *lintelv1.Volume) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	return connect.NewResponse(resp), nil
}

func (s volumeService) GetVolume(ctx context.Context, req *connect.Request[lintelv1.GetVolumeRequest]) (*connect.Response[lintelv1.GetVolumeResponse], error) {
	state := s.State()
	v, _, err := state.Volume(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.GetVolumeResponse{Volume: s.volumeAs(ctx, state, v)}), nil
}

// newVolume returns what a spec asks for, with the defaults that depend on the kind.
func newVolume(spec *lintelv1.VolumeSpec) (array.Volume, error) {
	var none array.Volume
	kind, err := wordOf(volumeKinds, "kind", spec.GetKind(), array.VolumeFile)
	if err != nil {
		return none, err
	}
	threshold, err := narrow[uint8]("thin_threshold_percent", spec.GetThinThresholdPercent())
	if err != nil {
		return none, err
	}
	v := array.Volume{
		Name: spec.GetName(), Kind: kind, Path: spec.GetPath(), Size: spec.GetSizeBytes(), BlockSize: cmp.Or(spec.GetBlockSize(), 512),
		NAA: spec.GetNaaId(), EUI64: spec.GetEui64Id(), T10ID: spec.GetT10DevId(), Serial: spec.GetUsn(),
		Vendor: spec.GetVendor(), Product: spec.GetProduct(), Revision: spec.GetRevision(),
		Rotational: spec.GetRotational(), ReadOnly: spec.GetReadOnly(), WriteThrough: spec.GetWriteThrough(),
		ThinThreshold: threshold, Comment: spec.GetComment(),
		Thin: kind != array.VolumeDisk,
	}
	if spec.Thin != nil {
		v.Thin = spec.GetThin()
	}
	if v.PhysicalExponent, err = physicalExponent(spec, v.BlockSize); err != nil {
		return none, err
	}
	if kind != array.VolumeDisk {
		return v, nil
	}
	size, identity, err := pool.ProbeDisk(v.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return none, array.Errorf(array.KindInvalid, "path: %w", err)
	case errors.Is(err, block.ErrInUse):
		return none, array.Errorf(array.KindBusy, "%w: unmount it or take it out of use first", err)
	case err != nil:
		return none, array.Errorf(array.KindInvalid, "path: %w", err)
	case v.Size != 0 && v.Size != size:
		return none, array.Errorf(array.KindInvalid, "size_bytes: the device has %d bytes and is used whole; leave the size out", size)
	}
	v.Size, v.Disk = size, identity
	return v, nil
}

func physicalExponent(spec *lintelv1.VolumeSpec, blockSize uint32) (uint8, error) {
	if spec.PhysicalExponent == nil {
		return array.DefaultPhysicalExponent(blockSize), nil
	}
	return narrow[uint8]("physical_exponent", spec.GetPhysicalExponent())
}

func (s volumeService) CreateVolume(ctx context.Context, req *connect.Request[lintelv1.CreateVolumeRequest]) (*connect.Response[lintelv1.CreateVolumeResponse], error) {
	spec, err := newVolume(cmp.Or(req.Msg.GetSpec(), &lintelv1.VolumeSpec{}))
	if err != nil {
		return nil, err
	}
	requested := spec.Size
	var made *array.Volume
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, v, plan, err := state.CreateVolume(s.env, req.Msg.GetSpec().GetPool(), spec)
		if err != nil {
			return nil, err
		}
		if err := s.fitsMemory(next, v); err != nil {
			return nil, err
		}
		made = v
		_, p := next.VolumeByID(v.ID)
		store, err := s.Pool(p.ID)
		if err != nil {
			return nil, err
		}
		return &change{
			state: next, plan: plan,
			check: func() error { return store.CheckRoom(v, v.Size) },
			prepare: func() (func() error, error) {
				return func() error { return store.RemoveVolume(v.ID) }, store.CreateVolume(v)
			},
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.CreateVolumeResponse{
		Volume: s.volumeAs(ctx, c.state, made), Plan: planMessage(c.plan), RequestedBytes: requested,
	}), nil
}

// volumeAs returns the message of a volume as a state has it.
func (a *Agent) volumeAs(ctx context.Context, state *array.State, v *array.Volume) *lintelv1.Volume {
	now, p := state.VolumeByID(v.ID)
	return a.volumeMessage(now, p, len(state.MappingsOf(v.ID)), a.look(ctx, v.ID))
}

func (s volumeService) UpdateVolume(ctx context.Context, req *connect.Request[lintelv1.UpdateVolumeRequest]) (*connect.Response[lintelv1.UpdateVolumeResponse], error) {
	spec := cmp.Or(req.Msg.GetSpec(), &lintelv1.VolumeSpec{})
	threshold, err := narrow[uint8]("thin_threshold_percent", spec.GetThinThresholdPercent())
	if err != nil {
		return nil, err
	}
	var made *array.Volume
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		old, p, err := state.Volume(req.Msg.GetName())
		if err != nil {
			return nil, err
		}
		v := *old
		exponent, err := physicalExponent(spec, v.BlockSize)
		if err != nil {
			return nil, err
		}
		if err := edits(req.Msg.GetUpdateMask(), map[string]func(){
			"name":                   func() { v.Name = spec.GetName() },
			"physical_exponent":      func() { v.PhysicalExponent = exponent },
			"naa_id":                 func() { v.NAA = spec.GetNaaId() },
			"eui64_id":               func() { v.EUI64 = spec.GetEui64Id() },
			"t10_dev_id":             func() { v.T10ID = spec.GetT10DevId() },
			"usn":                    func() { v.Serial = spec.GetUsn() },
			"vendor":                 func() { v.Vendor = spec.GetVendor() },
			"product":                func() { v.Product = spec.GetProduct() },
			"revision":               func() { v.Revision = spec.GetRevision() },
			"rotational":             func() { v.Rotational = spec.GetRotational() },
			"thin":                   func() { v.Thin = spec.Thin == nil && v.Kind != array.VolumeDisk || spec.GetThin() },
			"read_only":              func() { v.ReadOnly = spec.GetReadOnly() },
			"write_through":          func() { v.WriteThrough = spec.GetWriteThrough() },
			"thin_threshold_percent": func() { v.ThinThreshold = threshold },
			"comment":                func() { v.Comment = spec.GetComment() },
		}, "pool, kind, path and block_size are fixed, size_bytes is changed by ResizeVolume; "); err != nil {
			return nil, err
		}
		inUse, err := s.inUse(ctx, old)
		if err != nil {
			return nil, err
		}
		next, now, plan, err := state.UpdateVolume(s.env, old.Name, req.Msg.GetEtag(), inUse, func(into *array.Volume) { *into = v })
		if err != nil {
			return nil, err
		}
		made = now
		c := &change{state: next, plan: plan}
		if old.Thin && !now.Thin {
			store, err := s.Pool(p.ID)
			if err != nil {
				return nil, err
			}
			c.check = func() error { return store.CheckRoom(now, now.Size) }
			c.prepare = func() (func() error, error) { return nil, store.AllocateVolume(now) }
		}
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.UpdateVolumeResponse{Volume: s.volumeAs(ctx, c.state, made), Plan: planMessage(c.plan)}), nil
}

func (a *Agent) inUse(ctx context.Context, v *array.Volume) (bool, error) {
	status := a.look(ctx, v.ID)
	return status.volume(v.ID).Sessions > 0, status.err
}

func (s volumeService) ResizeVolume(ctx context.Context, req *connect.Request[lintelv1.ResizeVolumeRequest]) (*connect.Response[lintelv1.ResizeVolumeResponse], error) {
	var made *array.Volume
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		old, p, err := state.Volume(req.Msg.GetName())
		if err != nil {
			return nil, err
		}
		next, v, plan, err := state.ResizeVolume(old.Name, req.Msg.GetEtag(), req.Msg.GetSizeBytes(), req.Msg.GetShrink())
		if err != nil {
			return nil, err
		}
		if v.Size > old.Size {
			if err := s.fitsMemory(next, v); err != nil {
				return nil, err
			}
		}
		made = v
		c := &change{state: next, plan: plan}
		switch {
		case v.Size > old.Size:
			store, err := s.Pool(p.ID)
			if err != nil {
				return nil, err
			}
			c.check = func() error { return store.CheckRoom(old, v.Size) }
			c.prepare = func() (func() error, error) {
				return func() error { return store.UngrowVolume(old) }, store.GrowVolume(old, v.Size)
			}
		case v.Size < old.Size:
			c.alone = true
			c.finish = func() {
				if store, err := s.Pool(p.ID); err == nil && store.IsCut(v) {
					s.done(p.ID, func(t *tidying) { t.cut = append(t.cut, v.ID) })
				}
			}
		}
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.ResizeVolumeResponse{
		Volume: s.volumeAs(ctx, c.state, made), Plan: planMessage(c.plan), RequestedBytes: req.Msg.GetSizeBytes(),
	}), nil
}

// reopenTimeout is how long storage may take to flush and to be opened anew.
const reopenTimeout = 30 * time.Second

func (s volumeService) ReopenVolume(ctx context.Context, req *connect.Request[lintelv1.ReopenVolumeRequest]) (*connect.Response[lintelv1.ReopenVolumeResponse], error) {
	state := s.State()
	v, _, err := state.Volume(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	if v.Kind != array.VolumeFile && v.Kind != array.VolumeDisk {
		return nil, array.Errorf(array.KindBusy, "volume %s is of kind %s, which has no storage that could be opened anew", v.Name, v.Kind)
	}
	plan := array.Plan{Steps: []string{fmt.Sprintf("open the storage of volume %s anew and tell its hosts", v.Name)}}
	before := s.look(ctx, v.ID)
	if before.err != nil {
		return nil, before.err
	}
	if before.volume(v.ID).lost() {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("what hosts wrote to volume %s since its last good flush may be lost: have them check their file systems, and applications recover", v.Name))
	}
	if !req.Msg.GetDryRun() {
		within, cancel := context.WithTimeout(ctx, reopenTimeout)
		defer cancel()
		switch err := s.plane.Reopen(within, v.ID); {
		case noAnswer(err):
			return nil, err
		case err != nil:
			return nil, array.Errorf(array.KindUnavailable, "volume %s is as it was: %s", v.Name, err.Error())
		}
	}
	return connect.NewResponse(&lintelv1.ReopenVolumeResponse{Volume: s.volumeAs(ctx, state, v), Plan: planMessage(plan)}), nil
}

func (s volumeService) DeleteVolume(ctx context.Context, req *connect.Request[lintelv1.DeleteVolumeRequest]) (*connect.Response[lintelv1.DeleteVolumeResponse], error) {
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		_, p, err := state.Volume(req.Msg.GetName())
		if err != nil {
			return nil, err
		}
		next, v, plan, err := state.DeleteVolume(req.Msg.GetName(), req.Msg.GetEtag(), req.Msg.GetForce())
		if err != nil {
			return nil, err
		}
		return &change{state: next, plan: plan, finish: func() { s.removeBacking(p.ID, v.ID) }}, nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.DeleteVolumeResponse{Plan: planMessage(c.plan)}), nil
}

// removeBacking removes the backing store of a deleted volume. Where it fails, the volume stays
// in the pool's list of doomed ones, and the next start tries again.
func (a *Agent) removeBacking(poolID, volumeID string) {
	store, err := a.Pool(poolID)
	if err == nil {
		err = store.RemoveVolume(volumeID)
	}
	if err != nil {
		a.log.Error("the backing store of a deleted volume is still there: the next start removes it", "volume", volumeID, "error", err)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.leftErrs[volumeID] = err
		return
	}
	a.done(poolID, func(t *tidying) { t.removed = append(t.removed, volumeID) })
}
