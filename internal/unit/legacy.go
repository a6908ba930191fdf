package unit

// ReserveUnit is the SCSI-2 RESERVE of the whole unit (SPC-2 §7.23). It fails
// with ErrConflict where another initiator holds it or anyone is registered for
// persistent reservations.
func (r *Reservations) ReserveUnit(from Initiator) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.table.Load()
	if len(t.Registrations) > 0 || t.reserved && t.legacy != from {
		return ErrConflict
	}
	r.setLegacyLocked(t, from, true)
	return nil
}

// ReleaseUnit is the SCSI-2 RELEASE (SPC-2 §7.20). It does nothing where the
// initiator does not hold the unit, and fails with ErrConflict where anyone is
// registered for persistent reservations.
func (r *Reservations) ReleaseUnit(from Initiator) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.table.Load()
	if len(t.Registrations) > 0 {
		return ErrConflict
	}
	if t.reserved && t.legacy == from {
		r.setLegacyLocked(t, Initiator{}, false)
	}
	return nil
}

// NexusLost ends the SCSI-2 reservation of an initiator that has logged out or
// was lost. Persistent reservations stay (SPC-4 §5.13.5).
func (r *Reservations) NexusLost(from Initiator) {
	if b := r.barrier.Load(); b == nil || !b.reserved {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.table.Load(); t.reserved && t.legacy == from {
		r.setLegacyLocked(t, Initiator{}, false)
	}
}

// Reset ends the SCSI-2 reservation, whoever holds it, as a logical unit reset
// does. Persistent reservations stay.
func (r *Reservations) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.table.Load(); t.reserved {
		r.setLegacyLocked(t, Initiator{}, false)
	}
}

// setLegacyLocked needs no saving: a SCSI-2 reservation ends with the power.
func (r *Reservations) setLegacyLocked(t *Table, holder Initiator, reserved bool) {
	d := t.draft()
	d.legacy, d.reserved = holder, reserved
	r.publish(d)
}
