// Package scsi is the SCSI device server: the target device with its ports and
// logical units, I_T nexuses, task management, unit attentions, asymmetric
// access, and the commands of SPC that every unit has. The command families
// with a room of their own are in sbc (block commands), reserve (reservations)
// and copy (EXTENDED COPY and ODX); each gives its table of Commands.
//
// A command goes one way: transport -> Nexus.Execute -> Command.Run -> unit and
// block device, and back by Task.Finish -> Owner.TaskDone.
package scsi

import "lintel.io/lintel/internal/unit"

// Command describes one operation code, or one service action of it. The
// dispatcher checks LUN, unit attentions, access state, reservations and
// reserved CDB bits from these facts, before Run; REPORT SUPPORTED OPERATION
// CODES is made from them too.
type Command struct {
	Name string
	Op   byte
	// ServiceAction is the 5-bit service action (byte 1), -1 for none.
	ServiceAction int
	// Usage is the CDB usage data of SPC-4 §6.27.4, as long as the CDB: byte 0
	// is the operation code; a one bit is a bit that the server evaluates. A CDB
	// with another bit set ends with INVALID FIELD IN CDB and its field pointer.
	Usage []byte
	// Access is what persistent reservations of others forbid.
	Access unit.Access
	// AllowReserved lets the command through a SCSI-2 reservation of another initiator.
	AllowReserved bool
	// SkipAttention lets the command run while a unit attention is pending, and leaves it
	// pending (INQUIRY, REPORT LUNS, REQUEST SENSE: they deal with it themselves).
	SkipAttention bool
	// AllowStates has bit 1<<state set for each asymmetric access state in
	// which the command is processed; 0 stands for optimized and non-optimized only.
	AllowStates uint16
	// NoUnit lets the command run on a LUN that has no unit (INQUIRY, REPORT LUNS, REQUEST SENSE).
	NoUnit bool
	// AllowSanitize lets the command run while a sanitize operation is under way or has failed.
	AllowSanitize bool
	// ChangesMedium marks commands refused with DATA PROTECT / WRITE PROTECTED on a read-only unit or mapping.
	ChangesMedium bool
	// DataOut returns how many bytes of Data-Out the command takes; nil for
	// none. It may look at the CDB and the unit's block size only.
	DataOut func(*Task) int
	// Run executes the command and ends, now or later, in exactly one Task.Finish...
	// call. It runs on the transport's goroutine and must not wait for the medium.
	Run func(*Task)
	// Supported, where not nil, tells for one unit whether the command exists on it.
	Supported func(*LogicalUnit) bool
}
