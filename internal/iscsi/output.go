package iscsi

import wire "lintel.io/lintel/internal/wire/iscsi"

// smallData is up to how many bytes data is copied beside its header rather
// than given a vector entry of its own.
const smallData = 256

// putLocked appends a PDU to the output: f's header, data, padding and
// digests. The data is copied where it is short.
func (c *conn) putLocked(f wire.Fields, data []byte) {
	h := c.headerLocked()
	f.Put(h)
	c.sealLocked(h, data)
}

// headerLocked begins a PDU and returns its header for the caller to fill in
// with a Put; sealLocked completes it.
func (c *conn) headerLocked() wire.BHS {
	n := wire.HeaderSize
	if c.params.headerDigest {
		n += wire.DigestSize
	}
	return c.out.Room(n)
}

func (c *conn) sealLocked(h wire.BHS, data []byte) {
	b, n := c.out, len(data)
	b.PDUs++
	if b.Len()+n >= c.server.cfg.OutputLimit {
		c.full.Store(true)
	}
	h.SetDataLength(n)
	if c.params.headerDigest {
		wire.PutDigest(h[wire.HeaderSize:], wire.Digest(h[:wire.HeaderSize]))
	}
	if n == 0 {
		return
	}
	if n <= smallData {
		copy(b.Room(n), data)
	} else {
		b.Data(data)
	}
	pad := wire.Pad(n) - n
	tail := pad
	if c.params.dataDigest {
		tail += wire.DigestSize
	}
	if tail == 0 {
		return
	}
	p := b.Room(tail)
	clear(p)
	if c.params.dataDigest {
		wire.PutDigest(p[pad:], wire.Digest(data, p[:pad]))
	}
}

// numbersLocked returns the sequence numbers of a PDU; next says that it
// takes a StatSN of its own.
func (c *conn) numbersLocked(next bool) wire.Numbers {
	n := wire.Numbers{StatSN: c.statSN, ExpCmdSN: c.session.expCmdSN.Load(), MaxCmdSN: c.session.maxCmdSN.Load()}
	if next {
		c.statSN++
	}
	return n
}

// flush writes the output until it is empty, unless somebody else is doing
// so. It blocks on a slow peer, so only the connection's own goroutines call it.
func (c *conn) flush() error {
	c.mu.Lock()
	err := c.flushLocked()
	c.mu.Unlock()
	return err
}

// flushLocked is flush with c.mu held, which it gives up while it writes.
func (c *conn) flushLocked() error {
	if c.flushing {
		return nil
	}
	c.flushing = true
	for !c.out.Empty() && !c.dead {
		b := c.out
		c.out = c.spare
		c.full.Store(c.closeAfterFlush)
		c.counters.PDUsOut += b.PDUs
		c.mu.Unlock()

		err := b.Write(c.nc)
		var first, last *task
		var retired uint64
		for _, t := range b.Finished() {
			retired += uint64(t.readLen)
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
		c.retired += retired
		if first != nil {
			last.next = c.free
			c.free = first
		}
		if c.outWait {
			c.outWait = false
			c.cond.Broadcast()
		}
		if err != nil {
			c.killLocked(err)
			break
		}
	}
	c.flushing = false
	if c.flushWait {
		c.flushWait = false
		c.cond.Broadcast()
	}
	if c.dead {
		return c.cause
	}
	if c.closeAfterFlush {
		c.killLocked(errDropped)
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

// writer sends what completes while the reader waits for the peer.
func (c *conn) writer() {
	defer close(c.writerDone)
	for {
		select {
		case <-c.wake:
			if c.flush() != nil {
				return
			}
		case <-c.stop:
			return
		}
	}
}
