package iscsi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// request is a task that is not a SCSI command: a ping, task management, text or
// a logout.
type request struct {
	conn   *Conn
	op     wire.Opcode // of the response
	header wire.BHS    // of the response
	data   []byte
	once   sync.Once
	err    error
	done   chan struct{}
	// onResponse runs in the reader, with Session.mu held, before the request is done.
	onResponse func(h wire.BHS)
}

func (r *request) finish(err error) {
	r.once.Do(func() {
		r.err = err
		close(r.done)
	})
}

// send registers a request and sends its PDU, which put fills given the tag and
// the sequence numbers. Requests are immediate.
func (c *Conn) send(r *request, data []byte, put func(itt, cmdSN, expStatSN uint32) wire.Fields) error {
	s := c.session
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return s.err
	}
	if len(s.free) == 0 && len(s.table) >= maxTasks {
		defer s.mu.Unlock()
		return errors.New("too many requests under way")
	}
	r.conn, r.done = c, make(chan struct{})
	itt := s.register(entry{req: r})
	h := wire.BHS(c.queue.Grow(wire.HeaderSize))
	put(itt, s.cmdSN, c.expStatSN).Put(h)
	c.seal(h, slices.Clone(data))
	c.kickLocked()
	return nil
}

// wait waits for the response. A request that is given up keeps its tag until
// the target answers.
func (r *request) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// requestResponse ends the request that a PDU answers.
func (c *Conn) requestResponse(h wire.BHS, data []byte) error {
	if err := c.statusNumber(h); err != nil {
		return err
	}
	s := c.session
	e, err := s.task(h.ITT())
	if err != nil {
		return fmt.Errorf("%v: %w", h.Opcode(), err)
	}
	if e.req == nil || e.req.op != h.Opcode() || e.req.conn != c {
		return protocolError("%v for a task of another kind or connection", h.Opcode())
	}
	r := e.req
	s.unregister(h.ITT())
	r.header = slices.Clone(h[:wire.HeaderSize])
	r.data = slices.Clone(data)
	if r.onResponse != nil {
		r.onResponse(r.header)
	}
	c.answered = append(c.answered, r)
	return nil
}

