package scsi

import (
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The page and subpage codes that stand for several (SPC-4 §6.11.1).
const (
	allPages    byte = 0x3F
	allSubpages byte = 0xFF
)

// Bits of mode pages that initiators can change.
const (
	cachingWCE    = 0x04 // caching page, byte 2
	controlDSense = 0x04 // control page, byte 2
	controlSWP    = 0x08 // control page, byte 4
	controlTAS    = 0x40 // control page, byte 5
)

// modePage describes one mode page. render returns the page with values; the
// bits of mask are changeable, and read takes them over from a page.
type modePage struct {
	code, subpage byte
	render        func(*LogicalUnit, modeValues) []byte
	mask          []byte // as long as the page, nil for nothing changeable
	read          func(page []byte, v *modeValues)
	exists        func(*LogicalUnit) bool // nil for on every unit
}

// on reports whether the page exists on a unit.
func (p *modePage) on(lu *LogicalUnit) bool { return p.exists == nil || p.exists(lu) }

// modePages are in order of page and subpage codes.
var modePages = []modePage{
	{code: 0x01, render: errorRecoveryPage},
	{code: 0x03, render: formatPage},
	{code: 0x04, render: geometryPage},
	{
		code: 0x08, render: cachingPage,
		mask: []byte{19: 0, 2: cachingWCE},
		read: func(page []byte, v *modeValues) { v.WriteThrough = page[2]&cachingWCE == 0 },
	},
	{
		code: 0x0A, render: controlPage,
		mask: []byte{11: 0, 2: controlDSense, 4: controlSWP, 5: controlTAS},
		read: func(page []byte, v *modeValues) {
			v.DescriptorSense = page[2]&controlDSense != 0
			v.WriteProtect = page[4]&controlSWP != 0
			v.TaskAborted = page[5]&controlTAS != 0
		},
	},
	{code: 0x0A, subpage: 0x01, render: controlExtensionPage},
	{code: 0x1C, render: exceptionsPage},
	{code: 0x1C, subpage: 0x02, render: provisioningModePage, exists: isThin},
}

// modePage returns the unit's page with the codes, nil for none.
func (lu *LogicalUnit) modePage(code, subpage byte) *modePage {
	for i := range modePages {
		if p := &modePages[i]; p.code == code && p.subpage == subpage && p.on(lu) {
			return p
		}
	}
	return nil
}

// newPage returns a page of a length in bytes with its header (SPC-4 §7.5.6). PS
// says that it can be saved; every page can, most have nothing to change.
func newPage(code, subpage byte, length int) []byte {
	b := make([]byte, length)
	b[0] = 0x80 | code
	if subpage == 0 {
		b[1] = byte(length - 2)
		return b
	}
	b[0] |= 0x40
	b[1] = subpage
	wire.PutUint16(b[2:], uint16(length-4))
	return b
}

// errorRecoveryPage is the Read-Write Error Recovery page (SBC-3 §6.5.10): errors are
// reported at once, and recovered, if at all, by the disks below.
func errorRecoveryPage(lu *LogicalUnit, _ modeValues) []byte {
	b := newPage(0x01, 0, 12)
	if isThin(lu) && lu.thresholdAt() > 0 {
		b[7] = 0x80 // LBPERE
	}
	return b
}

// The geometry that old hosts ask for; the unit has none.
const (
	geometryHeads   = 255
	geometrySectors = 63
)

// formatPage is the Format Device page of SBC (obsolete, read by old hosts).
func formatPage(lu *LogicalUnit, _ modeValues) []byte {
	b := newPage(0x03, 0, 24)
	wire.PutUint16(b[10:], geometrySectors)
	wire.PutUint16(b[12:], uint16(lu.unit.BlockSize()))
	wire.PutUint16(b[14:], 1) // interleave
	b[20] = 0x40              // HSEC
	return b
}

// geometryPage is the Rigid Disk Geometry page of SBC (obsolete, read by old hosts).
func geometryPage(lu *LogicalUnit, _ modeValues) []byte {
	b := newPage(0x04, 0, 24)
	cylinders := max(lu.unit.Blocks()/(geometryHeads*geometrySectors), 1)
	wire.PutUint24(b[2:], uint32(min(cylinders, 0xFFFFFF)))
	b[5] = geometryHeads
	wire.PutUint16(b[20:], rotationRate(lu))
	return b
}

// cachingPage is the Caching page (SBC-3 §6.5.6).
func cachingPage(_ *LogicalUnit, v modeValues) []byte {
	b := newPage(0x08, 0, 20)
	if !v.WriteThrough {
		b[2] |= cachingWCE
	}
	return b
}

// controlPage is the Control page (SPC-4 §7.5.8): one task set for all nexuses,
// no order among SIMPLE tasks, and no effect of one command's failure on others.
func controlPage(_ *LogicalUnit, v modeValues) []byte {
	b := newPage(0x0A, 0, 12)
	b[2] = 0x02 // GLTSD: log parameters are not saved
	if v.DescriptorSense {
		b[2] |= controlDSense
	}
	b[3] = 0x10 // QUEUE ALGORITHM MODIFIER 1h: unrestricted reordering
	if v.WriteProtect {
		b[4] |= controlSWP
	}
	if v.TaskAborted {
		b[5] |= controlTAS
	}
	wire.PutUint16(b[8:], 0xFFFF) // BUSY TIMEOUT PERIOD: unlimited
	return b
}

// controlExtensionPage is the Control Extension page (SPC-4 §7.5.9).
func controlExtensionPage(*LogicalUnit, modeValues) []byte {
	b := newPage(0x0A, 0x01, 32)
	b[4] = 0x01 // IALUAE: implicit asymmetric access state changes happen
	b[6] = MaxSense
	return b
}

// exceptionsPage is the Informational Exceptions Control page (SPC-4 §7.5.11):
// none is reported by sense data.
func exceptionsPage(*LogicalUnit, modeValues) []byte {
	b := newPage(0x1C, 0, 12)
	b[2] = 0x08 // DEXCPT
	return b
}
