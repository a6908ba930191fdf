package iscsi

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

const (
	here  = "192.0.2.1"
	there = "192.0.2.2"
)

// attempt sends a whole login and returns how it is answered.
func (c *client) attempt(keys ...string) wire.LoginStatus {
	c.t.Helper()
	p := c.loginPDU(wire.StageOperational, wire.StageFullFeature, true, keys...)
	if (p.LoginStatus() == wire.LoginSuccess) != p.Final() {
		c.t.Errorf("%s with the final bit %t", p.LoginStatus(), p.Final())
	}
	return p.LoginStatus()
}

// TestReview checks that sessions end of which a connection is not let in any more, or on other
// terms, and that all others go on (RFC 7143 §11.9.1).
func TestReview(t *testing.T) {
	for name, terms := range map[string]map[string]string{
		"other terms":                       {here: "other", there: "b"},
		"refused":                           {there: "b"},
		"other terms of another connection": {here: "a", there: "b", "192.0.2.3": "other"},
		"another connection refused":        {here: "a", there: "b"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, Config{})
			h.array.only(map[string]string{here: "a", "192.0.2.3": "a", there: "b"})
			a := h.dialFrom(here)
			a.login(normal("MaxConnections=2")...)
			second := h.dialFrom("192.0.2.3")
			second.isid, second.tsih, second.cid = a.isid, a.tsih, 1
			second.login(normal()...)
			b := h.dialFrom(there)
			b.isid = wire.RandomISID(2, 2)
			b.login(normal()...)
			h.server.Review()
			a.good(a.tur())
			h.array.only(terms)
			h.server.Review()
			for _, c := range []*client{a, second} {
				if p := c.recv(wire.OpAsync); p.AsyncEvent() != wire.AsyncDropSession {
					t.Errorf("async % x", p.BHS)
				}
				c.ended()
			}
			b.good(b.tur())
		})
	}
	t.Run("discovery", func(t *testing.T) {
		h := newHarness(t, Config{})
		h.array.only(map[string]string{here: "a"})
		d := h.dialFrom(here)
		d.login("InitiatorName="+testInitiator, "SessionType=Discovery")
		h.server.Review()
		d.ask("SendTargets=All")
		h.array.only(map[string]string{here: "other"})
		h.server.Review()
		d.ended()
	})
}

// TestJoinTerms checks that neither a session nor the place of one can be had on other terms than
// its own: one initiator name may be that of different hosts of the array (RFC 7143 §6.3.5, §6.3.6).
func TestJoinTerms(t *testing.T) {
	h := newHarness(t, Config{})
	h.array.only(map[string]string{here: "a", there: "b"})
	a := h.dialFrom(here)
	a.login(normal("MaxConnections=4")...)
	for cid := range uint16(2) { // in place of a connection, and as another one
		x := h.dialFrom(there)
		x.isid, x.tsih, x.cid = a.isid, a.tsih, cid
		if s := x.attempt(normal()...); s != wire.LoginCannotInclude {
			t.Errorf("connection %d: %s", cid, s)
		}
	}
	x := h.dialFrom(there)
	x.isid = a.isid
	if s := x.attempt(normal()...); s != wire.LoginOutOfResources {
		t.Errorf("in place of the session: %s", s)
	}
	a.good(a.tur())
	// On the same terms both are had, and the place of a session that ends by anyone.
	second := h.dialFrom(here)
	second.isid, second.tsih, second.cid = a.isid, a.tsih, 1
	second.login(normal()...)
	h.array.only(map[string]string{there: "b"})
	h.server.Review()
	x = h.dialFrom(there)
	x.isid = a.isid
	x.login(normal()...)
	x.good(x.tur())
}

// TestTermsChangeWhileJoining checks that a connection ends whose terms change after
// they were looked at and before it is part of its session (RFC 7143 §6.3.5, §6.3.6).
func TestTermsChangeWhileJoining(t *testing.T) {
	for _, further := range []bool{false, true} {
		t.Run(fmt.Sprintf("further=%t", further), func(t *testing.T) {
			h := newHarness(t, Config{})
			c := h.dial()
			h.array.grant.Terms = "a"
			if further {
				a := h.dial()
				a.login(normal("MaxConnections=2")...)
				c.isid, c.tsih, c.cid = a.isid, a.tsih, 1
			}
			asked := 0
			h.array.decideBy(func(LoginRequest) (Grant, error) {
				asked++
				return Grant{Terms: []string{"a", "b"}[min(asked-1, 1)]}, nil
			})
			go c.send(&wire.Login{Transit: true, CSG: wire.StageOperational, NSG: wire.StageFullFeature, ISID: c.isid, TSIH: c.tsih, CID: c.cid, ITT: 1}, text(normal()...))
			if p, err := c.readPDU(); err == nil {
				t.Errorf("login is answered with %s", p.LoginStatus())
			}
			settle(t, "the end of the session", func() bool { return len(h.server.Sessions()) == 0 })
		})
	}
}

// TestJoinUnfinishedSession checks that nobody joins a session whose own login has not ended (RFC 7143 §6.3.6).
func TestJoinUnfinishedSession(t *testing.T) {
	h := newHarness(t, Config{})
	var x *client
	h.array.opening = func() {
		x = h.dial()
		x.tsih, x.cid = 1, 1
		if s := x.attempt(normal()...); s != wire.LoginNoSession {
			t.Errorf("login to a session that is yet to begin: %s", s)
		}
	}
	a := h.login()
	a.good(a.tur())
	if x == nil || a.tsih != 1 {
		t.Errorf("TSIH %d", a.tsih)
	}
}

