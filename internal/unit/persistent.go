package unit

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Registrant is an initiator port to be registered.
type Registrant struct {
	Name        string // as in Initiator
	TransportID []byte
}

// Register is a REGISTER or REGISTER AND IGNORE EXISTING KEY (SPC-4 §5.13.7), or
// an NVMe Reservation Register.
type Register struct {
	From        Initiator
	TransportID []byte // of From
	Key         uint64 // the current key of From, zero where it is not registered
	NewKey      uint64 // the key to register, zero to unregister
	// IgnoreKey registers whatever key From has (IEKEY).
	IgnoreKey bool
	// Ports are the relative identifiers of every target port, where the
	// registration is for all of them (ALL_TG_PT); nil is that of From alone.
	Ports []uint16
	// Others are further initiator ports to register (SPEC_I_PT).
	Others []Registrant
	// Persist keeps the whole table across restarts from now on, or no longer (APTPL).
	Persist bool
	// KeepPersist leaves it as it is (CPTPL 0), whatever Persist says.
	KeepPersist bool
}

// Register registers an initiator, changes its key, or unregisters it. Through
// all target ports it acts as one request at each of them would, all together
// or not at all.
func (r *Reservations) Register(q Register) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.table.Load()
	if t.reserved {
		return ErrConflict
	}
	if q.KeepPersist {
		q.Persist = t.Persist
	}
	own, registered := t.Lookup(q.From)
	if !q.IgnoreKey && own.Key != q.Key { // an unregistered initiator's key is zero
		return ErrConflict
	}
	if len(q.Others) > 0 && (registered || q.IgnoreKey) {
		return fmt.Errorf("%w: other initiator ports can be registered only together with a new registration", ErrReservationParameter)
	}
	if !plausible(q.From.Name, q.TransportID) || slices.ContainsFunc(q.Others, func(o Registrant) bool { return !plausible(o.Name, o.TransportID) }) {
		return fmt.Errorf("%w: initiator port name or TransportID", ErrReservationParameter)
	}
	if q.Persist && r.store == nil {
		return ErrNotPersistent
	}
	ports := q.Ports
	if ports == nil {
		ports = []uint16{q.From.Port}
	} else if !slices.Contains(ports, q.From.Port) {
		ports = append([]uint16{q.From.Port}, ports...)
	}

	d := t.draft()
	gone := make(map[Initiator]bool)
	for _, port := range ports {
		at := Initiator{Name: q.From.Name, Port: port}
		i, found := d.index[at]
		switch {
		case found && !q.IgnoreKey && d.Registrations[i].Key != q.Key:
			return ErrConflict
		case found && q.NewKey == 0:
			gone[at] = true
		case found:
			d.Registrations[i].Key = q.NewKey
		case q.NewKey != 0:
			d.add(Registration{Initiator: at, Key: q.NewKey, TransportID: q.TransportID})
		}
		if q.NewKey == 0 {
			continue
		}
		for _, o := range q.Others {
			at := Initiator{Name: o.Name, Port: port}
			if _, found := d.index[at]; !found {
				d.add(Registration{Initiator: at, Key: q.NewKey, TransportID: o.TransportID})
			}
		}
	}
	if len(d.Registrations) > MaxRegistrations {
		return ErrTooManyRegistrations
	}
	if !registered && q.NewKey == 0 && len(gone) == 0 {
		return nil // SPC-4 table 51: nothing is done
	}
	d.remove(func(reg Registration) bool { return gone[reg.Initiator] })
	d.Persist = q.Persist
	d.Generation++
	if err := r.commitLocked(d); err != nil {
		return err
	}
	if t.Type.in(registrantTypes) && d.Type == noReservation {
		r.tell(EventReservationsReleased, d.Registrations, q.From)
	}
	return nil
}

// SetPersist keeps the table across restarts from now on, or no longer (the
// Reservation Persistence feature of NVMe). It fails with ErrNotPersistent where
// the unit has no store.
func (r *Reservations) SetPersist(on bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.table.Load()
	switch {
	case t.Persist == on:
		return nil
	case on && r.store == nil:
		return ErrNotPersistent
	}
	d := t.draft()
	d.Persist = on
	return r.commitLocked(d)
}

func plausible(name string, transportID []byte) bool {
	return name != "" && len(name) <= maxInitiatorName && len(transportID) <= maxTransportID
}

func (t *Table) add(reg Registration) {
	t.index[reg.Initiator] = len(t.Registrations)
	t.Registrations = append(t.Registrations, reg)
}

// checkLocked finds the table for a service that only a registrant with the
// right key may ask for.
func (r *Reservations) checkLocked(from Initiator, key uint64) (*Table, error) {
	t := r.table.Load()
	own, registered := t.Lookup(from)
	if t.reserved || !registered || own.Key != key {
		return nil, ErrConflict
	}
	return t, nil
}

// Reserve makes a persistent reservation (SPC-4 §5.13.9).
func (r *Reservations) Reserve(from Initiator, key uint64, typ ReservationType) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.checkLocked(from, key)
	switch {
	case err != nil:
		return err
	case !typ.Valid():
		return ErrReservationType
	case t.Type == noReservation:
		d := t.draft()
		d.Type, d.Holder = typ, from
		return r.commitLocked(d)
	case t.Type == typ && t.Holds(from):
		return nil
	}
	return ErrConflict
}

