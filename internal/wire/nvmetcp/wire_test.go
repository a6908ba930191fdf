package nvmetcp

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// TestFields checks the place of every field of every PDU (NVMe/TCP 1.0 §3.6.2.1, §3.6.2.2, §3.6.2.3, §3.6.2.4, §3.6.2.5, §3.6.2.6, §3.6.2.7, §3.6.2.8, §3.6.2.9, §3.6.2.10).
func TestFields(t *testing.T) {
	sqe, cqe := make([]byte, SQESize), make([]byte, CQESize)
	for i := range sqe {
		sqe[i] = byte(i + 1)
	}
	copy(cqe, sqe)
	zeros := func(n int) string { return strings.Repeat("00", n) }
	for _, c := range []struct {
		f    Fields
		want string
	}{
		{&ICReq{Version: 0x0102, Align: 3, HeaderDigest: true, MaxR2T: 0x11121314}, "00008000 80000000 0201 03 01 14131211" + zeros(112)},
		{&ICResp{Version: 0x0102, Align: 31, DataDigest: true, MaxH2CData: 0x21222324}, "01008000 80000000 0201 1f 02 24232221" + zeros(112)},
		{&H2CTermReq{Fault{StatusOutOfRange, 0x31323334}}, "02001800 18000000 0400 34333231" + zeros(10)},
		{&C2HTermReq{Fault{StatusUnsupported, 0x31323334}}, "03001800 18000000 0600 34333231" + zeros(10)},
		{&CapsuleCmd{SQE: sqe}, "04004800 48000000" + hex.EncodeToString(sqe)},
		{&CapsuleResp{CQE: cqe}, "05001800 18000000" + hex.EncodeToString(cqe)},
		{&H2CData{Last: true, CommandID: 0x0102, TransferTag: 0x0304, Offset: 0x11121314, Count: 0x21222324}, "06041800 18000000 0201 0403 14131211 24232221 00000000"},
		{&C2HData{Last: true, Success: true, CommandID: 0x0102, Offset: 0x11121314, Count: 0x21222324}, "070c1800 18000000 0201 0000 14131211 24232221 00000000"},
		{&R2T{CommandID: 0x0102, TransferTag: 0x0304, Offset: 0x11121314, Count: 0x21222324}, "09001800 18000000 0201 0403 14131211 24232221 00000000"},
	} {
		p := PDU(bytes.Repeat([]byte{0xee}, c.f.Type().HeaderSize()))
		c.f.Put(p)
		if got, want := hex.EncodeToString(p), strings.ReplaceAll(c.want, " ", ""); got != want {
			t.Errorf("%s\n got %s\nwant %s", c.f.Type(), got, want)
		}
	}
}

// TestGetters checks that getters read what Put wrote (NVMe/TCP 1.0 §3.6.2).
func TestGetters(t *testing.T) {
	p := make(PDU, ICSize)
	(&ICReq{Version: 7, Align: 9, HeaderDigest: true, MaxR2T: 0xFFFFFFFF}).Put(p)
	if h, d := p.Digests(); p.Type() != TypeICReq || p.Version() != 7 || p.Align() != 9 || !h || d || p.MaxR2T() != 1<<32 {
		t.Errorf("ICReq % x", p[:16])
	}
	(&ICResp{Align: 9, DataDigest: true, MaxH2CData: 4096}).Put(p)
	if h, d := p.Digests(); p.Type() != TypeICResp || p.Align() != 9 || h || !d || p.MaxH2CData() != 4096 {
		t.Errorf("ICResp % x", p[:16])
	}
	(&C2HTermReq{Fault{StatusSequence, 9}}).Put(p)
	if p.Status() != StatusSequence || p.Info() != 9 || p.HeaderLength() != TermReqSize || p.Length() != TermReqSize || p.DataOffset() != 0 {
		t.Errorf("C2HTermReq % x", p[:24])
	}
	(&CapsuleCmd{SQE: bytes.Repeat([]byte{5}, SQESize)}).Put(p)
	if len(p.SQE()) != SQESize || p.SQE()[63] != 5 {
		t.Errorf("CapsuleCmd % x", p[:72])
	}
	(&CapsuleResp{CQE: bytes.Repeat([]byte{6}, CQESize)}).Put(p)
	if len(p.CQE()) != CQESize || p.CQE()[15] != 6 {
		t.Errorf("CapsuleResp % x", p[:24])
	}
	(&C2HData{Last: true, CommandID: 4, Offset: 5, Count: 6}).Put(p)
	if !p.Last() || p.Success() || p.CommandID() != 4 || p.Offset() != 5 || p.Count() != 6 || p.Flags() != FlagLast {
		t.Errorf("C2HData % x", p[:24])
	}
	(&R2T{CommandID: 4, TransferTag: 7, Offset: 5, Count: 6}).Put(p)
	if p.TransferTag() != 7 {
		t.Errorf("R2T % x", p[:24])
	}
}

