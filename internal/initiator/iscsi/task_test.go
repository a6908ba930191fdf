package iscsi_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"lintel.io/lintel/internal/initiator/iscsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// submit sends a command that tells its end through the channel.
func submit(t *testing.T, s *iscsi.Session, cmd *iscsi.Command) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	if cmd.CDB == nil {
		cmd.CDB = read6
	}
	cmd.Done = func(cmd *iscsi.Command) { done <- cmd.Failure() }
	if err := s.Submit(cmd); err != nil {
		t.Fatal(err)
	}
	return done
}

// TestProtocolErrors checks that what a target may not send ends the session and every command in it.
func TestProtocolErrors(t *testing.T) {
	type answer func(p *peer, h wire.BHS)
	data := func(change func(*wire.DataIn), n int) answer {
		return func(p *peer, h wire.BHS) {
			f := &wire.DataIn{ITT: h.ITT(), TTT: wire.NoTag, Numbers: p.now()}
			change(f)
			p.send(f, make([]byte, n))
		}
	}
	for name, test := range map[string]struct {
		answer answer
		out    int
		want   error
	}{
		"unknown tag":    {answer: func(p *peer, h wire.BHS) { h.SetITT(h.ITT() ^ 1<<16); p.good(h) }},
		"far tag":        {answer: func(p *peer, h wire.BHS) { h.SetITT(0x7777); p.good(h) }},
		"response twice": {answer: func(p *peer, h wire.BHS) { p.good(h); p.good(h) }},
		"StatSN":         {answer: func(p *peer, h wire.BHS) { p.statSN++; p.good(h) }},
		"opcode":         {answer: func(p *peer, h wire.BHS) { p.send(&wire.NOPOut{ITT: h.ITT()}, nil) }},
		"login response": {answer: func(p *peer, h wire.BHS) { p.send(&wire.LoginResponse{ITT: h.ITT()}, nil) }},
		"ping of a command": {answer: func(p *peer, h wire.BHS) {
			p.send(&wire.NOPIn{ITT: h.ITT(), TTT: wire.NoTag, Numbers: p.numbers()}, nil)
		}},
		"data past the end":   {answer: data(func(f *wire.DataIn) { f.BufferOffset = 1 }, 512)},
		"data far away":       {answer: data(func(f *wire.DataIn) { f.BufferOffset = 1<<32 - 4 }, 512)},
		"DataSN":              {answer: data(func(f *wire.DataIn) { f.DataSN = 1 }, 4)},
		"data out of order":   {answer: data(func(f *wire.DataIn) { f.BufferOffset = 8 }, 4)},
		"data for a write":    {answer: data(func(*wire.DataIn) {}, 4), out: 512},
		"status without F":    {answer: data(func(f *wire.DataIn) { f.Flags = wire.FlagStatus }, 4)},
		"status and StatSN":   {answer: data(func(f *wire.DataIn) { f.Flags = wire.FlagStatus | wire.FlagFinal; f.Numbers.StatSN++ }, 4)},
		"large data":          {answer: data(func(*wire.DataIn) {}, 8193)},
		"R2T for a read":      {answer: r2t(func(*wire.R2T) {})},
		"R2T past the end":    {answer: r2t(func(f *wire.R2T) { f.BufferOffset = 8 }), out: 512},
		"R2T for nothing":     {answer: r2t(func(f *wire.R2T) { f.DesiredLength = 0 }), out: 512},
		"R2T without a tag":   {answer: r2t(func(f *wire.R2T) { f.TTT = wire.NoTag }), out: 512},
		"R2TSN":               {answer: r2t(func(f *wire.R2T) { f.R2TSN = 1 }), out: 512},
		"R2T StatSN":          {answer: r2t(func(f *wire.R2T) { f.Numbers.StatSN++ }), out: 512},
		"R2T unknown tag":     {answer: r2t(func(f *wire.R2T) { f.ITT++ }), out: 512},
		"Reject of nothing":   {answer: func(p *peer, _ wire.BHS) { p.send(&wire.Reject{Numbers: p.numbers()}, nil) }},
		"Reject StatSN":       {answer: func(p *peer, h wire.BHS) { p.send(&wire.Reject{Numbers: p.now()}, h[:48]); p.good(h) }},
		"async StatSN":        {answer: func(p *peer, h wire.BHS) { p.send(&wire.Async{Numbers: p.now()}, nil); p.good(h) }},
		"response of nothing": {answer: func(p *peer, _ wire.BHS) { p.send(&wire.TaskManagementResponse{ITT: 999, Numbers: p.numbers()}, nil) }},
		"closed":              {answer: func(p *peer, _ wire.BHS) { p.conn.Close() }, want: io.ErrUnexpectedEOF},
		"cut short":           {answer: func(p *peer, h wire.BHS) { p.write(p.pdu(&wire.SCSIResponse{ITT: h.ITT()}, nil)[:20]); p.conn.Close() }, want: io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t, func(p *peer) {
				p.login(pairs("ImmediateData", "No", "InitialR2T", "Yes")...)
				h, _ := p.expect(wire.OpSCSICommand)
				p.expect(wire.OpSCSICommand)
				test.answer(p, h)
				p.drain()
			})
			opts, op := d.options(), iscsi.DefaultOperational()
			op.MaxRecvDataSegmentLength = 8192
			opts.Operational = &op
			s := d.session(opts)
			cmd := &iscsi.Command{Out: make([]byte, test.out)}
			if test.out == 0 {
				cmd.In = make([]byte, 512)
			}
			first, second := submit(t, s, cmd), submit(t, s, &iscsi.Command{})
			<-first
			err := <-second
			if test.want == nil {
				test.want = iscsi.ErrProtocol
			}
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			<-s.Ended()
			if !errors.Is(s.Err(), test.want) {
				t.Errorf("session ended with %v", s.Err())
			}
			if err := s.Submit(cmd); !errors.Is(err, test.want) {
				t.Errorf("submitted to a dead session: %v", err)
			}
			if _, err := s.Connections()[0].Ping(d.context(), nil); !errors.Is(err, test.want) {
				t.Errorf("pinged a dead session: %v", err)
			}
		})
	}
}

