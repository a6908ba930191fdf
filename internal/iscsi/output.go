package iscsi

import (
	"net"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// batch is what goes out with one vectored write. Headers lie in an arena,
// data stays where it is; parts that touch each other in the arena share one
// vector entry.
type batch struct {
	vec    net.Buffers // what to write, in order
	store  net.Buffers // vec's full backing array, for reuse
	arena  []byte
	bytes  int
	open   bool // the last entry of vec ends at the end of arena
	done   *task
	doneTo *task
	pdus   uint64
}

const arenaSize = 8 << 10

// room returns n fresh bytes of the arena, appended to the vector.
func (b *batch) room(n int) []byte {
	if len(b.arena)+n > cap(b.arena) {
		b.arena = make([]byte, 0, max(2*cap(b.arena), arenaSize, n)) // what vec refers to stays alive
		b.open = false
	}
	at := len(b.arena)
	b.arena = b.arena[:at+n]
	if b.open {
		last := &b.vec[len(b.vec)-1]
		*last = (*last)[:len(*last)+n]
	} else {
		b.vec = append(b.vec, b.arena[at:at+n])
		b.open = true
	}
	b.bytes += n
	return b.arena[at : at+n : at+n]
}

// data appends bytes that stay where they are.
func (b *batch) data(p []byte) {
	if len(p) == 0 {
		return
	}
	b.vec = append(b.vec, p)
	b.open = false
	b.bytes += len(p)
}

// finish hands a task over to the batch: it is released after the write.
func (b *batch) finish(t *task) {
	t.next = nil
	if b.done == nil {
		b.done = t
	} else {
		b.doneTo.next = t
	}
	b.doneTo = t
}

func (b *batch) empty() bool { return len(b.vec) == 0 }

// reset readies the batch for reuse, without memory that grew past what is
// usual.
func (b *batch) reset() {
	const maxVec, maxArena = 4096, 256 << 10
	clear(b.store)
	b.vec = b.store[:0]
	if cap(b.store) > maxVec {
		b.vec = nil
	}
	b.arena = b.arena[:0]
	if cap(b.arena) > maxArena {
		b.arena = nil
	}
	b.bytes, b.open, b.done, b.doneTo, b.pdus = 0, false, nil, nil, 0
}

// write sends everything.
func (b *batch) write(nc net.Conn) error {
	b.store = b.vec
	if len(b.vec) == 1 {
		_, err := nc.Write(b.vec[0])
		return err
	}
	_, err := b.vec.WriteTo(nc)
	return err
}

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
	return c.out.room(n)
}

func (c *conn) sealLocked(h wire.BHS, data []byte) {
	b, n := c.out, len(data)
	b.pdus++
	if b.bytes+n >= c.server.cfg.OutputLimit {
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
		copy(b.room(n), data)
	} else {
		b.data(data)
	}
	pad := wire.Pad(n) - n
	tail := pad
	if c.params.dataDigest {
		tail += wire.DigestSize
	}
	if tail == 0 {
		return
	}
	p := b.room(tail)
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
	for !c.out.empty() && !c.dead {
		b := c.out
		c.out = c.spare
		c.full.Store(false)
		c.counters.PDUsOut += b.pdus
		c.mu.Unlock()

		err := b.write(c.nc)
		first, last := b.done, b.doneTo
		var retired uint64
		for t := first; t != nil; t = t.next {
			retired += uint64(t.readLen)
			c.release(t)
		}
		b.reset()

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
