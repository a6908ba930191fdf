package sbc

import (
	"math"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// runReadCapacity10 is READ CAPACITY(10) (SBC-3 §5.12).
func runReadCapacity10(t *scsi.Task) {
	u := t.LU.Unit()
	var b [8]byte
	wire.PutUint32(b[0:], uint32(min(u.Blocks()-1, math.MaxUint32)))
	wire.PutUint32(b[4:], u.BlockSize())
	t.Reply(b[:], len(b))
}

// runReadCapacity16 is READ CAPACITY(16) (SBC-3 §5.13). P_TYPE, PROT_EN, RC BASIS
// (of zoned units) and the lowest aligned LBA are zero.
func runReadCapacity16(t *scsi.Task) {
	u := t.LU.Unit()
	a := u.Attributes()
	var b [32]byte
	wire.PutUint64(b[0:], u.Blocks()-1)
	wire.PutUint32(b[8:], u.BlockSize())
	b[13] = a.PhysicalExponent & 0x0F
	if a.Thin {
		b[14] = 0xC0 // LBPME, LBPRZ
	}
	t.Reply(b[:], int(min(wire.Uint32(t.CDB[10:]), uint32(len(b)))))
}
