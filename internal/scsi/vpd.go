package scsi

import (
	"slices"

	wire "lintel.io/lintel/internal/wire/scsi"
)

// The vital product data pages (SPC-4 §7.8, SBC-3 §6.6).
const (
	pageSupported          byte = 0x00
	pageSerial             byte = 0x80
	pageIdentification     byte = 0x83
	pageExtendedInquiry    byte = 0x86
	pageThirdPartyCopy     byte = 0x8F
	pageBlockLimits        byte = 0xB0
	pageCharacteristics    byte = 0xB1
	pageLogicalProvisoning byte = 0xB2
)

// thresholdBytes is the unit in which logical block provisioning counts
// resources, in bytes.
const thresholdBytes = 1 << 20

// vitalPages gives what follows the header of each page that every unit has.
var vitalPages = map[byte]func(*Task) []byte{
	pageSerial:             func(t *Task) []byte { return []byte(t.LU.unit.Attributes().Serial) },
	pageIdentification:     identificationPage,
	pageExtendedInquiry:    extendedInquiryPage,
	pageBlockLimits:        blockLimitsPage,
	pageCharacteristics:    characteristicsPage,
	pageLogicalProvisoning: provisioningPage,
}

// vitalPage returns a page with its header, nil where it does not exist.
func vitalPage(t *Task, page byte) []byte {
	var body []byte
	switch {
	case page == pageSupported:
		body = supportedPages(t)
	case t.LU == nil:
		return nil
	case vitalPages[page] != nil:
		body = vitalPages[page](t)
	default:
		body = t.Nexus.target.extraPage(t.LU, page)
	}
	if body == nil {
		return nil
	}
	b := make([]byte, 4, 4+len(body))
	b[0], b[1] = t.peripheral(), page
	wire.PutUint16(b[2:], uint16(len(body)))
	return append(b, body...)
}

// extraPage returns the body of a page that a command family gives.
func (t *Target) extraPage(lu *LogicalUnit, page byte) []byte {
	if f := t.cfg.Pages[page]; f != nil {
		return f(lu)
	}
	return nil
}

// supportedPages is the Supported VPD Pages page (SPC-4 §7.8.13).
func supportedPages(t *Task) []byte {
	list := []byte{pageSupported}
	if t.LU == nil {
		return list
	}
	for page := range vitalPages {
		list = append(list, page)
	}
	for page := range t.Nexus.target.cfg.Pages {
		if vitalPages[page] == nil && t.Nexus.target.extraPage(t.LU, page) != nil {
			list = append(list, page)
		}
	}
	slices.Sort(list)
	return list
}

// identificationPage is the Device Identification page (SPC-4 §7.8.5): the
// unit's designators, NAA first, then the port's and the device's.
func identificationPage(t *Task) []byte {
	var b []byte
	for _, d := range t.LU.Designators() {
		b = d.Append(b)
	}
	if p, ok := t.Nexus.target.Port(t.Nexus.cfg.Initiator.Port); ok {
		for _, d := range portDesignators(p) {
			b = d.Append(b)
		}
	}
	device := wire.Designator{
		Type: wire.DesignatorNameString, CodeSet: wire.CodeUTF8, Association: wire.AssociationDevice,
		Protocol: int8(wire.ProtocolISCSI), ID: wire.NameString(t.Nexus.target.Name()),
	}
	return device.Append(b)
}

// Designators returns the designation descriptors that identify the unit, best
// first, as the Device Identification page has them.
func (lu *LogicalUnit) Designators() []wire.Designator {
	a := lu.unit.Attributes()
	list := []wire.Designator{{Type: wire.DesignatorNAA, CodeSet: wire.CodeBinary, Protocol: -1, ID: a.NAA}}
	if len(a.EUI64) > 0 {
		list = append(list, wire.Designator{Type: wire.DesignatorEUI64, CodeSet: wire.CodeBinary, Protocol: -1, ID: a.EUI64})
	}
	t10 := make([]byte, 8, 8+len(a.T10ID))
	putText(t10, a.Vendor)
	return append(list, wire.Designator{Type: wire.DesignatorT10, CodeSet: wire.CodeASCII, Protocol: -1, ID: append(t10, a.T10ID...)})
}

