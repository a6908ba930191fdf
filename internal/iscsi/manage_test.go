package iscsi

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// manage sends an immediate task management function and returns its response.
func (c *client) manage(f scsi.Function, lun uint64, tag, refCmdSN uint32) scsi.Response {
	c.t.Helper()
	c.itt++
	c.send(&wire.TaskManagement{Immediate: true, Function: uint8(f), LUN: lun, ITT: c.itt, ReferencedTaskTag: tag, CmdSN: c.cmdSN, RefCmdSN: refCmdSN}, nil)
	p := c.recv(wire.OpTaskManagementResponse)
	if p.ITT() != c.itt {
		c.t.Fatalf("response of %d, want %d", p.ITT(), c.itt)
	}
	return scsi.Response(p.Response())
}

// TestAbortTask checks ABORT TASK (RFC 7143 §11.5.1, §11.6.1).
func TestAbortTask(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("InitialR2T=No", "ImmediateData=Yes")
	d := h.array.disk

	// A task that is executing, with the response silent.
	d.hold = func(*scsi.Task) bool { return true }
	itt := c.tur()
	settle(t, "execution", func() bool { return len(d.order()) == 1 })
	if r := c.manage(scsi.AbortTask, 0, itt, c.cmdSN-1); r != scsi.FunctionComplete {
		t.Errorf("abort of an executing task: %d", r)
	}
	d.hold = nil

	// A task that has been answered.
	itt = c.tur()
	c.good(itt)
	if r := c.manage(scsi.AbortTask, 0, itt, c.cmdSN-1); r != scsi.TaskDoesNotExist {
		t.Errorf("abort of a finished task: %d", r)
	}

	// A task that waits for R2T data: its data is skipped afterwards.
	itt = c.writeCmd(0, 8, true, nil)
	r2t := c.recv(wire.OpR2T)
	if r := c.manage(scsi.QueryTask, 0, itt, 0); r != scsi.FunctionNotSupported {
		t.Errorf("query at protocol level 1: %d", r)
	}
	if r := c.manage(scsi.AbortTask, 1<<48, itt, c.cmdSN-1); r != scsi.LUNDoesNotExist {
		t.Errorf("abort on another LUN: %d", r)
	}
	if r := c.manage(scsi.AbortTask, 0, itt, c.cmdSN-1); r != scsi.FunctionComplete {
		t.Errorf("abort of a task with an R2T: %d", r)
	}
	again := c.writeCmd(0, 8, true, nil) // takes the place of the aborted one
	r2t2 := c.recv(wire.OpR2T)
	c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r2t.TTT()}, pattern(4096))
	c.send(&wire.DataOut{Final: true, ITT: again, TTT: r2t2.TTT()}, bytes.Repeat([]byte{9}, 4096))
	c.good(again)
	if d.data[0] != 9 {
		t.Error("the data of an aborted command was written")
	}

	// A task that waits for unsolicited data.
	itt = c.writeCmd(0, 8, false, pattern(512))
	if r := c.manage(scsi.AbortTask, 0, itt, c.cmdSN-1); r != scsi.FunctionComplete {
		t.Errorf("abort of a task with unsolicited data: %d", r)
	}
	c.send(&wire.DataOut{Final: true, ITT: itt, TTT: wire.NoTag, BufferOffset: 512}, pattern(512))

	// A task that waits for its turn, which then comes.
	sn := c.cmdSN
	c.cmdSN++
	itt = c.tur()
	if r := c.manage(scsi.AbortTask, 0, itt, sn+1); r != scsi.FunctionComplete {
		t.Errorf("abort of a task before its turn: %d", r)
	}
	c.good(c.turAt(sn))
	if p := c.good(c.tur()); p.ExpCmdSN() != sn+3 {
		t.Errorf("ExpCmdSN %d, want %d", p.ExpCmdSN(), sn+3)
	}
}

// TestAbortTaskNotReceived checks ABORT TASK of a command that has not come (RFC 7143 §11.5.1).
func TestAbortTaskNotReceived(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login()
	lost := c.cmdSN
	c.cmdSN++
	waiting := c.tur()
	if r := c.manage(scsi.AbortTask, 0, 999, lost); r != scsi.FunctionComplete {
		t.Errorf("abort of a command in the window: %d", r)
	}
	c.good(waiting) // the gap is plugged
	if r := c.manage(scsi.AbortTask, 0, 999, lost); r != scsi.TaskDoesNotExist {
		t.Errorf("abort of a command outside of the window: %d", r)
	}
	c.turAt(lost) // comes too late
	if p := c.good(c.tur()); p.MaxCmdSN() != c.cmdSN+127 {
		t.Errorf("MaxCmdSN %d, want %d", p.MaxCmdSN(), c.cmdSN+127)
	}
}

