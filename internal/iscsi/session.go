package iscsi

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// session is one iSCSI session: the connections of one initiator port to one
// target, which share command numbering and the nexus. At error recovery
// level 0 it ends with the first connection that fails (RFC 7143 §7.1.5).
type session struct {
	server    *Server
	id        uint64
	key       sessionKey
	tsih      uint16
	discovery bool
	alias     string
	user      string
	terms     any        // of the Grant that it was let in by
	from      netip.Addr // origin of the leading connection
	since     time.Time
	params    Negotiated
	nexus     Nexus // nil in a discovery session

	leaving sync.Once     // closes the nexus
	drained chan struct{} // closed when none of its commands can reach a device
	gone    chan struct{} // closed when nothing of the session is left

	expCmdSN  atomic.Uint32
	maxCmdSN  atomic.Uint32
	multi     atomic.Bool  // there has been more than one connection
	postponed atomic.Int32 // length of queue

	// mu comes above conn.exec, which comes above conn.mu.
	mu       sync.Mutex
	conns    map[uint16]*conn
	begun    bool // the nexus is there, and further connections may join
	ending   bool
	finished bool
	counted  Counters           // of connections that are gone
	queue    map[uint32]request // requests that came before their turn, by CmdSN
}

// sessionKey identifies a session for reinstatement: the initiator port and
// the target port (RFC 7143 §6.3.5).
type sessionKey struct {
	initiator string
	isid      wire.ISID
	target    string // empty for discovery
	group     uint16
}

// request is a command, or another PDU with a CmdSN, on its way to execution.
type request struct {
	conn      *conn
	cmdSN     uint32
	immediate bool
	task      *task  // of a SCSI command
	run       func() // of everything else; must not wait
	gathers   bool   // the task has been on the gathering list
	since     int64  // the tick at which it was postponed
}

// inWindow reports whether a CmdSN lies in the command window; requests
// outside of it are ignored (RFC 7143 §4.2.2.1).
func (s *session) inWindow(sn uint32) bool {
	return !wire.Before(sn, s.expCmdSN.Load()) && !wire.Before(s.maxCmdSN.Load(), sn)
}

// admit runs a request at once where it is immediate or its turn has come,
// else keeps it until those before it have come (RFC 7143 §4.2.2.1).
func (s *session) admit(c *conn, r request) {
	if r.immediate {
		s.dispatch(c, r)
		return
	}
	multi := r.task != nil && s.multi.Load()
	if multi {
		c.exec.Lock()
	}
	// Where requests wait, one of them may have this CmdSN already.
	first := (!multi || s.postponed.Load() == 0) && s.expCmdSN.CompareAndSwap(r.cmdSN, r.cmdSN+1)
	if first {
		r.start()
	}
	if multi {
		c.exec.Unlock()
	}
	if !first {
		s.postpone(r)
	}
	if s.postponed.Load() > 0 {
		s.catchUp()
	}
}

func (r *request) start() {
	if r.task != nil {
		r.conn.start(r.task, r.gathers)
	} else if r.run != nil {
		r.run()
	}
}

// dispatch runs a request outside of the order of CmdSN.
func (s *session) dispatch(c *conn, r request) {
	if r.task != nil && s.multi.Load() {
		c.exec.Lock()
		defer c.exec.Unlock()
	}
	r.start()
}

// advance goes on with a command that has got data.
func (s *session) advance(c *conn, t *task) {
	if s.multi.Load() {
		c.exec.Lock()
		defer c.exec.Unlock()
	}
	c.mu.Lock()
	run := c.advanceLocked(t)
	c.mu.Unlock()
	if run {
		c.execute(t)
	}
}

