package iscsi

import (
	"fmt"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// Task attributes (RFC 7143 §11.3.1).
const (
	AttrUntagged    = 0
	AttrSimple      = 1
	AttrOrdered     = 2
	AttrHeadOfQueue = 3
	AttrACA         = 4
)

// maxSense is the longest sense data kept, in bytes (SPC-4 §4.5.1).
const maxSense = 252

// Command is one SCSI command. The caller owns the struct and reuses it; from
// Submit until Done it and its slices belong to the session.
type Command struct {
	// LUN is the logical unit number in its wire form (see LUN).
	LUN uint64
	// CDB is the command, 1 to 260 bytes.
	CDB []byte
	// Attr is the task attribute.
	Attr uint8
	// Immediate sends the command outside of the order of the others.
	Immediate bool
	// Out is the data for the target. It excludes In and Discard.
	Out []byte
	// In receives the data of the target; its length is what is expected.
	In []byte
	// Discard is how much data is expected and thrown away where In is empty, in bytes.
	Discard int
	// Done is called exactly once for each successful Submit, from a goroutine
	// of the session, one call at a time for each connection. It may Submit,
	// and must not wait for the session.
	Done func(*Command)

	// The result, valid from Done on.

	// Err says why the command has no status: the session failed, the command
	// was aborted or rejected. Status and sense count only where it is nil.
	Err error
	// Status is the SCSI status.
	Status uint8
	// Received is how many bytes of data have arrived.
	Received int
	// Residual is how many of the expected bytes were not transferred; negative where the
	// command had more to transfer than was expected.
	Residual int

	senseLen int
	sense    [maxSense]byte

	conn   *Conn
	itt    uint32
	cmdSN  uint32
	dataSN uint32 // of the next Data-In or R2T
	sent   uint64 // where in the connection's stream its last data ends
	state  commandState
	next   *Command
}

// commandState is where a Command is: idle -> waiting -> active -> idle, or
// active -> held -> idle.
type commandState uint8

const (
	idle    commandState = iota // the caller's
	waiting                     // for room in the command window
	active                      // sent
	held                        // ended, but its data is still being sent or received
)

// Sense returns the sense data, which is overwritten when the command is used again.
func (cmd *Command) Sense() []byte { return cmd.sense[:cmd.senseLen] }

// Good reports whether the command ended with status GOOD.
func (cmd *Command) Good() bool { return cmd.Err == nil && cmd.Status == 0 }

// Failure returns nil for a command that ended with GOOD, Err, or a *StatusError.
func (cmd *Command) Failure() error {
	switch {
	case cmd.Err != nil:
		return cmd.Err
	case cmd.Status != 0:
		return &StatusError{Status: cmd.Status, Sense: append([]byte(nil), cmd.Sense()...)}
	}
	return nil
}

func (cmd *Command) expected() int {
	switch {
	case len(cmd.Out) > 0:
		return len(cmd.Out)
	case len(cmd.In) > 0:
		return len(cmd.In)
	}
	return cmd.Discard
}

func (cmd *Command) check() error {
	switch {
	case len(cmd.CDB) < 1 || len(cmd.CDB) > 260:
		return fmt.Errorf("%w: a CDB of %d bytes", ErrCommand, len(cmd.CDB))
	case cmd.Discard < 0 || cmd.expected() > 1<<31-1:
		return fmt.Errorf("%w: a transfer of %d bytes", ErrCommand, cmd.expected())
	case len(cmd.Out) > 0 && (len(cmd.In) > 0 || cmd.Discard > 0):
		return fmt.Errorf("%w: data in both directions", ErrCommand)
	case cmd.Done == nil:
		return fmt.Errorf("%w: no Done", ErrCommand)
	}
	return nil
}

// Submit sends a command on this connection, or queues it until the target's
// command window has room. It does not wait. An error means that Done will not be called.
func (c *Conn) Submit(cmd *Command) error {
	if err := cmd.check(); err != nil {
		return err
	}
	s := c.session
	s.mu.Lock()
	if s.err != nil {
		err := s.err
		s.mu.Unlock()
		return err
	}
	cmd.Err, cmd.Status, cmd.Received, cmd.Residual, cmd.senseLen = nil, 0, 0, 0, 0
	cmd.dataSN, cmd.sent, cmd.next, cmd.conn = 0, 0, nil, c
	if !cmd.Immediate && (s.waiting.head != nil || !s.windowOpen()) || !s.slotFree() {
		cmd.state = waiting
		s.waiting.push(cmd)
	} else {
		c.start(cmd)
	}
	c.kickLocked()
	return nil
}

// Submit sends a command on the connections of the session in turn.
func (s *Session) Submit(cmd *Command) error {
	return s.pick().Submit(cmd)
}

// start gives the command its tag and number and queues its PDU with the data
// that may go without being asked for (RFC 7143 §4.2.4.2).
func (c *Conn) start(cmd *Command) {
	s, p := c.session, &c.params
	cmd.state = active
	cmd.itt = s.register(entry{cmd: cmd})
	cmd.cmdSN = s.cmdSN
	if !cmd.Immediate {
		s.cmdSN++
	}
	out := len(cmd.Out)
	immediate, unsolicited := 0, 0
	if out > 0 {
		first := min(out, p.FirstBurstLength)
		if p.ImmediateData {
			immediate = min(first, p.TargetMaxRecvDataSegmentLength)
		}
		if !p.InitialR2T {
			unsolicited = first - immediate
		}
	}
	f := wire.SCSICommand{
		Immediate: cmd.Immediate, Final: unsolicited == 0, Read: len(cmd.In) > 0 || cmd.Discard > 0, Write: out > 0,
		Attr: cmd.Attr, LUN: cmd.LUN, ITT: cmd.itt, ExpectedLength: uint32(cmd.expected()),
		CmdSN: cmd.cmdSN, ExpStatSN: c.expStatSN, CDB: cmd.CDB,
	}
	var extended []byte
	if len(cmd.CDB) > 16 {
		extended = wire.AppendExtendedCDB(nil, cmd.CDB)
	}
	h := wire.BHS(c.queue.Grow(wire.HeaderSize + len(extended)))
	f.Put(h)
	if len(extended) > 0 {
		copy(h[wire.HeaderSize:], extended)
		h.SetAHSLength(len(extended))
	}
	c.seal(h, cmd.Out[:immediate])
	if unsolicited > 0 {
		c.sendData(cmd, wire.NoTag, immediate, unsolicited)
	}
	if out > 0 {
		cmd.sent = c.queued()
	}
}

// sendData queues one sequence of Data-Out PDUs (RFC 7143 §11.7).
func (c *Conn) sendData(cmd *Command, ttt uint32, off, n int) {
	f := wire.DataOut{LUN: cmd.LUN, ITT: cmd.itt, TTT: ttt, ExpStatSN: c.expStatSN}
	if ttt == wire.NoTag {
		f.LUN = 0
	}
	for n > 0 {
		part := min(n, c.params.TargetMaxRecvDataSegmentLength)
		n -= part
		f.Final, f.BufferOffset = n == 0, uint32(off)
		h := wire.BHS(c.queue.Grow(wire.HeaderSize))
		f.Put(h)
		c.seal(h, cmd.Out[off:off+part])
		off += part
		f.DataSN++
	}
	cmd.sent = c.queued()
}
