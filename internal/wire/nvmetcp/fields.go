package nvmetcp

// Fields is what a header is made of; there is one type for each PDU. PDO,
// PLEN, the digest flags and digests come from Sender.Seal.
type Fields interface {
	Type() Type
	// Put writes the header; PDO is zero and PLEN that of a PDU without data
	// and digests.
	Put(PDU)
}

func start(p PDU, t Type, flags uint8) {
	n := t.HeaderSize()
	clear(p[:n])
	p[OffType], p[OffFlags], p[OffHLEN] = uint8(t), flags, uint8(n)
	p.put32(OffPLEN, uint32(n))
}

func bit(set bool, m uint8) uint8 {
	if set {
		return m
	}
	return 0
}

// ICReq is an Initialize Connection Request (NVMe/TCP 1.0 §3.6.2.2).
type ICReq struct {
	Version      uint16
	Align        uint8 // HPDA, 0 to MaxAlign: see AlignBytes
	HeaderDigest bool  // asked for
	DataDigest   bool
	MaxR2T       uint32 // MAXR2T: one less than the R2Ts that may be outstanding for a command
}

// Type returns TypeICReq.
func (*ICReq) Type() Type { return TypeICReq }

// Put writes the header, which is the whole PDU.
func (f *ICReq) Put(p PDU) {
	start(p, TypeICReq, 0)
	putIC(p, f.Version, f.Align, f.HeaderDigest, f.DataDigest, f.MaxR2T)
}

// ICResp is an Initialize Connection Response (NVMe/TCP 1.0 §3.6.2.3).
type ICResp struct {
	Version      uint16
	Align        uint8 // CPDA, 0 to MaxAlign: see AlignBytes
	HeaderDigest bool  // in use
	DataDigest   bool
	MaxH2CData   uint32 // bytes, a multiple of 4 and at least MinH2CData
}

// Type returns TypeICResp.
func (*ICResp) Type() Type { return TypeICResp }

// Put writes the header, which is the whole PDU.
func (f *ICResp) Put(p PDU) {
	start(p, TypeICResp, 0)
	putIC(p, f.Version, f.Align, f.HeaderDigest, f.DataDigest, f.MaxH2CData)
}

func putIC(p PDU, version uint16, align uint8, header, data bool, limit uint32) {
	p.put16(OffPFV, version)
	p[OffPDA] = align
	p[OffDGST] = bit(header, maskHeaderDigest) | bit(data, maskDataDigest)
	p.put32(OffMAXR2T, limit)
}

// H2CTermReq is a Host to Controller Terminate Connection Request (NVMe/TCP
// 1.0 §3.6.2.4). Its data is the header of the PDU in error, at most
// MaxTermData bytes.
type H2CTermReq struct{ Fault }

// Type returns TypeH2CTermReq.
func (*H2CTermReq) Type() Type { return TypeH2CTermReq }

// Put writes the header.
func (f *H2CTermReq) Put(p PDU) { putTerm(p, TypeH2CTermReq, f.Fault) }

// C2HTermReq is a Controller to Host Terminate Connection Request (NVMe/TCP
// 1.0 §3.6.2.5). Its data is the header of the PDU in error, at most
// MaxTermData bytes.
type C2HTermReq struct{ Fault }

// Type returns TypeC2HTermReq.
func (*C2HTermReq) Type() Type { return TypeC2HTermReq }

// Put writes the header.
func (f *C2HTermReq) Put(p PDU) { putTerm(p, TypeC2HTermReq, f.Fault) }

func putTerm(p PDU, t Type, f Fault) {
	start(p, t, 0)
	p.put16(8, uint16(f.Status))
	p.put32(10, f.Info)
}

// AppendTerm appends a termination request of either kind, which carries no
// digests and whose data follows the header at once (PDO is reserved).
func AppendTerm(dst []byte, f Fields, header []byte) []byte {
	header = header[:min(len(header), MaxTermData)]
	at := len(dst)
	dst = append(dst, make([]byte, TermReqSize)...)
	f.Put(dst[at:])
	PDU(dst[at:]).put32(OffPLEN, uint32(TermReqSize+len(header)))
	return append(dst, header...)
}

// CapsuleCmd is a Command Capsule (NVMe/TCP 1.0 §3.6.2.6).
type CapsuleCmd struct {
	SQE []byte // SQESize bytes; nil leaves zeros for the caller to fill in
}

// Type returns TypeCapsuleCmd.
func (*CapsuleCmd) Type() Type { return TypeCapsuleCmd }

// Put writes the header.
func (f *CapsuleCmd) Put(p PDU) {
	start(p, TypeCapsuleCmd, 0)
	copy(p.SQE(), f.SQE)
}

// CapsuleResp is a Response Capsule (NVMe/TCP 1.0 §3.6.2.7).
type CapsuleResp struct {
	CQE []byte // CQESize bytes; nil leaves zeros for the caller to fill in
}

// Type returns TypeCapsuleResp.
func (*CapsuleResp) Type() Type { return TypeCapsuleResp }

// Put writes the header.
func (f *CapsuleResp) Put(p PDU) {
	start(p, TypeCapsuleResp, 0)
	copy(p.CQE(), f.CQE)
}

// H2CData is Host to Controller Data (NVMe/TCP 1.0 §3.6.2.8).
type H2CData struct {
	Last          bool
	CommandID     uint16 // CCCID
	TransferTag   uint16 // TTAG of the R2T
	Offset, Count uint32 // DATAO, DATAL: bytes
}

// Type returns TypeH2CData.
func (*H2CData) Type() Type { return TypeH2CData }

// Put writes the header.
func (f *H2CData) Put(p PDU) {
	start(p, TypeH2CData, bit(f.Last, FlagLast))
	putRange(p, f.CommandID, f.TransferTag, f.Offset, f.Count)
}

// C2HData is Controller to Host Data (NVMe/TCP 1.0 §3.6.2.9).
type C2HData struct {
	Last, Success bool
	CommandID     uint16 // CCCID
	Offset, Count uint32 // DATAO, DATAL: bytes
}

// Type returns TypeC2HData.
func (*C2HData) Type() Type { return TypeC2HData }

// Put writes the header.
func (f *C2HData) Put(p PDU) {
	start(p, TypeC2HData, bit(f.Last, FlagLast)|bit(f.Success, FlagSuccess))
	putRange(p, f.CommandID, 0, f.Offset, f.Count)
}

// R2T is Ready to Transfer (NVMe/TCP 1.0 §3.6.2.10).
type R2T struct {
	CommandID     uint16 // CCCID
	TransferTag   uint16 // TTAG
	Offset, Count uint32 // R2TO, R2TL: bytes
}

// Type returns TypeR2T.
func (*R2T) Type() Type { return TypeR2T }

// Put writes the header.
func (f *R2T) Put(p PDU) {
	start(p, TypeR2T, 0)
	putRange(p, f.CommandID, f.TransferTag, f.Offset, f.Count)
}

func putRange(p PDU, id, tag uint16, off, count uint32) {
	p.put16(OffCCCID, id)
	p.put16(OffTTAG, tag)
	p.put32(OffDATAO, off)
	p.put32(OffDATAL, count)
}
