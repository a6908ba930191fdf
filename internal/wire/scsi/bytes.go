package scsi

import "encoding/binary"

// Uint16 reads a big-endian number from the first 2 bytes of b.
func Uint16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }

// Uint24 reads a big-endian number from the first 3 bytes of b.
func Uint24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

// Uint32 reads a big-endian number from the first 4 bytes of b.
func Uint32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// Uint48 reads a big-endian number from the first 6 bytes of b.
func Uint48(b []byte) uint64 { return uint64(Uint16(b))<<32 | uint64(Uint32(b[2:])) }

// Uint64 reads a big-endian number from the first 8 bytes of b.
func Uint64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// PutUint16 writes v into the first 2 bytes of b, big-endian.
func PutUint16(b []byte, v uint16) { binary.BigEndian.PutUint16(b, v) }

// PutUint24 writes the low 24 bits of v into the first 3 bytes of b, big-endian.
func PutUint24(b []byte, v uint32) { b[0], b[1], b[2] = byte(v>>16), byte(v>>8), byte(v) }

// PutUint32 writes v into the first 4 bytes of b, big-endian.
func PutUint32(b []byte, v uint32) { binary.BigEndian.PutUint32(b, v) }

// PutUint48 writes the low 48 bits of v into the first 6 bytes of b, big-endian.
func PutUint48(b []byte, v uint64) {
	PutUint16(b, uint16(v>>32))
	PutUint32(b[2:], uint32(v))
}

// PutUint64 writes v into the first 8 bytes of b, big-endian.
func PutUint64(b []byte, v uint64) { binary.BigEndian.PutUint64(b, v) }
