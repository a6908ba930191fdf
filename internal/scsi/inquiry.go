package scsi

import (
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The peripheral byte of INQUIRY data (SPC-4 §6.6.2): a block device that is
// there, one that is not connected now, and a LUN that the target does not have.
const (
	peripheralBlock  = 0x00
	peripheralAwaits = 0x20
	peripheralNoUnit = 0x7F
)

// peripheral returns the peripheral byte of the LUN in a command.
func (t *Task) peripheral() byte {
	switch {
	case t.LU != nil:
		return peripheralBlock
	case t.Nexus.awaits(t.LUN):
		return peripheralAwaits
	}
	return peripheralNoUnit
}

// versionDescriptors name the standards that the device server follows (SPC-4
// §6.6.2 table 182).
var versionDescriptors = [...]uint16{
	0x00A0, // SAM-5
	0x0460, // SPC-4
	0x04C0, // SBC-3
	0x0960, // iSCSI
}

// inquiry runs INQUIRY (SPC-4 §6.6).
func inquiry(t *Task) {
	allocation := int(wire.Uint16(t.CDB[3:]))
	page := t.CDB[2]
	if t.CDB[1]&1 != 0 {
		b := vitalPage(t, page)
		if b == nil {
			t.FailField(false, 2, -1)
			return
		}
		t.Reply(b, allocation)
		return
	}
	if page != 0 {
		t.FailField(false, 2, -1)
		return
	}
	t.Reply(standardInquiry(t), allocation)
}

// standardInquiry returns the standard INQUIRY data (SPC-4 §6.6.2).
func standardInquiry(t *Task) []byte {
	b := make([]byte, 96)
	b[2] = 0x06 // SPC-4
	b[3] = 0x12 // HISUP, response data format 2
	b[4] = byte(len(b) - 5)
	b[6] = 0x10 // MULTIP
	b[7] = 0x02 // CMDQUE
	b[0] = t.peripheral()
	lu := t.LU
	if lu == nil {
		putText(b[8:16], "LINTEL")
		putText(b[16:32], "VIRTUAL-DISK")
		putText(b[32:36], "")
	} else {
		b[5] = 0x30 // TPGS: implicit and explicit
		if _, ok := t.Nexus.target.cfg.Pages[pageThirdPartyCopy]; ok {
			b[5] |= 0x08 // 3PC
		}
		a := lu.unit.Attributes()
		putText(b[8:16], a.Vendor)
		putText(b[16:32], a.Product)
		putText(b[32:36], a.Revision)
	}
	for i, d := range versionDescriptors {
		wire.PutUint16(b[58+2*i:], d)
	}
	return b
}

// putText writes left-aligned ASCII, padded with spaces (SPC-4 §4.3.1).
func putText(b []byte, s string) {
	for i := copy(b, s); i < len(b); i++ {
		b[i] = ' '
	}
}
