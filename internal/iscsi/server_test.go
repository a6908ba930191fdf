package iscsi

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/transport"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// TestServe checks a server on loopback: login, I/O, status, shutdown with a
// logout request (RFC 7143 §11.9.1).
func TestServe(t *testing.T) {
	h := newHarness(t, Config{SocketBuffer: 1 << 20})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(l, 3) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, nc)
	c.login(normal("InitiatorAlias=me", "InitialR2T=No", "FirstBurstLength=262144", "MaxRecvDataSegmentLength=262144")...)
	data := pattern(256 * 512)
	c.good(c.writeCmd(0, 256, true, data))
	for range 10 {
		c.read(0, 256)
	}
	for range 10 {
		if p := c.recv(wire.OpDataIn); len(p.data) != len(data) {
			t.Errorf("Data-In of %d bytes", len(p.data))
		}
	}
	s := h.server.Sessions()[0]
	if s.Initiator != testInitiator || s.Alias != "me" || s.Target != testTarget || s.TSIH != c.tsih || s.ISID != c.isid ||
		s.Connections[0].Remote.String() != nc.LocalAddr().String() || s.Connections[0].Local.String() != l.Addr().String() ||
		s.Counters.Commands != 11 || s.Counters.BytesRead != 10*128<<10 || s.Counters.BytesWritten != 128<<10 ||
		s.Connections[0].MaxSendDataSegment != 262144 || s.Negotiated.FirstBurst != 262144 {
		t.Errorf("status %+v", s)
	}
	if p := h.array.opened[0]; p.Group != 3 || p.ID != s.ID {
		t.Errorf("opened %+v", p)
	}
	if !h.server.AsyncEvent(s.ID, 0, wire.AsyncSCSI, []byte{0x70, 0, 6}) {
		t.Error("no such session")
	}
	if p := c.recv(wire.OpAsync); p.AsyncEvent() != wire.AsyncSCSI || len(p.data) != 5 || p.data[1] != 3 {
		t.Errorf("async % x % x", p.BHS, p.data)
	}

	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go func() { done <- h.server.Shutdown(ctx) }()
	p := c.recv(wire.OpAsync)
	if _, _, p3 := p.AsyncParameters(); p.AsyncEvent() != wire.AsyncLogoutRequest || p3 == 0 || p3 > 30 || p.ITT() != wire.NoTag {
		t.Errorf("async % x", p.BHS)
	}
	c.send(&wire.Logout{Immediate: true, ITT: 99, CmdSN: c.cmdSN}, nil)
	c.recv(wire.OpLogoutResponse)
	c.ended()
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := <-served; !errors.Is(err, transport.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
	if err := h.server.Serve(l, 3); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("serve after shutdown: %v", err)
	}
	a, b := net.Pipe()
	h.server.accept(b, 1)
	if _, err := a.Read(make([]byte, 1)); err == nil {
		t.Error("a connection is accepted after shutdown")
	}
	if h.server.AsyncEvent(s.ID, 0, wire.AsyncSCSI, nil) || h.server.Drop(s.ID) {
		t.Error("the session is still there")
	}
}

// failing is a listener that fails twice, then goes on.
type failing struct {
	net.Listener
	mu   sync.Mutex
	left int
}

