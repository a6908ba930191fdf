package nvme_test

import (
	"testing"
	"testing/synctest"
	"time"

	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/nvme/dhchap"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	wire "lintel.io/lintel/internal/wire/nvme"
)

func secret(v byte) dhchap.Secret { return dhchap.Secret{Key: fill(32, v), Transform: dhchap.SHA256} }

func authentication(kind uint8, out []byte, in int) Command {
	cmd := Fabrics(kind)
	cmd.Out, cmd.In = out, in
	cmd.Change = func(e wire.SQE) {
		e[41], e[42], e[43] = 1, 1, 0xE9
		e.SetCDW(11, uint32(max(len(out), in)))
	}
	return cmd
}

// authenticate runs an exchange on a queue and returns the host's verdict.
func authenticate(t *testing.T, q *Conn, c dhchap.HostConfig) error {
	t.Helper()
	c.SubNQN = NQN
	h := dhchap.NewHost(c)
	for b := h.Start(); b != nil; {
		q.Good(authentication(wire.AuthenticationSend, b, 0))
		if h.Done() {
			return nil
		}
		r := q.Good(authentication(wire.AuthenticationReceive, nil, 4096))
		var err error
		if b, err = h.Receive(r.Data); err != nil {
			if b != nil {
				q.Good(authentication(wire.AuthenticationSend, b, 0))
			}
			return err
		}
	}
	return nil
}

// TestAuthentication checks DH-HMAC-CHAP of admin and I/O queues (NVMe Base 2.0 §8.13).
func TestAuthentication(t *testing.T) {
	b := New(t, Config{})
	host := NewHost("a")
	b.Access.SetGrant(host.NQN, nvme.Grant{HostKey: secret(1), ControllerKey: secret(2)})
	good := dhchap.HostConfig{HostNQN: host.NQN, HostKey: secret(1), Transaction: 1}
	mutual := good
	mutual.ControllerKey, mutual.Groups = secret(2), []dhchap.Group{dhchap.FFDHE2048}
	for _, c := range []dhchap.HostConfig{good, mutual} {
		q := b.Dial()
		asksNothing(t, q, Write(1, 0, fill(4096, 1), 512), wire.CommandSequenceError.DNR())
		r := q.Good(Connect{Host: host}.Command())
		asksNothing(t, q, Command{Opcode: wire.AdminSetFeatures, Out: fill(4096, 0)}, wire.AuthenticationRequired.DNR())
		if r.Result[0]>>17&1 != 1 {
			t.Fatal("no authentication is demanded")
		}
		id := uint16(r.Result[0])
		q.Fails(PropertyGet(wire.PropertyCAP, 8), wire.AuthenticationRequired.DNR())
		q.Fails(Identify(wire.CNSController, 0), wire.AuthenticationRequired.DNR())
		if b.Access.Opened() != 0 {
			t.Error("open before the host has proved itself")
		}
		if q.Queue.Controller().Authenticated() {
			t.Error("authenticated before the host has proved itself")
		}
		if err := authenticate(t, q, c); err != nil {
			t.Fatal(err)
		}
		if !q.Queue.Controller().Authenticated() {
			t.Error("not authenticated")
		}
		q.Good(PropertySet(wire.PropertyCC, Enabled))
		io := b.Dial()
		io.Good(Connect{Host: host, QueueID: 1, Controller: id}.Command())
		io.Fails(Read(1, 0, 1, 512), wire.AuthenticationRequired.DNR())
		asksNothing(t, io, Write(1, 0, fill(1<<20, 1), 512), wire.AuthenticationRequired.DNR())
		first, second := pair(0, fill(512, 0), fill(512, 1))
		pairRun{io.Start(first), io.Start(second)}.want(t, wire.AuthenticationRequired.DNR(), wire.AbortedFailedFused.DNR())
		if err := authenticate(t, io, c); err != nil {
			t.Fatal(err)
		}
		io.Good(Read(1, 0, 1, 512))
		c.Transaction = 2 // authentication again
		if err := authenticate(t, io, c); err != nil {
			t.Fatal(err)
		}
		io.Good(Read(1, 0, 1, 512))
		io.Close()
		q.Close()
	}
}

