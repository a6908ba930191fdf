package unit

// Access is what a command does to the medium, as reservations see it.
type Access uint8

// The accesses, from SPC-4 tables 65 and 66 and SBC-3 table 14.
const (
	AccessNone  Access = iota // allowed whatever persistent reservation another initiator holds
	AccessRead                // conflicts with Exclusive Access types
	AccessWrite               // conflicts with Write Exclusive and Exclusive Access types
)

// Reservations is the one reservation table of a unit: SCSI-2 RESERVE,
// persistent reservations and NVMe reservations.
type Reservations struct{}

// Conflicts reports whether a command of the initiator with this access has to
// end with RESERVATION CONFLICT. It costs one atomic load where the unit has no
// reservation.
func (r *Reservations) Conflicts(from Initiator, access Access) bool { return false }

// ReservationStore keeps a unit's reservation table with the pool.
type ReservationStore interface {
	// LoadReservations returns the stored table, nil without error for none.
	LoadReservations(id ID) ([]byte, error)
	// SaveReservations returns after the table is on stable storage. A nil
	// blob removes it.
	SaveReservations(id ID, blob []byte) error
}
