package unit

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Access is what a command does to the medium, as reservations see it.
type Access uint8

// The accesses, from SPC-4 tables 65 and 66 and SBC-3 table 14.
const (
	AccessNone  Access = iota // allowed whatever persistent reservation another initiator holds
	AccessRead                // conflicts with Exclusive Access types
	AccessWrite               // conflicts with Write Exclusive and Exclusive Access types
)

// ReservationType is the type of a persistent reservation, with the codes of
// SPC-4 §6.15.3.4.
type ReservationType uint8

// The reservation types; zero stands for none.
const (
	WriteExclusive                 ReservationType = 1
	ExclusiveAccess                ReservationType = 3
	WriteExclusiveRegistrantsOnly  ReservationType = 5
	ExclusiveAccessRegistrantsOnly ReservationType = 6
	WriteExclusiveAllRegistrants   ReservationType = 7
	ExclusiveAccessAllRegistrants  ReservationType = 8
	maxReservationType             ReservationType = 8
	noReservation                  ReservationType = 0
	reservationTypes                               = 1<<1 | 1<<3 | 1<<5 | 1<<6 | 1<<7 | 1<<8
	exclusiveAccessTypes                           = 1<<3 | 1<<6 | 1<<8
	registrantTypes                                = 1<<5 | 1<<6 | 1<<7 | 1<<8
	allRegistrantsTypes                            = 1<<7 | 1<<8
)

func (t ReservationType) in(set uint16) bool { return t <= maxReservationType && set>>t&1 != 0 }

// Valid reports whether t is one of the six types.
func (t ReservationType) Valid() bool { return t.in(reservationTypes) }

// AllRegistrants reports whether every registrant is a holder of a reservation of this type.
func (t ReservationType) AllRegistrants() bool { return t.in(allRegistrantsTypes) }

func (t ReservationType) String() string {
	switch t {
	case noReservation:
		return "none"
	case WriteExclusive:
		return "write exclusive"
	case ExclusiveAccess:
		return "exclusive access"
	case WriteExclusiveRegistrantsOnly:
		return "write exclusive, registrants only"
	case ExclusiveAccessRegistrantsOnly:
		return "exclusive access, registrants only"
	case WriteExclusiveAllRegistrants:
		return "write exclusive, all registrants"
	case ExclusiveAccessAllRegistrants:
		return "exclusive access, all registrants"
	}
	return fmt.Sprintf("reservation type %d", uint8(t))
}

// The outcomes of reservation services other than success. Any other error
// says that the table could not be saved. Nothing has changed after an error.
var (
	// ErrConflict ends a command with RESERVATION CONFLICT.
	ErrConflict = errors.New("reservation conflict")
	// ErrInvalidRelease says that the holder released another type than it
	// holds (SPC-4 §5.13.11.2.1).
	ErrInvalidRelease = errors.New("invalid release of persistent reservation")
	// ErrTooManyRegistrations says that the table is full.
	ErrTooManyRegistrations = errors.New("insufficient registration resources")
	// ErrNoReservation says that there is no reservation to move.
	ErrNoReservation = errors.New("no persistent reservation to move")
	// ErrReservationParameter says that a key or destination given as a
	// parameter is not allowed.
	ErrReservationParameter = errors.New("invalid reservation parameter")
	// ErrReservationType says that the type is none of the six.
	ErrReservationType = errors.New("invalid reservation type")
	// ErrNotPersistent says that registrations were to be kept across
	// restarts and the unit has no store for them.
	ErrNotPersistent = errors.New("reservations of this unit are not kept across restarts")
)

// MaxRegistrations is how many registrations a unit holds.
const MaxRegistrations = 256

// The limits of what a registration carries, in bytes.
const (
	maxInitiatorName = 1024
	maxTransportID   = 1024
)

// Registration is one registered I_T nexus (or NVMe host).
type Registration struct {
	Initiator   Initiator
	Key         uint64 // never zero
	TransportID []byte // SPC-4 §7.6.4 TransportID of the initiator port; not changed
}

// Table is the persistent reservation state of a unit at one time. It is never
// changed once it has been returned.
type Table struct {
	// Generation counts the changes to registrations since the unit was
	// started (PRGENERATION, SPC-4 §6.15.2).
	Generation uint32
	// Persist says that the table is kept across restarts (APTPL, PTPL).
	Persist bool
	// Registrations are in order of registration.
	Registrations []Registration
	// Type is that of the reservation, zero where there is none.
	Type ReservationType
	// Holder holds the reservation unless every registrant does.
	Holder Initiator

	legacy   Initiator // who holds the unit by SCSI-2 RESERVE
	reserved bool      // somebody does
	index    map[Initiator]int
}

// Lookup returns the registration of an initiator.
func (t *Table) Lookup(i Initiator) (Registration, bool) {
	if n, ok := t.index[i]; ok {
		return t.Registrations[n], true
	}
	return Registration{}, false
}

// Holds reports whether an initiator holds the persistent reservation, alone or
// as one of all registrants.
func (t *Table) Holds(i Initiator) bool {
	switch {
	case t.Type == noReservation:
		return false
	case t.Type.AllRegistrants():
		_, ok := t.index[i]
		return ok
	}
	return t.Holder == i
}

// Key returns the reservation key as PERSISTENT RESERVE IN reports it: that of
// the holder, zero where all registrants are.
func (t *Table) Key() uint64 {
	if t.Type == noReservation || t.Type.AllRegistrants() {
		return 0
	}
	r, _ := t.Lookup(t.Holder)
	return r.Key
}

