package iscsi

import "encoding/binary"

// ISID is the initiator's part of a session identifier (RFC 7143 §11.12.5).
type ISID [6]byte

// Fields is what a header is made of; there is one type for each PDU. Lengths of the
// data segment and of additional headers are set with SetDataLength and
// SetAHSLength afterwards.
type Fields interface {
	// Put writes all 48 bytes of the header; lengths are zero.
	Put(BHS)
}

func start(b BHS, op Opcode, immediate bool, flags uint8) {
	clear(b[:HeaderSize])
	b.SetOpcode(op, immediate)
	b[1] = flags
}

func bit(set bool, m uint8) uint8 {
	if set {
		return m
	}
	return 0
}

// putRequest sets what all requests share.
func putRequest(b BHS, itt, cmdSN, expStatSN uint32) {
	b.SetITT(itt)
	b.SetCmdSN(cmdSN)
	b.SetExpStatSN(expStatSN)
}

// Numbers are the sequence numbers that a PDU from the target carries.
type Numbers struct {
	StatSN   uint32
	ExpCmdSN uint32
	MaxCmdSN uint32
}

func (n Numbers) put(b BHS) {
	b.SetStatSN(n.StatSN)
	b.SetExpCmdSN(n.ExpCmdSN)
	b.SetMaxCmdSN(n.MaxCmdSN)
}

// SCSICommand is a SCSI Command PDU (RFC 7143 §11.3).
type SCSICommand struct {
	Immediate, Final, Read, Write bool
	Attr                          uint8
	LUN                           uint64
	ITT                           uint32
	ExpectedLength                uint32 // bytes
	CmdSN, ExpStatSN              uint32
	CDB                           []byte // first 16 bytes are used; more goes to an AHS
}

// Put writes the header.
func (f *SCSICommand) Put(b BHS) {
	start(b, OpSCSICommand, f.Immediate, bit(f.Final, FlagFinal)|bit(f.Read, FlagRead)|bit(f.Write, FlagWrite)|f.Attr&maskAttr)
	b.SetLUN(f.LUN)
	putRequest(b, f.ITT, f.CmdSN, f.ExpStatSN)
	b.SetExpectedLength(f.ExpectedLength)
	copy(b[32:48], f.CDB)
}

// SCSIResponse is a SCSI Response PDU (RFC 7143 §11.4).
type SCSIResponse struct {
	Flags            uint8 // FlagOverflow, FlagUnderflow and their bidirectional kin
	Response, Status uint8
	ITT              uint32
	SNACKTag         uint32
	Numbers          Numbers
	ExpDataSN        uint32
	BidiResidual     uint32 // bytes
	Residual         uint32 // bytes
}

// Put writes the header.
func (f *SCSIResponse) Put(b BHS) {
	start(b, OpSCSIResponse, false, FlagFinal|f.Flags)
	b[2], b[3] = f.Response, f.Status
	b.SetITT(f.ITT)
	b.SetTTT(f.SNACKTag)
	f.Numbers.put(b)
	b.SetExpDataSN(f.ExpDataSN)
	b.put32(40, f.BidiResidual)
	b.SetResidual(f.Residual)
}

// TaskManagement is a Task Management Function Request PDU (RFC 7143 §11.5).
type TaskManagement struct {
	Immediate         bool
	Function          uint8
	LUN               uint64
	ITT               uint32
	ReferencedTaskTag uint32
	CmdSN, ExpStatSN  uint32
	RefCmdSN          uint32
	ExpDataSN         uint32
}

// Put writes the header.
func (f *TaskManagement) Put(b BHS) {
	start(b, OpTaskManagement, f.Immediate, FlagFinal|f.Function&maskFunction)
	b.SetLUN(f.LUN)
	putRequest(b, f.ITT, f.CmdSN, f.ExpStatSN)
	b.SetTTT(f.ReferencedTaskTag)
	b.put32(32, f.RefCmdSN)
	b.SetExpDataSN(f.ExpDataSN)
}

