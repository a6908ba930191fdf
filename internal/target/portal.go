package target

import (
	"errors"
	"net"
	"net/netip"
	"slices"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/iscsi"
	"lintel.io/lintel/internal/transport"
)

// portal is a portal of the current state, listening or not.
type portal struct {
	spec     *array.Portal
	listener net.Listener // nil while it can not listen
	reason   error        // why
}

// applyListeners opens and closes portals until they are those of the state.
func (t *Target) applyListeners(state *array.State) {
	want := map[string]*array.Portal{}
	for _, p := range state.Document.Portals {
		want[p.ID] = p
	}
	t.mu.Lock()
	var closing []*portal
	for id, p := range t.portals {
		if w := want[id]; w == nil || w.AddrPort() != p.spec.AddrPort() || w.Tag != p.spec.Tag || w.TLS != p.spec.TLS {
			closing = append(closing, p)
			delete(t.portals, id)
		}
	}
	t.mu.Unlock()
	for _, p := range closing {
		t.closePortal(p)
	}
	for id, spec := range want {
		t.mu.Lock()
		p := t.portals[id]
		t.mu.Unlock()
		if p != nil && p.listener != nil {
			continue
		}
		l, err := net.Listen(network(spec.Address), spec.AddrPort().String())
		if err != nil && (p == nil || p.reason == nil) {
			t.log.Error("portal does not listen", "portal", spec.AddrPort().String(), "error", err)
		}
		t.mu.Lock()
		t.portals[id] = &portal{spec: spec, listener: l, reason: err}
		t.mu.Unlock()
		if err != nil {
			continue
		}
		t.log.Info("portal listens", "portal", l.Addr().String(), "tag", spec.Tag)
		t.done.Go(func() {
			serve := t.server.Serve
			if spec.Protocol != array.ISCSI {
				serve = t.nvmeServer.Serve
			}
			if err := serve(l, spec.Tag); !errors.Is(err, transport.ErrClosed) && !errors.Is(err, net.ErrClosed) {
				t.log.Error("portal stopped", "portal", l.Addr().String(), "error", err)
			}
		})
	}
}

// network is what to listen on for an address: 0.0.0.0 stands for IPv4 alone, as an
// administrator means it, and [::] for both.
func network(at netip.Addr) string {
	if at.Is4() {
		return "tcp4"
	}
	return "tcp"
}

// closePortal stops listening and ends the sessions that came through it.
func (t *Target) closePortal(p *portal) {
	if p.listener == nil {
		return
	}
	p.listener.Close()
	through := func(local netip.AddrPort) bool {
		return local.Port() == p.spec.Port && (p.spec.Address.IsUnspecified() || local.Addr().Unmap() == p.spec.Address)
	}
	if p.spec.Protocol != array.ISCSI {
		for _, c := range t.nvmeServer.Connections() {
			if through(c.Local) {
				t.nvmeServer.Drop(c.ID)
			}
		}
		return
	}
	for _, s := range t.server.Sessions() {
		if slices.ContainsFunc(s.Connections, func(c iscsi.ConnectionStatus) bool { return through(c.Local) }) {
			t.server.Drop(s.ID)
		}
	}
}
