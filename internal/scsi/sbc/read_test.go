package sbc

import (
	"bytes"
	"fmt"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

var (
	allReads  = []byte{wire.OpRead6, wire.OpRead10, wire.OpRead12, wire.OpRead16}
	allWrites = []byte{wire.OpWrite6, wire.OpWrite10, wire.OpWrite12, wire.OpWrite16}
)

// TestRead checks READ(6), READ(10), READ(12), READ(16) (SBC-3 §5.7, §5.8, §5.9, §5.10).
func TestRead(t *testing.T) {
	eachGeometry(t, 1000, func(t *testing.T, r *rig) {
		want := r.pattern(1000, 1)
		blocktest.Write(t, r.dev, 0, want)
		for _, op := range allReads {
			for _, c := range []struct{ lba, count int }{{0, 1}, {0, 255}, {999, 1}, {745, 255}, {17, 3}} {
				got := r.good(cdb(op, uint64(c.lba), uint32(c.count)), nil)
				if !bytes.Equal(got, want[c.lba*r.size:(c.lba+c.count)*r.size]) {
					t.Fatalf("%s of %d blocks at %d: wrong data", wire.OpName(op), c.count, c.lba)
				}
			}
		}
		if got := r.good(cdb(wire.OpRead6, 3, 0), nil); !bytes.Equal(got, want[3*r.size:259*r.size]) {
			t.Fatal("a length of zero in READ(6) is not 256 blocks")
		}
	})
}

// commandOut returns the Data-Out of a command of count blocks.
func commandOut(op byte, count, size int) []byte {
	switch op {
	case wire.OpWriteSame10, wire.OpWriteSame16:
		return make([]byte, size)
	case wire.OpCompareAndWrite:
		return make([]byte, 2*count*size)
	}
	return make([]byte, count*size)
}

// TestRange checks LOGICAL BLOCK ADDRESS OUT OF RANGE (SBC-3 §4.18).
func TestRange(t *testing.T) {
	ops := []struct {
		op    byte
		flags byte
		good  scsi.Status
	}{
		{op: wire.OpRead10}, {op: wire.OpRead12}, {op: wire.OpRead16},
		{op: wire.OpWrite10}, {op: wire.OpWrite12}, {op: wire.OpWrite16},
		{op: wire.OpWriteVerify10}, {op: wire.OpWriteVerify12}, {op: wire.OpWriteVerify16},
		{op: wire.OpVerify10, flags: 2}, {op: wire.OpVerify12, flags: 2}, {op: wire.OpVerify16, flags: 2}, {op: wire.OpVerify10},
		{op: wire.OpORWrite16}, {op: wire.OpWriteSame10}, {op: wire.OpWriteSame16},
		{op: wire.OpSynchronizeCache10}, {op: wire.OpSynchronizeCache16},
		{op: wire.OpPreFetch10, good: scsi.StatusConditionMet}, {op: wire.OpPreFetch16, good: scsi.StatusConditionMet},
	}
	eachGeometry(t, 300, func(t *testing.T, r *rig) {
		for _, o := range ops {
			t.Run(fmt.Sprintf("%02X", o.op), func(t *testing.T) {
				r.t = t
				try := func(lba uint64, count uint32) ([]byte, []byte) {
					return flags(cdb(o.op, lba, count), o.flags), commandOut(o.op, int(count), r.size)
				}
				for _, c := range []struct {
					lba   uint64
					count uint32
				}{{0, 0}, {300, 0}, {0, 1}, {299, 1}, {45, 255}} {
					if c.count == 0 && (o.op == wire.OpWriteSame10 || o.op == wire.OpWriteSame16) {
						continue // refused: see TestWriteSameLimit
					}
					if res := r.do(try(c.lba, c.count)); res.status != o.good {
						t.Fatalf("%d blocks at %d: status %02Xh, %v", c.count, c.lba, res.status, res.sense)
					}
				}
				out := []struct {
					lba   uint64
					count uint32
				}{{301, 0}, {0x80000000, 0}, {0xFFFFFFFF, 0}, {300, 1}, {299, 2}, {46, 255}, {299, 256}, {0x80000000, 1}, {0xFFFFFFFF, 256}}
				if wire.CDBLength(o.op) == 16 {
					out = append(out, []struct {
						lba   uint64
						count uint32
					}{{1 << 63, 0}, {1 << 63, 1}, {^uint64(0), 0}, {^uint64(0), 1}, {^uint64(0), 256}, {^uint64(0) - 255, 256}}...)
				}
				for _, c := range out {
					b, data := try(c.lba, c.count)
					r.outOfRange(b, data, max(c.lba, 300))
				}
			})
		}
		for _, op := range []byte{wire.OpRead6, wire.OpWrite6} {
			r.outOfRange(cdb(op, 300, 1), make([]byte, r.size), 300)
			r.outOfRange(cdb(op, 0x1FFFFF, 0), make([]byte, 256*r.size), 0x1FFFFF)
			r.outOfRange(cdb(op, 299, 2), make([]byte, 2*r.size), 300)
		}
	})
}

// TestProtection checks RDPROTECT, WRPROTECT, VRPROTECT, ORPROTECT without protection information (SBC-3 §4.22.2).
func TestProtection(t *testing.T) {
	eachGeometry(t, 300, func(t *testing.T, r *rig) {
		for _, op := range []byte{
			wire.OpRead10, wire.OpRead12, wire.OpRead16, wire.OpWrite10, wire.OpWrite12, wire.OpWrite16,
			wire.OpWriteVerify10, wire.OpWriteVerify12, wire.OpWriteVerify16, wire.OpVerify10, wire.OpVerify12, wire.OpVerify16,
			wire.OpORWrite16, wire.OpWriteSame10, wire.OpWriteSame16, wire.OpWriteAtomic16, wire.OpCompareAndWrite,
		} {
			for protect := byte(1); protect < 8; protect++ {
				r.fails(flags(cdb(op, 0, 1), protect<<5), make([]byte, r.size), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
			}
		}
	})
}

// TestCacheBits checks DPO, FUA and the obsolete FUA_NV (SBC-3 §4.15, §5.8, §5.33).
func TestCacheBits(t *testing.T) {
	eachGeometry(t, 300, func(t *testing.T, r *rig) {
		for _, op := range []byte{
			wire.OpRead10, wire.OpRead12, wire.OpRead16, wire.OpWrite10, wire.OpWrite12, wire.OpWrite16, wire.OpORWrite16,
		} {
			for _, bits := range []byte{bitDPO, bitFUA, bitFUANV, bitDPO | bitFUA, cacheBits} {
				r.good(flags(cdb(op, 0, 1), bits), make([]byte, r.size))
			}
		}
		for _, op := range []byte{wire.OpVerify10, wire.OpVerify12, wire.OpVerify16, wire.OpWriteVerify10, wire.OpWriteVerify12, wire.OpWriteVerify16} {
			r.good(flags(cdb(op, 0, 1), bitDPO|2), make([]byte, r.size))
		}
		for group := byte(0); group < 32; group++ {
			b := cdb(wire.OpRead10, 0, 1)
			b[group10] = group
			r.good(b, nil)
		}
	})
}

// TestTransferLength checks the MAXIMUM TRANSFER LENGTH (SBC-3 §6.5.3).
func TestTransferLength(t *testing.T) {
	for _, size := range []uint32{512, 4096} {
		r := newRig(t, block.NewNull(1<<40), unit.Attributes{BlockSize: size}, nil)
		most := uint32(scsi.MaxTransferBytes) / size
		for _, o := range []struct {
			op    byte
			flags byte
			at    int
		}{
			{wire.OpRead12, 0, 6}, {wire.OpRead16, 0, 10}, {wire.OpWrite12, 0, 6}, {wire.OpWrite16, 0, 10},
			{wire.OpWriteVerify12, 0, 6}, {wire.OpWriteVerify16, 2, 10}, {wire.OpVerify12, 2, 6}, {wire.OpVerify16, 2, 10}, {wire.OpORWrite16, 0, 10},
		} {
			r.good(flags(cdb(o.op, 5, most), o.flags), make([]byte, scsi.MaxTransferBytes))
			r.invalid(flags(cdb(o.op, 5, most+1), o.flags), nil, false, o.at, -1)
			c := &call{}
			c.CDB = flags(cdb(o.op, 5, most+1), o.flags)
			if n := r.nexus.DataOutLength(&c.Task); n != 0 {
				t.Errorf("%s of %d blocks asks for %d bytes", wire.OpName(o.op), most+1, n)
			}
		}
		r.outOfRange(cdb(wire.OpWrite16, 1<<40/uint64(size), 1<<32-1), nil, 1<<40/uint64(size))
	}
}

// TestLargeVolume checks READ(16) and WRITE(16) beyond 2^32 blocks (SBC-3 §5.10, §5.35).
func TestLargeVolume(t *testing.T) {
	for _, size := range []uint32{512, 4096} {
		r := newRig(t, block.NewMem(64<<40), unit.Attributes{BlockSize: size, Thin: true}, nil)
		last := uint64(64<<40)/uint64(size) - 1
		for i, lba := range []uint64{1<<32 - 1, 1 << 32, 1<<32 + 7, last - 1} {
			data := r.pattern(2, byte(i))
			r.good(cdb(wire.OpWrite16, lba, 2), data)
			if got := r.good(cdb(wire.OpRead16, lba, 2), nil); !bytes.Equal(got, data) {
				t.Fatalf("block %d: wrong data", lba)
			}
			r.good(flags(cdb(wire.OpVerify16, lba, 2), 2), data)
		}
		r.outOfRange(cdb(wire.OpRead16, last, 2), nil, last+1)
		if got := r.good(cdb(wire.OpRead10, 0, 1), nil); !bytes.Equal(got, make([]byte, size)) {
			t.Fatal("a write far away has come out at block 0")
		}
	}
}

// TestReadFUA checks FUA of READ(10) on a volatile cache (SBC-3 §5.8).
func TestReadFUA(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	r.good(cdb(wire.OpWrite10, 0, 1), r.fill(1, 'a'))
	if got := r.good(flags(cdb(wire.OpRead10, 0, 1), bitFUA), nil); !bytes.Equal(got, r.fill(1, 'a')) {
		t.Fatal("wrong data")
	}
	f.PowerCut()
	r.has(0, 1, 'a')
	f.Inject(blocktest.Fault{Ops: []block.Op{block.Flush}, Kind: block.KindIO, Count: 1})
	r.fails(flags(cdb(wire.OpRead10, 0, 1), bitFUA), nil, wire.KeyHardwareError, wire.InternalTargetFailure)
}

// TestReadError checks the sense of failed reads and writes (SBC-3 §4.18).
func TestReadError(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	for _, c := range []struct {
		kind block.Kind
		key  uint8
		code uint16
	}{
		{block.KindIO, wire.KeyHardwareError, wire.InternalTargetFailure},
		{block.KindMedium, wire.KeyMediumError, wire.UnrecoveredReadError},
		{block.KindGone, wire.KeyNotReady, wire.BecomingReady},
	} {
		remove := f.Inject(blocktest.Fault{Off: 512 * 10, Len: 512, Kind: c.kind})
		for _, op := range allReads {
			if s := r.fails(cdb(op, 10, 2), nil, c.key, c.code); c.kind == block.KindMedium && (!s.HasInfo || s.Information != 10) {
				t.Errorf("information is %d", s.Information)
			}
			if s := r.fails(cdb(op, 7, 8), nil, c.key, c.code); c.kind == block.KindMedium && (!s.HasInfo || s.Information != 10) {
				t.Errorf("information is %d for a bad block inside", s.Information)
			}
		}
		remove()
		r.good(cdb(wire.OpRead10, 10, 2), nil)
	}
	for _, c := range []struct {
		kind block.Kind
		key  uint8
		code uint16
	}{
		{block.KindIO, wire.KeyHardwareError, wire.InternalTargetFailure},
		{block.KindMedium, wire.KeyHardwareError, wire.WriteError},
		{block.KindNoSpace, wire.KeyDataProtect, wire.SpaceAllocationFailed},
		{block.KindReadOnly, wire.KeyDataProtect, wire.WriteProtected},
	} {
		remove := f.Inject(blocktest.Fault{Ops: []block.Op{block.Write}, Off: 0, Len: 512, Kind: c.kind})
		for _, op := range append(allWrites, wire.OpORWrite16, wire.OpWriteVerify10) {
			r.fails(cdb(op, 0, 2), make([]byte, 1024), c.key, c.code)
		}
		remove()
		r.good(cdb(wire.OpWrite10, 0, 2), make([]byte, 1024))
	}
}
