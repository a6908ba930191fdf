package iscsi

import (
	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// management is a task management function on its way (RFC 7143 §11.5).
type management struct {
	conn      *conn
	function  scsi.Function
	lun       uint64
	itt       uint32
	tag       uint32 // of the task that it is about
	refCmdSN  uint32
	cmdSN     uint32
	immediate bool
	again     bool // ABORT TASK looks for its task once more
}

func (c *conn) taskManagement(b wire.BHS) error {
	m := &management{
		conn: c, function: scsi.Function(b.Function()), lun: b.LUN(), itt: b.ITT(), tag: b.ReferencedTaskTag(),
		refCmdSN: b.RefCmdSN(), cmdSN: b.CmdSN(), immediate: b.Immediate(),
	}
	c.request(b, m.run)
	return nil
}

func (m *management) run() {
	c := m.conn
	switch f := m.function; {
	case f == scsi.TaskReassign:
		m.respond(scsi.ReassignNotSupported)
		return
	case f < scsi.AbortTask || f > scsi.QueryAsyncEvent, f > scsi.TaskReassign && c.params.ProtocolLevel < 2:
		m.respond(scsi.FunctionNotSupported)
		return
	}
	found := c.session.abortGathering(m)
	switch {
	case found && m.function == scsi.AbortTask:
		m.respond(scsi.FunctionComplete)
	case found && m.function == scsi.QueryTask, found && m.function == scsi.QueryTaskSet:
		m.respond(scsi.FunctionSucceeded)
	default:
		c.nexus.Manage(m.function, m.lun, uint64(m.tag), m.done)
	}
}

// done takes the response of the nexus.
func (m *management) done(r scsi.Response) {
	missing := m.function == scsi.AbortTask && r == scsi.TaskDoesNotExist
	plugged := missing && m.conn.session.plug(m)
	switch {
	case plugged:
		r = scsi.FunctionComplete
	case missing && !m.again && m.conn.session.multi.Load():
		m.again = true // another connection may have brought it meanwhile
		m.run()
		return
	}
	m.respond(r)
	if plugged {
		m.conn.session.catchUp()
	}
	if m.function == scsi.TargetColdReset && r == scsi.FunctionComplete {
		m.conn.server.coldReset(m.conn.session.key.target)
	}
}

func (m *management) respond(r scsi.Response) {
	c := m.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requestDoneLocked(m.immediate)
	if c.dead {
		return
	}
	c.putLocked(&wire.TaskManagementResponse{Response: uint8(r), ITT: m.itt, Numbers: c.numbersLocked(true)}, nil)
	c.wakeLocked()
}

// affects reports whether the function ends (or asks about) a task that has not been executed yet.
func (m *management) affects(t *task) bool {
	switch m.function {
	case scsi.AbortTask, scsi.QueryTask:
		return t.itt == m.tag && t.LUN == m.lun
	case scsi.AbortTaskSet, scsi.ClearTaskSet, scsi.LogicalUnitReset, scsi.QueryTaskSet:
		return t.LUN == m.lun
	case scsi.TargetWarmReset, scsi.TargetColdReset, scsi.ITNexusReset:
		return true
	}
	return false
}

// abortGathering ends the tasks of the session that a function affects and
// that the nexus does not know yet, and reports whether there were any. When
// it returns, every command admitted before is with the nexus.
func (s *session) abortGathering(m *management) bool {
	query := m.function == scsi.QueryTask || m.function == scsi.QueryTaskSet
	var ended []*task
	found := false
	s.mu.Lock()
	for _, c := range s.conns {
		if s.multi.Load() {
			c.exec.Lock()
		}
		c.mu.Lock()
		for t := c.gathering; t != nil; {
			next := t.gatherNext
			// A function reaches what was sent before it, also where that still waits
			// for its turn.
			if m.affects(t) && (t.immediate || wire.Before(t.cmdSN, m.cmdSN)) {
				found = true
				if !query {
					if c.dropLocked(t) {
						ended = append(ended, t)
					}
					if r, queued := s.queue[t.cmdSN]; queued && r.task == t {
						s.queue[t.cmdSN] = request{conn: c, cmdSN: t.cmdSN}
					}
				}
			}
			t = next
		}
		c.mu.Unlock()
		if s.multi.Load() {
			c.exec.Unlock()
		}
	}
	s.mu.Unlock()
	for _, t := range ended {
		t.conn.discard(t)
	}
	return found
}

// plug counts a command as received that ABORT TASK names before it has come
// (RFC 7143 §11.5.1 b).
func (s *session) plug(m *management) bool {
	s.mu.Lock()
	if s.multi.Load() { // no command is between its turn and the nexus
		for _, c := range s.conns {
			c.exec.Lock()
			defer c.exec.Unlock()
		}
	}
	_, there := s.queue[m.refCmdSN]
	ok := !there && s.inWindow(m.refCmdSN) && wire.Before(m.refCmdSN, m.cmdSN)
	if ok {
		s.queue[m.refCmdSN] = request{conn: m.conn, cmdSN: m.refCmdSN}
		s.postponed.Store(int32(len(s.queue)))
		s.maxCmdSN.Add(1)
	}
	s.mu.Unlock()
	return ok
}