// Ping sends a NOP-Out with data, up to what the target takes in one PDU, and
// returns the data of the answer (RFC 7143 §11.18).
func (c *Conn) Ping(ctx context.Context, data []byte) ([]byte, error) {
	if len(data) > c.params.TargetMaxRecvDataSegmentLength {
		return nil, fmt.Errorf("%w: a ping of %d bytes", ErrCommand, len(data))
	}
	r := &request{op: wire.OpNOPIn}
	err := c.send(r, data, func(itt, cmdSN, expStatSN uint32) wire.Fields {
		return &wire.NOPOut{Immediate: true, ITT: itt, TTT: wire.NoTag, CmdSN: cmdSN, ExpStatSN: expStatSN}
	})
	if err == nil {
		err = r.wait(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("ping: %w", err)
	}
	return r.data, nil
}

// Function is a task management function (RFC 7143 §11.5.1).
type Function uint8

// The task management functions.
const (
	AbortTask        Function = 1
	AbortTaskSet     Function = 2
	ClearACA         Function = 3
	ClearTaskSet     Function = 4
	LogicalUnitReset Function = 5
	TargetWarmReset  Function = 6
	TargetColdReset  Function = 7
	TaskReassign     Function = 8
)

// Response is the response of a task management function (RFC 7143 §11.6.1).
type Response uint8

// The task management responses.
const (
	FunctionComplete     Response = 0
	TaskDoesNotExist     Response = 1
	LUNDoesNotExist      Response = 2
	TaskStillAllegiant   Response = 3
	ReassignNotSupported Response = 4
	FunctionNotSupported Response = 5
	AuthorizationFailed  Response = 6
	FunctionRejected     Response = 255
)

// Manage runs a task management function; task is the command of ABORT TASK,
// nil for the other functions. The commands that it ended get ErrAborted, or
// have got their status, before it returns; one whose data is still on its way out, a little later.
func (s *Session) Manage(ctx context.Context, f Function, lun uint64, task *Command) (Response, error) {
	response, err := s.manage(ctx, f, lun, task)
	if err != nil {
		return response, fmt.Errorf("task management function %d: %w", f, err)
	}
	return response, nil
}

func (s *Session) manage(ctx context.Context, f Function, lun uint64, task *Command) (Response, error) {
	c := s.pick()
	put := wire.TaskManagement{Immediate: true, Function: uint8(f), LUN: lun, ReferencedTaskTag: wire.NoTag}
	if task != nil {
		s.mu.Lock()
		switch task.state {
		case waiting:
			s.waiting.remove(task)
			task.Err, task.next, task.state = ErrAborted, nil, idle
			s.mu.Unlock()
			deliver(task)
			return FunctionComplete, nil
		case idle, held:
			s.mu.Unlock()
			return TaskDoesNotExist, nil
		}
		c, put.LUN, put.ReferencedTaskTag, put.RefCmdSN = task.conn, task.LUN, task.itt, task.cmdSN
		s.mu.Unlock()
	}
	var before uint32
	r := &request{op: wire.OpTaskManagementResponse}
	r.onResponse = func(h wire.BHS) {
		c.endManaged(f, put, before, Response(h.Response()))
	}
	err := c.send(r, nil, func(itt, cmdSN, expStatSN uint32) wire.Fields {
		put.ITT, put.CmdSN, put.ExpStatSN = itt, cmdSN, expStatSN
		before = cmdSN
		return &put
	})
	if err == nil {
		err = r.wait(ctx)
	}
	if err != nil {
		return FunctionRejected, err
	}
	return Response(r.header.Response()), nil
}

// endManaged ends the commands that a task management function has ended
// without a response (RFC 7143 §11.6, §4.2.3.3). Session.mu is held.
func (c *Conn) endManaged(f Function, put wire.TaskManagement, before uint32, response Response) {
	s := c.session
	abort := func(cmd *Command) {
		s.aborts = true
		cmd.Err = ErrAborted
		c.finish(cmd)
	}
	switch f {
	case AbortTask:
		if response != FunctionComplete && response != TaskDoesNotExist {
			return
		}
		if e, _ := s.task(put.ReferencedTaskTag); e.cmd != nil {
			abort(e.cmd)
		}
	case AbortTaskSet, ClearTaskSet, LogicalUnitReset, TargetWarmReset, TargetColdReset:
		if response != FunctionComplete {
			return
		}
		all := f == TargetWarmReset || f == TargetColdReset
		for _, e := range s.table {
			if e.cmd != nil && (all || e.cmd.LUN == put.LUN) && wire.Before(e.cmd.cmdSN, before) {
				abort(e.cmd)
			}
		}
	}
}

// Text sends a text request and returns the pairs of the whole answer (RFC 7143 §11.10).
func (c *Conn) Text(ctx context.Context, pairs ...wire.KeyValue) ([]wire.KeyValue, error) {
	var text, got []byte
	for _, p := range pairs {
		text = wire.AppendText(text, p.Key, p.Value)
	}
	if len(text) > c.params.TargetMaxRecvDataSegmentLength {
		return nil, fmt.Errorf("text request: %w: %d bytes of text", ErrCommand, len(text))
	}
	ttt, lun := wire.NoTag, uint64(0)
	for {
		r := &request{op: wire.OpTextResponse}
		err := c.send(r, text, func(itt, cmdSN, expStatSN uint32) wire.Fields {
			return &wire.Text{Immediate: true, Final: true, LUN: lun, ITT: itt, TTT: ttt, CmdSN: cmdSN, ExpStatSN: expStatSN}
		})
		if err == nil {
			err = r.wait(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("text request: %w", err)
		}
		if got = append(got, r.data...); len(got) > maxText {
			return nil, fmt.Errorf("text request: %w", protocolError("an answer of more than %d bytes", maxText))
		}
		if r.header.Final() {
			out, err := wire.ParseText(got, maxText/8)
			if err != nil {
				return nil, fmt.Errorf("text request: %w", protocolError("%w", err))
			}
			return out, nil
		}
		text, ttt, lun = nil, r.header.TTT(), r.header.LUN()
	}
}

// maxText bounds the answer to a text request in bytes: the records of some ten
// thousand targets.
const maxText = 4 << 20

// Logout ends the session in good order (RFC 7143 §11.14): commands under way
// get ErrClosed. Whatever the outcome, the session has ended when it returns.
func (s *Session) Logout(ctx context.Context) error {
	defer s.Close()
	if err := s.pick().logout(ctx, wire.LogoutCloseSession); err != nil {
		return fmt.Errorf("logout: %w", err)
	}
	return nil
}

func (c *Conn) logout(ctx context.Context, reason uint8) error {
	s := c.session
	r := &request{op: wire.OpLogoutResponse}
	r.onResponse = func(h wire.BHS) { s.leaving = h.Response() == wire.LogoutOK }
	err := c.send(r, nil, func(itt, cmdSN, expStatSN uint32) wire.Fields {
		return &wire.Logout{Immediate: true, Reason: reason, ITT: itt, CID: c.cid, CmdSN: cmdSN, ExpStatSN: expStatSN}
	})
	if err == nil {
		err = r.wait(ctx)
	}
	if err != nil {
		return err
	}
	if response := r.header.Response(); response != wire.LogoutOK {
		return fmt.Errorf("the target answered %d", response)
	}
	return nil
}