// TaskManagementResponse is a Task Management Function Response PDU (RFC 7143 §11.6).
type TaskManagementResponse struct {
	Response uint8
	ITT      uint32
	Numbers  Numbers
}

// Put writes the header.
func (f *TaskManagementResponse) Put(b BHS) {
	start(b, OpTaskManagementResponse, false, FlagFinal)
	b[2] = f.Response
	b.SetITT(f.ITT)
	f.Numbers.put(b)
}

// DataOut is a SCSI Data-Out PDU (RFC 7143 §11.7).
type DataOut struct {
	Final        bool
	LUN          uint64
	ITT, TTT     uint32
	ExpStatSN    uint32
	DataSN       uint32
	BufferOffset uint32 // bytes
}

// Put writes the header.
func (f *DataOut) Put(b BHS) {
	start(b, OpDataOut, false, bit(f.Final, FlagFinal))
	b.SetLUN(f.LUN)
	putRequest(b, f.ITT, 0, f.ExpStatSN)
	b.SetTTT(f.TTT)
	b.SetDataSN(f.DataSN)
	b.SetBufferOffset(f.BufferOffset)
}

// DataIn is a SCSI Data-In PDU (RFC 7143 §11.7). Status, StatSN and Residual
// count only where Flags has FlagStatus.
type DataIn struct {
	Flags        uint8 // FlagFinal, FlagAck, FlagOverflow, FlagUnderflow, FlagStatus
	Status       uint8
	LUN          uint64
	ITT, TTT     uint32
	Numbers      Numbers
	DataSN       uint32
	BufferOffset uint32 // bytes
	Residual     uint32 // bytes
}

// Put writes the header.
func (f *DataIn) Put(b BHS) {
	start(b, OpDataIn, false, f.Flags)
	b[3] = f.Status
	b.SetLUN(f.LUN)
	b.SetITT(f.ITT)
	b.SetTTT(f.TTT)
	f.Numbers.put(b)
	b.SetDataSN(f.DataSN)
	b.SetBufferOffset(f.BufferOffset)
	b.SetResidual(f.Residual)
}

// R2T is a Ready To Transfer PDU (RFC 7143 §11.8).
type R2T struct {
	LUN           uint64
	ITT, TTT      uint32
	Numbers       Numbers
	R2TSN         uint32
	BufferOffset  uint32 // bytes
	DesiredLength uint32 // bytes
}

// Put writes the header.
func (f *R2T) Put(b BHS) {
	start(b, OpR2T, false, FlagFinal)
	b.SetLUN(f.LUN)
	b.SetITT(f.ITT)
	b.SetTTT(f.TTT)
	f.Numbers.put(b)
	b.SetDataSN(f.R2TSN)
	b.SetBufferOffset(f.BufferOffset)
	b.SetDesiredLength(f.DesiredLength)
}

// Async is an Asynchronous Message PDU (RFC 7143 §11.9).
type Async struct {
	LUN                                uint64
	Numbers                            Numbers
	Event                              AsyncEvent
	VCode                              uint8
	Parameter1, Parameter2, Parameter3 uint16
}

// Put writes the header.
func (f *Async) Put(b BHS) {
	start(b, OpAsync, false, FlagFinal)
	b.SetLUN(f.LUN)
	b.SetITT(NoTag)
	f.Numbers.put(b)
	b[36], b[37] = uint8(f.Event), f.VCode
	b.put16(38, f.Parameter1)
	b.put16(40, f.Parameter2)
	b.put16(42, f.Parameter3)
}

// Text is a Text Request PDU (RFC 7143 §11.10).
type Text struct {
	Immediate, Final, Continue bool
	LUN                        uint64
	ITT, TTT                   uint32
	CmdSN, ExpStatSN           uint32
}

