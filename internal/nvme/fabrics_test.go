package nvme_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/nvme/dhchap"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// TestConnect checks Connect and its refusals (NVMe Base 2.0 §6.3).
func TestConnect(t *testing.T) {
	b := New(t, Config{})
	host := NewHost("a")
	good := Connect{Host: host}
	invalid := wire.ConnectInvalidParameters.DNR()
	const inData = 1 << 16
	for _, c := range []struct {
		name   string
		cmd    Command
		status wire.Status
		result uint32
	}{
		{"unknown subsystem", Connect{Host: host, SubNQN: "nqn.2026-11.io.lintel:other"}.Command(), invalid, inData | 256},
		{"no subsystem", Connect{Host: host, SubNQN: "x"}.Command(), invalid, inData | 256},
		{"no host", Connect{Host: Host{NQN: "host", ID: host.ID}}.Command(), invalid, inData | 512},
		{"no host id", Connect{Host: Host{NQN: host.NQN}}.Command(), invalid, inData},
		{"controller id", edit(good.Command(), func(c *Command) { c.Out[16] = 1 }), invalid, inData | 16},
		{"short admin queue", Connect{Host: host, Depth: 31}.Command(), invalid, 44},
		{"long queue", Connect{Host: host, Depth: 1025}.Command(), invalid, 44},
		{"queue of unknown controller", Connect{Host: host, QueueID: 1, Controller: 77}.Command(), wire.ConnectInvalidParameters, inData | 16},
		{"queue for discovery", Connect{Host: host, SubNQN: DiscoveryNQN, QueueID: 1, Controller: 1}.Command(), invalid, 42},
		{"queue id", Connect{Host: host, QueueID: 129, Controller: 1}.Command(), invalid, 42},
		{"format", edit(good.Command(), func(c *Command) { c.CDW[0] = 1 }), wire.ConnectIncompatibleFormat.DNR(), 0},
		{"short data", edit(good.Command(), func(c *Command) { c.Out = c.Out[:1000] }), wire.SGLLengthInvalid.DNR(), 0},
		{"endless name", edit(good.Command(), func(c *Command) { copy(c.Out[256:], fill(256, 'a')) }), invalid, inData | 256},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := b.Dial().Fails(c.cmd, c.status); r.Result[0] != c.result {
				t.Errorf("result %#x, want %#x", r.Result[0], c.result)
			}
		})
	}
	if n := len(b.Subsystem.Controllers()); n != 0 {
		t.Fatalf("%d controllers are left", n)
	}

	q := b.Dial()
	q.Fails(Identify(wire.CNSController, 0), wire.CommandSequenceError.DNR())
	q.Fails(PropertyGet(wire.PropertyCAP, 8), wire.CommandSequenceError.DNR())
	if q.Queue.Depth() != 2 || !q.Queue.FlowControl() || q.Queue.Controller() != nil {
		t.Error("a queue before Connect")
	}
	noFlow := good
	noFlow.NoFlow, noFlow.Depth = true, 64
	q.Good(noFlow.Command())
	if q.Queue.Depth() != 64 || q.Queue.FlowControl() || q.Queue.ID() != 0 {
		t.Error("the queue does not know its size or flow control")
	}
	info := q.Queue.Controller().Info()
	if info.HostNQN != host.NQN || info.HostID != host.ID || info.SubNQN != NQN || info.ID == 0 || info.Port != 1 {
		t.Errorf("the controller is %+v", info)
	}
	q.Fails(good.Command(), wire.CommandSequenceError.DNR())
}

func edit(c Command, f func(*Command)) Command { f(&c); return c }

