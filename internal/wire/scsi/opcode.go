package scsi

import "fmt"

// The operation codes that Lintel serves or sends (SPC-4 §E.3, SBC-3 §A).
const (
	OpTestUnitReady       byte = 0x00
	OpRequestSense        byte = 0x03
	OpFormatUnit          byte = 0x04
	OpRead6               byte = 0x08
	OpWrite6              byte = 0x0A
	OpInquiry             byte = 0x12
	OpModeSelect6         byte = 0x15
	OpReserve6            byte = 0x16
	OpRelease6            byte = 0x17
	OpModeSense6          byte = 0x1A
	OpStartStopUnit       byte = 0x1B
	OpReceiveDiagnostic   byte = 0x1C
	OpSendDiagnostic      byte = 0x1D
	OpPreventAllow        byte = 0x1E
	OpReadCapacity10      byte = 0x25
	OpRead10              byte = 0x28
	OpWrite10             byte = 0x2A
	OpWriteVerify10       byte = 0x2E
	OpVerify10            byte = 0x2F
	OpPreFetch10          byte = 0x34
	OpSynchronizeCache10  byte = 0x35
	OpReadDefectData10    byte = 0x37
	OpWriteBuffer         byte = 0x3B
	OpReadBuffer          byte = 0x3C
	OpWriteSame10         byte = 0x41
	OpUnmap               byte = 0x42
	OpSanitize            byte = 0x48
	OpLogSelect           byte = 0x4C
	OpLogSense            byte = 0x4D
	OpModeSelect10        byte = 0x55
	OpReserve10           byte = 0x56
	OpRelease10           byte = 0x57
	OpModeSense10         byte = 0x5A
	OpPersistentIn        byte = 0x5E
	OpPersistentOut       byte = 0x5F
	OpVariableLength      byte = 0x7F
	OpThirdPartyCopyOut   byte = 0x83
	OpThirdPartyCopyIn    byte = 0x84
	OpRead16              byte = 0x88
	OpCompareAndWrite     byte = 0x89
	OpWrite16             byte = 0x8A
	OpORWrite16           byte = 0x8B
	OpWriteVerify16       byte = 0x8E
	OpVerify16            byte = 0x8F
	OpPreFetch16          byte = 0x90
	OpSynchronizeCache16  byte = 0x91
	OpWriteSame16         byte = 0x93
	OpWriteAtomic16       byte = 0x9C
	OpServiceActionIn16   byte = 0x9E
	OpServiceActionOut16  byte = 0x9F
	OpReportLUNs          byte = 0xA0
	OpMaintenanceIn       byte = 0xA3
	OpMaintenanceOut      byte = 0xA4
	OpRead12              byte = 0xA8
	OpWrite12             byte = 0xAA
	OpWriteVerify12       byte = 0xAE
	OpVerify12            byte = 0xAF
	OpReadDefectData12    byte = 0xB7
	ActionReadCapacity16  byte = 0x10 // of SERVICE ACTION IN(16)
	ActionGetLBAStatus    byte = 0x12 // of SERVICE ACTION IN(16)
	ActionIdentifyingInfo byte = 0x05 // of MAINTENANCE IN
	ActionTargetGroups    byte = 0x0A // of MAINTENANCE IN and OUT
	ActionSupportedOps    byte = 0x0C // of MAINTENANCE IN
	ActionSupportedTMFs   byte = 0x0D // of MAINTENANCE IN
	ActionTimestamp       byte = 0x0F // of MAINTENANCE IN and OUT
)

// CDBLength returns how long a CDB is, in bytes, from its operation code's
// group (SPC-4 §4.2.5.1); 0 where the code does not tell (vendor specific,
// reserved, or variable-length).
func CDBLength(op byte) int {
	switch op >> 5 {
	case 0:
		return 6
	case 1, 2:
		return 10
	case 4:
		return 16
	case 5:
		return 12
	}
	return 0
}

// CDB is a view on a command descriptor block. The getters expect a block as
// long as CDBLength says.
type CDB []byte

// Op returns the operation code.
func (c CDB) Op() byte { return c[0] }

// ServiceAction returns the 5-bit service action of byte 1, or the 16-bit one
// of a variable-length CDB.
func (c CDB) ServiceAction() uint16 {
	if c[0] == OpVariableLength {
		if len(c) < 10 {
			return 0
		}
		return Uint16(c[8:])
	}
	return uint16(c[1] & 0x1F)
}

// LBA returns the LOGICAL BLOCK ADDRESS field at its common place (SPC-4
// §4.2.5.3): 21 bits in 6-byte CDBs, 32 in 10- and 12-byte, 64 in 16-byte ones.
func (c CDB) LBA() uint64 {
	switch CDBLength(c[0]) {
	case 6:
		return uint64(c[1]&0x1F)<<16 | uint64(c[2])<<8 | uint64(c[3])
	case 10, 12:
		return uint64(Uint32(c[2:]))
	case 16:
		return Uint64(c[2:])
	}
	return 0
}