// TestDigest checks CRC32C (NVMe/TCP 1.0 §3.3.1.1).
func TestDigest(t *testing.T) {
	b := make([]byte, 4)
	PutDigest(b, ContinueDigest(Digest(make([]byte, 7)), make([]byte, 25)))
	if !bytes.Equal(b, []byte{0xaa, 0x36, 0x91, 0x8a}) || GetDigest(b) != Digest(make([]byte, 32)) {
		t.Errorf("digest of 32 zeros is % x", b)
	}
}

// TestAppend checks where data and digests of a PDU go, and that Check finds them (NVMe/TCP 1.0 §3.6.2.1).
func TestAppend(t *testing.T) {
	data := []byte("0123456789abcdef")
	for _, c := range []struct {
		f                Fields
		header, digest   bool
		align            uint8
		data             []byte
		wantData, wantIn int
	}{
		{&CapsuleCmd{}, false, false, 0, nil, 0, 72},
		{&CapsuleCmd{}, true, true, 31, nil, 0, 76},
		{&CapsuleCmd{}, false, false, 0, data, 72, 88},
		{&CapsuleCmd{}, true, true, 0, data, 76, 96},
		{&CapsuleCmd{}, true, true, 31, data, 128, 148},
		{&H2CData{Count: 16}, true, false, 3, data, 32, 48},
		{&H2CData{Count: 16}, false, true, 2, data, 24, 44},
		{&C2HData{Count: 16}, false, true, 15, data, 64, 84},
		{&CapsuleResp{}, true, true, 31, nil, 0, 28},
		{&R2T{}, true, true, 31, nil, 0, 28},
	} {
		s := Sender{HeaderDigest: c.header, DataDigest: c.digest, Align: AlignBytes(c.align)}
		p := PDU(s.Append([]byte("x"), c.f, c.data)[1:])
		if len(p) != c.wantIn || p.Length() != c.wantIn || p.DataOffset() != c.wantData {
			t.Errorf("%s: %d bytes, PLEN %d, PDO %d; want %d, %d", c.f.Type(), len(p), p.Length(), p.DataOffset(), c.wantIn, c.wantData)
		}
		r := Receiver{Host: c.f.Type()&1 == 1, HeaderDigest: c.header, DataDigest: c.digest, Align: AlignBytes(c.align)}
		l, f := r.Check(p)
		if f.Bad() || l.Size != len(p) || l.DataLength != len(c.data) || l.HeaderDigest != c.f.Type().HeaderSize() {
			t.Fatalf("%s: %+v, %+v", c.f.Type(), l, f)
		}
		if c.header && Digest(p[:l.HeaderDigest]) != GetDigest(p[l.HeaderDigest:]) {
			t.Errorf("%s: wrong header digest", c.f.Type())
		}
		if got := p[l.Data:][:l.DataLength]; !bytes.Equal(got, c.data) {
			t.Errorf("%s: data is %q", c.f.Type(), got)
		}
		if c.digest && len(c.data) > 0 && Digest(c.data) != GetDigest(p[l.Data+l.DataLength:]) {
			t.Errorf("%s: wrong data digest", c.f.Type())
		}
		if c.digest && len(c.data) > 0 && s.Tail() != DigestSize || !c.digest && s.Tail() != 0 {
			t.Errorf("Tail is %d", s.Tail())
		}
	}
}

