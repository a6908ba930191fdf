package copy

import (
	"encoding/binary"
	"math/bits"
	"time"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// Page is the content of the Third-Party Copy VPD page (8Fh) of a unit, without
// its 4-byte header (SPC-4 §7.8.17, SBC-3 §6.6.6).
func Page(lu *scsi.LogicalUnit) []byte {
	shift := lu.Unit().BlockShift()
	var p page

	limits := make([]byte, 32)
	binary.BigEndian.PutUint16(limits[6:], maxRanges)
	binary.BigEndian.PutUint32(limits[8:], uint32(maxTimeout/time.Second))
	binary.BigEndian.PutUint32(limits[12:], uint32(defaultTimeout/time.Second))
	binary.BigEndian.PutUint64(limits[16:], maxTokenBytes>>shift)
	binary.BigEndian.PutUint64(limits[24:], maxSegmentBytes>>shift)
	p.add(0x0000, limits) // Block Device ROD Limits

	p.add(0x0001, listed8( // Supported Commands
		wire.OpThirdPartyCopyOut, 3, actionExtendedCopy, actionPopulateToken, actionWriteToken,
		wire.OpThirdPartyCopyIn, 5, actionCopyStatus, actionReceiveData, actionOperatingParameters, actionFailureDetails, actionTokenInformation,
	))

	parameters := make([]byte, 28)
	binary.BigEndian.PutUint16(parameters[4:], maxTargets)
	binary.BigEndian.PutUint16(parameters[6:], maxSegments)
	binary.BigEndian.PutUint32(parameters[8:], maxDescriptorBytes)
	p.add(0x0004, parameters) // Parameter Data

	p.add(0x0008, listed8(descriptorCodes...))      // Supported Descriptors
	p.add(0x000C, []byte{0, 2, ownUnit >> 8, 0xFF}) // Supported CSCD Descriptor IDs
	p.add(0x0106, tokenFeatures())                  // ROD Token Features
	p.add(0x0108, tokenTypes())                     // Supported ROD Types
	p.add(0x8001, generalOperations())              // General Copy Operations
	return p.b
}

type page struct{ b []byte }

// add appends a third-party copy descriptor, padded to a multiple of 4 bytes.
func (p *page) add(code uint16, content []byte) {
	for len(content)%4 != 0 {
		content = append(content, 0)
	}
	p.b = binary.BigEndian.AppendUint16(p.b, code)
	p.b = binary.BigEndian.AppendUint16(p.b, uint16(len(content)))
	p.b = append(p.b, content...)
}

// listed8 is a list with its length in the first byte.
func listed8(items ...byte) []byte { return append([]byte{byte(len(items))}, items...) }

func tokenFeatures() []byte {
	b := make([]byte, 44, 44+48)
	binary.BigEndian.PutUint32(b[20:], uint32(maxTimeout/time.Second)) // maximum token inactivity timeout, s
	binary.BigEndian.PutUint16(b[42:], 48)                             // device type specific features
	d := make([]byte, 48)                                              // block devices
	binary.BigEndian.PutUint16(d[2:], 44)                              // its length
	binary.BigEndian.PutUint16(d[6:], 1)                               // optimal ROD length granularity, blocks
	binary.BigEndian.PutUint64(d[8:], maxTokenBytes)                   // maximum bytes in a ROD
	for _, at := range []int{16, 24, 32} {
		binary.BigEndian.PutUint64(d[at:], maxSegmentBytes) // optimal bytes in a transfer, to a token, from a token
	}
	return append(b, d...)
}

func tokenTypes() []byte {
	const (
		entry             = 64
		tokenOut, tokenIn = 1, 2
	)
	list := []struct {
		code  uint32
		flags byte
	}{
		{typeChangeVulnerable, tokenIn | tokenOut},
		{typeBlockZero, tokenIn},
	}
	b := make([]byte, 4, 4+len(list)*entry)
	binary.BigEndian.PutUint16(b[2:], uint16(len(list)*entry))
	for i, t := range list {
		e := make([]byte, entry)
		binary.BigEndian.PutUint32(e, t.code)
		e[4] = t.flags
		binary.BigEndian.PutUint16(e[6:], uint16(len(list)-i)) // preference
		b = append(b, e...)
	}
	return b
}

func generalOperations() []byte {
	b := make([]byte, 32)
	binary.BigEndian.PutUint32(b, maxConcurrent)
	binary.BigEndian.PutUint32(b[4:], maxConcurrent)
	binary.BigEndian.PutUint32(b[8:], maxSegmentBytes)
	b[12] = granularity
	return b
}

// granularity is the base 2 logarithm of the length of the smallest segment.
var granularity = byte(bits.TrailingZeros(512))

// runOperatingParameters is RECEIVE COPY OPERATING PARAMETERS (SPC-4 §6.23).
func runOperatingParameters(t *scsi.Task) { reply(t, operatingParameters()) }

func operatingParameters() []byte {
	const supportsNoListID = 1
	b := make([]byte, 44, 44+len(descriptorCodes))
	b[4] = supportsNoListID
	binary.BigEndian.PutUint16(b[8:], maxTargets)
	binary.BigEndian.PutUint16(b[10:], maxSegments)
	binary.BigEndian.PutUint32(b[12:], maxDescriptorBytes)
	binary.BigEndian.PutUint32(b[16:], maxSegmentBytes)
	binary.BigEndian.PutUint16(b[34:], maxConcurrent) // TOTAL CONCURRENT COPIES
	b[36] = maxConcurrent                             // MAXIMUM CONCURRENT COPIES
	b[37] = granularity
	b[43] = byte(len(descriptorCodes))
	b = append(b, descriptorCodes...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}