// TestTaskManagement checks task management functions and their reach (RFC 7143 §11.5.1, RFC 7144 §5).
func TestTaskManagement(t *testing.T) {
	for _, f := range []struct {
		function scsi.Function
		lun      uint64
		response scsi.Response
		ends     bool // the write that waits for data on LUN 0
	}{
		{scsi.AbortTaskSet, 0, scsi.FunctionComplete, true},
		{scsi.AbortTaskSet, 1 << 48, scsi.LUNDoesNotExist, false},
		{scsi.ClearTaskSet, 0, scsi.FunctionComplete, true},
		{scsi.LogicalUnitReset, 0, scsi.FunctionComplete, true},
		{scsi.LogicalUnitReset, 1 << 48, scsi.LUNDoesNotExist, false},
		{scsi.TargetWarmReset, 0, scsi.FunctionComplete, true},
		{scsi.ClearACA, 0, scsi.FunctionNotSupported, false},
		{scsi.TaskReassign, 0, scsi.ReassignNotSupported, false},
		{scsi.QueryTaskSet, 0, scsi.FunctionSucceeded, false},
		{scsi.ITNexusReset, 0, scsi.FunctionComplete, true},
		{scsi.Function(0), 0, scsi.FunctionNotSupported, false},
		{scsi.Function(77), 0, scsi.FunctionNotSupported, false},
	} {
		h := newHarness(t, Config{})
		c := h.login("iSCSIProtocolLevel=2", "ImmediateData=No")
		h.array.disk.hold = func(*scsi.Task) bool { return true }
		c.tur()
		settle(t, "execution", func() bool { return len(h.array.disk.order()) == 1 })
		itt := c.writeCmd(0, 8, true, nil)
		r := c.recv(wire.OpR2T)
		if got := c.manage(f.function, f.lun, wire.NoTag, 0); got != f.response {
			t.Errorf("function %d on %#x: %d, want %d", f.function, f.lun, got, f.response)
		}
		h.array.disk.letGo()
		if !f.ends {
			c.recv(wire.OpSCSIResponse)
		}
		c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r.TTT()}, pattern(4096))
		if !f.ends {
			c.good(itt)
		}
		c.good(c.tur())
	}
}

// TestQueryTask checks QUERY TASK (RFC 7144 §5.1).
func TestQueryTask(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("iSCSIProtocolLevel=2", "ImmediateData=No")
	itt := c.writeCmd(0, 8, true, nil)
	r := c.recv(wire.OpR2T)
	if got := c.manage(scsi.QueryTask, 0, itt, 0); got != scsi.FunctionSucceeded {
		t.Errorf("query: %d", got)
	}
	c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r.TTT()}, pattern(4096))
	c.good(itt)
}

// TestColdReset checks TARGET COLD RESET, which ends all sessions (RFC 7143 §11.5.1).
func TestColdReset(t *testing.T) {
	h := newHarness(t, Config{})
	a := h.login()
	b := h.dial()
	b.isid = wire.RandomISID(5, 5)
	b.login(normal()...)
	if r := a.manage(scsi.TargetColdReset, 0, wire.NoTag, 0); r != scsi.FunctionComplete {
		t.Errorf("cold reset: %d", r)
	}
	if p := b.recv(wire.OpAsync); p.AsyncEvent() != wire.AsyncDropSession {
		t.Errorf("async event %d", p.AsyncEvent())
	}
	a.ended()
	b.ended()
	settle(t, "the end of the sessions", func() bool { return len(h.server.Sessions()) == 0 })
}

// TestManagementInOrder checks a task management function that is not immediate (RFC 7143 §4.2.2.1, §11.5).
func TestManagementInOrder(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("ImmediateData=No")
	sn := c.cmdSN
	h.array.disk.hold = func(*scsi.Task) bool { return true }
	c.itt++
	c.send(&wire.TaskManagement{Function: uint8(scsi.AbortTaskSet), ITT: 500, CmdSN: sn + 2, ReferencedTaskTag: wire.NoTag}, nil)
	c.cmdSN = sn
	c.tur()
	c.writeCmd(0, 8, true, nil)
	c.recv(wire.OpR2T)
	if p := c.recv(wire.OpTaskManagementResponse); p.ITT() != 500 || p.Response() != 0 || p.ExpCmdSN() != sn+3 {
		t.Errorf("response % x", p.BHS)
	}
	h.array.disk.mu.Lock()
	h.array.disk.hold = nil
	h.array.disk.mu.Unlock()
	c.cmdSN = sn + 3
	c.good(c.tur())
}

// TestImmediateLimit checks too many immediate commands (RFC 7143 §4.2.2.1, §11.17.1).
func TestImmediateLimit(t *testing.T) {
	h := newHarness(t, Config{MaxImmediate: 2})
	c := h.login()
	h.array.disk.hold = func(*scsi.Task) bool { return true }
	for range 3 {
		c.itt++
		c.send(&wire.SCSICommand{Immediate: true, Final: true, ITT: c.itt, CmdSN: c.cmdSN, CDB: make([]byte, 6)}, nil)
	}
	if p := c.recv(wire.OpReject); wire.Reason(p.Response()) != wire.ReasonImmediate {
		t.Errorf("reject % x", p.BHS)
	}
	c.itt++
	c.send(&wire.NOPOut{Immediate: true, ITT: c.itt, TTT: wire.NoTag, CmdSN: c.cmdSN}, nil)
	c.recv(wire.OpReject)
	h.array.disk.letGo()
	c.recv(wire.OpSCSIResponse)
	c.recv(wire.OpSCSIResponse)
	c.good(c.tur())
}
