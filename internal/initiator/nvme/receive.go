package nvme

import (
	"fmt"

	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// read waits for more from the target. The data of a stream goes straight to
// its command.
func (q *Queue) read() error {
	if st := &q.stream; st.active && st.left > 0 && len(st.cmd.In) > 0 && q.r == q.w {
		n, err := q.conn.Read(st.cmd.In[st.at : st.at+st.left])
		q.streamed(st.cmd.In[st.at : st.at+n])
		return err
	}
	if q.r == q.w {
		q.r, q.w = 0, 0
	} else if q.r > 0 && q.w == len(q.buf) {
		q.w = copy(q.buf, q.buf[q.r:q.w])
		q.r = 0
	}
	n, err := q.conn.Read(q.buf[q.w:])
	q.w += n
	if n > 0 {
		return nil
	}
	return err
}

// streamed accounts for data of the stream that has arrived in its place.
func (q *Queue) streamed(p []byte) {
	st := &q.stream
	if q.recv.DataDigest {
		st.digest = pdu.ContinueDigest(st.digest, p)
	}
	st.at += len(p)
	st.left -= len(p)
}

// take handles every complete PDU that has arrived, runs the callbacks of the
// commands that ended, and sends what is queued.
func (q *Queue) take() error {
	q.mu.Lock()
	q.reading = true
	err := q.takeLocked()
	done := settle(q.done.take())
	q.mu.Unlock()
	q.deliver(done)
	q.mu.Lock()
	q.reading = false
	q.kickLocked()
	return err
}

func (q *Queue) takeLocked() error {
	for {
		if q.stream.active {
			if more, err := q.continueStream(); more || err != nil {
				return err
			}
		}
		p := pdu.PDU(q.buf[q.r:q.w])
		if len(p) < pdu.CommonSize {
			return nil
		}
		l, bad := q.recv.Check(p)
		if bad.Bad() {
			return broken(bad, p, "%v, %d", bad.Status, bad.Info)
		}
		if len(p) < l.Data {
			q.makeRoom(l.Data)
			return nil
		}
		if q.recv.HeaderDigest && p.Flags()&pdu.FlagHeaderDigest != 0 {
			if got := pdu.GetDigest(p[l.HeaderDigest:]); got != pdu.Digest(p[:l.HeaderDigest]) {
				return &fault{Fault: pdu.Fault{Status: pdu.StatusHeaderDigest, Info: got}, err: fmt.Errorf("%w: header of %v", ErrDigest, p.Type())}
			}
		}
		if len(p) < l.Size {
			if p.Type() == pdu.TypeC2HData && (l.Size > len(q.buf)/2 || l.Size-len(p) > len(q.buf)/16) {
				if err := q.beginStream(p, l); err != nil {
					return err
				}
				continue
			}
			q.makeRoom(l.Size)
			return nil
		}
		q.r += l.Size
		if err := q.handle(p[:l.Size], l); err != nil {
			return err
		}
	}
}

// makeRoom makes room for a PDU of n bytes, most of which is still to come. None
// is larger than the buffer: streams take the data of those.
func (q *Queue) makeRoom(n int) {
	if q.r+n > len(q.buf) {
		q.w = copy(q.buf, q.buf[q.r:q.w])
		q.r = 0
	}
}

// beginStream starts on a C2HData PDU that has not arrived completely.
func (q *Queue) beginStream(p pdu.PDU, l pdu.Layout) error {
	cmd, err := q.dataIn(p, l)
	if err != nil {
		return err
	}
	st := &q.stream
	*st = stream{cmd: cmd, active: true, at: int(p.Offset()), left: l.DataLength, tail: l.Size - l.Data - l.DataLength}
	copy(st.header[:], p)
	q.r += l.Data
	return nil
}

// continueStream takes from the buffer what belongs to the stream, and
// handles its PDU when it is complete; otherwise more is true.
func (q *Queue) continueStream() (more bool, err error) {
	st := &q.stream
	if n := min(st.left, q.w-q.r); n > 0 {
		p := q.buf[q.r : q.r+n]
		if len(st.cmd.In) > 0 {
			copy(st.cmd.In[st.at:], p)
		}
		q.r += n
		q.streamed(p)
	}
	if st.left > 0 || q.w-q.r < st.tail {
		return true, nil
	}
	p := pdu.PDU(st.header[:])
	if st.tail > 0 && pdu.GetDigest(q.buf[q.r:]) != st.digest {
		return false, fmt.Errorf("%w: data of %v", ErrDigest, p.Type())
	}
	q.r += st.tail
	cmd := st.cmd
	st.active, st.cmd = false, nil
	return false, q.dataInDone(p, cmd)
}

// handle acts on a complete PDU. Queue.mu is held.
func (q *Queue) handle(p pdu.PDU, l pdu.Layout) error {
	switch p.Type() {
	case pdu.TypeC2HData:
		cmd, err := q.dataIn(p, l)
		if err != nil {
			return err
		}
		data := p[l.Data : l.Data+l.DataLength]
		if q.recv.DataDigest && pdu.GetDigest(p[l.Data+l.DataLength:]) != pdu.Digest(data) {
			return fmt.Errorf("%w: data of %v", ErrDigest, p.Type())
		}
		if len(cmd.In) > 0 {
			copy(cmd.In[p.Offset():], data)
		}
		return q.dataInDone(p, cmd)
	case pdu.TypeCapsuleResp:
		return q.response(p)
	case pdu.TypeR2T:
		return q.r2t(p)
	case pdu.TypeC2HTermReq:
		return &TerminatedError{Status: p.Status(), Info: p.Info()}
	}
	return broken(pdu.Invalid(pdu.OffType), p, "unexpected")
}

// command returns the command that a PDU is about.
func (q *Queue) command(p pdu.PDU, cid uint16) (*Command, error) {
	if i := int(cid & slotMask); i < len(q.slots) {
		if s := &q.slots[i]; s.cmd != nil && s.cmd.cid == cid {
			return s.cmd, nil
		}
	}
	return nil, broken(pdu.Invalid(pdu.OffCCCID), p, "the command identifier %#04x belongs to no command", cid)
}

// dataIn checks the header of a C2HData PDU (NVMe/TCP 1.0 §3.6.2.9) and returns its command.
func (q *Queue) dataIn(p pdu.PDU, l pdu.Layout) (*Command, error) {
	cmd, err := q.command(p, p.CommandID())
	if err != nil {
		return nil, err
	}
	off, n := uint64(p.Offset()), uint64(p.Count())
	switch {
	case l.DataLength != int(n) || n == 0:
		return nil, broken(pdu.Invalid(pdu.OffDATAL), p, "DATAL %d with %d bytes of data", n, l.DataLength)
	case off+n > uint64(cmd.expect):
		return nil, broken(pdu.Fault{Status: pdu.StatusOutOfRange}, p, "%d bytes at %d of a command that expects %d", n, off, cmd.expect)
	case int(off) != cmd.Received || cmd.last:
		return nil, broken(pdu.Fault{Status: pdu.StatusOutOfRange}, p, "data at %d where %d is next", off, cmd.Received)
	case p.Success() && q.flow:
		return nil, broken(pdu.Invalid(pdu.OffFlags), p, "SUCCESS with SQ flow control")
	case p.Success() && int(off+n) != cmd.expect:
		return nil, broken(pdu.Invalid(pdu.OffFlags), p, "SUCCESS after %d of %d bytes", off+n, cmd.expect)
	}
	return cmd, nil
}

// dataInDone accounts for data and takes the completion that C2HData may carry.
func (q *Queue) dataInDone(p pdu.PDU, cmd *Command) error {
	cmd.Received += int(p.Count())
	cmd.last = p.Last()
	if p.Success() {
		q.finish(cmd)
	}
	return nil
}

// response ends a command (NVMe/TCP 1.0 §3.6.2.7, NVMe Base 2.0 §3.3.3.2).
func (q *Queue) response(p pdu.PDU) error {
	e := wire.CQE(p.CQE())
	cmd, err := q.command(p, e.CID())
	if err != nil {
		return err
	}
	if head := e.SQHD(); !q.opened {
		q.head = head
	} else if q.flow {
		if head >= q.size || (head+q.size-q.head)%q.size > q.backlog() {
			return broken(pdu.Invalid(pdu.OffSQE), p, "SQ head pointer %d, where %d to %d of %d are under way", head, q.head, q.tail, q.size)
		}
		q.head = head
	}
	cmd.Status, cmd.Result = e.Status(), e.Result()
	if cmd.Status.OK() {
		switch {
		case cmd.Received != cmd.expect || cmd.expect > 0 && !cmd.last:
			return broken(pdu.Fault{Status: pdu.StatusSequence}, p, "success after %d of %d bytes", cmd.Received, cmd.expect)
		case cmd.asked != len(cmd.Out):
			return broken(pdu.Fault{Status: pdu.StatusSequence}, p, "success where %d of %d bytes were asked for", cmd.asked, len(cmd.Out))
		}
	}
	q.finish(cmd)
	return nil
}

// finish takes a command out of the table. Its callback runs when none of its
// slices is in use any more.
func (q *Queue) finish(cmd *Command) {
	q.unregister(cmd)
	if q.waiting.head != nil {
		q.startWaiting()
	}
	if cmd.sent > q.written.Load() {
		cmd.state = held
		q.held.push(cmd)
		return
	}
	q.done.push(cmd)
}

// r2t queues the data that the target asks for (NVMe/TCP 1.0 §3.6.2.10).
func (q *Queue) r2t(p pdu.PDU) error {
	cmd, err := q.command(p, p.CommandID())
	if err != nil {
		return err
	}
	if cmd.sent <= q.accepted {
		cmd.r2ts = 0
	}
	cmd.r2ts++
	off, n := uint64(p.Offset()), uint64(p.Count())
	switch {
	case n == 0 || off+n > uint64(len(cmd.Out)):
		return broken(pdu.Fault{Status: pdu.StatusOutOfRange}, p, "%d bytes at %d of a command that has %d", n, off, len(cmd.Out))
	case int(off) != cmd.asked:
		return broken(pdu.Fault{Status: pdu.StatusOutOfRange}, p, "data at %d where %d is next", off, cmd.asked)
	case cmd.r2ts > q.maxR2T:
		return broken(pdu.Fault{Status: pdu.StatusLimitExceeded}, p, "more than %d R2Ts at a time", q.maxR2T)
	}
	cmd.asked += int(n)
	q.sendData(cmd, p.TransferTag(), int(off), int(n))
	return nil
}
