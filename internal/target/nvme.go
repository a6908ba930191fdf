package target

import (
	"fmt"
	"net/netip"
	"slices"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/nvme/dhchap"
	"lintel.io/lintel/internal/nvmetcp"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// newSubsystem makes the NVM subsystem of the array and its transport.
func (t *Target) newSubsystem(doc *array.Document) error {
	subsystem, err := nvme.NewSubsystem(nvme.Config{
		NQN:          doc.Target.SubsystemNQN,
		DiscoveryNQN: doc.DiscoveryNQN(),
		Serial:       doc.SubsystemSerial(),
		Model:        array.SubsystemModel,
		Firmware:     t.cfg.Revision,
		PortGroup:    t.cfg.PortGroup,
		Access:       nvmeAccess{t},
		Logger:       t.log,
	})
	if err != nil {
		return fmt.Errorf("NVM subsystem %s: %w", doc.Target.SubsystemNQN, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subsystem = subsystem
	t.nvmeServer = nvmetcp.NewServer(nvmetcp.Config{
		NewQueue: func(c nvme.QueueConfig) nvmetcp.Queue { return subsystem.NewQueue(c) },
		Secure:   nvmeAccess{t}.secure,
		Logger:   t.log,
	})
	return nil
}

// nvmeAccess answers the NVM subsystem's questions from the current state.
type nvmeAccess struct{ t *Target }

var _ nvme.Access = nvmeAccess{}

func refuse(format string, args ...any) error {
	return &nvme.Refusal{Status: wire.ConnectInvalidHost, Reason: fmt.Sprintf(format, args...)}
}

// nvmeTerms are what a host is let in on: with other ones it has to connect anew.
type nvmeTerms struct{ host, hostKey, controllerKey, tlsKey string }

// String hides the keys.
func (m nvmeTerms) String() string { return "terms of host " + m.host }

func nvmeTermsOf(h *array.Host) nvmeTerms {
	return nvmeTerms{h.ID, h.DHCHAPKey, h.DHCHAPCtrlKey, h.TLSKey}
}

// ownerOf returns the host that a controller was let in as, nil where its NQN now leads
// to none, to another one, or to other keys.
func ownerOf(c *nvme.Controller, s *array.State) *array.Host {
	info := c.Info()
	h := s.MatchNQN(info.HostNQN, info.Remote.Addr())
	if h == nil || c.Terms() != nvmeTermsOf(h) {
		return nil
	}
	return h
}

// Authorize lets a host in that a host of the array names, on the terms of that host.
func (a nvmeAccess) Authorize(r nvme.ConnectRequest) (nvme.Grant, error) {
	s := access(a).current()
	h := s.MatchNQN(r.HostNQN, r.Remote.Addr())
	if h == nil {
		return nvme.Grant{}, refuse("no host has NQN %s at %s: lintel host create NAME --nqn %s", r.HostNQN, r.Remote.Addr(), r.HostNQN)
	}
	if p := portalAt(s, r.Local); p != nil && p.Protocol == array.NVMeDiscovery && !r.Discovery {
		return nvme.Grant{}, refuse("portal %s is for discovery only", p.AddrPort())
	}
	if err := checkTLS(h, r); err != nil {
		return nvme.Grant{}, err
	}
	g := nvme.Grant{Terms: nvmeTermsOf(h)}
	if p := portalAt(s, r.Local); p != nil {
		g.PortGroup = p.Group
	}
	if r.Discovery {
		// It tells where the array is, and no more: hosts discover before they
		// authenticate, as their discovery has no secret of the array.
		return g, nil
	}
	for _, k := range []struct {
		text string
		key  *dhchap.Secret
	}{{h.DHCHAPKey, &g.HostKey}, {h.DHCHAPCtrlKey, &g.ControllerKey}} {
		if k.text == "" {
			continue
		}
		key, err := dhchap.ParseSecret(k.text)
		if err != nil {
			return nvme.Grant{}, fmt.Errorf("DH-HMAC-CHAP key of host %s: %w", h.Name, err)
		}
		*k.key = key
	}
	return g, nil
}

// portalAt returns the portal that a connection came in by, nil where it is gone.
func portalAt(s *array.State, local netip.AddrPort) *array.Portal {
	var any *array.Portal
	for _, p := range s.Document.Portals {
		switch {
		case p.Port != local.Port() || p.Protocol == array.ISCSI:
		case p.Address == local.Addr().Unmap():
			return p
		case p.Address.IsUnspecified():
			any = p
		}
	}
	return any
}

// Open gives a new controller what its host sees.
func (a nvmeAccess) Open(c *nvme.Controller) (nvme.Namespaces, error) {
	t := a.t
	t.mu.Lock()
	defer t.mu.Unlock()
	h := ownerOf(c, t.state)
	if h == nil {
		return nil, refuse("the host or the keys of NQN %s have changed meanwhile", c.Info().HostNQN)
	}
	t.controllers[c] = struct{}{}
	return t.namespacesLocked(t.state.Namespaces(h.ID)), nil
}

// Closed forgets a controller.
func (a nvmeAccess) Closed(c *nvme.Controller) {
	a.t.mu.Lock()
	defer a.t.mu.Unlock()
	delete(a.t.controllers, c)
}

// Discovery lists the NVMe portals that a host reaches, where a host of the array
// names it.
func (a nvmeAccess) Discovery(peer nvme.Peer) nvme.Discovery {
	t := a.t
	t.mu.Lock()
	s, generation := t.state, t.discoveryGeneration
	t.mu.Unlock()
	d := nvme.Discovery{Generation: generation, NQN: s.Document.Target.SubsystemNQN}
	h := s.MatchNQN(peer.HostNQN, peer.Remote.Addr())
	if h == nil {
		return d
	}
	same := true
	for _, p := range s.Document.Portals {
		if p.Protocol == array.ISCSI {
			continue
		}
		// What a host is told of these depends on how it got here.
		same = same && !p.Address.IsUnspecified() && !p.Address.IsLoopback()
		if !useful(p, h) {
			continue
		}
		if at, ok := reachable(p, peer.Local.Addr(), peer.Remote.Addr()); ok {
			d.Ports = append(d.Ports, nvme.Port{ID: p.Tag, Address: at, Secure: p.TLS, Only: p.Protocol == array.NVMeDiscovery})
		}
	}
	for i := range d.Ports {
		d.Ports[i].Same = same
	}
	for _, at := range s.Document.Target.Referrals {
		d.Ports = append(d.Ports, nvme.Port{Address: at, Referral: true})
	}
	return d
}

// discoveryDiffers reports whether hosts discover something else than before.
func discoveryDiffers(previous, state *array.State) bool {
	if previous == nil {
		return true
	}
	a, b := previous.Document, state.Document
	// By value: a document that came from another process shares nothing with the previous one.
	samePortal := func(p, q *array.Portal) bool {
		return p.Protocol == q.Protocol && p.AddrPort() == q.AddrPort() && p.Tag == q.Tag && p.TLS == q.TLS
	}
	sameTLS := func(g, h *array.Host) bool { return g == h || g.ID == h.ID && (g.TLSKey == "") == (h.TLSKey == "") }
	return a.Target.SubsystemNQN != b.Target.SubsystemNQN || !slices.Equal(a.Target.Referrals, b.Target.Referrals) ||
		!slices.EqualFunc(a.Portals, b.Portals, samePortal) || !slices.EqualFunc(a.Hosts, b.Hosts, sameTLS)
}

func (t *Target) namespacesLocked(list []array.Namespace) nvme.Namespaces {
	m := make(nvme.Namespaces, len(list))
	for _, n := range list {
		to := nvme.Namespace{ReadOnly: n.ReadOnly}
		if v := t.presentedLocked(n.Volume); v != nil {
			to.Unit = v.lu.Unit()
		}
		m[n.ID] = to
	}
	return m
}

// applyControllers gives every NVMe host its new namespaces, and ends the
// controllers of hosts that are gone or have other keys.
func (t *Target) applyControllers(previous, state *array.State) {
	if discoveryDiffers(previous, state) {
		t.subsystem.DiscoveryChanged()
	}
	var gone []*nvme.Controller
	t.mu.Lock()
	for c := range t.controllers {
		h := ownerOf(c, state)
		if h == nil {
			gone = append(gone, c)
			continue
		}
		c.SetNamespaces(t.namespacesLocked(state.Namespaces(h.ID)))
	}
	t.mu.Unlock()
	for _, c := range gone {
		c.Kill(fmt.Errorf("the host or the keys of NQN %s have changed", c.Info().HostNQN))
	}
}