// TestReinstatementsAtOnce checks that of several logins with one CID only one has the connection,
// and that none escapes the session's end (RFC 7143 §6.3.4).
func TestReinstatementsAtOnce(t *testing.T) {
	h := newHarness(t, Config{})
	d := h.array.disk
	a := h.login("MaxConnections=4")
	d.hold = func(*scsi.Task) bool { return true }
	a.tur()
	settle(t, "execution", func() bool { return len(d.order()) == 1 })
	d.mu.Lock()
	held := d.held
	d.held, d.hold = nil, nil // the command takes its time to end
	d.mu.Unlock()
	var wg sync.WaitGroup
	clients := make([]*client, 3)
	for i := range clients {
		c := h.dial()
		c.isid, c.tsih = a.isid, a.tsih
		clients[i] = c
		wg.Go(func() {
			c.send(&wire.Login{Transit: true, CSG: wire.StageOperational, NSG: wire.StageFullFeature, ISID: c.isid, TSIH: c.tsih, ITT: 1, CmdSN: a.cmdSN}, text(normal()...))
			if _, err := c.readPDU(); err != nil {
				c.nc.Close() // another one has taken the place meanwhile
			}
		})
	}
	a.ended()
	time.Sleep(20 * time.Millisecond) // they are to wait for it, all at once
	held[0].Aborted = true
	held[0].Owner.TaskDone(held[0])
	wg.Wait()
	settle(t, "one connection", func() bool {
		s := h.server.Sessions()
		return len(s) == 1 && len(s[0].Connections) == 1
	})
	h.server.Drop(h.server.Sessions()[0].ID)
	for _, c := range clients {
		c.receive()
		c.ended()
	}
}

// TestDropBeginsNoMore checks that a session which is dropped begins no more commands, also
// where the initiator does not read that it is dropped.
func TestDropBeginsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, Config{})
		d := h.array.disk
		c := h.dial()
		if s := c.attempt(normal()...); s != wire.LoginSuccess {
			t.Fatal(s)
		}
		d.hold = func(*scsi.Task) bool { return true }
		c.tur()
		synctest.Wait()
		d.letGo() // the writer is stuck with the response
		synctest.Wait()
		h.server.Drop(h.server.Sessions()[0].ID)
		go c.tur()
		synctest.Wait()
		time.Sleep(dismissTime + time.Second)
		if n := len(d.order()); n != 1 {
			t.Errorf("%d commands were executed, want that from before", n)
		}
		if n := len(h.server.Sessions()); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

// TestDiscoveryLimits checks that discovery sessions are bounded in all and for each address or IPv6 network, and do not
// count as others (RFC 7143 §11.13.5).
func TestDiscoveryLimits(t *testing.T) {
	const (
		site   = "2001:db8:0:1::1"
		sameV6 = "2001:db8:0:1:2::3"
	)
	h := newHarness(t, Config{MaxDiscovery: 5, MaxDiscoveryPerAddress: 2, MaxSessions: 1})
	n := uint16(0)
	discover := func(from string) wire.LoginStatus {
		c := h.dialFrom(from)
		n++
		c.isid = wire.RandomISID(1, n)
		return c.attempt("InitiatorName="+testInitiator, "SessionType=Discovery")
	}
	for i, want := range []struct {
		from   string
		status wire.LoginStatus
	}{{here, 0}, {here, 0}, {here, wire.LoginOutOfResources}, {site, 0}, {sameV6, 0}, {site, wire.LoginOutOfResources}, {there, 0}, {there, wire.LoginOutOfResources}} {
		if s := discover(want.from); s != want.status {
			t.Errorf("discovery session %d: %s", i+1, s)
		}
	}
	h.login()
}

// TestNamesInAnyCase checks that the initiator port is the same in whatever case a host writes
// names: it reinstates its session, joins it, and has one nexus and TransportID (RFC 7143
// §4.2.7.2, §6.3.5, RFC 3722 §3).
func TestNamesInAnyCase(t *testing.T) {
	h := newHarness(t, Config{})
	a := h.login("MaxConnections=2")
	shouted := []string{"InitiatorName=" + strings.ToUpper(testInitiator), "TargetName=" + strings.ToUpper(testTarget), "SessionType=Normal", "MaxConnections=2"}
	again := h.dial()
	again.isid = a.isid
	again.login(shouted...)
	a.ended()
	second := h.dial()
	second.isid, second.tsih, second.cid = again.isid, again.tsih, 1
	second.login(normal()...)
	list := h.server.Sessions()
	if len(list) != 1 || list[0].Initiator != testInitiator || list[0].Target != testTarget || len(list[0].Connections) != 2 {
		t.Errorf("sessions %+v", list)
	}
	h.array.mu.Lock()
	defer h.array.mu.Unlock()
	if n := len(h.array.opened); n != 2 || h.array.opened[0].PortName() != h.array.opened[1].PortName() ||
		!bytes.Equal(h.array.opened[0].TransportID(), h.array.opened[1].TransportID()) {
		t.Errorf("%d nexuses: %+v", n, h.array.opened)
	}
}

// TestLoginKeys checks that the keys of a login are bounded, over all its exchanges.
func TestLoginKeys(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.dial()
	for i := range maxLoginKeys {
		keys := []string{fmt.Sprintf("X-%d=a", 2*i), fmt.Sprintf("X-%d=a", 2*i+1)}
		if i == 0 {
			keys = append(keys, normal()...)
		}
		if p := c.loginPDU(wire.StageSecurity, wire.StageOperational, false, keys...); p.LoginStatus() != wire.LoginSuccess {
			if i < maxLoginKeys/2-2 || p.LoginStatus() != wire.LoginInitiatorError {
				t.Errorf("refused with exchange %d: %s", i, p.LoginStatus())
			}
			return
		}
	}
	t.Error("there is no end to the keys")
}
