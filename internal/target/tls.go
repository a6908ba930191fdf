package target

import (
	"crypto/sha256"
	"fmt"
	"net"
	"slices"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/nvme/tlskey"
	"lintel.io/lintel/internal/tlspsk"
	"lintel.io/lintel/internal/transport"
)

// secure does the TLS handshake of a connection to a portal that requires it.
func (a nvmeAccess) secure(nc net.Conn, port uint16) (net.Conn, nvme.TLS, error) {
	s := access(a).current()
	i := slices.IndexFunc(s.Document.Portals, func(p *array.Portal) bool { return p.Tag == port && p.Protocol != array.ISCSI })
	if i < 0 {
		return nil, nvme.TLS{}, fmt.Errorf("portal %d is gone", port)
	}
	p := s.Document.Portals[i]
	if !p.TLS {
		return nc, nvme.TLS{}, nil
	}
	remote := transport.AddrPort(nc.RemoteAddr()).Addr()
	hashes := map[string][sha256.Size]byte{} // of the keys, by identity
	c, err := tlspsk.Server(nc, func(identity string) []tlspsk.Key {
		id, err := tlskey.ParseIdentity(identity)
		if err != nil {
			return nil
		}
		h := s.MatchNQN(id.HostNQN, remote)
		if h == nil || h.TLSKey == "" {
			return nil
		}
		key, err := tlskey.Parse(h.TLSKey)
		if err != nil {
			return nil // the array's document is checked for that
		}
		hashes[identity] = hashOf(h)
		return key.Keys(id)
	})
	if err != nil {
		return nil, nvme.TLS{}, fmt.Errorf("%w: portal %s requires it", err, p.AddrPort())
	}
	return c, nvme.TLS{Identity: c.Identity(), Key: hashes[c.Identity()]}, nil
}

// hashOf tells the TLS key of a host from others.
func hashOf(h *array.Host) [sha256.Size]byte { return sha256.Sum256([]byte(h.TLSKey)) }

// checkTLS refuses a Connect in another name than that of the TLS identity, with a key that the
// host had when the connection was made and has no more, and
// one without TLS of a host that has to use it. To discover is allowed without: it
// is how a host learns where TLS is.
func checkTLS(h *array.Host, r nvme.ConnectRequest) error {
	if r.TLS.Identity == "" {
		if h.TLSKey != "" && !r.Discovery {
			return refuse("host %s has a TLS key, so it has to connect to a portal with TLS: lintel portal add --tls required", h.Name)
		}
		return nil
	}
	id, err := tlskey.ParseIdentity(r.TLS.Identity)
	if err != nil || id.HostNQN != r.HostNQN || id.SubNQN != r.SubNQN {
		return refuse("the TLS identity %q is that of another host or subsystem", r.TLS.Identity)
	}
	if r.TLS.Key != hashOf(h) {
		return refuse("the TLS key of host %s has changed meanwhile", h.Name)
	}
	return nil
}

// useful reports whether a host can do something with a portal: one with a TLS key
// uses TLS, but for discovery, and one without cannot.
func useful(p *array.Portal, h *array.Host) bool {
	if p.TLS {
		return h.TLSKey != ""
	}
	return h.TLSKey == "" || p.Protocol == array.NVMeDiscovery
}
