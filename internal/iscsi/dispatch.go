package iscsi

import (
	"fmt"
	"time"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// handle takes one PDU with its data; ok says that the data digest is right.
// An error ends the connection.
func (c *conn) handle(b wire.BHS, ahs, data []byte, ok bool) error {
	switch op := b.Opcode(); op {
	case wire.OpSCSICommand:
		t, dst := c.beginCommand(b, ahs, len(data))
		copy(dst, data)
		return c.endCommand(b, t, len(data), ok)
	case wire.OpDataOut:
		t, dst := c.beginDataOut(b, len(data))
		copy(dst, data)
		return c.endDataOut(b, t, len(data), ok)
	default:
		if !ok {
			c.local.DigestErrors++
			c.reject(wire.ReasonDataDigest, b)
			return nil
		}
		return c.handleOther(op, b, data)
	}
}

func (c *conn) handleOther(op wire.Opcode, b wire.BHS, data []byte) error {
	discovery := c.session.discovery
	switch {
	case op == wire.OpText:
		return c.textRequest(b, data)
	case op == wire.OpLogout:
		return c.logout(b)
	case op == wire.OpLogin:
		return fmt.Errorf("%w: login request in full feature phase", errProtocol)
	case op == wire.OpNOPOut && !discovery:
		return c.nopOut(b, data)
	case op == wire.OpTaskManagement && !discovery:
		return c.taskManagement(b)
	case op == wire.OpSNACK:
		c.reject(wire.ReasonSNACK, b)
	case op == wire.OpNOPOut, op == wire.OpTaskManagement:
		c.reject(wire.ReasonProtocolError, b)
	default:
		c.reject(wire.ReasonNotSupported, b)
	}
	return nil
}

// reject answers a PDU that cannot be handled (RFC 7143 §11.17).
func (c *conn) reject(reason wire.Reason, b wire.BHS) {
	c.local.Rejects++
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return
	}
	c.putLocked(&wire.Reject{Reason: reason, Numbers: c.numbersLocked(true)}, b[:wire.HeaderSize])
	c.wakeLocked()
}

// request runs a request other than a SCSI command in its turn; run must end
// in requestDoneLocked. Outside of the window it is ignored.
func (c *conn) request(b wire.BHS, run func()) {
	r := request{conn: c, cmdSN: b.CmdSN(), immediate: b.Immediate(), run: run}
	switch {
	case r.immediate && !c.takeImmediate():
		c.reject(wire.ReasonImmediate, b)
	case r.immediate || c.session.inWindow(r.cmdSN):
		c.session.admit(c, r)
	}
}

func (c *conn) requestDoneLocked(immediate bool) {
	if immediate {
		c.immediates--
	} else {
		c.session.maxCmdSN.Add(1)
	}
}

// pingState is about the NOP-In that waits for its NOP-Out.
type pingState struct {
	ttt  uint32
	open bool
	sent time.Time
}

// nopOut answers a ping, or takes the answer to ours (RFC 7143 §11.18).
func (c *conn) nopOut(b wire.BHS, data []byte) error {
	itt, ttt, immediate := b.ITT(), b.TTT(), b.Immediate()
	if itt == wire.NoTag {
		if !immediate {
			c.reject(wire.ReasonProtocolError, b)
			return nil
		}
		c.mu.Lock()
		if c.ping.open && ttt == c.ping.ttt {
			c.ping.open = false
		}
		c.mu.Unlock()
		return nil
	}
	if ttt != wire.NoTag {
		c.reject(wire.ReasonInvalidField, b)
		return nil
	}
	echo := append([]byte(nil), data[:min(len(data), c.params.maxSend)]...)
	c.request(b, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requestDoneLocked(immediate)
		if c.dead {
			return
		}
		c.putLocked(&wire.NOPIn{ITT: itt, TTT: wire.NoTag, Numbers: c.numbersLocked(true)}, echo)
		c.wakeLocked()
	})
	return nil
}

// sendPingLocked sends a NOP-In that asks for an answer (RFC 7143 §11.19).
func (c *conn) sendPingLocked() {
	c.nextTTT++
	c.ping = pingState{ttt: c.nextTTT & 0x7fffffff, open: true, sent: time.Now()}
	c.putLocked(&wire.NOPIn{ITT: wire.NoTag, TTT: c.ping.ttt, Numbers: c.numbersLocked(false)}, nil)
	c.wakeLocked()
}

// logout ends the connection or the session (RFC 7143 §11.14).
func (c *conn) logout(b wire.BHS) error {
	reason, cid, itt, immediate := b.Function(), b.CID(), b.ITT(), b.Immediate()
	s := c.session
	if !immediate && !s.inWindow(b.CmdSN()) {
		return nil
	}
	response := wire.LogoutOK
	switch {
	case reason == wire.LogoutRecovery:
		response = wire.LogoutRecoveryNotSupported
	case reason == wire.LogoutCloseConnection && cid != c.cid:
		// The other connection is closed first, its tasks end with it.
		s.mu.Lock()
		other := s.conns[cid]
		s.mu.Unlock()
		if other == nil {
			response = wire.LogoutCIDNotFound
			break
		}
		other.kill(errReplaced)
		c.await(other)
	case reason == wire.LogoutCloseConnection:
	case reason == wire.LogoutCloseSession:
		s.mu.Lock()
		s.ending = true
		others := s.list()
		s.mu.Unlock()
		for _, o := range others {
			if o != c {
				o.kill(errLoggedOut)
				c.await(o)
			}
		}
	default:
		c.reject(wire.ReasonInvalidField, b)
		return nil
	}
	leave := response == wire.LogoutOK && (reason == wire.LogoutCloseSession || cid == c.cid)
	if leave && c.nexus != nil {
		c.endTasks()
		// The initiator may rely on it that its reservations are gone when it has the answer.
		s.mu.Lock()
		last := len(s.conns) == 1
		s.ending = s.ending || last
		s.mu.Unlock()
		if last {
			s.leave()
		}
	}
	if !immediate {
		s.pass(c, b.CmdSN())
	}
	c.mu.Lock()
	c.putLocked(&wire.LogoutResponse{
		Response: response, ITT: itt, Numbers: c.numbersLocked(true),
		Time2Wait: uint16(s.params.Time2Wait), Time2Retain: uint16(s.params.Time2Retain),
	}, nil)
	c.wakeLocked()
	c.mu.Unlock()
	if leave {
		return errLoggedOut
	}
	return nil
}

// await waits until another connection is gone, or this one is ended.
func (c *conn) await(other *conn) {
	select {
	case <-other.gone:
	case <-c.stop:
	}
}

// endTasks ends what the connection still has under way, before a logout is answered.
func (c *conn) endTasks() {
	c.mu.Lock()
	var ended []*task
	for t := c.gathering; t != nil; t = t.gatherNext {
		ended = append(ended, t)
	}
	c.mu.Unlock()
	c.session.forget(c)
	for _, t := range ended {
		c.dropTask(t)
	}
	c.drain()
}
