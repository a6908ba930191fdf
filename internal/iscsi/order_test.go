package iscsi

import (
	"slices"
	"testing"
	"time"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// second adds a connection to the session of c.
func (h *harness) second(c *client, cid uint16) *client {
	h.t.Helper()
	d := h.dial()
	d.isid, d.tsih, d.cid, d.itt = c.isid, c.tsih, cid, uint32(cid)*1000
	d.login(normal()...)
	return d
}

func (c *client) turAt(cmdSN uint32) uint32 {
	c.itt++
	c.send(&wire.SCSICommand{Final: true, ITT: c.itt, CmdSN: cmdSN, CDB: make([]byte, 6)}, nil)
	return c.itt
}

func (d *disk) order() []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.done)
}

// settle waits until a condition that other goroutines bring about holds.
func settle(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%s does not come about", what)
}

// TestCommandWindow checks that commands outside of the command window are ignored (RFC 7143 §4.2.2.1).
func TestCommandWindow(t *testing.T) {
	h := newHarness(t, Config{QueueDepth: 4})
	c := h.login()
	sn := c.cmdSN
	c.turAt(sn - 1)
	c.turAt(sn + 4)
	c.send(&wire.TaskManagement{Function: 5, ITT: 900, CmdSN: sn + 4}, nil)
	c.send(&wire.NOPOut{ITT: 901, TTT: wire.NoTag, CmdSN: sn - 1}, nil)
	c.send(&wire.Text{Final: true, ITT: 902, TTT: wire.NoTag, CmdSN: sn + 50}, nil)
	c.send(&wire.Logout{ITT: 903, CmdSN: sn + 50}, nil)
	// Immediate data of an ignored command goes with it.
	c.send(&wire.SCSICommand{Final: true, Write: true, ITT: 904, ExpectedLength: 512, CmdSN: sn + 4, CDB: cdb10(0x2a, 0, 1)}, make([]byte, 512))
	p := c.good(c.tur())
	if p.ExpCmdSN() != sn+1 || p.MaxCmdSN() != sn+4 {
		t.Errorf("window %d to %d, want %d to %d", p.ExpCmdSN(), p.MaxCmdSN(), sn+1, sn+4)
	}
	if n := len(h.array.disk.order()); n != 1 {
		t.Errorf("%d commands were executed", n)
	}
}

// TestWindowCloses checks MaxCmdSN with commands under way (RFC 7143 §4.2.2.1).
func TestWindowCloses(t *testing.T) {
	h := newHarness(t, Config{QueueDepth: 4})
	c := h.login()
	h.array.disk.hold = func(*scsi.Task) bool { return true }
	sn := c.cmdSN
	for range 4 {
		c.tur()
	}
	c.turAt(sn + 4) // the window is closed
	settle(t, "execution of four commands", func() bool { return len(h.array.disk.order()) == 4 })
	if s := h.server.Sessions()[0]; s.InFlight != 4 {
		t.Errorf("%d commands in flight", s.InFlight)
	}
	h.array.disk.letGo()
	for i := range uint32(4) {
		if p := c.recv(wire.OpSCSIResponse); p.ExpCmdSN() != sn+4 || p.MaxCmdSN() != sn+4+i {
			t.Errorf("window %d to %d", p.ExpCmdSN(), p.MaxCmdSN())
		}
	}
	c.itt -= 1
	c.good(c.tur())
	if n := len(h.array.disk.order()); n != 5 {
		t.Errorf("%d commands were executed", n)
	}
}

// TestCommandOrder checks delivery in the order of CmdSN (RFC 7143 §4.2.2.1).
func TestCommandOrder(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("InitialR2T=No")
	sn := c.cmdSN
	c.turAt(sn + 2)
	c.turAt(sn + 2) // again: ignored
	c.send(&wire.SCSICommand{Write: true, ITT: 50, ExpectedLength: 1024, CmdSN: sn + 1, CDB: cdb10(0x2a, 0, 2)}, make([]byte, 512))
	c.send(&wire.DataOut{Final: true, ITT: 50, TTT: wire.NoTag, BufferOffset: 512}, make([]byte, 512))
	c.send(&wire.NOPOut{ITT: 51, TTT: wire.NoTag, CmdSN: sn + 3}, nil)
	c.itt = 59
	imm := c.itt + 1
	c.itt++
	c.send(&wire.SCSICommand{Immediate: true, Final: true, ITT: imm, CmdSN: sn, CDB: make([]byte, 6)}, nil)
	if p := c.good(imm); p.ExpCmdSN() != sn {
		t.Errorf("ExpCmdSN %d after an immediate command, want %d", p.ExpCmdSN(), sn)
	}
	first := c.turAt(sn)
	for range 3 {
		c.recv(wire.OpSCSIResponse)
	}
	c.recv(wire.OpNOPIn)
	if got, want := h.array.disk.order(), []uint64{uint64(imm), uint64(first), 50, 1}; !slices.Equal(got, want) {
		t.Errorf("executed %v, want %v", got, want)
	}
}