// Put writes the header.
func (f *Text) Put(b BHS) {
	start(b, OpText, f.Immediate, bit(f.Final, FlagFinal)|bit(f.Continue, FlagContinue))
	b.SetLUN(f.LUN)
	putRequest(b, f.ITT, f.CmdSN, f.ExpStatSN)
	b.SetTTT(f.TTT)
}

// TextResponse is a Text Response PDU (RFC 7143 §11.11).
type TextResponse struct {
	Final, Continue bool
	LUN             uint64
	ITT, TTT        uint32
	Numbers         Numbers
}

// Put writes the header.
func (f *TextResponse) Put(b BHS) {
	start(b, OpTextResponse, false, bit(f.Final, FlagFinal)|bit(f.Continue, FlagContinue))
	b.SetLUN(f.LUN)
	b.SetITT(f.ITT)
	b.SetTTT(f.TTT)
	f.Numbers.put(b)
}

// Login is a Login Request PDU (RFC 7143 §11.12). It is always immediate.
type Login struct {
	Transit, Continue      bool
	CSG, NSG               Stage
	VersionMax, VersionMin uint8
	ISID                   ISID
	TSIH                   uint16
	ITT                    uint32
	CID                    uint16
	CmdSN, ExpStatSN       uint32
}

// Put writes the header.
func (f *Login) Put(b BHS) {
	start(b, OpLogin, true, loginFlags(f.Transit, f.Continue, f.CSG, f.NSG))
	b[2], b[3] = f.VersionMax, f.VersionMin
	copy(b[8:14], f.ISID[:])
	b.put16(14, f.TSIH)
	putRequest(b, f.ITT, f.CmdSN, f.ExpStatSN)
	b.put16(20, f.CID)
}

func loginFlags(transit, cont bool, csg, nsg Stage) uint8 {
	f := bit(transit, FlagTransit) | bit(cont, FlagContinue) | uint8(csg&3)<<2
	if transit {
		f |= uint8(nsg & 3)
	}
	return f
}

// LoginResponse is a Login Response PDU (RFC 7143 §11.13).
type LoginResponse struct {
	Transit, Continue         bool
	CSG, NSG                  Stage
	VersionMax, VersionActive uint8
	ISID                      ISID
	TSIH                      uint16
	ITT                       uint32
	Numbers                   Numbers
	Status                    LoginStatus
}

// Put writes the header.
func (f *LoginResponse) Put(b BHS) {
	start(b, OpLoginResponse, false, loginFlags(f.Transit, f.Continue, f.CSG, f.NSG))
	b[2], b[3] = f.VersionMax, f.VersionActive
	copy(b[8:14], f.ISID[:])
	b.put16(14, f.TSIH)
	b.SetITT(f.ITT)
	f.Numbers.put(b)
	b.put16(36, uint16(f.Status))
}

// Logout is a Logout Request PDU (RFC 7143 §11.14).
type Logout struct {
	Immediate        bool
	Reason           uint8
	ITT              uint32
	CID              uint16
	CmdSN, ExpStatSN uint32
}

// Put writes the header.
func (f *Logout) Put(b BHS) {
	start(b, OpLogout, f.Immediate, FlagFinal|f.Reason&maskFunction)
	putRequest(b, f.ITT, f.CmdSN, f.ExpStatSN)
	b.put16(20, f.CID)
}

// LogoutResponse is a Logout Response PDU (RFC 7143 §11.15).
type LogoutResponse struct {
	Response    uint8
	ITT         uint32
	Numbers     Numbers
	Time2Wait   uint16 // seconds
	Time2Retain uint16 // seconds
}

// Put writes the header.
func (f *LogoutResponse) Put(b BHS) {
	start(b, OpLogoutResponse, false, FlagFinal)
	b[2] = f.Response
	b.SetITT(f.ITT)
	f.Numbers.put(b)
	b.put16(40, f.Time2Wait)
	b.put16(42, f.Time2Retain)
}

