package iscsi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// maxTasks bounds the commands and requests under way in a session. More
// commands wait for a place.
const maxTasks = 32768

// Session is a normal or discovery session with a target. Its methods may be
// called concurrently.
type Session struct {
	opts     Options
	params   Parameters // of the leading connection
	discover bool
	turn     atomic.Uint32
	running  sync.WaitGroup // the goroutines of the connections

	// mu is taken before nothing else and held for moments only.
	mu       sync.Mutex
	err      error         // why the session has ended, nil while it lives
	ended    chan struct{} // closed when err is set
	quiet    sync.Cond     // a connection stopped sending
	conns    []*Conn
	nextCID  uint16
	cmdSN    uint32 // of the next command
	maxCmdSN uint32
	table    []entry
	free     []uint16 // places of table
	waiting  list     // commands without a place in the window
	aborts   bool     // commands were aborted: answers to them may still arrive
	leaving  bool     // the target has accepted a logout

	logout sync.Once // of the session's own accord
}

// entry is a place of the task table: what an initiator task tag stands for.
type entry struct {
	cmd   *Command
	req   *request
	round uint16 // in the upper half of the tag, so that a tag is not soon used again
}

// list is a queue of commands.
type list struct {
	head, tail *Command
}

func (l *list) push(cmd *Command) {
	cmd.next = nil
	if l.head == nil {
		l.head = cmd
	} else {
		l.tail.next = cmd
	}
	l.tail = cmd
}

// take empties the queue and returns its commands, linked by next.
func (l *list) take() *Command {
	head := l.head
	l.head, l.tail = nil, nil
	return head
}

func (l *list) remove(cmd *Command) {
	for all := l.take(); all != nil; {
		c := all
		all = c.next
		if c != cmd {
			l.push(c)
		}
	}
}

// Dial logs in to a target and returns the session with its leading
// connection. A target that has moved is followed. ctx bounds the login.
func Dial(ctx context.Context, address string, opts Options) (*Session, error) {
	if opts.Target == "" {
		return nil, errors.New("login: no target name")
	}
	return dial(ctx, address, opts, false)
}

func dial(ctx context.Context, address string, opts Options, discover bool) (*Session, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	s := &Session{opts: opts, discover: discover, ended: make(chan struct{}), cmdSN: 1, maxCmdSN: 1}
	s.quiet.L = &s.mu
	c, err := s.connect(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("login at %s: %w", address, err)
	}
	s.params = c.params
	s.adopt(c)
	return s, nil
}

// AddConnection adds a connection to the session (RFC 7143 §6.3.1).
func (s *Session) AddConnection(ctx context.Context, address string) (*Conn, error) {
	s.mu.Lock()
	err, n := s.err, len(s.conns)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if n >= s.params.MaxConnections {
		return nil, fmt.Errorf("the target takes at most %d connections in a session", s.params.MaxConnections)
	}
	c, err := s.connect(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("login at %s: %w", address, err)
	}
	if !s.adopt(c) {
		return nil, s.Err()
	}
	return c, nil
}

// adopt makes a logged-in connection part of the session, unless that has ended.
func (s *Session) adopt(c *Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		c.conn.Close()
		return false
	}
	s.conns = append(s.conns, c)
	s.running.Add(2)
	go c.reader()
	go c.writer()
	return true
}

// Parameters returns what the leading login led to.
func (s *Session) Parameters() Parameters { return s.params }

// Connections returns the connections of the session.
func (s *Session) Connections() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Conn(nil), s.conns...)
}

// Err returns why the session has ended, nil while it lives.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Ended returns a channel that is closed when the session has ended, for whatever reason.
func (s *Session) Ended() <-chan struct{} { return s.ended }

// Close drops the connections without logging out, ends what is under way
// with ErrClosed, and returns when every callback has run. It must not be called from one.
func (s *Session) Close() {
	s.fail(ErrClosed)
	s.running.Wait()
}

// fail ends the session: error recovery level 0 knows no smaller remedy
// (RFC 7143 §7.1.4.1). The readers end what was under way.
func (s *Session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(err)
}

func (s *Session) failLocked(err error) {
	if s.err != nil {
		return
	}
	s.err = err
	close(s.ended)
	for _, c := range s.conns {
		c.conn.Close()
	}
}

// pick returns the connections in turn.
func (s *Session) pick() *Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[int(s.turn.Add(1))%len(s.conns)]
}

func (s *Session) windowOpen() bool { return !wire.Before(s.maxCmdSN, s.cmdSN) }

// slotFree reports whether the table has a place for a command; a few are
// kept for the requests that may have to end commands.
func (s *Session) slotFree() bool { return len(s.free) > 0 || len(s.table) < maxTasks-16 }

// register gives a task its tag.
func (s *Session) register(e entry) (itt uint32) {
	var i int
	if n := len(s.free); n > 0 {
		i = int(s.free[n-1])
		s.free = s.free[:n-1]
	} else {
		i = len(s.table)
		s.table = append(s.table, entry{})
	}
	e.round = s.table[i].round
	s.table[i] = e
	return uint32(e.round)<<16 | uint32(i)
}

// unregister gives the tag back.
func (s *Session) unregister(itt uint32) {
	i := uint16(itt)
	s.table[i] = entry{round: s.table[i].round + 1}
	s.free = append(s.free, i)
}

// task returns what a tag from the target stands for. A tag of an aborted
// task gives an empty entry.
func (s *Session) task(itt uint32) (entry, error) {
	if i := int(itt & 0xffff); i < len(s.table) {
		if e := s.table[i]; e.round == uint16(itt>>16) && (e.cmd != nil || e.req != nil) {
			return e, nil
		}
		if s.aborts {
			return entry{}, nil
		}
	}
	return entry{}, protocolError("the initiator task tag %#08x belongs to no task", itt)
}

// window takes the command window from a PDU (RFC 7143 §4.2.2.1) and starts
// commands that waited for it.
func (s *Session) window(h wire.BHS) {
	if top := h.MaxCmdSN(); wire.Before(s.maxCmdSN, top) && !wire.Before(top, h.ExpCmdSN()-1) {
		s.maxCmdSN = top
	}
	s.startWaiting()
}

func (s *Session) startWaiting() {
	for s.waiting.head != nil && s.windowOpen() && s.slotFree() {
		cmd := s.waiting.head
		if s.waiting.head = cmd.next; s.waiting.head == nil {
			s.waiting.tail = nil
		}
		cmd.next = nil
		cmd.conn.start(cmd)
	}
}
