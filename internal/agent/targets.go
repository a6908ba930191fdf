package agent

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/array"
)

type targetService struct{ *Agent }

var _ lintelv1connect.TargetServiceHandler = targetService{}

func (a *Agent) targetMessage(ctx context.Context, state *array.State) *lintelv1.Target {
	t := &state.Document.Target
	m := &lintelv1.Target{
		Etag: t.Etag(), Spec: &lintelv1.TargetSpec{Iqn: t.IQN, SubsystemNqn: t.SubsystemNQN, Alias: t.Alias},
		SubsystemSerial: state.Document.SubsystemSerial(), SubsystemModel: array.SubsystemModel,
	}
	for _, at := range t.Referrals {
		m.Spec.NvmeReferrals = append(m.Spec.NvmeReferrals, at.String())
	}
	for _, c := range t.CHAP {
		m.Spec.ChapAlgorithms = append(m.Spec.ChapAlgorithms, messageOf(chapAlgorithms, c))
	}
	status := a.look(ctx)
	for _, p := range state.Document.Portals {
		m.Portals = append(m.Portals, portalMessage(p, status))
	}
	slices.SortFunc(m.Portals, func(x, y *lintelv1.Portal) int {
		return cmp.Or(cmp.Compare(x.Spec.Address, y.Spec.Address), cmp.Compare(x.Spec.Port, y.Spec.Port))
	})
	for i := range t.PortGroups {
		g := &t.PortGroups[i]
		group := &lintelv1.PortGroup{Id: uint32(g.ID), Head: g.Head}
		for _, p := range state.Pools {
			group.Pools = append(group.Pools, &lintelv1.PoolAccess{
				Pool: p.Name, State: messageOf(accessStates, g.State(p.ID)), Effective: messageOf(accessStates, status.access(p, g)),
			})
		}
		m.PortGroups = append(m.PortGroups, group)
	}
	return m
}

func portalMessage(p *array.Portal, status view) *lintelv1.Portal {
	s := status.portal(p.ID)
	m := &lintelv1.Portal{
		Id: p.ID, Etag: p.Etag(), Reason: s.Reason,
		Spec: &lintelv1.PortalSpec{
			Address: p.Address.String(), Port: uint32(p.Port), Tag: uint32(p.Tag), PortGroup: uint32(p.Group),
			Protocol: messageOf(protocols, p.Protocol), Tls: lintelv1.TlsMode_TLS_MODE_OFF,
		},
		State: lintelv1.PortalState_PORTAL_STATE_FAILED,
	}
	if status.knowsPortal(p.ID) {
		m.Sessions = new(uint32(s.Sessions))
	}
	if p.TLS {
		m.Spec.Tls = lintelv1.TlsMode_TLS_MODE_REQUIRED
	}
	if s.Listening.IsValid() {
		m.State, m.Listening = lintelv1.PortalState_PORTAL_STATE_LISTENING, s.Listening.String()
	}
	return m
}

func (s targetService) GetTarget(ctx context.Context, _ *connect.Request[lintelv1.GetTargetRequest]) (*connect.Response[lintelv1.GetTargetResponse], error) {
	return connect.NewResponse(&lintelv1.GetTargetResponse{Target: s.targetMessage(ctx, s.State())}), nil
}

func (s targetService) UpdateTarget(ctx context.Context, req *connect.Request[lintelv1.UpdateTargetRequest]) (*connect.Response[lintelv1.UpdateTargetResponse], error) {
	spec := req.Msg.GetSpec()
	var algorithms []array.CHAPAlgorithm
	for _, c := range spec.GetChapAlgorithms() {
		word, err := wordOf(chapAlgorithms, "chap_algorithms", c, "")
		if err != nil {
			return nil, err
		}
		algorithms = append(algorithms, word)
	}
	var referrals []netip.AddrPort
	for _, text := range spec.GetNvmeReferrals() {
		if text == "" {
			continue
		}
		at, err := array.ParseReferral(text)
		if err != nil {
			return nil, err
		}
		referrals = append(referrals, at)
	}
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		spoken, err := s.spoken(ctx)
		if err != nil {
			return nil, err
		}
		var badMask error
		next, plan, err := state.UpdateTarget(req.Msg.GetEtag(), spoken, func(t *array.Target) {
			badMask = edits(req.Msg.GetUpdateMask(), map[string]func(){
				"iqn":             func() { t.IQN = spec.GetIqn() },
				"subsystem_nqn":   func() { t.SubsystemNQN = spec.GetSubsystemNqn() },
				"alias":           func() { t.Alias = spec.GetAlias() },
				"chap_algorithms": func() { t.CHAP = algorithms },
				"nvme_referrals":  func() { t.Referrals = referrals },
			}, "")
		})
		return &change{state: next, plan: plan}, cmp.Or(badMask, err)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.UpdateTargetResponse{Target: s.targetMessage(ctx, c.state), Plan: planMessage(c.plan)}), nil
}

