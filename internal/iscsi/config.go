package iscsi

import (
	"log/slog"
	"time"
)

// Config describes a Server. Zero fields take the default in their comment.
type Config struct {
	Access Access       // required
	Logger *slog.Logger // discards

	// What the target offers in negotiations (RFC 7143 §13).

	MaxConnections         int // connections of a session, 8
	MaxRecvDataSegment     int // bytes of data in a PDU from an initiator, 256 KiB
	MaxBurst               int // bytes of a data sequence, 1 MiB
	FirstBurst             int // bytes of unsolicited data, 256 KiB
	MaxOutstandingR2T      int // R2Ts under way for a command, 1 to 8, 4
	RequireInitialR2T      bool
	RefuseImmediateData    bool
	DefaultTime2Wait       int // seconds, 2
	DefaultTime2Retain     int // seconds, 0: at error recovery level 0 there is nothing to retain
	RefuseDigests          bool
	QueueDepth             int // commands of a session under way, 128
	MaxImmediate           int // immediate commands of a connection under way, 16
	MaxLoginText           int // bytes of text in one exchange of login or text PDUs, 64 KiB
	MaxSessions            int // 1024, discovery sessions not counted
	MaxDiscovery           int // discovery sessions, 256
	MaxDiscoveryPerAddress int // and from one address or IPv6 /64, 32
	MaxPendingLogins       int // connections before full feature phase, 2048
	MaxPendingPerAddress   int // and from one address or IPv6 /64, half of MaxPendingLogins

	// DataBudget bounds the bytes of all commands that wait for more Data-Out, 256 MiB;
	// ConnectionBudget those of one connection, 64 MiB.
	DataBudget       int64
	ConnectionBudget int64
	// ReadBudget bounds the bytes that the reads of one connection ask for at a time;
	// more get TASK SET FULL. 256 MiB.
	ReadBudget int64
	// OutputLimit is how many bytes may wait to be sent to one connection
	// before no more of its commands are taken, 8 MiB.
	OutputLimit int

	LoginTimeout time.Duration // 15 s
	// PingInterval is after how much silence a NOP-In is sent, 30 s.
	PingInterval time.Duration
	// PingTimeout is how long its answer, or room to send anything, is waited for, 30 s.
	PingTimeout time.Duration
	// DataTimeout is how long the unsolicited data of a command is waited for, all the rest
	// from its first R2T on, and the requests before one that came early, 60 s.
	DataTimeout time.Duration

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
	or(&c.MaxConnections, 8)
	or(&c.MaxRecvDataSegment, 256<<10)
	or(&c.MaxBurst, 1<<20)
	or(&c.FirstBurst, 256<<10)
	or(&c.MaxOutstandingR2T, 4)
	or(&c.DefaultTime2Wait, 2)
	or(&c.QueueDepth, 128)
	or(&c.MaxImmediate, 16)
	or(&c.MaxLoginText, 64<<10)
	or(&c.MaxSessions, 1024)
	or(&c.MaxDiscovery, 256)
	or(&c.MaxDiscoveryPerAddress, 32)
	or(&c.MaxPendingLogins, 2048)
	or(&c.MaxPendingPerAddress, (c.MaxPendingLogins+1)/2)
	or(&c.DataBudget, 256<<20)
	or(&c.ConnectionBudget, 64<<20)
	or(&c.ReadBudget, 256<<20)
	or(&c.OutputLimit, 8<<20)
	or(&c.LoginTimeout, 15*time.Second)
	or(&c.PingInterval, 30*time.Second)
	or(&c.PingTimeout, 30*time.Second)
	or(&c.DataTimeout, 60*time.Second)
	c.MaxConnections = min(c.MaxConnections, 65535)
	c.MaxRecvDataSegment = min(max(c.MaxRecvDataSegment, 8192), 1<<24-1)
	c.MaxOutstandingR2T = min(c.MaxOutstandingR2T, maxR2T)
	c.MaxBurst = min(max(c.MaxBurst, 512), 1<<24-1)
	c.FirstBurst = min(max(c.FirstBurst, 512), c.MaxBurst)
	c.QueueDepth = min(c.QueueDepth, maxTasks/2)
	c.MaxImmediate = min(c.MaxImmediate, maxTasks/8)
	return c
}

const (
	maxR2T   = 8    // size of a task's ring of outstanding R2Ts
	maxTasks = 4094 // tasks of a connection, so that an index fits in a target transfer tag
)
