package nvme

import (
	"strings"
	"testing"
)

// TestSQE checks the fields of submission queue entries (NVMe Base 2.0 §3.3.3.1).
func TestSQE(t *testing.T) {
	e := make(SQE, SQESize)
	e.SetOpcode(Write)
	e.SetFuse(FuseSecond)
	e.SetCID(0x1234)
	e.SetNSID(0x01020304)
	e.SetSLBA(0x1122334455667788)
	e.SetNLB(65536)
	e.SetSGL(16, 4096, SGLOffset)
	e.SetCDW(13, 0xDEADBEEF)
	if e.Opcode() != Write || e.Fuse() != FuseSecond || e.CID() != 0x1234 || e.NSID() != 0x01020304 ||
		e.SLBA() != 0x1122334455667788 || e.NLB() != 65536 || e.PSDT() != PSDTSGL || e.CDW(13) != 0xDEADBEEF {
		t.Errorf("% X", []byte(e))
	}
	if a, n, kind := e.SGL(); a != 16 || n != 4096 || kind != SGLOffset {
		t.Errorf("SGL %d %d %#x", a, n, kind)
	}
	want := []byte{1, 0x42, 0x34, 0x12, 4, 3, 2, 1}
	if string(e[:8]) != string(want) || e[39] != 1 || e[24] != 16 || e[33] != 0x10 || e[40] != 0x88 || e[48] != 0xFF || e[49] != 0xFF {
		t.Errorf("% X", []byte(e))
	}
	e.SetFabricsType(Connect)
	if e.FabricsType() != Connect || e[4] != 1 {
		t.Error("FCTYPE")
	}
}

// TestCQE checks the fields of completion queue entries (NVMe Base 2.0 §3.3.3.2).
func TestCQE(t *testing.T) {
	e := make(CQE, CQESize)
	e.Put([2]uint32{1, 2}, 3, 4, 5, CompareFailure.DNR())
	if e.Result() != [2]uint32{1, 2} || e.SQHD() != 3 || e.SQID() != 4 || e.CID() != 5 || e.Status() != CompareFailure.DNR() {
		t.Errorf("% X", []byte(e))
	}
	if want := "\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x04\x00\x05\x00\x0A\x85"; string(e) != want {
		t.Errorf("% X", []byte(e))
	}
}

// TestStatus checks the status field (NVMe Base 2.0 §3.3.3.2.1).
func TestStatus(t *testing.T) {
	s := UnrecoveredRead.DNR() | More
	if s.OK() || s.Code() != UnrecoveredRead || !Success.OK() || !DoNotRetry.OK() {
		t.Errorf("%#x", uint16(s))
	}
	if got := s.String(); got != "unrecovered read error (2/81h, do not retry)" {
		t.Error(got)
	}
	if got := Status(0x7FE).String(); !strings.Contains(got, "7/FEh") {
		t.Error(got)
	}
}
