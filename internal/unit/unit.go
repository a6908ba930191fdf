// Package unit is the logical unit that both command sets share: a volume's
// identity, its device, its reservations, the order of overlapping I/O, and
// the access state of the group (pool) it belongs to.
//
// It knows neither SCSI nor NVMe: those packages translate commands into calls
// on a Unit, and the events of a Unit into unit attentions or asynchronous
// events.
package unit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
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
	EventInternalReset                       // 29/04 device internal reset: what was not on stable storage may be lost
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

// MaxSetting is the longest setting in bytes that a SettingStore has to take.
const MaxSetting = 16 << 10

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
	marked   atomic.Pointer[uncorrectable] // instead of dev, once a block was marked uncorrectable
	group    *Group
	settings SettingStore
	attr     atomic.Pointer[Attributes]
	blocks   atomic.Uint64
	seal     atomic.Uint32
	shift    uint8 // log2 of the logical block size, fixed for the unit's life

	// Ranges orders overlapping I/O.
	Ranges Ranges
	// Reservations is the one reservation table of the unit.
	Reservations Reservations

	change sync.Mutex // serialises SetAttributes, Resize and Close; above mu

	mu       sync.Mutex // leaf but for the reservation table's own lock, which may be held above it
	watchers map[Watcher]struct{}
	closed   bool
}

// New returns the unit of a device, with the reservations that its store has
// kept, and makes it a member of its group. The unit owns the device until New
// fails or Close returns.
func New(c Config) (*Unit, error) {
	if c.ID == "" {
		return nil, fmt.Errorf("unit: %w: id is empty", ErrInvalid)
	}
	if c.Device == nil || c.Group == nil {
		return nil, fmt.Errorf("unit %s: %w: a unit needs a device and a group", c.ID, ErrInvalid)
	}
	if err := c.Attributes.Validate(); err != nil {
		return nil, fmt.Errorf("unit %s: %w", c.ID, err)
	}
	if need := c.Device.Info().BlockSize; need > int(c.Attributes.BlockSize) {
		return nil, fmt.Errorf("unit %s: %w: block size %d: the device takes no less than %d", c.ID, ErrInvalid, c.Attributes.BlockSize, need)
	}
	u := &Unit{
		id:       c.ID,
		dev:      c.Device,
		group:    c.Group,
		settings: c.Settings,
		shift:    uint8(bits.TrailingZeros32(c.Attributes.BlockSize)),
		watchers: make(map[Watcher]struct{}),
	}
	if u.settings == nil {
		u.settings = &memorySettings{blobs: make(map[string][]byte)}
	}
	a := c.Attributes.Clone()
	u.attr.Store(&a)
	u.blocks.Store(uint64(u.dev.Size()) >> u.shift)
	if err := u.Reservations.load(u, c.Reservations); err != nil {
		return nil, fmt.Errorf("unit %s: reservations: %w", c.ID, err)
	}
	if err := u.loadUncorrectable(); err != nil {
		return nil, fmt.Errorf("unit %s: %w", c.ID, err)
	}
	u.group.add(u)
	return u, nil
}

// ID returns the unit's permanent id.
func (u *Unit) ID() ID { return u.id }

// Device returns the device that holds the unit's blocks.
func (u *Unit) Device() block.Device {
	if d := u.marked.Load(); d != nil {
		return d
	}
	return u.dev
}

// Reopen opens the storage of the unit's device anew and raises EventInternalReset, so that whoever has
// written knows that what was not on stable storage may be lost. It fails with
// errors.ErrUnsupported where there is nothing to open, and otherwise as block.Reopener says.
func (u *Unit) Reopen(ctx context.Context) error {
	r, ok := u.dev.(block.Reopener)
	if !ok {
		return fmt.Errorf("unit %s: a device of kind %s has no storage to open anew: %w", u.id, u.dev.Info().Kind, errors.ErrUnsupported)
	}
	return r.Reopen(ctx, func() { u.Notify(EventInternalReset, nil) })
}

