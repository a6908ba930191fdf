package nvme

import (
	"net/netip"

	"lintel.io/lintel/internal/nvme/dhchap"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// Access is what a Subsystem asks of the array behind it: who may connect, and
// what a host sees. Its methods are called concurrently and may wait.
type Access interface {
	// Authorize decides on a Connect of an admin queue before authentication,
	// and again on that of each I/O queue. An error that is no *Refusal
	// is answered with "connect invalid host". Do Not Retry in a refusal's status makes a
	// host give up that would connect again by itself when it is let in.
	Authorize(ConnectRequest) (Grant, error)
	// Open is called once for each controller that is no discovery
	// controller, when its host has been let in and authenticated, with what the
	// host sees now. The array changes it later by c.SetNamespaces. An error refuses
	// the host.
	Open(c *Controller) (Namespaces, error)
	// Closed is called once for each controller that Open was called for, when none of its
	// commands can reach a device any more.
	Closed(c *Controller)
	// Discovery returns what the discovery log tells a host. Whoever changes that
	// calls Subsystem.DiscoveryChanged afterwards.
	Discovery(Peer) Discovery
}

// Peer is who is at the other end of a queue's connection. The names are what the
// host says; only DH-HMAC-CHAP or TLS prove them.
type Peer struct {
	HostNQN string
	HostID  [16]byte
	Remote  netip.AddrPort
	Local   netip.AddrPort
	TLS     TLS
}

// TLS is what the handshake of a connection has proved, zero without TLS.
type TLS struct {
	Identity string   // PSK identity
	Key      [32]byte // a hash of the key that the identity stood for
}

// ConnectRequest is a Connect that wants to be let in.
type ConnectRequest struct {
	Peer
	SubNQN    string
	Discovery bool // SubNQN names a discovery subsystem
	QueueID   uint16
}

// Grant says on what terms a host is let in.
type Grant struct {
	// Terms stands for the host of the array and all that it has to prove; it is
	// comparable. I/O queues need the same terms as the admin queue.
	Terms any
	// HostKey is the key that the host has to prove to know; without one no
	// authentication is demanded.
	HostKey dhchap.Secret
	// ControllerKey is what the controller proves to know where the host asks for it. Without
	// one, such an authentication fails.
	ControllerKey dhchap.Secret
	// Hashes and Groups are what is allowed, strongest first; none given
	// allows all.
	Hashes []dhchap.Hash
	Groups []dhchap.Group
	// PortGroup is the target port group of the portal that the host came in by; 0
	// stands for the subsystem's.
	PortGroup uint16
}

// Namespaces is what the controllers of a host see: NSID (1 on) to unit. All
// controllers of one host must be given the same numbers. It is not changed after it was given away.
type Namespaces map[uint32]Namespace

// Namespace is what one NSID leads to.
type Namespace struct {
	Unit     *unit.Unit // nil where the unit is not there now: commands end with Namespace Not Ready, and it stays listed
	ReadOnly bool
}

// Discovery is the content of the discovery log.
type Discovery struct {
	Generation uint64 // greater with every change of the ports
	NQN        string // of the NVM subsystem
	Ports      []Port
}

// Port is a way to the subsystems of this array, or a referral to another
// discovery service.
type Port struct {
	ID       uint16 // port id of the subsystem, 1 on
	Address  netip.AddrPort
	Secure   bool   // a secure channel (TLS) is required
	Only     bool   // the discovery subsystem alone is there
	Same     bool   // the discovery log is the same through all ports that say so
	Referral bool   // to another discovery service
	NQN      string // of the discovery service of a referral; empty for the well-known one
}

// Refusal is the reason why a Connect fails, as the host gets to know it.
type Refusal struct {
	Status wire.Status
	Reason string // for the log
}

func (r *Refusal) Error() string { return "connect refused: " + r.Status.String() + ": " + r.Reason }
