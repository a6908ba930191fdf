package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/array"
)

type hostService struct{ *Agent }

var _ lintelv1connect.HostServiceHandler = hostService{}

// hostMessage returns a host without its secrets. sessions counts by host id; nil stands
// for not known.
func hostMessage(state *array.State, h *array.Host, sessions map[string]int) *lintelv1.Host {
	m := &lintelv1.Host{
		Id: h.ID, Etag: h.Etag(), Created: timeMessage(h.Created),
		Spec: &lintelv1.HostSpec{
			Name: h.Name, Initiators: h.Initiators, Nqns: h.NQNs, ChapUser: h.CHAPUser, MutualUser: h.MutualUser, Comment: h.Comment,
		},
		Status: &lintelv1.HostStatus{
			Luns:          uint32(len(state.LUNs(h.ID))),
			ChapSecretSet: h.CHAPSecret != "", MutualSecretSet: h.MutualSecret != "",
			DhchapKeySet: h.DHCHAPKey != "", DhchapCtrlKeySet: h.DHCHAPCtrlKey != "", TlsKeySet: h.TLSKey != "",
		},
	}
	if sessions != nil {
		m.Status.Sessions = new(uint32(sessions[h.ID]))
	}
	for _, p := range h.Addresses {
		text := p.String()
		if p.IsSingleIP() {
			text = p.Addr().String()
		}
		m.Spec.Addresses = append(m.Spec.Addresses, text)
	}
	for _, g := range state.GroupsOf(h.ID) {
		m.Status.Groups = append(m.Status.Groups, g.Name)
	}
	return m
}

// hostSessions counts sessions by host id; it returns nil where the data plane does not answer.
func (a *Agent) hostSessions(ctx context.Context) map[string]int {
	sessions, err := a.plane.Sessions(ctx)
	if err != nil {
		a.log.Warn("the sessions of hosts are not known", "error", err)
		return nil
	}
	counts := make(map[string]int)
	for _, s := range sessions {
		counts[s.HostID]++
	}
	return counts
}

func (s hostService) ListHosts(ctx context.Context, _ *connect.Request[lintelv1.ListHostsRequest]) (*connect.Response[lintelv1.ListHostsResponse], error) {
	state, sessions := s.State(), s.hostSessions(ctx)
	resp := new(lintelv1.ListHostsResponse)
	for _, h := range state.Document.Hosts {
		resp.Hosts = append(resp.Hosts, hostMessage(state, h, sessions))
	}
	slices.SortFunc(resp.Hosts, func(a, b *lintelv1.Host) int { return cmp.Compare(a.Spec.Name, b.Spec.Name) })
	return connect.NewResponse(resp), nil
}

func (s hostService) GetHost(ctx context.Context, req *connect.Request[lintelv1.GetHostRequest]) (*connect.Response[lintelv1.GetHostResponse], error) {
	state := s.State()
	h, err := state.Host(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.GetHostResponse{Host: hostMessage(state, h, s.hostSessions(ctx))}), nil
}

