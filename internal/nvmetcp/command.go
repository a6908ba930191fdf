package nvmetcp

import (
	"lintel.io/lintel/internal/block"
	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// command takes a command capsule with the data in it; ok says that its digest
// is right (NVMe/TCP 1.0 §3.3.1, §3.6.2.6).
func (c *conn) command(p wire.PDU, data []byte, ok bool) error {
	if c.began-c.seenEnded >= c.limit && !c.mayBegin() {
		return newFault(wire.Fault{Status: wire.StatusSequence}, p)
	}
	t := c.newTask()
	if t == nil {
		return c.cause
	}
	t.begin(p.SQE())
	if t.read = t.readLength(); t.read > 0 && !c.expectRead(t) {
		return c.cause
	}
	c.began++
	c.tally.Commands++
	t.want = c.queue.DataOutLength(&t.Request)
	off, _, kind := t.SQE.SGL()
	switch {
	case t.want == 0 && ok:
	case !ok:
		t.Refuse = wirenvme.TransientTransport // the digest is wrong (NVMe/TCP 1.0 §3.3.1.1)
	case t.want > block.MaxBuffer:
		t.Refuse = wirenvme.InvalidField.DNR()
	case kind != wirenvme.SGLOffset:
		c.gather(t)
		return nil
	case off > uint64(len(data)) || t.want > len(data)-int(off):
		t.Refuse = wirenvme.SGLLengthInvalid.DNR()
	default:
		t.buf = block.Get(t.want)
		t.DataOut = t.buf.Bytes(t.want)
		copy(t.DataOut, data[off:])
		c.tally.BytesWritten += uint64(t.want)
	}
	c.queue.Execute(&t.Request)
	return nil
}

// mayBegin looks again whether the queue has room for a command.
func (c *conn) mayBegin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seenEnded, c.limit = c.ended, c.depth
	return c.began-c.seenEnded < c.limit
}

// expectRead counts what a read asks for. Where the reads of the connection hold
// too much memory already, it waits for some of them to be sent.
func (c *conn) expectRead(t *task) bool {
	limit, n := uint64(c.server.cfg.ReadBudget), uint64(t.read)
	if held := c.asked - c.seenGiven; held > 0 && held+n > limit {
		c.mu.Lock()
		alive := c.awaitLocked(func() bool {
			c.seenGiven = c.given
			held := c.asked - c.seenGiven
			return held == 0 || held+n <= limit
		})
		c.mu.Unlock()
		if !alive {
			return false
		}
	}
	c.asked += n
	return true
}

// gather begins to ask for the data of a command (NVMe/TCP 1.0 §3.3.2.1).
func (c *conn) gather(t *task) {
	c.mu.Lock()
	t.gathering = true
	t.asked = c.server.tick.Load()
	if c.server.budget.Take(&t.claim, int64(t.want), true) {
		c.solicitLocked(t)
	} else {
		t.waiting = true
	}
	c.mu.Unlock()
}

// granted goes on with a command that waited in line for budget.
func (c *conn) granted(t *task) {
	c.mu.Lock()
	t.waiting = false
	t.asked = c.server.tick.Load()
	if c.dead {
		c.cond.Broadcast() // cleanUp waits
	} else {
		c.solicitLocked(t)
		c.wakeLocked()
	}
	c.mu.Unlock()
}

// solicitLocked sends the R2Ts that may be outstanding (NVMe/TCP 1.0 §3.6.2.10).
func (c *conn) solicitLocked(t *task) {
	if t.buf == nil {
		t.buf = block.Get(t.want)
	}
	for t.r2tCount < c.r2ts && t.requested < t.want {
		size := min(t.want-t.requested, c.server.cfg.MaxH2CData)
		tag := t.index<<tagShift | t.r2tSeq&tagMask
		t.r2tSeq++
		h := c.headerLocked(wire.TypeR2T, 0)
		(&wire.R2T{CommandID: t.cid, TransferTag: tag, Offset: uint32(t.requested), Count: uint32(size)}).Put(h)
		c.sealLocked(h, nil, 0)
		t.r2ts[t.r2tCount] = r2t{tag: tag, next: t.requested, end: t.requested + size}
		t.r2tCount++
		t.requested += size
	}
}

// beginData takes an H2CData PDU of n bytes (NVMe/TCP 1.0 §3.6.2.8) and
// returns its command with the place for the data.
func (c *conn) beginData(p wire.PDU, n int) (*task, []byte, wire.Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tag := p.TransferTag()
	i := int(tag >> tagShift)
	if i >= len(c.tasks) {
		return nil, nil, wire.Invalid(wire.OffTTAG)
	}
	t := c.tasks[i]
	if !t.gathering {
		return nil, nil, wire.Invalid(wire.OffTTAG)
	}
	r := t.findR2T(tag)
	if r == nil {
		return nil, nil, wire.Invalid(wire.OffTTAG)
	}
	if p.CommandID() != t.cid {
		return nil, nil, wire.Invalid(wire.OffCCCID)
	}
	off := uint64(p.Offset())
	if off != uint64(r.next) || off+uint64(n) > uint64(r.end) {
		return nil, nil, wire.Fault{Status: wire.StatusOutOfRange}
	}
	if p.Last() != (r.next+n == r.end) {
		return nil, nil, wire.Invalid(wire.OffFlags)
	}
	return t, t.buf.Bytes(t.want)[off : off+uint64(n)], wire.Fault{}
}

// endData goes on with a command when an H2CData PDU has been read.
func (c *conn) endData(p wire.PDU, t *task, n int, ok bool) error {
	c.tally.BytesWritten += uint64(n)
	c.mu.Lock()
	if !ok {
		t.Refuse = wirenvme.TransientTransport // and nothing more is asked for
		t.requested = t.want
	}
	r := t.findR2T(p.TransferTag())
	if r.next += n; r.next == r.end {
		t.endR2T(r)
	}
	c.solicitLocked(t)
	complete := t.r2tCount == 0
	t.gathering = !complete
	c.mu.Unlock()
	if complete {
		if t.Refuse == 0 {
			t.DataOut = t.buf.Bytes(t.want)
		}
		c.queue.Execute(&t.Request)
	}
	return nil
}
