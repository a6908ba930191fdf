package agent

import (
	"context"
	"net/netip"
	"time"

	"lintel.io/lintel/internal/array"
)

// DataPlane is what serves the volumes to initiators, as the agent sees it. All
// methods may be called concurrently, Apply only one at a time.
type DataPlane interface {
	// Apply makes s what initiators see: it opens, resizes and closes devices, maps and
	// unmaps, listens and stops listening, and tells initiators. It is called once at
	// start and after each change, when s is on stable storage. When it returns,
	// nothing can reach the device of a volume that s does not have, and its
	// device is closed. A volume or portal that does not work does not stop the
	// rest: it is reported by Volume or Portal, and tried again. The error is for
	// the log.
	Apply(ctx context.Context, s *array.State) error
	// CheckPortal returns an error where the address cannot be listened on.
	CheckPortal(ctx context.Context, at netip.AddrPort) error
	// Volume returns how a volume does; the zero value for one it does not have.
	Volume(id string) VolumeStatus
	// Portal returns how a portal does; the zero value for one it does not have.
	Portal(id string) PortalStatus
	// Sessions returns the sessions, in any order.
	Sessions() []Session
	// DropSession closes the connections of a session and reports whether it existed.
	DropSession(id string) bool
	// Stats returns the counters since the start of the process.
	Stats() Stats
}

// VolumeStatus is how a volume does.
type VolumeStatus struct {
	Online    bool
	Reason    string // why it is not online
	UsedBytes uint64 // space taken from the backing store
	Sessions  int    // normal sessions that see it
}

// PortalStatus is how a portal does.
type PortalStatus struct {
	Listening netip.AddrPort // where it listens in fact, invalid where it does not
	Reason    string         // why it does not
	Sessions  int
}

// Session is an initiator's login: an iSCSI session or an NVMe controller.
type Session struct {
	ID            string         // unique while the process runs, over both protocols
	Protocol      array.Protocol // ISCSI or NVMeTCP
	Discovery     bool
	Initiator     string // iSCSI name or host NQN
	HostID        string // of the host it belongs to, empty for none
	PortalTag     uint16
	Since         time.Time
	LUNs          int  // or namespaces
	Authenticated bool // by CHAP or DH-HMAC-CHAP
	Commands      uint64
	ReadBytes     uint64
	WriteBytes    uint64
	InFlight      int
	Connections   []Connection

	// iSCSI only.

	ISID     [6]byte
	TSIH     uint16
	CHAPUser string // proved user, empty for none

	// NVMe only.

	ControllerID   uint16   // CNTLID
	HostIdentifier [16]byte // HOSTID
}

// Connection is one TCP connection of a session. Over NVMe it is a queue.
type Connection struct {
	CID          uint16 // iSCSI only
	Remote       netip.AddrPort
	Local        netip.AddrPort
	HeaderDigest bool
	DataDigest   bool
	QueueID      uint16 // NVMe only; 0 for the admin queue
	QueueDepth   uint16 // NVMe only: number of entries
}

// IOStats counts commands since the start of the process.
type IOStats struct {
	ReadOps    uint64
	WriteOps   uint64
	OtherOps   uint64
	ReadBytes  uint64
	WriteBytes uint64
	Errors     uint64        // commands that ended with CHECK CONDITION
	ReadTime   time.Duration // from command to status, summed; 0 where not measured
	WriteTime  time.Duration
	InFlight   int
}

// Stats are all counters of a data plane.
type Stats struct {
	Volumes     map[string]IOStats // by volume id
	Total       IOStats            // deleted volumes included
	Sessions    int
	Connections int
}
