package sbc

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

var allVerifies = []byte{wire.OpVerify10, wire.OpVerify12, wire.OpVerify16}

// miscompare runs a command that has to end with MISCOMPARE at an offset.
func (r *rig) miscompare(cdb, out []byte, offset int) {
	r.t.Helper()
	s := r.fails(cdb, out, wire.KeyMiscompare, wire.MiscompareDuringVerify)
	if !s.HasInfo || s.Information != uint64(offset) {
		r.t.Fatalf("% X: information %d, want %d", cdb, s.Information, offset)
	}
}

// TestVerify checks VERIFY(10), VERIFY(12), VERIFY(16) (SBC-3 §5.29, §5.30, §5.31).
func TestVerify(t *testing.T) {
	const blocks = 3000 // several chunks
	eachGeometry(t, blocks, func(t *testing.T, r *rig) {
		want := r.pattern(blocks, 3)
		blocktest.Write(t, r.dev, 0, want)
		for _, op := range allVerifies {
			verify := func(lba, count int, check byte) []byte {
				return flags(cdb(op, uint64(lba), uint32(count)), check<<1)
			}
			for _, c := range []struct{ lba, count int }{{0, 1}, {0, 256}, {blocks - 1, 1}, {blocks - 256, 256}, {5, 1500}} {
				data := bytes.Clone(want[c.lba*r.size : (c.lba+c.count)*r.size])
				r.good(verify(c.lba, c.count, checkMedium), nil)
				r.good(verify(c.lba, c.count, checkMedium), r.fill(c.count, 0)) // data that nobody asked for
				r.good(verify(c.lba, c.count, checkData), data)
				for _, at := range []int{0, len(data) - 1, len(data) / 2, 511 % len(data)} {
					data[at] ^= 'X'
					r.miscompare(verify(c.lba, c.count, checkData), data, at)
					data[at] ^= 'X'
				}
			}
			r.invalid(verify(0, 1, 2), r.fill(1, 0), false, 1, 2)
			r.good(verify(0, 0, checkData), nil)
			r.good(verify(0, 0, checkAlike), nil)
			r.good(verify(0, blocks, checkMedium), nil)
			r.fails(verify(0, 2, checkData), make([]byte, 100), wire.KeyIllegalRequest, invalidCommandUnit)
			r.good(verify(0, 2, checkData), want[:r.size])
		}
	})
}

// TestVerifyAlike checks BYTCHK=11b of VERIFY(16) (SBC-3 §5.29).
func TestVerifyAlike(t *testing.T) {
	const blocks = 3000
	eachGeometry(t, blocks, func(t *testing.T, r *rig) {
		one := r.pattern(1, 5)
		blocktest.Write(t, r.dev, 0, bytes.Repeat(one, blocks))
		for _, op := range allVerifies {
			r.good(flags(cdb(op, 0, blocks), checkAlike<<1), one)
			r.good(flags(cdb(op, 7, 1), checkAlike<<1), one)
			r.fails(flags(cdb(op, 7, 1), checkAlike<<1), one[:100], wire.KeyIllegalRequest, invalidCommandUnit)
			other := bytes.Clone(one)
			other[r.size-1]++
			r.miscompare(flags(cdb(op, 7, blocks-7), checkAlike<<1), other, r.size-1)
			blocktest.Write(t, r.dev, int64(2500*r.size), r.fill(1, one[0]))
			r.miscompare(flags(cdb(op, 7, blocks-7), checkAlike<<1), one, (2500-7)*r.size+1)
			blocktest.Write(t, r.dev, int64(2500*r.size), one)
		}
		c := &call{}
		c.CDB = flags(cdb(wire.OpVerify16, 0, blocks), checkAlike<<1)
		if n := r.nexus.DataOutLength(&c.Task); n != r.size {
			t.Fatalf("the command asks for %d bytes", n)
		}
	})
}

