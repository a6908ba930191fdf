package iscsi

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLayout checks where digests and padding lie (RFC 7143 §11.2.1, §11.2.3).
func TestLayout(t *testing.T) {
	b := make(BHS, HeaderSize)
	b.SetAHSLength(8)
	b.SetDataLength(5)
	for _, c := range []struct {
		h, d bool
		want Layout
	}{
		{false, false, Layout{56, 56, 64, 64}},
		{true, false, Layout{56, 60, 68, 68}},
		{true, true, Layout{56, 60, 68, 72}},
	} {
		if got := b.Layout(c.h, c.d); got != c.want {
			t.Errorf("Layout(%v, %v) = %+v, want %+v", c.h, c.d, got, c.want)
		}
	}
	b.SetDataLength(0)
	if got := b.Layout(false, true).Size; got != 56 {
		t.Errorf("without data the PDU has %d bytes, want 56: no data digest", got)
	}
	b.SetDataLength(MaxDataSegment)
	if b.DataLength() != MaxDataSegment || b.AHSLength() != 8 {
		t.Errorf("lengths overlap: %d, %d", b.DataLength(), b.AHSLength())
	}
}

// TestDigest checks CRC32C against the standard's examples (RFC 7143 §13.1, RFC 3720 §B.4).
func TestDigest(t *testing.T) {
	up, down := make([]byte, 32), make([]byte, 32)
	for i := range up {
		up[i], down[i] = byte(i), byte(31-i)
	}
	for _, c := range []struct {
		data []byte
		want []byte
	}{
		{make([]byte, 32), []byte{0xaa, 0x36, 0x91, 0x8a}},
		{bytes.Repeat([]byte{0xff}, 32), []byte{0x43, 0xab, 0xa8, 0x62}},
		{up, []byte{0x4e, 0x79, 0xdd, 0x46}},
		{down, []byte{0x5c, 0xdb, 0x3f, 0x11}},
	} {
		got := make([]byte, 4)
		PutDigest(got, Digest(c.data[:7], c.data[7:]))
		if !bytes.Equal(got, c.want) {
			t.Errorf("digest of % x = % x, want % x", c.data, got, c.want)
		}
		if GetDigest(got) != Digest(c.data) {
			t.Error("GetDigest does not undo PutDigest")
		}
	}
}

