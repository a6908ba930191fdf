package scsi

import "fmt"

// The designator types of SPC-4 §7.8.6.
const (
	DesignatorT10          uint8 = 0x1
	DesignatorEUI64        uint8 = 0x2
	DesignatorNAA          uint8 = 0x3
	DesignatorRelativePort uint8 = 0x4
	DesignatorPortGroup    uint8 = 0x5
	DesignatorNameString   uint8 = 0x8
)

// What a designator is about (SPC-4 table 589).
const (
	AssociationUnit   uint8 = 0
	AssociationPort   uint8 = 1
	AssociationDevice uint8 = 2
)

// The code sets of a designator.
const (
	CodeBinary uint8 = 1
	CodeASCII  uint8 = 2
	CodeUTF8   uint8 = 3
)

// Designator is a designation descriptor (SPC-4 §7.8.6.1).
type Designator struct {
	Type        uint8
	CodeSet     uint8
	Association uint8
	// Protocol is the protocol identifier, -1 for none (PIV=0).
	Protocol int8
	ID       []byte // at most 252 bytes
}

// Append adds the descriptor to b.
func (d *Designator) Append(b []byte) []byte {
	first, second := d.CodeSet&0x0F, d.Association&3<<4|d.Type&0x0F
	if d.Protocol >= 0 {
		first |= byte(d.Protocol) << 4
		second |= 0x80
	}
	id := d.ID[:min(len(d.ID), 252)]
	return append(append(b, first, second, 0, byte(len(id))), id...)
}

// ParseDesignator reads the designation descriptor at the start of b and
// returns it with what follows. Its ID lies in b.
func ParseDesignator(b []byte) (d Designator, rest []byte, err error) {
	if len(b) < 4 {
		return d, nil, fmt.Errorf("designation descriptor of %d bytes is too short", len(b))
	}
	n := 4 + int(b[3])
	if n > len(b) {
		return d, nil, fmt.Errorf("designation descriptor of %d bytes is cut at %d", n, len(b))
	}
	d = Designator{Type: b[1] & 0x0F, CodeSet: b[0] & 0x0F, Association: b[1] >> 4 & 3, Protocol: -1, ID: b[4:n]}
	if b[1]&0x80 != 0 {
		d.Protocol = int8(b[0] >> 4)
	}
	return d, b[n:], nil
}

// NameString returns the content of a SCSI name string designator: name, ended by
// and padded with NULs to a multiple of 4 bytes (SPC-4 §7.8.6.11).
func NameString(name string) []byte { return padName(name, 252) }

func padName(name string, limit int) []byte {
	n := (len(name) + 4) &^ 3
	if n > limit {
		n, name = limit, name[:min(len(name), limit-1)]
	}
	b := make([]byte, n)
	copy(b, name)
	return b
}
