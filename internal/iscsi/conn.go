package iscsi

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/transport"
)

// Why a connection ends.
var (
	errDropped    = errors.New("dropped by the target")
	errReplaced   = errors.New("replaced by a new login")
	errLoggedOut  = errors.New("logged out")
	errPing       = errors.New("the initiator does not answer pings")
	errStuck      = errors.New("the initiator does not read")
	errNoData     = errors.New("the initiator does not send the data of a command")
	errGap        = errors.New("the initiator does not send the commands before others")
	errProtocol   = errors.New("protocol error")
	errDigest     = errors.New("header digest error")
	errShutdown   = errors.New("the target shuts down")
	errSessionEnd = errors.New("another connection of the session has failed")
)

// conn is one connection in full feature phase. Its reader goroutine takes
// PDUs, executes commands and writes what they answer; its writer goroutine
// writes what completes while the reader waits for the peer.
type conn struct {
	server  *Server
	session *session
	nexus   Nexus // nil in a discovery session
	nc      net.Conn
	peer    Peer
	cid     uint16
	since   time.Time
	log     *slog.Logger
	params  params

	wake       chan struct{}
	stop       chan struct{} // closed by kill
	writerDone chan struct{}
	gone       chan struct{} // closed when nothing of the connection is left

	// Of the reader alone.

	in      transport.Input
	spares  *task // free tasks
	local   Counters
	started uint64 // bytes that reads have asked for
	settled uint64 // the last known value of retired
	made    int    // tasks
	tail    [8]byte

	full    atomic.Bool   // the output has reached its limit, or the connection ends; written with mu held
	batches atomic.Uint64 // reads that brought something; the janitor watches it

	// exec is held by whoever hands commands of this connection to the nexus,
	// where the session may have several connections, so that task
	// management can wait for commands that are between.
	exec sync.Mutex

	// share is of the budget.
	share transport.Share

	// mu comes below session.mu and above the lock of the budget. It is a leaf but for that.
	mu              sync.Mutex
	cond            *sync.Cond
	out             *transport.Batch[task]
	spare           *transport.Batch[task]
	flushing        bool // somebody writes
	busy            bool // the reader handles PDUs, and will flush
	dead            bool // nothing more is sent or executed
	closeAfterFlush bool
	outWait         bool // the reader waits for room in the output
	flushWait       bool // and for the end of a write
	cause           error
	statSN          uint32
	free            *task   // tasks whose responses were written
	tasks           []*task // all of them, by index
	gathering       *task   // list of commands that wait for their turn or Data-Out
	retired         uint64  // bytes of reads whose memory is free again
	immediates      int
	draining        int // commands that execute while the connection ends
	nextTTT         uint32
	ping            pingState
	watched         watchState
	text            textState
	counters        Counters
	writes          uint64 // batches written; the janitor watches it
}

func newConn(s *Server, sess *session, nc net.Conn, l *login, statSN uint32) *conn {
	c := &conn{
		server: s, session: sess, nexus: sess.nexus, nc: nc, peer: l.peer, cid: l.first.CID(), since: time.Now(),
		params: l.params, statSN: statSN,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), writerDone: make(chan struct{}), gone: make(chan struct{}),
		out: &transport.Batch[task]{}, spare: &transport.Batch[task]{},
	}
	c.params.Negotiated = sess.params
	c.params.FirstBurst = min(c.params.FirstBurst, c.params.MaxBurst)
	c.cond = sync.NewCond(&c.mu)
	c.log = s.cfg.Logger.With("initiator", l.peer.Initiator, "remote", l.peer.Remote, "session", sess.id, "cid", c.cid)
	return c
}

// kill ends the connection from any goroutine: its socket closes, and its
// reader cleans up.
func (c *conn) kill(cause error) {
	c.mu.Lock()
	c.killLocked(cause)
	c.mu.Unlock()
}

func (c *conn) killLocked(cause error) {
	if c.dead {
		return
	}
	c.dead, c.cause = true, cause
	c.full.Store(true)
	close(c.stop)
	c.nc.Close()
	c.cond.Broadcast()
}

// run is the reader. It returns when nothing of the connection is left.
func (c *conn) run() {
	go c.writer()
	err := c.readLoop()
	if err == nil {
		err = errLoggedOut
	}
	c.kill(err)
	<-c.writerDone
	c.cleanUp()
	c.session.connGone(c)
	close(c.gone)
}

// cleanUp ends everything that the connection still has under way but for commands
// that execute: those end with the session, or here where the session goes on.
func (c *conn) cleanUp() {
	c.mu.Lock()
	for c.flushing { // another goroutine's write is failing
		c.cond.Wait()
	}
	lost := append([]*task(nil), c.out.Finished()...)
	c.out.Reset()
	var ended []*task
	for t := c.gathering; t != nil; t = c.gathering {
		if c.dropLocked(t) {
			ended = append(ended, t)
		}
	}
	c.counters.add(c.local)
	c.local = Counters{}
	c.mu.Unlock()
	for _, t := range lost {
		c.release(t)
	}
	for _, t := range ended {
		c.discard(t)
	}
	c.session.forget(c)
}

// drain aborts the commands that execute and waits for them, for an end of the
// connection that the session survives.
func (c *conn) drain() {
	c.mu.Lock()
	var running []*task
	for _, t := range c.tasks {
		if t.state == taskExecuting {
			running = append(running, t)
		}
	}
	c.draining = len(running)
	type name struct{ lun, tag uint64 }
	names := make([]name, len(running))
	for i, t := range running {
		names[i] = name{t.LUN, t.Tag}
	}
	c.mu.Unlock()
	for _, n := range names {
		c.nexus.Manage(scsi.AbortTask, n.lun, n.tag, func(scsi.Response) {})
	}
	c.mu.Lock()
	for c.draining > 0 {
		c.cond.Wait()
	}
	c.mu.Unlock()
}

// newTask returns a free task, nil where the connection has too many.
func (c *conn) newTask() *task {
	t := c.spares
	if t == nil {
		c.mu.Lock()
		t, c.free = c.free, nil
		c.mu.Unlock()
	}
	if t == nil {
		if c.made == maxTasks {
			return nil
		}
		t = &task{conn: c, index: uint32(c.made)}
		t.claim.Share, t.claim.Waiter = &c.share, t
		c.made++
		c.mu.Lock()
		c.tasks = append(c.tasks, t)
		c.mu.Unlock()
	}
	c.spares = t.next
	t.next = nil
	t.reset()
	return t
}

// listLocked puts a task on the gathering list, where task management and
// Data-Out find it.
func (c *conn) listLocked(t *task) {
	t.listed, t.state, t.asked = true, taskGathering, c.server.tick.Load()
	t.gatherPrev, t.gatherNext = nil, c.gathering
	if c.gathering != nil {
		c.gathering.gatherPrev = t
	}
	c.gathering = t
}

func (c *conn) unlistLocked(t *task) {
	if !t.listed {
		return
	}
	t.listed = false
	if t.gatherPrev != nil {
		t.gatherPrev.gatherNext = t.gatherNext
	} else {
		c.gathering = t.gatherNext
	}
	if t.gatherNext != nil {
		t.gatherNext.gatherPrev = t.gatherPrev
	}
	t.gatherPrev, t.gatherNext = nil, nil
}