// TestFields checks the place of every field of every PDU (RFC 7143 §11.3, §11.4, §11.5, §11.6, §11.7, §11.8, §11.9, §11.10, §11.11, §11.12, §11.13, §11.14, §11.15, §11.16, §11.17, §11.18, §11.19).
func TestFields(t *testing.T) {
	n := Numbers{StatSN: 0xa1a2a3a4, ExpCmdSN: 0xb1b2b3b4, MaxCmdSN: 0xc1c2c3c4}
	const lun, itt, ttt = 0x0102030405060708, 0x11121314, 0x21222324
	for _, c := range []struct {
		name string
		f    Fields
		want string // 48 bytes, hexadecimal, by eight words of... spaces ignored
	}{
		{"SCSI Command", &SCSICommand{Immediate: true, Final: true, Read: true, Write: true, Attr: 3, LUN: lun, ITT: itt, ExpectedLength: 0x31323334, CmdSN: 0x41424344, ExpStatSN: 0x51525354, CDB: []byte{0x28, 1, 2, 3}},
			"41e30000 00000000 01020304 05060708 11121314 31323334 41424344 51525354 28010203 00000000 00000000 00000000"},
		{"SCSI Response", &SCSIResponse{Flags: FlagUnderflow, Response: 1, Status: 2, ITT: itt, SNACKTag: ttt, Numbers: n, ExpDataSN: 0x61626364, BidiResidual: 0x71727374, Residual: 0x81828384},
			"21820102 00000000 00000000 00000000 11121314 21222324 a1a2a3a4 b1b2b3b4 c1c2c3c4 61626364 71727374 81828384"},
		{"task management", &TaskManagement{Immediate: true, Function: 5, LUN: lun, ITT: itt, ReferencedTaskTag: 0x31323334, CmdSN: 0x41424344, ExpStatSN: 0x51525354, RefCmdSN: 0x61626364, ExpDataSN: 0x71727374},
			"42850000 00000000 01020304 05060708 11121314 31323334 41424344 51525354 61626364 71727374 00000000 00000000"},
		{"task management response", &TaskManagementResponse{Response: 5, ITT: itt, Numbers: n},
			"22800500 00000000 00000000 00000000 11121314 00000000 a1a2a3a4 b1b2b3b4 c1c2c3c4 00000000 00000000 00000000"},
		{"Data-Out", &DataOut{Final: true, LUN: lun, ITT: itt, TTT: ttt, ExpStatSN: 0x51525354, DataSN: 0x61626364, BufferOffset: 0x71727374},
			"05800000 00000000 01020304 05060708 11121314 21222324 00000000 51525354 00000000 61626364 71727374 00000000"},
		{"Data-In", &DataIn{Flags: FlagFinal | FlagStatus, Status: 8, LUN: lun, ITT: itt, TTT: NoTag, Numbers: n, DataSN: 0x61626364, BufferOffset: 0x71727374, Residual: 0x81828384},
			"25810008 00000000 01020304 05060708 11121314 ffffffff a1a2a3a4 b1b2b3b4 c1c2c3c4 61626364 71727374 81828384"},
		{"R2T", &R2T{LUN: lun, ITT: itt, TTT: ttt, Numbers: n, R2TSN: 0x61626364, BufferOffset: 0x71727374, DesiredLength: 0x81828384},
			"31800000 00000000 01020304 05060708 11121314 21222324 a1a2a3a4 b1b2b3b4 c1c2c3c4 61626364 71727374 81828384"},
		{"async", &Async{LUN: lun, Numbers: n, Event: AsyncLogoutRequest, VCode: 9, Parameter1: 0x0102, Parameter2: 0x0304, Parameter3: 0x0506},
			"32800000 00000000 01020304 05060708 ffffffff 00000000 a1a2a3a4 b1b2b3b4 c1c2c3c4 01090102 03040506 00000000"},
		{"text", &Text{Immediate: true, Continue: true, LUN: lun, ITT: itt, TTT: ttt, CmdSN: 0x41424344, ExpStatSN: 0x51525354},
			"44400000 00000000 01020304 05060708 11121314 21222324 41424344 51525354 00000000 00000000 00000000 00000000"},
		{"text response", &TextResponse{Final: true, LUN: lun, ITT: itt, TTT: ttt, Numbers: n},
			"24800000 00000000 01020304 05060708 11121314 21222324 a1a2a3a4 b1b2b3b4 c1c2c3c4 00000000 00000000 00000000"},
		{"login", &Login{Transit: true, CSG: StageOperational, NSG: StageFullFeature, VersionMax: 1, VersionMin: 2, ISID: ISID{1, 2, 3, 4, 5, 6}, TSIH: 0x0708, ITT: itt, CID: 0x2122, CmdSN: 0x41424344, ExpStatSN: 0x51525354},
			"43870102 00000000 01020304 05060708 11121314 21220000 41424344 51525354 00000000 00000000 00000000 00000000"},
		{"login response", &LoginResponse{Transit: true, CSG: StageSecurity, NSG: StageOperational, VersionMax: 1, VersionActive: 2, ISID: ISID{1, 2, 3, 4, 5, 6}, TSIH: 0x0708, ITT: itt, Numbers: n, Status: LoginAuthFailure},
			"23810102 00000000 01020304 05060708 11121314 00000000 a1a2a3a4 b1b2b3b4 c1c2c3c4 02010000 00000000 00000000"},
		{"logout", &Logout{Reason: LogoutCloseConnection, ITT: itt, CID: 0x2122, CmdSN: 0x41424344, ExpStatSN: 0x51525354},
			"06810000 00000000 00000000 00000000 11121314 21220000 41424344 51525354 00000000 00000000 00000000 00000000"},
		{"logout response", &LogoutResponse{Response: 1, ITT: itt, Numbers: n, Time2Wait: 0x0102, Time2Retain: 0x0304},
			"26800100 00000000 00000000 00000000 11121314 00000000 a1a2a3a4 b1b2b3b4 c1c2c3c4 00000000 01020304 00000000"},
		{"SNACK", &SNACK{Type: SNACKStatus, LUN: lun, ITT: itt, TTT: ttt, ExpStatSN: 0x51525354, BegRun: 0x71727374, RunLength: 0x81828384},
			"10810000 00000000 01020304 05060708 11121314 21222324 00000000 51525354 00000000 00000000 71727374 81828384"},
		{"reject", &Reject{Reason: ReasonProtocolError, Numbers: n, DataSN: 0x61626364},
			"3f800400 00000000 00000000 00000000 ffffffff 00000000 a1a2a3a4 b1b2b3b4 c1c2c3c4 61626364 00000000 00000000"},
		{"NOP-Out", &NOPOut{Immediate: true, LUN: lun, ITT: itt, TTT: ttt, CmdSN: 0x41424344, ExpStatSN: 0x51525354},
			"40800000 00000000 01020304 05060708 11121314 21222324 41424344 51525354 00000000 00000000 00000000 00000000"},
		{"NOP-In", &NOPIn{LUN: lun, ITT: itt, TTT: ttt, Numbers: n},
			"20800000 00000000 01020304 05060708 11121314 21222324 a1a2a3a4 b1b2b3b4 c1c2c3c4 00000000 00000000 00000000"},
	} {
		b := BHS(bytes.Repeat([]byte{0xee}, HeaderSize))
		c.f.Put(b)
		got := strings.TrimPrefix(FormatHex(b), "0x")
		if want := strings.ReplaceAll(c.want, " ", ""); got != want {
			t.Errorf("%s\n got %s\nwant %s", c.name, got, want)
		}
	}
}

