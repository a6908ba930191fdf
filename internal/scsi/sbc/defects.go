package sbc

import (
	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// Bits of the DEFECT LIST FORMAT byte. The lists are empty in every format.
const (
	bitsDefectLists  = 0x18 // REQ_PLIST, REQ_GLIST; PLISTV, GLISTV in the answer
	bitsDefectFormat = 0x07
	formatReserved   = 0x07
)

// runReadDefectData10 is READ DEFECT DATA(10) (SBC-3 §5.14).
func runReadDefectData10(t *scsi.Task) {
	const flags = 2
	if !checkDefectFormat(t, flags) {
		return
	}
	t.Reply([]byte{1: t.CDB[flags] & (bitsDefectLists | bitsDefectFormat), 3: 0}, int(wire.Uint16(t.CDB[7:])))
}

// runReadDefectData12 is READ DEFECT DATA(12) (SBC-3 §5.15).
func runReadDefectData12(t *scsi.Task) {
	const flags = 1
	if !checkDefectFormat(t, flags) {
		return
	}
	t.Reply([]byte{1: t.CDB[flags] & (bitsDefectLists | bitsDefectFormat), 7: 0}, int(min(wire.Uint32(t.CDB[6:]), 8)))
}

func checkDefectFormat(t *scsi.Task, at int) bool {
	if t.CDB[at]&bitsDefectFormat == formatReserved {
		t.FailField(false, at, 2)
		return false
	}
	return true
}
