package iscsi

import (
	"testing"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// pair logs a session of two connections in.
func (h *harness) pair() (a, b *client) {
	h.t.Helper()
	a = h.login("MaxConnections=2")
	b = h.dial()
	b.isid, b.tsih, b.cid = a.isid, a.tsih, 1
	b.login(normal()...)
	return a, b
}

// TestLogoutOutOfTurn checks that a logout that comes before commands with a lower CmdSN, and one that
// others wait for, leave the order of the session's commands as it is (RFC 7143 §4.2.2.1, §11.14).
func TestLogoutOutOfTurn(t *testing.T) {
	for _, early := range []bool{true, false} {
		h := newHarness(t, Config{})
		a, b := h.pair()
		sn := a.cmdSN
		var waiting uint32
		logout := sn
		if early {
			logout = sn + 1
		} else {
			a.cmdSN = sn + 1
			waiting = a.tur()
			a.send(&wire.NOPOut{Immediate: true, ITT: 900, TTT: wire.NoTag, CmdSN: sn + 2}, nil)
			a.recv(wire.OpNOPIn)
		}
		b.send(&wire.Logout{Reason: wire.LogoutCloseConnection, ITT: 901, CID: 1, CmdSN: logout}, nil)
		b.recv(wire.OpLogoutResponse)
		b.ended()
		if early {
			waiting = a.turAt(sn)
			a.cmdSN = sn + 2
		}
		a.good(waiting)
		if p := a.good(a.tur()); p.ExpCmdSN() != a.cmdSN || p.MaxCmdSN() != a.cmdSN+127 {
			t.Errorf("early=%t: ExpCmdSN %d and MaxCmdSN %d, want %d and %d", early, p.ExpCmdSN(), p.MaxCmdSN(), a.cmdSN, a.cmdSN+127)
		}
	}
}

// TestAbortedBeforeReceived checks that a command that ABORT TASK has counted as received is not executed
// when another connection brings it, and takes no second place in the window (RFC 7143 §11.5.1).
func TestAbortedBeforeReceived(t *testing.T) {
	h := newHarness(t, Config{})
	a, b := h.pair()
	sess := h.server.all()[0]
	sn := a.cmdSN
	// The abort is as far as before its answer.
	if !sess.plug(&management{conn: sess.connections()[0], refCmdSN: sn, cmdSN: sn + 1}) {
		t.Fatal("the command is not waited for")
	}
	b.itt = 500
	b.turAt(sn)
	b.send(&wire.NOPOut{Immediate: true, ITT: 900, TTT: wire.NoTag, CmdSN: sn + 1}, nil)
	b.recv(wire.OpNOPIn)
	if n := len(h.array.disk.order()); n != 0 {
		t.Errorf("%d commands were executed", n)
	}
	sess.catchUp()
	a.cmdSN = sn + 1
	if p := a.good(a.tur()); p.ExpCmdSN() != sn+2 || p.MaxCmdSN() != sn+2+127 {
		t.Errorf("ExpCmdSN %d and MaxCmdSN %d, want %d and %d", p.ExpCmdSN(), p.MaxCmdSN(), sn+2, sn+2+127)
	}
}

// TestRejectedImmediate checks that an immediate command that is refused for want of a task does not count
// as one under way (RFC 7143 §4.2.2.1, §11.17.1).
func TestRejectedImmediate(t *testing.T) {
	h := newHarness(t, Config{MaxImmediate: 2})
	c := h.login()
	h.server.all()[0].connections()[0].made = maxTasks
	for range 3 {
		c.itt++
		c.send(&wire.SCSICommand{Immediate: true, Final: true, ITT: c.itt, CmdSN: c.cmdSN, CDB: make([]byte, 6)}, nil)
		if p := c.recv(wire.OpReject); wire.Reason(p.Response()) != wire.ReasonNoResources {
			t.Errorf("reject % x", p.BHS)
		}
	}
}
