package nvmetcp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/transport"
	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// gone expects the connection to end without another PDU.
func (c *client) gone() {
	c.t.Helper()
	if p, _, err := c.pdu(); err == nil {
		c.t.Errorf("%s instead of the end", p.Type())
	}
}

// stuck waits until the first connection can write no more.
func (h *harness) stuck() {
	k := h.server.all()[0]
	last := uint64(0)
	settle(h.t, "the output to be stuck", func() bool {
		time.Sleep(30 * time.Millisecond)
		k.mu.Lock()
		defer k.mu.Unlock()
		still := k.flushing && k.writes == last
		last = k.writes
		return still
	})
}

// TestQueueConfig checks what a queue is told, over IPv4 and IPv6 (NVMe/TCP 1.0 §3.1, §3.2).
func TestQueueConfig(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		h := newHarness(t, Config{})
		h.listen("tcp", addr)
		c := h.connect(options{id: 9})
		q := h.disk.queues[0]
		if q.cfg.Remote.String() != c.nc.LocalAddr().String() || q.cfg.Local.String() != c.nc.RemoteAddr().String() || q.cfg.Port != 3 || q.cfg.InCapsule != 8192 || q.cfg.TLS != (nvme.TLS{}) {
			t.Errorf("queue of %+v", q.cfg)
		}
		st := h.server.Connections()[0]
		if st.Remote != q.cfg.Remote || st.Local != q.cfg.Local || st.Port != 3 || st.QueueID != 9 || st.ID != 1 || !st.Connected {
			t.Errorf("status %+v", st)
		}
	}
}

func TestDrop(t *testing.T) {
	h := newHarness(t, Config{})
	c, other := h.connect(options{}), h.connect(options{})
	id := uint64(0)
	for _, st := range h.server.Connections() {
		if st.Remote.String() == c.nc.LocalAddr().String() {
			id = st.ID
		}
	}
	if !h.server.Drop(id) {
		t.Error("the connection is unknown")
	}
	c.gone()
	settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 1 })
	if h.server.Drop(id) {
		t.Error("the connection is still known")
	}
	other.command(rw(opFlush, 0, 1, 0), nil)
	other.status(0)
}

// TestKill checks that the controller may end a connection, also from inside a
// command, whose answer is still sent.
func TestKill(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.connect(options{})
	failed := errors.New("keep alive expired")
	h.disk.mu.Lock()
	h.disk.hold = func(r *nvme.Request) bool {
		q := h.disk.queues[0]
		q.cfg.Kill(failed)
		q.cfg.Kill(failed)
		return false
	}
	h.disk.mu.Unlock()
	c.command(rw(opFlush, 0, 1, 0), nil)
	c.status(0)
	c.gone()
	settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 0 })
	h.disk.queues[0].cfg.Kill(failed)

	// In the middle of a write, whose command is not executed any more.
	h.disk.letGo(nil)
	c = h.connect(options{})
	c.command(rw(opWrite, 0, 40, wirenvme.SGLTransport), nil)
	r, _ := c.expect(wire.TypeR2T)
	in := c.answerBytes(r, pattern(40*512), 40*512)
	c.write(in[:10_000])
	n := len(h.disk.executed())
	h.disk.queues[1].cfg.Kill(failed)
	_, _ = c.nc.Write(in[10_000:])
	c.gone()
	settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 0 })
	if got := len(h.disk.executed()); got != n {
		t.Error("a command was executed after the end")
	}
}

func TestHalfOpen(t *testing.T) {
	h := newHarness(t, Config{MaxHalfOpen: 3, MaxHalfOpenPerAddress: 2})
	good := h.connect(options{})
	a := h.dial() // says nothing
	b := h.connect(options{noConnect: true})
	settle(t, "initialization", func() bool { return len(h.server.Connections()) == 2 })
	d := h.connect(options{noConnect: true})
	a.gone()
	e := h.connect(options{})
	b.gone()
	f := h.connect(options{})
	for _, c := range []*client{good, e, f} {
		c.command(rw(opFlush, 0, 1, 0), nil)
		c.status(0)
	}
	d.connect(options{})
}

func TestMaxConnections(t *testing.T) {
	h := newHarness(t, Config{MaxConnections: 2})
	h.connect(options{})
	c := h.connect(options{})
	h.dial().gone()
	c.nc.Close()
	settle(t, "the end of a connection", func() bool { return len(h.server.Connections()) == 1 })
	settle(t, "room", func() bool {
		h.server.mu.Lock()
		defer h.server.mu.Unlock()
		return h.server.handled == 1
	})
	h.connect(options{})
}

