package iscsi

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"

	"lintel.io/lintel/internal/initiator/sendq"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// Conn is one connection of a session.
type Conn struct {
	session *Session
	cid     uint16
	address string
	params  Parameters
	gone    chan struct{} // closed when the reader has ended
	sender
	receiver
	callback sync.Mutex // held while callbacks run, never together with Session.mu
}

// receiver is the receiving side; except where noted it belongs to the reader.
type receiver struct {
	conn      net.Conn
	buf       []byte
	r, w      int    // buf[r:w] has not been looked at
	expStatSN uint32 // of the next status; guarded by Session.mu
	done      list   // commands that ended in this round; guarded by Session.mu
	stream    stream
	answered  []*request     // requests that ended in this round
	messages  []AsyncMessage // of this round
}

// stream is a Data-In PDU whose data goes to its command as it arrives.
// Session.mu guards cmd.
type stream struct {
	cmd    *Command // nil where the data is thrown away
	active bool
	header [wire.HeaderSize]byte
	at     int // where in cmd.In
	left   int // data bytes to come
	pad    int
	crc    uint32
	tail   int // padding and digest bytes to come after the data
}

const receiveBuffer = 128 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *Session) newConn(conn net.Conn, address string) *Conn {
	c := &Conn{session: s, address: address, gone: make(chan struct{})}
	c.queue, c.flight = new(sendq.Batch), new(sendq.Batch)
	c.out = sendq.NewOutput(conn)
	c.handoff = make(chan struct{}, 1)
	c.conn = conn
	size := receiveBuffer
	if own := s.opts.Operational.MaxRecvDataSegmentLength; own < size {
		size = max(own, 8192) + 2048
	}
	c.buf = make([]byte, size)
	return c
}

// connect opens a connection and logs in on it.
func (s *Session) connect(ctx context.Context, address string) (*Conn, error) {
	for range 4 {
		c, moved, err := s.connectOnce(ctx, address)
		if err == nil || moved == "" {
			return c, err
		}
		address = moved
	}
	return nil, errors.New("the target sends its initiators from address to address")
}

func (s *Session) connectOnce(ctx context.Context, address string) (c *Conn, moved string, err error) {
	conn, err := s.opts.Dial(ctx, address)
	if err != nil {
		return nil, "", err
	}
	c = s.newConn(conn, address)
	// A cancelled context ends the login by closing its connection.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	moved, err = c.login()
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, moved, err
	}
	return c, "", nil
}

// Address returns the address that was connected to.
func (c *Conn) Address() string { return c.address }

// CID returns the connection identifier.
func (c *Conn) CID() uint16 { return c.cid }

// Parameters returns what the login of this connection led to.
func (c *Conn) Parameters() Parameters { return c.params }

// reader takes in PDUs until the connection ends, and then ends what was
// under way on it.
func (c *Conn) reader() {
	defer c.session.running.Done()
	s := c.session
	err := c.take() // the login may have read more than its own
	for err == nil {
		if err = c.read(); err == nil {
			err = c.take()
		}
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the target closed the connection: %w", io.ErrUnexpectedEOF)
	}
	s.mu.Lock()
	if s.leaving {
		err = ErrClosed
	}
	s.failLocked(err)
	for c.sending {
		s.quiet.Wait()
	}
	c.abandonLocked()
	done := settle(c.done.take())
	s.mu.Unlock()
	deliver(done)
	close(c.gone)
}

// abandonLocked moves everything under way on the connection to done.
func (c *Conn) abandonLocked() {
	s := c.session
	for i, e := range s.table {
		itt := uint32(e.round)<<16 | uint32(i)
		switch {
		case e.cmd != nil && e.cmd.conn == c:
			s.unregister(itt)
			e.cmd.Err = s.err
			c.done.push(e.cmd)
		case e.req != nil && e.req.conn == c:
			s.unregister(itt)
			e.req.finish(s.err)
		}
	}
	for all := s.waiting.take(); all != nil; {
		cmd := all
		all = cmd.next
		if cmd.conn == c {
			cmd.Err = s.err
			c.done.push(cmd)
		} else {
			s.waiting.push(cmd)
		}
	}
	for all := c.held.take(); all != nil; {
		cmd := all
		all = cmd.next
		c.done.push(cmd)
	}
}

// read waits for more from the target. The data of a stream goes straight to
// its command.
func (c *Conn) read() error {
	if st := &c.stream; st.active && st.left > 0 && st.cmd != nil && len(st.cmd.In) > 0 && c.r == c.w {
		n, err := c.conn.Read(st.cmd.In[st.at : st.at+st.left])
		c.streamed(st.cmd.In[st.at : st.at+n])
		return err
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.r > 0 && c.w == len(c.buf) {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	n, err := c.conn.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// streamed accounts for data of the stream that has arrived in its place.
func (c *Conn) streamed(p []byte) {
	st := &c.stream
	if c.params.DataDigest {
		st.crc = crc32.Update(st.crc, castagnoli, p)
	}
	st.at += len(p)
	st.left -= len(p)
}
