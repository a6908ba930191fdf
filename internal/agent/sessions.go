package agent

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/array"
)

type sessionService struct{ *Agent }

var _ lintelv1connect.SessionServiceHandler = sessionService{}

func sessionMessage(state *array.State, s Session) *lintelv1.Session {
	m := &lintelv1.Session{
		Id: s.ID, Protocol: messageOf(protocols, s.Protocol), Type: lintelv1.SessionType_SESSION_TYPE_NORMAL,
		Initiator: s.Initiator, PortalTag: uint32(s.PortalTag), Since: timeMessage(s.Since), Luns: uint32(s.LUNs),
		Authenticated: s.Authenticated, Tls: s.TLS, Commands: s.Commands, ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes,
		InFlight: uint32(s.InFlight), Tsih: uint32(s.TSIH), ChapUser: s.CHAPUser, ControllerId: uint32(s.ControllerID),
	}
	if s.Protocol == array.ISCSI {
		m.Isid = hex.EncodeToString(s.ISID[:])
	} else {
		m.HostIdentifier = hex.EncodeToString(s.HostIdentifier[:])
	}
	if s.Discovery {
		m.Type = lintelv1.SessionType_SESSION_TYPE_DISCOVERY
	}
	if h := state.HostByID(s.HostID); h != nil {
		m.Host = h.Name
	}
	for _, c := range s.Connections {
		m.Connections = append(m.Connections, &lintelv1.Connection{
			Cid: uint32(c.CID), Remote: addressText(c.Remote), Local: addressText(c.Local),
			HeaderDigest: c.HeaderDigest, DataDigest: c.DataDigest,
			QueueId: uint32(c.QueueID), QueueDepth: uint32(c.QueueDepth),
		})
	}
	return m
}

func addressText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (s sessionService) ListSessions(ctx context.Context, req *connect.Request[lintelv1.ListSessionsRequest]) (*connect.Response[lintelv1.ListSessionsResponse], error) {
	state := s.State()
	only := ""
	if name := req.Msg.GetHost(); name != "" {
		h, err := state.Host(name)
		if err != nil {
			return nil, err
		}
		only = h.ID
	}
	sessions, err := s.plane.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	resp := new(lintelv1.ListSessionsResponse)
	for _, session := range sessions {
		if only == "" || session.HostID == only {
			resp.Sessions = append(resp.Sessions, sessionMessage(state, session))
		}
	}
	slices.SortFunc(resp.Sessions, func(a, b *lintelv1.Session) int {
		return cmp.Or(cmp.Compare(a.Initiator, b.Initiator), cmp.Compare(a.Id, b.Id))
	})
	return connect.NewResponse(resp), nil
}

func (s sessionService) DropSession(ctx context.Context, req *connect.Request[lintelv1.DropSessionRequest]) (*connect.Response[lintelv1.DropSessionResponse], error) {
	id := req.Msg.GetId()
	sessions, err := s.plane.Sessions(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(sessions, func(x Session) bool { return x.ID == id })
	if i < 0 {
		return nil, array.Errorf(array.KindNotFound, "session %q does not exist: list the sessions for their ids", id)
	}
	if !req.Msg.GetDryRun() {
		switch dropped, err := s.plane.DropSession(ctx, id); {
		case err != nil:
			return nil, err
		case !dropped:
			return nil, array.Errorf(array.KindNotFound, "session %q has ended already", id)
		}
	}
	plan := array.Plan{
		Steps:    []string{fmt.Sprintf("drop session %s of %s", id, sessions[i].Initiator)},
		Warnings: []string{"the initiator may log in again at once: unmap its volumes or delete its host to keep it out"},
	}
	return connect.NewResponse(&lintelv1.DropSessionResponse{Plan: planMessage(plan)}), nil
}
