package iscsi

import (
	"slices"
	"strconv"
	"strings"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// negotiation is the operational part of a login: what was offered, and what
// came of it (RFC 7143 §6.2, §13).
type negotiation struct {
	opts     *Options
	p        *Parameters
	leading  bool
	discover bool
	offered  map[string]bool

	headerDigest, dataDigest bool
}

// defaultParameters are the values that hold where nothing is negotiated.
func defaultParameters(o Options) Parameters {
	return Parameters{
		MaxConnections: 1, InitialR2T: true, ImmediateData: true,
		MaxRecvDataSegmentLength:       o.Operational.MaxRecvDataSegmentLength,
		TargetMaxRecvDataSegmentLength: wire.DefaultMaxRecvDataSegment,
		MaxBurstLength:                 wire.DefaultMaxBurst,
		FirstBurstLength:               wire.DefaultFirstBurst,
		DefaultTime2Wait:               2, DefaultTime2Retain: 20, MaxOutstandingR2T: 1,
		DataPDUInOrder: true, DataSequenceInOrder: true, ISID: o.ISID,
	}
}

// key is how one operational key is negotiated.
type key struct {
	name    string
	session bool // only on the leading connection of a normal session
	// Exactly one of the following is set.
	list  func(*Operational) []string
	flag  func(*Operational) bool
	count func(*Operational) int

	or     bool // the result of a flag is OR, else AND
	larger bool // the result of a count is the larger, else the smaller
	min    int  // of a count
	max    int

	setFlag  func(*negotiation, bool)
	setCount func(*negotiation, int)
}

var keys = []key{
	{
		name: wire.KeyHeaderDigest, list: func(o *Operational) []string { return o.HeaderDigest },
		setFlag: func(n *negotiation, v bool) { n.headerDigest = v },
	},
	{
		name: wire.KeyDataDigest, list: func(o *Operational) []string { return o.DataDigest },
		setFlag: func(n *negotiation, v bool) { n.dataDigest = v },
	},
	{
		name: wire.KeyMaxConnections, session: true, count: func(o *Operational) int { return o.MaxConnections }, min: 1, max: 65535,
		setCount: func(n *negotiation, v int) { n.p.MaxConnections = v },
	},
	{
		name: wire.KeyInitialR2T, session: true, flag: func(o *Operational) bool { return o.InitialR2T }, or: true,
		setFlag: func(n *negotiation, v bool) { n.p.InitialR2T = v },
	},
	{
		name: wire.KeyImmediateData, session: true, flag: func(o *Operational) bool { return o.ImmediateData },
		setFlag: func(n *negotiation, v bool) { n.p.ImmediateData = v },
	},
	{
		name: wire.KeyMaxBurstLength, session: true, count: func(o *Operational) int { return o.MaxBurstLength }, min: 512, max: wire.MaxDataSegment,
		setCount: func(n *negotiation, v int) { n.p.MaxBurstLength = v },
	},
	{
		name: wire.KeyFirstBurstLength, session: true, count: func(o *Operational) int { return o.FirstBurstLength }, min: 512, max: wire.MaxDataSegment,
		setCount: func(n *negotiation, v int) { n.p.FirstBurstLength = v },
	},
	{
		name: wire.KeyDefaultTime2Wait, session: true, count: func(o *Operational) int { return o.DefaultTime2Wait }, larger: true, max: 3600,
		setCount: func(n *negotiation, v int) { n.p.DefaultTime2Wait = v },
	},
	{
		name: wire.KeyDefaultTime2Retain, session: true, count: func(o *Operational) int { return o.DefaultTime2Retain }, max: 3600,
		setCount: func(n *negotiation, v int) { n.p.DefaultTime2Retain = v },
	},
	{
		name: wire.KeyMaxOutstandingR2T, session: true, count: func(o *Operational) int { return o.MaxOutstandingR2T }, min: 1, max: 65535,
		setCount: func(n *negotiation, v int) { n.p.MaxOutstandingR2T = v },
	},
	{
		name: wire.KeyDataPDUInOrder, session: true, flag: func(o *Operational) bool { return o.DataPDUInOrder }, or: true,
		setFlag: func(n *negotiation, v bool) { n.p.DataPDUInOrder = v },
	},
	{
		name: wire.KeyDataSequenceInOrder, session: true, flag: func(o *Operational) bool { return o.DataSequenceInOrder }, or: true,
		setFlag: func(n *negotiation, v bool) { n.p.DataSequenceInOrder = v },
	},
	{
		name: wire.KeyErrorRecoveryLevel, session: true, count: func(o *Operational) int { return o.ErrorRecoveryLevel }, max: 2,
		setCount: func(n *negotiation, v int) { n.p.ErrorRecoveryLevel = v },
	},
}

func (k *key) value(o *Operational) string {
	switch {
	case k.list != nil:
		if list := k.list(o); len(list) > 0 {
			return strings.Join(list, ",")
		}
		return "None"
	case k.flag != nil:
		return wire.FormatBool(k.flag(o))
	}
	return strconv.Itoa(k.count(o))
}

// applies reports whether the key has a place in this login.
func (n *negotiation) applies(k *key) bool {
	return !k.session || n.leading && !n.discover
}

func (n *negotiation) offer() []wire.KeyValue {
	n.offered = map[string]bool{}
	out := []wire.KeyValue{{Key: wire.KeyMaxRecvDataSegmentLength, Value: strconv.Itoa(n.p.MaxRecvDataSegmentLength)}}
	for i := range keys {
		if k := &keys[i]; n.applies(k) {
			n.offered[k.name] = true
			out = append(out, wire.KeyValue{Key: k.name, Value: k.value(n.opts.Operational)})
		}
	}
	for _, e := range n.opts.Extra {
		n.offered[e.Key] = true
		out = append(out, e)
	}
	return out
}

// take takes the target's pairs: answers to the offer, declarations, and
// offers of its own, whose answers it returns.
func (n *negotiation) take(in []wire.KeyValue) (out []wire.KeyValue, err error) {
	for _, p := range in {
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == p.Key })
		switch {
		case i >= 0 && n.offered[p.Key]:
			err = n.result(&keys[i], p.Value)
			delete(n.offered, p.Key)
		case i >= 0:
			var answer string
			if answer, err = n.answer(&keys[i], p.Value); err == nil {
				out = append(out, wire.KeyValue{Key: p.Key, Value: answer})
			}
		default:
			err = n.p.declared(p)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// result takes the target's answer to an offer, which must be one that the offer allows.
func (n *negotiation) result(k *key, value string) error {
	switch value {
	case wire.Rejected:
		return protocolError("the target rejected %s", k.name)
	case wire.Irrelevant, wire.NotUnderstood:
		return nil // the default holds
	}
	o := n.opts.Operational
	switch {
	case k.list != nil:
		if !slices.Contains(strings.Split(k.value(o), ","), value) {
			return protocolError("%s=%.40s was not offered", k.name, value)
		}
		k.setFlag(n, value == "CRC32C")
	case k.flag != nil:
		v, err := wire.ParseBool(value)
		if err != nil {
			return protocolError("%s: %w", k.name, err)
		}
		if offer := k.flag(o); offer == k.or && v != offer {
			return protocolError("%s=%s in answer to %s", k.name, value, wire.FormatBool(offer))
		}
		k.setFlag(n, v)
	default:
		v, err := k.parse(value)
		if err != nil {
			return err
		}
		if offer := k.count(o); k.larger && v < offer || !k.larger && v > offer {
			return protocolError("%s=%d in answer to %d", k.name, v, offer)
		}
		k.setCount(n, v)
	}
	return nil
}

func (k *key) parse(value string) (int, error) {
	v, err := wire.ParseNumber(value)
	if err != nil {
		return 0, protocolError("%s: %w", k.name, err)
	}
	if v < uint64(k.min) || v > uint64(k.max) {
		return 0, protocolError("%s=%d is not within %d to %d", k.name, v, k.min, k.max)
	}
	return int(v), nil
}

// answer replies to an offer of the target.
func (n *negotiation) answer(k *key, value string) (string, error) {
	if !n.applies(k) {
		return wire.Irrelevant, nil
	}
	o := n.opts.Operational
	switch {
	case k.list != nil:
		mine := strings.Split(k.value(o), ",")
		for _, choice := range strings.Split(value, ",") {
			if slices.Contains(mine, choice) {
				k.setFlag(n, choice == "CRC32C")
				return choice, nil
			}
		}
		return wire.Rejected, nil
	case k.flag != nil:
		v, err := wire.ParseBool(value)
		if err != nil {
			return "", protocolError("%s: %w", k.name, err)
		}
		if k.or {
			v = v || k.flag(o)
		} else {
			v = v && k.flag(o)
		}
		k.setFlag(n, v)
		return wire.FormatBool(v), nil
	}
	v, err := k.parse(value)
	if err != nil {
		return "", err
	}
	if k.larger {
		v = max(v, k.count(o))
	} else {
		v = min(v, k.count(o))
	}
	k.setCount(n, v)
	return strconv.Itoa(v), nil
}

// declare takes the declarations among the pairs of the security stage.
func (c *Conn) declare(pairs []wire.KeyValue) {
	for _, p := range pairs {
		switch p.Key {
		case wire.KeyTargetPortalGroupTag, wire.KeyTargetAlias:
			_ = c.params.declared(p) // a malformed one there is not worth the login
		}
	}
}

// declared takes a pair that needs no answer.
func (p *Parameters) declared(pair wire.KeyValue) error {
	switch pair.Key {
	case wire.KeyMaxRecvDataSegmentLength:
		v, err := wire.ParseNumber(pair.Value)
		if err != nil || v < 512 || v > wire.MaxDataSegment {
			return protocolError("MaxRecvDataSegmentLength=%.40s", pair.Value)
		}
		p.TargetMaxRecvDataSegmentLength = int(v)
	case wire.KeyTargetPortalGroupTag:
		v, err := wire.ParseNumber(pair.Value)
		if err != nil || v > 65535 {
			return protocolError("TargetPortalGroupTag=%.40s", pair.Value)
		}
		p.PortalGroup = uint16(v)
	case wire.KeyTargetAlias:
		p.TargetAlias = pair.Value
	default:
		p.Extra = append(p.Extra, pair)
	}
	return nil
}
