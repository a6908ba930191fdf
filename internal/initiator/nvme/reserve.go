package nvme

import (
	"context"
	"fmt"

	wire "lintel.io/lintel/internal/wire/nvme"
)

// ReservationType is the type of a reservation (NVMe Base 2.0 figure 409).
type ReservationType uint8

// The reservation types.
const (
	WriteExclusive                ReservationType = 1
	ExclusiveAccess               ReservationType = 2
	WriteExclusiveRegistrantsOnly ReservationType = 3
	ExclusiveRegistrantsOnly      ReservationType = 4
	WriteExclusiveAllRegistrants  ReservationType = 5
	ExclusiveAllRegistrants       ReservationType = 6
)

// RegisterAction is what Reservation Register does (RREGA).
type RegisterAction uint8

// The register actions.
const (
	Register   RegisterAction = 0
	Unregister RegisterAction = 1
	Replace    RegisterAction = 2
)

// AcquireAction is what Reservation Acquire does (RACQA).
type AcquireAction uint8

// The acquire actions.
const (
	Acquire         AcquireAction = 0
	Preempt         AcquireAction = 1
	PreemptAndAbort AcquireAction = 2
)

// ReleaseAction is what Reservation Release does (RRELA).
type ReleaseAction uint8

// The release actions.
const (
	Release ReleaseAction = 0
	Clear   ReleaseAction = 1
)

// PersistPower is what a registration does to the persist-through-power-loss
// state (CPTPL).
type PersistPower uint8

// The changes of the state.
const (
	PersistUnchanged PersistPower = 0
	PersistOff       PersistPower = 2
	PersistOn        PersistPower = 3
)

// ignoreKey is IEKEY of dword 10: the existing key is not checked.
const ignoreKey = 1 << 3

// Registration describes a Reservation Register command (NVMe Base 2.0 §7.3).
type Registration struct {
	Action    RegisterAction
	IgnoreKey bool
	Persist   PersistPower
	Key       uint64 // the current one
	NewKey    uint64
}

// Register registers, unregisters or replaces the key of the host.
func (q *Queue) Register(ctx context.Context, nsid uint32, r Registration) error {
	dw10 := uint32(r.Action) | uint32(r.Persist)<<30
	if r.IgnoreKey {
		dw10 |= ignoreKey
	}
	return q.reserve(ctx, "register", wire.ReservationRegister, nsid, dw10, r.Key, r.NewKey)
}

// Acquire acquires a reservation, or takes that of the host registered with preempt (NVMe Base 2.0 §7.2).
func (q *Queue) Acquire(ctx context.Context, nsid uint32, action AcquireAction, t ReservationType, key, preempt uint64) error {
	return q.reserve(ctx, "acquire", wire.ReservationAcquire, nsid, uint32(action)|uint32(t)<<8, key, preempt)
}

// Release releases the reservation, or clears it with all registrations (NVMe Base 2.0 §7.4).
func (q *Queue) Release(ctx context.Context, nsid uint32, action ReleaseAction, t ReservationType, key uint64) error {
	return q.reserve(ctx, "release", wire.ReservationRelease, nsid, uint32(action)|uint32(t)<<8, key)
}

func (q *Queue) reserve(ctx context.Context, what string, op uint8, nsid, dw10 uint32, keys ...uint64) error {
	cmd := &Command{Out: make([]byte, 0, 16)}
	for _, key := range keys {
		cmd.Out = le.AppendUint64(cmd.Out, key)
	}
	e := cmd.SQE()
	e.SetOpcode(op)
	e.SetNSID(nsid)
	e.SetCDW(10, dw10)
	if err := q.run(ctx, cmd); err != nil {
		return fmt.Errorf("reservation %s: %w", what, err)
	}
	return nil
}

// Registrant is a host that is registered with a namespace.
type Registrant struct {
	Controller uint16 // FFFFh where it has none now
	Holder     bool
	HostID     [16]byte // its first 8 bytes only, without the extended data structure
	Key        uint64
}

// Reservations is the reservation status of a namespace (NVMe Base 2.0 figure 412).
type Reservations struct {
	Generation  uint32
	Type        ReservationType // 0 for no reservation
	Persist     bool
	Registrants []Registrant
}

// Report returns the reservation status, with host ids of 16 bytes where extended (NVMe Base 2.0 §7.5).
func (q *Queue) Report(ctx context.Context, nsid uint32, extended bool) (Reservations, error) {
	header, entry, flag := 24, 24, uint32(0)
	if extended {
		header, entry, flag = 64, 64, 1
	}
	for size := 4096; ; {
		cmd := &Command{In: make([]byte, size)}
		e := cmd.SQE()
		e.SetOpcode(wire.ReservationReport)
		e.SetNSID(nsid)
		e.SetCDW(10, uint32(size/4-1))
		e.SetCDW(11, flag)
		if err := q.run(ctx, cmd); err != nil {
			return Reservations{}, fmt.Errorf("reservation report: %w", err)
		}
		p := cmd.In
		n := int(le.Uint16(p[5:]))
		if want := header + n*entry; want > size {
			size = (want + 4095) &^ 4095
			continue
		}
		r := Reservations{Generation: le.Uint32(p), Type: ReservationType(p[4]), Persist: p[9] != 0}
		for p = p[header:]; n > 0; n, p = n-1, p[entry:] {
			g := Registrant{Controller: le.Uint16(p), Holder: p[2]&1 != 0}
			if extended {
				g.Key, g.HostID = le.Uint64(p[8:]), [16]byte(p[16:])
			} else {
				copy(g.HostID[:], p[8:16])
				g.Key = le.Uint64(p[16:])
			}
			r.Registrants = append(r.Registrants, g)
		}
		return r, nil
	}
}
