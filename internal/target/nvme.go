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
	var g nvme.Grant
	if p := portalAt(s, r.Local); p != nil {
		g.PortGroup = p.Group
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
	info := c.Info()
	h := t.state.MatchNQN(info.HostNQN, info.Remote.Addr())
	if h == nil {
		return nil, refuse("no host has NQN %s any more", info.HostNQN)
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

// Ports lists the NVMe portals for the discovery log.
func (a nvmeAccess) Ports(peer nvme.Peer) []nvme.Port {
	s := access(a).current()
	var ports []nvme.Port
	for _, p := range s.Document.Portals {
		if p.Protocol != array.NVMeTCP {
			continue
		}
		if at, ok := reachable(p, peer.Local.Addr(), peer.Remote.Addr()); ok {
			ports = append(ports, nvme.Port{ID: p.Tag, Address: at})
		}
	}
	return ports
}

func (t *Target) namespacesLocked(list []array.Namespace) nvme.Namespaces {
	m := make(nvme.Namespaces, len(list))
	for _, n := range list {
		if v := t.volumes[n.Volume.ID]; v != nil {
			m[n.ID] = nvme.Namespace{Unit: v.lu.Unit(), ReadOnly: n.ReadOnly}
		}
	}
	return m
}

// applyControllers gives every NVMe host its new namespaces, and ends the
// controllers of hosts that are gone.
func (t *Target) applyControllers(previous, state *array.State) {
	if previous != nil && previous.Document == state.Document && !t.losesVolume(state) {
		return
	}
	if previous != nil && !slices.EqualFunc(previous.Document.Portals, state.Document.Portals, func(a, b *array.Portal) bool { return a == b }) {
		t.subsystem.PortsChanged()
	}
	var gone []*nvme.Controller
	t.mu.Lock()
	for c := range t.controllers {
		info := c.Info()
		h := state.MatchNQN(info.HostNQN, info.Remote.Addr())
		if h == nil {
			gone = append(gone, c)
			continue
		}
		c.SetNamespaces(t.namespacesLocked(state.Namespaces(h.ID)))
	}
	t.mu.Unlock()
	for _, c := range gone {
		c.Kill(fmt.Errorf("no host has NQN %s any more", c.Info().HostNQN))
	}
}
