package agent

import (
	"context"
	"net/netip"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/pool"
)

// DataPlane is what serves the volumes to initiators, as the agent sees it; it may be
// another process. All methods may be called concurrently, Apply only one at a time.
// An error that is ErrNoAnswer says that the data plane could not be asked, or has
// not answered: what it does is then not known.
type DataPlane interface {
	// Ready returns ErrNoAnswer where the data plane does not answer, else nil.
	Ready(ctx context.Context) error
	// Apply makes s what initiators see: it opens, resizes and closes devices, maps and
	// unmaps, listens and stops listening, and tells initiators. It is called once at
	// start, after each change, when s is on stable storage, and again when a data
	// plane that had gone is back. When it returns, nothing can reach the device of a
	// volume that s does not have, and its device is closed; one that hangs while it is opened
	// is closed when it is open. A volume or portal that
	// does not work does not stop the rest: it is reported by Status, and tried again.
	// Any error is told as a warning in the answer to the change, and as an alert.
	Apply(ctx context.Context, s *array.State) error
	// CheckPortal returns an error where the address cannot be listened on.
	CheckPortal(ctx context.Context, at netip.AddrPort) error
	// Status returns how the pools, the portals and the volumes of these ids do; AllVolumes
	// stands for all of them. What the data plane does not have is not in it.
	Status(ctx context.Context, volumes ...string) (*Status, error)
	// Reopen opens the storage of a volume anew while it is in use, and tells initiators. An error says
	// why the volume is as it was; where the storage does not answer, it comes when ctx is done.
	Reopen(ctx context.Context, volumeID string) error
	// Sessions returns the sessions, in any order.
	Sessions(ctx context.Context) ([]Session, error)
	// DropSession closes the connections of a session and reports whether it existed.
	DropSession(ctx context.Context, id string) (bool, error)
	// Stats returns the counters since the start of the data plane's process.
	Stats(ctx context.Context) (*Stats, error)
}

// AllVolumes asks DataPlane.Status for every volume.
const AllVolumes = "*"

// ErrNoAnswer says that the data plane does not answer.
var ErrNoAnswer = array.Errorf(array.KindUnavailable, "the target does not answer")

// Status is how what a data plane serves does, by id.
type Status struct {
	Volumes map[string]VolumeStatus
	Portals map[string]PortalStatus
	Pools   map[string]PoolStatus
}

// PoolStatus is how the data plane's part of a pool does.
type PoolStatus struct {
	Reason   string // why reservations and settings are not stored any more, empty where they are
	Problems []pool.Problem
	// Access are the access states that are in effect by target port group, nil for those that
	// the administrator has chosen.
	Access map[uint16]array.AccessState
}

// VolumeStatus is how a volume does.
type VolumeStatus struct {
	Online    bool
	Reason    string // why it is not online
	UsedBytes uint64 // space taken from the backing store
	Sessions  int    // normal sessions that see it
	Health    block.Health
	// Before is the fault of storage that does not answer as it was told last, where that kind does not pass by
	// itself (block.FaultLost, block.FaultBacking); nil for none.
	Before *block.Fault
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
	Authenticated bool // by CHAP, DH-HMAC-CHAP or TLS
	TLS           bool
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
	ReadTime   time.Duration // summed, from when a read has arrived, or a write with its data, to its status; with many commands a projection
	WriteTime  time.Duration
	InFlight   int
}

// Stats are all counters of a data plane.
type Stats struct {
	Volumes     map[string]IOStats // by volume id
	Total       IOStats            // deleted volumes included
	Sessions    int
	Connections int
	Process     ProcessStats
}

// ProcessStats is what a process takes from its machine.
type ProcessStats struct {
	ResidentBytes uint64        // memory in RAM, 0 where the system does not tell
	BufferBytes   uint64        // I/O buffers in use
	CPU           time.Duration // since its start
	Goroutines    int
}
