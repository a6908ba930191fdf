package copy

import (
	"time"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// blockRange is a block device range descriptor (SBC-3 §5.8.4).
type blockRange struct{ first, count uint64 }

func blocksOf(ranges []blockRange) (n uint64) {
	for _, r := range ranges {
		n += r.count
	}
	return n
}

// populateList is the parameter list of POPULATE TOKEN (SBC-3 §5.8.2).
type populateList struct {
	timeout time.Duration
	ranges  []blockRange
}

// writeTokenList is the parameter list of WRITE USING TOKEN (SBC-3 §5.49.2).
type writeTokenList struct {
	deleteToken bool
	offset      uint64 // into the token, in blocks
	token       []byte // 512 bytes of the parameter list
	ranges      []blockRange
}

// Offsets of fields in the parameter lists.
const (
	rangeBytes     = 16
	populateRanges = 16
	writeOffset    = 8
	writeToken     = 16
	writeRanges    = 536
)

// checkLength compares the PARAMETER LIST LENGTH and the data length field in the
// first bytes with what is there and needed.
func checkLength(b []byte, want uint32, least int) error {
	if uint32(len(b)) < want || len(b) < least {
		return illegal(wire.ParameterListLengthError)
	}
	if n := 2 + int(wire.Uint16(b)); n < least || n > len(b) {
		return badField(0, -1)
	}
	return nil
}

func parsePopulate(b []byte, want uint32) (populateList, error) {
	var p populateList
	if err := checkLength(b, want, populateRanges); err != nil {
		return p, err
	}
	const typeValid = 2
	if b[2]&typeValid != 0 {
		switch wire.Uint32(b[8:]) {
		case typePointInTime, typeChangeVulnerable, typeAnyPointInTime:
		default:
			return p, badField(8, -1)
		}
	}
	p.timeout = time.Duration(wire.Uint32(b[4:])) * time.Second
	if p.timeout == 0 {
		p.timeout = defaultTimeout
	}
	if p.timeout > maxTimeout {
		return p, badField(4, -1)
	}
	var err error
	p.ranges, err = parseRanges(b[:2+int(wire.Uint16(b))], populateRanges)
	return p, err
}

func parseWriteToken(b []byte, want uint32) (writeTokenList, error) {
	var w writeTokenList
	if err := checkLength(b, want, writeRanges); err != nil {
		return w, err
	}
	w.deleteToken = b[2]&2 != 0
	w.offset = wire.Uint64(b[writeOffset:])
	w.token = b[writeToken : writeToken+tokenLength]
	var err error
	w.ranges, err = parseRanges(b[:2+int(wire.Uint16(b))], writeRanges)
	return w, err
}

// parseRanges reads the block device range descriptors from offset at on; their
// length is in the two bytes before.
func parseRanges(b []byte, at int) ([]blockRange, error) {
	n := int(wire.Uint16(b[at-2:]))
	switch {
	case n == 0, n%rangeBytes != 0, n > len(b)-at:
		return nil, badField(at-2, -1)
	case n > maxRanges*rangeBytes:
		return nil, illegal(wire.TooManySegmentDescriptors)
	}
	ranges := make([]blockRange, n/rangeBytes)
	for i := range ranges {
		d := b[at+i*rangeBytes:]
		ranges[i] = blockRange{wire.Uint64(d), uint64(wire.Uint32(d[8:]))}
	}
	return ranges, nil
}

// checkRanges compares ranges with a unit and the size of the largest token.
func checkRanges(ranges []blockRange, u *unit.Unit) error {
	for _, r := range ranges {
		if blocks := u.Blocks(); r.first > blocks || r.count > blocks-r.first {
			s := senseOf(illegal(wire.LBAOutOfRange))
			s.Information, s.HasInfo = max(r.first, blocks), true
			return &senseError{s}
		}
	}
	if blocksOf(ranges) > maxTokenBytes>>u.BlockShift() {
		return illegal(wire.InvalidFieldInParameterList)
	}
	return nil
}

// overlap reports whether a block is in two ranges.
func overlap(ranges []blockRange) bool {
	for i, a := range ranges {
		for _, b := range ranges[:i] {
			if a.first < b.first+b.count && b.first < a.first+a.count {
				return true
			}
		}
	}
	return false
}
