package iscsi

import "encoding/binary"

// BHS is a view on a basic header segment: a slice of at least HeaderSize
// bytes (RFC 7143 §11.2.1). Getters read what is there and validate nothing.
type BHS []byte

func (b BHS) u16(off int) uint16       { return binary.BigEndian.Uint16(b[off:]) }
func (b BHS) u32(off int) uint32       { return binary.BigEndian.Uint32(b[off:]) }
func (b BHS) put16(off int, v uint16)  { binary.BigEndian.PutUint16(b[off:], v) }
func (b BHS) put32(off int, v uint32)  { binary.BigEndian.PutUint32(b[off:], v) }
func (b BHS) flag(i int, m uint8) bool { return b[i]&m != 0 }

// Opcode returns the operation code without the I bit.
func (b BHS) Opcode() Opcode { return Opcode(b[0] & maskOpcode) }

// Immediate reports the I bit.
func (b BHS) Immediate() bool { return b.flag(0, FlagImmediate) }

// SetOpcode sets byte 0.
func (b BHS) SetOpcode(op Opcode, immediate bool) {
	b[0] = uint8(op)
	if immediate {
		b[0] |= FlagImmediate
	}
}

// Flags returns byte 1.
func (b BHS) Flags() uint8 { return b[1] }

// SetFlags sets byte 1.
func (b BHS) SetFlags(f uint8) { b[1] = f }

// Final reports the F bit (the T bit of login PDUs).
func (b BHS) Final() bool { return b.flag(1, FlagFinal) }

// Continue reports the C bit of login and text PDUs.
func (b BHS) Continue() bool { return b.flag(1, FlagContinue) }

// AHSLength returns the length of the additional header segments in bytes.
func (b BHS) AHSLength() int { return int(b[4]) * 4 }

// SetAHSLength sets TotalAHSLength from n bytes, a multiple of 4 up to MaxAHS.
func (b BHS) SetAHSLength(n int) { b[4] = uint8(n / 4) }

// DataLength returns DataSegmentLength in bytes, without padding.
func (b BHS) DataLength() int { return int(b.u32(4) & MaxDataSegment) }

// SetDataLength sets DataSegmentLength; n is at most MaxDataSegment.
func (b BHS) SetDataLength(n int) {
	b[5], b[6], b[7] = uint8(n>>16), uint8(n>>8), uint8(n)
}

// Pad returns n rounded up to a multiple of four bytes (RFC 7143 §11.1).
func Pad(n int) int { return (n + 3) &^ 3 }

// Layout says where the parts of a PDU lie, in bytes from its start.
type Layout struct {
	HeaderDigest int // where the header digest is, or would be
	Data         int // where the data segment starts
	DataDigest   int // where the data digest is, or would be, after padding
	Size         int // the length of the whole PDU
}

// Layout computes where the parts of the PDU lie with the given digests in
// use. A data digest exists only where there is data (RFC 7143 §11.2.3).
func (b BHS) Layout(headerDigest, dataDigest bool) Layout {
	l := Layout{HeaderDigest: HeaderSize + b.AHSLength()}
	l.Data = l.HeaderDigest
	if headerDigest {
		l.Data += DigestSize
	}
	n := b.DataLength()
	l.DataDigest = l.Data + Pad(n)
	l.Size = l.DataDigest
	if dataDigest && n > 0 {
		l.Size += DigestSize
	}
	return l
}

// LUN returns the logical unit number: the 8 bytes of the wire, big endian.
func (b BHS) LUN() uint64 { return binary.BigEndian.Uint64(b[8:]) }

// SetLUN sets the logical unit number.
func (b BHS) SetLUN(lun uint64) { binary.BigEndian.PutUint64(b[8:], lun) }

// ITT returns the initiator task tag.
func (b BHS) ITT() uint32 { return b.u32(16) }

// SetITT sets the initiator task tag.
func (b BHS) SetITT(v uint32) { b.put32(16, v) }

// TTT returns the target transfer tag of PDUs that have one; in a task
// management request the place holds the referenced task tag.
func (b BHS) TTT() uint32 { return b.u32(20) }

// SetTTT sets the target transfer tag.
func (b BHS) SetTTT(v uint32) { b.put32(20, v) }

// CmdSN returns the command sequence number of a request.
func (b BHS) CmdSN() uint32 { return b.u32(24) }

// SetCmdSN sets the command sequence number.
func (b BHS) SetCmdSN(v uint32) { b.put32(24, v) }

// ExpStatSN returns the status sequence number that the initiator expects.
func (b BHS) ExpStatSN() uint32 { return b.u32(28) }

// SetExpStatSN sets the status sequence number that the initiator expects.
func (b BHS) SetExpStatSN(v uint32) { b.put32(28, v) }

// StatSN returns the status sequence number of a PDU from the target.
func (b BHS) StatSN() uint32 { return b.u32(24) }

// SetStatSN sets the status sequence number.
func (b BHS) SetStatSN(v uint32) { b.put32(24, v) }

// ExpCmdSN returns the next command sequence number that the target expects.
func (b BHS) ExpCmdSN() uint32 { return b.u32(28) }

// SetExpCmdSN sets the next command sequence number that the target expects.
func (b BHS) SetExpCmdSN(v uint32) { b.put32(28, v) }

// MaxCmdSN returns the end of the command window.
func (b BHS) MaxCmdSN() uint32 { return b.u32(32) }

// SetMaxCmdSN sets the end of the command window.
func (b BHS) SetMaxCmdSN(v uint32) { b.put32(32, v) }

// SCSI Command (RFC 7143 §11.3).

// Read reports the R bit of a SCSI Command.
func (b BHS) Read() bool { return b.flag(1, FlagRead) }

