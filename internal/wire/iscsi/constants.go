package iscsi

import "fmt"

// HeaderSize is the length of a basic header segment in bytes (RFC 7143 §11.2.1).
const HeaderSize = 48

// MaxDataSegment is the largest DataSegmentLength that a header can state, in bytes.
const MaxDataSegment = 1<<24 - 1

// MaxAHS is the largest total length of additional header segments, in bytes.
const MaxAHS = 255 * 4

// DigestSize is the length of a header or data digest in bytes (RFC 7143 §11.2.3).
const DigestSize = 4

// Port is the registered TCP port of iSCSI.
const Port = 3260

// NoTag is the reserved value of initiator and target transfer tags (RFC 7143 §11.2.1.8).
const NoTag uint32 = 0xffffffff

// Opcode is the operation code of a PDU (RFC 7143 §11.2.1.2).
type Opcode uint8

// The initiator opcodes.
const (
	OpNOPOut         Opcode = 0x00
	OpSCSICommand    Opcode = 0x01
	OpTaskManagement Opcode = 0x02
	OpLogin          Opcode = 0x03
	OpText           Opcode = 0x04
	OpDataOut        Opcode = 0x05
	OpLogout         Opcode = 0x06
	OpSNACK          Opcode = 0x10
)

// The target opcodes.
const (
	OpNOPIn                  Opcode = 0x20
	OpSCSIResponse           Opcode = 0x21
	OpTaskManagementResponse Opcode = 0x22
	OpLoginResponse          Opcode = 0x23
	OpTextResponse           Opcode = 0x24
	OpDataIn                 Opcode = 0x25
	OpLogoutResponse         Opcode = 0x26
	OpR2T                    Opcode = 0x31
	OpAsync                  Opcode = 0x32
	OpReject                 Opcode = 0x3f
)

func (op Opcode) String() string {
	switch op {
	case OpNOPOut:
		return "NOP-Out"
	case OpSCSICommand:
		return "SCSI Command"
	case OpTaskManagement:
		return "Task Management Function Request"
	case OpLogin:
		return "Login Request"
	case OpText:
		return "Text Request"
	case OpDataOut:
		return "SCSI Data-Out"
	case OpLogout:
		return "Logout Request"
	case OpSNACK:
		return "SNACK Request"
	case OpNOPIn:
		return "NOP-In"
	case OpSCSIResponse:
		return "SCSI Response"
	case OpTaskManagementResponse:
		return "Task Management Function Response"
	case OpLoginResponse:
		return "Login Response"
	case OpTextResponse:
		return "Text Response"
	case OpDataIn:
		return "SCSI Data-In"
	case OpLogoutResponse:
		return "Logout Response"
	case OpR2T:
		return "Ready To Transfer"
	case OpAsync:
		return "Asynchronous Message"
	case OpReject:
		return "Reject"
	}
	return fmt.Sprintf("opcode %#02x", uint8(op))
}

// Bits of byte 0 and byte 1; which of them a PDU has depends on its opcode.
const (
	FlagImmediate = 0x40 // byte 0: I, process at once and outside of CmdSN order
	FlagFinal     = 0x80 // byte 1: F, last PDU of a sequence
	FlagTransit   = 0x80 // byte 1 of login: T
	FlagContinue  = 0x40 // byte 1 of login and text: C, text continues in the next PDU
	FlagRead      = 0x40 // byte 1 of SCSI Command: R
	FlagWrite     = 0x20 // byte 1 of SCSI Command: W
	FlagAck       = 0x40 // byte 1 of Data-In: A
	FlagStatus    = 0x01 // byte 1 of Data-In: S, the PDU carries the command's status

	FlagBidiOverflow  = 0x10 // byte 1 of SCSI Response: o
	FlagBidiUnderflow = 0x08 // byte 1 of SCSI Response: u
	FlagOverflow      = 0x04 // byte 1 of SCSI Response and Data-In: O
	FlagUnderflow     = 0x02 // byte 1 of SCSI Response and Data-In: U

	maskAttr     = 0x07
	maskFunction = 0x7f
	maskOpcode   = 0x3f
)

// Stage is a login stage: the value of CSG and NSG (RFC 7143 §11.12.3).
type Stage uint8

// The login stages.
const (
	StageSecurity    Stage = 0
	StageOperational Stage = 1
	StageFullFeature Stage = 3
)

