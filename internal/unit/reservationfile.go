package unit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
)

// The stored form of a table, big endian:
//
//	magic "LRES", version 1 byte, type 1 byte (0: no reservation),
//	holder 2 bytes (index of its registration, FFFFh: none or all registrants),
//	count 2 bytes, then for each registration
//	key 8, port 2, name length 2, name, TransportID length 2, TransportID,
//	and at the end the CRC-32C of all before.
//
// Only a table with APTPL set is stored, so that bit is implied.
const (
	tableMagic   = "LRES"
	tableVersion = 1
	noHolder     = math.MaxUint16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeTable(t *Table) []byte {
	holder := noHolder
	if t.Type != noReservation && !t.Type.AllRegistrants() {
		holder = t.index[t.Holder]
	}
	b := append([]byte(tableMagic), tableVersion, byte(t.Type))
	b = binary.BigEndian.AppendUint16(b, uint16(holder))
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.Registrations)))
	for _, r := range t.Registrations {
		b = binary.BigEndian.AppendUint64(b, r.Key)
		b = binary.BigEndian.AppendUint16(b, r.Initiator.Port)
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.Initiator.Name)))
		b = append(b, r.Initiator.Name...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.TransportID)))
		b = append(b, r.TransportID...)
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// CheckReservations reports what is wrong with a stored reservation table.
func CheckReservations(blob []byte) error {
	_, err := decodeTable(blob)
	return err
}

func decodeTable(blob []byte) (*Table, error) {
	const header = len(tableMagic) + 6
	if len(blob) < header+crc32.Size || string(blob[:len(tableMagic)]) != tableMagic {
		return nil, errors.New("stored reservation table: not a reservation table")
	}
	if v := blob[4]; v != tableVersion {
		return nil, fmt.Errorf("stored reservation table: version %d, this program knows %d: use a newer one", v, tableVersion)
	}
	body, sum := blob[:len(blob)-crc32.Size], blob[len(blob)-crc32.Size:]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(sum) {
		return nil, errors.New("stored reservation table: checksum mismatch")
	}
	d := tableDecoder{rest: body[5:]}
	t := &Table{Persist: true, Type: ReservationType(d.number(1))}
	holder, count := int(d.number(2)), int(d.number(2))
	if count > MaxRegistrations {
		return nil, fmt.Errorf("stored reservation table: %d registrations", count)
	}
	for range count {
		r := Registration{Key: d.number(8)}
		r.Initiator.Port = uint16(d.number(2))
		r.Initiator.Name = string(d.text(maxInitiatorName))
		r.TransportID = d.text(maxTransportID)
		if d.bad || r.Key == 0 {
			return nil, errors.New("stored reservation table: malformed registration")
		}
		t.Registrations = append(t.Registrations, r)
	}
	t.reindex()
	if d.bad || len(d.rest) > 0 || len(t.index) != count {
		return nil, errors.New("stored reservation table: malformed")
	}
	alone := t.Type.Valid() && !t.Type.AllRegistrants()
	switch {
	case t.Type != noReservation && (!t.Type.Valid() || count == 0):
		return nil, fmt.Errorf("stored reservation table: %s among %d registrations", t.Type, count)
	case alone && holder >= count, !alone && holder != noHolder:
		return nil, fmt.Errorf("stored reservation table: holder %d among %d registrations", holder, count)
	case alone:
		t.Holder = t.Registrations[holder].Initiator
	}
	return t, nil
}

// fold brings the names of initiators to lower case, in which they are compared: a table may
// be of a time when they were kept as hosts wrote them. Of registrations that become one,
// the holder's stays, else the first.
func (t *Table) fold() {
	all, holder := t.Registrations, t.Holder
	t.Registrations = nil
	at := make(map[Initiator]int, len(all))
	for _, r := range all {
		holds := r.Initiator == holder
		r.Initiator.Name = strings.ToLower(r.Initiator.Name)
		i, twice := at[r.Initiator]
		switch {
		case !twice:
			at[r.Initiator] = len(t.Registrations)
			t.Registrations = append(t.Registrations, r)
		case holds:
			t.Registrations[i] = r
		}
	}
	t.Holder.Name = strings.ToLower(holder.Name)
	t.reindex()
}

type tableDecoder struct {
	rest []byte
	bad  bool
}

func (d *tableDecoder) take(n int) []byte {
	if len(d.rest) < n {
		d.bad, d.rest = true, nil
		return make([]byte, n)
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *tableDecoder) number(n int) uint64 {
	var v uint64
	for _, b := range d.take(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (d *tableDecoder) text(limit int) []byte {
	n := int(d.number(2))
	if n > limit {
		d.bad, n = true, 0
	}
	return append([]byte(nil), d.take(n)...)
}