// asksNothing runs a command with data that the controller has to refuse before it has got any.
func asksNothing(t *testing.T, q *Conn, cmd Command, want wire.Status) {
	t.Helper()
	call := q.Arrive(cmd)
	if n := len(call.DataOut); n != 0 {
		t.Errorf("the controller asks for %d bytes", n)
	}
	q.Execute(call)
	if r := call.Wait(); r.Status != want {
		t.Errorf("status %s, want %s", r.Status, want)
	}
}

// TestAuthenticationFailure checks wrong secrets and commands (NVMe Base 2.0 §6.1, §6.2, §8.13).
func TestAuthenticationFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(t, Config{})
		host := NewHost("a")
		b.Access.SetGrant(host.NQN, nvme.Grant{HostKey: secret(1), ControllerKey: secret(2)})
		good := dhchap.HostConfig{HostNQN: host.NQN, HostKey: secret(1), Groups: []dhchap.Group{dhchap.Null}}
		wrong, impostor := good, good
		wrong.HostKey = secret(9)
		impostor.ControllerKey = secret(9)
		for _, c := range []dhchap.HostConfig{wrong, impostor} {
			q := b.Dial()
			q.Good(Connect{Host: host}.Command())
			if err := authenticate(t, q, c); err == nil {
				t.Fatal("authenticated with a wrong secret")
			}
			<-q.Ended()
		}
		q := b.Dial()
		q.Good(Connect{Host: host}.Command())
		bad := authentication(wire.AuthenticationReceive, nil, 4096)
		q.Fails(bad, wire.CommandSequenceError.DNR())
		bad.Change = func(e wire.SQE) {}
		q.Fails(bad, wire.InvalidField.DNR())
		bad.Change = func(e wire.SQE) { e[41], e[42], e[43] = 1, 1, 0xE9 }
		q.Fails(bad, wire.SGLLengthInvalid.DNR())
		q.Good(authentication(wire.AuthenticationSend, dhchap.NewHost(good).Start(), 0))
		q.Fails(authentication(wire.AuthenticationReceive, nil, 16), wire.SGLLengthInvalid.DNR())
		start := time.Now()
		<-q.Ended() // it never proves itself
		if d := time.Since(start); d != time.Minute {
			t.Errorf("ended after %s", d)
		}
		open := b.Dial()
		open.Good(Connect{Host: NewHost("b")}.Command())
		open.Fails(authentication(wire.AuthenticationReceive, nil, 4096), wire.CommandSequenceError.DNR())
		b.Dial().Fails(authentication(wire.AuthenticationReceive, nil, 4096), wire.CommandSequenceError.DNR())
	})
}

// TestAuthenticationOneAtATime checks that a host with several messages under way waits for
// nothing, and occupies the controller with one alone (NVMe Base 2.0 §8.13).
func TestAuthenticationOneAtATime(t *testing.T) {
	b := New(t, Config{})
	host := NewHost("a")
	b.Access.SetGrant(host.NQN, nvme.Grant{HostKey: secret(1)})
	config := dhchap.HostConfig{HostNQN: host.NQN, SubNQN: NQN, HostKey: secret(1), Groups: []dhchap.Group{dhchap.Null}}
	q := b.Dial()
	q.Good(Connect{Host: host}.Command())
	for range cap(nvme.Computing) {
		nvme.Computing <- struct{}{}
	}
	send := authentication(wire.AuthenticationSend, dhchap.NewHost(config).Start(), 0)
	first, second := q.Start(send), q.Start(send)
	receive := make(chan *Call)
	go func() { receive <- q.Start(authentication(wire.AuthenticationReceive, nil, 4096)) }()
	third := <-receive
	for range cap(nvme.Computing) {
		<-nvme.Computing
	}
	if s := first.Wait().Status; !s.OK() {
		t.Errorf("the first message: %s", s)
	}
	for _, c := range []*Call{second, third} {
		if s := c.Wait().Status; s != wire.CommandSequenceError.DNR() {
			t.Errorf("a message while another is under way: %s", s)
		}
	}
	if err := authenticate(t, q, config); err == nil {
		t.Error("a second exchange begins within the first")
	}
}

