package sbc

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// TestWrite checks WRITE(6), WRITE(10), WRITE(12), WRITE(16) (SBC-3 §5.32, §5.33, §5.34, §5.35).
func TestWrite(t *testing.T) {
	eachGeometry(t, 1000, func(t *testing.T, r *rig) {
		for i, op := range allWrites {
			for j, c := range []struct{ lba, count int }{{0, 1}, {0, 255}, {999, 1}, {745, 255}, {17, 3}} {
				r.put(0, 1000, 0xEE)
				data := r.pattern(c.count, byte(i*16+j))
				r.good(cdb(op, uint64(c.lba), uint32(c.count)), data)
				if !bytes.Equal(r.medium(c.lba, c.count), data) {
					t.Fatalf("%s of %d blocks at %d: wrong data", wire.OpName(op), c.count, c.lba)
				}
				r.has(0, c.lba, 0xEE)
				r.has(c.lba+c.count, 1000-c.lba-c.count, 0xEE)
			}
		}
		r.good(cdb(wire.OpWrite6, 1, 0), r.fill(256, 'z'))
		r.has(1, 256, 'z')
		r.has(257, 1, 0xEE)
	})
}

// TestWriteShort checks Data-Out that is shorter or longer than the CDB says (SAM-5 §5.4.2, RFC 7143 §11.4.5).
func TestWriteShort(t *testing.T) {
	eachGeometry(t, 100, func(t *testing.T, r *rig) {
		for _, o := range []struct{ op, flags byte }{
			{wire.OpWrite10, 0}, {wire.OpWrite12, 0}, {wire.OpWrite16, 0},
			{wire.OpWriteVerify10, 2}, {wire.OpWriteVerify12, 2}, {wire.OpWriteVerify16, 2}, {wire.OpORWrite16, 0},
		} {
			write := func(count uint32) []byte { return flags(cdb(o.op, 0, count), o.flags) }
			r.put(0, 4, 0x10)
			r.good(write(1), nil)
			r.has(0, 4, 0x10)

			r.good(write(1), make([]byte, 200)) // not a whole block: all of it is residual
			r.has(0, 4, 0x10)

			r.good(write(2), r.fill(1, 0x32))
			r.has(0, 1, 0x32)
			r.has(1, 3, 0x10)

			r.put(0, 4, 0x10)
			r.good(write(1), r.fill(2, 0x32))
			r.has(0, 1, 0x32)
			r.has(1, 3, 0x10)
		}
	})
}

// TestWriteDurability checks FUA and WCE=0 (SBC-3 §4.15, §6.4.5).
func TestWriteDurability(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, nil)
	caw := cdb(wire.OpCompareAndWrite, 0, 0)
	caw[13] = 1
	atomic := cdb(wire.OpWriteAtomic16, 0, 0)
	atomic[13] = 1
	list := make([]byte, 24)
	wire.PutUint16(list[2:], 16)
	list[19] = 1
	for _, c := range []struct {
		name string
		cdb  []byte
		out  []byte
		fua  bool // has the bit
		want byte
	}{
		{"WRITE(10)", cdb(wire.OpWrite10, 0, 1), r.fill(1, 'b'), true, 'b'},
		{"WRITE(12)", cdb(wire.OpWrite12, 0, 1), r.fill(1, 'b'), true, 'b'},
		{"WRITE(16)", cdb(wire.OpWrite16, 0, 1), r.fill(1, 'b'), true, 'b'},
		{"ORWRITE", cdb(wire.OpORWrite16, 0, 1), r.fill(1, 'c'), true, 'c'},
		{"COMPARE AND WRITE", caw, append(r.fill(1, 'a'), r.fill(1, 'b')...), true, 'b'},
		{"WRITE ATOMIC", atomic, r.fill(1, 'b'), true, 'b'},
		{"WRITE(6)", cdb(wire.OpWrite6, 0, 1), r.fill(1, 'b'), false, 'b'},
		{"WRITE SAME, data", cdb(wire.OpWriteSame16, 0, 1), r.fill(1, 'b'), false, 'b'},
		{"WRITE SAME, zeros", cdb(wire.OpWriteSame10, 0, 1), r.fill(1, 0), false, 0},
		{"WRITE SAME, unmap", flags(cdb(wire.OpWriteSame16, 0, 1), bitUnmap), r.fill(1, 0), false, 0},
		{"UNMAP", cdb(wire.OpUnmap, 0, 24), list, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			prepare := func() {
				r.put(0, 1, 'a')
				blocktest.Flush(t, f)
			}
			prepare()
			r.good(c.cdb, c.out)
			f.PowerCut()
			r.has(0, 1, 'a')
			if c.fua {
				r.good(flags(bytes.Clone(c.cdb), bitFUA), c.out)
				f.PowerCut()
				r.has(0, 1, c.want)
			}
			a := *r.u.Attributes()
			a.WriteThrough = true
			if err := r.u.SetAttributes(a); err != nil {
				t.Fatal(err)
			}
			prepare()
			r.do(make([]byte, 6), nil) // the unit attention
			r.good(c.cdb, c.out)
			f.PowerCut()
			r.has(0, 1, c.want)
			a.WriteThrough = false
			if err := r.u.SetAttributes(a); err != nil {
				t.Fatal(err)
			}
			r.do(make([]byte, 6), nil)
		})
	}
}

func atomicCDB(lba uint64, count uint16) []byte {
	b := cdb(wire.OpWriteAtomic16, lba, 0)
	wire.PutUint16(b[12:], count)
	return b
}

