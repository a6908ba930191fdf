package scsi

import (
	wire "lintel.io/lintel/internal/wire/scsi"
)

// What a MODE SENSE page control asks for (SPC-4 table 149).
const (
	controlCurrent byte = iota
	controlChangeable
	controlDefault
	controlSaved
)

// Bits of the device-specific parameter of block devices (SBC-3 §6.5.1).
const (
	modeWP     = 0x80
	modeDPOFUA = 0x10
)

// modeSense6 runs MODE SENSE(6) (SPC-4 §6.11).
func modeSense6(t *Task) {
	body, descriptor, ok := t.modeData(false)
	if !ok {
		return
	}
	n := 4 + len(body)
	if n-1 > 0xFF {
		t.FailField(false, 2, -1)
		return
	}
	b := append([]byte{byte(n - 1), 0, t.deviceSpecific(), byte(descriptor)}, body...)
	t.Reply(b, int(t.CDB[4]))
}

// modeSense10 runs MODE SENSE(10) (SPC-4 §6.12).
func modeSense10(t *Task) {
	long := t.CDB[1]&0x10 != 0 // LLBAA
	body, descriptor, ok := t.modeData(long)
	if !ok {
		return
	}
	b := make([]byte, 8, 8+len(body))
	wire.PutUint16(b, uint16(6+len(body)))
	b[3] = t.deviceSpecific()
	if long && descriptor > 0 {
		b[4] = 0x01 // LONGLBA
	}
	wire.PutUint16(b[6:], uint16(descriptor))
	t.Reply(append(b, body...), int(wire.Uint16(t.CDB[7:])))
}

// deviceSpecific returns the device-specific parameter of the mode header.
func (t *Task) deviceSpecific() byte {
	b := byte(modeDPOFUA)
	if t.path.readOnly.Load() || t.LU.ReadOnly() || t.LU.SoftwareWriteProtected() {
		b |= modeWP
	}
	return b
}

// modeData returns the block descriptor and pages that the CDB asks for, and how
// many bytes of it the descriptor takes. Where it returns false the task has ended.
func (t *Task) modeData(long bool) (data []byte, descriptor int, ok bool) {
	control, code, subpage := t.CDB[2]>>6, t.CDB[2]&0x3F, t.CDB[3]
	if t.CDB[1]&0x08 == 0 { // DBD
		data = t.LU.blockDescriptor(long)
		descriptor = len(data)
	}
	if subpage != 0 && subpage != allSubpages && t.LU.modePage(code, subpage) == nil {
		t.FailField(false, 3, -1)
		return nil, 0, false
	}
	var v modeValues
	switch control {
	case controlCurrent:
		v = t.LU.modeCurrent()
	case controlDefault:
		v = t.LU.modeDefaults()
	case controlSaved:
		v = t.LU.modeSaved()
	}
	found := false
	for i := range modePages {
		p := &modePages[i]
		if !p.on(t.LU) || code != allPages && p.code != code || subpage != allSubpages && p.subpage != subpage {
			continue
		}
		found = true
		if control == controlChangeable {
			data = append(data, p.changeable(t.LU)...)
		} else {
			data = append(data, p.render(t.LU, v)...)
		}
	}
	if !found {
		t.FailField(false, 2, 5)
		return nil, 0, false
	}
	return data, descriptor, true
}

// changeable returns the page with a one for each bit that can be changed.
func (p *modePage) changeable(lu *LogicalUnit) []byte {
	b := p.render(lu, modeValues{})
	header := 2
	if p.subpage != 0 {
		header = 4
	}
	clear(b[header:])
	for i, m := range p.mask {
		b[i] |= m
	}
	return b
}

// blockDescriptor returns the mode parameter block descriptor, short or long
// (SBC-3 §6.5.2).
func (lu *LogicalUnit) blockDescriptor(long bool) []byte {
	blocks, size := lu.unit.Blocks(), lu.unit.BlockSize()
	if long {
		b := make([]byte, 16)
		wire.PutUint64(b, blocks)
		wire.PutUint32(b[12:], size)
		return b
	}
	b := make([]byte, 8)
	wire.PutUint32(b, uint32(min(blocks, 0xFFFFFFFF)))
	wire.PutUint24(b[5:], size)
	return b
}
