package scsi

import (
	"sync/atomic"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
)

// MaxSense is the longest sense data that a Task carries, in bytes (SPC-4 §4.5.1).
const MaxSense = 252

// Task is one SCSI command from a transport. The transport owns the struct and
// reuses it: it fills the first part, calls Nexus.Execute, and gets it back
// through Owner.TaskDone, after which it sends the result and calls Release.
type Task struct {
	// Set by the transport.

	LUN     uint64 // the 8 bytes of the wire, big endian
	Tag     uint64 // unique among the nexus's commands under way
	CDB     []byte // belongs to the transport, valid until TaskDone
	Attr    TaskAttribute
	DataOut []byte // what the initiator sent, complete; shorter than DataOutLength said where the initiator expected to send less
	// DataOutExpected is how many bytes of Data-Out the initiator announced; where
	// that is more than the command takes, DataOut has only what it takes.
	DataOutExpected uint32
	Owner           Owner

	// Set by the device server.

	Status   Status
	SenseLen int
	Sense    [MaxSense]byte
	// DataIn is the data for the initiator, before the transport cuts it to
	// what the initiator expects. It may lie in memory that is shared and
	// must not be written.
	DataIn []byte
	// Aborted says that the command was ended by task management: the
	// transport sends no response for it.
	Aborted bool

	// For the device server and the command sets.

	Nexus   *Nexus
	LU      *LogicalUnit
	Command *Command
	Req     block.Request   // the request under way for this task
	Guard   unit.RangeGuard // the range it holds or waits for; task management ends the wait
	Step    func(*Task)     // what to do when Req has completed or Guard is ready
	Scratch [4]uint64       // command-specific state between steps
	State   any             // command-specific state that needs more

	in        *block.Buffer
	arrived   *path         // where the LUN led when DataOutLength was asked, nil where nobody asked
	epoch     uint32        // and the epoch of that path
	path      *path         // nil where the LUN has no unit
	op        *operation    // what Command belongs to
	cancelled atomic.Uint32 // a cancelMode

	// Guarded by path.mu.
	stamp      unit.Stamp
	prev, next *Task         // the path's list of tasks under way
	drains     []*unit.Drain // who waits for this task to end
	dormant    bool          // held back by an ORDERED task
}

// Owner receives finished tasks.
type Owner interface {
	// TaskDone is called exactly once for each executed task, from inside
	// Execute or later from another goroutine. It must not block.
	TaskDone(*Task)
}

var (
	_ block.Completer  = (*Task)(nil)
	_ unit.RangeWaiter = (*Task)(nil)
)

// RequestDone continues the task; it makes Task a block.Completer.
func (t *Task) RequestDone(*block.Request) { t.Step(t) }

// RangeReady continues the task; it makes Task, with Cancelled, a unit.RangeWaiter.
func (t *Task) RangeReady(*unit.RangeGuard) { t.Step(t) }

// Cancelled reports whether task management has ended the task. A command of
// many steps asks before each step that changes the medium, and then ends at once
// with Finish (any status): the initiator does not see it.
func (t *Task) Cancelled() bool { return t.cancelled.Load() != 0 }

// AllocIn sets DataIn to n bytes from the buffer pool, aligned for devices, and
// returns it; n is at most block.MaxBuffer. The content is arbitrary: the caller
// fills all of it. A second call gives back what the first returned.
func (t *Task) AllocIn(n int) []byte {
	if t.in != nil {
		t.in.Put()
	}
	t.in = block.Get(n)
	t.DataIn = t.in.Bytes(n)
	return t.DataIn
}

// Reply ends the task with GOOD and data, cut to the allocation length (SPC-4
// §4.2.5.6). The data is copied.
func (t *Task) Reply(data []byte, allocation int) {
	n := min(len(data), allocation)
	copy(t.AllocIn(n), data)
	t.Finish(StatusGood)
}

// Release gives the task's data back to its pools and readies it for reuse.
func (t *Task) Release() {
	if t.in != nil {
		t.in.Put()
		t.in = nil
	}
	t.DataIn, t.DataOut = nil, nil
	t.State, t.Step = nil, nil
	t.Req.Data = nil
}

// begin readies the task for execution.
func (t *Task) begin(n *Nexus) {
	t.Nexus, t.LU, t.path = n, nil, nil
	t.Command, t.op = nil, nil
	t.Status, t.SenseLen, t.Aborted = StatusGood, 0, false
	if t.cancelled.Load() != cancelNone {
		t.cancelled.Store(cancelNone)
	}
}
