// Package iscsi is an iSCSI initiator (RFC 7143): discovery, login with CHAP,
// sessions of one or more connections, and SCSI commands handed over
// asynchronously with a callback or run one by one.
//
// Each connection has one goroutine that reads: it takes in every PDU that one
// read brought, runs the callbacks of the commands that ended, and sends what
// those submitted with one vectored write. A command costs no allocation.
// Errors are recovered at level 0: when a connection fails its session does.
package iscsi

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// DefaultInitiatorName is the initiator name of sessions that give none.
const DefaultInitiatorName = "iqn.2026-11.io.lintel:initiator"

// Options describe a session to be established.
type Options struct {
	// Initiator is the initiator name, DefaultInitiatorName where empty.
	Initiator string
	// Alias is sent as InitiatorAlias, unless empty.
	Alias string
	// ISID is the initiator's part of the session identifier; random where zero.
	// A login with the ISID of another session of the same initiator and
	// target replaces it (RFC 7143 §6.3.5).
	ISID wire.ISID
	// Target is the target name; it may be empty for discovery only.
	Target string
	// CHAP authenticates the session, nil for AuthMethod None.
	CHAP *CHAP
	// SkipSecurity begins the login in the operational stage, which a target
	// accepts where it needs no authentication.
	SkipSecurity bool
	// Operational is what to offer, DefaultOperational where nil.
	Operational *Operational
	// Extra are further pairs for the operational stage; the answers are in Parameters.Extra.
	Extra []wire.KeyValue
	// Dial opens connections, by TCP where nil.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// OnAsync is told asynchronous messages. Where nil, the session follows a
	// request to log out by itself. It must not wait for the session.
	OnAsync func(AsyncMessage)
	// AbortTimeout is how long the target has to answer the ABORT TASK of a
	// cancelled Do before the session is given up; 5 s where 0.
	AbortTimeout time.Duration
}

// CHAP holds the credentials of an authentication (RFC 7143 §12.1).
type CHAP struct {
	User, Secret string
	// TargetUser and TargetSecret make the target authenticate too; TargetSecret
	// empty for one-way. An empty TargetUser accepts any name.
	TargetUser, TargetSecret string
	// Algorithms are offered in this order; all that are known, the strongest
	// first, where empty.
	Algorithms []int
}

// Operational is what an initiator offers in the operational stage (RFC 7143 §13). Sizes are
// in bytes.
type Operational struct {
	HeaderDigest, DataDigest []string // in order of preference; "None" where empty
	MaxConnections           int
	InitialR2T               bool
	ImmediateData            bool
	MaxRecvDataSegmentLength int // 512 to 2^24-1
	MaxBurstLength           int // 512 to 2^24-1
	FirstBurstLength         int // 512 to MaxBurstLength
	DefaultTime2Wait         int // seconds
	DefaultTime2Retain       int // seconds
	MaxOutstandingR2T        int
	DataPDUInOrder           bool
	DataSequenceInOrder      bool
	ErrorRecoveryLevel       int
}

// DefaultOperational returns what is offered where nothing else is asked for:
// as much immediate and unsolicited data as the target takes, and no digests.
func DefaultOperational() Operational {
	return Operational{
		MaxConnections:           16,
		ImmediateData:            true,
		MaxRecvDataSegmentLength: 256 << 10,
		MaxBurstLength:           16<<20 - 1<<10,
		FirstBurstLength:         256 << 10,
		DefaultTime2Wait:         2,
		DefaultTime2Retain:       20,
		MaxOutstandingR2T:        16,
		DataPDUInOrder:           true,
		DataSequenceInOrder:      true,
	}
}

// Parameters are what a connection's login led to. Sizes are in bytes.
type Parameters struct {
	HeaderDigest, DataDigest       bool // CRC32C in use
	MaxConnections                 int
	InitialR2T, ImmediateData      bool
	MaxRecvDataSegmentLength       int // what this side takes
	TargetMaxRecvDataSegmentLength int // what the target takes
	MaxBurstLength                 int
	FirstBurstLength               int
	DefaultTime2Wait               int // seconds
	DefaultTime2Retain             int // seconds
	MaxOutstandingR2T              int
	DataPDUInOrder                 bool
	DataSequenceInOrder            bool
	ErrorRecoveryLevel             int
	PortalGroup                    uint16 // TargetPortalGroupTag
	TargetAlias                    string
	ISID                           wire.ISID
	TSIH                           uint16
	Extra                          []wire.KeyValue // pairs that this package does not know
}

// AsyncMessage is an asynchronous message of the target (RFC 7143 §11.9).
type AsyncMessage struct {
	Event                              wire.AsyncEvent
	VCode                              uint8
	LUN                                uint64
	Parameter1, Parameter2, Parameter3 uint16
	Data                               []byte // sense data of a SCSI event, or what a vendor defines
}

func (o Options) withDefaults() (Options, error) {
	if o.Initiator == "" {
		o.Initiator = DefaultInitiatorName
	}
	if o.Operational == nil {
		d := DefaultOperational()
		o.Operational = &d
	}
	if o.ISID == (wire.ISID{}) {
		var r [6]byte
		if _, err := rand.Read(r[:]); err != nil {
			return o, fmt.Errorf("random ISID: %w", err)
		}
		o.ISID = wire.RandomISID(binary.BigEndian.Uint32(r[:]), binary.BigEndian.Uint16(r[4:]))
	}
	if o.Dial == nil {
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", address)
		}
	}
	if o.AbortTimeout == 0 {
		o.AbortTimeout = 5 * time.Second
	}
	op := o.Operational
	const limit = wire.MaxDataSegment
	for _, size := range []struct {
		key   string
		value int
	}{
		{wire.KeyMaxRecvDataSegmentLength, op.MaxRecvDataSegmentLength},
		{wire.KeyMaxBurstLength, op.MaxBurstLength},
		{wire.KeyFirstBurstLength, op.FirstBurstLength},
	} {
		if size.value < 512 || size.value > limit {
			return o, fmt.Errorf("%s %d is not within 512 to %d", size.key, size.value, limit)
		}
	}
	if op.FirstBurstLength > op.MaxBurstLength {
		return o, fmt.Errorf("FirstBurstLength %d is larger than MaxBurstLength %d", op.FirstBurstLength, op.MaxBurstLength)
	}
	return o, nil
}

// LUN returns the wire form of a logical unit number from 0 to 16383 (SAM-5 §4.7).
func LUN(n uint16) uint64 {
	if n < 256 {
		return uint64(n) << 48
	}
	return uint64(0x4000|n&0x3fff) << 48
}
