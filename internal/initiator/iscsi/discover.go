package iscsi

import (
	"context"
	"fmt"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// Record is one target that SendTargets named.
type Record struct {
	Name    string
	Portals []Portal
}

// Portal is one way to a target.
type Portal struct {
	Address string // host:port
	Group   uint16 // target portal group tag
}

// Discover asks a portal for its targets in a discovery session (RFC 7143
// appendix C). Options.Target is not used.
func Discover(ctx context.Context, address string, opts Options) ([]Record, error) {
	opts.Target = ""
	s, err := dial(ctx, address, opts, true)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	defer s.Close()
	records, err := s.SendTargets(ctx, "All")
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if err := s.Logout(ctx); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	return records, nil
}

// SendTargets asks for targets: "All" (in a discovery session only), the name
// of one, or "" for the session's own.
func (s *Session) SendTargets(ctx context.Context, what string) ([]Record, error) {
	pairs, err := s.pick().Text(ctx, wire.KeyValue{Key: wire.KeySendTargets, Value: what})
	if err != nil {
		return nil, fmt.Errorf("SendTargets: %w", err)
	}
	var records []Record
	for _, p := range pairs {
		switch p.Key {
		case wire.KeyTargetName:
			records = append(records, Record{Name: p.Value})
		case wire.KeyTargetAddress:
			if len(records) == 0 {
				return nil, fmt.Errorf("SendTargets: %w", protocolError("an address without a target"))
			}
			r := &records[len(records)-1]
			address, group := splitAddress(p.Value)
			r.Portals = append(r.Portals, Portal{Address: address, Group: group})
		}
	}
	return records, nil
}