// TestConnectAccess checks who may connect (NVMe Base 2.0 §6.3).
func TestConnectAccess(t *testing.T) {
	b := New(t, Config{Subsystem: func(c *nvme.Config) { c.FirstController, c.LastController = 10, 11 }})
	host := NewHost("a")
	b.Access.Refuse(host.NQN, errors.New("unknown"))
	b.Dial().Fails(Connect{Host: host}.Command(), wire.ConnectInvalidHost)
	b.Access.Refuse(host.NQN, &nvme.Refusal{Status: wire.ConnectControllerBusy, Reason: "later"})
	b.Dial().Fails(Connect{Host: host}.Command(), wire.ConnectControllerBusy)
	b.Access.Refuse(host.NQN, &nvme.Refusal{Status: wire.ConnectInvalidParameters, Reason: "no"})
	if r := b.Dial().Fails(Connect{Host: host}.Command(), wire.ConnectInvalidParameters); r.Result[0] != 1<<16|256 {
		t.Errorf("result %#x", r.Result[0])
	}
	b.Access.Refuse(host.NQN, nil)
	b.Access.FailOpen(errors.New("gone"))
	q := b.Dial()
	q.Fails(Connect{Host: host}.Command(), wire.ConnectInvalidHost)
	b.Access.FailOpen(nil)
	if b.Access.Opened() != 0 {
		t.Error("a controller is open that was refused")
	}

	x, y := b.AttachAdmin(Connect{Host: host}), b.AttachAdmin(Connect{Host: host})
	if x.ID < 10 || x.ID > 11 || y.ID < 10 || y.ID > 11 || x.ID == y.ID {
		t.Errorf("controllers %d and %d", x.ID, y.ID)
	}
	b.Dial().Fails(Connect{Host: host}.Command(), wire.ConnectControllerBusy)
	x.Close()
	z := b.AttachAdmin(Connect{Host: host})
	if z.ID != x.ID {
		t.Errorf("controller %d, want the free %d", z.ID, x.ID)
	}
	if b.Access.Opened() != 2 {
		t.Errorf("%d controllers are open", b.Access.Opened())
	}
}

// TestConnectIO checks the Connect of I/O queues (NVMe Base 2.0 §6.3).
func TestConnectIO(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	invalid := wire.ConnectInvalidParameters.DNR()
	gone := wire.ConnectInvalidParameters // the association may have been another
	io := Connect{Host: a.Host, QueueID: 2, Controller: a.ID}
	other := NewHost("b")
	foreign := io
	foreign.Host.ID = other.ID
	if r := b.Dial().Fails(foreign.Command(), gone); r.Result[0] != 1<<16 {
		t.Errorf("foreign host id: %#x", r.Result[0])
	}
	foreign = io
	foreign.Host.NQN = other.NQN
	if r := b.Dial().Fails(foreign.Command(), gone); r.Result[0] != 1<<16|512 {
		t.Errorf("foreign host: %#x", r.Result[0])
	}
	foreign = io
	foreign.SubNQN = DiscoveryNQN
	if r := b.Dial().Fails(foreign.Command(), invalid); r.Result[0] != 42 {
		t.Errorf("foreign subsystem: %#x", r.Result[0])
	}
	again := io
	again.QueueID = 1
	b.Dial().Fails(again.Command(), wire.CommandSequenceError)
	a.Admin.Fails(SetFeature(wire.FeatureQueues, 0, 3<<16|3), wire.CommandSequenceError.DNR())
	a.IO.Fails(PropertyGet(wire.PropertyCAP, 8), wire.InvalidField.DNR())
	a.IO.Close()
	a.IO = a.Queue(1)
	a.IO.Good(Read(1, 0, 1, 512))
	if a.Controller().Queues() != 2 {
		t.Errorf("%d queues", a.Controller().Queues())
	}

	fresh := b.AttachAdmin(Connect{Host: other})
	if r := fresh.Admin.Good(SetFeature(wire.FeatureQueues, 0, 500<<16|1)); r.Result[0] != 1<<16|1 {
		t.Errorf("number of queues %#x", r.Result[0])
	}
	io = Connect{Host: other, QueueID: 3, Controller: fresh.ID}
	if r := b.Dial().Fails(io.Command(), invalid); r.Result[0] != 42 {
		t.Errorf("queue beyond the number: %#x", r.Result[0])
	}
	idle := b.Dial()
	id := uint16(idle.Good(Connect{Host: other}.Command()).Result[0])
	b.Dial().Fails(Connect{Host: other, QueueID: 1, Controller: id}.Command(), wire.CommandSequenceError)
}

