package scsi

import "testing"

// TestCDB checks the common CDB fields (SPC-4 §4.2.5).
func TestCDB(t *testing.T) {
	for _, c := range []struct {
		cdb    CDB
		lba    uint64
		length uint32
		action uint16
	}{
		{CDB{OpRead6, 0xFF, 0x01, 0x02, 9, 0}, 0x1F0102, 9, 0x1F},
		{CDB{OpRead10, 0, 1, 2, 3, 4, 0, 5, 6, 0}, 0x01020304, 0x0506, 0},
		{CDB{OpRead12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0}, 0x01020304, 0x05060708, 0},
		{CDB{OpServiceActionIn16, 0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0}, 0x0102030405060708, 0x090A0B0C, 0x10},
		{CDB{OpVariableLength, 0, 0, 0, 0, 0, 0, 24, 0x12, 0x34}, 0, 0, 0x1234},
		{CDB{OpVariableLength, 0, 0}, 0, 0, 0},
	} {
		if c.cdb.LBA() != c.lba || c.cdb.TransferLength() != c.length || c.cdb.ServiceAction() != c.action || c.cdb.Op() != c.cdb[0] {
			t.Errorf("% X: LBA %X, length %X, action %X", []byte(c.cdb), c.cdb.LBA(), c.cdb.TransferLength(), c.cdb.ServiceAction())
		}
	}
	for op, want := range map[byte]int{0x00: 6, 0x25: 10, 0x5F: 10, 0x7F: 0, 0x88: 16, 0xA0: 12, 0xC0: 0, 0x60: 0} {
		if got := CDBLength(op); got != want {
			t.Errorf("operation code %02Xh has %d bytes, want %d", op, got, want)
		}
	}
	reads, writes := 0, 0
	for op := range 256 {
		if IsRead(byte(op)) {
			reads++
		}
		if IsWrite(byte(op)) {
			writes++
		}
	}
	if reads != 4 || writes != 8 {
		t.Errorf("%d reads, %d writes", reads, writes)
	}
}

func TestBytes(t *testing.T) {
	var b [8]byte
	PutUint16(b[:], 0x0102)
	PutUint24(b[2:], 0x030405)
	if Uint16(b[:]) != 0x0102 || Uint24(b[2:]) != 0x030405 || Uint32(b[1:]) != 0x02030405 {
		t.Errorf("% X", b)
	}
	PutUint48(b[:], 0x0A0B0C0D0E0F)
	if Uint48(b[:]) != 0x0A0B0C0D0E0F || b[0] != 0x0A {
		t.Errorf("% X", b)
	}
	PutUint32(b[4:], 7)
	PutUint64(b[:], Uint64(b[:])+1)
	if Uint32(b[4:]) != 8 {
		t.Errorf("% X", b)
	}
}

// TestLUN checks single level LUN structures (SAM-5 §4.7.7).
func TestLUN(t *testing.T) {
	for lun := range uint16(16384) {
		if got, ok := DecodeLUN(EncodeLUN(lun)); !ok || got != lun {
			t.Fatalf("LUN %d becomes %d", lun, got)
		}
	}
	for _, bad := range []uint64{1, 0x0100 << 48, 0x8000 << 48, 0xC101 << 48, 0x0001_0001 << 32} {
		if lun, ok := DecodeLUN(bad); ok {
			t.Errorf("%016X becomes %d", bad, lun)
		}
	}
	if lun, ok := DecodeLUN(0x4005 << 48); !ok || lun != 5 {
		t.Errorf("flat space LUN 5 becomes %d", lun)
	}
}