// TestGetters checks that getters read what Put wrote (RFC 7143 §11).
func TestGetters(t *testing.T) {
	b := make(BHS, HeaderSize)
	(&Login{Continue: true, CSG: StageOperational, VersionMax: 3, VersionMin: 2, ISID: RandomISID(0x123456, 7), TSIH: 8, CID: 9, ITT: 1, CmdSN: 2, ExpStatSN: 4}).Put(b)
	if b.Opcode() != OpLogin || !b.Immediate() || b.Final() || !b.Continue() || b.CSG() != StageOperational || b.NSG() != 0 ||
		b.VersionMax() != 3 || b.VersionMin() != 2 || b.ISID() != (ISID{0x80, 0x12, 0x34, 0x56, 0, 7}) || b.TSIH() != 8 || b.CID() != 9 ||
		b.ITT() != 1 || b.CmdSN() != 2 || b.ExpStatSN() != 4 {
		t.Errorf("login reads back wrong: % x", []byte(b))
	}
	(&SCSICommand{Final: true, Write: true, Attr: 2, ExpectedLength: 5, CDB: []byte{0x2a}}).Put(b)
	if b.Read() || !b.Write() || b.Attr() != 2 || b.ExpectedLength() != 5 || b.CDB()[0] != 0x2a || b.Flags() != 0xa2 {
		t.Errorf("SCSI Command reads back wrong: % x", []byte(b))
	}
	(&DataIn{Flags: FlagStatus, Status: 2, DataSN: 3, BufferOffset: 4, Residual: 5, Numbers: Numbers{6, 7, 8}}).Put(b)
	if b.Status() != 2 || b.DataSN() != 3 || b.BufferOffset() != 4 || b.Residual() != 5 || b.StatSN() != 6 || b.ExpCmdSN() != 7 || b.MaxCmdSN() != 8 {
		t.Errorf("Data-In reads back wrong: % x", []byte(b))
	}
	(&TaskManagement{Function: 1, ReferencedTaskTag: 2, RefCmdSN: 3, ExpDataSN: 4, LUN: 5}).Put(b)
	if b.Function() != 1 || b.ReferencedTaskTag() != 2 || b.TTT() != 2 || b.RefCmdSN() != 3 || b.ExpDataSN() != 4 || b.LUN() != 5 {
		t.Errorf("task management reads back wrong: % x", []byte(b))
	}
	(&Async{Event: AsyncNegotiate, VCode: 1, Parameter1: 2, Parameter2: 3, Parameter3: 4}).Put(b)
	if p1, p2, p3 := b.AsyncParameters(); b.AsyncEvent() != AsyncNegotiate || b.AsyncVCode() != 1 || p1 != 2 || p2 != 3 || p3 != 4 {
		t.Errorf("async reads back wrong: % x", []byte(b))
	}
	(&LogoutResponse{Response: 3, Time2Wait: 4, Time2Retain: 5}).Put(b)
	if w, r := b.Times(); b.Response() != 3 || w != 4 || r != 5 {
		t.Errorf("logout response reads back wrong: % x", []byte(b))
	}
	(&SNACK{Type: 2, BegRun: 3, RunLength: 4}).Put(b)
	if x, y := b.Run(); b.SNACKType() != 2 || x != 3 || y != 4 {
		t.Errorf("SNACK reads back wrong: % x", []byte(b))
	}
	(&R2T{DesiredLength: 9}).Put(b)
	b.SetResponse(7)
	b.SetStatus(8)
	b.SetFlags(1)
	if b.DesiredLength() != 9 || b.Response() != 7 || b.Status() != 8 || b.Flags() != 1 {
		t.Errorf("R2T reads back wrong: % x", []byte(b))
	}
	(&LoginResponse{Status: LoginAuthFailure}).Put(b)
	if s := b.LoginStatus(); s != LoginAuthFailure || s.Class() != 2 || s.Detail() != 1 {
		t.Errorf("login status reads back as %v", s)
	}
	(&SCSIResponse{BidiResidual: 4}).Put(b)
	if b.BidiResidual() != 4 {
		t.Error("bidirectional residual reads back wrong")
	}
}