// TestConnectIOGone checks that a host whose association ends while it connects is told to
// try again, with the reason, and not that it is useless for ever (NVMe Base 2.0 §6.3).
func TestConnectIOGone(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	for _, end := range []struct {
		name   string
		do     func(*Association)
		status wire.Status
	}{
		{"queues lost", func(a *Association) { a.Close() }, wire.ConnectInvalidParameters},
		{"ended by the array", func(a *Association) {
			a.Controller().Kill(errors.New("keys"))
			<-a.Admin.Ended()
			<-a.IO.Ended()
		}, wire.ConnectInvalidParameters},
		{"ending, with a command under way", func(a *Association) {
			dev.holdBack()
			a.IO.Start(Write(1, 0, fill(512, 1), 512))
			a.Admin.Close()
		}, wire.CommandSequenceError},
		{"shut down", func(a *Association) { a.Admin.Good(PropertySet(wire.PropertyCC, 1<<14)) }, wire.CommandSequenceError},
		{"reset", func(a *Association) { a.Admin.Good(PropertySet(wire.PropertyCC, 0)) }, wire.CommandSequenceError},
	} {
		t.Run(end.name, func(t *testing.T) {
			a := b.Attach("a")
			end.do(a)
			r := b.Dial().Fails(Connect{Host: a.Host, QueueID: 2, Controller: a.ID}.Command(), end.status)
			if end.status == wire.ConnectInvalidParameters && r.Result[0] != 1<<16|16 {
				t.Errorf("result %#x", r.Result[0])
			}
			dev.resume()
			a.Close()
			b.Attach("a").Close()
		})
	}
}

// TestConnectIOTerms checks that an I/O queue is let in on the terms of the admin queue alone:
// one NQN may be that of different hosts of the array (NVMe Base 2.0 §6.3).
func TestConnectIOTerms(t *testing.T) {
	b := New(t, Config{})
	host := NewHost("a")
	b.Access.SetGrant(host.NQN, nvme.Grant{Terms: "h1"})
	a := b.AttachAdmin(Connect{Host: host})
	a.IO = a.Queue(1)
	b.Access.SetGrant(host.NQN, nvme.Grant{Terms: "h2"})
	io := Connect{Host: host, QueueID: 2, Controller: a.ID}.Command()
	if r := b.Dial().Fails(io, wire.ConnectInvalidParameters); r.Result[0] != 1<<16|512 {
		t.Errorf("result %#x", r.Result[0])
	}
	b.Access.SetGrant(host.NQN, nvme.Grant{Terms: "h1"})
	b.Dial().Good(io)
	if a.Controller().Terms() != "h1" {
		t.Errorf("terms %v", a.Controller().Terms())
	}
}

// TestProperties checks Property Get and Set (NVMe Base 2.0 §3.1.3, §6.5, §6.6).
func TestProperties(t *testing.T) {
	b := New(t, Config{})
	q := b.Dial()
	q.Good(Connect{Host: NewHost("a")}.Command())
	capability := q.Good(PropertyGet(wire.PropertyCAP, 8)).Result
	if capability[0]&0xFFFF != 1023 || capability[0]>>16&1 != 1 || capability[1]>>5&1 != 1 {
		t.Errorf("CAP %#x", capability)
	}
	if v := q.Good(PropertyGet(wire.PropertyVS, 4)).Result[0]; v != 0x20000 {
		t.Errorf("VS %#x", v)
	}
	q.Good(PropertyGet(wire.PropertyCRTO, 4))
	q.Fails(PropertyGet(wire.PropertyCAP, 4), wire.InvalidField.DNR())
	q.Fails(PropertyGet(wire.PropertyNSSR, 4), wire.InvalidField.DNR())
	q.Fails(PropertyGet(0x1000, 4), wire.InvalidField.DNR())
	q.Fails(PropertySet(wire.PropertyCSTS, 0), wire.InvalidField.DNR())
	q.Fails(Fabrics(wire.Disconnect), wire.InvalidField.DNR())
	eight := PropertySet(wire.PropertyCC, Enabled)
	eight.CDW[0] = 1
	q.Fails(eight, wire.InvalidField.DNR())
	eight.CDW[0] = 5
	q.Fails(eight, wire.InvalidField.DNR())

	q.Fails(Identify(wire.CNSController, 0), wire.CommandSequenceError.DNR())
	status := func() uint32 { return q.Good(PropertyGet(wire.PropertyCSTS, 4)).Result[0] }
	if status() != 0 {
		t.Error("ready before it was enabled")
	}
	q.Good(PropertySet(wire.PropertyCC, Enabled))
	if status() != wire.CSTSReady {
		t.Errorf("CSTS %#x", status())
	}
	if v := q.Good(PropertyGet(wire.PropertyCC, 4)).Result[0]; v != Enabled {
		t.Errorf("CC %#x", v)
	}
	q.Good(PropertySet(wire.PropertyCC, Enabled|wire.CCShutdownNormal))
	if status() != wire.CSTSReady|wire.CSTSShutdownDone {
		t.Errorf("CSTS after shutdown %#x", status())
	}
	q.Good(PropertySet(wire.PropertyCC, 0))
	if status() != 0 {
		t.Errorf("CSTS after reset %#x", status())
	}
	q.Good(PropertySet(wire.PropertyCC, Enabled|1<<4))
	if status()&wire.CSTSFatal == 0 {
		t.Error("a wrong CC is taken")
	}
}

