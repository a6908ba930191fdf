package nvmetcp

import "encoding/binary"

// PDU is a view on a PDU: a slice that begins with its header. Getters read
// what is there and validate nothing; the slice has to be as long as the
// header that has the field.
type PDU []byte

func (p PDU) u16(off int) uint16      { return binary.LittleEndian.Uint16(p[off:]) }
func (p PDU) u32(off int) uint32      { return binary.LittleEndian.Uint32(p[off:]) }
func (p PDU) put16(off int, v uint16) { binary.LittleEndian.PutUint16(p[off:], v) }
func (p PDU) put32(off int, v uint32) { binary.LittleEndian.PutUint32(p[off:], v) }

// Offsets of fields of the common header (NVMe/TCP 1.0 §3.6.2.1).
const (
	OffType  = 0
	OffFlags = 1
	OffHLEN  = 2
	OffPDO   = 3
	OffPLEN  = 4
)

// Offsets of fields of other headers, for the FEI of a termination request.
const (
	OffPFV    = 8  // of ICReq and ICResp
	OffPDA    = 10 // HPDA of ICReq, CPDA of ICResp
	OffDGST   = 11 // of both
	OffMAXR2T = 12 // of ICReq; MAXH2CDATA of ICResp
	OffSQE    = 8  // of CapsuleCmd
	OffCCCID  = 8  // of H2CData, C2HData and R2T
	OffTTAG   = 10 // of H2CData and R2T
	OffDATAO  = 12 // of H2CData and C2HData; R2TO of R2T
	OffDATAL  = 16 // of H2CData and C2HData; R2TL of R2T
)

// Type returns the PDU type.
func (p PDU) Type() Type { return Type(p[OffType]) }

// Flags returns FLAGS.
func (p PDU) Flags() uint8 { return p[OffFlags] }

// Last reports the LAST_PDU flag.
func (p PDU) Last() bool { return p[OffFlags]&FlagLast != 0 }

// Success reports the SUCCESS flag of C2HData.
func (p PDU) Success() bool { return p[OffFlags]&FlagSuccess != 0 }

// HeaderLength returns HLEN in bytes.
func (p PDU) HeaderLength() int { return int(p[OffHLEN]) }

// DataOffset returns PDO, where the data begins, in bytes; 0 for none.
func (p PDU) DataOffset() int { return int(p[OffPDO]) }

// Length returns PLEN, the length of the whole PDU in bytes.
func (p PDU) Length() int { return int(p.u32(OffPLEN)) }

// ICReq and ICResp (NVMe/TCP 1.0 §3.6.2.2, §3.6.2.3).

// Version returns PFV.
func (p PDU) Version() uint16 { return p.u16(OffPFV) }

// Align returns HPDA of ICReq or CPDA of ICResp: what AlignBytes takes.
func (p PDU) Align() uint8 { return p[OffPDA] & 0x1F }

// Digests returns which digests are asked for or enabled.
func (p PDU) Digests() (header, data bool) {
	return p[OffDGST]&maskHeaderDigest != 0, p[OffDGST]&maskDataDigest != 0
}

// MaxR2T returns how many R2Ts may be outstanding for a command: one more
// than MAXR2T of ICReq says.
func (p PDU) MaxR2T() uint64 { return uint64(p.u32(OffMAXR2T)) + 1 }

// MaxH2CData returns MAXH2CDATA of ICResp, the most data of an H2CData PDU in
// bytes.
func (p PDU) MaxH2CData() uint32 { return p.u32(OffMAXR2T) }

// Termination requests (NVMe/TCP 1.0 §3.6.2.4, §3.6.2.5).

// Status returns the fatal error status, FES.
func (p PDU) Status() Status { return Status(p.u16(8)) }

// Info returns the fatal error information, FEI.
func (p PDU) Info() uint32 { return p.u32(10) }

// Capsules (NVMe/TCP 1.0 §3.6.2.6, §3.6.2.7).

// SQE returns the submission queue entry of a CapsuleCmd, a part of the PDU.
func (p PDU) SQE() []byte { return p[OffSQE:CapsuleCmdSize:CapsuleCmdSize] }

// CQE returns the completion queue entry of a CapsuleResp, a part of the PDU.
func (p PDU) CQE() []byte { return p[8:CapsuleRespSize:CapsuleRespSize] }

// H2CData, C2HData and R2T (NVMe/TCP 1.0 §3.6.2.8, §3.6.2.9, §3.6.2.10).

// CommandID returns CCCID, the identifier of the command that the PDU is about.
func (p PDU) CommandID() uint16 { return p.u16(OffCCCID) }

// TransferTag returns TTAG of H2CData or R2T.
func (p PDU) TransferTag() uint16 { return p.u16(OffTTAG) }

// Offset returns DATAO or R2TO, where in the command's data the PDU's lies, in bytes.
func (p PDU) Offset() uint32 { return p.u32(OffDATAO) }

// Count returns DATAL or R2TL: how much data the PDU has or asks for, in bytes.
func (p PDU) Count() uint32 { return p.u32(OffDATAL) }
