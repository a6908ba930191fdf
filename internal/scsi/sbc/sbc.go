// Package sbc holds the block commands of the SCSI device server: SBC-3, with
// WRITE ATOMIC and NDOB of SBC-4.
//
// A command runs to completion where its device does. Commands of one device
// request keep their state in the Task; those of several are an op, an explicit
// state machine with bounded buffers.
package sbc

import (
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// Bits of byte 1 that several CDBs share (SBC-3 §5.7). FUA_NV and SYNC_NV are
// obsolete and still sent: both name a non-volatile cache, which no unit has, so
// there is nothing that they could change. Protection fields stay out of the
// usage data: no unit has protection information, so that any value but zero is
// refused (SBC-3 §4.22.2).
const (
	bitDPO    = 0x10
	bitFUA    = 0x08
	bitFUANV  = 0x02
	bitImmed  = 0x02
	bitSyncNV = 0x04
	cacheBits = bitDPO | bitFUA | bitFUANV
)

const none = -1 // no service action

// Commands returns the table of the block commands.
func Commands() []scsi.Command {
	const read, write = unit.AccessRead, unit.AccessWrite
	return []scsi.Command{
		{Name: "READ CAPACITY(10)", Op: wire.OpReadCapacity10, ServiceAction: none, Usage: make10(wire.OpReadCapacity10), Run: runReadCapacity10},
		{Name: "READ CAPACITY(16)", Op: wire.OpServiceActionIn16, ServiceAction: int(wire.ActionReadCapacity16), Usage: make16(wire.OpServiceActionIn16, 0x1F, 10, 11, 12, 13), Run: runReadCapacity16},

		{Name: "READ(6)", Op: wire.OpRead6, ServiceAction: none, Usage: transfer6(wire.OpRead6), Access: read, Run: runRead},
		{Name: "READ(10)", Op: wire.OpRead10, ServiceAction: none, Usage: transfer10(wire.OpRead10, cacheBits), Access: read, Run: runRead},
		{Name: "READ(12)", Op: wire.OpRead12, ServiceAction: none, Usage: transfer12(wire.OpRead12, cacheBits), Access: read, Run: runRead},
		{Name: "READ(16)", Op: wire.OpRead16, ServiceAction: none, Usage: transfer16(wire.OpRead16, cacheBits), Access: read, Run: runRead},

		{Name: "WRITE(6)", Op: wire.OpWrite6, ServiceAction: none, Usage: transfer6(wire.OpWrite6), Access: write, ChangesMedium: true, DataOut: transferOut, Run: runWrite},
		{Name: "WRITE(10)", Op: wire.OpWrite10, ServiceAction: none, Usage: transfer10(wire.OpWrite10, cacheBits), Access: write, ChangesMedium: true, DataOut: transferOut, Run: runWrite},
		{Name: "WRITE(12)", Op: wire.OpWrite12, ServiceAction: none, Usage: transfer12(wire.OpWrite12, cacheBits), Access: write, ChangesMedium: true, DataOut: transferOut, Run: runWrite},
		{Name: "WRITE(16)", Op: wire.OpWrite16, ServiceAction: none, Usage: transfer16(wire.OpWrite16, cacheBits), Access: write, ChangesMedium: true, DataOut: transferOut, Run: runWrite},
		{Name: "WRITE ATOMIC(16)", Op: wire.OpWriteAtomic16, ServiceAction: none, Usage: make16(wire.OpWriteAtomic16, bitDPO|bitFUA, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, group16), Access: write, ChangesMedium: true, DataOut: writeAtomicOut, Run: runWriteAtomic},
		{Name: "ORWRITE(16)", Op: wire.OpORWrite16, ServiceAction: none, Usage: transfer16(wire.OpORWrite16, cacheBits), Access: write, ChangesMedium: true, DataOut: transferOut, Run: runORWrite},
		{Name: "COMPARE AND WRITE", Op: wire.OpCompareAndWrite, ServiceAction: none, Usage: make16(wire.OpCompareAndWrite, cacheBits, 2, 3, 4, 5, 6, 7, 8, 9, 13, group16), Access: write, ChangesMedium: true, DataOut: compareAndWriteOut, Run: runCompareAndWrite},

		{Name: "WRITE AND VERIFY(10)", Op: wire.OpWriteVerify10, ServiceAction: none, Usage: transfer10(wire.OpWriteVerify10, bitDPO|bitsByteCheck), Access: write, ChangesMedium: true, DataOut: transferOut, Run: runWriteVerify},
		{Name: "WRITE AND VERIFY(12)", Op: wire.OpWriteVerify12, ServiceAction: none, Usage: transfer12(wire.OpWriteVerify12, bitDPO|bitsByteCheck), Access: write, ChangesMedium: true, DataOut: transferOut, Run: runWriteVerify},
		{Name: "WRITE AND VERIFY(16)", Op: wire.OpWriteVerify16, ServiceAction: none, Usage: transfer16(wire.OpWriteVerify16, bitDPO|bitsByteCheck), Access: write, ChangesMedium: true, DataOut: transferOut, Run: runWriteVerify},
		{Name: "VERIFY(10)", Op: wire.OpVerify10, ServiceAction: none, Usage: transfer10(wire.OpVerify10, bitDPO|bitsByteCheck), Access: read, DataOut: verifyOut, Run: runVerify},
		{Name: "VERIFY(12)", Op: wire.OpVerify12, ServiceAction: none, Usage: transfer12(wire.OpVerify12, bitDPO|bitsByteCheck), Access: read, DataOut: verifyOut, Run: runVerify},
		{Name: "VERIFY(16)", Op: wire.OpVerify16, ServiceAction: none, Usage: transfer16(wire.OpVerify16, bitDPO|bitsByteCheck), Access: read, DataOut: verifyOut, Run: runVerify},

		{Name: "WRITE SAME(10)", Op: wire.OpWriteSame10, ServiceAction: none, Usage: transfer10(wire.OpWriteSame10, bitUnmap), Access: write, ChangesMedium: true, DataOut: writeSameOut, Run: runWriteSame},
		{Name: "WRITE SAME(16)", Op: wire.OpWriteSame16, ServiceAction: none, Usage: transfer16(wire.OpWriteSame16, bitUnmap|bitNoDataOut), Access: write, ChangesMedium: true, DataOut: writeSameOut, Run: runWriteSame},
		{Name: "UNMAP", Op: wire.OpUnmap, ServiceAction: none, Usage: make10(wire.OpUnmap, group10, 7, 8), Access: write, ChangesMedium: true, DataOut: unmapOut, Run: runUnmap, Supported: isThin},
		{Name: "GET LBA STATUS", Op: wire.OpServiceActionIn16, ServiceAction: int(wire.ActionGetLBAStatus), Usage: make16(wire.OpServiceActionIn16, 0x1F, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13), Access: read, Run: runGetLBAStatus},

		{Name: "SYNCHRONIZE CACHE(10)", Op: wire.OpSynchronizeCache10, ServiceAction: none, Usage: transfer10(wire.OpSynchronizeCache10, bitImmed|bitSyncNV), Access: write, Run: runSynchronizeCache},
		{Name: "SYNCHRONIZE CACHE(16)", Op: wire.OpSynchronizeCache16, ServiceAction: none, Usage: transfer16(wire.OpSynchronizeCache16, bitImmed|bitSyncNV), Access: write, Run: runSynchronizeCache},
		{Name: "PRE-FETCH(10)", Op: wire.OpPreFetch10, ServiceAction: none, Usage: transfer10(wire.OpPreFetch10, bitImmed), Access: read, Run: runPreFetch},
		{Name: "PRE-FETCH(16)", Op: wire.OpPreFetch16, ServiceAction: none, Usage: transfer16(wire.OpPreFetch16, bitImmed), Access: read, Run: runPreFetch},

		{Name: "READ DEFECT DATA(10)", Op: wire.OpReadDefectData10, ServiceAction: none, Usage: withDefects(make10(wire.OpReadDefectData10, 7, 8), 2), Access: read, Run: runReadDefectData10},
		{Name: "READ DEFECT DATA(12)", Op: wire.OpReadDefectData12, ServiceAction: none, Usage: withDefects(make12(wire.OpReadDefectData12, 2, 3, 4, 5, 6, 7, 8, 9), 1), Access: read, Run: runReadDefectData12},

		{Name: "SANITIZE OVERWRITE", Op: wire.OpSanitize, ServiceAction: actionOverwrite, Usage: sanitizeUsage(bitSanitizeImmed|bitUnrestrictedExit, 7, 8), Access: write, ChangesMedium: true, AllowSanitize: true, DataOut: sanitizeOut, Run: runSanitize},
		{Name: "SANITIZE BLOCK ERASE", Op: wire.OpSanitize, ServiceAction: actionBlockErase, Usage: sanitizeUsage(bitSanitizeImmed | bitUnrestrictedExit), Access: write, ChangesMedium: true, AllowSanitize: true, Run: runSanitize, Supported: isThin},
		{Name: "SANITIZE EXIT FAILURE MODE", Op: wire.OpSanitize, ServiceAction: actionExitFailureMode, Usage: sanitizeUsage(0), Access: write, AllowSanitize: true, Run: runExitFailureMode},
	}
}

// isThin says for the commands that unmap that they exist on thin units only
// (SBC-3 §4.7.3.1).
func isThin(lu *scsi.LogicalUnit) bool { return lu.Unit().Attributes().Thin }

// The bytes of the GROUP NUMBER field, of which 5 bits are evaluated.
const (
	group10 = 6
	group12 = 10
	group16 = 14
)

// The functions below make CDB usage data (SPC-4 §6.27.4): the operation code,
// the bits of byte 1, and all bits of the listed bytes.

func makeUsage(length int, op, flags byte, group int, fields []int) []byte {
	b := make([]byte, length)
	b[0], b[1] = op, flags
	for _, i := range fields {
		b[i] = 0xFF
		if i == group {
			b[i] = 0x1F
		}
	}
	return b
}

func make10(op byte, fields ...int) []byte { return makeUsage(10, op, 0, group10, fields) }

func make12(op byte, fields ...int) []byte { return makeUsage(12, op, 0, group12, fields) }

func make16(op, flags byte, fields ...int) []byte { return makeUsage(16, op, flags, group16, fields) }

func transfer6(op byte) []byte { return makeUsage(6, op, 0x1F, none, []int{2, 3, 4}) }

func transfer10(op, flags byte) []byte {
	return makeUsage(10, op, flags, group10, []int{2, 3, 4, 5, group10, 7, 8})
}

func transfer12(op, flags byte) []byte {
	return makeUsage(12, op, flags, group12, []int{2, 3, 4, 5, 6, 7, 8, 9, group12})
}

func transfer16(op, flags byte) []byte {
	return makeUsage(16, op, flags, group16, []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, group16})
}

func withDefects(b []byte, at int) []byte {
	b[at] = 0x1F
	return b
}

func sanitizeUsage(flags byte, fields ...int) []byte {
	return makeUsage(10, wire.OpSanitize, flags|0x1F, none, fields)
}
