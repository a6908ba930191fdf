package reserve

import (
	"encoding/binary"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// dataIn returns the parameter data of a PERSISTENT RESERVE IN service action,
// complete (SPC-4 §6.15).
func dataIn(r *unit.Reservations, action byte) []byte {
	t := r.Table()
	switch action {
	case readKeys:
		b := header(t, 8*len(t.Registrations))
		for _, reg := range t.Registrations {
			b = binary.BigEndian.AppendUint64(b, reg.Key)
		}
		return b
	case readReservation:
		if t.Type == 0 {
			return header(t, 0)
		}
		b := header(t, 16)
		b = binary.BigEndian.AppendUint64(b, t.Key())
		return append(b, 0, 0, 0, 0, 0, byte(t.Type), 0, 0)
	case reportCapabilities:
		return capabilities(r.CanPersist(), t.Persist)
	default:
		return fullStatus(t)
	}
}

func header(t *unit.Table, additional int) []byte {
	b := make([]byte, 8, 8+additional)
	binary.BigEndian.PutUint32(b, t.Generation)
	binary.BigEndian.PutUint32(b[4:], uint32(additional))
	return b
}

// capabilities is the data of REPORT CAPABILITIES (SPC-4 §6.15.4).
func capabilities(canPersist, persists bool) []byte {
	const (
		specifyPorts = 1 << 3 // SIP_C
		allPorts     = 1 << 2 // ATP_C
		maskValid    = 1 << 7 // TMV
		persist      = 1 << 0 // PTPL_C, PTPL_A
	)
	b := []byte{0, 8, specifyPorts | allPorts, maskValid, 0xEA, 0x01, 0, 0} // all six types
	if canPersist {
		b[2] |= persist
	}
	if persists {
		b[3] |= persist
	}
	return b
}

// fullStatus is the data of READ FULL STATUS (SPC-4 §6.15.5). A registration
// through all target ports is kept as one for each, so ALL_TG_PT is always zero.
func fullStatus(t *unit.Table) []byte {
	const fixed = 24
	b := header(t, len(t.Registrations)*(fixed+28))
	for _, reg := range t.Registrations {
		id := reg.TransportID
		if len(id) == 0 { // registered by another command set
			id = wire.ISCSITransportID(reg.Initiator.Name)
		}
		d := make([]byte, fixed)
		binary.BigEndian.PutUint64(d, reg.Key)
		if t.Holds(reg.Initiator) {
			d[12], d[13] = 1, byte(t.Type)
		}
		binary.BigEndian.PutUint16(d[18:], reg.Initiator.Port)
		binary.BigEndian.PutUint32(d[20:], uint32(len(id)))
		b = append(append(b, d...), id...)
	}
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-8))
	return b
}
