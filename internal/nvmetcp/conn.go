package nvmetcp

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/transport"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// Why a connection ends.
var (
	errDropped   = errors.New("dropped by the administrator")
	errStuck     = errors.New("the host does not read")
	errNoData    = errors.New("the host does not send the data of a command")
	errNoConnect = errors.New("the host does not connect")
	errShutdown  = errors.New("the server shuts down")
	errTermReq   = errors.New("terminated by the host")
)

// fault is a fatal error of the host that it is told of in a termination
// request (NVMe/TCP 1.0 §3.5).
type fault struct {
	wire.Fault
	header []byte // of the PDU in error
}

func (f *fault) Error() string {
	return fmt.Sprintf("%s in %s (information %#x)", f.Status, wire.Type(f.header[0]), f.Info)
}

// newFault is told what was wrong with the PDU that begins with p.
func newFault(f wire.Fault, p wire.PDU) error {
	n := max(p.Type().HeaderSize(), wire.CommonSize)
	return &fault{f, append([]byte(nil), p[:min(len(p), n)]...)}
}

// conn is one initialized connection.
type conn struct {
	server *Server
	id     uint64
	queue  Queue
	raw    net.Conn // the socket
	nc     net.Conn // the same, or TLS over it
	remote netip.AddrPort
	local  netip.AddrPort
	port   uint16
	since  time.Time
	born   int64 // the tick at which it was initialized
	log    *slog.Logger
	recv   wire.Receiver
	send   wire.Sender
	r2ts   int // outstanding for a command
	half   *transport.HalfOpenConn

	wake       chan struct{}
	stop       chan struct{} // closed by kill
	writerDone chan struct{}

	// Of the reader alone.

	in        transport.Input
	spares    *task // free tasks
	tally     Counters
	began     uint64 // commands
	seenEnded uint64 // the last known value of ended
	limit     uint64 // the last known value of depth
	asked     uint64 // bytes that reads have asked for
	seenGiven uint64 // the last known value of given
	tail      [wire.DigestSize]byte

	full    atomic.Bool // the output has reached its limit; written with mu held
	closing atomic.Bool // nothing more is taken from the host; written with mu held
	share   transport.Share

	// mu comes below Server.mu and above the lock of the budget. It is a leaf but for that.
	mu              sync.Mutex
	cond            *sync.Cond
	out             *transport.Batch[task]
	spare           *transport.Batch[task]
	flushing        bool // somebody writes
	busy            bool // the reader handles PDUs, and will flush
	dead            bool // nothing more is sent or executed
	closeAfterFlush bool
	outWait         bool // someone waits for the end of a write
	cause           error
	free            *task   // tasks whose answers were written
	tasks           []*task // all of them, by index
	connected       bool    // Connect has succeeded
	depth           uint64
	flow            bool // SQ flow control
	queueID         uint16
	head            int    // SQ head pointer
	ended           uint64 // commands answered
	given           uint64 // bytes of reads whose memory is free again
	counters        Counters
	writes          uint64 // batches written; the janitor watches it
	watched         watchState
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server: s, raw: nc, nc: nc, since: time.Now(),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), writerDone: make(chan struct{}),
		out: &transport.Batch[task]{}, spare: &transport.Batch[task]{},
		flow: true, depth: 2, limit: 2,
	}
	c.cond = sync.NewCond(&c.mu)
	return c
}

// kill ends the connection at once, from any goroutine: its socket closes, and
// its reader cleans up.
func (c *conn) kill(cause error) {
	c.mu.Lock()
	c.killLocked(cause)
	c.mu.Unlock()
}

func (c *conn) killLocked(cause error) {
	if c.dead {
		return
	}
	c.cause = cmp.Or(c.cause, cause)
	c.dead = true
	c.closing.Store(true)
	close(c.stop)
	c.raw.Close() // TLS would wait for room for its last words
	c.cond.Broadcast()
}

// part tells the other end of a TLS connection that nothing more comes. It may block a
// while, so c.mu is not held.
func (c *conn) part() {
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok && c.nc != c.raw {
		_ = h.CloseWrite() // the peer may be gone already
	}
}

// dismiss ends the connection when what it has to say has been written. It does not wait.
func (c *conn) dismiss(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return
	}
	c.cause = cmp.Or(c.cause, cause)
	c.closing.Store(true)
	c.closeAfterFlush = true
	c.wakeLocked()
}

// run is the reader. It returns when nothing of the connection is left, or its
// queue does not end and the server has stopped waiting for it.
func (c *conn) run() {
	go c.writer()
	err := c.readLoop()
	f := (*fault)(nil)
	told := errors.As(err, &f) && c.mute(f)
	if !told {
		c.mu.Lock()
		c.cause = cmp.Or(c.cause, err)
		c.mu.Unlock()
		c.part()
	}
	c.kill(err) // nothing after mute
	closed := make(chan struct{})
	c.queue.Close(func() { close(closed) })
	if told {
		c.terminate(f)
	}
	<-c.writerDone
	<-closed
	c.cleanUp()
	c.log.Info("connection ended", "cause", c.cause)
}

// cleanUp gives back what the connection holds when all its commands have ended but
// those that never got their data.
func (c *conn) cleanUp() {
	c.mu.Lock()
	for c.flushing { // another goroutine's write is failing
		c.cond.Wait()
	}
	lost := append([]*task(nil), c.out.Finished()...)
	c.out.Reset()
	c.counters.add(c.tally)
	c.tally = Counters{}
	var gathering []*task
	for _, t := range c.tasks {
		if t.gathering {
			gathering = append(gathering, t)
		}
	}
	c.mu.Unlock()
	for _, t := range lost {
		c.release(t)
	}
	for _, t := range gathering {
		c.mu.Lock()
		for t.waiting && !c.server.budget.Leave(&t.claim) {
			c.cond.Wait() // it is being granted
		}
		t.gathering, t.waiting = false, false
		c.mu.Unlock()
		c.release(t)
	}
}

// newTask returns a free task. Where all are in use it waits for answers to
// be written; nil after the end of the connection.
func (c *conn) newTask() *task {
	t := c.spares
	if t == nil {
		t = c.moreTasks()
		if t == nil {
			return nil
		}
	}
	c.spares = t.next
	t.next = nil
	return t
}

func (c *conn) moreTasks() *task {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.free == nil && len(c.tasks) < maxTasks {
		t := &task{conn: c, index: uint16(len(c.tasks))}
		t.Owner = t
		t.claim.Share, t.claim.Waiter = &c.share, t
		c.tasks = append(c.tasks, t)
		return t
	}
	if !c.awaitLocked(func() bool { return c.free != nil }) {
		return nil
	}
	t := c.free
	c.free = nil
	return t
}

// awaitLocked makes the reader wait for answers to be written, with c.mu given up
// meanwhile. It returns false after the end of the connection.
func (c *conn) awaitLocked(ready func() bool) bool {
	for !ready() {
		if c.flushLocked() != nil {
			return false
		}
		if ready() {
			break
		}
		c.busy = false // what completes meanwhile is for the writer
		c.outWait = true
		c.cond.Wait()
		c.busy = true
	}
	return !c.dead
}
