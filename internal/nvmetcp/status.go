package nvmetcp

import (
	"net/netip"
	"time"
)

// ConnectionStatus is a connection, which is a queue, as an administrator sees it.
type ConnectionStatus struct {
	ID           uint64
	Remote       netip.AddrPort
	Local        netip.AddrPort
	Port         uint16 // id of the port that the host reached
	Since        time.Time
	Connected    bool   // the host's Connect has succeeded
	QueueID      uint16 // 0 is an admin queue
	Depth        int    // entries of the queue
	FlowControl  bool   // of the submission queue
	HeaderDigest bool
	DataDigest   bool
	InFlight     int // commands received and not yet answered
	Counters     Counters
}

// Counters count since the beginning of a connection.
type Counters struct {
	Commands     uint64
	BytesRead    uint64 // data sent to the host
	BytesWritten uint64 // data received from the host
	PDUsIn       uint64
	PDUsOut      uint64
	DigestErrors uint64
}

func (c *Counters) add(o Counters) {
	c.Commands += o.Commands
	c.BytesRead += o.BytesRead
	c.BytesWritten += o.BytesWritten
	c.PDUsIn += o.PDUsIn
	c.PDUsOut += o.PDUsOut
	c.DigestErrors += o.DigestErrors
}

func (c *conn) status() ConnectionStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return ConnectionStatus{
		ID: c.id, Remote: c.remote, Local: c.local, Port: c.port, Since: c.since, Connected: c.connected, QueueID: c.queueID,
		Depth: int(c.depth), FlowControl: c.flow, HeaderDigest: c.recv.HeaderDigest, DataDigest: c.recv.DataDigest,
		InFlight: max(int(int64(c.counters.Commands-c.ended)), 0), Counters: c.counters,
	}
}
