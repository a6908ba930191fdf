package iscsi

import (
	"encoding/binary"
	"errors"
)

// The types of additional header segments (RFC 7143 §11.2.2.1).
const (
	AHSExtendedCDB = 1
	AHSBidiLength  = 2
)

// ErrAHS says that additional header segments do not fill their space as
// their lengths say.
var ErrAHS = errors.New("malformed additional header segment")

// NextAHS splits the first additional header segment off b. data is the
// segment's AHS-specific part, which begins with the reserved byte.
func NextAHS(b []byte) (kind uint8, data, rest []byte, err error) {
	if len(b) < 4 {
		return 0, nil, nil, ErrAHS
	}
	n := int(binary.BigEndian.Uint16(b))
	size := Pad(3 + n)
	if n < 1 || size > len(b) {
		return 0, nil, nil, ErrAHS
	}
	return b[2], b[3 : 3+n], b[size:], nil
}

// AppendAHS appends an additional header segment; data begins with the reserved byte.
func AppendAHS(dst []byte, kind uint8, data []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(data)))
	dst = append(dst, kind)
	dst = append(dst, data...)
	for range Pad(3+len(data)) - 3 - len(data) {
		dst = append(dst, 0)
	}
	return dst
}

// AppendExtendedCDB appends the segment for the bytes of a CDB beyond its 16th.
func AppendExtendedCDB(dst, cdb []byte) []byte {
	if len(cdb) <= 16 {
		return dst
	}
	return AppendAHS(dst, AHSExtendedCDB, append([]byte{0}, cdb[16:]...))
}
