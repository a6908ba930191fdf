package unit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Errors about attributes.
var (
	// ErrInvalid says that an attribute has a value it cannot have.
	ErrInvalid = errors.New("invalid attribute")
	// ErrInUse says that what was asked needs the unit to be out of use: no
	// initiator may be logged in to it.
	ErrInUse = errors.New("unit is in use: log its initiators out or unmap it first")
)

// DefaultPrefix is the locally administered prefix of generated NAA and EUI-64
// designators, 02-4C-4E, in the place of an IEEE company id.
var DefaultPrefix = [3]byte{0x02, 0x4C, 0x4E}

// Attributes are the identity of a unit and what of it the administrator sets.
// A copy is published whole: readers see either the old or the new one.
type Attributes struct {
	NAA      []byte // 8 (NAA 2, 3 or 5) or 16 (NAA 6) bytes, always set
	EUI64    []byte // 8, 12 or 16 bytes, nil for none
	NGUID    []byte // of the NVMe namespace: 16 bytes, nil for none
	UUID     []byte // of the NVMe namespace: 16 bytes, nil for none
	T10ID    string // vendor specific part of the T10 designator, at most 228 ASCII bytes
	Serial   string // unit serial number, at most 252 printable ASCII bytes
	Vendor   string // at most 8 ASCII bytes
	Product  string // at most 16
	Revision string // at most 4

	BlockSize        uint32 // logical block size in bytes: 512 or 4096
	PhysicalExponent uint8  // log2 of logical blocks per physical block
	Rotational       bool   // medium rotation rate: true says 7200 rpm, false non-rotating
	Thin             bool   // LBPME: unmapped blocks read as zeros
	ReadOnly         bool   // for every initiator
	WriteThrough     bool   // WCE=0: every write is on stable storage before it is answered
}

// The limits of text attributes, in bytes.
const (
	maxT10ID    = 228
	maxSerial   = 252
	maxVendor   = 8
	maxProduct  = 16
	maxRevision = 4
	maxExponent = 15 // LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT has four bits (SBC-3 §5.16.2)
)

// Validate reports the first attribute with a value it cannot have, as an
// error that wraps ErrInvalid.
func (a *Attributes) Validate() error {
	if err := checkNAA(a.NAA); err != nil {
		return err
	}
	if err := checkEUI64(a.EUI64); err != nil {
		return err
	}
	for _, id := range []struct {
		name  string
		value []byte
	}{{"nguid", a.NGUID}, {"uuid", a.UUID}} {
		if n := len(id.value); n != 0 && n != 16 {
			return fmt.Errorf("%w: %s has %d bytes: use 16", ErrInvalid, id.name, n)
		}
	}
	for _, t := range []struct {
		name, value string
		limit       int
		need        bool
	}{
		{"t10_dev_id", a.T10ID, maxT10ID, false},
		{"usn", a.Serial, maxSerial, true},
		{"vendor", a.Vendor, maxVendor, true},
		{"product", a.Product, maxProduct, true},
		{"revision", a.Revision, maxRevision, false},
	} {
		if err := checkText(t.name, t.value, t.limit, t.need); err != nil {
			return err
		}
	}
	if a.BlockSize != 512 && a.BlockSize != 4096 {
		return fmt.Errorf("%w: block size %d: use 512 or 4096", ErrInvalid, a.BlockSize)
	}
	if a.PhysicalExponent > maxExponent {
		return fmt.Errorf("%w: physical block exponent %d: use at most %d", ErrInvalid, a.PhysicalExponent, maxExponent)
	}
	return nil
}

// Clone returns a copy that shares no memory with a.
func (a *Attributes) Clone() Attributes {
	c := *a
	c.NAA = bytes.Clone(a.NAA)
	c.EUI64 = bytes.Clone(a.EUI64)
	c.NGUID = bytes.Clone(a.NGUID)
	c.UUID = bytes.Clone(a.UUID)
	return c
}

func (a *Attributes) sameGeometry(b *Attributes) bool {
	return a.BlockSize == b.BlockSize && a.PhysicalExponent == b.PhysicalExponent
}

