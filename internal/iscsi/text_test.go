package iscsi

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

func (c *client) textPDU(f wire.Text, data []byte) {
	c.itt++
	f.Immediate, f.ITT, f.CmdSN = true, c.itt, c.cmdSN
	c.send(&f, data)
}

// ask sends one text request and returns the answer as lines.
func (c *client) ask(pairs ...string) string {
	c.t.Helper()
	c.textPDU(wire.Text{Final: true, TTT: wire.NoTag}, text(pairs...))
	p := c.recv(wire.OpTextResponse)
	if p.ITT() != c.itt || !p.Final() || p.Continue() || p.TTT() != wire.NoTag {
		c.t.Fatalf("text response % x", p.BHS)
	}
	return lines(p.data)
}

func lines(b []byte) string { return strings.ReplaceAll(string(b), "\x00", "\n") }

func (h *harness) discover() *client {
	c := h.dial()
	c.login("InitiatorName="+testInitiator, "SessionType=Discovery", "MaxRecvDataSegmentLength=512")
	return c
}

// TestSendTargets checks SendTargets in discovery and normal sessions (RFC 7143 §C).
func TestSendTargets(t *testing.T) {
	h := newHarness(t, Config{})
	own := "TargetName=" + testTarget + "\nTargetAddress=127.0.0.1:3260,1\nTargetAddress=[2001:db8::1]:3261,2\n"
	h.array.targets[0].Portals = append(h.array.targets[0].Portals, Portal{netip.MustParseAddrPort("[2001:db8::1]:3261"), 2})
	h.array.targets = append(h.array.targets, TargetInfo{Name: "iqn.2026-11.io.lintel:two"})
	d := h.discover()
	if s := h.server.Sessions()[0]; !s.Discovery || s.Target != "" {
		t.Errorf("session %+v", s)
	}
	for value, want := range map[string]string{
		"All":                       own + "TargetName=iqn.2026-11.io.lintel:two\n",
		"iqn.2026-11.io.lintel:two": "TargetName=iqn.2026-11.io.lintel:two\n",
		"IQN.2026-11.io.Lintel:TWO": "TargetName=iqn.2026-11.io.lintel:two\n",
		"iqn.2026-11.io.lintel:x":   "",
		"":                          "SendTargets=Reject\n",
		"Alle":                      "SendTargets=Reject\n",
	} {
		if got := d.ask("SendTargets=" + value); got != want {
			t.Errorf("SendTargets=%s: %q, want %q", value, got, want)
		}
	}
	n := h.login()
	for value, want := range map[string]string{
		"All":                       own,
		"":                          own,
		testTarget:                  own,
		strings.ToUpper(testTarget): own,
		"iqn.2026-11.io.lintel:two": "SendTargets=Reject\n",
	} {
		if got := n.ask("SendTargets=" + value); got != want {
			t.Errorf("SendTargets=%s in a normal session: %q, want %q", value, got, want)
		}
	}
	if got := n.ask("sENDtARGETS=All", "SendTargetsPlease=All", "InitiatorAlias=x", "MaxBurstLength=512", "HeaderDigest=None"); got !=
		"sENDtARGETS=NotUnderstood\nSendTargetsPlease=NotUnderstood\nMaxBurstLength=Reject\nHeaderDigest=Reject\n" {
		t.Errorf("other keys: %q", got)
	}
	if got := n.ask("MaxRecvDataSegmentLength=600"); got != "" {
		t.Errorf("declaration answered: %q", got)
	}
	n.read(0, 2)
	if p := n.recv(wire.OpDataIn); len(p.data) != 600 {
		t.Errorf("Data-In of %d bytes after the declaration of 600", len(p.data))
	}
}

// TestTextContinuation checks long text in both directions (RFC 7143 §11.10, §11.11).
func TestTextContinuation(t *testing.T) {
	h := newHarness(t, Config{})
	h.array.targets = nil
	var want strings.Builder
	for i := range 50 {
		name := fmt.Sprintf("iqn.2026-11.io.lintel:%03d", i)
		h.array.targets = append(h.array.targets, TargetInfo{Name: name})
		want.WriteString("TargetName=" + name + "\n")
	}
	c := h.discover()
	// The request in three parts.
	c.textPDU(wire.Text{Continue: true, TTT: wire.NoTag}, []byte("Send"))
	p := c.recv(wire.OpTextResponse)
	if p.Final() || p.TTT() == wire.NoTag || len(p.data) != 0 {
		t.Fatalf("text response % x", p.BHS)
	}
	c.textPDU(wire.Text{Continue: true, TTT: p.TTT()}, []byte("Targ"))
	p = c.recv(wire.OpTextResponse)
	c.textPDU(wire.Text{Final: true, TTT: p.TTT()}, []byte("ets=All\x00"))
	// The answer in pieces of 512 bytes.
	var got []byte
	for {
		p = c.recv(wire.OpTextResponse)
		got = append(got, p.data...)
		if !p.Continue() {
			break
		}
		if p.Final() || p.TTT() == wire.NoTag || len(p.data) != 512 {
			t.Fatalf("text response % x", p.BHS)
		}
		c.textPDU(wire.Text{Final: true, TTT: p.TTT()}, nil)
	}
	if !p.Final() || p.TTT() != wire.NoTag || lines(got) != want.String() {
		t.Errorf("answer %q", lines(got))
	}

	// A negotiation that the initiator keeps open.
	c.textPDU(wire.Text{TTT: wire.NoTag}, text("X-a=1"))
	p = c.recv(wire.OpTextResponse)
	if p.Final() || p.TTT() == wire.NoTag || lines(p.data) != "X-a=NotUnderstood\n" {
		t.Errorf("text response % x %q", p.BHS, p.data)
	}
	c.textPDU(wire.Text{Final: true, TTT: p.TTT()}, nil)
	if p = c.recv(wire.OpTextResponse); !p.Final() || len(p.data) != 0 {
		t.Errorf("text response % x %q", p.BHS, p.data)
	}
}

