package iscsi

import (
	"encoding/binary"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// taskDone takes a finished command, on whatever goroutine finished it, and
// puts its response into the output.
func (c *conn) taskDone(t *task) {
	if t.Aborted {
		c.discard(t)
		return
	}
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		c.discard(t)
		return
	}
	c.respondLocked(t)
	c.wakeLocked()
	c.mu.Unlock()
}

// discard ends a command without a response.
func (c *conn) discard(t *task) {
	c.release(t)
	c.mu.Lock()
	c.endLocked(t)
	c.retired += uint64(t.readLen)
	t.next = c.free
	c.free = t
	if c.draining > 0 && t.state == taskExecuting {
		if c.draining--; c.draining == 0 {
			c.cond.Broadcast()
		}
	}
	t.state = taskFree
	if c.outWait {
		c.outWait = false
		c.cond.Broadcast()
	}
	c.mu.Unlock()
}

// endLocked gives back what a command holds of the windows.
func (c *conn) endLocked(t *task) {
	if t.immediate {
		c.immediates--
	} else if !t.uncounted {
		c.session.maxCmdSN.Add(1)
	}
}

// release gives the buffers of a task back. c.mu is not held: room in the
// budget may start Data-Out of other connections.
func (c *conn) release(t *task) {
	if t.buf != nil {
		t.buf.Put()
		t.buf = nil
	}
	t.Release()
	c.server.budget.Release(&t.claim)
}

// respondLocked puts the Data-In PDUs and the SCSI Response of a command into
// the output (RFC 7143 §11.4, §11.7).
func (c *conn) respondLocked(t *task) {
	if c.draining > 0 && t.state == taskExecuting {
		if c.draining--; c.draining == 0 {
			c.cond.Broadcast()
		}
	}
	t.state = taskAnswered
	c.endLocked(t)
	flags, residual := t.residual()
	var dataSN uint32
	if n := min(len(t.DataIn), int(t.readLen)); n > 0 && t.Status != scsi.StatusCheckCondition {
		collapse := t.Status == scsi.StatusGood
		dataSN = c.dataInLocked(t, n, collapse, flags, residual)
		if collapse {
			c.out.Finish(t)
			return
		}
	}
	h := c.headerLocked()
	(&wire.SCSIResponse{
		Flags: flags, Response: wire.ResponseCompleted, Status: uint8(t.Status),
		ITT: t.itt, Numbers: c.numbersLocked(true), ExpDataSN: dataSN + t.r2tSN, Residual: residual,
	}).Put(h)
	if t.SenseLen > 0 {
		var sense [2 + scsi.MaxSense]byte
		binary.BigEndian.PutUint16(sense[:], uint16(t.SenseLen))
		n := copy(sense[2:], t.Sense[:t.SenseLen])
		c.sealLocked(h, sense[:2+n])
	} else {
		c.sealLocked(h, nil)
	}
	c.out.Finish(t)
}

// dataInLocked sends the first n bytes of the command's data, in PDUs of at most what
// the initiator takes and sequences of at most MaxBurstLength, and returns
// how many PDUs that took.
func (c *conn) dataInLocked(t *task, n int, collapse bool, flags uint8, residual uint32) uint32 {
	var sn uint32
	burst := c.params.MaxBurst
	for off := 0; off < n; sn++ {
		size := min(n-off, c.params.maxSend, burst)
		f := wire.DataIn{LUN: t.LUN, ITT: t.itt, TTT: wire.NoTag, DataSN: sn, BufferOffset: uint32(off)}
		if burst -= size; burst == 0 || off+size == n {
			f.Flags = wire.FlagFinal
			burst = c.params.MaxBurst
		}
		status := collapse && off+size == n
		if status {
			f.Flags |= wire.FlagStatus | flags
			f.Status = uint8(t.Status)
			f.Residual = residual
		}
		f.Numbers = c.numbersLocked(status)
		if !status {
			f.Numbers.StatSN = 0 // reserved without the S bit
		}
		h := c.headerLocked()
		f.Put(h)
		c.sealLocked(h, t.DataIn[off:off+size])
		off += size
	}
	c.counters.BytesRead += uint64(n)
	return sn
}

// residual compares what the command moved with what the initiator expected
// (RFC 7143 §11.4.5).
func (t *task) residual() (flags uint8, n uint32) {
	var expected, actual uint64
	if t.write {
		expected, actual = uint64(t.writeLen), uint64(t.want)
	} else {
		expected, actual = uint64(t.readLen), uint64(len(t.DataIn))
		if t.Status == scsi.StatusCheckCondition {
			actual = 0
		}
	}
	switch {
	case actual > expected:
		return wire.FlagOverflow, uint32(min(actual-expected, 1<<32-1))
	case actual < expected:
		return wire.FlagUnderflow, uint32(expected - actual)
	}
	return 0, 0
}
