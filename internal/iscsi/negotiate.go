package iscsi

import (
	"strconv"
	"strings"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// params are the values in force, of one connection and of its session.
type params struct {
	Negotiated
	headerDigest bool
	dataDigest   bool
	maxSend      int // the initiator's MaxRecvDataSegmentLength
	maxRecv      int // ours, as declared
}

// defaultParams are the values in force before any key was sent (RFC 7143 §13).
func defaultParams() params {
	return params{
		Negotiated: Negotiated{
			MaxConnections:      1,
			InitialR2T:          true,
			ImmediateData:       true,
			MaxBurst:            wire.DefaultMaxBurst,
			FirstBurst:          wire.DefaultFirstBurst,
			Time2Wait:           2,
			Time2Retain:         20,
			MaxOutstandingR2T:   1,
			DataPDUInOrder:      true,
			DataSequenceInOrder: true,
			ProtocolLevel:       1,
		},
		maxSend: wire.DefaultMaxRecvDataSegment,
		maxRecv: wire.DefaultMaxRecvDataSegment,
	}
}

// keyScope says where a key may be used.
type keyScope uint8

const (
	leadingOnly    keyScope = 1 << iota // not on further connections of a session (LO)
	normalOnly                          // irrelevant in a discovery session
	beforeFullOnly                      // not in full feature phase (IO)
)

// keyRule negotiates one operational key: answer gives the value to reply
// with, after it has put the outcome in force; an empty one means none.
type keyRule struct {
	scope  keyScope
	answer func(cfg *Config, p *params, value string) string
}

// keyRules are the operational keys (RFC 7143 §13, RFC 7144 §7.1).
var keyRules = map[string]keyRule{
	wire.KeyHeaderDigest: {beforeFullOnly, digestKey(func(p *params) *bool { return &p.headerDigest })},
	wire.KeyDataDigest:   {beforeFullOnly, digestKey(func(p *params) *bool { return &p.dataDigest })},
	wire.KeyMaxConnections: {leadingOnly | normalOnly, numberKey(1, 65535, lower,
		func(c *Config) int { return c.MaxConnections }, func(p *params) *int { return &p.MaxConnections })},
	wire.KeyInitialR2T: {leadingOnly | normalOnly, boolKey(
		func(c *Config, v bool) bool { return v || c.RequireInitialR2T }, func(p *params) *bool { return &p.InitialR2T })},
	wire.KeyImmediateData: {leadingOnly | normalOnly, boolKey(
		func(c *Config, v bool) bool { return v && !c.RefuseImmediateData }, func(p *params) *bool { return &p.ImmediateData })},
	wire.KeyMaxRecvDataSegmentLength: {0, declaredSegment},
	wire.KeyMaxBurstLength: {leadingOnly | normalOnly, numberKey(512, wire.MaxDataSegment, lower,
		func(c *Config) int { return c.MaxBurst }, func(p *params) *int { return &p.MaxBurst })},
	wire.KeyFirstBurstLength: {leadingOnly | normalOnly, numberKey(512, wire.MaxDataSegment, lower,
		func(c *Config) int { return c.FirstBurst }, func(p *params) *int { return &p.FirstBurst })},
	wire.KeyDefaultTime2Wait: {leadingOnly, numberKey(0, 3600, higher,
		func(c *Config) int { return c.DefaultTime2Wait }, func(p *params) *int { return &p.Time2Wait })},
	wire.KeyDefaultTime2Retain: {leadingOnly, numberKey(0, 3600, lower,
		func(c *Config) int { return c.DefaultTime2Retain }, func(p *params) *int { return &p.Time2Retain })},
	wire.KeyMaxOutstandingR2T: {leadingOnly | normalOnly, numberKey(1, 65535, lower,
		func(c *Config) int { return c.MaxOutstandingR2T }, func(p *params) *int { return &p.MaxOutstandingR2T })},
	wire.KeyDataPDUInOrder: {leadingOnly | normalOnly, boolKey(
		func(*Config, bool) bool { return true }, func(p *params) *bool { return &p.DataPDUInOrder })},
	wire.KeyDataSequenceInOrder: {leadingOnly | normalOnly, boolKey(
		func(*Config, bool) bool { return true }, func(p *params) *bool { return &p.DataSequenceInOrder })},
	wire.KeyErrorRecoveryLevel: {leadingOnly, numberKey(0, 2, lower,
		func(*Config) int { return 0 }, func(p *params) *int { return &p.ErrorRecoveryLevel })},
	wire.KeyTaskReporting: {leadingOnly | normalOnly, func(_ *Config, _ *params, v string) string {
		return firstOf(v, "RFC3720")
	}},
	wire.KeyProtocolLevel: {leadingOnly, numberKey(0, 31, lower,
		func(*Config) int { return 2 }, func(p *params) *int { return &p.ProtocolLevel })},
	// Markers are obsolete: refused, but never "not understood" (RFC 7143 §13.25).
	wire.KeyIFMarker:  {beforeFullOnly, func(*Config, *params, string) string { return "No" }},
	wire.KeyOFMarker:  {beforeFullOnly, func(*Config, *params, string) string { return "No" }},
	wire.KeyIFMarkInt: {beforeFullOnly, func(*Config, *params, string) string { return wire.Rejected }},
	wire.KeyOFMarkInt: {beforeFullOnly, func(*Config, *params, string) string { return wire.Rejected }},
	// Known, but out of place wherever they get here.
	wire.KeySessionType:          {},
	wire.KeyInitiatorName:        {},
	wire.KeyTargetName:           {},
	wire.KeyTargetAlias:          {},
	wire.KeyTargetAddress:        {},
	wire.KeyTargetPortalGroupTag: {},
	wire.KeySendTargets:          {},
	wire.KeyAuthMethod:           {},
}

func lower(a, b int) int  { return min(a, b) }
func higher(a, b int) int { return max(a, b) }

// numberKey negotiates a number between lo and hi; an offer outside of them
// is rejected and leaves the default in force (RFC 7143 §6.2.2).
func numberKey(lo, hi uint64, result func(a, b int) int, ours func(*Config) int, field func(*params) *int) func(*Config, *params, string) string {
	return func(c *Config, p *params, value string) string {
		n, err := wire.ParseNumber(value)
		if err != nil || n < lo || n > hi {
			return wire.Rejected
		}
		v := result(int(n), ours(c))
		*field(p) = v
		return strconv.Itoa(v)
	}
}

// boolKey negotiates Yes or No (RFC 7143 §6.2.2).
func boolKey(result func(*Config, bool) bool, field func(*params) *bool) func(*Config, *params, string) string {
	return func(c *Config, p *params, value string) string {
		v, err := wire.ParseBool(value)
		if err != nil {
			return wire.Rejected
		}
		v = result(c, v)
		*field(p) = v
		return wire.FormatBool(v)
	}
}

// digestKey selects the first digest of the initiator's list that we know (RFC 7143 §13.1).
func digestKey(field func(*params) *bool) func(*Config, *params, string) string {
	return func(c *Config, p *params, value string) string {
		known := []string{"None", "CRC32C"}
		if c.RefuseDigests {
			known = known[:1]
		}
		v := firstOf(value, known...)
		*field(p) = v == "CRC32C"
		return v
	}
}

// declaredSegment takes note of the initiator's MaxRecvDataSegmentLength: a
// declaration, which has no answer (RFC 7143 §13.12).
func declaredSegment(_ *Config, p *params, value string) string {
	n, err := wire.ParseNumber(value)
	if err != nil || n < 512 || n > wire.MaxDataSegment {
		return wire.Rejected
	}
	p.maxSend = int(n)
	return ""
}

// firstOf returns the first entry of a list value that is known, else Reject
// (RFC 7143 §6.2.1).
func firstOf(list string, known ...string) string {
	for v := range strings.SplitSeq(list, ",") {
		for _, k := range known {
			if v == k {
				return v
			}
		}
	}
	return wire.Rejected
}

// operational negotiates one operational key and returns the answer, empty
// for none.
func (p *params) operational(cfg *Config, kv wire.KeyValue, leading, discovery, fullFeature bool) string {
	switch kv.Value {
	case wire.Irrelevant, wire.Rejected, wire.NotUnderstood:
		return "" // an answer to something that we said; nothing was asked
	}
	rule, known := keyRules[kv.Key]
	switch {
	case !known:
		return wire.NotUnderstood
	case rule.answer == nil, fullFeature && rule.scope&(beforeFullOnly|leadingOnly) != 0:
		return wire.Rejected
	case discovery && rule.scope&normalOnly != 0, !leading && rule.scope&leadingOnly != 0:
		return wire.Irrelevant
	}
	return rule.answer(cfg, p, kv.Value)
}