func (f *failing) Accept() (net.Conn, error) {
	f.mu.Lock()
	fail := f.left > 0
	f.left--
	f.mu.Unlock()
	if fail {
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

func TestServeSurvivesAcceptErrors(t *testing.T) {
	h := newHarness(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(&failing{Listener: l, left: 2}, 1) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	newClient(t, nc).login(normal()...)
	l.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
}

// TestDrop checks the asynchronous message before a session is dropped (RFC 7143 §11.9.1).
func TestDrop(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login()
	h.array.disk.hold = func(*scsi.Task) bool { return true }
	c.tur()
	settle(t, "execution", func() bool { return len(h.array.disk.order()) == 1 })
	if !h.server.Drop(h.server.Sessions()[0].ID) {
		t.Error("no such session")
	}
	if p := c.recv(wire.OpAsync); p.AsyncEvent() != wire.AsyncDropSession {
		t.Errorf("async % x", p.BHS)
	}
	c.ended()
	settle(t, "the end of the session", func() bool { return len(h.server.Sessions()) == 0 })
	if !h.array.disk.closed {
		t.Error("the nexus is still open")
	}
}

// TestDropDeaf checks that an initiator that does not read can be dropped too.
func TestDropDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, Config{})
		c := h.dial()
		if p := c.loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal()...); !p.Final() {
			t.Fatal("login failed")
		}
		synctest.Wait()
		h.server.Drop(h.server.Sessions()[0].ID)
		time.Sleep(dismissTime + time.Second)
		synctest.Wait()
		if n := len(h.server.Sessions()); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

// TestLoginTimeout checks that a half-open connection is closed after the login timeout.
func TestLoginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, Config{})
		c := h.dial()
		began := time.Now()
		if _, err := c.nc.Read(make([]byte, 1)); err == nil {
			t.Error("the connection goes on")
		}
		if d := time.Since(began); d != 15*time.Second {
			t.Errorf("closed after %v", d)
		}
		// The same in the middle of a login.
		c = h.dial()
		c.loginPDU(wire.StageOperational, wire.StageFullFeature, false, normal()...)
		if _, err := c.nc.Read(make([]byte, 1)); err == nil {
			t.Error("the connection goes on")
		}
	})
}

// TestIdlePing checks NOP-In pings on silent connections (RFC 7143 §11.19).
func TestIdlePing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, Config{})
		c := h.login()
		began := time.Now()
		for i := range 3 {
			select {
			case p := <-c.in:
				if p.Opcode() != wire.OpNOPIn || p.ITT() != wire.NoTag || p.TTT() == wire.NoTag {
					t.Fatalf("got % x", p.BHS)
				}
				if d := time.Since(began); d < 29*time.Second || d > 33*time.Second {
					t.Errorf("ping %d after %v", i, d)
				}
				began = time.Now()
				if i < 2 {
					c.send(&wire.NOPOut{Immediate: true, ITT: wire.NoTag, TTT: p.TTT(), CmdSN: c.cmdSN}, nil)
				}
			case <-time.After(2 * time.Minute):
				t.Fatal("no ping")
			}
		}
		if _, ok := <-c.in; ok {
			t.Error("something more comes")
		}
		if d := time.Since(began); d < 29*time.Second || d > 33*time.Second {
			t.Errorf("dropped %v after a ping without answer", d)
		}
		// A discovery session has no pings: it ends.
		d := h.discover()
		if _, ok := <-d.in; ok {
			t.Error("something comes in a silent discovery session")
		}
	})
}

// TestStuckPeer checks that an initiator that does not read costs only itself.
func TestStuckPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, Config{OutputLimit: 1 << 20})
		c := h.dial()
		c.loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal()...)
		go func() {
			for range 100 {
				c.read(0, 256)
			}
		}()
		other := h.dial()
		other.isid = wire.RandomISID(9, 9)
		other.login(normal()...)
		other.good(other.tur())
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if n := h.server.Sessions(); len(n) != 1 || n[0].TSIH != other.tsih {
			t.Errorf("sessions %+v", n)
		}
	})
}