// Health returns how what lies below the unit's device does. It may block.
func (u *Unit) Health() block.Health { return block.HealthOf(u.dev) }

// Group returns the group that the unit belongs to.
func (u *Unit) Group() *Group { return u.group }

// Attributes returns the current attributes, which the caller must not change.
// It costs one atomic load.
func (u *Unit) Attributes() *Attributes { return u.attr.Load() }

// ReadOnly reports whether the unit takes no writes, by its attribute or by its
// device.
func (u *Unit) ReadOnly() bool { return u.attr.Load().ReadOnly || u.dev.Info().ReadOnly }

// Seal says why no host may reach the blocks of a unit, over whatever protocol.
type Seal uint32

// The seals.
const (
	Unsealed       Seal = iota
	Sanitizing          // a sanitize operation is under way
	SanitizeFailed      // one has failed: what it has left is nobody's to see
)

// Seal returns the seal of the unit. It costs one atomic load.
func (u *Unit) Seal() Seal { return Seal(u.seal.Load()) }

// SetSeal seals the unit against commands that come from now on, or unseals it.
func (u *Unit) SetSeal(s Seal) { u.seal.Store(uint32(s)) }

// Blocks returns the capacity in logical blocks.
func (u *Unit) Blocks() uint64 { return u.blocks.Load() }

// BlockSize returns the logical block size in bytes, 512 or 4096.
func (u *Unit) BlockSize() uint32 { return 1 << u.shift }

// BlockShift returns the base 2 logarithm of the logical block size.
func (u *Unit) BlockShift() uint8 { return u.shift }

// SetAttributes replaces the attributes and tells the watchers what has
// changed. The geometry never changes (ErrInvalid); the designators, serial
// number and vendor only while no watcher is attached (ErrInUse).
func (u *Unit) SetAttributes(a Attributes) error {
	if err := a.Validate(); err != nil {
		return fmt.Errorf("unit %s: %w", u.id, err)
	}
	a = a.Clone()
	u.change.Lock()
	defer u.change.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.attr.Load()
	if !old.sameGeometry(&a) {
		return fmt.Errorf("unit %s: %w: the block size and physical block size are fixed when a volume is made", u.id, ErrInvalid)
	}
	if !old.sameIdentity(&a) && len(u.watchers) > 0 {
		return fmt.Errorf("unit %s: naa_id, eui64_id, t10_dev_id, usn or vendor: %w", u.id, ErrInUse)
	}
	u.attr.Store(&a)
	if !old.sameInquiry(&a) {
		u.notifyLocked(EventInquiry, everybody)
	}
	if !old.sameModes(&a) {
		u.notifyLocked(EventModeParameters, everybody)
	}
	if old.Thin != a.Thin { // LBPME is part of the capacity data
		u.notifyLocked(EventCapacity, everybody)
	}
	return nil
}

// Resize changes the capacity, in logical blocks, and raises EventCapacity.
// Growing is online; shrinking waits for the writes under way and keeps others
// out until it is done. It blocks; it fails with errors.ErrUnsupported where
// the device cannot.
func (u *Unit) Resize(blocks uint64) error {
	if blocks == 0 || blocks > math.MaxInt64>>u.shift {
		return fmt.Errorf("unit %s: %w: a size of %d blocks", u.id, ErrInvalid, blocks)
	}
	u.change.Lock()
	defer u.change.Unlock()
	old := u.blocks.Load()
	if blocks < old {
		hold := make(rangeChan, 1)
		var g RangeGuard
		if !u.Ranges.Exclusive(&g, 0, math.MaxUint64, hold) {
			<-hold
		}
		defer u.Ranges.Release(&g)
		u.blocks.Store(blocks) // before the device, so that nothing new is sent past the end
	}
	if err := u.Device().Resize(int64(blocks) << u.shift); err != nil {
		// It may have shrunk all the same.
		u.blocks.Store(min(old, uint64(u.dev.Size())>>u.shift))
		if u.blocks.Load() != old {
			u.Notify(EventCapacity, nil)
		}
		return fmt.Errorf("unit %s: resize to %d blocks: %w", u.id, blocks, err)
	}
	u.blocks.Store(blocks)
	if blocks != old {
		u.Notify(EventCapacity, nil)
	}
	return nil
}

