package iscsi

import (
	"context"
	"fmt"
	"hash/crc32"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// take handles every complete PDU that has arrived, runs the callbacks of the
// commands that ended, and sends what is queued.
func (c *Conn) take() error {
	s := c.session
	s.mu.Lock()
	c.reading = true
	err := c.takeLocked()
	done := settle(c.done.take())
	s.mu.Unlock()
	deliver(done)
	if len(c.answered)+len(c.messages) > 0 {
		c.tell()
	}
	s.mu.Lock()
	c.reading = false
	others := len(s.conns) > 1
	c.kickLocked()
	if others {
		c.kickOthers()
	}
	return err
}

// tell ends the requests that were answered and tells asynchronous messages.
func (c *Conn) tell() {
	s := c.session
	for _, r := range c.answered {
		r.finish(nil)
	}
	for _, m := range c.messages {
		if s.opts.OnAsync != nil {
			s.opts.OnAsync(m)
		} else if m.Event == wire.AsyncLogoutRequest {
			s.logout.Do(func() { go s.Logout(context.Background()) }) //nolint:errcheck // the session tells its end
		}
	}
	clear(c.answered)
	c.answered, c.messages = c.answered[:0], nil
}

// kickOthers sends what this connection's reader queued on others: commands
// that had waited for the window.
func (c *Conn) kickOthers() {
	for _, other := range c.session.Connections() {
		if other != c {
			c.session.mu.Lock()
			other.kickLocked()
		}
	}
}

func (c *Conn) takeLocked() error {
	for {
		if c.stream.active {
			if more, err := c.continueStream(); more || err != nil {
				return err
			}
		}
		p := c.buf[c.r:c.w]
		if len(p) < wire.HeaderSize {
			return nil
		}
		h := wire.BHS(p)
		n := h.DataLength()
		if n > c.params.MaxRecvDataSegmentLength {
			return protocolError("%v with %d bytes of data, more than MaxRecvDataSegmentLength", h.Opcode(), n)
		}
		l := h.Layout(c.params.HeaderDigest, c.params.DataDigest)
		if len(p) < l.Data {
			c.reserve(l.Data)
			return nil
		}
		if c.params.HeaderDigest && wire.Digest(p[:l.HeaderDigest]) != wire.GetDigest(p[l.HeaderDigest:]) {
			return fmt.Errorf("%w: header of %v", ErrDigest, h.Opcode())
		}
		if len(p) < l.Size {
			if h.Opcode() == wire.OpDataIn && l.Size-len(p) > len(c.buf)/8 {
				if err := c.beginStream(h, l); err != nil {
					return err
				}
				continue
			}
			c.reserve(l.Size)
			return nil
		}
		if c.params.DataDigest && n > 0 && wire.Digest(p[l.Data:l.DataDigest]) != wire.GetDigest(p[l.DataDigest:]) {
			return fmt.Errorf("%w: data of %v", ErrDigest, h.Opcode())
		}
		c.r += l.Size
		if err := c.handle(h, p[l.Data:l.Data+n]); err != nil {
			return err
		}
	}
}

// reserve makes room for a PDU of n bytes, most of which is still to come.
func (c *Conn) reserve(n int) {
	if n > len(c.buf) {
		bigger := make([]byte, n)
		c.w = copy(bigger, c.buf[c.r:c.w])
		c.buf, c.r = bigger, 0
	} else if c.r+n > len(c.buf) {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
}

// beginStream starts on a Data-In PDU that has not arrived completely.
func (c *Conn) beginStream(h wire.BHS, l wire.Layout) error {
	cmd, err := c.dataIn(h)
	if err != nil {
		return err
	}
	st := &c.stream
	*st = stream{cmd: cmd, active: true, at: int(h.BufferOffset()), left: h.DataLength(), tail: l.Size - l.Data - h.DataLength()}
	st.pad = l.DataDigest - l.Data - st.left
	copy(st.header[:], h)
	c.r += l.Data
	return nil
}

// continueStream takes from the buffer what belongs to the stream, and
// handles its PDU when it is complete; otherwise more is true.
func (c *Conn) continueStream() (more bool, err error) {
	st := &c.stream
	if n := min(st.left, c.w-c.r); n > 0 {
		p := c.buf[c.r : c.r+n]
		if st.cmd != nil && len(st.cmd.In) > 0 {
			copy(st.cmd.In[st.at:], p)
		}
		c.r += n
		c.streamed(p)
	}
	if st.left > 0 || c.w-c.r < st.tail {
		return true, nil
	}
	tail := c.buf[c.r : c.r+st.tail]
	c.r += st.tail
	h := wire.BHS(st.header[:])
	if c.params.DataDigest && crc32.Update(st.crc, castagnoli, tail[:st.pad]) != wire.GetDigest(tail[st.pad:]) {
		return false, fmt.Errorf("%w: data of %v", ErrDigest, h.Opcode())
	}
	cmd := st.cmd
	st.active, st.cmd = false, nil
	if cmd != nil && cmd.state == active {
		cmd.Received += h.DataLength()
	} else if cmd != nil {
		c.held.remove(cmd)
		c.done.push(cmd)
		cmd = nil
	}
	return false, c.dataInDone(h, cmd)
}

// statusNumber checks that a PDU's StatSN is the next one (RFC 7143 §4.2.2.2)
// and takes its command window.
func (c *Conn) statusNumber(h wire.BHS) error {
	if h.StatSN() != c.expStatSN {
		return protocolError("%v with StatSN %d where %d is next", h.Opcode(), h.StatSN(), c.expStatSN)
	}
	c.expStatSN++
	c.session.window(h)
	return nil
}

// handle acts on a complete PDU. Session.mu is held.
func (c *Conn) handle(h wire.BHS, data []byte) error {
	switch h.Opcode() {
	case wire.OpSCSIResponse:
		return c.scsiResponse(h, data)
	case wire.OpDataIn:
		cmd, err := c.dataIn(h)
		if err != nil {
			return err
		}
		if cmd != nil {
			if len(cmd.In) > 0 {
				copy(cmd.In[h.BufferOffset():], data)
			}
			cmd.Received += len(data)
		}
		return c.dataInDone(h, cmd)
	case wire.OpR2T:
		return c.r2t(h)
	case wire.OpNOPIn:
		return c.nopIn(h, data)
	case wire.OpTaskManagementResponse, wire.OpTextResponse, wire.OpLogoutResponse:
		return c.requestResponse(h, data)
	case wire.OpAsync:
		return c.async(h, data)
	case wire.OpReject:
		return c.reject(h, data)
	}
	return protocolError("unexpected %v", h.Opcode())
}

// command returns the command of a tag, nil for one that was aborted.
func (c *Conn) command(h wire.BHS) (*Command, error) {
	e, err := c.session.task(h.ITT())
	if err != nil {
		return nil, fmt.Errorf("%v: %w", h.Opcode(), err)
	}
	if e.req != nil || e.cmd != nil && e.cmd.conn != c {
		return nil, protocolError("%v for the task tag %#08x of another kind or connection", h.Opcode(), h.ITT())
	}
	return e.cmd, nil
}

// scsiResponse ends a command (RFC 7143 §11.4).
func (c *Conn) scsiResponse(h wire.BHS, data []byte) error {
	if err := c.statusNumber(h); err != nil {
		return err
	}
	cmd, err := c.command(h)
	if err != nil || cmd == nil {
		return err
	}
	if response := h.Response(); response != wire.ResponseCompleted {
		cmd.Err = &ResponseError{Response: response}
	}
	if len(data) >= 2 {
		n := min(int(data[0])<<8|int(data[1]), len(data)-2)
		cmd.senseLen = copy(cmd.sense[:], data[2:2+n])
	}
	c.end(cmd, h)
	return nil
}

// dataIn checks the header of a Data-In PDU (RFC 7143 §11.7) and returns its
// command, nil for one that was aborted.
func (c *Conn) dataIn(h wire.BHS) (*Command, error) {
	cmd, err := c.command(h)
	if err != nil || cmd == nil {
		return nil, err
	}
	expected := len(cmd.In)
	if expected == 0 {
		expected = cmd.Discard
	}
	if uint64(h.BufferOffset())+uint64(h.DataLength()) > uint64(expected) {
		return nil, protocolError("Data-In of %d bytes at %d of a command that expects %d", h.DataLength(), h.BufferOffset(), expected)
	}
	if h.DataSN() != cmd.dataSN {
		return nil, protocolError("Data-In with DataSN %d where %d is next", h.DataSN(), cmd.dataSN)
	}
	if c.params.DataPDUInOrder && c.params.DataSequenceInOrder && int(h.BufferOffset()) != cmd.Received {
		return nil, protocolError("Data-In at %d where %d is next", h.BufferOffset(), cmd.Received)
	}
	cmd.dataSN++
	return cmd, nil
}

// dataInDone takes the status that a Data-In may carry. cmd is nil for an
// aborted command.
func (c *Conn) dataInDone(h wire.BHS, cmd *Command) error {
	if h.Flags()&wire.FlagStatus == 0 {
		c.session.window(h)
		return nil
	}
	if err := c.statusNumber(h); err != nil {
		return err
	}
	if !h.Final() {
		return protocolError("Data-In with status but without the F bit")
	}
	if cmd != nil {
		c.end(cmd, h)
	}
	return nil
}

// end completes a command with the status and residual of its last PDU.
func (c *Conn) end(cmd *Command, h wire.BHS) {
	cmd.Status = h.Status()
	switch h.Flags() & (wire.FlagUnderflow | wire.FlagOverflow) {
	case wire.FlagUnderflow:
		cmd.Residual = int(h.Residual())
	case wire.FlagOverflow:
		cmd.Residual = -int(h.Residual())
	}
	c.finish(cmd)
}

// finish takes a command, which may be another connection's, out of the
// table. Its callback runs when none of its slices is in use any more.
func (c *Conn) finish(cmd *Command) {
	s, owner := c.session, cmd.conn
	s.unregister(cmd.itt)
	if s.waiting.head != nil {
		s.startWaiting()
	}
	if cmd.sent > owner.written.Load() || owner.stream.cmd == cmd {
		cmd.state = held
		owner.held.push(cmd)
		return
	}
	c.done.push(cmd)
}

// r2t queues the data that the target asks for (RFC 7143 §11.8).
func (c *Conn) r2t(h wire.BHS) error {
	c.session.window(h)
	cmd, err := c.command(h)
	if err != nil || cmd == nil {
		return err
	}
	off, n := uint64(h.BufferOffset()), uint64(h.DesiredLength())
	switch {
	case n == 0 || off+n > uint64(len(cmd.Out)) || n > uint64(c.params.MaxBurstLength):
		return protocolError("R2T for %d bytes at %d of a command that has %d", n, off, len(cmd.Out))
	case h.TTT() == wire.NoTag:
		return protocolError("R2T without target transfer tag")
	case h.DataSN() != cmd.dataSN:
		return protocolError("R2T with R2TSN %d where %d is next", h.DataSN(), cmd.dataSN)
	case h.StatSN() != c.expStatSN:
		return protocolError("R2T with StatSN %d where %d is next", h.StatSN(), c.expStatSN)
	}
	cmd.dataSN++
	c.sendData(cmd, h.TTT(), int(off), int(n))
	return nil
}

// nopIn answers a ping of the target, or ends one of ours (RFC 7143 §11.19).
func (c *Conn) nopIn(h wire.BHS, data []byte) error {
	if h.ITT() != wire.NoTag {
		return c.requestResponse(h, data)
	}
	c.session.window(h)
	if h.TTT() == wire.NoTag {
		return nil
	}
	f := wire.NOPOut{Immediate: true, LUN: h.LUN(), ITT: wire.NoTag, TTT: h.TTT(), CmdSN: c.session.cmdSN, ExpStatSN: c.expStatSN}
	out := wire.BHS(c.queue.Grow(wire.HeaderSize))
	f.Put(out)
	c.seal(out, nil)
	return nil
}

// async tells an asynchronous message (RFC 7143 §11.9).
func (c *Conn) async(h wire.BHS, data []byte) error {
	if err := c.statusNumber(h); err != nil {
		return err
	}
	m := AsyncMessage{Event: h.AsyncEvent(), VCode: h.AsyncVCode(), LUN: h.LUN(), Data: append([]byte(nil), data...)}
	m.Parameter1, m.Parameter2, m.Parameter3 = h.AsyncParameters()
	c.messages = append(c.messages, m)
	return nil
}

// reject ends what the target refused, where it can be told (RFC 7143 §11.17). Data
// PDUs leave their command to be ended by its own response.
func (c *Conn) reject(h wire.BHS, data []byte) error {
	if err := c.statusNumber(h); err != nil {
		return err
	}
	if len(data) < wire.HeaderSize {
		return protocolError("Reject without the header of what was rejected")
	}
	bad := wire.BHS(data)
	err := &RejectError{Reason: wire.Reason(h.Response()), Opcode: bad.Opcode()}
	switch bad.Opcode() {
	case wire.OpDataOut, wire.OpSNACK:
		return nil
	}
	if bad.ITT() == wire.NoTag {
		return err
	}
	e, unknown := c.session.task(bad.ITT())
	switch {
	case unknown != nil:
		return err
	case e.cmd != nil:
		e.cmd.Err = err
		c.finish(e.cmd)
	case e.req != nil:
		c.session.unregister(bad.ITT())
		e.req.finish(err)
	}
	return nil
}
