package nvmetcp

import "fmt"

// The ports of NVMe/TCP (NVMe/TCP 1.0 §3.1).
const (
	Port          = 4420
	DiscoveryPort = 8009
)

// Type is the type of a PDU, byte 0 of its header. Those from the host are
// even, those from the controller odd.
type Type uint8

// The PDU types (NVMe/TCP 1.0 §3.6.2).
const (
	TypeICReq       Type = 0x00 // Initialize Connection Request
	TypeICResp      Type = 0x01 // Initialize Connection Response
	TypeH2CTermReq  Type = 0x02 // Host to Controller Terminate Connection Request
	TypeC2HTermReq  Type = 0x03 // Controller to Host Terminate Connection Request
	TypeCapsuleCmd  Type = 0x04 // Command Capsule
	TypeCapsuleResp Type = 0x05 // Response Capsule
	TypeH2CData     Type = 0x06 // Host to Controller Data
	TypeC2HData     Type = 0x07 // Controller to Host Data
	TypeR2T         Type = 0x09 // Ready to Transfer
)

var typeNames = [...]string{
	TypeICReq: "ICReq", TypeICResp: "ICResp", TypeH2CTermReq: "H2CTermReq", TypeC2HTermReq: "C2HTermReq",
	TypeCapsuleCmd: "CapsuleCmd", TypeCapsuleResp: "CapsuleResp", TypeH2CData: "H2CData", TypeC2HData: "C2HData", TypeR2T: "R2T",
}

func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("PDU type %#02x", uint8(t))
}

// The lengths of headers in bytes, without digest: what HLEN says (NVMe/TCP
// 1.0 §3.6.2).
const (
	CommonSize      = 8 // what all PDUs begin with
	ICSize          = 128
	TermReqSize     = 24
	CapsuleCmdSize  = 72
	CapsuleRespSize = 24
	DataSize        = 24 // H2CData and C2HData
	R2TSize         = 24

	// DigestSize is the length of a header or data digest.
	DigestSize = 4
	// MaxTermData is how much of the PDU in error a termination request carries.
	MaxTermData = 128
	// MaxTermReq is the length of the longest termination request.
	MaxTermReq = TermReqSize + MaxTermData
	// SQESize and CQESize are the lengths of queue entries.
	SQESize = 64
	CQESize = 16
)

// headerSizes is what HLEN has to be; zero for types that do not exist.
var headerSizes = [16]uint8{
	TypeICReq: ICSize, TypeICResp: ICSize, TypeH2CTermReq: TermReqSize, TypeC2HTermReq: TermReqSize,
	TypeCapsuleCmd: CapsuleCmdSize, TypeCapsuleResp: CapsuleRespSize, TypeH2CData: DataSize, TypeC2HData: DataSize, TypeR2T: R2TSize,
}

// HeaderSize returns the length of the type's header in bytes, 0 for a type
// that does not exist.
func (t Type) HeaderSize() int {
	if int(t) < len(headerSizes) {
		return int(headerSizes[t])
	}
	return 0
}

// The FLAGS of the common header (NVMe/TCP 1.0 §3.6.2.1).
const (
	FlagHeaderDigest = 0x01 // HDGSTF: the header digest is there
	FlagDataDigest   = 0x02 // DDGSTF: the data digest is there
	FlagLast         = 0x04 // LAST_PDU: the last of an R2T's or a command's data
	FlagSuccess      = 0x08 // SUCCESS: the command has succeeded, no response capsule follows
)

// FormatVersion is the PDU format version that the specification defines (PFV).
const FormatVersion = 0

// The digests that a side asks for or takes, bits of DGST in ICReq and ICResp.
const (
	maskHeaderDigest = 0x01
	maskDataDigest   = 0x02
)

const (
	// MaxAlign is the largest value of HPDA and CPDA: data begins at a
	// multiple of 128 bytes.
	MaxAlign = 31
	// MinH2CData is the smallest MAXH2CDATA in bytes.
	MinH2CData = 4096
)

// AlignBytes returns the alignment in bytes that a value of HPDA or CPDA asks
// for: dwords, 0 for one (NVMe/TCP 1.0 §3.6.2.2).
func AlignBytes(pda uint8) int { return 4 * (int(pda) + 1) }

// Status is a fatal error status, FES of a termination request.
type Status uint16

// The fatal error statuses (NVMe/TCP 1.0 §3.6.2.4, §3.6.2.5).
const (
	// StatusInvalidHeader says that a field of the header is invalid; FEI is its offset.
	StatusInvalidHeader Status = 0x01
	// StatusSequence says that the PDU is not one that can come now.
	StatusSequence Status = 0x02
	// StatusHeaderDigest says that the header digest is wrong; FEI is the digest as received.
	StatusHeaderDigest Status = 0x03
	// StatusOutOfRange says that data does not belong where the PDU puts it.
	StatusOutOfRange Status = 0x04
	// StatusLimitExceeded says that a PDU has more data than the controller takes,
	// or, from a host, that there are too many R2Ts.
	StatusLimitExceeded Status = 0x05
	// StatusUnsupported says that a parameter is not supported; FEI is its offset.
	StatusUnsupported Status = 0x06
)

var statusNames = [...]string{
	StatusInvalidHeader: "invalid PDU header field", StatusSequence: "PDU sequence error", StatusHeaderDigest: "header digest error",
	StatusOutOfRange: "data transfer out of range", StatusLimitExceeded: "data transfer limit exceeded", StatusUnsupported: "unsupported parameter",
}

func (s Status) String() string {
	if int(s) < len(statusNames) && statusNames[s] != "" {
		return statusNames[s]
	}
	return fmt.Sprintf("fatal error status %#02x", uint16(s))
}
