package nvmetcp

import wire "lintel.io/lintel/internal/wire/nvmetcp"

// smallData is up to how many bytes data is copied beside its header rather
// than given a vector entry of its own.
const smallData = 256

// headerLocked begins a PDU with n bytes of data and returns its header for
// the caller to fill in with a Put; sealLocked completes it.
func (c *conn) headerLocked(t wire.Type, n int) wire.PDU {
	return c.out.Room(c.send.Room(t, n > 0))
}

// sealLocked completes a PDU; digest is that of its data, where there is to be one.
func (c *conn) sealLocked(h wire.PDU, data []byte, digest uint32) {
	b, n := c.out, len(data)
	b.PDUs++
	if b.Len()+n >= c.server.cfg.OutputLimit {
		c.full.Store(true)
	}
	c.send.Seal(h, n)
	if n == 0 {
		return
	}
	if n <= smallData {
		copy(b.Room(n), data)
	} else {
		b.Data(data)
	}
	if c.send.DataDigest {
		wire.PutDigest(b.Room(wire.DigestSize), digest)
	}
}

// flushLocked writes the output until it is empty, unless somebody else is
// doing so. c.mu is given up while it writes. It blocks on a slow host, so only the
// connection's own goroutines call it.
func (c *conn) flushLocked() error {
	for !c.flushing && !c.out.Empty() && !c.dead {
		b := c.out
		c.out = c.spare
		c.flushing = true
		c.full.Store(false)
		c.counters.PDUsOut += b.PDUs
		c.mu.Unlock()

		err := b.Write(c.nc)
		var given uint64
		var first, last *task
		for _, t := range b.Finished() {
			given += uint64(t.read)
			c.release(t)
			if last == nil {
				last = t
			}
			t.next, first = first, t
		}
		b.Reset()

		c.mu.Lock()
		c.spare = b
		c.writes++
		c.given += given
		if first != nil {
			last.next = c.free
			c.free = first
		}
		c.flushing = false
		if err != nil {
			c.killLocked(err)
		}
		if c.outWait || c.dead {
			c.outWait = false
			c.cond.Broadcast()
		}
	}
	if c.dead {
		return c.cause
	}
	if c.closeAfterFlush && !c.flushing {
		c.flushing = true
		c.mu.Unlock()
		c.part()
		c.mu.Lock()
		c.flushing = false
		c.killLocked(c.cause)
		c.cond.Broadcast() // it may have been killed meanwhile
		return c.cause
	}
	return nil
}

// wakeLocked makes sure that the output is sent: by the reader at the end of its batch,
// by whoever is writing, or else by the writer.
func (c *conn) wakeLocked() {
	if c.busy || c.flushing {
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// writer sends what completes while the reader waits for the host.
func (c *conn) writer() {
	defer close(c.writerDone)
	for {
		select {
		case <-c.wake:
			c.mu.Lock()
			err := c.flushLocked()
			c.mu.Unlock()
			if err != nil {
				return
			}
		case <-c.stop:
			return
		}
	}
}
