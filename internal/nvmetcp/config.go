package nvmetcp

import (
	"log/slog"
	"net"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// Queue is what a connection hands its commands to; *nvme.Queue has the
// contract of each method.
type Queue interface {
	Depth() int
	FlowControl() bool
	ID() uint16
	DataOutLength(*nvme.Request) int
	Execute(*nvme.Request)
	Close(done func())
}

var _ Queue = (*nvme.Queue)(nil)

// Config describes a Server. Zero fields take the default in their comment.
type Config struct {
	// NewQueue returns the queue of a new connection; required.
	NewQueue func(nvme.QueueConfig) Queue
	// Secure wraps a new connection before its first PDU, and returns what its peer
	// has proved; nil uses connections as they are. The deadline of the
	// handshake is set already. An error ends the connection.
	Secure func(nc net.Conn, port uint16) (wrapped net.Conn, proved nvme.TLS, err error)
	Logger *slog.Logger // discards

	// What the controller tells hosts (NVMe/TCP 1.0 §3.6.2.3).

	InCapsule     int   // bytes of data in a command capsule of an I/O queue, 8 KiB; at least 8 KiB are taken
	MaxH2CData    int   // bytes of data in an H2CData PDU and asked for with an R2T, 1 MiB
	Align         uint8 // CPDA: data in PDUs from hosts begins at a multiple of 4 * (Align + 1) bytes, 0
	MaxR2T        int   // R2Ts outstanding for a command where the host allows as many, 1 to 8, 4
	RefuseDigests bool

	MaxConnections        int // 8192
	MaxHalfOpen           int // connections before the end of Connect, 2048
	MaxHalfOpenPerAddress int // and from one address or IPv6 /64, half of MaxHalfOpen

	// DataBudget bounds the bytes of all commands that wait for H2CData, 256 MiB;
	// ConnectionBudget those of one connection, 64 MiB.
	DataBudget       int64
	ConnectionBudget int64
	// ReadBudget bounds the bytes that the reads of one connection ask for at a
	// time, 256 MiB; beyond it the connection's commands wait.
	ReadBudget int64
	// OutputLimit is how many bytes may wait to be sent to one connection
	// before no more of its commands are taken, 8 MiB.
	OutputLimit int

	// ConnectTimeout is how long a connection may take from its beginning to the end of Connect, 15 s.
	ConnectTimeout time.Duration
	// DataTimeout is how long all data of a command is waited for from its first R2T on, 60 s.
	DataTimeout time.Duration
	// SendTimeout is how long room to send anything is waited for, 30 s.
	SendTimeout time.Duration
	// TermTimeout is how long a host may take to close its connection after
	// a termination request, 1 s (NVMe/TCP 1.0 §3.5 allows up to 30 s).
	TermTimeout time.Duration

	// SocketBuffer is the size of send and receive buffers of sockets in bytes, 0 for the system's choice.
	SocketBuffer int
}

func or[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// withDefaults fills zero fields in.
func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	or(&c.InCapsule, minCapsule)
	or(&c.MaxH2CData, 1<<20)
	or(&c.MaxR2T, 4)
	or(&c.MaxConnections, 8192)
	or(&c.MaxHalfOpen, 2048)
	or(&c.MaxHalfOpenPerAddress, (c.MaxHalfOpen+1)/2)
	or(&c.DataBudget, 256<<20)
	or(&c.ConnectionBudget, 64<<20)
	or(&c.ReadBudget, 256<<20)
	or(&c.OutputLimit, 8<<20)
	or(&c.ConnectTimeout, 15*time.Second)
	or(&c.DataTimeout, 60*time.Second)
	or(&c.SendTimeout, 30*time.Second)
	or(&c.TermTimeout, time.Second)
	c.InCapsule = min(c.InCapsule, 1<<16) &^ 15
	c.MaxH2CData = min(max(c.MaxH2CData, wire.MinH2CData), block.MaxBuffer) &^ 3
	c.Align = min(c.Align, wire.MaxAlign)
	c.MaxR2T = min(c.MaxR2T, maxR2T)
	c.DataBudget = max(c.DataBudget, block.MaxBuffer)
	return c
}

const (
	minCapsule = 8 << 10 // what capsules of admin and Fabrics commands may hold
	maxR2T     = 8       // size of a task's table of outstanding R2Ts
	maxDepth   = 1024    // commands of a queue under way
	// maxTasks has room for as many commands whose answers are not yet sent.
	maxTasks = 2 * maxDepth
)
