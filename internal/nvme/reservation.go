package nvme

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// reservationTypes translates RTYPE (NVMe Base 2.0 figure 500) to the types of
// the shared table; the package comment has the table.
var reservationTypes = [...]unit.ReservationType{
	1: unit.WriteExclusive,
	2: unit.ExclusiveAccess,
	3: unit.WriteExclusiveRegistrantsOnly,
	4: unit.ExclusiveAccessRegistrantsOnly,
	5: unit.WriteExclusiveAllRegistrants,
	6: unit.ExclusiveAccessAllRegistrants,
}

// typeOf returns the type that dword 10 names, an invalid one for none.
func typeOf(e wire.SQE) unit.ReservationType {
	if n := e.CDW(10) >> 8 & 0xFF; n < uint32(len(reservationTypes)) {
		return reservationTypes[n]
	}
	return 0
}

// rtype returns the RTYPE of a type, zero for none.
func rtype(t unit.ReservationType) byte {
	for n, known := range reservationTypes {
		if t != 0 && known == t {
			return byte(n)
		}
	}
	return 0
}

// reservationStatus returns the status of an outcome.
func reservationStatus(err error) wire.Status {
	switch {
	case err == nil:
		return wire.Success
	case errors.Is(err, unit.ErrConflict):
		return wire.ReservationConflict.DNR()
	case errors.Is(err, unit.ErrInvalidRelease), errors.Is(err, unit.ErrReservationParameter),
		errors.Is(err, unit.ErrReservationType), errors.Is(err, unit.ErrNotPersistent):
		return wire.InvalidField.DNR()
	}
	return wire.InternalError // the table is full or could not be saved
}

// reserve runs a service that may wait for the table to be saved.
func (r *Request) reserve(do func(t *unit.Reservations) error) {
	t := &r.ns.unit.Reservations
	if !t.CanPersist() {
		r.finish(reservationStatus(do(t)))
		return
	}
	go func() { r.finish(reservationStatus(do(t))) }()
}

const ignoreKey = 1 << 3 // IEKEY

// The values of CPTPL.
const (
	persistNoChange = 0
	persistOff      = 2
	persistOn       = 3
)

// runReservationRegister is Reservation Register (NVMe Base 2.0 §7.3).
func runReservationRegister(r *Request) {
	e := r.SQE
	if len(r.DataOut) < 16 {
		r.fail(wire.SGLLengthInvalid)
		return
	}
	action, ignore, persist := e.CDW(10)&7, e.CDW(10)&ignoreKey != 0, e.CDW(10)>>30
	current, key := le.Uint64(r.DataOut), le.Uint64(r.DataOut[8:])
	if action > 2 || persist != persistNoChange && persist != persistOff && persist != persistOn ||
		action != 1 && key == 0 {
		r.fail(wire.InvalidField)
		return
	}
	from := r.queue.ctrl.initiator
	r.reserve(func(t *unit.Reservations) error {
		own, registered := t.Table().Lookup(from)
		q := unit.Register{From: from, NewKey: key, Persist: persist == persistOn, KeepPersist: persist == persistNoChange}
		switch {
		case action == 0 && registered:
			// The same key again is a registration that there is already.
			if own.Key != key {
				return unit.ErrConflict
			}
			q.Key = key
		case action == 0:
		case !registered && (action == 1 || !ignore): // who replaces whatever key it has may have none
			return unit.ErrConflict
		default:
			q.Key, q.IgnoreKey = current, ignore
			if action == 1 {
				q.NewKey = 0
			}
		}
		return t.Register(q)
	})
}

