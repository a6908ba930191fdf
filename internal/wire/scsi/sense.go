package scsi

import "fmt"

// Sense is a sense key with its additional sense code and what goes with them.
type Sense struct {
	Key         uint8
	Code        uint16 // ASC in the high byte, ASCQ in the low
	Information uint64 // INFORMATION field, valid where HasInfo
	HasInfo     bool
	Specific    [3]byte // sense key specific bytes, valid where Specific[0]&0x80 != 0 (SKSV)
	// CommandSpecific is the COMMAND-SPECIFIC INFORMATION field, valid where HasCommandSpecific.
	CommandSpecific    uint64
	HasCommandSpecific bool
}

func (s Sense) String() string {
	return fmt.Sprintf("%s, %s (%X/%02X/%02X)", KeyName(s.Key), CodeName(s.Code), s.Key, s.Code>>8, s.Code&0xFF)
}

// The response codes of sense data (SPC-4 §4.5.1).
const (
	senseFixed      = 0x70
	senseDescriptor = 0x72
)

// FixedSenseLength is the length of fixed format sense data without vendor
// specific bytes.
const FixedSenseLength = 18

// PutFixed writes s as fixed format sense data (SPC-4 §4.5.3) into b, at least
// FixedSenseLength bytes, and returns the length. INFORMATION is valid only where
// it fits into 32 bits.
func (s *Sense) PutFixed(b []byte) int {
	b = b[:FixedSenseLength]
	clear(b)
	b[0] = senseFixed
	b[2] = s.Key & 0x0F
	if s.HasInfo && s.Information>>32 == 0 {
		b[0] |= 0x80
		PutUint32(b[3:], uint32(s.Information))
	}
	b[7] = FixedSenseLength - 8
	if s.HasCommandSpecific && s.CommandSpecific>>32 == 0 {
		PutUint32(b[8:], uint32(s.CommandSpecific))
	}
	PutUint16(b[12:], s.Code)
	if s.Specific[0]&0x80 != 0 {
		copy(b[15:], s.Specific[:])
	}
	return FixedSenseLength
}

// PutDescriptor writes s as descriptor format sense data (SPC-4 §4.5.2) into b,
// at least 40 bytes, and returns the length.
func (s *Sense) PutDescriptor(b []byte) int {
	clear(b[:8])
	b[0] = senseDescriptor
	b[1] = s.Key & 0x0F
	PutUint16(b[2:], s.Code)
	n := 8
	if s.HasInfo {
		d := b[n : n+12]
		d[0], d[1], d[2], d[3] = 0x00, 0x0A, 0x80, 0
		PutUint64(d[4:], s.Information)
		n += 12
	}
	if s.HasCommandSpecific {
		d := b[n : n+12]
		d[0], d[1], d[2], d[3] = 0x01, 0x0A, 0, 0
		PutUint64(d[4:], s.CommandSpecific)
		n += 12
	}
	if s.Specific[0]&0x80 != 0 {
		d := b[n : n+8]
		clear(d)
		d[0], d[1] = 0x02, 0x06
		copy(d[4:], s.Specific[:])
		n += 8
	}
	b[7] = byte(n - 8)
	return n
}

// ParseSense reads sense data of either format. It fails where the data is
// shorter than its sense key and code, or the response code is unknown;
// descriptors that do not fit are ignored.
func ParseSense(b []byte) (Sense, error) {
	var s Sense
	if len(b) < 4 {
		return s, fmt.Errorf("sense data of %d bytes is too short", len(b))
	}
	switch b[0] & 0x7E {
	case senseFixed:
		s.Key = b[2] & 0x0F
		if len(b) < 8 {
			return s, nil
		}
		if b[0]&0x80 != 0 {
			s.Information, s.HasInfo = uint64(Uint32(b[3:])), true
		}
		b = b[:min(len(b), 8+int(b[7]))]
		if len(b) >= 12 {
			if v := Uint32(b[8:]); v != 0 {
				s.CommandSpecific, s.HasCommandSpecific = uint64(v), true
			}
		}
		if len(b) >= 14 {
			s.Code = Uint16(b[12:])
		}
		if len(b) >= 18 && b[15]&0x80 != 0 {
			copy(s.Specific[:], b[15:18])
		}
		return s, nil
	case senseDescriptor:
		s.Key = b[1] & 0x0F
		s.Code = Uint16(b[2:])
		if len(b) < 8 {
			return s, nil
		}
		for d := b[8:min(len(b), 8+int(b[7]))]; len(d) >= 2; {
			n := 2 + int(d[1])
			if n > len(d) {
				break
			}
			s.descriptor(d[:n])
			d = d[n:]
		}
		return s, nil
	}
	return s, fmt.Errorf("sense data has response code %02Xh", b[0]&0x7F)
}

func (s *Sense) descriptor(d []byte) {
	switch {
	case d[0] == 0x00 && len(d) >= 12 && d[2]&0x80 != 0:
		s.Information, s.HasInfo = Uint64(d[4:]), true
	case d[0] == 0x01 && len(d) >= 12:
		s.CommandSpecific, s.HasCommandSpecific = Uint64(d[4:]), true
	case d[0] == 0x02 && len(d) >= 8 && d[4]&0x80 != 0:
		copy(s.Specific[:], d[4:7])
	}
}

// FieldPointer returns the sense key specific bytes that point to a field (SPC-4
// §4.5.2.4.2): of the CDB, or of the parameter data where inData. bit is 0 to 7, or -1
// for the whole byte.
func FieldPointer(inData bool, byteOffset, bit int) [3]byte {
	p := [3]byte{0x80, byte(byteOffset >> 8), byte(byteOffset)}
	if !inData {
		p[0] |= 0x40
	}
	if bit >= 0 {
		p[0] |= 0x08 | byte(bit)&0x07
	}
	return p
}

// Progress returns the sense key specific bytes of a progress indication (SPC-4
// §4.5.2.4.4), done in 65536ths.
func Progress(done uint16) [3]byte { return [3]byte{0x80, byte(done >> 8), byte(done)} }
