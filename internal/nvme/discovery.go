package nvme

import (
	"cmp"
	"net/netip"
	"strconv"

	wire "lintel.io/lintel/internal/wire/nvme"
)

// Values of a discovery log page entry (NVMe Base 2.0 §5.16.1.23).
const (
	discoveryEntry    = 1024
	transportTCP      = 3
	familyIPv4        = 1
	familyIPv6        = 2
	entryReferral     = 1
	entrySubsystem    = 2
	entryCurrent      = 3
	secureRequired    = 1
	flowControlCanOff = 1 << 2
	duplicateReturned = 1 << 0 // DUPRETINFO of EFLAGS
	persistentSupport = 1 << 1 // EPCSD
	securityTLS13     = 2      // SECTYPE of TCP
	maxDiscoveryPorts = 1024
)

// readDiscovery fills the discovery log: for each port this discovery
// subsystem itself and the NVM subsystem, then referrals.
func readDiscovery(c *Controller, _ *Request, retain bool) []byte {
	if !retain {
		c.events.read(wire.EventDiscoveryChanged)
	}
	cfg := &c.sub.cfg
	d := cfg.Access.Discovery(c.info.Peer)
	ports := d.Ports[:min(len(d.Ports), maxDiscoveryPorts)]
	b := make([]byte, discoveryEntry, discoveryEntry*(1+2*len(ports)))
	for _, p := range ports {
		if p.Referral {
			b = appendEntry(b, p, entryReferral, cmp.Or(p.NQN, wire.DiscoveryNQN))
			continue
		}
		if cfg.DiscoveryNQN != wire.DiscoveryNQN {
			b = appendEntry(b, p, entryCurrent, cfg.DiscoveryNQN)
		}
		if !p.Only {
			b = appendEntry(b, p, entrySubsystem, d.NQN)
		}
	}
	le.PutUint64(b[0:], d.Generation)
	le.PutUint64(b[8:], uint64(len(b)/discoveryEntry-1))
	return b
}

func appendEntry(b []byte, p Port, kind byte, nqn string) []byte {
	var e [discoveryEntry]byte
	addr := p.Address.Addr().Unmap()
	e[0], e[1], e[2] = transportTCP, family(addr), kind
	e[3] = flowControlCanOff // "not specified": hosts take "not required" for a wish to use TLS
	if p.Secure {
		e[3] = secureRequired | flowControlCanOff
		e[768] = securityTLS13
	}
	le.PutUint16(e[4:], p.ID)
	le.PutUint16(e[6:], dynamic)
	le.PutUint16(e[8:], MaxQueueDepth) // ASQSZ
	if kind == entryCurrent {
		flags := uint16(persistentSupport)
		if p.Same {
			flags |= duplicateReturned
		}
		le.PutUint16(e[10:], flags)
	}
	putText(e[32:64], strconv.Itoa(int(p.Address.Port())))
	copy(e[256:512], nqn)
	putText(e[512:768], addr.String())
	return append(b, e[:]...)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return familyIPv4
	}
	return familyIPv6
}
