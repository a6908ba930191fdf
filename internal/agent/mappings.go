package agent

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/array"
)

type mappingService struct{ *Agent }

var _ lintelv1connect.MappingServiceHandler = mappingService{}

// mappingMessage returns a mapping. A volume whose pool is missing is shown by its id.
func mappingMessage(state *array.State, m *array.Mapping) *lintelv1.Mapping {
	spec := &lintelv1.MappingSpec{Volume: m.Volume, Lun: new(uint32(m.LUN)), ReadOnly: m.ReadOnly}
	if m.NSID != 0 {
		spec.Nsid = new(m.NSID)
	}
	if v, _ := state.VolumeByID(m.Volume); v != nil {
		spec.Volume = v.Name
	}
	if m.Host != "" {
		spec.To = &lintelv1.MappingSpec_Host{Host: state.HostByID(m.Host).Name}
	} else {
		spec.To = &lintelv1.MappingSpec_HostGroup{HostGroup: state.HostGroupByID(m.Group).Name}
	}
	return &lintelv1.Mapping{Id: m.ID, Etag: m.Etag(), Created: timeMessage(m.Created), Spec: spec}
}

func (s mappingService) ListMappings(_ context.Context, req *connect.Request[lintelv1.ListMappingsRequest]) (*connect.Response[lintelv1.ListMappingsResponse], error) {
	state := s.State()
	keep, err := mappingFilter(state, req.Msg)
	if err != nil {
		return nil, err
	}
	resp := new(lintelv1.ListMappingsResponse)
	for _, m := range state.Document.Mappings {
		if keep(m) {
			resp.Mappings = append(resp.Mappings, mappingMessage(state, m))
		}
	}
	slices.SortFunc(resp.Mappings, func(a, b *lintelv1.Mapping) int {
		x, y := a.Spec, b.Spec
		return cmp.Or(cmp.Compare(x.GetHost()+x.GetHostGroup(), y.GetHost()+y.GetHostGroup()), cmp.Compare(x.GetLun(), y.GetLun()), cmp.Compare(a.Id, b.Id))
	})
	return connect.NewResponse(resp), nil
}

func mappingFilter(state *array.State, req *lintelv1.ListMappingsRequest) (func(*array.Mapping) bool, error) {
	var volume, host, group string
	if name := req.GetVolume(); name != "" {
		v, _, err := state.Volume(name)
		if err != nil {
			return nil, err
		}
		volume = v.ID
	}
	var groups []string
	if name := req.GetHost(); name != "" {
		h, err := state.Host(name)
		if err != nil {
			return nil, err
		}
		host = h.ID
		for _, g := range state.GroupsOf(h.ID) {
			groups = append(groups, g.ID)
		}
	}
	if name := req.GetHostGroup(); name != "" {
		g, err := state.HostGroup(name)
		if err != nil {
			return nil, err
		}
		group = g.ID
	}
	return func(m *array.Mapping) bool {
		return (volume == "" || m.Volume == volume) &&
			(host == "" || m.Host == host || m.Group != "" && slices.Contains(groups, m.Group)) &&
			(group == "" || m.Group == group)
	}, nil
}

func (s mappingService) CreateMapping(ctx context.Context, req *connect.Request[lintelv1.CreateMappingRequest]) (*connect.Response[lintelv1.CreateMappingResponse], error) {
	spec := cmp.Or(req.Msg.GetSpec(), &lintelv1.MappingSpec{})
	var made *array.Mapping
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		to := array.To{Host: spec.GetHost(), Group: spec.GetHostGroup()}
		next, m, plan, err := state.CreateMapping(s.env, spec.GetVolume(), to, array.MappingSpec{LUN: spec.Lun, NSID: spec.Nsid, ReadOnly: spec.GetReadOnly()})
		made = m
		return &change{state: next, plan: plan}, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.CreateMappingResponse{Mapping: mappingMessage(c.state, made), Plan: planMessage(c.plan)}), nil
}

func (s mappingService) UpdateMapping(ctx context.Context, req *connect.Request[lintelv1.UpdateMappingRequest]) (*connect.Response[lintelv1.UpdateMappingResponse], error) {
	var made *array.Mapping
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		to := array.To{Host: req.Msg.GetHost(), Group: req.Msg.GetHostGroup()}
		next, m, plan, err := state.UpdateMapping(req.Msg.GetVolume(), to, req.Msg.GetEtag(), req.Msg.GetReadOnly())
		made = m
		return &change{state: next, plan: plan}, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.UpdateMappingResponse{Mapping: mappingMessage(c.state, made), Plan: planMessage(c.plan)}), nil
}

func (s mappingService) DeleteMapping(ctx context.Context, req *connect.Request[lintelv1.DeleteMappingRequest]) (*connect.Response[lintelv1.DeleteMappingResponse], error) {
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		to := array.To{Host: req.Msg.GetHost(), Group: req.Msg.GetHostGroup()}
		next, _, plan, err := state.DeleteMapping(req.Msg.GetVolume(), to, req.Msg.GetEtag())
		return &change{state: next, plan: plan}, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.DeleteMappingResponse{Plan: planMessage(c.plan)}), nil
}