// TestMultipleConnections checks several connections in one session (RFC 7143 §4.2.2, §13.2).
func TestMultipleConnections(t *testing.T) {
	h := newHarness(t, Config{})
	a := h.dial()
	a.login(normal("MaxConnections=2", "InitialR2T=No")...)
	b := h.second(a, 1)
	x := h.dial()
	x.isid, x.tsih, x.cid = a.isid, a.tsih, 2
	if p := x.loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal()...); p.LoginStatus() != wire.LoginTooManyConnections {
		t.Errorf("third connection of two: %s", p.LoginStatus())
	}

	// The response goes where the command came from, and the order holds across connections.
	sn := a.cmdSN
	late := b.turAt(sn + 1)
	b.send(&wire.SCSICommand{Write: true, ITT: 77, ExpectedLength: 1024, CmdSN: sn + 2, CDB: cdb10(0x2a, 0, 2)}, make([]byte, 512))
	b.send(&wire.DataOut{Final: true, ITT: 77, TTT: wire.NoTag, BufferOffset: 512}, make([]byte, 512))
	b.itt++
	b.send(&wire.NOPOut{Immediate: true, ITT: b.itt, TTT: wire.NoTag, CmdSN: sn}, nil)
	b.recv(wire.OpNOPIn) // b has taken everything
	first := a.turAt(sn)
	a.good(first)
	b.good(late)
	b.good(77)
	if got, want := h.array.disk.order(), []uint64{uint64(first), uint64(late), 77}; !slices.Equal(got, want) {
		t.Errorf("executed %v, want %v", got, want)
	}
	s := h.server.Sessions()
	if len(s) != 1 || len(s[0].Connections) != 2 || s[0].Connections[1].CID != 1 || s[0].Counters.Commands == 0 {
		t.Errorf("sessions %+v", s)
	}

	// One connection logs out; the other goes on.
	b.send(&wire.Logout{Immediate: true, Reason: wire.LogoutCloseConnection, ITT: 1, CID: 1, CmdSN: sn + 3}, nil)
	if p := b.recv(wire.OpLogoutResponse); p.Response() != wire.LogoutOK {
		t.Errorf("logout: %d", p.Response())
	}
	b.ended()
	a.good(a.turAt(sn + 3))

	// A connection that fails takes the session with it.
	b = h.second(a, 1)
	b.nc.Close()
	a.ended()
	settle(t, "the end of the session", func() bool { return len(h.server.Sessions()) == 0 })
	if !h.array.disk.closed {
		t.Error("the nexus is still open")
	}
}

// TestLogoutOther checks logout of another connection (RFC 7143 §11.14.1).
func TestLogoutOther(t *testing.T) {
	h := newHarness(t, Config{})
	a := h.dial()
	a.login(normal("MaxConnections=4")...)
	b := h.second(a, 1)
	c := h.second(a, 2)
	h.array.disk.hold = func(*scsi.Task) bool { return true }
	b.turAt(a.cmdSN)
	b.turAt(a.cmdSN + 5) // waits for its turn
	settle(t, "execution", func() bool { return len(h.array.disk.order()) == 1 })
	out := func(reason uint8, cid uint16) uint8 {
		a.itt++
		a.send(&wire.Logout{Immediate: true, Reason: reason, ITT: a.itt, CID: cid, CmdSN: a.cmdSN}, nil)
		return a.recv(wire.OpLogoutResponse).Response()
	}
	if r := out(wire.LogoutCloseConnection, 9); r != wire.LogoutCIDNotFound {
		t.Errorf("logout of an unknown connection: %d", r)
	}
	if r := out(wire.LogoutRecovery, 1); r != wire.LogoutRecoveryNotSupported {
		t.Errorf("logout for recovery: %d", r)
	}
	if r := out(wire.LogoutCloseConnection, 1); r != wire.LogoutOK {
		t.Errorf("logout of the second connection: %d", r)
	}
	b.ended()
	h.array.disk.mu.Lock()
	held := len(h.array.disk.held)
	h.array.disk.mu.Unlock()
	if held != 0 {
		t.Error("a command of the closed connection is still under way")
	}
	a.itt++
	a.send(&wire.Logout{Immediate: true, Reason: 9, ITT: a.itt, CmdSN: a.cmdSN}, nil)
	a.recv(wire.OpReject)
	if r := out(wire.LogoutCloseSession, 0); r != wire.LogoutOK {
		t.Errorf("logout of the session: %d", r)
	}
	a.ended()
	c.ended()
	settle(t, "the end of the session", func() bool { return len(h.server.Sessions()) == 0 })
}