// spoken returns whether there are sessions of a protocol that see volumes.
func (a *Agent) spoken(ctx context.Context) (func(array.Protocol) bool, error) {
	sessions, err := a.plane.Sessions(ctx)
	return func(p array.Protocol) bool {
		return slices.ContainsFunc(sessions, func(s Session) bool { return s.Protocol == p && !s.Discovery })
	}, err
}

func (s targetService) AddPortal(ctx context.Context, req *connect.Request[lintelv1.AddPortalRequest]) (*connect.Response[lintelv1.AddPortalResponse], error) {
	spec := req.Msg.GetSpec()
	address, err := array.ParsePortalAddress(spec.GetAddress())
	if err != nil {
		return nil, err
	}
	port, err := narrow[uint16]("port", spec.GetPort())
	if err != nil {
		return nil, err
	}
	tag, err := narrow[uint16]("tag", spec.GetTag())
	if err != nil {
		return nil, err
	}
	group, err := narrow[uint16]("port_group", spec.GetPortGroup())
	if err != nil {
		return nil, err
	}
	protocol, err := wordOf(protocols, "protocol", spec.GetProtocol(), array.ISCSI)
	if err != nil {
		return nil, err
	}
	if _, ok := lintelv1.TlsMode_name[int32(spec.GetTls())]; !ok {
		return nil, array.Errorf(array.KindInvalid, "tls %d is unknown", spec.GetTls())
	}
	var made *array.Portal
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, p, plan, err := state.AddPortal(s.env, array.Portal{Protocol: protocol, Address: address, Port: port, Tag: tag, Group: group, TLS: spec.GetTls() == lintelv1.TlsMode_TLS_MODE_REQUIRED})
		if err != nil {
			return nil, err
		}
		if err := s.plane.CheckPortal(ctx, p.AddrPort()); noAnswer(err) {
			return nil, err
		} else if err != nil {
			return nil, array.Errorf(array.KindUnavailable, "portal %s cannot be listened on: %w", p.AddrPort(), err)
		}
		made = p
		return &change{state: next, plan: plan}, nil
	})
	if err != nil {
		return nil, err
	}
	portal := portalMessage(made, s.look(ctx))
	if portal.GetReason() != "" {
		c.plan.Warnings = append(c.plan.Warnings, "the portal does not listen: "+portal.GetReason())
	}
	return connect.NewResponse(&lintelv1.AddPortalResponse{Portal: portal, Plan: planMessage(c.plan)}), nil
}

func (s targetService) RemovePortal(ctx context.Context, req *connect.Request[lintelv1.RemovePortalRequest]) (*connect.Response[lintelv1.RemovePortalResponse], error) {
	address, err := array.ParsePortalAddress(req.Msg.GetAddress())
	if err != nil {
		return nil, err
	}
	port, err := narrow[uint16]("port", req.Msg.GetPort())
	if err != nil {
		return nil, err
	}
	protocol, err := wordOf(protocols, "protocol", req.Msg.GetProtocol(), array.ISCSI)
	if err != nil {
		return nil, err
	}
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, _, plan, err := state.RemovePortal(address, cmp.Or(port, protocol.DefaultPort()), req.Msg.GetEtag())
		return &change{state: next, plan: plan}, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.RemovePortalResponse{Plan: planMessage(c.plan)}), nil
}

func (s targetService) SetAccessState(ctx context.Context, req *connect.Request[lintelv1.SetAccessStateRequest]) (*connect.Response[lintelv1.SetAccessStateResponse], error) {
	access, err := wordOf(accessStates, "state", req.Msg.GetState(), "")
	if err != nil {
		return nil, err
	}
	group, err := narrow[uint16]("port_group", req.Msg.GetPortGroup())
	if err != nil {
		return nil, err
	}
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, plan, err := state.SetAccessState(req.Msg.GetPool(), group, access, req.Msg.GetEtag())
		return &change{state: next, plan: plan}, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.SetAccessStateResponse{Target: s.targetMessage(ctx, c.state), Plan: planMessage(c.plan)}), nil
}