// TestReset checks a controller level reset with commands under way (NVMe Base 2.0 §3.7.2).
func TestReset(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a := b.Attach("a")
	aer := a.Admin.Start(Command{Opcode: wire.AdminAsyncEvent})
	dev.holdBack()
	defer dev.resume()
	w := a.IO.Start(Write(1, 0, fill(512, 1), 512))
	a.Admin.Good(PropertySet(wire.PropertyCC, 0))
	if a.Admin.Good(PropertyGet(wire.PropertyCSTS, 4)).Result[0] != wire.CSTSReady {
		t.Error("not ready while a write can still reach the device")
	}
	io := Connect{Host: a.Host, QueueID: 2, Controller: a.ID}.Command()
	b.Dial().Fails(io, wire.CommandSequenceError) // its writes would outlast the reset
	dev.resume()
	if r := w.Wait(); r.Status != wire.AbortedSQDeletion {
		t.Errorf("the write ended with %s", r.Status)
	}
	<-a.IO.Ended()
	if a.Admin.Good(PropertyGet(wire.PropertyCSTS, 4)).Result[0] != 0 {
		t.Error("still ready")
	}
	if r := aer.Wait(); r.Status != wire.AbortRequested {
		t.Errorf("the event request ended with %s", r.Status)
	}
	a.Admin.Good(PropertySet(wire.PropertyCC, Enabled))
	a.IO = a.Queue(1)
	a.IO.Good(Read(1, 0, 1, 512))
	a.Admin.Good(PropertySet(wire.PropertyCC, Enabled|wire.CCShutdownNormal))
	<-a.IO.Ended()
	b.Dial().Fails(io, wire.CommandSequenceError) // there is no I/O before a reset
}

// TestKeepAlive checks the keep alive timer (NVMe Base 2.0 §3.9).
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &failing{Device: block.NewMem(1 << 20)}
		b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
		a := b.AttachAdmin(Connect{Host: NewHost("a"), KeepAlive: 4950})
		a.IO = a.Queue(1)
		if v := a.Admin.Good(GetFeature(wire.FeatureKeepAlive, 0)).Result[0]; v != 5000 {
			t.Errorf("KATO %d ms", v)
		}
		for range 10 { // commands of any queue keep it alive
			time.Sleep(4 * time.Second)
			a.IO.Good(Read(1, 0, 1, 512))
			time.Sleep(4 * time.Second)
			a.Admin.Good(Command{Opcode: wire.AdminKeepAlive})
		}
		dev.holdBack()
		w := a.IO.Start(Write(1, 0, fill(512, 1), 512))
		start := time.Now()
		<-a.Admin.Killed()
		if d := time.Since(start); d < 5*time.Second || d > 10*time.Second {
			t.Errorf("expired after %s", d)
		}
		synctest.Wait()
		select {
		case <-a.IO.Ended():
			t.Error("the queue has ended with a write under way")
		default:
		}
		dev.resume()
		if r := w.Wait(); r.Status != wire.KeepAliveExpired {
			t.Errorf("the write ended with %s", r.Status)
		}
		<-a.IO.Ended()
		<-a.Admin.Ended()
		if len(b.Subsystem.Controllers()) != 0 || b.Access.Opened() != 0 || b.Units[0].Attached() != 0 {
			t.Error("the controller is still there")
		}

		a = b.AttachAdmin(Connect{Host: NewHost("a")})
		time.Sleep(time.Hour)
		a.Admin.Good(SetFeature(wire.FeatureKeepAlive, 0, 1000))
		<-a.Admin.Ended()
	})
}

