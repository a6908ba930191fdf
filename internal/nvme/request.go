package nvme

import (
	"sync/atomic"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// MaxTransferBytes is how much data a command moves at most, in bytes (MDTS).
const MaxTransferBytes = 1 << 20

// Request is one command from a transport. The transport owns the struct and
// reuses it: it fills the first part, calls Queue.DataOutLength, gets the data,
// calls Queue.Execute, and gets the request back through Owner.RequestDone, after
// which it sends the completion and calls Release.
type Request struct {
	// Set by the transport.

	SQE     wire.SQE // 64 bytes of the transport's, valid until RequestDone
	DataOut []byte   // complete: as many bytes as DataOutLength said, or none where Refuse is set
	Owner   Owner
	// Refuse, where not zero, is the status with which the transport wants the
	// command to end: its data could not be moved. Execute ends it so.
	Refuse wire.Status

	// Set by the controller.

	Status wire.Status
	Result [2]uint32 // dwords 0 and 1 of the completion
	// DataIn is the data for the host, never longer than the SGL of the
	// command says. It may lie in memory that is shared and must not be written.
	DataIn []byte

	// For the commands.

	Queue *Queue
	NS    *namespace
	Req   block.Request   // the request under way for this command
	Guard unit.RangeGuard // the range it holds
	Step  func(*Request)  // what to do when Req has completed or Guard is ready

	in        *block.Buffer
	length    int           // of the data of the command, in bytes
	offset    uint64        // first byte of the device
	cancelled atomic.Uint32 // a wire.Status
	fused     *Request      // the other half of a fused pair
	fusing    fusing

	// Guarded by Queue.mu.
	prev, next *Request // the queue's list of commands under way
	drains     []*drain // who waits for this command to end
	linked     bool
}

// Owner receives finished requests.
type Owner interface {
	// RequestDone is called exactly once for each executed request, from
	// inside Execute or later from another goroutine. It must not block.
	RequestDone(*Request)
}