// TestAuthenticationAgainFails checks that a queue whose host fails to authenticate again
// ends, though the host does not ask for the outcome (NVMe Base 2.0 §8.13).
func TestAuthenticationAgainFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(t, Config{})
		host := NewHost("a")
		b.Access.SetGrant(host.NQN, nvme.Grant{HostKey: secret(1)})
		q := b.Dial()
		q.Good(Connect{Host: host}.Command())
		config := dhchap.HostConfig{HostNQN: host.NQN, HostKey: secret(1), Groups: []dhchap.Group{dhchap.Null}}
		if err := authenticate(t, q, config); err != nil {
			t.Fatal(err)
		}
		q.Good(authentication(wire.AuthenticationSend, make([]byte, 64), 0))
		q.Fails(PropertyGet(wire.PropertyCAP, 8), wire.AuthenticationRequired.DNR())
		<-q.Ended()
	})
}

// TestAuthenticationReplay checks that the messages of an exchange that was heard prove
// nothing on another connection, and that a connection may end after each of
// them (NVMe Base 2.0 §8.13.5).
func TestAuthenticationReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(t, Config{})
		host := NewHost("a")
		b.Access.SetGrant(host.NQN, nvme.Grant{HostKey: secret(1), ControllerKey: secret(2)})
		config := dhchap.HostConfig{HostNQN: host.NQN, SubNQN: NQN, HostKey: secret(1), ControllerKey: secret(2), Groups: []dhchap.Group{dhchap.Null}}
		connect := func() *Conn {
			q := b.Dial()
			q.Good(Connect{Host: host}.Command())
			return q
		}
		send := func(b []byte) Command { return authentication(wire.AuthenticationSend, b, 0) }
		receive := authentication(wire.AuthenticationReceive, nil, 4096)
		for messages := range 5 {
			q, h := connect(), dhchap.NewHost(config)
			next := h.Start()
			for n := range messages {
				if n%2 == 0 {
					q.Good(send(next))
					continue
				}
				var err error
				if next, err = h.Receive(q.Good(receive).Data); err != nil {
					t.Fatal(err)
				}
			}
			q.Close()
		}
		q, h := connect(), dhchap.NewHost(config)
		negotiate := h.Start()
		q.Good(send(negotiate))
		reply, err := h.Receive(q.Good(receive).Data)
		if err != nil {
			t.Fatal(err)
		}
		q.Good(send(reply))
		if _, err := h.Receive(q.Good(receive).Data); err != nil {
			t.Fatal(err)
		}
		thief := connect()
		thief.Good(send(negotiate))
		thief.Good(receive)
		thief.Good(send(reply))
		if d := thief.Good(receive).Data; d[1] != 0xF1 { // AUTH_Failure1
			t.Errorf("the answer to a replay is % X", d[:8])
		}
		thief.Fails(PropertyGet(wire.PropertyCAP, 8), wire.AuthenticationRequired.DNR())
		<-thief.Ended()
		q.Close()
		if n := len(b.Subsystem.Controllers()); n != 0 {
			t.Errorf("%d controllers are left", n)
		}
	})
}

// TestFailedConnectLeavesQueue checks that a Connect that fails grants nothing to the next one
// on its connection, nor demands anything of it (NVMe Base 2.0 §6.3).
func TestFailedConnectLeavesQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(t, Config{})
		open, keyed := b.Attach("open"), NewHost("keyed")
		grant := nvme.Grant{HostKey: secret(1)}
		b.Access.SetGrant(keyed.NQN, grant)
		busy := Connect{Host: open.Host, QueueID: 1, Controller: open.ID}.Command()

		q := b.Dial()
		q.Fails(busy, wire.CommandSequenceError)
		if r := q.Good(Connect{Host: keyed}.Command()); r.Result[0]>>17&1 != 1 {
			t.Error("no authentication is demanded")
		}
		q.Fails(PropertyGet(wire.PropertyCAP, 8), wire.AuthenticationRequired.DNR())
		q.Fails(Identify(wire.CNSController, 0), wire.AuthenticationRequired.DNR())

		b.Access.SetGrant(open.Host.NQN, grant)
		q = b.Dial()
		if r := q.Fails(busy, wire.CommandSequenceError); r.Result[0] != 0 {
			t.Errorf("the result of a failed Connect is %#x", r.Result[0])
		}
		b.Access.SetGrant(open.Host.NQN, nvme.Grant{})
		if r := q.Good(Connect{Host: open.Host, QueueID: 2, Controller: open.ID}.Command()); r.Result[0] != uint32(open.ID) {
			t.Errorf("the result is %#x", r.Result[0])
		}
		q.Good(Read(1, 0, 1, 512))
		q.Fails(authentication(wire.AuthenticationReceive, nil, 4096), wire.CommandSequenceError.DNR())
	})
}
