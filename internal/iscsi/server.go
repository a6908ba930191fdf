package iscsi

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/transport"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// Server is an iSCSI target server. Its methods may be called concurrently.
type Server struct {
	cfg    Config
	budget *transport.Budget
	tick   atomic.Int64 // seconds since the server began
	rand   io.Reader

	listeners *transport.Listeners // closed when Shutdown begins
	stop      chan struct{}        // closed when it ends
	handled   sync.WaitGroup

	mu       sync.Mutex // a leaf
	closed   bool
	pending  transport.HalfOpen
	nextID   uint64
	nextTSIH uint16
	sessions map[uint64]*session
	byKey    map[sessionKey]*session
	tsihs    map[uint16]struct{}
	idle     chan struct{} // closed when no session is left, while someone waits
}

// NewServer returns a Server without listeners. Shutdown ends its goroutines.
func NewServer(cfg Config) *Server {
	s := &Server{
		cfg: cfg.withDefaults(), rand: rand.Reader, listeners: transport.NewListeners(), stop: make(chan struct{}),
		sessions: map[uint64]*session{}, byKey: map[sessionKey]*session{}, tsihs: map[uint16]struct{}{},
	}
	s.budget = transport.NewBudget(max(s.cfg.DataBudget, block.MaxBuffer), s.cfg.ConnectionBudget)
	s.handled.Go(s.janitor)
	return s
}

// Serve accepts connections until the listener fails, or with transport.ErrClosed until
// the server is shut down; group is the portal group tag of the portal (RFC 7143 §4.4.1).
// It closes the listener.
func (s *Server) Serve(l net.Listener, group uint16) error {
	return s.listeners.Serve(l, s.cfg.Logger, func(nc net.Conn) { s.accept(nc, group) })
}

// accept begins the login of a connection in a goroutine of its own.
func (s *Server) accept(nc net.Conn, group uint16) {
	peer := Peer{Remote: transport.AddrPort(nc.RemoteAddr()), Local: transport.AddrPort(nc.LocalAddr()), Group: group}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		nc.Close()
		return
	}
	p, victim := s.pending.Add(nc, peer.Remote.Addr(), s.cfg.MaxPendingLogins, s.cfg.MaxPendingPerAddress)
	s.handled.Add(1)
	s.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
	go func() {
		defer s.handled.Done()
		s.serveConn(nc, peer, p)
	}()
}

// serveConn takes one connection from login to its end.
func (s *Server) serveConn(nc net.Conn, peer Peer, p *transport.HalfOpenConn) {
	transport.Tune(nc, s.cfg.SocketBuffer)
	_ = nc.SetDeadline(time.Now().Add(s.cfg.LoginTimeout))
	c, err := s.login(nc, peer, p)
	s.admitted(p)
	if err != nil {
		nc.Close()
		if refusal := (*Refusal)(nil); errors.As(err, &refusal) {
			s.cfg.Logger.Warn("iSCSI login refused", "remote", peer.Remote, "error", err)
		} else if !errors.Is(err, io.EOF) {
			s.cfg.Logger.Info("no iSCSI login", "remote", peer.Remote, "error", err)
		}
		return
	}
	c.log.Info("login", "target", c.session.key.target, "discovery", c.session.discovery)
	c.run()
}

// admitted says that a connection's login is over.
func (s *Server) admitted(p *transport.HalfOpenConn) {
	s.mu.Lock()
	s.pending.Remove(p)
	s.mu.Unlock()
}