// TestTimeouts checks that stuck hosts lose their connections, by the janitor's count.
func TestTimeouts(t *testing.T) {
	const most = 20
	watch := func(h *harness) {
		for range most {
			h.server.tick.Add(1)
			for _, c := range h.server.all() {
				c.watch()
			}
		}
	}
	cfg := Config{ConnectTimeout: 15 * time.Second, DataTimeout: 15 * time.Second, SendTimeout: 15 * time.Second}
	t.Run("Connect", func(t *testing.T) {
		h := newHarness(t, cfg)
		c := h.connect(options{noConnect: true})
		settle(t, "initialization", func() bool { return len(h.server.Connections()) == 1 })
		watch(h)
		c.gone()
	})
	t.Run("data", func(t *testing.T) {
		h := newHarness(t, cfg)
		c := h.connect(options{})
		settle(t, "the end of the write", func() bool {
			k := h.server.all()[0]
			k.mu.Lock()
			defer k.mu.Unlock()
			return !k.flushing
		})
		watch(h)
		c.command(rw(opWrite, 0, 40, wirenvme.SGLTransport), nil)
		c.expect(wire.TypeR2T)
		watch(h)
		c.gone()
	})
	t.Run("trickling data", func(t *testing.T) {
		h := newHarness(t, cfg)
		c := h.connect(options{})
		c.command(rw(opWrite, 0, 40, wirenvme.SGLTransport), nil)
		r, _ := c.expect(wire.TypeR2T)
		k := h.server.all()[0]
		for i := range most {
			in := c.send.Append(nil, &wire.H2CData{CommandID: r.CommandID(), TransferTag: r.TransferTag(), Offset: uint32(4 * i), Count: 4}, make([]byte, 4))
			if _, err := c.nc.Write(in); err != nil {
				break
			}
			settle(t, "data", func() bool {
				k.mu.Lock()
				defer k.mu.Unlock()
				return k.dead || k.tasks[r.TransferTag()>>tagShift].r2ts[0].next == 4*(i+1)
			})
			h.server.tick.Add(1)
			k.watch()
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.dead {
			t.Error("a host that trickles keeps its connection")
		}
	})
	t.Run("reading", func(t *testing.T) {
		h := newHarness(t, cfg)
		c := h.connect(options{depth: 1024})
		for range 60 {
			c.command(rw(opRead, 0, 2048, wirenvme.SGLTransport), nil)
		}
		h.stuck()
		watch(h)
		settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 0 })
	})
	t.Run("dismissed", func(t *testing.T) {
		h := newHarness(t, cfg)
		c := h.connect(options{depth: 1024})
		for range 60 {
			c.command(rw(opRead, 0, 2048, wirenvme.SGLTransport), nil)
		}
		h.stuck()
		h.server.Drop(1)
		watch(h)
		settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 0 })
	})
	h := newHarness(t, Config{ConnectTimeout: 20 * time.Millisecond})
	h.dial().gone()
}

// sealed stands for TLS with a peer that takes nothing: its Close waits.
type sealed struct {
	net.Conn
	server  *Server
	parted  atomic.Int32
	waiting chan struct{}
}

func (s *sealed) Close() error { <-s.waiting; return s.Conn.Close() }

func (s *sealed) CloseWrite() error {
	s.server.Connections() // needs the lock of the connection
	s.parted.Add(1)
	return nil
}

// TestLastWordsOfTLS checks that the last words of a TLS connection keep nobody waiting who
// wants its lock, and that they are said where it ends in order.
func TestLastWordsOfTLS(t *testing.T) {
	s := &sealed{waiting: make(chan struct{})}
	h := newHarness(t, Config{Secure: func(nc net.Conn, _ uint16) (net.Conn, nvme.TLS, error) {
		s.Conn = nc
		return s, nvme.TLS{}, nil
	}})
	defer close(s.waiting)
	s.server = h.server
	ended := func() {
		settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 0 })
	}
	c := h.connect(options{})
	h.server.Drop(1)
	c.gone()
	ended()
	if s.parted.Load() == 0 {
		t.Error("the end was not told")
	}
	c = h.connect(options{})
	go h.server.all()[0].kill(errStuck)
	c.gone()
	ended()
}

// TestBackpressure checks that a host that sends and does not read costs a
// bounded amount of memory, and gets all its answers when it reads.
func TestBackpressure(t *testing.T) {
	h := newHarness(t, Config{OutputLimit: 1 << 20, ReadBudget: 3 << 20})
	copy(h.disk.data, pattern(1<<20))
	c := h.connect(options{depth: 1024})
	const n = 100
	go func() {
		var in []byte
		for i := range n {
			e := rw(opRead, 0, 2048, wirenvme.SGLTransport)
			e.SetCID(uint16(i))
			in = c.send.Append(in, &wire.CapsuleCmd{SQE: e}, nil)
		}
		_, _ = c.nc.Write(in)
	}()
	h.stuck()
	if got := len(h.disk.executed()); got > 90 {
		t.Errorf("%d commands were executed", got)
	}
	for range n {
		if _, data := c.expect(wire.TypeC2HData); !bytes.Equal(data, h.disk.data[:1<<20]) {
			t.Fatal("wrong data")
		}
		c.status(0)
	}
}