func networks(list []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range list {
		p, err := array.ParseNetwork(text)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

func (s hostService) CreateHost(ctx context.Context, req *connect.Request[lintelv1.CreateHostRequest]) (*connect.Response[lintelv1.CreateHostResponse], error) {
	spec := req.Msg.GetSpec()
	addresses, err := networks(spec.GetAddresses())
	if err != nil {
		return nil, err
	}
	var made *array.Host
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, h, plan, err := state.CreateHost(s.env, array.Host{
			Name: spec.GetName(), Initiators: spec.GetInitiators(), NQNs: spec.GetNqns(), Addresses: addresses,
			CHAPUser: spec.GetChapUser(), CHAPSecret: spec.GetChapSecret(),
			MutualUser: spec.GetMutualUser(), MutualSecret: spec.GetMutualSecret(),
			DHCHAPKey: spec.GetDhchapKey(), DHCHAPCtrlKey: spec.GetDhchapCtrlKey(), TLSKey: spec.GetTlsKey(), Comment: spec.GetComment(),
		})
		made = h
		return &change{state: next, plan: plan}, err
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.CreateHostResponse{Host: hostMessage(c.state, made, s.hostSessions(ctx)), Plan: planMessage(c.plan)}), nil
}

func (s hostService) UpdateHost(ctx context.Context, req *connect.Request[lintelv1.UpdateHostRequest]) (*connect.Response[lintelv1.UpdateHostResponse], error) {
	spec := req.Msg.GetSpec()
	addresses, err := networks(spec.GetAddresses())
	if err != nil {
		return nil, err
	}
	var made *array.Host
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		old, err := state.Host(req.Msg.GetName())
		if err != nil {
			return nil, err
		}
		h := *old
		if err := edits(req.Msg.GetUpdateMask(), map[string]func(){
			"name":            func() { h.Name = spec.GetName() },
			"initiators":      func() { h.Initiators = spec.GetInitiators() },
			"nqns":            func() { h.NQNs = spec.GetNqns() },
			"addresses":       func() { h.Addresses = addresses },
			"chap_user":       func() { h.CHAPUser = spec.GetChapUser() },
			"chap_secret":     func() { h.CHAPSecret = spec.GetChapSecret() },
			"mutual_user":     func() { h.MutualUser = spec.GetMutualUser() },
			"mutual_secret":   func() { h.MutualSecret = spec.GetMutualSecret() },
			"dhchap_key":      func() { h.DHCHAPKey = spec.GetDhchapKey() },
			"dhchap_ctrl_key": func() { h.DHCHAPCtrlKey = spec.GetDhchapCtrlKey() },
			"tls_key":         func() { h.TLSKey = spec.GetTlsKey() },
			"comment":         func() { h.Comment = spec.GetComment() },
		}, ""); err != nil {
			return nil, err
		}
		next, now, plan, err := state.UpdateHost(old.Name, req.Msg.GetEtag(), func(into *array.Host) { *into = h })
		if err != nil {
			return nil, err
		}
		made = now
		plan.Warnings = append(plan.Warnings, s.sessionsEnd(ctx, old, func(p array.Protocol) bool { return old.Proof(p) != now.Proof(p) })...)
		return &change{state: next, plan: plan}, nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.UpdateHostResponse{Host: hostMessage(c.state, made, s.hostSessions(ctx)), Plan: planMessage(c.plan)}), nil
}

// sessionsEnd warns of a host's sessions that end with a change, by protocol. What is not known is not
// told.
func (a *Agent) sessionsEnd(ctx context.Context, h *array.Host, ends func(array.Protocol) bool) (warnings []string) {
	if !ends(array.ISCSI) && !ends(array.NVMeTCP) {
		return nil
	}
	sessions, err := a.plane.Sessions(ctx)
	if err != nil {
		return nil
	}
	counts := make(map[array.Protocol]int)
	for _, s := range sessions {
		if s.HostID == h.ID && ends(s.Protocol) {
			counts[s.Protocol]++
		}
	}
	for _, p := range []array.Protocol{array.ISCSI, array.NVMeTCP} {
		if n := counts[p]; n > 0 {
			warnings = append(warnings, fmt.Sprintf("sessions of host %s that end at once (%s): %d", h.Name, p, n))
		}
	}
	return warnings
}

func (s hostService) DeleteHost(ctx context.Context, req *connect.Request[lintelv1.DeleteHostRequest]) (*connect.Response[lintelv1.DeleteHostResponse], error) {
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, old, plan, err := state.DeleteHost(req.Msg.GetName(), req.Msg.GetEtag(), req.Msg.GetForce())
		if err != nil {
			return nil, err
		}
		plan.Warnings = append(plan.Warnings, s.sessionsEnd(ctx, old, func(array.Protocol) bool { return true })...)
		return &change{state: next, plan: plan}, nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.DeleteHostResponse{Plan: planMessage(c.plan)}), nil
}
