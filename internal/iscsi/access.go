package iscsi

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// Access is what a Server asks of the array behind it: who may see and use
// which target. Its methods are called concurrently, one at a time for each
// login, and may wait.
type Access interface {
	// Targets lists what SendTargets=All shows to an initiator, in order. A
	// target that the initiator may not use is left out.
	Targets(Peer) []TargetInfo
	// Authorize decides on a login before authentication, and again on connections that there
	// are. An error that is not a *Refusal is answered with "target error" (0300).
	Authorize(LoginRequest) (Grant, error)
	// Open makes the I_T nexus of a normal session, after authentication and,
	// for a session that is reinstated, after the old nexus has been closed. It fails
	// where the terms have changed since. Errors are answered as those of Authorize.
	Open(SessionInfo) (Nexus, error)
}

// Nexus is the I_T nexus of one session: *scsi.Nexus, as far as the transport
// uses it.
type Nexus interface {
	// DataOutLength reports how many bytes of Data-Out the command in t.CDB takes.
	DataOutLength(t *scsi.Task) int
	// Execute runs a command; t.Owner.TaskDone is called exactly once.
	Execute(t *scsi.Task)
	// Manage runs a task management function and calls done, possibly before
	// it returns, when every affected command has ended.
	Manage(f scsi.Function, lun, tag uint64, done func(scsi.Response))
	// Close ends the nexus and calls done when none of its commands can reach
	// a device any more. Execute is not called after it.
	Close(done func())
}

var _ Nexus = (*scsi.Nexus)(nil)

// Peer is who is at the other end of a connection. Initiator is what the
// initiator says it is; only CHAP proves it.
type Peer struct {
	Initiator string         // iSCSI name in normal form (wire.NormalizeName)
	Remote    netip.AddrPort // address of the initiator
	Local     netip.AddrPort // the portal that it reached
	Group     uint16         // portal group tag of the portal
}

// TargetInfo is a target as discovery shows it.
type TargetInfo struct {
	Name    string // iSCSI name in normal form
	Portals []Portal
}

// Portal is a network portal of a target.
type Portal struct {
	Address netip.AddrPort
	Group   uint16 // portal group tag
}

// LoginRequest is a login that wants to be let in.
type LoginRequest struct {
	Peer
	Target    string // iSCSI name in normal form, empty for a discovery session
	Discovery bool
}

// Grant says on what terms a login is let in.
type Grant struct {
	// Terms stands for the host of the array and all that it has to prove; it is comparable.
	// Further connections of a session, and who replaces it, need the same terms.
	Terms any
	// CHAP is what the initiator has to prove to know. Without a secret no
	// authentication is demanded.
	CHAP Credential
	// Mutual is what the target proves to know where the initiator asks for
	// it. Without a secret such a login fails.
	Mutual Credential
	// Algorithms are the CHAP algorithms allowed, wire.CHAPMD5 and the others; none
	// given allows all. Of those the initiator's order decides.
	Algorithms []int
	// Alias is the target's alias (TargetAlias), empty for none.
	Alias string
}

// Credential is a CHAP name with its secret.
type Credential struct {
	Name   string
	Secret string
}

// SessionInfo describes a session that is about to begin.
type SessionInfo struct {
	Peer
	ID     uint64 // unique for the Server's life
	Target string // iSCSI name
	Alias  string // InitiatorAlias, empty for none
	ISID   wire.ISID
	TSIH   uint16
	User   string // CHAP name that the initiator proved, empty without CHAP
	Terms  any    // of the Grant
}

// PortName returns the SCSI initiator port name (RFC 7143 §4.4.1).
func (i *SessionInfo) PortName() string {
	return fmt.Sprintf("%s,i,0x%x", i.Initiator, i.ISID[:])
}

// TransportID returns the TransportID of the initiator port, in the format
// with a session identifier (SPC-4 §7.6.4.6).
func (i *SessionInfo) TransportID() []byte {
	name := i.PortName()
	n := max((len(name)+1+3)&^3, 20)
	id := make([]byte, 4+n)
	id[0] = 1<<6 | 5
	binary.BigEndian.PutUint16(id[2:], uint16(n))
	copy(id[4:], name)
	return id
}

// Refusal is the reason why a login fails, as the initiator gets to know it.
type Refusal struct {
	Status wire.LoginStatus
	Reason string // for the log
}

func (r *Refusal) Error() string { return fmt.Sprintf("login refused, %s: %s", r.Status, r.Reason) }

// Refuse returns a *Refusal with a formatted reason.
func Refuse(status wire.LoginStatus, format string, args ...any) error {
	return &Refusal{Status: status, Reason: fmt.Sprintf(format, args...)}
}
