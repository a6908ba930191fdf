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

type hostGroupService struct{ *Agent }

var _ lintelv1connect.HostGroupServiceHandler = hostGroupService{}

func groupMessage(state *array.State, g *array.HostGroup) *lintelv1.HostGroup {
	return &lintelv1.HostGroup{
		Id: g.ID, Etag: g.Etag(), Created: timeMessage(g.Created),
		Spec: &lintelv1.HostGroupSpec{Name: g.Name, Hosts: state.HostNames(g), Comment: g.Comment},
	}
}

func (s hostGroupService) ListHostGroups(context.Context, *connect.Request[lintelv1.ListHostGroupsRequest]) (*connect.Response[lintelv1.ListHostGroupsResponse], error) {
	state := s.State()
	resp := new(lintelv1.ListHostGroupsResponse)
	for _, g := range state.Document.HostGroups {
		resp.HostGroups = append(resp.HostGroups, groupMessage(state, g))
	}
	slices.SortFunc(resp.HostGroups, func(a, b *lintelv1.HostGroup) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	return connect.NewResponse(resp), nil
}

func (s hostGroupService) GetHostGroup(_ context.Context, req *connect.Request[lintelv1.GetHostGroupRequest]) (*connect.Response[lintelv1.GetHostGroupResponse], error) {
	state := s.State()
	g, err := state.HostGroup(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.GetHostGroupResponse{HostGroup: groupMessage(state, g)}), nil
}

func (s hostGroupService) CreateHostGroup(ctx context.Context, req *connect.Request[lintelv1.CreateHostGroupRequest]) (*connect.Response[lintelv1.CreateHostGroupResponse], error) {
	spec := req.Msg.GetSpec()
	var made *array.HostGroup
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, g, plan, err := state.CreateHostGroup(s.env, spec.GetName(), spec.GetHosts(), spec.GetComment())
		made = g
		return &change{state: next, plan: plan}, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.CreateHostGroupResponse{HostGroup: groupMessage(c.state, made), Plan: planMessage(c.plan)}), nil
}

func (s hostGroupService) UpdateHostGroup(ctx context.Context, req *connect.Request[lintelv1.UpdateHostGroupRequest]) (*connect.Response[lintelv1.UpdateHostGroupResponse], error) {
	spec := req.Msg.GetSpec()
	var made *array.HostGroup
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		var badMask error
		next, g, plan, err := state.UpdateHostGroup(req.Msg.GetName(), req.Msg.GetEtag(), func(into *array.HostGroupSpec) {
			badMask = edits(req.Msg.GetUpdateMask(), map[string]func(){
				"name":    func() { into.Name = spec.GetName() },
				"hosts":   func() { into.Hosts = slices.Clone(spec.GetHosts()) },
				"comment": func() { into.Comment = spec.GetComment() },
			}, "")
		})
		made = g
		return &change{state: next, plan: plan}, cmp.Or(badMask, err)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.UpdateHostGroupResponse{HostGroup: groupMessage(c.state, made), Plan: planMessage(c.plan)}), nil
}

func (s hostGroupService) DeleteHostGroup(ctx context.Context, req *connect.Request[lintelv1.DeleteHostGroupRequest]) (*connect.Response[lintelv1.DeleteHostGroupResponse], error) {
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, _, plan, err := state.DeleteHostGroup(req.Msg.GetName(), req.Msg.GetEtag(), req.Msg.GetForce())
		return &change{state: next, plan: plan}, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.DeleteHostGroupResponse{Plan: planMessage(c.plan)}), nil
}