// TestWriteAtomic checks WRITE ATOMIC(16) (SBC-4 §5.48).
func TestWriteAtomic(t *testing.T) {
	eachGeometry(t, 1000, func(t *testing.T, r *rig) {
		for count := 1; count <= scsi.MaxAtomicBlocks; count += 5 {
			r.good(atomicCDB(0, uint16(count)), r.fill(count, byte(count)))
			r.has(0, count, byte(count))
			r.good(atomicCDB(uint64(1000-count), uint16(count)), r.fill(count, byte(count)))
			r.has(1000-count, count, byte(count))
		}
		r.good(flags(atomicCDB(0, 1), bitDPO|bitFUA), r.fill(1, 1))
		r.good(atomicCDB(0, 0), nil)
		r.good(atomicCDB(1000, 0), nil)
		r.outOfRange(atomicCDB(1001, 0), nil, 1001)
		r.outOfRange(atomicCDB(1<<63, 0), nil, 1<<63)
		r.outOfRange(atomicCDB(^uint64(0), 0), nil, ^uint64(0))
		r.outOfRange(atomicCDB(900, 200), r.fill(200, 0), 1000)
		r.outOfRange(atomicCDB(1000-scsi.MaxAtomicBlocks, 2*scsi.MaxAtomicBlocks), nil, 1000)
		r.outOfRange(atomicCDB(^uint64(0), 10), r.fill(10, 0), ^uint64(0))
		r.invalid(atomicCDB(0, scsi.MaxAtomicBlocks+1), nil, false, 12, -1)
		boundary := atomicCDB(0, 1)
		boundary[11] = 8
		r.invalid(boundary, r.fill(1, 0), false, 11, 3)
		r.put(0, 2, 'a')
		r.fails(atomicCDB(0, 2), r.fill(1, 'b'), wire.KeyIllegalRequest, invalidCommandUnit)
		r.has(0, 2, 'a')
	})
}

// TestWriteAtomicOrder checks WRITE ATOMIC(16) against overlapping reads and writes (SBC-4 §4.29).
func TestWriteAtomicOrder(t *testing.T) {
	const blocks = scsi.MaxAtomicBlocks
	r := newRig(t, pieces{block.NewMem(1 << 20)}, unit.Attributes{BlockSize: 512}, nil)
	var wg sync.WaitGroup
	for i := range 3 {
		n := r.connect("reader"+string(rune('0'+i)), false)
		wg.Go(func() {
			for range 200 {
				res := r.on(n, cdb(wire.OpRead10, 64, blocks), nil)
				if res.status != scsi.StatusGood || !bytes.Equal(res.data, r.fill(blocks, res.data[0])) {
					t.Errorf("%v, or a read has seen a part of an atomic write", res.sense)
				}
				time.Sleep(time.Duration(i) * 10 * time.Microsecond) // so that there are times without reads
			}
		})
	}
	for i := range 3 {
		n := r.connect("writer"+string(rune('0'+i)), false)
		wg.Go(func() {
			for range 200 {
				if res := r.on(n, atomicCDB(64, blocks), r.fill(blocks, byte(1+i))); res.status != scsi.StatusGood {
					t.Errorf("%v", res.sense)
				}
			}
		})
	}
	wg.Wait()
	got := r.medium(64, blocks)
	if !bytes.Equal(got, r.fill(blocks, got[0])) {
		t.Fatal("two atomic writes are mixed")
	}
}

// pieces is a device that does its reads and writes in pieces, between which others run.
type pieces struct{ block.Device }

func (d pieces) Submit(r *block.Request) {
	go func() {
		for at := 0; at < len(r.Data) && r.Err == nil; at += 32 << 10 {
			end := min(at+32<<10, len(r.Data))
			r.Err = blocktest.Do(d.Device, &block.Request{Op: r.Op, Off: r.Off + int64(at), Data: r.Data[at:end]})
			runtime.Gosched()
		}
		r.Done.RequestDone(r)
	}()
}

// TestReadOnly checks DATA PROTECT of the commands that change the medium (SBC-3 §4.12).
func TestReadOnly(t *testing.T) {
	eachGeometry(t, 100, func(t *testing.T, r *rig) {
		n := r.connect("reader", true)
		for _, op := range []byte{
			wire.OpWrite6, wire.OpWrite10, wire.OpWrite12, wire.OpWrite16, wire.OpWriteSame10, wire.OpWriteSame16,
			wire.OpWriteVerify10, wire.OpWriteVerify12, wire.OpWriteVerify16, wire.OpORWrite16, wire.OpCompareAndWrite, wire.OpWriteAtomic16,
		} {
			b := cdb(op, 0, 1)
			r.failed(r.on(n, b, make([]byte, r.size)), b, wire.KeyDataProtect, wire.WriteProtected)
		}
		if r.u.Attributes().Thin {
			b := cdb(wire.OpUnmap, 0, 24)
			r.failed(r.on(n, b, make([]byte, 24)), b, wire.KeyDataProtect, wire.WriteProtected)
			b = flags(cdb(wire.OpWriteSame16, 0, 1), bitUnmap)
			r.failed(r.on(n, b, nil), b, wire.KeyDataProtect, wire.WriteProtected)
		}
		if res := r.on(n, cdb(wire.OpRead10, 0, 1), nil); res.status != scsi.StatusGood {
			t.Fatalf("READ(10): %v", res.sense)
		}
	})
}
