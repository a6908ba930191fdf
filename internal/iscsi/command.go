package iscsi

import (
	"lintel.io/lintel/internal/block"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// beginCommand takes a SCSI Command PDU with n bytes of immediate data
// (RFC 7143 §11.3) and returns the task with the place for the data. The task
// is nil where the PDU is rejected or ignored; its data is then skipped.
func (c *conn) beginCommand(b wire.BHS, ahs []byte, n int) (*task, []byte) {
	if c.nexus == nil {
		c.reject(wire.ReasonProtocolError, b)
		return nil, nil
	}
	immediate := b.Immediate()
	if !immediate && !c.session.inWindow(b.CmdSN()) {
		return nil, nil
	}
	if !b.Write() && !b.Final() {
		c.reject(wire.ReasonInvalidField, b)
		return nil, nil
	}
	if immediate && !c.takeImmediate() {
		c.reject(wire.ReasonImmediate, b)
		return nil, nil
	}
	t := c.newTask()
	if t == nil {
		if immediate {
			c.mu.Lock()
			c.immediates--
			c.mu.Unlock()
		}
		c.reject(wire.ReasonNoResources, b)
		return nil, nil
	}
	t.setCommand(b)
	if len(ahs) > 0 && !t.setAHS(ahs) {
		c.unuse(t)
		c.reject(wire.ReasonInvalidField, b)
		return nil, nil
	}
	c.local.Commands++
	if t.readLen > 0 {
		c.expectRead(t)
	}
	t.want = c.nexus.DataOutLength(&t.Task)
	if t.writeLen > 0 || n > 0 || !b.Final() {
		c.expectData(t, b.Final(), n)
	}
	if t.buf == nil {
		return t, nil
	}
	return t, t.buf.Bytes(min(n, t.need))
}

// takeImmediate counts an immediate command in.
func (c *conn) takeImmediate() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.immediates >= c.server.cfg.MaxImmediate {
		return false
	}
	c.immediates++
	return true
}

// unuse gives back a task that has never been a command.
func (c *conn) unuse(t *task) {
	if t.immediate {
		c.mu.Lock()
		c.immediates--
		c.mu.Unlock()
	}
	t.next, c.spares = c.spares, t
}

// abandon gives a task back whose data the connection broke off in.
func (c *conn) abandon(t *task) {
	if t == nil {
		return
	}
	c.mu.Lock()
	listed := t.listed
	t.filling = false
	gone := t.dropped
	c.mu.Unlock()
	if !listed || gone {
		c.discard(t)
	}
}

// setAHS takes the additional header segments (RFC 7143 §11.2.2).
func (t *task) setAHS(ahs []byte) bool {
	for len(ahs) > 0 {
		kind, data, rest, err := wire.NextAHS(ahs)
		if err != nil {
			return false
		}
		switch kind {
		case wire.AHSExtendedCDB:
			t.CDB = append(append([]byte(nil), t.cdb[:]...), data[1:]...)
		case wire.AHSBidiLength:
			if len(data) != 5 {
				return false
			}
			if t.read && t.write {
				t.readLen = uint32(data[1])<<24 | uint32(data[2])<<16 | uint32(data[3])<<8 | uint32(data[4])
			}
		default:
			return false
		}
		ahs = rest
	}
	return true
}

// expectRead counts what a read asks for. Where the reads of the connection
// hold too much memory already, it gets TASK SET FULL.
func (c *conn) expectRead(t *task) {
	limit := uint64(c.server.cfg.ReadBudget)
	if held := c.started - c.settled; held > 0 && held+uint64(t.readLen) > limit {
		c.mu.Lock()
		c.settled = c.retired
		c.mu.Unlock()
		if held = c.started - c.settled; held > 0 && held+uint64(t.readLen) > limit {
			t.failure = failFull
		}
	}
	c.started += uint64(t.readLen)
}