// sameIdentity compares what initiators tell units apart by: everything that
// goes into a designation or identification descriptor or the unit serial number.
func (a *Attributes) sameIdentity(b *Attributes) bool {
	return bytes.Equal(a.NAA, b.NAA) && bytes.Equal(a.EUI64, b.EUI64) &&
		bytes.Equal(a.NGUID, b.NGUID) && bytes.Equal(a.UUID, b.UUID) && a.T10ID == b.T10ID && a.Serial == b.Serial && a.Vendor == b.Vendor
}

func (a *Attributes) sameInquiry(b *Attributes) bool {
	return a.sameIdentity(b) && a.Product == b.Product && a.Revision == b.Revision &&
		a.Rotational == b.Rotational && a.Thin == b.Thin
}

func (a *Attributes) sameModes(b *Attributes) bool {
	return a.ReadOnly == b.ReadOnly && a.WriteThrough == b.WriteThrough
}

// checkText takes graphic ASCII codes, 20h to 7Eh (SPC-4 §4.3.1).
func checkText(name, s string, limit int, need bool) error {
	if need && strings.TrimSpace(s) == "" {
		return fmt.Errorf("%w: %s is empty", ErrInvalid, name)
	}
	if len(s) > limit {
		return fmt.Errorf("%w: %s has %d bytes: use at most %d", ErrInvalid, name, len(s), limit)
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7E {
			return fmt.Errorf("%w: %s has byte %#02x at offset %d: use printable ASCII", ErrInvalid, name, s[i], i)
		}
	}
	return nil
}

// checkNAA follows SPC-4 §7.8.6.6.
func checkNAA(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: naa_id is empty", ErrInvalid)
	}
	want := 8
	switch b[0] >> 4 {
	case 2, 3, 5:
	case 6:
		want = 16
	default:
		return fmt.Errorf("%w: naa_id begins with %x: use 2, 3, 5 (8 bytes) or 6 (16 bytes)", ErrInvalid, b[0]>>4)
	}
	if len(b) != want {
		return fmt.Errorf("%w: naa_id of type %x has %d bytes: use %d", ErrInvalid, b[0]>>4, len(b), want)
	}
	return nil
}

// checkEUI64 follows SPC-4 §7.8.6.5.
func checkEUI64(b []byte) error {
	switch len(b) {
	case 0, 8, 12, 16:
		return nil
	}
	return fmt.Errorf("%w: eui64_id has %d bytes: use 8, 12 or 16", ErrInvalid, len(b))
}

// GenerateNAA returns the NAA IEEE Registered Extended designator (SPC-4
// §7.8.6.6.5) of a unit: 16 bytes of which the first 8 alone, which is all that
// some initiators compare, carry the prefix and a 36-bit hash of the id. taken
// tells whether another unit already has these first 8 bytes; the next hash is
// tried then. The same id and the same answers give the same designator.
func GenerateNAA(prefix [3]byte, id ID, taken func(first8 []byte) bool) []byte {
	for try := uint32(0); ; try++ {
		sum := hashID("naa", id, try)
		b := make([]byte, 16)
		b[0] = 6<<4 | prefix[0]>>4
		b[1] = prefix[0]<<4 | prefix[1]>>4
		b[2] = prefix[1]<<4 | prefix[2]>>4
		b[3] = prefix[2]<<4 | sum[0]&0x0F
		copy(b[4:], sum[1:13])
		if taken == nil || !taken(b[:8]) {
			return b
		}
	}
}

// GenerateEUI64 returns the 16-byte EUI-64 based designator (SPC-4 §7.8.6.5.4)
// of a unit, which has the layout of an NVMe NGUID: an 8-byte extension, the
// prefix, and 5 bytes, the extension and the last bytes being a hash of the id.
func GenerateEUI64(prefix [3]byte, id ID) []byte {
	sum := hashID("eui64", id, 0)
	b := make([]byte, 16)
	copy(b, sum[:8])
	copy(b[8:], prefix[:])
	copy(b[11:], sum[8:13])
	return b
}

// GenerateSerial returns the unit serial number of a unit: 16 hexadecimal
// digits that are a hash of the id.
func GenerateSerial(id ID) string {
	sum := hashID("usn", id, 0)
	return hex.EncodeToString(sum[:8])
}

func hashID(kind string, id ID, try uint32) [sha256.Size]byte {
	text := append([]byte(kind), 0)
	text = append(text, id...)
	text = append(text, 0)
	return sha256.Sum256(binary.BigEndian.AppendUint32(text, try))
}