// TestReadBudget checks that reads which would hold too much memory get TASK
// SET FULL, and that one is always taken.
func TestReadBudget(t *testing.T) {
	h := newHarness(t, Config{ReadBudget: 256 << 10})
	c := h.login("MaxRecvDataSegmentLength=262144")
	d := h.array.disk
	d.hold = func(*scsi.Task) bool { return true }
	for range 4 {
		c.read(0, 128)
	}
	itt := c.read(0, 128)
	if p := c.recv(wire.OpSCSIResponse); p.ITT() != itt || scsi.Status(p.Status()) != scsi.StatusTaskSetFull {
		t.Errorf("response % x", p.BHS)
	}
	c.manage(scsi.AbortTask, 0, itt-1, 0)
	c.read(0, 128)
	settle(t, "execution", func() bool { return len(d.order()) == 5 })
	d.letGo()
	for range 4 {
		c.recv(wire.OpDataIn)
	}
	c.good(c.tur())
	c.read(0, 1024)
	for range 2 {
		c.recv(wire.OpDataIn)
	}
}

// TestStuckWithCompletions checks backpressure where commands complete on
// other goroutines while the peer does not read.
func TestStuckWithCompletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, Config{OutputLimit: 256 << 10, QueueDepth: 64})
		c := h.dial()
		c.loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal("MaxRecvDataSegmentLength=262144")...)
		d := h.array.disk
		d.hold = func(task *scsi.Task) bool {
			go d.run(task)
			return true
		}
		go func() {
			for range 64 {
				c.read(0, 128)
				synctest.Wait()
			}
		}()
		time.Sleep(time.Second)
		if n := len(d.order()); n < 1 || n > 10 { // 1 where the reader sends the first response itself
			t.Errorf("%d commands were executed while nothing could be sent", n)
		}
		c.receive()
		for range 64 {
			c.recv(wire.OpDataIn)
		}
		d.mu.Lock()
		d.held = nil
		d.mu.Unlock()
	})
}

// TestDataTimeout checks that a command whose data does not come, or comes in driblets, ends the
// connection, and that each command has the whole time for its own (RFC 7143 §4.2.5.2).
func TestDataTimeout(t *testing.T) {
	const unit = 4
	for name, test := range map[string]struct {
		keys   []string
		write  func(c *client) wire.DataOut // begins a command and returns the first Data-Out
		silent bool
		after  time.Duration
	}{
		"no data": {[]string{"ImmediateData=No"}, func(c *client) wire.DataOut {
			c.writeCmd(0, 8, true, nil)
			c.recv(wire.OpR2T)
			return wire.DataOut{}
		}, true, 60 * time.Second},
		"solicited": {[]string{"ImmediateData=No"}, func(c *client) wire.DataOut {
			itt := c.writeCmd(0, 8, true, nil)
			return wire.DataOut{ITT: itt, TTT: c.recv(wire.OpR2T).TTT()}
		}, false, 60 * time.Second},
		"unsolicited": {[]string{"InitialR2T=No"}, func(c *client) wire.DataOut {
			return wire.DataOut{ITT: c.writeCmd(0, 8, false, nil), TTT: wire.NoTag}
		}, false, 60 * time.Second},
		"R2T after unsolicited": {[]string{"InitialR2T=No", "FirstBurstLength=512"}, func(c *client) wire.DataOut {
			itt := c.writeCmd(0, 8, false, nil)
			time.Sleep(40 * time.Second)
			c.send(&wire.DataOut{Final: true, ITT: itt, TTT: wire.NoTag}, make([]byte, 512))
			return wire.DataOut{ITT: itt, TTT: c.recv(wire.OpR2T).TTT(), BufferOffset: 512}
		}, false, 100 * time.Second},
		"NOP-Out behind a gap": {nil, func(c *client) wire.DataOut {
			c.send(&wire.NOPOut{ITT: 1, TTT: wire.NoTag, CmdSN: c.cmdSN + 1}, make([]byte, 4096))
			return wire.DataOut{}
		}, true, 60 * time.Second},
		"behind a gap": {nil, func(c *client) wire.DataOut {
			c.cmdSN++
			c.writeCmd(0, 8, true, make([]byte, 512))
			return wire.DataOut{}
		}, true, 60 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, Config{PingInterval: time.Hour})
				c := h.login(test.keys...)
				began := time.Now()
				d := test.write(c)
				for range 200 {
					time.Sleep(time.Second)
					if len(h.server.Sessions()) == 0 {
						break
					}
					if !test.silent {
						c.send(&d, make([]byte, unit))
						d.DataSN++
						d.BufferOffset += unit
					}
				}
				c.ended()
				if d := time.Since(began); d < test.after-time.Second || d > test.after+3*time.Second {
					t.Errorf("dropped after %v", d)
				}
			})
		})
	}
	t.Run("one command after another", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, Config{PingInterval: time.Hour})
			c := h.login("ImmediateData=No")
			for range 3 {
				itt := c.writeCmd(0, 8, true, nil)
				r := c.recv(wire.OpR2T)
				time.Sleep(50 * time.Second)
				c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r.TTT()}, make([]byte, 8*512))
				c.good(itt)
			}
		})
	})
}