// expectData decides what Data-Out of the command is taken, with n bytes of
// immediate data before it (RFC 7143 §4.2.5.2, §13.10, §13.11, §13.14).
func (c *conn) expectData(t *task, final bool, n int) {
	t.need = min(t.want, int(t.writeLen))
	t.unsolicited = !final
	switch {
	case !t.write, n > 0 && !c.params.ImmediateData, n > int(t.writeLen), n > c.params.FirstBurst, !final && c.params.InitialR2T:
		t.failure = failUnexpectedData
	case t.need > block.MaxBuffer:
		t.failure = failDataTooLong
	case t.need > n && (n > 0 || t.unsolicited) && !c.server.budget.Take(&t.claim, int64(t.need), false):
		t.failure = failBusy
	}
	if t.failure != failNone {
		t.need = 0
		return
	}
	if t.need > 0 && (n > 0 || t.unsolicited) {
		t.buf = block.Get(t.need)
	}
}

// endCommand goes on with a command when its PDU has been read.
func (c *conn) endCommand(b wire.BHS, t *task, n int, ok bool) error {
	if t == nil {
		return nil
	}
	if !ok {
		// The PDU counts as never received: its CmdSN stays open (RFC 7143 §7.8).
		c.local.DigestErrors++
		c.started -= uint64(t.readLen)
		c.release(t)
		c.unuse(t)
		c.reject(wire.ReasonDataDigest, b)
		return nil
	}
	t.got = n
	t.requested = n
	c.local.BytesWritten += uint64(n)
	gathers := t.got < t.need || t.unsolicited || t.failure != failNone
	if gathers {
		c.mu.Lock()
		c.listLocked(t)
		c.mu.Unlock()
	}
	c.session.admit(c, request{conn: c, cmdSN: t.cmdSN, immediate: t.immediate, task: t, gathers: gathers})
	return nil
}

// start runs a command whose turn has come, or what of it can go on. The
// caller is the connection's reader, or, where the command is or was on the
// gathering list, anyone: others may have ended it meanwhile.
func (c *conn) start(t *task, gathers bool) {
	if !gathers {
		t.state = taskExecuting
		c.execute(t)
		return
	}
	c.mu.Lock()
	t.turn = true
	run := c.advanceLocked(t)
	c.mu.Unlock()
	if run {
		c.execute(t)
	}
}

// execute hands a complete command to the nexus.
func (c *conn) execute(t *task) {
	if t.buf != nil {
		t.DataOut = t.buf.Bytes(min(t.got, t.need))
	}
	c.nexus.Execute(&t.Task)
}

// advanceLocked moves a gathering command on: it answers a failed one, asks
// for more data, or returns true where the command is to be executed.
func (c *conn) advanceLocked(t *task) bool {
	switch {
	case !t.listed || t.dropped || c.dead || !t.turn || t.unsolicited || t.filling:
		return false // not listed: somebody else has moved it on meanwhile
	case t.failure != failNone:
		if t.r2tCount == 0 {
			c.unlistLocked(t)
			t.apply(t.failure)
			c.respondLocked(t)
			c.wakeLocked()
		}
		return false
	case t.got >= t.need:
		c.unlistLocked(t)
		t.state = taskExecuting
		return true
	case t.waiting:
		return false
	case !t.claim.Holds() && !c.server.budget.Take(&t.claim, int64(t.need), true):
		t.waiting = true
		return false
	}
	if t.buf == nil {
		t.buf = block.Get(t.need)
	}
	c.solicitLocked(t)
	return false
}

// granted goes on with a command that waited in line for budget.
func (c *conn) granted(t *task) {
	c.mu.Lock()
	t.waiting = false
	dropped := t.dropped
	if !dropped {
		c.advanceLocked(t)
	}
	c.mu.Unlock()
	if dropped {
		c.discard(t)
	}
}