// runReservationAcquire is Reservation Acquire (NVMe Base 2.0 §7.2).
func runReservationAcquire(r *Request) {
	e := r.SQE
	if len(r.DataOut) < 16 {
		r.fail(wire.SGLLengthInvalid)
		return
	}
	action, typ := e.CDW(10)&7, typeOf(e)
	if action > 2 || e.CDW(10)&ignoreKey != 0 || !typ.Valid() {
		r.fail(wire.InvalidField)
		return
	}
	from := r.queue.ctrl.initiator
	current, target := le.Uint64(r.DataOut), le.Uint64(r.DataOut[8:])
	if action == 0 {
		r.reserve(func(t *unit.Reservations) error { return t.Reserve(from, current, typ) })
		return
	}
	t := &r.ns.unit.Reservations
	run := func() {
		err := t.Preempt(unit.Preempt{From: from, Key: current, Target: target, Type: typ, Abort: action == 2},
			func() { r.finish(wire.Success) })
		if err != nil {
			r.finish(reservationStatus(err))
		}
	}
	if !t.CanPersist() {
		run()
		return
	}
	go run()
}

// runReservationRelease is Reservation Release (NVMe Base 2.0 §7.4).
func runReservationRelease(r *Request) {
	e := r.SQE
	if len(r.DataOut) < 8 { // Linux sends the 16 bytes of the other commands
		r.fail(wire.SGLLengthInvalid)
		return
	}
	action, typ := e.CDW(10)&7, typeOf(e)
	if action > 1 || e.CDW(10)&ignoreKey != 0 {
		r.fail(wire.InvalidField)
		return
	}
	from, key := r.queue.ctrl.initiator, le.Uint64(r.DataOut)
	r.reserve(func(t *unit.Reservations) error {
		if action == 1 {
			return t.Clear(from, key)
		}
		return t.Release(from, key, typ)
	})
}

const (
	reportHeader = 64 // of the extended form
	reportEntry  = 64
	noController = 0xFFFF
)

// runReservationReport is Reservation Report (NVMe Base 2.0 §7.5), in its
// extended form: hosts on fabrics have identifiers of 128 bits. There is one entry for
// each controller of a registrant, and one without controller for a registrant that has
// none here, which SCSI initiators never have.
func runReservationReport(r *Request) {
	e := r.SQE
	if (uint64(e.CDW(10))+1)*4 != uint64(r.length) {
		r.fail(wire.SGLLengthInvalid)
		return
	}
	if e.CDW(11)&1 == 0 { // EDS
		r.fail(wire.HostIDInconsistentFormat)
		return
	}
	r.reply(r.queue.sub.report(r.ns.unit), 0)
}

func (s *Subsystem) report(u *unit.Unit) []byte {
	t := u.Reservations.Table()
	hosts := make(map[unit.Initiator][]uint16)
	for _, c := range s.Controllers() {
		for _, ns := range c.table.Load().all() {
			if ns.unit == u {
				hosts[c.initiator] = append(hosts[c.initiator], c.info.ID)
			}
		}
	}
	b := make([]byte, reportHeader, reportHeader+reportEntry*len(t.Registrations))
	for _, reg := range t.Registrations {
		ids := hosts[reg.Initiator]
		if len(ids) == 0 {
			ids = []uint16{noController}
		}
		host := hostID(reg.Initiator)
		for _, id := range ids {
			var d [reportEntry]byte
			le.PutUint16(d[0:], id)
			if t.Holds(reg.Initiator) {
				d[2] = 1
			}
			le.PutUint64(d[8:], reg.Key)
			copy(d[16:32], host[:])
			b = append(b, d[:]...)
		}
	}
	le.PutUint32(b[0:], t.Generation)
	b[4] = rtype(t.Type)
	le.PutUint16(b[5:], uint16(len(b)/reportEntry-1))
	if t.Persist {
		b[9] = 1
	}
	return b
}

// hostID returns the host identifier of a registrant; that of a SCSI initiator port is made
// of its name, so that hosts tell registrants apart.
func hostID(i unit.Initiator) [16]byte {
	var id [16]byte
	if text, ok := strings.CutPrefix(i.Name, "nvme:"); ok {
		if b, err := hex.DecodeString(text); err == nil {
			copy(id[:], b)
			return id
		}
	}
	var port [2]byte
	le.PutUint16(port[:], i.Port)
	sum := sha256.Sum256(append([]byte(i.Name), port[:]...))
	copy(id[:], sum[:])
	return id
}
