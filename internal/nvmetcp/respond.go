package nvmetcp

import (
	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// requestDone takes a finished command, on whatever goroutine finished it, and
// puts its answer into the output.
func (c *conn) requestDone(t *task) {
	if t.sqe[0] == wirenvme.FabricsCommand {
		c.learn(t)
	}
	digest := uint32(0)
	if c.send.DataDigest && t.Status.OK() && len(t.DataIn) > 0 {
		digest = wire.Digest(t.DataIn)
	}
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		c.release(t)
		return
	}
	c.respondLocked(t, digest)
	c.wakeLocked()
	c.mu.Unlock()
}

// learn takes over what a Fabrics command may have made of the queue.
func (c *conn) learn(t *task) {
	if !t.Status.OK() || t.SQE.FabricsType() != wirenvme.Connect {
		return
	}
	depth, flow, id := c.queue.Depth(), c.queue.FlowControl(), c.queue.ID()
	c.server.admitted(c.half)
	c.mu.Lock()
	c.connected = true
	c.depth = uint64(min(max(depth, 2), maxDepth))
	c.flow, c.queueID = flow, id
	c.mu.Unlock()
}

// release gives the buffers of a task back. c.mu is not held: room in the
// budget may start the data of other connections.
func (c *conn) release(t *task) {
	if t.buf != nil {
		t.buf.Put()
		t.buf = nil
	}
	t.Release()
	c.server.budget.Release(&t.claim)
}

// respondLocked puts the C2HData and Response Capsule of a command into the
// output (NVMe/TCP 1.0 §3.3.2.2, §3.6.2.7, §3.6.2.9).
func (c *conn) respondLocked(t *task, digest uint32) {
	c.ended++
	head := uint16(0xFFFF) // without flow control (NVMe Base 2.0 §3.3.3.2)
	if c.flow {
		if c.head++; c.head >= int(c.depth) {
			c.head = 0
		}
		head = uint16(c.head)
	}
	c.out.Finish(t)
	if t.Status.OK() && len(t.DataIn) > 0 {
		// A success may go without a Response Capsule where nothing of that is missed.
		success := !c.flow && t.Status == 0 && t.Result == [2]uint32{}
		h := c.headerLocked(wire.TypeC2HData, len(t.DataIn))
		(&wire.C2HData{Last: true, Success: success, CommandID: t.cid, Count: uint32(len(t.DataIn))}).Put(h)
		c.sealLocked(h, t.DataIn, digest)
		c.counters.BytesRead += uint64(len(t.DataIn))
		if success {
			return
		}
	}
	h := c.headerLocked(wire.TypeCapsuleResp, 0)
	(&wire.CapsuleResp{}).Put(h)
	wirenvme.CQE(h.CQE()).Put(t.Result, head, c.queueID, t.cid, t.Status)
	c.sealLocked(h, nil, 0)
}