// solicitLocked sends the R2Ts that may be outstanding (RFC 7143 §11.8).
func (c *conn) solicitLocked(t *task) {
	if t.r2tSN == 0 {
		t.asked = c.server.tick.Load()
	}
	sent := false
	for t.r2tCount < c.params.MaxOutstandingR2T && t.requested < t.need {
		size := min(t.need-t.requested, c.params.MaxBurst)
		ttt := t.index<<20 | c.nextTTT&0xfffff
		c.nextTTT++
		h := c.headerLocked()
		(&wire.R2T{
			LUN: t.LUN, ITT: t.itt, TTT: ttt, Numbers: c.numbersLocked(false),
			R2TSN: t.r2tSN, BufferOffset: uint32(t.requested), DesiredLength: uint32(size),
		}).Put(h)
		c.sealLocked(h, nil)
		*t.r2t(t.r2tCount) = r2t{ttt: ttt, off: t.requested, end: t.requested + size}
		t.r2tCount++
		t.r2tSN++
		t.requested += size
		sent = true
	}
	if sent {
		c.wakeLocked()
	}
}

// beginDataOut takes a Data-Out PDU of n bytes (RFC 7143 §11.7) and returns
// its task with the place for the data. Data of commands that are no more is
// skipped: the initiator may not know yet.
func (c *conn) beginDataOut(b wire.BHS, n int) (*task, []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.gatheringTask(b)
	if t == nil {
		return nil, nil
	}
	off := int(b.BufferOffset())
	var fail failure
	switch {
	case b.DataSN() != t.dataSN, off != t.got:
		fail = failProtocolCRC
	case t.unsolicited:
		if off+n > c.params.FirstBurst || off+n > int(t.writeLen) {
			fail = failUnexpectedData
		}
	case off+n > t.front().end:
		fail = failProtocolCRC
	}
	if t.failure == failNone {
		t.failure = fail
	}
	t.filling = true
	if t.failure != failNone || t.buf == nil || off >= t.need {
		return t, nil
	}
	return t, t.buf.Bytes(t.need)[off:min(off+n, t.need)]
}

// gatheringTask finds the command of a Data-Out PDU; nil where there is none
// that waits for it.
func (c *conn) gatheringTask(b wire.BHS) *task {
	itt, ttt := b.ITT(), b.TTT()
	if ttt == wire.NoTag {
		for t := c.gathering; t != nil; t = t.gatherNext {
			if t.unsolicited && t.itt == itt && !t.dropped {
				return t
			}
		}
		return nil
	}
	i := ttt >> 20
	if int(i) >= len(c.tasks) {
		return nil
	}
	t := c.tasks[i]
	if !t.listed || t.dropped || t.itt != itt || !t.owns(ttt) {
		return nil
	}
	if t.front().ttt != ttt && t.failure == failNone {
		t.failure = failProtocolCRC // DataSequenceInOrder
	}
	return t
}

// endDataOut goes on with a command when a Data-Out PDU has been read.
func (c *conn) endDataOut(b wire.BHS, t *task, n int, ok bool) error {
	if !ok {
		c.local.DigestErrors++
		c.reject(wire.ReasonDataDigest, b)
	}
	if t == nil {
		return nil
	}
	c.local.BytesWritten += uint64(n)
	c.mu.Lock()
	t.filling = false
	if t.dropped {
		c.mu.Unlock()
		c.discard(t)
		return nil
	}
	if !ok && t.failure == failNone {
		t.failure = failProtocolCRC
	}
	t.got += n
	t.dataSN++
	c.sequenceLocked(t, b.TTT(), b.Final())
	c.mu.Unlock()
	c.session.advance(c, t)
	return nil
}

// sequenceLocked ends the sequence under way at its last PDU.
func (c *conn) sequenceLocked(t *task, ttt uint32, final bool) {
	if t.unsolicited {
		if final {
			t.unsolicited, t.dataSN = false, 0
			t.requested = t.got
		}
		return
	}
	front := t.front()
	full := front.ttt == ttt && t.got >= front.end
	if final != full && t.failure == failNone {
		t.failure = failProtocolCRC
	}
	if final || full {
		if front.ttt == ttt {
			t.got = front.end
		}
		t.endR2T(ttt)
	}
}
