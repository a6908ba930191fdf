package iscsi

import (
	"fmt"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// textState is the text exchange under way; only one is (RFC 7143 §11.10).
type textState struct {
	open bool
	ttt  uint32
	in   []byte // request so far, where the C bit says that it goes on
	out  []byte // answer that has not been sent yet
}

// textRequest handles a Text Request in its turn.
func (c *conn) textRequest(b wire.BHS, data []byte) error {
	h := append(wire.BHS(nil), b[:wire.HeaderSize]...)
	text := append([]byte(nil), data...)
	c.request(b, func() { c.answerText(h, text) })
	return nil
}

func (c *conn) answerText(b wire.BHS, data []byte) {
	c.mu.Lock()
	x := c.text
	c.text = textState{}
	c.mu.Unlock()
	ttt := b.TTT()
	switch {
	case ttt != wire.NoTag && (!x.open || ttt != x.ttt), b.Final() && b.Continue(), len(x.out) > 0 && len(data) > 0 && ttt != wire.NoTag:
		c.rejectText(b)
		return
	case ttt == wire.NoTag:
		x = textState{}
	}
	x.in = append(x.in, data...)
	if len(x.in) > c.server.cfg.MaxLoginText {
		c.rejectText(b)
		return
	}
	if !b.Continue() && len(x.in) > 0 {
		pairs, err := wire.ParseText(x.in, maxLoginKeys)
		x.in = nil
		if err != nil {
			c.rejectText(b)
			return
		}
		for _, kv := range pairs {
			x.out = c.answerKey(x.out, kv)
		}
	}
	c.sendText(b, x)
}

// sendText sends as much of the answer as fits in a PDU; the initiator asks
// for the rest with the target transfer tag.
func (c *conn) sendText(b wire.BHS, x textState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requestDoneLocked(b.Immediate())
	if c.dead {
		return
	}
	now := x.out
	f := &wire.TextResponse{Final: b.Final(), LUN: b.LUN(), ITT: b.ITT(), TTT: wire.NoTag}
	if len(now) > c.params.maxSend {
		now = now[:c.params.maxSend]
		f.Continue, f.Final = true, false
	}
	x.out = x.out[len(now):]
	if !f.Final {
		c.nextTTT++
		x.open, x.ttt = true, c.nextTTT&0x7fffffff
		f.TTT = x.ttt
		c.text = x
	}
	f.Numbers = c.numbersLocked(true)
	c.putLocked(f, now)
	c.wakeLocked()
}

func (c *conn) rejectText(b wire.BHS) {
	c.mu.Lock()
	c.requestDoneLocked(b.Immediate())
	c.mu.Unlock()
	c.reject(wire.ReasonProtocolError, b)
}

// answerKey appends the answer to one key (RFC 7143 §6.4).
func (c *conn) answerKey(out []byte, kv wire.KeyValue) []byte {
	switch kv.Key {
	case wire.KeySendTargets:
		return c.sendTargets(out, kv.Value)
	case wire.KeyInitiatorAlias:
		return out
	}
	c.mu.Lock()
	p := c.params
	c.mu.Unlock()
	answer := p.operational(&c.server.cfg, kv, true, c.session.discovery, true)
	if p.maxSend != c.params.maxSend {
		c.mu.Lock()
		c.params.maxSend = p.maxSend
		c.mu.Unlock()
	}
	if answer != "" {
		out = wire.AppendText(out, kv.Key, answer)
	}
	return out
}

// sendTargets answers SendTargets (RFC 7143 §C). A normal session
// learns of its own target alone, also where it asks for all.
func (c *conn) sendTargets(out []byte, value string) []byte {
	own, only := c.session.key.target, ""
	if value != "All" && (value != "" || c.session.discovery) {
		var err error
		if only, err = wire.NormalizeName(value); err != nil || !c.session.discovery && only != own {
			return wire.AppendText(out, wire.KeySendTargets, wire.Rejected)
		}
	}
	if !c.session.discovery {
		only = own
	}
	for _, t := range c.server.cfg.Access.Targets(c.peer) {
		if only != "" && t.Name != only {
			continue
		}
		out = wire.AppendText(out, wire.KeyTargetName, t.Name)
		for _, p := range t.Portals {
			out = wire.AppendText(out, wire.KeyTargetAddress, fmt.Sprintf("%s,%d", p.Address, p.Group))
		}
	}
	return out
}
