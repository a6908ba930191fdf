package nvme

import (
	"fmt"

	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// Command is one NVMe command. The caller owns the struct and reuses it; from
// Submit until Done it and its slices belong to the queue.
type Command struct {
	// Entry is the submission queue entry; Submit sets the command id and the SGL.
	Entry [wire.SQESize]byte
	// Out is the data for the target. It excludes In and Discard.
	Out []byte
	// In receives the data of the target, which sends just as much where the command succeeds.
	In []byte
	// Discard is how much data is expected and thrown away where In is empty, in bytes.
	Discard int
	// Done is called exactly once for each successful Submit, from a goroutine of
	// the queue, one call at a time for each queue. It may Submit, and must not
	// wait for the queue.
	Done func(*Command)

	// The result, valid from Done on.

	// Err says why the command has no status: its queue has failed. The other
	// results count only where it is nil.
	Err error
	// Status is the status field of the completion.
	Status wire.Status
	// Result is dwords 0 and 1 of the completion.
	Result [2]uint32
	// Received is how many bytes of data have arrived.
	Received int

	cid    uint16
	last   bool   // the target has said that all data has arrived
	asked  int    // how much of Out was in the capsule or R2Ts
	r2ts   uint64 // R2Ts whose data has not begun to leave
	sent   uint64 // where in the queue's stream its last data ends
	expect int
	state  commandState
	next   *Command
}

// commandState is where a Command is: idle -> waiting -> active -> idle, or
// active -> held -> idle.
type commandState uint8

const (
	idle    commandState = iota // the caller's
	waiting                     // for room in the queue
	active                      // sent
	held                        // ended, but its data is still being sent or received
)

// SQE returns the view on Entry.
func (cmd *Command) SQE() wire.SQE { return cmd.Entry[:] }

// Good reports whether the command succeeded.
func (cmd *Command) Good() bool { return cmd.Err == nil && cmd.Status.OK() }

// Failure returns nil for a command that succeeded, Err, or a *StatusError.
func (cmd *Command) Failure() error {
	switch {
	case cmd.Err != nil:
		return cmd.Err
	case !cmd.Status.OK():
		return &StatusError{Status: cmd.Status}
	}
	return nil
}

func (cmd *Command) check() error {
	switch {
	case cmd.Discard < 0 || len(cmd.In) > 1<<31-1 || len(cmd.Out) > 1<<31-1 || cmd.Discard > 1<<31-1:
		return fmt.Errorf("%w: too much data", ErrCommand)
	case len(cmd.Out) > 0 && (len(cmd.In) > 0 || cmd.Discard > 0):
		return fmt.Errorf("%w: data in both directions", ErrCommand)
	case cmd.Done == nil:
		return fmt.Errorf("%w: no Done", ErrCommand)
	}
	return nil
}

func (cmd *Command) reset() {
	cmd.Err, cmd.Status, cmd.Result, cmd.Received = nil, 0, [2]uint32{}, 0
	cmd.last, cmd.asked, cmd.r2ts, cmd.sent, cmd.next = false, 0, 0, 0, nil
	if cmd.expect = len(cmd.In); cmd.expect == 0 {
		cmd.expect = cmd.Discard
	}
}

// Submit sends a command, or queues it until the queue has room. It does not
// wait. An error means that Done will not be called.
func (q *Queue) Submit(cmd *Command) error {
	if err := cmd.check(); err != nil {
		return err
	}
	q.mu.Lock()
	if err := q.err; err != nil {
		q.mu.Unlock()
		return err
	}
	cmd.reset()
	q.enqueue(cmd)
	q.kickLocked()
	return nil
}

// SubmitFused sends two commands as a fused operation: one directly behind the
// other, whatever else is submitted (NVMe Base 2.0 §3.4.2). It sets their FUSE fields.
func (q *Queue) SubmitFused(first, second *Command) error {
	for _, cmd := range []*Command{first, second} {
		if err := cmd.check(); err != nil {
			return err
		}
	}
	if q.Limit() < 2 {
		return fmt.Errorf("%w: the queue has no room for a fused pair", ErrCommand)
	}
	first.SQE().SetFuse(wire.FuseFirst)
	second.SQE().SetFuse(wire.FuseSecond)
	q.mu.Lock()
	if err := q.err; err != nil {
		q.mu.Unlock()
		return err
	}
	first.reset()
	second.reset()
	q.enqueue(first)
	q.enqueue(second)
	q.kickLocked()
	return nil
}

// enqueue starts a command, or makes it wait behind others.
func (q *Queue) enqueue(cmd *Command) {
	if q.waiting.head != nil || !q.roomFor(cmd) {
		cmd.state = waiting
		q.waiting.push(cmd)
		return
	}
	q.start(cmd)
}

// roomFor reports whether the queue takes the command now. The second of a fused
// pair needs no room of its own: the first has waited for two places.
func (q *Queue) roomFor(cmd *Command) bool {
	need := 1
	if cmd.SQE().Fuse() == wire.FuseFirst {
		need = 2
	}
	if q.limit-q.active < need {
		return false
	}
	return !q.flow || int(q.size)-1-int(q.backlog()) >= need
}

// backlog returns how many entries the target has not said to have taken.
func (q *Queue) backlog() uint16 { return (q.tail + q.size - q.head) % q.size }

func (q *Queue) startWaiting() {
	for cmd := q.waiting.head; cmd != nil && q.roomFor(cmd); cmd = q.waiting.head {
		q.start(q.waiting.pop())
	}
}

// start gives the command its identifier and queues its capsule with the data
// that fits into it (NVMe/TCP 1.0 §3.3.2).
func (q *Queue) start(cmd *Command) {
	cmd.state = active
	i := q.free[len(q.free)-1]
	q.free = q.free[:len(q.free)-1]
	q.slots[i].cmd = cmd
	cmd.cid = q.slots[i].round<<slotBits | i
	q.active++
	if q.tail++; q.tail == q.size {
		q.tail = 0
	}
	out := len(cmd.Out)
	inline := out > 0 && (out <= q.capsule || out <= adminCapsule && cmd.SQE().Opcode() == wire.FabricsCommand)
	p := pdu.PDU(q.queue.Grow(q.send.Room(pdu.TypeCapsuleCmd, inline)))
	f := pdu.CapsuleCmd{SQE: cmd.Entry[:]}
	f.Put(p)
	e := wire.SQE(p.SQE())
	e.SetCID(cmd.cid)
	switch {
	case inline:
		e.SetSGL(0, uint32(out), wire.SGLOffset)
		q.send.Seal(p, out)
		q.data(cmd.Out)
		cmd.asked = out
		cmd.sent = q.queued()
	case out > 0:
		e.SetSGL(0, uint32(out), wire.SGLTransport)
		q.send.Seal(p, 0)
	default:
		e.SetSGL(0, uint32(cmd.expect), wire.SGLTransport)
		q.send.Seal(p, 0)
	}
}

// data queues data of a PDU and its digest.
func (q *Queue) data(p []byte) {
	q.queue.Append(p)
	if q.send.DataDigest {
		pdu.PutDigest(q.queue.Grow(pdu.DigestSize), pdu.Digest(p))
	}
}

// sendData queues the data that an R2T asks for (NVMe/TCP 1.0 §3.6.2.8).
func (q *Queue) sendData(cmd *Command, ttag uint16, off, n int) {
	f := pdu.H2CData{CommandID: cmd.cid, TransferTag: ttag}
	for n > 0 {
		part := min(n, q.maxH2C)
		n -= part
		f.Last, f.Offset, f.Count = n == 0, uint32(off), uint32(part)
		p := pdu.PDU(q.queue.Grow(q.send.Room(pdu.TypeH2CData, true)))
		f.Put(p)
		q.send.Seal(p, part)
		q.data(cmd.Out[off : off+part])
		off += part
	}
	cmd.sent = q.queued()
}

// list is a queue of commands.
type list struct {
	head, tail *Command
}

func (l *list) push(cmd *Command) {
	cmd.next = nil
	if l.head == nil {
		l.head = cmd
	} else {
		l.tail.next = cmd
	}
	l.tail = cmd
}

func (l *list) pop() *Command {
	cmd := l.head
	if l.head = cmd.next; l.head == nil {
		l.tail = nil
	}
	cmd.next = nil
	return cmd
}

// take empties the queue and returns its commands, linked by next.
func (l *list) take() *Command {
	head := l.head
	l.head, l.tail = nil, nil
	return head
}

func (l *list) remove(cmd *Command) {
	for all := l.take(); all != nil; {
		c := all
		all = c.next
		if c != cmd {
			l.push(c)
		}
	}
}