// TestTerm checks what a termination request carries (NVMe/TCP 1.0 §3.6.2.4, §3.6.2.5).
func TestTerm(t *testing.T) {
	long := bytes.Repeat([]byte{7}, 200)
	p := PDU(AppendTerm(nil, &C2HTermReq{Invalid(OffPLEN)}, long))
	r := Receiver{Host: true, HeaderDigest: true, DataDigest: true, Align: 128}
	l, f := r.Check(p)
	if f.Bad() || len(p) != MaxTermReq || l.DataLength != MaxTermData || p.Status() != StatusInvalidHeader || p.Info() != OffPLEN {
		t.Errorf("% x: %+v %+v", p, l, f)
	}
}

// TestCheck checks that every wrong field of the common header is found, the first one first (NVMe/TCP 1.0 §3.5, §3.6.2.1).
func TestCheck(t *testing.T) {
	digests := Receiver{HeaderDigest: true, DataDigest: true, Align: 8}
	plain := Receiver{Align: 4}
	host := Receiver{Host: true}
	for name, c := range map[string]struct {
		r    Receiver
		f    Fields
		n    int
		poke func(PDU)
		want Fault
	}{
		"unknown type":           {plain, &CapsuleCmd{}, 0, func(p PDU) { p[0] = 0x08 }, Invalid(OffType)},
		"far unknown type":       {plain, &CapsuleCmd{}, 0, func(p PDU) { p[0] = 0x84 }, Invalid(OffType)},
		"wrong direction":        {plain, &C2HData{}, 16, nil, Invalid(OffType)},
		"wrong direction, host":  {host, &H2CData{}, 16, nil, Invalid(OffType)},
		"second ICReq":           {plain, &ICReq{}, 0, nil, Fault{Status: StatusSequence}},
		"second ICResp":          {host, &ICResp{}, 0, nil, Fault{Status: StatusSequence}},
		"ICReq to host":          {host, &ICReq{}, 0, nil, Invalid(OffType)},
		"ICResp to controller":   {plain, &ICResp{}, 0, nil, Invalid(OffType)},
		"no header digest":       {digests, &CapsuleCmd{}, 0, func(p PDU) { p[1] &^= FlagHeaderDigest }, Invalid(OffFlags)},
		"needless header digest": {plain, &CapsuleCmd{}, 0, func(p PDU) { p[1] |= FlagHeaderDigest }, Invalid(OffFlags)},
		"no data digest":         {digests, &CapsuleCmd{}, 16, func(p PDU) { p[1] &^= FlagDataDigest }, Invalid(OffFlags)},
		"needless data digest":   {plain, &CapsuleCmd{}, 16, func(p PDU) { p[1] |= FlagDataDigest }, Invalid(OffFlags)},
		"digest of termination":  {plain, &H2CTermReq{}, 0, func(p PDU) { p[1] |= FlagDataDigest }, Invalid(OffFlags)},
		"SUCCESS without LAST":   {host, &C2HData{Success: true}, 16, nil, Invalid(OffFlags)},
		"HLEN":                   {plain, &CapsuleCmd{}, 0, func(p PDU) { p[2]++ }, Invalid(OffHLEN)},
		"HLEN 0":                 {plain, &H2CData{}, 16, func(p PDU) { p[2] = 0 }, Invalid(OffHLEN)},
		"PDO in header":          {plain, &CapsuleCmd{}, 16, func(p PDU) { p[3] = 68 }, Invalid(OffPDO)},
		"PDO in digest":          {digests, &CapsuleCmd{}, 16, func(p PDU) { p[3] = 72 }, Invalid(OffPDO)},
		"PDO not aligned":        {digests, &CapsuleCmd{}, 16, func(p PDU) { p[3] = 84 }, Invalid(OffPDO)},
		"PDO behind":             {plain, &CapsuleCmd{}, 16, func(p PDU) { p[3] = 88 }, Invalid(OffPLEN)},
		"PLEN short":             {plain, &CapsuleCmd{}, 16, func(p PDU) { p.put32(4, 71) }, Invalid(OffPLEN)},
		"PLEN 0":                 {plain, &CapsuleCmd{}, 0, func(p PDU) { p.put32(4, 0) }, Invalid(OffPLEN)},
		"only digest":            {digests, &CapsuleCmd{}, 16, func(p PDU) { p.put32(4, 84) }, Invalid(OffPLEN)},
		"data of R2T":            {host, &R2T{}, 0, func(p PDU) { p.put32(4, 32) }, Invalid(OffPLEN)},
		"data of CapsuleResp":    {host, &CapsuleResp{}, 0, func(p PDU) { p.put32(4, 32) }, Invalid(OffPLEN)},
		"termination too long":   {plain, &H2CTermReq{}, 0, func(p PDU) { p.put32(4, 153) }, Invalid(OffPLEN)},
		"termination too short":  {plain, &H2CTermReq{}, 0, func(p PDU) { p.put32(4, 23) }, Invalid(OffPLEN)},
	} {
		s := Sender{HeaderDigest: c.r.HeaderDigest, DataDigest: c.r.DataDigest, Align: c.r.Align}
		p := PDU(s.Append(nil, c.f, make([]byte, c.n)))
		if c.poke != nil {
			c.poke(p)
		}
		if _, got := c.r.Check(p); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	// The largest PLEN is one of much data, which the caller judges.
	p := PDU((&Sender{}).Append(nil, &CapsuleCmd{}, make([]byte, 4)))
	p.put32(4, 1<<32-1)
	if l, f := plain.Check(p); f.Bad() || l.DataLength != 1<<32-1-72 {
		t.Errorf("%+v %+v", l, f)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		TypeR2T.String(): "R2T", Type(8).String(): "PDU type 0x08", Type(99).String(): "PDU type 0x63",
		StatusLimitExceeded.String(): "data transfer limit exceeded", Status(0).String(): "fatal error status 0x00", Status(99).String(): "fatal error status 0x63",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if Type(8).HeaderSize() != 0 || Type(99).HeaderSize() != 0 {
		t.Error("types that do not exist have a length")
	}
}

func FuzzCheck(f *testing.F) {
	for _, s := range []Sender{{}, {HeaderDigest: true, DataDigest: true, Align: 128}} {
		for _, c := range []Fields{&CapsuleCmd{}, &CapsuleResp{}, &H2CData{}, &C2HData{}, &R2T{}, &H2CTermReq{}, &C2HTermReq{}, &ICReq{}, &ICResp{}} {
			f.Add(s.Append(nil, c, nil), uint8(0))
			f.Add(s.Append(nil, c, make([]byte, 8)), uint8(0xff))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, how uint8) {
		if len(in) < CommonSize {
			return
		}
		r := Receiver{Host: how&1 != 0, HeaderDigest: how&2 != 0, DataDigest: how&4 != 0, Align: AlignBytes(how >> 3)}
		p := PDU(in)
		l, fault := r.Check(p)
		if fault.Bad() {
			return
		}
		tail := 0
		if r.DataDigest && l.DataLength > 0 && p.Type().digested() {
			tail = DigestSize
		}
		if l.HeaderDigest != p.Type().HeaderSize() || l.Data < l.HeaderDigest || l.DataLength < 0 || l.Data+l.DataLength+tail != l.Size || l.Size != p.Length() || l.Data > 255 {
			t.Fatalf("% x: %+v", p[:CommonSize], l)
		}
	})
}