// SNACK is a SNACK Request PDU (RFC 7143 §11.16).
type SNACK struct {
	Type              uint8
	LUN               uint64
	ITT, TTT          uint32
	ExpStatSN         uint32
	BegRun, RunLength uint32
}

// Put writes the header.
func (f *SNACK) Put(b BHS) {
	start(b, OpSNACK, false, FlagFinal|f.Type&0x0f)
	b.SetLUN(f.LUN)
	putRequest(b, f.ITT, 0, f.ExpStatSN)
	b.SetTTT(f.TTT)
	b.put32(40, f.BegRun)
	b.put32(44, f.RunLength)
}

// Reject is a Reject PDU (RFC 7143 §11.17); its data segment is the header
// of the rejected PDU.
type Reject struct {
	Reason  Reason
	Numbers Numbers
	DataSN  uint32
}

// Put writes the header.
func (f *Reject) Put(b BHS) {
	start(b, OpReject, false, FlagFinal)
	b[2] = uint8(f.Reason)
	b.SetITT(NoTag)
	f.Numbers.put(b)
	b.SetDataSN(f.DataSN)
}

// NOPOut is a NOP-Out PDU (RFC 7143 §11.18).
type NOPOut struct {
	Immediate        bool
	LUN              uint64
	ITT, TTT         uint32
	CmdSN, ExpStatSN uint32
}

// Put writes the header.
func (f *NOPOut) Put(b BHS) {
	start(b, OpNOPOut, f.Immediate, FlagFinal)
	b.SetLUN(f.LUN)
	putRequest(b, f.ITT, f.CmdSN, f.ExpStatSN)
	b.SetTTT(f.TTT)
}

// NOPIn is a NOP-In PDU (RFC 7143 §11.19).
type NOPIn struct {
	LUN      uint64
	ITT, TTT uint32
	Numbers  Numbers
}

// Put writes the header.
func (f *NOPIn) Put(b BHS) {
	start(b, OpNOPIn, false, FlagFinal)
	b.SetLUN(f.LUN)
	b.SetITT(f.ITT)
	b.SetTTT(f.TTT)
	f.Numbers.put(b)
}

var (
	_ Fields = (*SCSICommand)(nil)
	_ Fields = (*SCSIResponse)(nil)
	_ Fields = (*TaskManagement)(nil)
	_ Fields = (*TaskManagementResponse)(nil)
	_ Fields = (*DataOut)(nil)
	_ Fields = (*DataIn)(nil)
	_ Fields = (*R2T)(nil)
	_ Fields = (*Async)(nil)
	_ Fields = (*Text)(nil)
	_ Fields = (*TextResponse)(nil)
	_ Fields = (*Login)(nil)
	_ Fields = (*LoginResponse)(nil)
	_ Fields = (*Logout)(nil)
	_ Fields = (*LogoutResponse)(nil)
	_ Fields = (*SNACK)(nil)
	_ Fields = (*Reject)(nil)
	_ Fields = (*NOPOut)(nil)
	_ Fields = (*NOPIn)(nil)
)

// AppendPDU appends a PDU without digests: header, data segment, padding.
func AppendPDU(dst []byte, f Fields, data []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, HeaderSize)...)
	b := BHS(dst[at:])
	f.Put(b)
	b.SetDataLength(len(data))
	dst = append(dst, data...)
	return append(dst, make([]byte, Pad(len(data))-len(data))...)
}

// Before reports whether sequence number a precedes b in serial number
// arithmetic (RFC 1982, RFC 7143 §4.2.2).
func Before(a, b uint32) bool { return int32(a-b) < 0 }

// RandomISID makes an ISID of the random format (RFC 7143 §11.12.5) from
// 24 random bits and a qualifier.
func RandomISID(random uint32, qualifier uint16) ISID {
	var id ISID
	binary.BigEndian.PutUint32(id[:], 0x80<<24|random&0xffffff)
	binary.BigEndian.PutUint16(id[4:], qualifier)
	return id
}