// TestVerifyError checks the sense of a block that cannot be verified (SBC-3 §4.18).
func TestVerifyError(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(4 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	f.Inject(blocktest.Fault{Ops: []block.Op{block.Read}, Off: 3 << 20, Len: 512, Kind: block.KindMedium})
	r.good(cdb(wire.OpVerify16, 0, 2048), nil)
	for _, c := range []struct{ cdb, out []byte }{
		{cdb(wire.OpVerify16, 0, 8192), nil},
		{cdb(wire.OpVerify16, 6140, 8), nil},
		{flags(cdb(wire.OpVerify16, 6140, 8), 2), r.fill(8, 0)},
		{cdb(wire.OpWriteVerify16, 6144, 1), r.fill(1, 1)},
		{cdb(wire.OpWriteVerify16, 6140, 8), r.fill(8, 1)},
	} {
		if s := r.fails(c.cdb, c.out, wire.KeyMediumError, wire.UnrecoveredReadError); !s.HasInfo || s.Information != 6144 {
			t.Errorf("% X: information is %d", c.cdb, s.Information)
		}
	}
}

// TestWriteVerify checks WRITE AND VERIFY(10), WRITE AND VERIFY(12), WRITE AND VERIFY(16) (SBC-3 §5.36, §5.37, §5.38).
func TestWriteVerify(t *testing.T) {
	const blocks = 3000
	eachGeometry(t, blocks, func(t *testing.T, r *rig) {
		for _, op := range []byte{wire.OpWriteVerify10, wire.OpWriteVerify12, wire.OpWriteVerify16} {
			for _, check := range []byte{checkMedium, checkData} {
				for _, c := range []struct{ lba, count int }{{0, 1}, {0, 256}, {blocks - 1, 1}, {5, 1500}} {
					r.put(0, blocks, 0xEE)
					data := r.pattern(c.count, byte(c.lba))
					r.good(flags(cdb(op, uint64(c.lba), uint32(c.count)), check<<1|bitDPO), data)
					if !bytes.Equal(r.medium(c.lba, c.count), data) {
						t.Fatal("wrong data")
					}
				}
			}
			r.invalid(flags(cdb(op, 0, 1), 2<<1), r.fill(1, 0), false, 1, 2)
			r.invalid(flags(cdb(op, 0, 1), 3<<1), r.fill(1, 0), false, 1, 2)
		}
	})
}

// forgetful is a device that acknowledges writes of one block and drops them.
type forgetful struct {
	block.Device
	off int64
}

func (f forgetful) Submit(r *block.Request) {
	if r.Op == block.Write && r.Off <= f.off && f.off < r.Off+int64(len(r.Data)) {
		q := block.Request{Op: block.Write, Off: r.Off, Data: bytes.Clone(r.Data)}
		q.Data[f.off-r.Off]++
		r.Err = blocktest.Do(f.Device, &q)
		r.Done.RequestDone(r)
		return
	}
	f.Device.Submit(r)
}

// TestWriteVerifyMiscompare checks BYTCHK=01b of WRITE AND VERIFY(10) on a medium that fails (SBC-3 §5.36).
func TestWriteVerifyMiscompare(t *testing.T) {
	r := newRig(t, forgetful{block.NewMem(4 << 20), 2<<20 + 7}, unit.Attributes{BlockSize: 512}, nil)
	r.miscompare(flags(cdb(wire.OpWriteVerify10, 0, 8192), 2), r.pattern(8192, 1), 2<<20+7)
	r.good(cdb(wire.OpWriteVerify10, 0, 8192), r.pattern(8192, 1))
}

// TestWriteVerifyDurability checks that WRITE AND VERIFY(10) reaches the medium (SBC-3 §5.36).
func TestWriteVerifyDurability(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	r.good(flags(cdb(wire.OpWriteVerify10, 0, 1), 2), r.fill(1, 'b'))
	f.PowerCut()
	r.has(0, 1, 'b')
}
