package sbc

import (
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// invalidCommandUnit is INVALID FIELD IN COMMAND INFORMATION UNIT: the initiator
// sends another amount of data than its CDB says.
const invalidCommandUnit uint16 = 0x0E03

// decode returns the first block and the number of blocks that a CDB of the
// common layout asks for, and the byte where the number starts (SPC-4 §4.2.5).
func decode(cdb []byte) (lba uint64, count uint32, field int) {
	switch cdb[0] >> 5 {
	case 0:
		count = uint32(cdb[4])
		if count == 0 {
			count = 256 // SBC-3 §5.7
		}
		return uint64(wire.Uint24(cdb[1:]) & 0x1FFFFF), count, 4
	case 4:
		return wire.Uint64(cdb[2:]), wire.Uint32(cdb[10:]), 10
	case 5:
		return uint64(wire.Uint32(cdb[2:])), wire.Uint32(cdb[6:]), 6
	}
	return uint64(wire.Uint32(cdb[2:])), uint32(wire.Uint16(cdb[7:])), 7
}

// dataOut returns the number of bytes of count blocks, 0 where that is more than
// one command may transfer: Run refuses it then.
func dataOut(t *scsi.Task, count uint64) int {
	if n := count << t.LU.Unit().BlockShift(); n <= scsi.MaxTransferBytes {
		return int(n)
	}
	return 0
}

func transferOut(t *scsi.Task) int {
	_, count, _ := decode(t.CDB)
	return dataOut(t, uint64(count))
}

// inRange reports whether the unit has all of the blocks.
func inRange(u *unit.Unit, lba, count uint64) bool {
	blocks := u.Blocks()
	return lba <= blocks && count <= blocks-lba
}

// failRange ends a task whose blocks the unit does not have. INFORMATION is the
// first of them.
func failRange(t *scsi.Task, lba uint64) {
	t.Fail(scsi.Sense{Key: wire.KeyIllegalRequest, Code: wire.LBAOutOfRange, Information: max(lba, t.LU.Unit().Blocks()), HasInfo: true})
}

// failLength ends a task whose initiator sends another amount of Data-Out than
// its CDB says.
func failLength(t *scsi.Task) {
	t.Fail(scsi.Sense{Key: wire.KeyIllegalRequest, Code: invalidCommandUnit})
}

// failMiscompare ends a task that has found a difference; offset is the first
// byte of it, counted from the first byte compared (SBC-3 §5.2).
func failMiscompare(t *scsi.Task, offset int64) {
	t.Fail(scsi.Sense{Key: wire.KeyMiscompare, Code: wire.MiscompareDuringVerify, Information: uint64(offset), HasInfo: true})
}

// sent returns the part of the Data-Out that a command writes: as many of count
// blocks as the initiator has sent whole. The transport reports the rest as residual
// overflow, by which the initiator knows that it was not written.
func sent(t *scsi.Task, count uint64) []byte {
	shift := t.LU.Unit().BlockShift()
	whole := uint64(len(t.DataOut)) >> shift
	return t.DataOut[:min(count, whole)<<shift]
}

// sentExactly reports whether the initiator has announced and sent n bytes.
func sentExactly(t *scsi.Task, n uint64) bool {
	return uint64(len(t.DataOut)) == n && uint64(t.DataOutExpected) <= n
}

// stopped ends a task that task management has ended meanwhile. It holds nothing
// any more.
func stopped(t *scsi.Task) { t.Finish(scsi.StatusGood) }