// SizeChanged takes the capacity over from a device that has grown or shrunk by
// itself, and raises EventCapacity where it differs.
func (u *Unit) SizeChanged() {
	u.change.Lock()
	defer u.change.Unlock()
	blocks := uint64(u.dev.Size()) >> u.shift
	if u.blocks.Swap(blocks) != blocks {
		u.Notify(EventCapacity, nil)
	}
}

// Attach adds a watcher. Adding it again does nothing.
func (u *Unit) Attach(w Watcher) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.watchers[w] = struct{}{}
}

// Detach removes a watcher: no event is told to it after Detach has returned.
func (u *Unit) Detach(w Watcher) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.watchers, w)
}

// Attached returns how many watchers there are.
func (u *Unit) Attached() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.watchers)
}

// Initiators returns the initiators of the watchers, without repetition, in no
// particular order.
func (u *Unit) Initiators() []Initiator {
	u.mu.Lock()
	defer u.mu.Unlock()
	set := make(map[Initiator]struct{}, len(u.watchers))
	for w := range u.watchers {
		set[w.Initiator()] = struct{}{}
	}
	return slices.Collect(maps.Keys(set))
}

// Notify tells an event to every watcher but one; nil excepts nobody.
func (u *Unit) Notify(e Event, except Watcher) {
	u.notify(e, func(w Watcher) bool { return w != except })
}

func everybody(Watcher) bool { return true }

func (u *Unit) notify(e Event, to func(Watcher) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.notifyLocked(e, to)
}

func (u *Unit) notifyLocked(e Event, to func(Watcher) bool) {
	for w := range u.watchers {
		if to(w) {
			w.UnitEvent(e)
		}
	}
}

// watchersOf returns the watchers of the initiators for which is is true.
func (u *Unit) watchersOf(is func(Initiator) bool) []Watcher {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []Watcher
	for w := range u.watchers {
		if is(w.Initiator()) {
			list = append(list, w)
		}
	}
	return list
}

// LoadSetting returns what was saved under a key, nil without error for nothing.
func (u *Unit) LoadSetting(key string) ([]byte, error) {
	return u.settings.LoadSetting(u.id, key)
}

// SaveSetting saves a blob under a key and returns after it is on stable storage.
func (u *Unit) SaveSetting(key string, blob []byte) error {
	return u.settings.SaveSetting(u.id, key, blob)
}

// Close takes the unit out of its group, waits for the requests under way and
// closes the device. It is idempotent. Commands that still reach the unit fail
// as the device says.
func (u *Unit) Close() error {
	u.change.Lock()
	defer u.change.Unlock()
	u.mu.Lock()
	closed := u.closed
	u.closed = true
	u.mu.Unlock()
	if closed {
		return nil
	}
	u.group.remove(u)
	return u.dev.Close()
}

// rangeChan lets a goroutine wait for a range.
type rangeChan chan struct{}

func (c rangeChan) RangeReady(*RangeGuard) { c <- struct{}{} }
func (c rangeChan) Cancelled() bool        { return false }

// memorySettings keeps the settings of a unit that has no store.
type memorySettings struct {
	mu    sync.Mutex
	blobs map[string][]byte
}

var _ SettingStore = (*memorySettings)(nil)

func (m *memorySettings) LoadSetting(_ ID, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.blobs[key]), nil
}

func (m *memorySettings) SaveSetting(_ ID, key string, blob []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[key] = bytes.Clone(blob)
	return nil
}