// TestBefore checks serial number comparison (RFC 7143 §4.2.2.1).
func TestBefore(t *testing.T) {
	for _, c := range []struct {
		a, b uint32
		want bool
	}{{1, 2, true}, {2, 1, false}, {5, 5, false}, {0xffffffff, 0, true}, {0, 0xffffffff, false}} {
		if got := Before(c.a, c.b); got != c.want {
			t.Errorf("Before(%d, %d) = %v", c.a, c.b, got)
		}
	}
}

// TestAHS checks additional header segments (RFC 7143 §11.2.2).
func TestAHS(t *testing.T) {
	cdb := []byte("0123456789abcdefXYZ")
	b := AppendExtendedCDB(nil, cdb)
	b = AppendAHS(b, AHSBidiLength, []byte{0, 0, 0, 1, 0})
	kind, data, rest, err := NextAHS(b)
	if err != nil || kind != AHSExtendedCDB || string(data[1:]) != "XYZ" {
		t.Fatalf("first segment: %d %q %v", kind, data, err)
	}
	kind, data, rest, err = NextAHS(rest)
	if err != nil || kind != AHSBidiLength || len(data) != 5 || len(rest) != 0 {
		t.Fatalf("second segment: %d %q %v", kind, data, err)
	}
	if len(AppendExtendedCDB(nil, cdb[:16])) != 0 {
		t.Error("a 16-byte CDB needs no segment")
	}
	for _, bad := range [][]byte{{}, {0, 1, 1}, {0, 0, 1, 0}, {0, 9, 1, 0, 0, 0, 0, 0}, {0xff, 0xff, 1, 0}} {
		if _, _, _, err := NextAHS(bad); !errors.Is(err, ErrAHS) {
			t.Errorf("NextAHS(% x) = %v", bad, err)
		}
	}
}

// TestParseText checks the text format (RFC 7143 §6.1).
func TestParseText(t *testing.T) {
	text := AppendText(AppendText(nil, "InitiatorName", "iqn.a"), "iSCSIProtocolLevel", "1=2")
	got, err := ParseText(append(text, 0, 0), 2)
	want := []KeyValue{{"InitiatorName", "iqn.a"}, {"iSCSIProtocolLevel", "1=2"}}
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("ParseText = %q, %v", got, err)
	}
	for _, bad := range []string{"A=b", "A\x00", "=b\x00", "1A=b\x00", "A b=c\x00", strings.Repeat("A", 64) + "=b\x00",
		"A=" + strings.Repeat("b", MaxTextValue+1) + "\x00", "A=b\x00B=c\x00C=d\x00"} {
		if _, err := ParseText([]byte(bad), 2); !errors.Is(err, ErrText) {
			t.Errorf("ParseText(%.20q) = %v", bad, err)
		}
	}
}

