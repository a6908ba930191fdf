package scsi

import (
	wire "lintel.io/lintel/internal/wire/scsi"
)

// reportLUNs runs REPORT LUNS (SPC-4 §6.33). There are no well known logical
// units, so that SELECT REPORT 01h reports none.
func reportLUNs(t *Task) {
	allocation := wire.Uint32(t.CDB[6:])
	if allocation < 16 {
		t.FailField(false, 6, -1)
		return
	}
	var luns []uint16
	switch t.CDB[2] {
	case 0, 2:
		luns = t.Nexus.inventory()
	case 1:
	default:
		t.FailField(false, 2, -1)
		return
	}
	b := make([]byte, 8+8*len(luns))
	wire.PutUint32(b, uint32(8*len(luns)))
	for i, lun := range luns {
		wire.PutUint64(b[8+8*i:], wire.EncodeLUN(lun))
	}
	for _, p := range t.Nexus.paths() {
		p.dropAttention(wire.ReportedLUNsChanged)
	}
	t.Reply(b, int(min(allocation, MaxTransferBytes)))
}