// TestTextErrors checks text requests that are rejected (RFC 7143 §11.10).
func TestTextErrors(t *testing.T) {
	h := newHarness(t, Config{MaxLoginText: 1000})
	c := h.discover()
	for name, send := range map[string]func(){
		"unknown tag":     func() { c.textPDU(wire.Text{Final: true, TTT: 77}, text("SendTargets=All")) },
		"F and C":         func() { c.textPDU(wire.Text{Final: true, Continue: true, TTT: wire.NoTag}, text("SendTargets=All")) },
		"malformed":       func() { c.textPDU(wire.Text{Final: true, TTT: wire.NoTag}, []byte("SendTargets")) },
		"too long":        func() { c.textPDU(wire.Text{Final: true, TTT: wire.NoTag}, bytes.Repeat([]byte{'A'}, 1001)) },
		"ping":            func() { c.send(&wire.NOPOut{Immediate: true, ITT: 5, TTT: wire.NoTag, CmdSN: c.cmdSN}, nil) },
		"task management": func() { c.send(&wire.TaskManagement{Immediate: true, Function: 5, ITT: 5, CmdSN: c.cmdSN}, nil) },
		"command":         func() { c.send(&wire.SCSICommand{Immediate: true, Final: true, ITT: 5, CmdSN: c.cmdSN}, nil) },
	} {
		send()
		if p := c.recv(wire.OpReject); wire.Reason(p.Response()) != wire.ReasonProtocolError {
			t.Errorf("%s: reject % x", name, p.BHS)
		}
	}
	if got := c.ask("SendTargets=All"); !strings.HasPrefix(got, "TargetName=") {
		t.Errorf("answer %q", got)
	}
	c.send(&wire.Logout{Immediate: true, ITT: 9, CmdSN: c.cmdSN}, nil)
	c.recv(wire.OpLogoutResponse)
	c.ended()
}

// TestPing checks NOP-Out pings (RFC 7143 §11.18, §11.19).
func TestPing(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("MaxRecvDataSegmentLength=512")
	for _, data := range [][]byte{nil, []byte("nopping\x00"), pattern(511), pattern(600)} {
		itt, sn := c.next()
		c.send(&wire.NOPOut{ITT: itt, TTT: wire.NoTag, CmdSN: sn}, data)
		p := c.recv(wire.OpNOPIn)
		if p.ITT() != itt || p.TTT() != wire.NoTag || !bytes.Equal(p.data, data[:min(len(data), 512)]) || p.ExpCmdSN() != sn+1 {
			t.Errorf("NOP-In % x % x", p.BHS, p.data)
		}
	}
	c.send(&wire.NOPOut{ITT: wire.NoTag, TTT: 5, CmdSN: c.cmdSN}, nil)
	c.recv(wire.OpReject) // has to be immediate
	c.send(&wire.NOPOut{Immediate: true, ITT: 5, TTT: 5, CmdSN: c.cmdSN}, nil)
	if p := c.recv(wire.OpReject); wire.Reason(p.Response()) != wire.ReasonInvalidField {
		t.Errorf("reject % x", p.BHS)
	}
	c.send(&wire.NOPOut{Immediate: true, ITT: wire.NoTag, TTT: wire.NoTag, CmdSN: c.cmdSN}, nil) // asks for nothing
	c.good(c.tur())
}

// TestUnsupported checks PDUs that are rejected or end the connection (RFC 7143 §11.16, §11.17).
func TestUnsupported(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login()
	c.send(&wire.SNACK{Type: wire.SNACKStatus, ITT: wire.NoTag, TTT: wire.NoTag}, nil)
	if p := c.recv(wire.OpReject); wire.Reason(p.Response()) != wire.ReasonSNACK {
		t.Errorf("reject % x", p.BHS)
	}
	for _, op := range []wire.Opcode{wire.OpR2T, wire.OpNOPIn, 0x1c, 0x3f, 0x07} {
		b := c.bytes(&wire.NOPOut{ITT: 9, TTT: wire.NoTag, CmdSN: c.cmdSN}, nil, nil)
		wire.BHS(b).SetOpcode(op, true)
		c.write(b)
		p := c.recv(wire.OpReject)
		if wire.Reason(p.Response()) != wire.ReasonNotSupported || !bytes.Equal(p.data, b) {
			t.Errorf("reject % x", p.BHS)
		}
	}
	itt, sn := c.next()
	c.cmdSN--
	c.send(&wire.SCSICommand{Read: true, ITT: itt, CmdSN: sn}, nil) // neither W nor F
	if p := c.recv(wire.OpReject); wire.Reason(p.Response()) != wire.ReasonInvalidField {
		t.Errorf("reject % x", p.BHS)
	}
	c.good(c.tur())
	c.send(&wire.Login{Transit: true, CSG: 1, NSG: 3, ISID: c.isid, CmdSN: c.cmdSN}, text(normal()...))
	c.ended()

	c = h.login("MaxRecvDataSegmentLength=512")
	b := c.bytes(&wire.NOPOut{Immediate: true, ITT: 9, TTT: wire.NoTag}, nil, nil)
	wire.BHS(b).SetDataLength(1 << 20)
	c.write(b)
	c.ended()
}