// conflicts decides by SPC-4 table 65 and SBC-3 table 14.
func (t *Table) conflicts(from Initiator, access Access) bool {
	if t.reserved && t.legacy != from {
		return true
	}
	if access == AccessNone || t.Type == noReservation || access == AccessRead && !t.Type.in(exclusiveAccessTypes) {
		return false
	}
	if t.Type.in(registrantTypes) {
		_, ok := t.index[from]
		return !ok
	}
	return t.Holder != from
}

// Reservations is the one reservation table of a unit: SCSI-2 RESERVE,
// persistent reservations and NVMe reservations. A change is saved, where it
// has to be kept, before it is seen by anyone. The methods that change the table
// may therefore wait for stable storage; those that read it take no lock.
type Reservations struct {
	// barrier is the table while a reservation of either kind exists, else nil.
	barrier atomic.Pointer[Table]
	table   atomic.Pointer[Table]

	mu    sync.Mutex // serialises changes; above Unit.mu
	unit  *Unit
	store ReservationStore
	saved []byte // what the store has
	dirty bool   // a save has failed: the store may have either
}

// ReservationStore keeps a unit's reservation table with the pool.
type ReservationStore interface {
	// LoadReservations returns the stored table, nil without error for none.
	LoadReservations(id ID) ([]byte, error)
	// SaveReservations returns after the table is on stable storage. A nil
	// blob removes it.
	SaveReservations(id ID, blob []byte) error
}

// Conflicts reports whether a command of the initiator with this access has to
// end with RESERVATION CONFLICT, on account of a persistent reservation or,
// whatever its access, of a SCSI-2 reservation; the few commands that SPC-2 §5.5
// lets through the latter do not ask. It costs one atomic load where the unit has
// no reservation.
func (r *Reservations) Conflicts(from Initiator, access Access) bool {
	t := r.barrier.Load()
	return t != nil && t.conflicts(from, access)
}

// Reserved reports whether another initiator holds the unit by SCSI-2 RESERVE. It
// costs one atomic load where the unit has no reservation.
func (r *Reservations) Reserved(from Initiator) bool {
	t := r.barrier.Load()
	return t != nil && t.reserved && t.legacy != from
}

// Table returns the current state.
func (r *Reservations) Table() *Table { return r.table.Load() }

// CanPersist reports whether the table can be kept across restarts (PTPL_C).
func (r *Reservations) CanPersist() bool { return r.store != nil }

// load takes over what the store has kept.
func (r *Reservations) load(u *Unit, store ReservationStore) error {
	r.unit, r.store = u, store
	t := &Table{}
	if store != nil {
		blob, err := store.LoadReservations(u.id)
		if err != nil {
			return err
		}
		if blob != nil {
			if t, err = decodeTable(blob); err != nil {
				return err
			}
			r.saved = blob
			t.fold()
		}
	}
	r.publish(t)
	return nil
}

// draft is a table being changed; Registrations may be edited, TransportIDs not.
func (t *Table) draft() *Table {
	d := *t
	d.Registrations = append([]Registration(nil), t.Registrations...)
	d.reindex()
	return &d
}

func (t *Table) reindex() {
	t.index = make(map[Initiator]int, len(t.Registrations))
	for i, r := range t.Registrations {
		t.index[r.Initiator] = i
	}
}

// remove drops the registrations for which gone is true, and with the last
// registrant or the holder the reservation.
func (t *Table) remove(gone func(Registration) bool) {
	kept := t.Registrations[:0:0]
	for _, r := range t.Registrations {
		if !gone(r) {
			kept = append(kept, r)
		}
	}
	t.Registrations = kept
	t.reindex()
	if t.Type == noReservation {
		return
	}
	_, holder := t.index[t.Holder]
	if len(kept) == 0 || !holder && !t.Type.AllRegistrants() {
		t.release()
	}
}

func (t *Table) release() { t.Type, t.Holder = noReservation, Initiator{} }

// commitLocked saves a draft where it has to be kept and makes it the table.
func (r *Reservations) commitLocked(d *Table) error {
	var blob []byte
	if d.Persist && len(d.Registrations) > 0 {
		blob = encodeTable(d)
	}
	if r.store != nil && (r.dirty || !bytes.Equal(blob, r.saved)) {
		r.dirty = true
		if err := r.store.SaveReservations(r.unit.id, blob); err != nil {
			return fmt.Errorf("save reservations of unit %s: %w", r.unit.id, err)
		}
		r.saved, r.dirty = blob, false
	}
	r.publish(d)
	return nil
}

func (r *Reservations) publish(t *Table) {
	if len(t.index) != len(t.Registrations) {
		t.reindex()
	}
	r.table.Store(t)
	if t.Type == noReservation && !t.reserved {
		r.barrier.Store(nil)
	} else {
		r.barrier.Store(t)
	}
}

// tell raises an event for the registrants of a table, except one initiator.
func (r *Reservations) tell(e Event, to []Registration, except Initiator) {
	if len(to) == 0 {
		return
	}
	is := make(map[Initiator]bool, len(to))
	for _, reg := range to {
		is[reg.Initiator] = reg.Initiator != except
	}
	r.unit.notify(e, func(w Watcher) bool { return is[w.Initiator()] })
}