// Release ends the persistent reservation that the initiator holds, and does
// nothing where it holds none (SPC-4 §5.13.11.2). The other registrants are told
// where the reservation was one of registrants.
func (r *Reservations) Release(from Initiator, key uint64, typ ReservationType) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.checkLocked(from, key)
	switch {
	case err != nil:
		return err
	case !t.Holds(from):
		return nil
	case t.Type != typ:
		return ErrInvalidRelease
	}
	d := t.draft()
	d.release()
	if err := r.commitLocked(d); err != nil {
		return err
	}
	if typ.in(registrantTypes) {
		r.tell(EventReservationsReleased, d.Registrations, from)
	}
	return nil
}

// Clear ends the reservation and removes every registration; the other
// registrants are told that their reservations were preempted (SPC-4 §5.13.11.2.7).
func (r *Reservations) Clear(from Initiator, key uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.checkLocked(from, key)
	if err != nil {
		return err
	}
	d := t.draft()
	d.remove(func(Registration) bool { return true })
	d.Generation++
	if err := r.commitLocked(d); err != nil {
		return err
	}
	r.tell(EventReservationsPreempted, t.Registrations, from)
	return nil
}

// Preempt is a PREEMPT or PREEMPT AND ABORT (SPC-4 §5.13.11.2.4, §5.13.11.2.6).
type Preempt struct {
	From   Initiator
	Key    uint64
	Target uint64          // the key of those to preempt; zero for all where all registrants hold the reservation
	Type   ReservationType // of the new reservation, where one is made
	// Abort ends the commands of those who lose their registration.
	Abort bool
}

// Preempt removes the registrations with a key and, where they hold the
// reservation, makes the caller its holder. Without an error done is called once: when
// the commands to abort have ended, possibly before Preempt returns. The
// caller's own commands are not aborted, even if it preempts itself.
func (r *Reservations) Preempt(q Preempt, done func()) error {
	watchers, err := r.preempt(q)
	if err != nil {
		return err
	}
	var left atomic.Int64
	left.Store(int64(len(watchers)) + 1)
	ended := func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
	for _, w := range watchers {
		w.AbortTasks(ended)
	}
	ended()
	return nil
}

func (r *Reservations) preempt(q Preempt) (abort []Watcher, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.checkLocked(q.From, q.Key)
	if err != nil {
		return nil, err
	}
	all := t.Type.AllRegistrants()
	if q.Target == 0 && !all {
		return nil, fmt.Errorf("%w: no key to preempt", ErrReservationParameter)
	}
	match := func(reg Registration) bool { return reg.Key == q.Target }
	if q.Target == 0 {
		match = func(Registration) bool { return true }
	}
	if !slices.ContainsFunc(t.Registrations, match) {
		return nil, ErrConflict
	}
	// The reservation itself goes where its holder is named by key or, for one
	// of all registrants, by a zero key.
	takes := q.Target == 0 || t.Type != noReservation && !all && t.Key() == q.Target
	if takes && !q.Type.Valid() {
		return nil, ErrReservationType
	}

	d := t.draft()
	if takes {
		d.Type, d.Holder = q.Type, q.From
	}
	d.remove(func(reg Registration) bool {
		return match(reg) && !(takes && reg.Initiator == q.From)
	})
	d.Generation++
	if err := r.commitLocked(d); err != nil {
		return nil, err
	}

	var lost []Registration
	for _, reg := range t.Registrations {
		if _, kept := d.index[reg.Initiator]; !kept {
			lost = append(lost, reg)
		}
	}
	r.tell(EventRegistrationsPreempted, lost, q.From)
	if takes && t.Type != d.Type {
		r.tell(EventReservationsReleased, d.Registrations, q.From)
	}
	if !q.Abort {
		return nil, nil
	}
	return r.unit.watchersOf(func(i Initiator) bool {
		return i != q.From && slices.ContainsFunc(lost, func(reg Registration) bool { return reg.Initiator == i })
	}), nil
}

// Move is a REGISTER AND MOVE (SPC-4 §5.13.8).
type Move struct {
	From        Initiator
	Key         uint64
	NewKey      uint64    // the key to register for To
	To          Initiator // who gets the reservation
	TransportID []byte    // of To
	Unregister  bool      // From loses its registration (UNREG)
	Persist     bool      // as in Register
}

// Move registers another initiator and makes it the holder of the reservation
// that the caller holds.
func (r *Reservations) Move(q Move) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, err := r.checkLocked(q.From, q.Key)
	switch {
	case err != nil:
		return err
	case t.Type == noReservation:
		return ErrNoReservation
	case t.Type.AllRegistrants() || !t.Holds(q.From):
		return ErrConflict
	case q.NewKey == 0:
		return fmt.Errorf("%w: the key to register is zero", ErrReservationParameter)
	case q.To == q.From:
		return fmt.Errorf("%w: the reservation is moved to its holder", ErrReservationParameter)
	case !plausible(q.To.Name, q.TransportID):
		return fmt.Errorf("%w: initiator port name or TransportID", ErrReservationParameter)
	case q.Persist && r.store == nil:
		return ErrNotPersistent
	}
	d := t.draft()
	if i, found := d.index[q.To]; found {
		d.Registrations[i].Key = q.NewKey
	} else {
		d.add(Registration{Initiator: q.To, Key: q.NewKey, TransportID: q.TransportID})
	}
	d.Holder = q.To
	if q.Unregister {
		d.remove(func(reg Registration) bool { return reg.Initiator == q.From })
	}
	if len(d.Registrations) > MaxRegistrations {
		return ErrTooManyRegistrations
	}
	d.Persist = q.Persist
	d.Generation++
	return r.commitLocked(d)
}
