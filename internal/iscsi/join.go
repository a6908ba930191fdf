package iscsi

import (
	"errors"
	"net"
	"time"

	"lintel.io/lintel/internal/origin"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// join makes the connection of a finished login part of its session: a new
// one, or with a TSIH the existing one (RFC 7143 §6.3.5, §6.3.6).
func (s *Server) join(nc net.Conn, l *login, cmdSN, statSN uint32) (c *conn, err error) {
	if l.leading() {
		c, err = s.joinNew(nc, l, cmdSN, statSN)
	} else {
		c, err = s.joinExisting(nc, l, statSN)
	}
	if err != nil {
		return nil, err
	}
	// What Review was about to see before the connection was there is seen here.
	if err := c.review(); err != nil {
		c.log.Info("session dropped", "error", err)
		c.session.end(errDropped)
	}
	return c, nil
}

func (l *login) key() sessionKey {
	return sessionKey{initiator: l.peer.Initiator, isid: l.first.ISID(), target: l.target, group: l.peer.Group}
}

// joinNew begins a session, in place of one of the same initiator port.
func (s *Server) joinNew(nc net.Conn, l *login, cmdSN, statSN uint32) (*conn, error) {
	key := l.key()
	deadline := time.After(s.cfg.LoginTimeout)
	for {
		s.mu.Lock()
		old := s.byKey[key]
		if old == nil {
			break
		}
		s.mu.Unlock()
		if !old.replace(l.grant.Terms) {
			return nil, Refuse(wire.LoginOutOfResources, "another host has a session of initiator %s and this ISID", key.initiator)
		}
		select {
		case <-old.gone:
		case <-deadline:
			return nil, Refuse(wire.LoginOutOfResources, "the old session does not end")
		case <-s.listeners.Done():
			return nil, Refuse(wire.LoginServiceUnavailable, "shutting down")
		}
	}
	sess, err := s.newSessionLocked(l, cmdSN)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if !l.discovery {
		sess.nexus, err = s.cfg.Access.Open(SessionInfo{
			Peer: l.peer, ID: sess.id, Target: l.target, Alias: l.alias, ISID: key.isid, TSIH: sess.tsih, User: sess.user, Terms: sess.terms,
		})
		if err != nil {
			s.forget(sess)
			close(sess.gone)
			return nil, err
		}
	}
	c := newConn(s, sess, nc, l, statSN)
	sess.mu.Lock()
	sess.begun = true
	added := sess.addLocked(c)
	sess.mu.Unlock()
	if !added { // dropped meanwhile
		sess.finish()
		return nil, Refuse(wire.LoginServiceUnavailable, "the session was dropped during login")
	}
	return c, nil
}

// newSessionLocked registers a session without connections.
func (s *Server) newSessionLocked(l *login, cmdSN uint32) (*session, error) {
	if s.closed {
		return nil, Refuse(wire.LoginServiceUnavailable, "shutting down")
	}
	from := origin.Of(l.peer.Remote.Addr())
	like, near := 0, 0 // sessions of the same type, and those of them from the same origin
	for _, o := range s.sessions {
		if o.discovery == l.discovery {
			like++
			if o.from == from {
				near++
			}
		}
	}
	tsih := s.newTSIHLocked()
	switch {
	case l.discovery && (like >= s.cfg.MaxDiscovery || near >= s.cfg.MaxDiscoveryPerAddress):
		return nil, Refuse(wire.LoginOutOfResources, "more than %d discovery sessions, or %d from one address", s.cfg.MaxDiscovery, s.cfg.MaxDiscoveryPerAddress)
	case !l.discovery && like >= s.cfg.MaxSessions, tsih == 0:
		return nil, Refuse(wire.LoginOutOfResources, "more than %d sessions", s.cfg.MaxSessions)
	}
	s.nextID++
	sess := &session{
		server: s, id: s.nextID, key: l.key(), tsih: tsih, discovery: l.discovery, alias: l.alias, user: l.user(),
		terms: l.grant.Terms, from: from, since: time.Now(),
		params: l.params.Negotiated, drained: make(chan struct{}), gone: make(chan struct{}), conns: map[uint16]*conn{}, queue: map[uint32]request{},
	}
	sess.expCmdSN.Store(cmdSN)
	sess.maxCmdSN.Store(cmdSN + uint32(s.cfg.QueueDepth) - 1)
	s.sessions[sess.id], s.byKey[sess.key], s.tsihs[tsih] = sess, sess, struct{}{}
	return sess, nil
}

// joinExisting adds a connection to a session, in place of one with the same CID.
func (s *Server) joinExisting(nc net.Conn, l *login, statSN uint32) (*conn, error) {
	s.mu.Lock()
	sess := s.byKey[l.key()]
	s.mu.Unlock()
	if sess == nil || sess.tsih != l.first.TSIH() || !sess.hasBegun() {
		return nil, Refuse(wire.LoginNoSession, "no session with TSIH %d", l.first.TSIH())
	}
	if sess.terms != l.grant.Terms || sess.user != l.user() {
		return nil, Refuse(wire.LoginCannotInclude, "the session was let in as another host or CHAP name")
	}
	c := newConn(s, sess, nc, l, statSN)
	deadline := time.After(s.cfg.LoginTimeout)
	for {
		sess.mu.Lock()
		old := sess.conns[c.cid]
		if old == nil {
			break
		}
		sess.mu.Unlock()
		old.kill(errReplaced)
		select {
		case <-old.gone:
		case <-deadline:
			sess.end(errReplaced)
			return nil, Refuse(wire.LoginOutOfResources, "the old connection does not end")
		}
	}
	count, ended := len(sess.conns), sess.ending
	added := count < sess.params.MaxConnections && sess.addLocked(c)
	sess.mu.Unlock()
	switch {
	case added:
		return c, nil
	case !ended:
		return nil, Refuse(wire.LoginTooManyConnections, "the session has %d connections already", count)
	case count == 0:
		sess.finish()
	}
	return nil, Refuse(wire.LoginNoSession, "the session has ended")
}

// newTSIHLocked returns a free session handle, 0 where there is none.
func (s *Server) newTSIHLocked() uint16 {
	for range 1 << 16 {
		s.nextTSIH++
		if _, used := s.tsihs[s.nextTSIH]; !used && s.nextTSIH != 0 {
			return s.nextTSIH
		}
	}
	return 0
}

// Review asks the Access about every connection again, and drops the sessions of those that
// it does not let in any more, or on other terms. When it returns, these begin no more
// commands.
func (s *Server) Review() {
	for _, sess := range s.all() {
		for _, c := range sess.connections() {
			if err := c.review(); err != nil {
				c.log.Info("session dropped", "error", err)
				sess.dismiss(errDropped)
				break
			}
		}
	}
}

var errTerms = errors.New("the host, or what it has to prove, has changed")

// review returns why the connection would not become part of its session now, nil
// where it would.
func (c *conn) review() error {
	sess := c.session
	grant, err := c.server.cfg.Access.Authorize(LoginRequest{Peer: c.peer, Target: sess.key.target, Discovery: sess.discovery})
	if err == nil && grant.Terms != sess.terms {
		err = errTerms
	}
	return err
}