// TestLimits checks refusals for lack of room (RFC 7143 §11.13.5).
func TestLimits(t *testing.T) {
	h := newHarness(t, Config{MaxSessions: 1})
	a := h.login()
	b := h.dial()
	b.isid = wire.RandomISID(2, 2)
	if p := b.loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal()...); p.LoginStatus() != wire.LoginOutOfResources || p.Final() || len(p.data) != 0 {
		t.Errorf("login: %s", p.LoginStatus())
	}
	a.nc.Close()
	settle(t, "the end of the session", func() bool { return len(h.server.Sessions()) == 0 })
	h.array.openErr = Refuse(wire.LoginServiceUnavailable, "not now")
	c := h.dial()
	if p := c.loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal()...); p.LoginStatus() != wire.LoginServiceUnavailable {
		t.Errorf("login: %s", p.LoginStatus())
	}
	h.array.openErr = nil
	h.login()

	s := &Server{tsihs: map[uint16]struct{}{}}
	for i := range 1 << 16 {
		s.tsihs[uint16(i)] = struct{}{}
	}
	if s.newTSIHLocked() != 0 {
		t.Error("a handle is given twice")
	}
	delete(s.tsihs, 77)
	if n := s.newTSIHLocked(); n != 77 {
		t.Errorf("handle %d, want the free one", n)
	}
}

// TestHalfOpen checks that ten thousand half-open connections do not keep an
// initiator out.
func TestHalfOpen(t *testing.T) {
	h := newHarness(t, Config{MaxPendingLogins: 256})
	for range 10_000 {
		h.dial()
	}
	h.server.mu.Lock()
	n := h.server.pending.Len()
	h.server.mu.Unlock()
	if n > 256 {
		t.Errorf("%d are pending", n)
	}
	c := h.login()
	c.good(c.tur())
}

// TestLoginFlood checks many logins at once, each with its own session.
func TestLoginFlood(t *testing.T) {
	h := newHarness(t, Config{})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			c := h.dial()
			c.isid = wire.RandomISID(uint32(i), 1)
			c.login(normal()...)
			c.good(c.tur())
		})
	}
	wg.Wait()
	if n := len(h.server.Sessions()); n != 200 {
		t.Errorf("%d sessions", n)
	}
}

// TestShutdownTimeout checks that sessions whose initiators do not log out are dropped.
func TestShutdownTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, Config{})
		c := h.login()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := h.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		c.recv(wire.OpAsync)
		c.ended()
	})
}

// What an administrator has to know of, that a host is kept out and why, is a warning.
func TestRefusalIsWarned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := newHarness(t, Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		h.array.only(nil)
		if p := h.dial().loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal()...); p.LoginStatus() != wire.LoginForbidden {
			t.Errorf("login status %s", p.LoginStatus())
		}
		synctest.Wait()
		if !strings.Contains(log.String(), "iSCSI login refused") || !strings.Contains(log.String(), testInitiator) || !strings.Contains(log.String(), "nobody is let in") {
			t.Errorf("log %q", log.String())
		}
	})
}
