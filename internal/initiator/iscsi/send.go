package iscsi

import (
	"sync/atomic"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// smallData is the size up to which data is copied next to its header instead
// of getting a segment of its own.
const smallData = 512

// segment is a piece of the stream: data of a command, or n bytes of the
// batch's own memory at off.
type segment struct {
	data   []byte
	off, n int
}

// batch is a run of PDUs that are sent together. Headers, digests and padding
// lie in own, which may move while the batch grows.
type batch struct {
	own  []byte
	segs []segment
	size int
	at   int // where the PDU under construction begins in own
}

func (b *batch) reset() {
	b.own, b.segs, b.size = b.own[:0], b.segs[:0], 0
}

func (b *batch) grow(n int) []byte {
	at := len(b.own)
	if cap(b.own)-at < n {
		b.own = append(b.own, make([]byte, n)...)
	} else {
		b.own = b.own[:at+n]
	}
	return b.own[at:]
}

// header begins a PDU and returns its header, to be filled.
func (b *batch) header() wire.BHS {
	b.at = len(b.own)
	return wire.BHS(b.grow(wire.HeaderSize))
}

// additional appends additional header segments to the PDU that header began and
// returns its header, which may have moved.
func (b *batch) additional(ahs []byte) wire.BHS {
	b.own = append(b.own, ahs...)
	h := wire.BHS(b.own[b.at : b.at+wire.HeaderSize])
	h.SetAHSLength(len(ahs))
	return h
}

// finish ends the PDU that header began: it sets its data length and appends digests, data and padding.
func (b *batch) finish(c *Conn, h wire.BHS, data []byte) {
	h.SetDataLength(len(data))
	if c.params.HeaderDigest {
		d := wire.Digest(b.own[b.at:])
		wire.PutDigest(b.grow(wire.DigestSize), d)
	}
	var d uint32
	digest := c.params.DataDigest && len(data) > 0
	pad := wire.Pad(len(data)) - len(data)
	if digest {
		d = wire.Digest(data, zeros[:pad])
	}
	if len(data) > smallData {
		b.flushOwn()
		b.segs = append(b.segs, segment{data: data})
		b.size += len(data)
		b.at = len(b.own)
	} else {
		b.own = append(b.own, data...)
	}
	if pad > 0 {
		b.own = append(b.own, zeros[:pad]...)
	}
	if digest {
		wire.PutDigest(b.grow(wire.DigestSize), d)
	}
	b.flushOwn()
}

var zeros [4]byte

// flushOwn makes a segment of the bytes from at on, or lengthens the last one.
func (b *batch) flushOwn() {
	n := len(b.own) - b.at
	if n == 0 {
		return
	}
	b.size += n
	if i := len(b.segs) - 1; i >= 0 && b.segs[i].data == nil && b.segs[i].off+b.segs[i].n == b.at {
		b.segs[i].n += n
	} else {
		b.segs = append(b.segs, segment{off: b.at, n: n})
	}
}

// bytes returns the memory of a segment.
func (b *batch) bytes(s segment) []byte {
	if s.data != nil {
		return s.data
	}
	return b.own[s.off : s.off+s.n]
}

// sender is the sending side of a connection. Whoever finds PDUs queued and
// nobody sending takes the batch and writes it, as far as the socket takes
// it; the rest is left to the connection's writer goroutine, so that a
// callback never waits for the target.
type sender struct {
	queue    *batch // accumulates; guarded by Session.mu
	flight   *batch // being written; belongs to whoever set sending
	sending  bool   // guarded by Session.mu
	reading  bool   // the reader flushes soon; guarded by Session.mu
	accepted uint64 // bytes of all batches before queue; guarded by Session.mu
	written  atomic.Uint64
	held     list // commands that ended while their data was being sent; guarded by Session.mu
	out      output
	handoff  chan struct{} // to the writer: flight has a rest
}

// queued returns the position in the stream after everything that is queued.
func (c *Conn) queued() uint64 { return c.accepted + uint64(c.queue.size) }

// kickLocked sends what is queued, unless somebody else is about to. It is
// called with Session.mu held and releases it.
func (c *Conn) kickLocked() {
	if c.reading || c.sending || c.queue.size == 0 || c.session.err != nil {
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
			if c.queue.size == 0 {
				break
			}
			c.queue, c.flight = c.flight, c.queue
			c.accepted += uint64(c.flight.size)
			c.out.begin(c.flight)
		}
		s.mu.Unlock()
		n, done, err := c.out.write(resume)
		c.written.Add(uint64(n))
		if err != nil {
			s.fail(err)
		}
		if done {
			c.flight.reset()
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
		cmd.next, cmd.state = nil, idle
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
