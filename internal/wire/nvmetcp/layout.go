package nvmetcp

// Layout says where the parts of a PDU lie, in bytes from its start.
type Layout struct {
	HeaderDigest int // where the header digest is, or would be
	Data         int // where the data begins
	DataLength   int // how much there is of it, without digest
	Size         int // the length of the whole PDU
}

// Fault is why a PDU ends the connection: the status and information of the
// termination request. The zero Fault is none.
type Fault struct {
	Status Status
	Info   uint32
}

// Bad reports whether there is a fault.
func (f Fault) Bad() bool { return f.Status != 0 }

// Invalid is the fault of a header field at an offset.
func Invalid(off int) Fault { return Fault{StatusInvalidHeader, uint32(off)} }

// Receiver is what one side has told the other, or agreed on with it, about the
// PDUs that it takes once the connection is initialized.
type Receiver struct {
	Host         bool // takes PDUs of a controller, else those of a host
	HeaderDigest bool
	DataDigest   bool
	Align        int // bytes: data begins at a multiple of it, see AlignBytes
}

const typesFromHost = 1<<TypeH2CTermReq | 1<<TypeCapsuleCmd | 1<<TypeH2CData
const typesFromController = 1<<TypeC2HTermReq | 1<<TypeCapsuleResp | 1<<TypeC2HData | 1<<TypeR2T

// Check checks the common header of a PDU, of which at least CommonSize bytes
// are there, and finds where its parts lie. The first field that is
// wrong is the one reported (NVMe/TCP 1.0 §3.5, §3.6.2.1). How much data there
// may be is for the caller to judge.
//
// A data digest is expected with data only. A PDU that may carry data and has
// none may have any PDO.
func (r *Receiver) Check(p PDU) (Layout, Fault) {
	t := p.Type()
	types := uint(typesFromHost)
	if r.Host {
		types = typesFromController
	}
	if t >= 16 || types>>t&1 == 0 {
		switch t {
		case TypeICReq, TypeICResp:
			if (t == TypeICResp) == r.Host {
				return Layout{}, Fault{Status: StatusSequence}
			}
		}
		return Layout{}, Invalid(OffType)
	}
	term := t == TypeH2CTermReq || t == TypeC2HTermReq
	digest := r.HeaderDigest && !term
	if p.Flags()&FlagHeaderDigest != 0 != digest {
		return Layout{}, Invalid(OffFlags)
	}
	if p.Success() && !p.Last() && t == TypeC2HData {
		return Layout{}, Invalid(OffFlags)
	}
	l := Layout{HeaderDigest: t.HeaderSize(), Size: p.Length()}
	if p.HeaderLength() != l.HeaderDigest {
		return Layout{}, Invalid(OffHLEN)
	}
	l.Data = l.HeaderDigest
	if digest {
		l.Data += DigestSize
	}
	if l.Size == l.Data {
		if p.Flags()&FlagDataDigest != 0 && term {
			return Layout{}, Invalid(OffFlags)
		}
		return l, Fault{}
	}
	switch t {
	case TypeCapsuleResp, TypeR2T:
		return Layout{}, Invalid(OffPLEN)
	case TypeH2CTermReq, TypeC2HTermReq:
		if l.Size < TermReqSize || l.Size > MaxTermReq {
			return Layout{}, Invalid(OffPLEN)
		}
		l.DataLength = l.Size - l.Data
		return l, Fault{}
	}
	if p.Flags()&FlagDataDigest != 0 != r.DataDigest {
		return Layout{}, Invalid(OffFlags)
	}
	if l.Size < l.Data {
		return Layout{}, Invalid(OffPLEN)
	}
	if off := p.DataOffset(); off < l.Data || r.Align > 1 && off%r.Align != 0 {
		return Layout{}, Invalid(OffPDO)
	} else {
		l.Data = off
	}
	tail := 0
	if r.DataDigest {
		tail = DigestSize
	}
	if l.DataLength = l.Size - l.Data - tail; l.DataLength <= 0 {
		return Layout{}, Invalid(OffPLEN)
	}
	return l, Fault{}
}

// Sender is what one side has agreed on with the other about the PDUs that it
// sends once the connection is initialized.
type Sender struct {
	HeaderDigest bool
	DataDigest   bool
	Align        int // bytes, as the other side has asked for
}

// Room returns how many bytes a PDU of the type takes in front of its data, or
// in all where it has none: header, header digest and padding.
func (s *Sender) Room(t Type, data bool) int {
	n := t.HeaderSize()
	if s.HeaderDigest && t.digested() {
		n += DigestSize
	}
	if data && s.Align > 1 {
		n += (s.Align - n%s.Align) % s.Align
	}
	return n
}

// Tail returns how many bytes follow the data of a PDU.
func (s *Sender) Tail() int {
	if s.DataDigest {
		return DigestSize
	}
	return 0
}

func (t Type) digested() bool { return t > TypeC2HTermReq }

// Seal completes a PDU that has n bytes of data: p is as long as Room says and
// has its fields put. It sets PDO, PLEN and the digest flags, clears the
// padding and writes the header digest. The data digest is for the caller to
// put behind the data.
func (s *Sender) Seal(p PDU, n int) {
	size := p.HeaderLength()
	length := len(p) + n
	if n > 0 {
		p[OffPDO] = uint8(len(p))
		if s.DataDigest && p.Type().digested() {
			p[OffFlags] |= FlagDataDigest
			length += DigestSize
		}
	}
	p.put32(OffPLEN, uint32(length))
	clear(p[size:])
	if s.HeaderDigest && p.Type().digested() {
		p[OffFlags] |= FlagHeaderDigest
		PutDigest(p[size:], Digest(p[:size]))
	}
}

// Append appends a whole PDU to dst.
func (s *Sender) Append(dst []byte, f Fields, data []byte) []byte {
	at := len(dst)
	n := s.Room(f.Type(), len(data) > 0)
	for range n {
		dst = append(dst, 0)
	}
	p := PDU(dst[at:])
	f.Put(p)
	s.Seal(p, len(data))
	dst = append(dst, data...)
	if len(data) > 0 && s.DataDigest && f.Type().digested() {
		var d [DigestSize]byte
		PutDigest(d[:], Digest(data))
		dst = append(dst, d[:]...)
	}
	return dst
}