func portDesignators(p PortConfig) []wire.Designator {
	number := func(kind uint8, v uint16) wire.Designator {
		return wire.Designator{
			Type: kind, CodeSet: wire.CodeBinary, Association: wire.AssociationPort,
			Protocol: int8(p.Protocol), ID: []byte{0, 0, byte(v >> 8), byte(v)},
		}
	}
	return []wire.Designator{
		number(wire.DesignatorRelativePort, p.Relative),
		number(wire.DesignatorPortGroup, p.Group),
		{
			Type: wire.DesignatorNameString, CodeSet: wire.CodeUTF8, Association: wire.AssociationPort,
			Protocol: int8(p.Protocol), ID: wire.NameString(p.Name),
		},
	}
}

// extendedInquiryPage is the Extended INQUIRY Data page (SPC-4 §7.8.7).
func extendedInquiryPage(t *Task) []byte {
	b := make([]byte, 60)
	b[1] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	if t.LU.unit.Device().Info().Volatile {
		b[2] = 0x01 // V_SUP
	}
	b[3] = 0x01 // LUICLR
	b[9] = MaxSense
	return b
}

// blockLimitsPage is the Block Limits page (SBC-4 §6.6.4).
func blockLimitsPage(t *Task) []byte {
	u := t.LU.unit
	a, shift := u.Attributes(), u.BlockShift()
	info := u.Device().Info()
	b := make([]byte, 60)
	b[0] = 1 // WSNZ: WRITE SAME of no blocks is refused
	b[1] = MaxCompareBlocks
	wire.PutUint16(b[2:], 1<<a.PhysicalExponent)
	wire.PutUint32(b[4:], MaxTransferBytes>>shift)
	wire.PutUint32(b[8:], OptimalTransferBytes>>shift)
	if a.Thin {
		wire.PutUint32(b[16:], MaxUnmapBlocks)
		wire.PutUint32(b[20:], MaxUnmapDescriptors)
		wire.PutUint32(b[24:], uint32(max(info.DiscardGranularity>>shift, 1)))
		b[28] = 0x80 // UGAVALID: aligned from LBA 0
	}
	wire.PutUint64(b[32:], MaxWriteSameBlocks)
	atomic, granularity := AtomicLimits(u)
	wire.PutUint32(b[40:], atomic)
	wire.PutUint32(b[44:], granularity) // ATOMIC ALIGNMENT
	wire.PutUint32(b[48:], granularity) // and no atomic boundaries
	return b
}

// characteristicsPage is the Block Device Characteristics page (SBC-3 §6.6.3).
func characteristicsPage(t *Task) []byte {
	b := make([]byte, 60)
	wire.PutUint16(b, rotationRate(t.LU))
	if t.LU.unit.Attributes().Thin {
		b[3] = 1 << 6 // WABEREQ: blocks can be read after a block erase
	}
	return b
}

// rotationRate returns the MEDIUM ROTATION RATE: 1 for a medium that does not rotate.
func rotationRate(lu *LogicalUnit) uint16 {
	if lu.unit.Attributes().Rotational {
		return 7200
	}
	return 1
}

// provisioningPage is the Logical Block Provisioning page (SBC-3 §6.6.5).
func provisioningPage(t *Task) []byte {
	b := make([]byte, 4)
	if t.LU.unit.Attributes().Thin {
		b[0] = t.LU.thresholdExponent()
		b[1] = 0xE4 // LBPU, LBPWS, LBPWS10, LBPRZ
		b[2] = 0x02 // thin provisioned
	}
	return b
}

// thresholdExponent returns the THRESHOLD EXPONENT: how many blocks a threshold
// set has, as a power of two.
func (lu *LogicalUnit) thresholdExponent() byte {
	exponent := byte(0)
	for 1<<(exponent+lu.unit.BlockShift()) < thresholdBytes {
		exponent++
	}
	return exponent
}
