package scsi

import (
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
	Owner   Owner

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
	Guard   unit.RangeGuard // the range it holds
	Step    func(*Task)     // what to do when Req has completed or Guard is ready
	Scratch [4]uint64       // command-specific state between steps
	State   any             // command-specific state that needs more

	in         *block.Buffer
	prev, next *Task // the nexus's list of tasks under way on the unit
}

// Owner receives finished tasks.
type Owner interface {
	// TaskDone is called exactly once for each executed task, from inside
	// Execute or later from another goroutine. It must not block.
	TaskDone(*Task)
}

// RequestDone continues the task; it makes Task a block.Completer.
func (t *Task) RequestDone(*block.Request) { t.Step(t) }

// RangeReady continues the task; it makes Task a unit.RangeWaiter.
func (t *Task) RangeReady(*unit.RangeGuard) { t.Step(t) }
