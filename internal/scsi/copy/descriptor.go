package copy

import (
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The descriptor type codes that are implemented (SPC-4 §6.4.5, §6.4.6).
const (
	descriptorBlockToBlock = 0x02 // block device to block device
	descriptorBlockOffset  = 0x0A // with byte offsets
	descriptorIdentifier   = 0xE4 // identification descriptor CSCD
)

var descriptorCodes = []byte{descriptorBlockToBlock, descriptorBlockOffset, descriptorIdentifier}

// Lengths of the parameter list's parts, in bytes.
const (
	listHeader        = 16
	targetLength      = 32
	blockToBlockBytes = 28
	blockOffsetBytes  = 32
)

// ownUnit is the CSCD descriptor id of the unit that received the command.
const ownUnit = 0xFFFF

// The values of LIST ID USAGE (SPC-4 §6.4.3.2).
const (
	usageHold    = 0 // keep the results
	usageDiscard = 2 // keep no held data
	usageNone    = 3 // no list identifier
)

// target is an identification descriptor (SPC-4 §6.4.5.3).
type target struct {
	deviceType  byte
	designator  wire.Designator
	blockLength uint32 // zero where it is not told
}

// segment is a block device to block device copy (SPC-4 §6.4.6.5, §6.4.6.8).
type segment struct {
	src, dst         uint16 // CSCD descriptor ids
	srcLBA, dstLBA   uint64
	count            uint64 // blocks where !inBytes
	ofDestination    bool   // DC: count is in blocks of the destination
	inBytes          bool   // count is in bytes, from the offsets on
	srcByte, dstByte uint16
}

// copyList is the parameter list of EXTENDED COPY(LID1).
type copyList struct {
	id       byte
	usage    byte
	targets  []target
	segments []segment
}

// parseCopyList reads the parameter list of EXTENDED COPY(LID1) (SPC-4 §6.4.3).
func parseCopyList(b []byte) (copyList, error) {
	var c copyList
	if len(b) < listHeader {
		return c, illegal(wire.ParameterListLengthError)
	}
	c.id, c.usage = b[0], b[1]>>3&3
	targets, segments, inline := int(wire.Uint16(b[2:])), uint64(wire.Uint32(b[8:])), uint64(wire.Uint32(b[12:]))
	rest := b[listHeader:]
	if uint64(targets)+segments+inline > uint64(len(rest)) || uint64(targets)+segments > maxDescriptorBytes {
		return c, illegal(wire.ParameterListLengthError)
	}
	switch {
	case c.usage == 1, c.usage == usageNone && c.id != 0:
		return c, badField(1, 4)
	case inline != 0:
		return c, illegal(wire.InlineDataLengthExceeded)
	case targets%targetLength != 0:
		return c, badField(2, -1)
	case targets/targetLength > maxTargets:
		return c, illegal(wire.TooManyTargetDescriptors)
	}
	for at := 0; at < targets; at += targetLength {
		if err := c.addTarget(rest[at : at+targetLength]); err != nil {
			return c, err
		}
	}
	for at := targets; at < targets+int(segments); {
		if len(c.segments) == maxSegments {
			return c, illegal(wire.TooManySegmentDescriptors)
		}
		n, err := c.addSegment(rest[at:targets+int(segments)], listHeader+at)
		if err != nil {
			return c, err
		}
		at += n
	}
	return c, nil
}

func (c *copyList) addTarget(d []byte) error {
	if d[0] != descriptorIdentifier {
		return illegal(wire.UnsupportedTargetDescriptor)
	}
	n := min(int(d[7]), 20)
	c.targets = append(c.targets, target{
		deviceType:  d[1] & 0x1F,
		designator:  wire.Designator{CodeSet: d[4] & 0x0F, Type: d[5] & 0x0F, Association: d[5] >> 4 & 3, ID: d[8 : 8+n]},
		blockLength: wire.Uint24(d[29:]),
	})
	return nil
}

// addSegment reads the segment descriptor at the start of d, which is at byte at
// of the parameter list, and returns its length.
func (c *copyList) addSegment(d []byte, at int) (int, error) {
	var n int
	switch d[0] {
	case descriptorBlockToBlock:
		n = blockToBlockBytes
	case descriptorBlockOffset:
		n = blockOffsetBytes
	default:
		return 0, illegal(wire.UnsupportedSegmentDescriptor)
	}
	if len(d) < n {
		return 0, illegal(wire.ParameterListLengthError)
	}
	if int(wire.Uint16(d[2:])) != n-4 {
		return 0, badField(at+2, -1)
	}
	s := segment{
		src:    wire.Uint16(d[4:]),
		dst:    wire.Uint16(d[6:]),
		srcLBA: wire.Uint64(d[12:]),
		dstLBA: wire.Uint64(d[20:]),
	}
	if d[0] == descriptorBlockToBlock {
		s.ofDestination = d[1]&2 != 0
		s.count = uint64(wire.Uint16(d[10:]))
	} else {
		s.inBytes = true
		s.count = uint64(wire.Uint32(d[8:]))
		s.srcByte, s.dstByte = wire.Uint16(d[28:]), wire.Uint16(d[30:])
		if s.count > maxSegmentBytes {
			return 0, badField(at+8, -1)
		}
	}
	c.segments = append(c.segments, s)
	return n, nil
}

// names reports whether the descriptor designates a unit: by its NAA, EUI-64 or
// T10 designator, as VPD page 83h shows it.
func (t *target) names(a *unit.Attributes) bool {
	if t.designator.Association != wire.AssociationUnit {
		return false
	}
	id := string(t.designator.ID)
	switch t.designator.Type {
	case wire.DesignatorNAA:
		return id == string(a.NAA)
	case wire.DesignatorEUI64:
		return len(a.EUI64) != 0 && id == string(a.EUI64)
	case wire.DesignatorT10:
		vendor := a.Vendor + "        "[min(len(a.Vendor), 8):]
		return a.T10ID != "" && id == vendor+a.T10ID
	}
	return false
}

// resolve finds the unit of a target descriptor among those that the nexus sees.
func (t *target) resolve(n *scsi.Nexus) (endpoint, error) {
	var e endpoint
	n.Visible(func(lun uint16, m scsi.Mapping) bool {
		if t.names(m.LU.Unit().Attributes()) {
			e = endpoint{lu: m.LU, lun: wire.EncodeLUN(lun)}
		}
		return e.lu == nil
	})
	switch {
	case e.lu == nil:
		return e, aborted(wire.CopyTargetNotReachable)
	case t.deviceType != 0, t.blockLength != 0 && t.blockLength != e.unit().BlockSize():
		return e, aborted(wire.IncorrectCopyTargetType)
	}
	return e, nil
}