// login takes a connection through its login phase and makes it part of a
// session.
func (s *Server) login(nc net.Conn, peer Peer, p *transport.HalfOpenConn) (*conn, error) {
	l := newLogin(&s.cfg, s.rand, peer)
	statSN := uint32(0)
	buf := make([]byte, wire.HeaderSize)
	var data []byte
	for first := true; ; first = false {
		b := wire.BHS(buf)
		if _, err := io.ReadFull(nc, b); err != nil {
			return nil, err
		}
		n := b.DataLength()
		if b.Opcode() != wire.OpLogin || b.AHSLength() != 0 || n > wire.DefaultMaxRecvDataSegment {
			// Anything but a login request ends the connection (RFC 7143 §6.3).
			return nil, fmt.Errorf("%w: %s with %d bytes of data during login", errProtocol, b.Opcode(), n)
		}
		if first {
			statSN = b.ExpStatSN()
		}
		data = slices.Grow(data[:0], wire.Pad(n))[:wire.Pad(n)]
		if _, err := io.ReadFull(nc, data); err != nil {
			return nil, err
		}
		reply, err := l.step(b, data[:n])
		var c *conn
		tsih := b.TSIH()
		window := wire.Numbers{StatSN: statSN, ExpCmdSN: b.CmdSN(), MaxCmdSN: b.CmdSN() + uint32(s.cfg.QueueDepth) - 1}
		statSN++
		if err == nil && reply.finished() {
			if c, err = s.join(nc, l, b.CmdSN(), statSN); err == nil {
				s.admitted(p)
				tsih = c.session.tsih
				window.ExpCmdSN, window.MaxCmdSN = c.session.expCmdSN.Load(), c.session.maxCmdSN.Load()
			}
		}
		answer := &wire.LoginResponse{
			Transit: reply.transit, CSG: reply.csg, NSG: reply.nsg, ISID: b.ISID(), TSIH: tsih, ITT: b.ITT(), Numbers: window,
		}
		if err != nil {
			answer.Status = asRefusal(err).Status
			answer.Transit, answer.CSG, answer.TSIH, reply.text = false, b.CSG(), b.TSIH(), nil
		}
		_, werr := nc.Write(wire.AppendPDU(nil, answer, reply.text))
		switch {
		case err != nil:
			return nil, fmt.Errorf("initiator %q: %w", l.peer.Initiator, err)
		case c != nil:
			// From here on the session has to be told when it fails.
			_ = nc.SetDeadline(time.Time{})
			return c, nil
		case werr != nil:
			return nil, werr
		}
	}
}

// forget is told by a session that nothing of it is left.
func (s *Server) forget(sess *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, sess.id)
	delete(s.tsihs, sess.tsih)
	if s.byKey[sess.key] == sess {
		delete(s.byKey, sess.key)
	}
	if len(s.sessions) == 0 && s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
}

func (s *Server) all() []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*session, 0, len(s.sessions))
	for _, sess := range s.sessions {
		out = append(out, sess)
	}
	slices.SortFunc(out, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (s *Server) find(id uint64) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id]
}

// Sessions lists the sessions, oldest first.
func (s *Server) Sessions() []SessionStatus {
	all := s.all()
	out := make([]SessionStatus, len(all))
	for i, sess := range all {
		out[i] = sess.status()
	}
	return out
}

// Drop ends a session: the initiator is told by an asynchronous message that
// its connections go (RFC 7143 §11.9.1). It reports whether the session existed.
func (s *Server) Drop(id uint64) bool {
	sess := s.find(id)
	if sess == nil {
		return false
	}
	sess.dismiss(errDropped)
	return true
}

// AsyncEvent sends an asynchronous message to a session, on its first
// connection; sense is the data of a SCSI event, else nil. It reports whether
// the session existed.
func (s *Server) AsyncEvent(id uint64, lun uint64, event wire.AsyncEvent, sense []byte) bool {
	sess := s.find(id)
	if sess == nil {
		return false
	}
	conns := sess.connections()
	return len(conns) > 0 && conns[0].async(&wire.Async{LUN: lun, Event: event}, sense)
}

// coldReset ends all sessions of a target (RFC 7143 §11.5.1).
func (s *Server) coldReset(target string) {
	for _, sess := range s.all() {
		if sess.key.target == target {
			sess.dismiss(errDropped)
		}
	}
}

// Shutdown stops accepting, asks all initiators to log out, waits for them
// until ctx is done, and then drops those that are left. It returns when
// nothing of the server is left but commands that a device does not give back.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.listeners.Close()
	s.pending.CloseAll()
	var idle chan struct{}
	if len(s.sessions) > 0 {
		if s.idle == nil {
			s.idle = make(chan struct{})
		}
		idle = s.idle
	}
	s.mu.Unlock()
	seconds := uint16(1)
	if d, ok := ctx.Deadline(); ok {
		seconds = uint16(min(max(time.Until(d)/time.Second, 1), 3600))
	}
	for _, sess := range s.all() {
		for _, c := range sess.connections() {
			c.async(&wire.Async{Event: wire.AsyncLogoutRequest, Parameter3: seconds}, nil)
		}
	}
	var err error
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
			err = ctx.Err()
			for _, sess := range s.all() {
				sess.end(errShutdown)
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
	s.handled.Wait()
	return err
}

// closeTime is how long Shutdown waits for devices to give back the commands
// of dropped sessions.
const closeTime = 5 * time.Second