func r2t(change func(*wire.R2T)) func(*peer, wire.BHS) {
	return func(p *peer, h wire.BHS) {
		f := &wire.R2T{ITT: h.ITT(), TTT: 1, Numbers: p.now(), DesiredLength: 512}
		change(f)
		p.send(f, nil)
	}
}

// TestDigestErrors checks that a wrong digest ends the session (RFC 7143 §7.8).
func TestDigestErrors(t *testing.T) {
	for name, damage := range map[string]func([]byte){
		"header":        func(b []byte) { b[9] ^= 1 },
		"header digest": func(b []byte) { b[48] ^= 1 },
		"data":          func(b []byte) { b[100] ^= 1 },
		"data digest":   func(b []byte) { b[len(b)-1] ^= 1 },
	} {
		for _, size := range []int{512, 200_000} {
			t.Run(fmt.Sprint(name, size), func(t *testing.T) {
				d := newTarget(t, func(p *peer) {
					p.login(digests...)
					h, _ := p.expect(wire.OpSCSICommand)
					b := p.pdu(&wire.DataIn{Flags: wire.FlagFinal | wire.FlagStatus, ITT: h.ITT(), Numbers: p.numbers()}, make([]byte, size))
					damage(b)
					_, _ = p.conn.Write(b) // the initiator may hang up before it has all
					p.drain()
				})
				opts, op := d.options(), iscsi.DefaultOperational()
				op.HeaderDigest, op.DataDigest = []string{"CRC32C"}, []string{"CRC32C"}
				opts.Operational = &op
				s := d.session(opts)
				if _, err := s.Do(d.context(), 0, read6, nil, size); !errors.Is(err, iscsi.ErrDigest) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

// TestAbort checks that a cancelled command is aborted with ABORT TASK (RFC 7143 §11.5).
func TestAbort(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := newTarget(t, func(p *peer) {
		p.login()
		h, _ := p.expect(wire.OpSCSICommand)
		cancel()
		m, _ := p.expect(wire.OpTaskManagement)
		if m.Function() != uint8(iscsi.AbortTask) || m.ReferencedTaskTag() != h.ITT() || m.RefCmdSN() != h.CmdSN() || m.LUN() != h.LUN() || !m.Immediate() {
			p.must(fmt.Errorf("wrong function: %x", []byte(m)))
		}
		p.send(&wire.TaskManagementResponse{ITT: m.ITT(), Numbers: p.numbers()}, nil)
		// An answer that crossed the abortion is harmless.
		p.good(h)
		h, _ = p.expect(wire.OpSCSICommand)
		p.good(h)
		p.drain()
	})
	s := d.session(d.options())
	if _, err := s.Do(ctx, iscsi.LUN(300), read6, nil, 512); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if r, err := s.Do(d.context(), 0, read6, nil, 512); err != nil || r.Status != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := s.Do(ctx, 0, read6, nil, 512); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestAbortRefused checks that a session ends whose target neither ends nor aborts a cancelled command.
func TestAbortRefused(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := newTarget(t, func(p *peer) {
		p.login()
		p.expect(wire.OpSCSICommand)
		cancel()
		m, _ := p.expect(wire.OpTaskManagement)
		p.send(&wire.TaskManagementResponse{Response: uint8(iscsi.FunctionNotSupported), ITT: m.ITT(), Numbers: p.numbers()}, nil)
		p.drain()
	})
	s := d.session(d.options())
	if _, err := s.Do(ctx, 0, read6, nil, 512); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-s.Ended()
}

// TestManage checks which commands a task management function ends (RFC 7143 §4.2.3.3, §11.6).
func TestManage(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.window = 3
		p.login()
		for range 3 {
			p.expect(wire.OpSCSICommand)
		}
		p.window = 0 // until there is room for the command that waits
		m, _ := p.expect(wire.OpTaskManagement)
		p.send(&wire.TaskManagementResponse{ITT: m.ITT(), Numbers: p.numbers()}, nil)
		m, _ = p.expect(wire.OpTaskManagement)
		p.send(&wire.TaskManagementResponse{Response: 255, ITT: m.ITT(), Numbers: p.numbers()}, nil)
		m, _ = p.expect(wire.OpTaskManagement)
		p.send(&wire.TaskManagementResponse{ITT: m.ITT(), Numbers: p.numbers()}, nil)
		p.drain()
	})
	s := d.session(d.options())
	a, b := iscsi.LUN(1), iscsi.LUN(2)
	one, two, three := submit(t, s, &iscsi.Command{LUN: a}), submit(t, s, &iscsi.Command{LUN: b}), submit(t, s, &iscsi.Command{LUN: a})
	late := &iscsi.Command{LUN: a}
	four := submit(t, s, late)
	if r, err := s.Manage(d.context(), iscsi.LogicalUnitReset, a, nil); r != iscsi.FunctionComplete || err != nil {
		t.Errorf("%d, %v", r, err)
	}
	for _, done := range []<-chan error{one, three} {
		if err := <-done; !errors.Is(err, iscsi.ErrAborted) {
			t.Errorf("got %v", err)
		}
	}
	if r, err := s.Manage(d.context(), iscsi.TargetColdReset, 0, nil); r != iscsi.FunctionRejected || err != nil {
		t.Errorf("%d, %v", r, err)
	}
	if r, err := s.Manage(d.context(), iscsi.AbortTask, 0, late); r != iscsi.FunctionComplete || err != nil {
		t.Errorf("%d, %v", r, err)
	}
	if err := <-four; !errors.Is(err, iscsi.ErrAborted) {
		t.Errorf("got %v", err)
	}
	if r, err := s.Manage(d.context(), iscsi.AbortTask, 0, late); r != iscsi.TaskDoesNotExist || err != nil {
		t.Errorf("%d, %v", r, err)
	}
	select {
	case err := <-two:
		t.Errorf("the command of another unit ended: %v", err)
	default:
	}
	if r, err := s.Manage(d.context(), iscsi.TargetWarmReset, 0, nil); r != iscsi.FunctionComplete || err != nil {
		t.Errorf("%d, %v", r, err)
	}
	if err := <-two; !errors.Is(err, iscsi.ErrAborted) {
		t.Errorf("got %v", err)
	}
}

// TestPing checks NOP-Out and NOP-In in both directions (RFC 7143 §11.18, §11.19).
func TestPing(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.login()
		p.send(&wire.NOPIn{ITT: wire.NoTag, TTT: wire.NoTag, Numbers: p.now()}, nil)
		p.send(&wire.NOPIn{LUN: 3, ITT: wire.NoTag, TTT: 77, Numbers: p.now()}, []byte("not echoed"))
		for range 2 { // the answer and the initiator's own, in any order
			h, data := p.expect(wire.OpNOPOut)
			if h.ITT() != wire.NoTag {
				p.send(&wire.NOPIn{ITT: h.ITT(), TTT: wire.NoTag, Numbers: p.numbers()}, data)
			} else if h.TTT() != 77 || h.LUN() != 3 || len(data) > 0 {
				p.must(fmt.Errorf("wrong answer: %x", []byte(h)))
			}
		}
		h, _ := p.expect(wire.OpNOPOut)
		p.send(&wire.Reject{Reason: wire.ReasonImmediate, Numbers: p.numbers()}, h[:48])
		p.drain()
	})
	s := d.session(d.options())
	c := s.Connections()[0]
	data, err := c.Ping(d.context(), []byte("hello"))
	if string(data) != "hello" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	var rejected *iscsi.RejectError
	if _, err := c.Ping(d.context(), nil); !errors.As(err, &rejected) || rejected.Reason != wire.ReasonImmediate || rejected.Opcode != wire.OpNOPOut {
		t.Errorf("got %v", err)
	}
	if _, err := c.Ping(d.context(), make([]byte, 8193)); !errors.Is(err, iscsi.ErrCommand) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Ping(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestReject checks rejected commands and data (RFC 7143 §11.17).
func TestReject(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.login()
		h, _ := p.expect(wire.OpSCSICommand)
		p.send(&wire.Reject{Reason: wire.ReasonProtocolError, Numbers: p.numbers()}, h[:48])
		h, _ = p.expect(wire.OpSCSICommand)
		bad := make(wire.BHS, 48)
		(&wire.DataOut{ITT: h.ITT()}).Put(bad)
		p.send(&wire.Reject{Reason: wire.ReasonDataDigest, Numbers: p.numbers()}, bad)
		p.good(h)
		p.expect(wire.OpSCSICommand)
		(&wire.NOPOut{ITT: wire.NoTag}).Put(bad)
		p.send(&wire.Reject{Reason: wire.ReasonInvalidField, Numbers: p.numbers()}, bad)
		p.drain()
	})
	s := d.session(d.options())
	var rejected *iscsi.RejectError
	if _, err := s.Do(d.context(), 0, read6, nil, 0); !errors.As(err, &rejected) || rejected.Reason != wire.ReasonProtocolError {
		t.Errorf("got %v", err)
	}
	if r, err := s.Do(d.context(), 0, read6, nil, 0); err != nil || r.Status != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := s.Do(d.context(), 0, read6, nil, 0); !errors.As(err, &rejected) || rejected.Reason != wire.ReasonInvalidField {
		t.Errorf("got %v", err)
	}
}

// TestAsync checks asynchronous messages and the logout that one may ask for (RFC 7143 §11.9).
func TestAsync(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.login()
		p.send(&wire.Async{LUN: 4, Numbers: p.numbers(), Event: wire.AsyncDropConnection, VCode: 1, Parameter1: 2, Parameter2: 3, Parameter3: 5}, []byte("text"))
		p.drain()
	})
	got := make(chan iscsi.AsyncMessage, 1)
	opts := d.options()
	opts.OnAsync = func(m iscsi.AsyncMessage) { got <- m }
	d.session(opts)
	m := <-got
	if m.Event != wire.AsyncDropConnection || m.VCode != 1 || m.LUN != 4 || m.Parameter1 != 2 || m.Parameter2 != 3 || m.Parameter3 != 5 || string(m.Data) != "text" {
		t.Errorf("%+v", m)
	}

	d = newTarget(t, func(p *peer) {
		p.login()
		p.send(&wire.Async{Numbers: p.numbers(), Event: wire.AsyncLogoutRequest, Parameter3: 1}, nil)
		h, _ := p.expect(wire.OpLogout)
		if h.Function() != wire.LogoutCloseSession {
			p.must(errors.New("wrong reason"))
		}
		p.send(&wire.LogoutResponse{ITT: h.ITT(), Numbers: p.numbers()}, nil)
	})
	s := d.session(d.options())
	<-s.Ended()
	if err := s.Err(); !errors.Is(err, iscsi.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

// TestLogout checks that a refused logout is told and ends the session all the same (RFC 7143 §11.15).
func TestLogout(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.login()
		h, _ := p.expect(wire.OpLogout)
		p.send(&wire.LogoutResponse{Response: wire.LogoutCleanupFailed, ITT: h.ITT(), Numbers: p.numbers()}, nil)
		p.drain()
	})
	s := d.session(d.options())
	if err := s.Logout(d.context()); err == nil {
		t.Error("the refusal was not told")
	}
	<-s.Ended()
	if err := s.Logout(d.context()); !errors.Is(err, iscsi.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestConnections checks a session of several connections with one command order (RFC 7143 §4.2.2.1).
func TestConnections(t *testing.T) {
	const commands = 100
	arrived := make(chan [2]uint32, commands)
	script := func(p *peer) {
		p.window = 1000
		for {
			h := make(wire.BHS, wire.HeaderSize)
			if _, err := io.ReadFull(p.conn, h); err != nil {
				return
			}
			arrived <- [2]uint32{h.CmdSN(), h.ITT()}
			p.good(h)
		}
	}
	d := newTarget(t,
		func(p *peer) { p.login(pairs("MaxConnections", "2")...); script(p) },
		func(p *peer) { p.login(); script(p) })
	s := d.session(d.options())
	second, err := s.AddConnection(d.context(), "b:3260")
	if err != nil {
		t.Fatal(err)
	}
	if second.CID() != 1 || len(s.Connections()) != 2 || second.Parameters().TSIH != 7 {
		t.Errorf("CID %d, %d connections", second.CID(), len(s.Connections()))
	}
	if _, err := s.AddConnection(d.context(), "c:3260"); err == nil {
		t.Error("more connections than the target takes")
	}
	var all []<-chan error
	for range commands {
		all = append(all, submit(t, s, &iscsi.Command{}))
	}
	for _, done := range all {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	numbers := map[uint32]bool{}
	for range commands {
		numbers[(<-arrived)[0]] = true
	}
	for n := range uint32(commands) {
		if !numbers[n+1] {
			t.Errorf("CmdSN %d is missing", n+1)
		}
	}
	s.Close()
	if _, err := s.AddConnection(d.context(), "d:3260"); !errors.Is(err, iscsi.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestBadCommands checks commands that cannot be sent.
func TestBadCommands(t *testing.T) {
	d := newTarget(t, func(p *peer) { p.login(); p.drain() })
	s := d.session(d.options())
	done := func(*iscsi.Command) {}
	for _, cmd := range []*iscsi.Command{
		{Done: done},
		{CDB: make([]byte, 261), Done: done},
		{CDB: read6, Discard: -1, Done: done},
		{CDB: read6, In: []byte{1}, Out: []byte{1}, Done: done},
		{CDB: read6},
	} {
		if err := s.Submit(cmd); !errors.Is(err, iscsi.ErrCommand) {
			t.Errorf("%+v: %v", cmd, err)
		}
	}
	if _, err := s.Connections()[0].Text(d.context(), pairs("X-long", string(make([]byte, 9000)))...); !errors.Is(err, iscsi.ErrCommand) {
		t.Errorf("got %v", err)
	}
}

// TestHelpers checks the commands that have a method of their own.
func TestHelpers(t *testing.T) {
	answer := func(p *peer, data []byte) {
		h, _ := p.expect(wire.OpSCSICommand)
		data = data[:min(len(data), int(h.ExpectedLength()))]
		p.send(&wire.DataIn{Flags: wire.FlagFinal | wire.FlagStatus, ITT: h.ITT(), Numbers: p.numbers()}, data)
	}
	check := func(p *peer, key byte) {
		h, _ := p.expect(wire.OpSCSICommand)
		p.send(&wire.SCSIResponse{Status: 2, ITT: h.ITT(), Numbers: p.numbers()}, append([]byte{0, 18}, 0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0))
	}
	d := newTarget(t, func(p *peer) {
		p.login()
		check(p, 6)
		answer(p, nil)
		check(p, 2)
		capacity := make([]byte, 32)
		binary.BigEndian.PutUint64(capacity, 1<<33)
		capacity[10] = 2
		answer(p, capacity)
		check(p, 5) // READ CAPACITY (16) is not known
		answer(p, nil)
		answer(p, []byte{0, 0, 0xff, 0xff, 0, 0, 0x10, 0})
		list := make([]byte, 8+16)
		list[3] = 16
		binary.BigEndian.PutUint64(list[16:], iscsi.LUN(300))
		answer(p, list)
		answer(p, make([]byte, 512))
		answer(p, make([]byte, 511))
		answer(p, nil)
		answer(p, nil)
		p.drain()
	})
	s, ctx := d.session(d.options()), d.context()
	if err := s.Ready(ctx, 0); err != nil {
		t.Error(err)
	}
	var status *iscsi.StatusError
	if err := s.Ready(ctx, 0); !errors.As(err, &status) {
		t.Errorf("got %v", err)
	}
	if blocks, size, err := s.Capacity(ctx, 0); blocks != 1<<33+1 || size != 512 || err != nil {
		t.Errorf("%d x %d, %v", blocks, size, err)
	}
	if blocks, size, err := s.Capacity(ctx, 0); blocks != 1<<16 || size != 4096 || err != nil {
		t.Errorf("%d x %d, %v", blocks, size, err)
	}
	if luns, err := s.LUNs(ctx); len(luns) != 2 || luns[1] != 0x412c<<48 || err != nil {
		t.Errorf("%#x, %v", luns, err)
	}
	if err := s.Read(ctx, 0, 5, 512, make([]byte, 512)); err != nil {
		t.Error(err)
	}
	if err := s.Read(ctx, 0, 5, 512, make([]byte, 512)); err == nil {
		t.Error("a short read was not told")
	}
	if err := s.Write(ctx, 0, 5, 512, make([]byte, 512)); err != nil {
		t.Error(err)
	}
	if err := s.Flush(ctx, 0); err != nil {
		t.Error(err)
	}
}

// TestSenseCode checks both formats of sense data (SPC-4 §4.5.2, §4.5.3).
func TestSenseCode(t *testing.T) {
	for _, test := range []struct {
		sense []byte
		key   uint8
		code  uint16
	}{
		{nil, 0, 0},
		{[]byte{0x70, 0, 3}, 0, 0},
		{[]byte{0x70, 0, 0xf3, 0}, 3, 0},
		{[]byte{0xf1, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 1}, 3, 0x1101},
		{[]byte{0x73, 4, 0x44, 2}, 4, 0x4402},
		{[]byte{0x7f, 4, 0x44, 2}, 0, 0},
	} {
		if key, code := iscsi.SenseCode(test.sense); key != test.key || code != test.code {
			t.Errorf("%x: %x/%04x", test.sense, key, code)
		}
	}
}

// FuzzTarget feeds a session with commands under way whatever a target may
// send.
func FuzzTarget(f *testing.F) {
	seed := &peer{statSN: 1000, window: 64}
	seed.statSN += 2
	var all []byte
	for _, part := range [][]byte{
		seed.pdu(&wire.R2T{ITT: 1, TTT: 5, Numbers: seed.now(), DesiredLength: 512}, nil),
		seed.pdu(&wire.DataIn{ITT: 0, TTT: wire.NoTag, Numbers: seed.now()}, make([]byte, 300)),
		seed.pdu(&wire.NOPIn{ITT: wire.NoTag, TTT: 1, Numbers: seed.now()}, nil),
		seed.pdu(&wire.DataIn{Flags: wire.FlagFinal | wire.FlagStatus, DataSN: 1, BufferOffset: 300, Numbers: seed.numbers()}, make([]byte, 212)),
		seed.pdu(&wire.Async{Numbers: seed.numbers(), Event: 3}, nil),
		seed.pdu(&wire.SCSIResponse{ITT: 1, Status: 2, Numbers: seed.numbers()}, []byte{0, 4, 0x72, 5, 0x24, 0}),
		seed.pdu(&wire.TaskManagementResponse{ITT: 2, Numbers: seed.numbers()}, nil),
	} {
		f.Add(part)
		all = append(all, part...)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, data []byte) {
		mine, theirs := net.Pipe()
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			defer mine.Close()
			p := &peer{conn: mine, statSN: 1000, window: 64, tsih: 1}
			p.login(pairs("ImmediateData", "No")...)
			go p.drain()
			_, _ = mine.Write(data)
		}()
		s, err := iscsi.Dial(t.Context(), "t:1", iscsi.Options{
			Target: "iqn.2026-11.io.lintel:t", OnAsync: func(iscsi.AsyncMessage) {},
			Dial: func(context.Context, string) (net.Conn, error) { return theirs, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		read := &iscsi.Command{CDB: read6, In: make([]byte, 512), Done: func(*iscsi.Command) {}}
		write := &iscsi.Command{CDB: read6, Out: make([]byte, 512), Done: func(*iscsi.Command) {}}
		_, _ = s.Submit(read), s.Submit(write)
		go func() { _, _ = s.Manage(t.Context(), iscsi.AbortTaskSet, 0, nil) }()
		<-finished
		<-s.Ended()
		s.Close()
	})
}