func (s Stage) String() string {
	switch s {
	case StageSecurity:
		return "security negotiation"
	case StageOperational:
		return "operational negotiation"
	case StageFullFeature:
		return "full feature phase"
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

// Reason is the reason of a Reject PDU (RFC 7143 §11.17.1).
type Reason uint8

// The reject reasons.
const (
	ReasonDataDigest       Reason = 0x02
	ReasonSNACK            Reason = 0x03
	ReasonProtocolError    Reason = 0x04
	ReasonNotSupported     Reason = 0x05
	ReasonImmediate        Reason = 0x06 // too many immediate commands
	ReasonTaskInProgress   Reason = 0x07
	ReasonInvalidDataAck   Reason = 0x08
	ReasonInvalidField     Reason = 0x09
	ReasonNoResources      Reason = 0x0a // cannot generate a target transfer tag
	ReasonNegotiationReset Reason = 0x0b
	ReasonWaitingForLogout Reason = 0x0c
)

// The responses of a SCSI Response PDU (RFC 7143 §11.4.3).
const (
	ResponseCompleted     uint8 = 0x00
	ResponseTargetFailure uint8 = 0x01
)

// The reasons of a Logout Request (RFC 7143 §11.14.1).
const (
	LogoutCloseSession    uint8 = 0
	LogoutCloseConnection uint8 = 1
	LogoutRecovery        uint8 = 2
)

// The responses of a Logout Response (RFC 7143 §11.15.1).
const (
	LogoutOK                   uint8 = 0
	LogoutCIDNotFound          uint8 = 1
	LogoutRecoveryNotSupported uint8 = 2
	LogoutCleanupFailed        uint8 = 3
)

// AsyncEvent is the event of an Asynchronous Message (RFC 7143 §11.9.1).
type AsyncEvent uint8

// The asynchronous events.
const (
	AsyncSCSI             AsyncEvent = 0 // a SCSI asynchronous event; sense data in the data segment
	AsyncLogoutRequest    AsyncEvent = 1 // log out within Parameter3 seconds
	AsyncDropConnection   AsyncEvent = 2 // connection Parameter1 is about to be dropped
	AsyncDropSession      AsyncEvent = 3 // all connections of the session are about to be dropped
	AsyncNegotiate        AsyncEvent = 4 // request parameter negotiation within Parameter3 seconds
	AsyncTasksTerminated  AsyncEvent = 5 // all active tasks of this LUN are being terminated (FastAbort)
	AsyncVendorEventFirst AsyncEvent = 248
)

// LoginStatus is Status-Class (high byte) and Status-Detail (low byte) of a
// Login Response (RFC 7143 §11.13.5).
type LoginStatus uint16

// The login statuses.
const (
	LoginSuccess            LoginStatus = 0x0000
	LoginMovedTemporarily   LoginStatus = 0x0101
	LoginMovedPermanently   LoginStatus = 0x0102
	LoginInitiatorError     LoginStatus = 0x0200
	LoginAuthFailure        LoginStatus = 0x0201
	LoginForbidden          LoginStatus = 0x0202
	LoginNotFound           LoginStatus = 0x0203
	LoginTargetRemoved      LoginStatus = 0x0204
	LoginUnsupportedVersion LoginStatus = 0x0205
	LoginTooManyConnections LoginStatus = 0x0206
	LoginMissingParameter   LoginStatus = 0x0207
	LoginCannotInclude      LoginStatus = 0x0208
	LoginSessionType        LoginStatus = 0x0209
	LoginNoSession          LoginStatus = 0x020a
	LoginInvalidRequest     LoginStatus = 0x020b
	LoginTargetError        LoginStatus = 0x0300
	LoginServiceUnavailable LoginStatus = 0x0301
	LoginOutOfResources     LoginStatus = 0x0302
)

// Class returns the Status-Class.
func (s LoginStatus) Class() uint8 { return uint8(s >> 8) }

// Detail returns the Status-Detail.
func (s LoginStatus) Detail() uint8 { return uint8(s) }

func (s LoginStatus) String() string {
	switch s {
	case LoginSuccess:
		return "success"
	case LoginMovedTemporarily:
		return "target moved temporarily"
	case LoginMovedPermanently:
		return "target moved permanently"
	case LoginInitiatorError:
		return "initiator error"
	case LoginAuthFailure:
		return "authentication failure"
	case LoginForbidden:
		return "not allowed to access the target"
	case LoginNotFound:
		return "target not found"
	case LoginTargetRemoved:
		return "target removed"
	case LoginUnsupportedVersion:
		return "unsupported version"
	case LoginTooManyConnections:
		return "too many connections"
	case LoginMissingParameter:
		return "missing parameter"
	case LoginCannotInclude:
		return "cannot include the connection in the session"
	case LoginSessionType:
		return "session type not supported"
	case LoginNoSession:
		return "session does not exist"
	case LoginInvalidRequest:
		return "invalid request during login"
	case LoginTargetError:
		return "target error"
	case LoginServiceUnavailable:
		return "service unavailable"
	case LoginOutOfResources:
		return "out of resources"
	}
	return fmt.Sprintf("login status %#04x", uint16(s))
}

// SNACK types (RFC 7143 §11.16.1).
const (
	SNACKData    uint8 = 0 // Data-In or R2T
	SNACKStatus  uint8 = 1
	SNACKDataAck uint8 = 2
	SNACKRData   uint8 = 3
)
