package iscsi

import (
	"io"
	"net"
	"testing"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// bareConn is a logged-in connection without its reader, so that a test can
// act as one.
func bareConn(tb testing.TB) *Conn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, peer)
	}()
	opts, err := Options{Target: "t"}.withDefaults()
	if err != nil {
		tb.Fatal(err)
	}
	s := &Session{opts: opts, ended: make(chan struct{}), cmdSN: 1, maxCmdSN: 1 << 30}
	s.quiet.L = &s.mu
	c := s.newConn(conn, "")
	c.params = defaultParameters(opts)
	s.conns = append(s.conns, c)
	s.running.Add(1)
	go c.writer()
	tb.Cleanup(func() {
		close(c.gone)
		s.running.Wait()
		conn.Close()
		peer.Close()
		<-drained
	})
	return c
}

// answers returns what the target sends for a queue of commands, whose tags follow
// from their places in the table.
func (c *Conn) answers(cmds []Command) []byte {
	var out []byte
	for i := range cmds {
		cmd := &cmds[i]
		n := wire.Numbers{StatSN: c.expStatSN + uint32(i), MaxCmdSN: 1 << 30}
		if len(cmd.Out) > 0 {
			out = append(out, wire.AppendPDU(nil, &wire.SCSIResponse{ITT: cmd.itt, Numbers: n}, nil)...)
		} else {
			out = append(out, wire.AppendPDU(nil, &wire.DataIn{Flags: wire.FlagFinal | wire.FlagStatus, ITT: cmd.itt, Numbers: n}, make([]byte, cmd.expected()))...)
		}
	}
	return out
}

// round answers a queue of commands whose callbacks submit them again. The
// answers are patched rather than made, so that only the connection's own work counts.
func (c *Conn) round(tb testing.TB, cmds []Command, answers []byte) {
	c.session.mu.Lock()
	for c.sending {
		c.session.quiet.Wait()
	}
	c.session.mu.Unlock()
	c.r, c.w = 0, copy(c.buf, answers)
	at := 0
	for i := range cmds {
		h := wire.BHS(c.buf[at:])
		h.SetITT(cmds[i].itt)
		h.SetStatSN(c.expStatSN + uint32(i))
		at += h.Layout(false, false).Size
	}
	if err := c.take(); err != nil {
		tb.Fatal(err)
	}
}

func queue(tb testing.TB, c *Conn, write bool) []Command {
	cmds := make([]Command, 16)
	data := make([]byte, 4096)
	for i := range cmds {
		cmd := &cmds[i]
		cmd.CDB = make([]byte, 10)
		if write {
			cmd.Out = data
		} else {
			cmd.In = data
		}
		cmd.Done = func(cmd *Command) {
			if err := c.Submit(cmd); err != nil {
				tb.Error(err)
			}
		}
		if err := c.Submit(cmd); err != nil {
			tb.Fatal(err)
		}
	}
	return cmds
}

func TestNoAllocation(t *testing.T) {
	for name, write := range map[string]bool{"read": false, "write": true} {
		t.Run(name, func(t *testing.T) {
			c := bareConn(t)
			cmds := queue(t, c, write)
			answers := c.answers(cmds)
			if n := testing.AllocsPerRun(100, func() { c.round(t, cmds, answers) }); n > 0 {
				t.Errorf("%v allocations in %d commands", n, len(cmds))
			}
		})
	}
}

func BenchmarkRead(b *testing.B)  { benchmark(b, false) }
func BenchmarkWrite(b *testing.B) { benchmark(b, true) }

// benchmark measures one command of 4 KiB, sending included.
func benchmark(b *testing.B, write bool) {
	c := bareConn(b)
	cmds := queue(b, c, write)
	answers := c.answers(cmds)
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(cmds) {
		c.round(b, cmds, answers)
	}
}
