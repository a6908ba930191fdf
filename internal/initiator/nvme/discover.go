package nvme

import (
	"context"
	"errors"
	"fmt"
	"net"

	wire "lintel.io/lintel/internal/wire/nvme"
)

const (
	discoveryEntry = 1024 // bytes, of the log page's header too
	// maxDiscovery bounds the entries of a discovery log page.
	maxDiscovery = 1 << 16
	// discoveryTries is how often a log page that changes is read again.
	discoveryTries = 8
)

// Record is an entry of the discovery log page (NVMe Base 2.0 figure 264).
type Record struct {
	Transport     uint8 // TRTYPE: 3 TCP
	AddressFamily uint8 // ADRFAM: 1 IPv4, 2 IPv6
	Type          uint8 // SUBTYPE: 1 referral, 2 NVM subsystem, 3 this discovery subsystem
	Secure        uint8 // TREQ
	Port          uint16
	Controller    uint16 // FFFFh for the dynamic controller model
	AdminDepth    uint16 // ASQSZ
	Flags         uint16
	Service       string // TRSVCID: the TCP port
	Subsystem     string // SUBNQN
	Address       string // TRADDR
	Security      uint8  // TSAS SECTYPE
}

// Endpoint returns the address to dial, host:port.
func (r *Record) Endpoint() string { return net.JoinHostPort(r.Address, r.Service) }

// DiscoveryLog is a discovery log page.
type DiscoveryLog struct {
	Generation uint64
	Records    []Record
}

// Discover asks a discovery service for its log page. Options.Subsystem is the
// well-known discovery NQN where empty.
func Discover(ctx context.Context, address string, opts Options) (DiscoveryLog, error) {
	if opts.Subsystem == "" {
		opts.Subsystem = wire.DiscoveryNQN
	}
	opts.IOQueues = 0
	c, err := Dial(ctx, address, opts)
	if err != nil {
		return DiscoveryLog{}, fmt.Errorf("discovery: %w", err)
	}
	defer c.Close()
	log, err := c.DiscoveryLog(ctx)
	if err != nil {
		return DiscoveryLog{}, fmt.Errorf("discovery: %w", err)
	}
	return log, c.Shutdown(ctx)
}

// DiscoveryLog reads the discovery log page of a discovery controller, as it was at
// one moment (NVMe Base 2.0 §5.16.1.23).
func (c *Controller) DiscoveryLog(ctx context.Context) (DiscoveryLog, error) {
	for range discoveryTries {
		header := make([]byte, discoveryEntry)
		if err := c.LogPage(ctx, LogRequest{Page: wire.LogDiscovery, Retain: true}, header); err != nil {
			return DiscoveryLog{}, err
		}
		log := DiscoveryLog{Generation: le.Uint64(header)}
		n := le.Uint64(header[8:])
		if format := le.Uint16(header[16:]); format != 0 || n > maxDiscovery {
			return log, protocolError("a discovery log page of format %d with %d entries", format, n)
		}
		for i := range n {
			p := make([]byte, discoveryEntry)
			if err := c.LogPage(ctx, LogRequest{Page: wire.LogDiscovery, Retain: true, Offset: discoveryEntry * (i + 1)}, p); err != nil {
				return log, err
			}
			r, err := parseRecord(p)
			if err != nil {
				return log, err
			}
			log.Records = append(log.Records, r)
		}
		if err := c.LogPage(ctx, LogRequest{Page: wire.LogDiscovery}, header); err != nil {
			return log, err
		}
		if le.Uint64(header) == log.Generation {
			return log, nil
		}
	}
	return DiscoveryLog{}, errors.New("the discovery log page does not come to rest")
}

func parseRecord(p []byte) (Record, error) {
	r := Record{
		Transport: p[0], AddressFamily: p[1], Type: p[2], Secure: p[3], Port: le.Uint16(p[4:]), Controller: le.Uint16(p[6:]),
		AdminDepth: le.Uint16(p[8:]), Flags: le.Uint16(p[10:]), Service: text(p[32:64]), Subsystem: text(p[256:512]), Address: text(p[512:768]), Security: p[768],
	}
	if r.Type < 1 || r.Type > 3 || r.Subsystem == "" || r.Address == "" {
		return r, protocolError("a discovery entry of type %d for %q at %q", r.Type, r.Subsystem, r.Address)
	}
	return r, nil
}