// postpone keeps a request for its turn. A second one with the same CmdSN is
// ignored.
func (s *session) postpone(r request) {
	s.mu.Lock()
	_, twice := s.queue[r.cmdSN]
	if !twice && !s.ending && s.inWindow(r.cmdSN) {
		if t := r.task; t != nil {
			r.gathers = true
			r.conn.mu.Lock()
			if t.dropped {
				r.task = nil // aborted a moment ago; its place in the order stays
			} else if !t.listed {
				r.conn.listLocked(t)
			}
			r.conn.mu.Unlock()
		}
		r.since = s.server.tick.Load()
		s.queue[r.cmdSN] = r
		s.postponed.Store(int32(len(s.queue)))
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if r.task != nil {
		r.task.uncounted = true
		r.conn.dropTask(r.task)
	}
}

// catchUp runs the postponed requests whose turn has come.
func (s *session) catchUp() {
	for {
		s.mu.Lock()
		sn := s.expCmdSN.Load()
		r, ok := s.queue[sn]
		if ok {
			delete(s.queue, sn)
			s.postponed.Store(int32(len(s.queue)))
			ok = s.expCmdSN.CompareAndSwap(sn, sn+1)
		} else {
			s.mu.Unlock()
			return
		}
		if !ok { // the same CmdSN came again and was first
			s.mu.Unlock()
			if r.task != nil {
				r.task.uncounted = true
				r.conn.dropTask(r.task)
			}
			continue
		}
		if r.task != nil {
			r.conn.exec.Lock()
			s.mu.Unlock()
			r.start()
			r.conn.exec.Unlock()
			continue
		}
		s.mu.Unlock()
		r.start()
	}
}

// pass counts a request as received that was handled out of its turn.
func (s *session) pass(c *conn, sn uint32) {
	s.mu.Lock()
	_, twice := s.queue[sn]
	if !twice && s.inWindow(sn) {
		s.queue[sn] = request{conn: c, cmdSN: sn}
		s.postponed.Store(int32(len(s.queue)))
		s.maxCmdSN.Add(1)
	}
	s.mu.Unlock()
	s.catchUp()
}

// forget takes the postponed requests of a connection out of the queue; their
// places in the order stay.
func (s *session) forget(c *conn) {
	s.mu.Lock()
	for sn, r := range s.queue {
		if r.conn == c {
			if r.run != nil {
				s.maxCmdSN.Add(1)
			}
			s.queue[sn] = request{conn: c, cmdSN: sn}
		}
	}
	s.mu.Unlock()
}

// dropTask ends a gathering task without a response.
func (c *conn) dropTask(t *task) {
	c.mu.Lock()
	now := c.dropLocked(t)
	c.mu.Unlock()
	if now {
		c.discard(t)
	}
}

// dropLocked marks a gathering task as ended and reports whether the caller
// has to discard it; otherwise whoever is at work on it does: the reader, or
// the one who is giving it budget.
func (c *conn) dropLocked(t *task) bool {
	if t.dropped {
		return false
	}
	c.unlistLocked(t)
	t.dropped = true
	return !t.filling && (!t.waiting || c.server.budget.Leave(&t.claim))
}

// addLocked makes a connection part of the session, unless it is ending.
func (s *session) addLocked(c *conn) bool {
	if s.ending {
		return false
	}
	s.conns[c.cid] = c
	if len(s.conns) > 1 {
		s.multi.Store(true)
	}
	return true
}

func (s *session) hasBegun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// replace ends the session for a new one of the same initiator port, and reports whether
// it may: a session that goes on is replaced only by who is let in on its terms.
func (s *session) replace(terms any) bool {
	s.mu.Lock()
	ending := s.ending
	s.mu.Unlock()
	if !ending && s.terms != terms {
		return false
	}
	s.end(errReplaced)
	return true
}

// end drops all connections; the last of them to go closes the nexus. Where
// there is none yet, the login that is about to add one fails.
func (s *session) end(cause error) {
	s.mu.Lock()
	s.ending = true
	conns := s.list()
	s.mu.Unlock()
	for _, c := range conns {
		c.kill(cause)
	}
}

// list returns the connections in order of their CIDs, with mu held.
func (s *session) list() []*conn {
	out := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *conn) int { return cmp.Compare(a.cid, b.cid) })
	return out
}

// connections is list without mu held.
func (s *session) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

// connGone is told by a connection that it has ended.
func (s *session) connGone(c *conn) {
	c.mu.Lock()
	cause := c.cause
	c.mu.Unlock()
	replaced := errors.Is(cause, errReplaced)
	clean := replaced || errors.Is(cause, errLoggedOut)
	if clean {
		c.drain()
	}
	s.mu.Lock()
	if s.conns[c.cid] == c {
		delete(s.conns, c.cid)
	}
	c.mu.Lock()
	s.counted.add(c.counters)
	c.mu.Unlock()
	if !clean || len(s.conns) == 0 && !replaced {
		s.ending = true
	}
	ending, last := s.ending, len(s.conns) == 0
	rest := s.list()
	s.mu.Unlock()
	c.log.Info("connection closed", "cause", cause)
	if !clean && !errors.Is(cause, errDropped) { // a dismissed session lets each of them say so
		for _, o := range rest {
			o.kill(errSessionEnd)
		}
	}
	if ending && last {
		s.finish()
	}
}

// leave closes the nexus. When it returns, what the nexus alone was holding is free for others.
func (s *session) leave() {
	s.leaving.Do(func() {
		if s.nexus == nil {
			close(s.drained)
			return
		}
		s.nexus.Close(func() { close(s.drained) })
	})
}

// finish closes the nexus; the session is gone when none of its commands can reach a device.
func (s *session) finish() {
	s.mu.Lock()
	twice := s.finished
	s.finished = true
	s.mu.Unlock()
	if twice {
		return
	}
	s.leave()
	done := func() {
		s.server.forget(s)
		close(s.gone)
	}
	select {
	case <-s.drained:
		done()
	default:
		go func() {
			<-s.drained
			done()
		}()
	}
}
