// Package nvme is an NVMe/TCP host (NVMe Base 2.0, NVMe/TCP 1.0): discovery,
// association with DH-HMAC-CHAP, an admin queue, I/O queues of one connection each, and
// commands handed over asynchronously with a callback or run one by one.
//
// Each queue has one goroutine that reads: it takes in every PDU that one read
// brought, runs the callbacks of the commands that ended, and sends what those
// submitted with one vectored write. A command costs no allocation. The target
// is held to the protocol: what it does wrong ends the queue with ErrProtocol
// and a termination request.
package nvme

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"lintel.io/lintel/internal/nvme/tlskey"
	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// Options describe an association to be made.
type Options struct {
	// Subsystem is the NQN of the subsystem, or of a discovery service.
	Subsystem string
	// HostNQN is the name of the host; made of HostID where empty.
	HostNQN string
	// HostID identifies the host; random where zero.
	HostID [16]byte
	// Controller is the controller to connect to; any (FFFFh) where 0.
	Controller uint16
	// AdminDepth is the number of entries of the admin queue, 2 to 4096; 32 where 0.
	AdminDepth int
	// IOQueues is the number of I/O queues that Dial makes, 0 for none.
	IOQueues int
	// Depth is the number of entries of each I/O queue, 2 to 4096; 128 where 0. More than
	// CAP.MQES allows is reduced to that.
	Depth int
	// FlowControl keeps the SQ flow control, which is disabled otherwise where
	// the target agrees (NVMe Base 2.0 §6.3). The target can use the SUCCESS flag only without it.
	FlowControl bool
	// HeaderDigest and DataDigest ask for CRC32C.
	HeaderDigest, DataDigest bool
	// Align asks that data in PDUs of the target begins at a multiple of 4 * (Align + 1) bytes (HPDA).
	Align uint8
	// MaxR2T is how many R2Ts may be outstanding for a command, 1 where 0.
	MaxR2T uint32
	// KeepAlive is the timeout of the association in steps of a millisecond, 0 for
	// none. A Keep Alive is sent each half of it.
	KeepAlive time.Duration
	// Auth holds the keys of DH-HMAC-CHAP, nil for none.
	Auth *Auth
	// TLS is the host's key where TLS is to be used, nil for none.
	TLS *tlskey.Key
	// OnEvent is told asynchronous events: dword 0 of the completion. Where it is nil
	// none are asked for. It must not wait for the controller.
	OnEvent func(event uint32)
	// Dial opens connections, by TCP where nil.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// After is the clock of keep alive and of waiting for the controller; time.After where nil.
	After func(time.Duration) <-chan time.Time
	// AbortTimeout is how long the target has to end a command whose context was
	// cancelled before its queue is given up; 5 s where 0.
	AbortTimeout time.Duration
}

// MaxDepth is the most entries of a queue that this package handles.
const MaxDepth = 4096

func (o Options) withDefaults() (Options, error) {
	if o.HostID == ([16]byte{}) {
		if _, err := rand.Read(o.HostID[:]); err != nil {
			return o, fmt.Errorf("random host id: %w", err)
		}
	}
	if o.HostNQN == "" {
		id := o.HostID[:]
		o.HostNQN = fmt.Sprintf("nqn.2014-08.org.nvmexpress:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	}
	if o.Controller == 0 {
		o.Controller = anyController
	}
	if o.AdminDepth == 0 {
		o.AdminDepth = 32
	}
	if o.Depth == 0 {
		o.Depth = 128
	}
	if o.MaxR2T == 0 {
		o.MaxR2T = 1
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	}
	if o.After == nil {
		o.After = time.After
	}
	if o.AbortTimeout == 0 {
		o.AbortTimeout = 5 * time.Second
	}
	switch {
	case o.Subsystem == "":
		return o, errors.New("no subsystem name")
	case len(o.Subsystem) > wire.MaxNQN || len(o.HostNQN) > wire.MaxNQN:
		return o, fmt.Errorf("an NQN is longer than %d bytes", wire.MaxNQN)
	case o.AdminDepth < 2 || o.AdminDepth > MaxDepth || o.Depth < 2 || o.Depth > MaxDepth:
		return o, fmt.Errorf("queue depths %d and %d are not within 2 to %d", o.AdminDepth, o.Depth, MaxDepth)
	case o.IOQueues < 0 || o.IOQueues > 65534:
		return o, fmt.Errorf("%d I/O queues", o.IOQueues)
	case o.Align > pdu.MaxAlign:
		return o, fmt.Errorf("alignment %d is larger than %d", o.Align, pdu.MaxAlign)
	case o.KeepAlive < 0 || o.KeepAlive > 0 && o.KeepAlive < time.Millisecond:
		return o, fmt.Errorf("keep alive timeout %v", o.KeepAlive)
	}
	return o, nil
}

// anyController asks for a controller of the target's choice (NVMe Base 2.0 §6.3).
const anyController = 0xFFFF
