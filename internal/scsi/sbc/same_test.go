package sbc

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

var bothSames = []byte{wire.OpWriteSame10, wire.OpWriteSame16}

// TestWriteSame checks WRITE SAME(10), WRITE SAME(16) (SBC-3 §5.41, §5.42).
func TestWriteSame(t *testing.T) {
	const blocks = 3000 // several chunks
	eachGeometry(t, blocks, func(t *testing.T, r *rig) {
		for _, op := range bothSames {
			for _, c := range []struct{ lba, count int }{{0, 1}, {0, 256}, {blocks - 1, 1}, {blocks - 256, 256}, {3, 2500}} {
				for _, one := range [][]byte{r.pattern(1, 7), r.fill(1, 0)} {
					r.put(0, blocks, 0xEE)
					r.good(cdb(op, uint64(c.lba), uint32(c.count)), one)
					if !bytes.Equal(r.medium(c.lba, c.count), bytes.Repeat(one, c.count)) {
						t.Fatalf("%d blocks at %d: wrong data", c.count, c.lba)
					}
					r.has(0, c.lba, 0xEE)
					r.has(c.lba+c.count, blocks-c.lba-c.count, 0xEE)
				}
			}
		}
		r.put(0, blocks, 0xEE)
		r.good(flags(cdb(wire.OpWriteSame16, 10, 20), bitNoDataOut), nil)
		r.has(10, 20, 0)
		r.has(30, 1, 0xEE)
	})
}

// TestWriteSameData checks that the Data-Out of WRITE SAME is one block (SBC-3 §5.41).
func TestWriteSameData(t *testing.T) {
	eachGeometry(t, 100, func(t *testing.T, r *rig) {
		for _, op := range bothSames {
			for _, n := range []int{0, r.size / 2, 2 * r.size} {
				r.fails(cdb(op, 0, 1), make([]byte, n), wire.KeyIllegalRequest, invalidCommandUnit)
			}
			c := &call{}
			c.CDB = cdb(op, 0, 50)
			if n := r.nexus.DataOutLength(&c.Task); n != r.size {
				t.Fatalf("the command asks for %d bytes", n)
			}
		}
		c := &call{}
		c.CDB = flags(cdb(wire.OpWriteSame16, 0, 50), bitNoDataOut)
		if n := r.nexus.DataOutLength(&c.Task); n != 0 {
			t.Fatalf("with NDOB the command asks for %d bytes", n)
		}
	})
}

// TestWriteSameUnmap checks UNMAP and ANCHOR of WRITE SAME (SBC-3 §4.7.3.4, §5.41).
func TestWriteSameUnmap(t *testing.T) {
	eachGeometry(t, 1000, func(t *testing.T, r *rig) {
		for _, op := range bothSames {
			if !r.u.Attributes().Thin {
				r.invalid(flags(cdb(op, 0, 1), bitUnmap), r.fill(1, 0), false, 1, 3)
				continue
			}
			for _, count := range []int{1, 100, 256} {
				for _, lba := range []int{0, 1000 - count} {
					r.put(lba, count, 0xFF)
					r.good(flags(cdb(op, uint64(lba), uint32(count)), bitUnmap), r.fill(1, 0))
					r.has(lba, count, 0)
				}
			}
			r.put(0, 1000, 0xFF)
			r.good(flags(cdb(op, 0, 1000), bitUnmap), r.fill(1, 0))
			r.has(0, 1000, 0)
			if used, _ := r.dev.Used(); used != 0 {
				t.Fatalf("%d bytes are in use after everything was unmapped", used)
			}
			r.good(flags(cdb(op, 5, 5), bitUnmap), r.fill(1, 'x')) // not what unmapped blocks read as
			r.has(5, 5, 'x')
			r.invalid(flags(cdb(op, 0, 1), 0x10), r.fill(1, 0), false, 1, 4)
			r.invalid(flags(cdb(op, 0, 1), 0x10|bitUnmap), r.fill(1, 0), false, 1, 4)
		}
		if r.u.Attributes().Thin {
			r.put(0, 1000, 0xFF)
			r.good(flags(cdb(wire.OpWriteSame16, 1, 2), bitUnmap|bitNoDataOut), nil)
			r.has(0, 1, 0xFF)
			r.has(1, 2, 0)
		}
	})
}

// TestWriteSameLimit checks the MAXIMUM WRITE SAME LENGTH (SBC-3 §6.5.3).
func TestWriteSameLimit(t *testing.T) {
	for _, size := range []uint32{512, 4096} {
		const blocks = 3 * scsi.MaxWriteSameBlocks
		r := newRig(t, block.NewMem(blocks*int64(size)), unit.Attributes{BlockSize: size, Thin: true}, nil)
		for op, at := range map[byte]int{wire.OpWriteSame10: 7, wire.OpWriteSame16: 10} {
			r.good(cdb(op, 5, scsi.MaxWriteSameBlocks), r.fill(1, 0))
			r.invalid(cdb(op, 5, scsi.MaxWriteSameBlocks+1), r.fill(1, 0), false, at, -1)
			r.invalid(cdb(op, 0, 0), r.fill(1, 0), false, at, -1) // WSNZ
			r.outOfRange(cdb(op, blocks+1, 0), r.fill(1, 0), blocks+1)
		}
		r.good(cdb(wire.OpWriteSame16, 5, scsi.MaxWriteSameBlocks), r.fill(1, 'y'))
		for _, lba := range []int{5, 2000, scsi.MaxWriteSameBlocks - 1000} {
			r.has(lba, 1000, 'y')
		}
		r.has(0, 5, 0)
		r.has(5+scsi.MaxWriteSameBlocks, 5, 0)
	}
}

// TestWriteSameError checks the sense of WRITE SAME where the device fails (SBC-3 §4.18).
func TestWriteSameError(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(8 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, nil)
	f.Inject(blocktest.Fault{Ops: []block.Op{block.Write}, Off: 3 << 20, Len: 1, Kind: block.KindNoSpace, Count: 1})
	r.fails(cdb(wire.OpWriteSame16, 0, 8<<11), r.fill(1, 'x'), wire.KeyDataProtect, wire.SpaceAllocationFailed)
	r.has(0, 3<<11, 'x')
	r.good(cdb(wire.OpWriteSame16, 0, 8<<11), r.fill(1, 'x'))
	r.has(0, 8<<11, 'x')
}

// TestZeroData checks what counts as a block of zeros (SBC-3 §4.7.3.4.3).
func TestZeroData(t *testing.T) {
	for _, n := range []int{512, 4096} {
		b := make([]byte, n)
		if !zero(b) {
			t.Fatalf("%d zeros are not zeros", n)
		}
		for _, at := range []int{0, 1, n / 2, n - 1} {
			b[at] = 1
			if zero(b) {
				t.Fatalf("a one at %d of %d bytes was overlooked", at, n)
			}
			b[at] = 0
		}
	}
}