// TestLogoutEndsNexus checks that the nexus, and with it what it alone was holding, is gone
// when a logout is answered (RFC 7143 §11.15.1, SAM-5 §6.3.4).
func TestLogoutEndsNexus(t *testing.T) {
	for _, reason := range []uint8{wire.LogoutCloseSession, wire.LogoutCloseConnection} {
		h := newHarness(t, Config{})
		answered := make(chan struct{})
		h.array.disk.closing = func() {
			select {
			case <-answered:
				t.Error("the logout was answered before the nexus was closed")
			case <-time.After(100 * time.Millisecond): // for the answer to come, if it does
			}
		}
		c := h.login()
		c.good(c.tur())
		c.send(&wire.Logout{Immediate: true, Reason: reason, ITT: 1, CmdSN: c.cmdSN}, nil)
		if p := c.recv(wire.OpLogoutResponse); p.Response() != wire.LogoutOK {
			t.Errorf("logout: %d", p.Response())
		}
		close(answered)
		c.ended()
		settle(t, "the end of the session", func() bool { return len(h.server.Sessions()) == 0 })
	}
}

// TestCrossLogout checks that two connections that log the session out at once do not wait for each other.
func TestCrossLogout(t *testing.T) {
	for range 20 {
		h := newHarness(t, Config{})
		a := h.dial()
		a.login(normal("MaxConnections=2")...)
		b := h.second(a, 1)
		for _, c := range []*client{a, b} {
			go c.send(&wire.Logout{Immediate: true, Reason: wire.LogoutCloseSession, ITT: 1, CmdSN: a.cmdSN}, nil)
		}
		a.ended()
		b.ended()
		settle(t, "the end of the session", func() bool { return len(h.server.Sessions()) == 0 })
	}
}

// TestConnectionReinstatement checks a login with the CID of an open connection (RFC 7143 §6.3.4).
func TestConnectionReinstatement(t *testing.T) {
	h := newHarness(t, Config{})
	a := h.login()
	h.array.disk.hold = func(*scsi.Task) bool { return true }
	a.tur()
	settle(t, "execution", func() bool { return len(h.array.disk.order()) == 1 })
	b := h.second(a, 0)
	a.ended()
	h.array.disk.mu.Lock()
	held := len(h.array.disk.held)
	h.array.disk.hold = nil
	h.array.disk.mu.Unlock()
	if held != 0 {
		t.Error("a command of the old connection is still under way")
	}
	b.good(b.turAt(a.cmdSN))
	if n := len(h.array.opened); n != 1 {
		t.Errorf("%d nexuses were made", n)
	}
	// A TSIH that does not exist, or of another initiator port.
	for _, change := range []func(*client){func(c *client) { c.tsih++ }, func(c *client) { c.isid[5]++ }} {
		x := h.dial()
		x.isid, x.tsih = a.isid, a.tsih
		change(x)
		if p := x.loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal()...); p.LoginStatus() != wire.LoginNoSession {
			t.Errorf("login to an unknown session: %s", p.LoginStatus())
		}
	}
}

// TestSessionReinstatement checks a login with name and ISID of an open session (RFC 7143 §6.3.5).
func TestSessionReinstatement(t *testing.T) {
	h := newHarness(t, Config{})
	a := h.login()
	h.array.disk.hold = func(*scsi.Task) bool { return true }
	a.tur()
	settle(t, "execution", func() bool { return len(h.array.disk.order()) == 1 })
	b := h.dial()
	p := b.login(normal()...)
	a.ended()
	if p.TSIH() == 0 || p.TSIH() == a.tsih {
		t.Errorf("TSIH %d after %d", p.TSIH(), a.tsih)
	}
	if s := h.server.Sessions(); len(s) != 1 || s[0].TSIH != p.TSIH() {
		t.Errorf("sessions %+v", s)
	}
	h.array.disk.letGo()
	b.good(b.tur())
	// Another ISID is another session.
	c := h.dial()
	c.isid = wire.RandomISID(1, 2)
	c.login(normal()...)
	c.good(c.tur())
	b.good(b.tur())
	i := h.array.opened[2]
	if got, want := i.PortName(), testInitiator+",i,0x800000010002"; got != want {
		t.Errorf("port name %s, want %s", got, want)
	}
	id := i.TransportID()
	if id[0] != 0x45 || len(id)%4 != 0 || int(id[3]) != len(id)-4 || string(id[4:4+len(i.PortName())+1]) != i.PortName()+"\x00" {
		t.Errorf("transport id % x", id)
	}
}