// TestDiscoverySilence checks that discovery without a keep alive timer does not last for ever
// (NVMe Base 2.0 §3.9).
func TestDiscoverySilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(t, Config{})
		a := b.AttachAdmin(Connect{Host: NewHost("a"), SubNQN: DiscoveryNQN})
		for range 5 {
			time.Sleep(110 * time.Second)
			a.Admin.Good(GetLogPage(wire.LogDiscovery, 1024, 0))
		}
		a.Admin.Start(Command{Opcode: wire.AdminAsyncEvent})
		if v := a.Admin.Good(GetFeature(wire.FeatureKeepAlive, 0)).Result[0]; v != 0 {
			t.Errorf("KATO %d ms", v)
		}
		start := time.Now()
		<-a.Admin.Ended()
		if d := time.Since(start); d < 2*time.Minute || d > 4*time.Minute {
			t.Errorf("ended after %s", d)
		}
		a = b.AttachAdmin(Connect{Host: NewHost("a"), SubNQN: DiscoveryNQN, KeepAlive: 600_000})
		time.Sleep(9 * time.Minute)
		a.Admin.Good(SetFeature(wire.FeatureKeepAlive, 0, 0))
		<-a.Admin.Ended()
	})
}

// TestGuests checks that controllers for discovery, and of hosts that do not authenticate,
// leave room for the others, in all and from each address or IPv6 network, and that as many hosts may
// keep one for discovery as one for I/O (NVMe Base 2.0 §6.3).
func TestGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(t, Config{})
		keyed := NewHost("keyed")
		b.Access.SetGrant(keyed.NQN, nvme.Grant{HostKey: secret(1)})
		for _, like := range []struct {
			Connect
			each int
		}{{Connect{Host: keyed}, 32}, {Connect{Host: NewHost("a"), SubNQN: DiscoveryNQN}, 128}} {
			for i := range 8 {
				from := func(int) string { return fmt.Sprintf("192.0.2.%d", 10+i) }
				if i%2 == 1 { // an IPv6 network counts as one address
					from = func(n int) string { return fmt.Sprintf("2001:db8:0:%d::%x", i, n) }
				}
				for n := range like.each {
					b.DialFrom(from(n)).Good(like.Command())
				}
				b.DialFrom(from(like.each)).Fails(like.Command(), wire.ConnectControllerBusy)
			}
			b.DialFrom("192.0.2.99").Fails(like.Command(), wire.ConnectControllerBusy)
		}
		host := NewHost("b")
		for range 1024 - 256 {
			b.DialFrom("192.0.2.10").Good(Connect{Host: host}.Command())
		}
		b.DialFrom("192.0.2.98").Fails(Connect{Host: host}.Command(), wire.ConnectControllerBusy)
		time.Sleep(time.Minute + time.Second) // who has not authenticated is gone
		config := dhchap.HostConfig{HostNQN: keyed.NQN, HostKey: secret(1), Groups: []dhchap.Group{dhchap.Null}}
		for range 40 { // and who has counts no more
			q := b.DialFrom("192.0.2.10")
			q.Good(Connect{Host: keyed}.Command())
			if err := authenticate(t, q, config); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestQueueLoss checks the loss of connections (NVMe Base 2.0 §3.3.2).
func TestQueueLoss(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a := b.Attach("a")
	second := a.Queue(2)
	aer := a.Admin.Start(Command{Opcode: wire.AdminAsyncEvent})
	dev.holdBack()
	w := a.IO.Start(Write(1, 0, fill(512, 1), 512))
	closed := make(chan struct{})
	go func() { a.Admin.Close(); close(closed) }()
	<-closed
	if r := aer.Wait(); r.Status != wire.AbortedSQDeletion {
		t.Errorf("the event request ended with %s", r.Status)
	}
	<-second.Ended()
	if len(b.Subsystem.Controllers()) != 1 {
		t.Error("the controller is gone before its commands")
	}
	select {
	case <-a.IO.Ended():
		t.Error("the queue has ended with a write under way")
	default:
	}
	dev.resume()
	if r := w.Wait(); r.Status.OK() {
		t.Error("a write of a lost controller succeeded")
	}
	<-a.IO.Ended()
	if len(b.Subsystem.Controllers()) != 0 || b.Access.Opened() != 0 {
		t.Error("the controller is still there")
	}
}

// TestKill checks that the array can end an association (NVMe Base 2.0 §3.3.2).
func TestKill(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	c := a.Controller()
	c.Kill(errors.New("unmapped"))
	c.Kill(errors.New("again"))
	if err := <-a.IO.Killed(); err.Error() != "unmapped" {
		t.Error(err)
	}
	<-a.IO.Ended()
	<-a.Admin.Ended()
	c.SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}})
	if b.Units[0].Attached() != 0 {
		t.Error("an ended controller watches a unit")
	}
}