// TestReadBudget checks that reads wait for each other where they hold too much.
func TestReadBudget(t *testing.T) {
	h := newHarness(t, Config{ReadBudget: 1 << 20})
	c := h.connect(options{})
	h.disk.hold = func(*nvme.Request) bool { return true }
	for range 5 {
		c.command(rw(opRead, 0, 1024, wirenvme.SGLTransport), nil)
	}
	settle(t, "two reads", func() bool { return len(h.disk.executed()) == 3 })
	time.Sleep(20 * time.Millisecond)
	if n := len(h.disk.executed()); n != 3 {
		t.Errorf("%d commands were executed", n)
	}
	for range 3 {
		h.disk.letGo(nil)
		time.Sleep(5 * time.Millisecond)
	}
	for range 5 {
		c.expect(wire.TypeC2HData)
		c.status(0)
	}
	// One that waits ends with its connection.
	h.disk.mu.Lock()
	h.disk.hold = func(*nvme.Request) bool { return true }
	h.disk.mu.Unlock()
	for range 3 {
		c.command(rw(opRead, 0, 1024, wirenvme.SGLTransport), nil)
	}
	settle(t, "two reads", func() bool { return len(h.disk.executed()) == 8 })
	h.server.all()[0].kill(errDropped)
	settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 0 })
}

// TestDataBudget checks that writes of one connection wait for each other where
// their data does not fit, and those of others do not, and that one that waits
// may lose its connection.
func TestDataBudget(t *testing.T) {
	h := newHarness(t, Config{ConnectionBudget: 100 << 10})
	c, other := h.connect(options{}), h.connect(options{})
	data := pattern(64 << 10)
	c.command(rw(opWrite, 0, 128, wirenvme.SGLTransport), nil)
	first, _ := c.expect(wire.TypeR2T)
	c.command(rw(opWrite, 200, 128, wirenvme.SGLTransport), nil)
	c.command(rw(opFlush, 0, 1, 0), nil)
	c.status(0) // and no R2T before
	other.command(rw(opWrite, 400, 128, wirenvme.SGLTransport), nil)
	r, _ := other.expect(wire.TypeR2T)
	other.answer(r, data, 10_000)
	other.status(0)
	c.answer(first, data, 10_000)
	c.status(0)
	c.expect(wire.TypeR2T)
	c.command(rw(opWrite, 200, 128, wirenvme.SGLTransport), nil)
	c.command(rw(opFlush, 0, 1, 0), nil)
	c.status(0)
	c.nc.Close()
	settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 1 })
	if n := block.BuffersInUse(); n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}

// TestSecure checks the place where a secure channel goes (NVMe/TCP 1.0 §3.6.1).
func TestSecure(t *testing.T) {
	refuse := errors.New("no key for this host")
	var refused atomic.Bool
	h := newHarness(t, Config{Secure: func(nc net.Conn, port uint16) (net.Conn, nvme.TLS, error) {
		if refused.Load() {
			return nil, nvme.TLS{}, refuse
		}
		return &flipped{nc}, nvme.TLS{Identity: "NVMe1R01 host subsystem"}, nil
	}})
	c := h.dial()
	c.nc = &flipped{c.nc}
	c.init(options{})
	c.connect(options{})
	if q := h.disk.queues[0]; q.cfg.TLS.Identity != "NVMe1R01 host subsystem" {
		t.Errorf("queue of %+v", q.cfg)
	}
	c.command(rw(opRead, 0, 8, wirenvme.SGLTransport), nil)
	c.expect(wire.TypeC2HData)
	c.status(0)
	refused.Store(true)
	h.dial().gone()
}

// flipped is a very weak cipher.
type flipped struct{ net.Conn }

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.Conn.Read(p)
	flip(p[:n])
	return n, err
}

func (f *flipped) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	flip(q)
	return f.Conn.Write(q)
}

func flip(p []byte) {
	for i := range p {
		p[i] ^= 0x55
	}
}

func TestShutdown(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.connect(options{})
	h.dial()
	h.disk.hold = func(*nvme.Request) bool { return true }
	c.command(rw(opFlush, 0, 1, 0), nil)
	settle(t, "execution", func() bool { return len(h.disk.executed()) == 2 })
	if err := h.server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(c.nc); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Log(err) // the system's way to say that it is over
	}
	if err := h.server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.server.Serve(l, 1); !errors.Is(err, transport.ErrClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	near, far := net.Pipe()
	h.server.accept(near, 1)
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("a connection after Shutdown")
	}
}

// TestShutdownStuck checks that hosts that do not read, and devices that do
// not end, do not keep Shutdown.
func TestShutdownStuck(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.connect(options{depth: 1024})
	for range 60 {
		c.command(rw(opRead, 0, 2048, wirenvme.SGLTransport), nil)
	}
	h.stuck()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := h.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if n := len(h.server.Connections()); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestServe checks that Serve outlives an accept that fails.
func TestServe(t *testing.T) {
	h := newHarness(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &flaky{Listener: l, fail: 3}
	done := make(chan error)
	go func() { done <- h.server.Serve(f, 1) }()
	h.addr = l.Addr().String()
	h.connect(options{})
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

type flaky struct {
	net.Listener
	fail int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.fail--; f.fail >= 0 {
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}