// Write reports the W bit of a SCSI Command.
func (b BHS) Write() bool { return b.flag(1, FlagWrite) }

// Attr returns the task attribute of a SCSI Command (RFC 7143 §11.3.1).
func (b BHS) Attr() uint8 { return b[1] & maskAttr }

// ExpectedLength returns the expected data transfer length of a SCSI Command in bytes.
func (b BHS) ExpectedLength() uint32 { return b.u32(20) }

// SetExpectedLength sets the expected data transfer length.
func (b BHS) SetExpectedLength(v uint32) { b.put32(20, v) }

// CDB returns the 16 CDB bytes of a SCSI Command, a part of the header.
func (b BHS) CDB() []byte { return b[32:48:48] }

// SCSI Response and Data-In (RFC 7143 §11.4, §11.7).

// Response returns byte 2: the response of SCSI, task management and logout
// responses, the reason of a Reject.
func (b BHS) Response() uint8 { return b[2] }

// SetResponse sets byte 2.
func (b BHS) SetResponse(v uint8) { b[2] = v }

// Status returns the SCSI status, byte 3.
func (b BHS) Status() uint8 { return b[3] }

// SetStatus sets the SCSI status.
func (b BHS) SetStatus(v uint8) { b[3] = v }

// Residual returns the residual count of a SCSI Response or Data-In in bytes.
func (b BHS) Residual() uint32 { return b.u32(44) }

// SetResidual sets the residual count.
func (b BHS) SetResidual(v uint32) { b.put32(44, v) }

// BidiResidual returns the bidirectional read residual count of a SCSI Response.
func (b BHS) BidiResidual() uint32 { return b.u32(40) }

// ExpDataSN returns the number of Data-In and R2T PDUs that a SCSI Response
// says the target has sent, or the ExpDataSN of a task management request.
func (b BHS) ExpDataSN() uint32 { return b.u32(36) }

// SetExpDataSN sets ExpDataSN.
func (b BHS) SetExpDataSN(v uint32) { b.put32(36, v) }

// Data-Out, Data-In and R2T (RFC 7143 §11.7, §11.8).

// DataSN returns the number of a data PDU in its sequence; in R2T it is R2TSN.
func (b BHS) DataSN() uint32 { return b.u32(36) }

// SetDataSN sets DataSN or R2TSN.
func (b BHS) SetDataSN(v uint32) { b.put32(36, v) }

// BufferOffset returns where in the command's buffer the data belongs, in bytes.
func (b BHS) BufferOffset() uint32 { return b.u32(40) }

// SetBufferOffset sets the buffer offset.
func (b BHS) SetBufferOffset(v uint32) { b.put32(40, v) }

// DesiredLength returns the desired data transfer length of an R2T in bytes.
func (b BHS) DesiredLength() uint32 { return b.u32(44) }

// SetDesiredLength sets the desired data transfer length of an R2T.
func (b BHS) SetDesiredLength(v uint32) { b.put32(44, v) }

// Task management (RFC 7143 §11.5).

// Function returns the function of a task management request or the reason of a Logout Request.
func (b BHS) Function() uint8 { return b[1] & maskFunction }

// ReferencedTaskTag returns the task tag that a task management request is about.
func (b BHS) ReferencedTaskTag() uint32 { return b.u32(20) }

// RefCmdSN returns the CmdSN of the task that a task management request is about.
func (b BHS) RefCmdSN() uint32 { return b.u32(32) }

// Asynchronous Message (RFC 7143 §11.9).

// AsyncEvent returns the event of an Asynchronous Message.
func (b BHS) AsyncEvent() AsyncEvent { return AsyncEvent(b[36]) }

// AsyncVCode returns the vendor code of an Asynchronous Message.
func (b BHS) AsyncVCode() uint8 { return b[37] }

// AsyncParameters returns Parameter1 to Parameter3 of an Asynchronous Message.
func (b BHS) AsyncParameters() (p1, p2, p3 uint16) { return b.u16(38), b.u16(40), b.u16(42) }

// Login (RFC 7143 §11.12, §11.13).

// CSG returns the current stage of a login PDU.
func (b BHS) CSG() Stage { return Stage(b[1] >> 2 & 3) }

// NSG returns the next stage of a login PDU, valid where Final (T) is set.
func (b BHS) NSG() Stage { return Stage(b[1] & 3) }

// VersionMax returns byte 2 of a login PDU.
func (b BHS) VersionMax() uint8 { return b[2] }

// VersionMin returns byte 3: Version-min of a Login Request, Version-active of a response.
func (b BHS) VersionMin() uint8 { return b[3] }

// ISID returns the initiator's part of the session identifier.
func (b BHS) ISID() ISID { return ISID(b[8:14]) }

// TSIH returns the target session identifying handle of a login PDU.
func (b BHS) TSIH() uint16 { return b.u16(14) }

// CID returns the connection identifier of a login or logout request.
func (b BHS) CID() uint16 { return b.u16(20) }

// LoginStatus returns Status-Class and Status-Detail of a Login Response.
func (b BHS) LoginStatus() LoginStatus { return LoginStatus(b.u16(36)) }

// Logout Response (RFC 7143 §11.15).

// Times returns Time2Wait and Time2Retain of a Logout Response in seconds.
func (b BHS) Times() (wait, retain uint16) { return b.u16(40), b.u16(42) }

// SNACK (RFC 7143 §11.16).

// SNACKType returns the type of a SNACK request.
func (b BHS) SNACKType() uint8 { return b[1] & 0x0f }

// Run returns BegRun and RunLength of a SNACK request.
func (b BHS) Run() (begin, length uint32) { return b.u32(40), b.u32(44) }
