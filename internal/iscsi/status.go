package iscsi

import (
	"net/netip"
	"time"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// SessionStatus is a session as an administrator sees it.
type SessionStatus struct {
	ID          uint64
	Initiator   string
	Alias       string // of the initiator
	Target      string // empty for a discovery session
	Discovery   bool
	ISID        wire.ISID
	TSIH        uint16
	User        string // CHAP name
	Since       time.Time
	Negotiated  Negotiated
	Connections []ConnectionStatus
	Counters    Counters // of all connections, closed ones included
	InFlight    int      // commands received and not yet answered
}

// ConnectionStatus is one connection of a session.
type ConnectionStatus struct {
	CID          uint16
	Remote       netip.AddrPort
	Local        netip.AddrPort
	Since        time.Time
	HeaderDigest bool
	DataDigest   bool
	// MaxSendDataSegment is what the initiator takes in a PDU, in bytes.
	MaxSendDataSegment int
	// MaxRecvDataSegment is what this side takes, in bytes.
	MaxRecvDataSegment int
	Counters           Counters
}

// Negotiated are the parameters that a session's connections share (RFC 7143 §13).
type Negotiated struct {
	MaxConnections      int
	InitialR2T          bool
	ImmediateData       bool
	MaxBurst            int // bytes
	FirstBurst          int // bytes
	Time2Wait           int // seconds
	Time2Retain         int // seconds
	MaxOutstandingR2T   int
	DataPDUInOrder      bool
	DataSequenceInOrder bool
	ErrorRecoveryLevel  int
	ProtocolLevel       int // RFC 7144
}

// Counters count since the login.
type Counters struct {
	Commands     uint64 // SCSI commands received
	BytesRead    uint64 // data sent to the initiator
	BytesWritten uint64 // data received from the initiator
	PDUsIn       uint64
	PDUsOut      uint64
	DigestErrors uint64
	Rejects      uint64 // PDUs rejected
}

func (c *Counters) add(o Counters) {
	c.Commands += o.Commands
	c.BytesRead += o.BytesRead
	c.BytesWritten += o.BytesWritten
	c.PDUsIn += o.PDUsIn
	c.PDUsOut += o.PDUsOut
	c.DigestErrors += o.DigestErrors
	c.Rejects += o.Rejects
}
