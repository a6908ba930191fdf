package iscsi

import (
	"sync/atomic"

	"lintel.io/lintel/internal/initiator/sendq"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// seal ends the PDU whose header, additional segments included, is the last
// thing queued: it sets its data length and appends digests, data and padding.
func (c *Conn) seal(h wire.BHS, data []byte) {
	h.SetDataLength(len(data))
	if c.params.HeaderDigest {
		d := wire.Digest(h)
		wire.PutDigest(c.queue.Grow(wire.DigestSize), d)
	}
	if len(data) == 0 {
		return
	}
	pad := wire.Pad(len(data)) - len(data)
	c.queue.Append(data)
	c.queue.Append(zeros[:pad])
	if c.params.DataDigest {
		wire.PutDigest(c.queue.Grow(wire.DigestSize), wire.Digest(data, zeros[:pad]))
	}
}

var zeros [4]byte

// sender is the sending side of a connection. Whoever finds PDUs queued and
// nobody sending takes the batch and writes it, as far as the socket takes
// it; the rest is left to the connection's writer goroutine, so that a
// callback never waits for the target.
type sender struct {
	queue    *sendq.Batch // accumulates; guarded by Session.mu
	flight   *sendq.Batch // being written; belongs to whoever set sending
	sending  bool         // guarded by Session.mu
	reading  bool         // the reader flushes soon; guarded by Session.mu
	accepted uint64       // bytes of all batches before queue; guarded by Session.mu
	written  atomic.Uint64
	held     list // commands that ended while their data was being sent; guarded by Session.mu
	out      *sendq.Output
	handoff  chan struct{} // to the writer: flight has a rest
}

// queued returns the position in the stream after everything that is queued.
func (c *Conn) queued() uint64 { return c.accepted + uint64(c.queue.Size()) }

// kickLocked sends what is queued, unless somebody else is about to. It is
// called with Session.mu held and releases it.
func (c *Conn) kickLocked() {
	if c.reading || c.sending || c.queue.Size() == 0 || c.session.err != nil {
		c.session.mu.Unlock()
		return
	}
	c.sending = true
	c.sendLocked(false)
}

// sendLocked writes batch after batch until nothing is queued. With resume it
// first ends the one in flight, waiting for the socket. It is called with
// Session.mu held and sending set, and releases both, or leaves sending to
// the writer.
func (c *Conn) sendLocked(resume bool) {
	s := c.session
	for s.err == nil {
		if !resume {
			if c.queue.Size() == 0 {
				break
			}
			c.queue, c.flight = c.flight, c.queue
			c.accepted += uint64(c.flight.Size())
			c.out.Begin(c.flight)
		}
		s.mu.Unlock()
		n, done, err := c.out.Write(resume)
		c.written.Add(uint64(n))
		if err != nil {
			s.fail(err)
		}
		if done {
			c.flight.Reset()
		}
		s.mu.Lock()
		c.releaseLocked()
		if err == nil && !done {
			if !resume {
				s.mu.Unlock()
				c.handoff <- struct{}{}
				return
			}
			continue
		}
		resume = false
	}
	c.sending = false
	s.quiet.Broadcast()
	s.mu.Unlock()
}

// releaseLocked ends the held commands whose data has left. Session.mu is
// held, and released meanwhile.
func (c *Conn) releaseLocked() {
	if c.held.head == nil {
		return
	}
	var ready list
	written := c.written.Load()
	for all := c.held.take(); all != nil; {
		cmd := all
		all = cmd.next
		if cmd.sent <= written && c.stream.cmd != cmd {
			ready.push(cmd)
		} else {
			c.held.push(cmd)
		}
	}
	if ready.head == nil {
		return
	}
	c.session.mu.Unlock()
	deliver(ready.take())
	c.session.mu.Lock()
}

// deliver runs the callbacks of a list of commands.
func deliver(cmd *Command) {
	var c *Conn
	for cmd != nil {
		if cmd.conn != c {
			if c != nil {
				c.callback.Unlock()
			}
			c = cmd.conn
			c.callback.Lock()
		}
		next := cmd.next
		cmd.next = nil
		cmd.Done(cmd)
		cmd = next
	}
	if c != nil {
		c.callback.Unlock()
	}
}

// writer writes the rests of batches that the socket did not take at once.
func (c *Conn) writer() {
	defer c.session.running.Done()
	for {
		select {
		case <-c.handoff:
			c.session.mu.Lock()
			c.sendLocked(true)
		case <-c.gone:
			return
		}
	}
}

// settle makes a chain of ended commands idle. Session.mu is held.
func settle(chain *Command) *Command {
	for cmd := chain; cmd != nil; cmd = cmd.next {
		cmd.state = idle
	}
	return chain
}
