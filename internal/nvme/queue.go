package nvme

import (
	"net/netip"
	"sync"

	wire "lintel.io/lintel/internal/wire/nvme"
)

// QueueConfig describes a transport connection.
type QueueConfig struct {
	Remote netip.AddrPort
	Local  netip.AddrPort
	Port   uint16 // id of the port (portal) that was reached
	// TLSIdentity is the PSK identity, empty without TLS.
	TLSIdentity string
	// InCapsule is how much data a command capsule of an I/O queue may hold, in bytes (a
	// multiple of 16; admin and Fabrics commands always have 8192).
	InCapsule int
	// Kill ends the connection from the controller's side. It must not block
	// and may be called from any goroutine, also from inside Execute, more
	// than once. The transport then calls Close.
	Kill func(error)
}

// Queue is a submission and completion queue pair: one transport connection. It
// becomes the admin queue or an I/O queue of a controller by its first command,
// Connect. All methods but DataOutLength may be called concurrently.
type Queue struct {
	sub *Subsystem
	cfg QueueConfig

	mu     sync.Mutex
	closed bool
}

// Depth returns how many entries the queue has, 2 to 1024: at most one fewer
// commands may be under way with flow control, that many without. Before Connect
// it is that of a queue of one command.
func (q *Queue) Depth() int { return 2 }

// FlowControl reports whether the SQ head pointer is kept; where not, completions
// carry FFFFh (NVMe Base 2.0 §3.3.1.1, CATTR bit 2 of Connect).
func (q *Queue) FlowControl() bool { return true }

// ID returns the queue identifier: 0 for the admin queue, as also before Connect.
func (q *Queue) ID() uint16 { return 0 }

// DataOutLength is called once for each command, in order of arrival, before
// Execute. It returns how many bytes of data the host sends for the command: 0
// where there are none or where the command will fail; the transport then drops
// what came in the capsule, and Execute gives the status.
func (q *Queue) DataOutLength(r *Request) int { return 0 }

// Execute runs a command for which DataOutLength was called.
// r.Owner.RequestDone is called once, possibly before Execute returns.
func (q *Queue) Execute(r *Request) {
	r.Status = wire.InvalidOpcode.DNR()
	r.Owner.RequestDone(r)
}

// Close ends the queue: its commands are cancelled. done is called when none of them
// can reach a device any more; RequestDone has been called for all of them
// then. DataOutLength and Execute are not called after Close.
func (q *Queue) Close(done func()) { done() }
