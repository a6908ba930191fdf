package nvmetcp

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/transport"
)

// Server is an NVMe/TCP controller's end of the transport. Its methods may be
// called concurrently.
type Server struct {
	cfg    Config
	budget *transport.Budget
	tick   atomic.Int64 // seconds since the server began

	listeners *transport.Listeners // closed when Shutdown begins
	stop      chan struct{}        // closed when it ends
	done      chan struct{}        // closed by the janitor

	mu      sync.Mutex // a leaf
	closed  bool
	half    transport.HalfOpen
	nextID  uint64
	handled int // connections that have a goroutine
	conns   map[uint64]*conn
	idle    chan struct{} // closed when no connection is left, while someone waits
}

// NewServer returns a Server without listeners. Shutdown ends its goroutines.
func NewServer(cfg Config) *Server {
	s := &Server{
		cfg: cfg.withDefaults(), listeners: transport.NewListeners(), stop: make(chan struct{}), done: make(chan struct{}),
		conns: map[uint64]*conn{},
	}
	s.budget = transport.NewBudget(s.cfg.DataBudget, s.cfg.ConnectionBudget)
	go func() {
		defer close(s.done)
		s.janitor()
	}()
	return s
}

// Serve accepts connections until the listener fails, or with transport.ErrClosed until
// the server is shut down; port is the id of the port that the listener is (PORTID of the
// discovery log). It closes the listener.
func (s *Server) Serve(l net.Listener, port uint16) error {
	return s.listeners.Serve(l, s.cfg.Logger, func(nc net.Conn) { s.accept(nc, port) })
}

// accept begins a connection in a goroutine of its own.
func (s *Server) accept(nc net.Conn, port uint16) {
	if c := s.admit(nc, port); c != nil {
		go s.serveConn(c)
	}
}

// admit makes room for a new connection; nil where there is none.
func (s *Server) admit(nc net.Conn, port uint16) *conn {
	c := newConn(s, nc)
	c.remote, c.local, c.port = transport.AddrPort(nc.RemoteAddr()), transport.AddrPort(nc.LocalAddr()), port
	s.mu.Lock()
	if s.closed || s.handled >= s.cfg.MaxConnections {
		s.mu.Unlock()
		nc.Close()
		return nil
	}
	var victim net.Conn
	c.half, victim = s.half.Add(nc, c.remote.Addr(), s.cfg.MaxHalfOpen, s.cfg.MaxHalfOpenPerAddress)
	s.handled++
	s.nextID++
	c.id = s.nextID
	s.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
	return c
}

// serveConn takes one connection from its beginning to its end.
func (s *Server) serveConn(c *conn) {
	defer s.forget(c)
	nc := c.nc
	c.log = s.cfg.Logger.With("remote", c.remote, "connection", c.id)
	transport.Tune(nc, s.cfg.SocketBuffer)
	_ = nc.SetDeadline(time.Now().Add(s.cfg.ConnectTimeout))
	var proved nvme.TLS
	var err error
	if s.cfg.Secure != nil {
		nc, proved, err = s.cfg.Secure(nc, c.port)
	}
	if err == nil {
		err = c.initialize(nc)
	}
	if err != nil {
		c.raw.Close()
		if !errors.Is(err, io.EOF) {
			c.log.Info("no connection", "error", err)
		}
		return
	}
	_ = nc.SetDeadline(time.Time{})
	c.nc = nc
	c.queue = s.cfg.NewQueue(nvme.QueueConfig{
		Remote: c.remote, Local: c.local, Port: c.port, TLS: proved, InCapsule: s.cfg.InCapsule, Kill: c.dismiss,
		HeaderDigest: c.send.HeaderDigest, DataDigest: c.send.DataDigest,
	})
	c.born = s.tick.Load()
	s.mu.Lock()
	closed := s.closed
	s.conns[c.id] = c
	s.mu.Unlock()
	if closed {
		c.kill(errShutdown)
	}
	c.run()
}

// admitted says that the Connect of a connection has succeeded.
func (s *Server) admitted(h *transport.HalfOpenConn) {
	s.mu.Lock()
	s.half.Remove(h)
	s.mu.Unlock()
}

// forget is told that nothing of a connection is left.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.half.Remove(c.half)
	delete(s.conns, c.id)
	s.handled--
	if s.handled == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

func (s *Server) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *conn) int { return cmp.Compare(a.id, b.id) })
	return out
}

// Connections lists the initialized connections, oldest first.
func (s *Server) Connections() []ConnectionStatus {
	all := s.all()
	out := make([]ConnectionStatus, len(all))
	for i, c := range all {
		out[i] = c.status()
	}
	return out
}

// Drop ends a connection when its finished commands are answered. It reports whether it existed.
func (s *Server) Drop(id uint64) bool {
	s.mu.Lock()
	c := s.conns[id]
	s.mu.Unlock()
	if c == nil {
		return false
	}
	c.dismiss(errDropped)
	return true
}

// Shutdown stops accepting and ends all connections: those whose finished commands
// are not answered when ctx is done, at once. It returns when nothing of the
// server is left but commands that a device does not give back.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.listeners.Close()
	s.half.CloseAll()
	var idle chan struct{}
	if s.handled > 0 {
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle = s.idle
	}
	s.mu.Unlock()
	for _, c := range s.all() {
		c.dismiss(errShutdown)
	}
	var err error
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
			err = ctx.Err()
			for _, c := range s.all() {
				c.kill(errShutdown)
			}
			select {
			case <-idle:
			case <-time.After(closeTime):
			}
		}
	}
	if first {
		close(s.stop)
	}
	<-s.done
	return err
}

// closeTime is how long Shutdown waits for devices to give back the commands
// of connections that it has ended.
const closeTime = 5 * time.Second
