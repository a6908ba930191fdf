package target

import (
	"net/netip"
	"slices"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/iscsi"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// access answers the transport's questions from the current state.
type access struct{ t *Target }

var _ iscsi.Access = access{}

func (a access) current() *array.State {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	return a.t.state
}

// Targets shows the array's target with its portals to initiators that a host names.
func (a access) Targets(peer iscsi.Peer) []iscsi.TargetInfo {
	s := a.current()
	if s == nil || s.Match(peer.Initiator, peer.Remote.Addr()) == nil {
		return nil
	}
	info := iscsi.TargetInfo{Name: s.Document.Target.IQN}
	for _, p := range s.Document.Portals {
		if p.Protocol != array.ISCSI {
			continue
		}
		if at, ok := reachable(p, peer.Local.Addr(), peer.Remote.Addr()); ok {
			info.Portals = append(info.Portals, iscsi.Portal{Address: at, Group: p.Tag})
		}
	}
	return []iscsi.TargetInfo{info}
}

// reachable returns the address of a portal for a peer that came from remote and
// reached local, false where it cannot get there.
func reachable(p *array.Portal, local, remote netip.Addr) (netip.AddrPort, bool) {
	if p.Address.IsUnspecified() {
		// Whoever reached one portal reaches this one by the address used.
		return netip.AddrPortFrom(local.Unmap(), p.Port), !p.Address.Is4() || local.Unmap().Is4()
	}
	return p.AddrPort(), !p.Address.IsLoopback() || remote.Unmap().IsLoopback()
}

// chapTerms are what an initiator is let in on: with other ones it has to log in anew.
type chapTerms struct{ host, user, secret, mutualUser, mutualSecret string }

// String hides the secrets.
func (m chapTerms) String() string { return "terms of host " + m.host }

func chapTermsOf(h *array.Host) chapTerms {
	return chapTerms{h.ID, h.CHAPUser, h.CHAPSecret, h.MutualUser, h.MutualSecret}
}

// Authorize lets an initiator in that a host names, on the terms of that host.
func (a access) Authorize(r iscsi.LoginRequest) (iscsi.Grant, error) {
	s := a.current()
	if s == nil {
		return iscsi.Grant{}, iscsi.Refuse(wire.LoginServiceUnavailable, "the array is starting")
	}
	if !r.Discovery && r.Target != s.Document.Target.IQN {
		return iscsi.Grant{}, iscsi.Refuse(wire.LoginNotFound, "there is no target %q", r.Target)
	}
	h := s.Match(r.Initiator, r.Remote.Addr())
	if h == nil {
		return iscsi.Grant{}, iscsi.Refuse(wire.LoginForbidden, "no host has initiator %s at %s: lintel host create NAME --iqn %s", r.Initiator, r.Remote.Addr(), r.Initiator)
	}
	return iscsi.Grant{
		Terms:      chapTermsOf(h),
		CHAP:       iscsi.Credential{Name: h.CHAPUser, Secret: h.CHAPSecret},
		Mutual:     iscsi.Credential{Name: h.MutualUser, Secret: h.MutualSecret},
		Alias:      s.Document.Target.Alias,
		Algorithms: algorithms(s.Document.Target.CHAP),
	}, nil
}

var chapAlgorithms = map[array.CHAPAlgorithm]int{
	array.MD5: wire.CHAPMD5, array.SHA1: wire.CHAPSHA1, array.SHA256: wire.CHAPSHA256, array.SHA3_256: wire.CHAPSHA3256,
}

// algorithms returns the algorithm numbers of CHAP_A (RFC 7143 §12.1.3), nil for all.
func algorithms(allowed []array.CHAPAlgorithm) []int {
	var list []int
	for _, a := range allowed {
		list = append(list, chapAlgorithms[a])
	}
	return list
}

// nexus is the I_T nexus of a session, known to the Target until it closes.
type nexus struct {
	*scsi.Nexus
	t    *Target
	info iscsi.SessionInfo
	host string // id
}

// Open makes the I_T nexus of a session with what its host sees.
func (a access) Open(info iscsi.SessionInfo) (iscsi.Nexus, error) {
	t := a.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if info.Target != t.state.Document.Target.IQN {
		return nil, iscsi.Refuse(wire.LoginNotFound, "the target is not %q any more", info.Target)
	}
	h := t.state.Match(info.Initiator, info.Remote.Addr())
	if h == nil {
		return nil, iscsi.Refuse(wire.LoginForbidden, "no host has initiator %s any more", info.Initiator)
	}
	if info.Terms != chapTermsOf(h) {
		return nil, iscsi.Refuse(wire.LoginServiceUnavailable, "the host of initiator %s, or its CHAP secrets, have changed meanwhile", info.Initiator)
	}
	sn, err := t.device.NewNexus(scsi.NexusConfig{
		Initiator:     unit.Initiator{Name: info.PortName(), Port: info.Group},
		InitiatorName: info.Initiator,
		TransportID:   info.TransportID(),
		LUNs:          t.lunMapLocked(t.state.LUNs(h.ID)),
	})
	if err != nil {
		return nil, err
	}
	n := &nexus{Nexus: sn, t: t, info: info, host: h.ID}
	t.nexuses[n] = struct{}{}
	return n, nil
}

// Close ends the nexus.
func (n *nexus) Close(done func()) {
	n.t.mu.Lock()
	delete(n.t.nexuses, n)
	n.t.mu.Unlock()
	n.Nexus.Close(done)
}

// lunMapLocked tells where LUNs lead. Those of volumes that cannot be presented now, as their
// pool is missing, stay.
func (t *Target) lunMapLocked(luns []array.LUN) scsi.LUNMap {
	m := make(scsi.LUNMap, len(luns))
	for _, l := range luns {
		to := scsi.Mapping{ReadOnly: l.ReadOnly}
		if v := t.presentedLocked(l.Volume); v != nil {
			to.LU = v.lu
		}
		m[l.Number] = to
	}
	return m
}

// presentedLocked returns the volume of a mapping, nil while it is not there.
func (t *Target) presentedLocked(v *array.Volume) *volume {
	if v == nil {
		return nil
	}
	return t.volumes[v.ID]
}

// applySessions ends the sessions of initiators that no host names any more, that now
// belong to another host or have to prove other secrets, and those of an old name of the
// target; and gives every session the LUNs of its host.
func (t *Target) applySessions(state *array.State) {
	t.server.Review()
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range t.nexuses {
		n.SetLUNs(t.lunMapLocked(state.LUNs(n.host)))
	}
}

// viewsDiffer reports whether hosts may see something else than before: not so where
// volumes came that nobody maps, or attributes changed.
func (t *Target) viewsDiffer(previous, state *array.State, came map[string]bool) bool {
	if previous == nil || previous.Document != state.Document || t.losesVolume(state) {
		return true
	}
	return slices.ContainsFunc(state.Document.Mappings, func(m *array.Mapping) bool { return came[m.Volume] })
}

// losesVolume reports whether the state lacks a volume that is presented now.
func (t *Target) losesVolume(state *array.State) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.volumes {
		if v, _ := state.VolumeByID(id); v == nil {
			return true
		}
	}
	return false
}