// TransferLength returns the TRANSFER LENGTH, PARAMETER LIST LENGTH or
// ALLOCATION LENGTH field at its common place (SPC-4 §4.2.5.4). Zero stays zero,
// also in READ(6) and WRITE(6), where it stands for 256 blocks.
func (c CDB) TransferLength() uint32 {
	switch CDBLength(c[0]) {
	case 6:
		return uint32(c[4])
	case 10:
		return uint32(Uint16(c[7:]))
	case 12:
		return Uint32(c[6:])
	case 16:
		return Uint32(c[10:])
	}
	return 0
}

// OpName returns the name of an operation code for people.
func OpName(op byte) string {
	if s, ok := opNames[op]; ok {
		return s
	}
	return fmt.Sprintf("operation code %02Xh", op)
}

var opNames = map[byte]string{
	OpTestUnitReady: "TEST UNIT READY", OpRequestSense: "REQUEST SENSE", OpFormatUnit: "FORMAT UNIT",
	OpRead6: "READ(6)", OpWrite6: "WRITE(6)", OpInquiry: "INQUIRY", OpModeSelect6: "MODE SELECT(6)",
	OpReserve6: "RESERVE(6)", OpRelease6: "RELEASE(6)", OpModeSense6: "MODE SENSE(6)",
	OpStartStopUnit: "START STOP UNIT", OpReceiveDiagnostic: "RECEIVE DIAGNOSTIC RESULTS",
	OpSendDiagnostic: "SEND DIAGNOSTIC", OpPreventAllow: "PREVENT ALLOW MEDIUM REMOVAL",
	OpReadCapacity10: "READ CAPACITY(10)", OpRead10: "READ(10)", OpWrite10: "WRITE(10)",
	OpWriteVerify10: "WRITE AND VERIFY(10)", OpVerify10: "VERIFY(10)", OpPreFetch10: "PRE-FETCH(10)",
	OpSynchronizeCache10: "SYNCHRONIZE CACHE(10)", OpReadDefectData10: "READ DEFECT DATA(10)",
	OpWriteBuffer: "WRITE BUFFER", OpReadBuffer: "READ BUFFER", OpWriteSame10: "WRITE SAME(10)",
	OpUnmap: "UNMAP", OpSanitize: "SANITIZE", OpLogSelect: "LOG SELECT", OpLogSense: "LOG SENSE",
	OpModeSelect10: "MODE SELECT(10)", OpReserve10: "RESERVE(10)", OpRelease10: "RELEASE(10)",
	OpModeSense10: "MODE SENSE(10)", OpPersistentIn: "PERSISTENT RESERVE IN",
	OpPersistentOut: "PERSISTENT RESERVE OUT", OpVariableLength: "variable-length CDB",
	OpThirdPartyCopyOut: "THIRD-PARTY COPY OUT", OpThirdPartyCopyIn: "THIRD-PARTY COPY IN",
	OpRead16: "READ(16)", OpCompareAndWrite: "COMPARE AND WRITE", OpWrite16: "WRITE(16)",
	OpORWrite16: "ORWRITE(16)", OpWriteVerify16: "WRITE AND VERIFY(16)", OpVerify16: "VERIFY(16)",
	OpPreFetch16: "PRE-FETCH(16)", OpSynchronizeCache16: "SYNCHRONIZE CACHE(16)",
	OpWriteSame16: "WRITE SAME(16)", OpWriteAtomic16: "WRITE ATOMIC(16)",
	OpServiceActionIn16: "SERVICE ACTION IN(16)", OpServiceActionOut16: "SERVICE ACTION OUT(16)",
	OpReportLUNs: "REPORT LUNS", OpMaintenanceIn: "MAINTENANCE IN", OpMaintenanceOut: "MAINTENANCE OUT",
	OpRead12: "READ(12)", OpWrite12: "WRITE(12)", OpWriteVerify12: "WRITE AND VERIFY(12)",
	OpVerify12: "VERIFY(12)", OpReadDefectData12: "READ DEFECT DATA(12)",
}

// IsRead reports whether an operation code is a READ command of SBC-3.
func IsRead(op byte) bool {
	return op == OpRead6 || op == OpRead10 || op == OpRead12 || op == OpRead16
}

// IsWrite reports whether an operation code is one of SBC-3's that stores the
// blocks it is sent: the WRITE commands, with verification and atomic ones.
func IsWrite(op byte) bool {
	switch op {
	case OpWrite6, OpWrite10, OpWrite12, OpWrite16, OpWriteAtomic16,
		OpWriteVerify10, OpWriteVerify12, OpWriteVerify16:
		return true
	}
	return false
}