// TestValues checks numbers, booleans and binary values (RFC 7143 §6.1).
func TestValues(t *testing.T) {
	for s, want := range map[string]uint64{"0": 0, "262144": 262144, "0x10": 16, "0XfF": 255} {
		if n, err := ParseNumber(s); err != nil || n != want {
			t.Errorf("ParseNumber(%q) = %d, %v", s, n, err)
		}
	}
	for _, s := range []string{"", "0x", "-1", "+1", "1_0", "1 ", "99999999999999999999", "x"} {
		if _, err := ParseNumber(s); !errors.Is(err, ErrText) {
			t.Errorf("ParseNumber(%q) = %v", s, err)
		}
	}
	for _, v := range []bool{true, false} {
		if got, err := ParseBool(FormatBool(v)); err != nil || got != v {
			t.Errorf("boolean %v reads back as %v, %v", v, got, err)
		}
	}
	if _, err := ParseBool("yes"); err == nil {
		t.Error("yes is no boolean")
	}
	data := []byte{0, 1, 0xfe, 0xff, 7}
	for _, s := range []string{FormatHex(data), FormatBase64(data), "0X0001fEff07", "0B" + FormatBase64(data)[2:], strings.TrimRight(FormatBase64(data), "=")} {
		if got, err := ParseBinary(s, 5); err != nil || !bytes.Equal(got, data) {
			t.Errorf("ParseBinary(%q) = % x, %v", s, got, err)
		}
		if _, err := ParseBinary(s, 4); err == nil {
			t.Errorf("ParseBinary(%q) accepts more than its limit", s)
		}
	}
	if got, err := ParseBinary("0x123", 4); err != nil || !bytes.Equal(got, []byte{1, 0x23}) {
		t.Errorf("odd number of digits: % x, %v", got, err)
	}
	for _, s := range []string{"", "12", "0xzz", "0b***", "0bQ\nQ="} {
		if _, err := ParseBinary(s, 64); !errors.Is(err, ErrText) {
			t.Errorf("ParseBinary(%q) = %v", s, err)
		}
	}
}

func TestNames(t *testing.T) {
	for i := range 256 {
		if Opcode(i).String() == "" || Stage(i).String() == "" {
			t.Errorf("%d has no name", i)
		}
	}
	for i := range 0x400 {
		if LoginStatus(i).String() == "" {
			t.Errorf("login status %#x has no name", i)
		}
	}
}

func TestAppendPDU(t *testing.T) {
	b := AppendPDU([]byte{1}, &NOPOut{ITT: 5}, []byte("hello"))
	h := BHS(b[1:])
	if len(b) != 1+HeaderSize+8 || h.DataLength() != 5 || h.ITT() != 5 || h.Layout(false, false).Size != 56 {
		t.Errorf("PDU is % x", b)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.a\x00MaxBurstLength=0x400\x00"))
	f.Add([]byte("CHAP_C=0bAAAA\x00\x00A=Yes\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := ParseText(b, 32)
		if err != nil {
			return
		}
		var again []byte
		for _, p := range pairs {
			again = AppendText(again, p.Key, p.Value)
			_, _ = ParseNumber(p.Value)
			_, _ = ParseBinary(p.Value, 1024)
		}
		if back, err := ParseText(again, 32); err != nil || !cmp.Equal(back, pairs) {
			t.Fatalf("%q reads back as %q, %v", pairs, back, err)
		}
	})
}

func FuzzAHS(f *testing.F) {
	f.Add(AppendExtendedCDB(nil, make([]byte, 32)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, data, rest, err := NextAHS(b)
			if err != nil {
				return
			}
			if len(data) < 1 || len(rest) >= len(b) {
				t.Fatalf("no progress on % x", b)
			}
			b = rest
		}
	})
}

func FuzzLayout(f *testing.F) {
	f.Add(make([]byte, HeaderSize), true, true)
	f.Fuzz(func(t *testing.T, b []byte, h, d bool) {
		if len(b) < HeaderSize {
			return
		}
		l := BHS(b).Layout(h, d)
		if l.HeaderDigest < HeaderSize || l.Data < l.HeaderDigest || l.DataDigest < l.Data || l.Size < l.DataDigest || l.Size > HeaderSize+MaxAHS+MaxDataSegment+16 {
			t.Fatalf("%+v", l)
		}
	})
}
