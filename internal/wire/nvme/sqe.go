package nvme

// SQESize is the size of a submission queue entry, in bytes.
const SQESize = 64

// SQE is a submission queue entry of 64 bytes (NVMe Base 2.0 §3.3.3.1). The
// getters do not check the length.
type SQE []byte

// Fuse is how a command is fused with its neighbour (NVMe Base 2.0 figure 86).
type Fuse uint8

// The values of FUSE; 3 is reserved.
const (
	FuseNone   Fuse = 0
	FuseFirst  Fuse = 1
	FuseSecond Fuse = 2
)

// PSDTSGL is the value of PSDT for SGLs whose metadata pointer is an address; it
// is the only one on fabrics.
const PSDTSGL = 1

// Opcode returns the operation code (CDW0 bits 7:0).
func (e SQE) Opcode() uint8 { return e[0] }

// SetOpcode sets the operation code.
func (e SQE) SetOpcode(op uint8) { e[0] = op }

// Fuse returns the FUSE field.
func (e SQE) Fuse() Fuse { return Fuse(e[1] & 3) }

// SetFuse sets the FUSE field.
func (e SQE) SetFuse(f Fuse) { e[1] = e[1]&^3 | byte(f) }

// PSDT returns the PRP or SGL for Data Transfer field.
func (e SQE) PSDT() uint8 { return e[1] >> 6 }

// SetPSDT sets the PSDT field.
func (e SQE) SetPSDT(p uint8) { e[1] = e[1]&0x3F | p<<6 }

// CID returns the command identifier.
func (e SQE) CID() uint16 { return le.Uint16(e[2:]) }

// SetCID sets the command identifier.
func (e SQE) SetCID(cid uint16) { le.PutUint16(e[2:], cid) }

// NSID returns the namespace identifier.
func (e SQE) NSID() uint32 { return le.Uint32(e[4:]) }

// SetNSID sets the namespace identifier.
func (e SQE) SetNSID(nsid uint32) { le.PutUint32(e[4:], nsid) }

// FabricsType returns FCTYPE of a Fabrics command (NVMe Base 2.0 §6).
func (e SQE) FabricsType() uint8 { return e[4] }

// SetFabricsType sets FCTYPE.
func (e SQE) SetFabricsType(t uint8) { e[4] = t }

// CDW returns command dword n, 0 to 15.
func (e SQE) CDW(n int) uint32 { return le.Uint32(e[4*n:]) }

// SetCDW sets command dword n.
func (e SQE) SetCDW(n int, v uint32) { le.PutUint32(e[4*n:], v) }

// SLBA returns the starting LBA of an NVM command (CDW10 and 11).
func (e SQE) SLBA() uint64 { return le.Uint64(e[40:]) }

// SetSLBA sets the starting LBA.
func (e SQE) SetSLBA(lba uint64) { le.PutUint64(e[40:], lba) }

// NLB returns the number of logical blocks of an NVM command, 1 to 65536 (CDW12
// bits 15:0, which count from zero).
func (e SQE) NLB() uint32 { return uint32(le.Uint16(e[48:])) + 1 }

// SetNLB sets the number of logical blocks, 1 to 65536.
func (e SQE) SetNLB(n uint32) { le.PutUint16(e[48:], uint16(n-1)) }

// SGL returns SGL descriptor 1 (NVMe Base 2.0 figure 125): its address or
// offset, its length in bytes, and its type and subtype byte.
func (e SQE) SGL() (address uint64, length uint32, kind uint8) {
	return le.Uint64(e[24:]), le.Uint32(e[32:]), e[39]
}

// SetSGL sets SGL descriptor 1 and PSDT.
func (e SQE) SetSGL(address uint64, length uint32, kind uint8) {
	le.PutUint64(e[24:], address)
	le.PutUint32(e[32:], length)
	e[36], e[37], e[38], e[39] = 0, 0, 0, kind
	e.SetPSDT(PSDTSGL)
}

// The SGL descriptor types and subtypes that NVMe/TCP uses (NVMe Base 2.0
// figures 126 and 127).
const (
	SGLOffset    uint8 = 0x01 // data block, offset: the data is in the capsule
	SGLTransport uint8 = 0x5A // transport data block: the transport moves the data
)

// CQESize is the size of a completion queue entry, in bytes.
const CQESize = 16

// CQE is a completion queue entry of 16 bytes (NVMe Base 2.0 §3.3.3.2).
type CQE []byte

// Result returns dwords 0 and 1, which are command specific.
func (e CQE) Result() [2]uint32 { return [2]uint32{le.Uint32(e), le.Uint32(e[4:])} }

// SQHD returns the submission queue head pointer.
func (e CQE) SQHD() uint16 { return le.Uint16(e[8:]) }

// SQID returns the submission queue identifier.
func (e CQE) SQID() uint16 { return le.Uint16(e[10:]) }

// CID returns the command identifier.
func (e CQE) CID() uint16 { return le.Uint16(e[12:]) }

// Status returns the status field without the phase bit.
func (e CQE) Status() Status { return Status(le.Uint16(e[14:]) >> 1) }

// Put writes all fields; the phase bit is zero as fabrics want it.
func (e CQE) Put(result [2]uint32, sqhd, sqid, cid uint16, s Status) {
	le.PutUint32(e, result[0])
	le.PutUint32(e[4:], result[1])
	le.PutUint16(e[8:], sqhd)
	le.PutUint16(e[10:], sqid)
	le.PutUint16(e[12:], cid)
	le.PutUint16(e[14:], uint16(s)<<1)
}
