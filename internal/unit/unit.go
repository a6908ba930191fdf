// Package unit is the logical unit that both command sets share: a volume's
// identity, its device, its reservations, the order of overlapping I/O, and
// the access state of the group (pool) it belongs to.
//
// It knows neither SCSI nor NVMe: those packages translate commands into calls
// on a Unit, and the events of a Unit into unit attentions or asynchronous
// events.
package unit

import (
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/block"
)

// ID is the permanent id of a unit (the id of its volume). It is never reused.
type ID string

// Initiator is who holds a registration or reservation: an initiator port as
// seen through one target port. It is comparable, and it names the true
// initiator also when another head forwarded its command.
type Initiator struct {
	// Name is the SCSI initiator port name ("iqn.1993-08.org.debian:01:x,i,0x00023d000001")
	// or, for NVMe, "nvme:" and the 32 hex digits of the host identifier.
	Name string
	// Port is the relative target port identifier (1 to 65535), 0 for NVMe,
	// whose registrations do not belong to a port.
	Port uint16
}

// Event is something about a unit that its initiators have to be told.
type Event uint8

// The events of a unit. The SCSI unit attention of each is in the comment.
const (
	EventCapacity               Event = iota // 2A/09 capacity data has changed
	EventModeParameters                      // 2A/01 mode parameters changed
	EventInquiry                             // 3F/03 INQUIRY data has changed
	EventReservationsPreempted               // 2A/03
	EventReservationsReleased                // 2A/04
	EventRegistrationsPreempted              // 2A/05
	EventAccessState                         // 2A/06 asymmetric access state changed
	EventThinThreshold                       // 38/07 thin provisioning soft threshold reached
	EventReset                               // 29/03 (or the transport's own code) bus device reset
)

// Watcher is told the events of a unit; one is attached for each I_T nexus (or
// NVMe controller) that can see the unit.
type Watcher interface {
	// Initiator identifies the watcher in the reservation table.
	Initiator() Initiator
	// UnitEvent tells an event. It must not block and must not call the unit:
	// the unit may hold its lock.
	UnitEvent(Event)
	// AbortTasks ends all commands of this watcher on the unit without a
	// response (PREEMPT AND ABORT) and calls done when none of them can
	// reach the device any more. It does not call done while the unit calls it.
	AbortTasks(done func())
}

// Config is what a Unit is made of.
type Config struct {
	ID         ID
	Attributes Attributes
	Device     block.Device
	Group      *Group
	// Reservations keeps the reservation table; nil keeps it in memory only.
	Reservations ReservationStore
	// Settings keeps what initiators saved (MODE SELECT with SP): nil keeps
	// it in memory only.
	Settings SettingStore
}

// SettingStore keeps small blobs of saved settings beside a unit's identity.
type SettingStore interface {
	// LoadSetting returns nil without error where nothing was saved.
	LoadSetting(id ID, key string) ([]byte, error)
	// SaveSetting returns after the blob is on stable storage.
	SaveSetting(id ID, key string, blob []byte) error
}

// Unit is one logical unit. Its methods may be called concurrently.
type Unit struct {
	id       ID
	dev      block.Device
	group    *Group
	settings SettingStore
	attr     atomic.Pointer[Attributes]
	blocks   atomic.Uint64
	shift    uint8 // log2 of the logical block size, fixed for the unit's life

	// Ranges orders overlapping I/O.
	Ranges Ranges
	// Reservations is the one reservation table of the unit.
	Reservations Reservations

	mu       sync.Mutex // leaf but for the reservation table's own lock, which may be held above it
	watchers map[Watcher]struct{}
	closed   bool
}
