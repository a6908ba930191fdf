package sbc

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

func compareCDB(lba uint64, count int) []byte {
	b := cdb(wire.OpCompareAndWrite, lba, 0)
	b[13] = byte(count)
	return b
}

// TestCompareAndWrite checks COMPARE AND WRITE (SBC-3 §5.2).
func TestCompareAndWrite(t *testing.T) {
	eachGeometry(t, 300, func(t *testing.T, r *rig) {
		for count := 1; count <= scsi.MaxCompareBlocks; count += 127 {
			for _, lba := range []int{0, 300 - count} {
				r.put(lba, count, 'A')
				out := append(r.fill(count, 'A'), r.fill(count, 'B')...)
				at := count*r.size - 27
				out[at] = 'C'
				r.miscompare(compareCDB(uint64(lba), count), out, at)
				r.has(lba, count, 'A')
				out[at] = 'A'
				r.good(compareCDB(uint64(lba), count), out)
				r.has(lba, count, 'B')
			}
		}
		r.put(0, 1, 'B')
		for at := range r.size {
			out := r.fill(2, 'B')
			out[at] = 'Z'
			r.miscompare(compareCDB(0, 1), out, at)
		}
		for _, bits := range []byte{bitDPO, bitFUA, cacheBits} {
			r.good(flags(compareCDB(0, 1), bits), r.fill(2, 'B'))
		}
	})
}

// TestCompareAndWriteLimits checks the zero length, the range and the length of the Data-Out of COMPARE AND WRITE (SBC-3 §5.2).
func TestCompareAndWriteLimits(t *testing.T) {
	eachGeometry(t, 300, func(t *testing.T, r *rig) {
		r.good(compareCDB(0, 0), nil)
		r.good(compareCDB(300, 0), nil)
		r.outOfRange(compareCDB(301, 0), nil, 301)
		r.outOfRange(compareCDB(300, 1), r.fill(2, 0), 300)
		r.outOfRange(compareCDB(100, 255), r.fill(510, 0), 300)
		r.outOfRange(compareCDB(^uint64(0), 255), r.fill(510, 0), ^uint64(0))
		for _, sent := range []int{0, 1, 3, 4} { // blocks, where 2 are right
			r.invalid(compareCDB(0, 1), r.fill(sent, 0), false, 13, -1)
		}
		r.invalid(compareCDB(0, 3), r.fill(4, 0), false, 13, -1)
		r.invalid(compareCDB(0, 0), r.fill(512, 0), false, 13, -1) // 256 blocks, cut to a byte
		c := &call{}
		c.CDB = compareCDB(0, 255)
		if n := r.nexus.DataOutLength(&c.Task); n != 510*r.size {
			t.Fatalf("the command asks for %d bytes", n)
		}
	})
}

// TestCompareAndWriteError checks the sense of COMPARE AND WRITE where the device fails (SBC-3 §4.18).
func TestCompareAndWriteError(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	f.Inject(blocktest.Fault{Ops: []block.Op{block.Read}, Kind: block.KindMedium, Count: 1})
	r.fails(compareCDB(0, 1), r.fill(2, 0), wire.KeyMediumError, wire.UnrecoveredReadError)
	f.Inject(blocktest.Fault{Ops: []block.Op{block.Write}, Kind: block.KindMedium, Count: 1})
	r.fails(compareCDB(0, 1), r.fill(2, 0), wire.KeyHardwareError, wire.WriteError)
	r.good(compareCDB(0, 1), r.fill(2, 0)) // the range was given back
}

// counters are devices on which concurrency is tried: one that completes in Submit
// and one that completes elsewhere.
func counters(t *testing.T) map[string]block.Device {
	path := t.TempDir() + "/volume"
	if err := block.CreateFile(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	file, err := block.OpenFile(path, block.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]block.Device{"mem": block.NewMem(1 << 20), "file": file, "elsewhere": elsewhere{block.NewMem(1 << 20)}}
}

// elsewhere is a device that completes each request on a goroutine of its own.
type elsewhere struct{ block.Device }

func (e elsewhere) Submit(r *block.Request) { go e.Device.Submit(r) }

func (e elsewhere) Info() block.Info {
	i := e.Device.Info()
	i.Inline = false
	return i
}

// TestCompareAndWriteAtomic checks that COMPARE AND WRITE is atomic against itself (SBC-3 §5.2).
func TestCompareAndWriteAtomic(t *testing.T) {
	const workers, times = 8, 100
	for name, dev := range counters(t) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, dev, unit.Attributes{BlockSize: 512}, nil)
			var wg sync.WaitGroup
			for i := range workers {
				n := r.connect(fmt.Sprint("worker", i), false)
				wg.Go(func() {
					for done := 0; done < times; {
						old := r.on(n, cdb(wire.OpRead10, 5, 1), nil).data
						next := bytes.Clone(old)
						wire.PutUint64(next, wire.Uint64(next)+1)
						switch res := r.on(n, compareCDB(5, 1), append(old, next...)); {
						case res.status == scsi.StatusGood:
							done++
						case res.sense.Code != wire.MiscompareDuringVerify:
							t.Errorf("%v", res.sense)
							return
						}
					}
				})
			}
			wg.Wait()
			if n := wire.Uint64(r.medium(5, 1)); n != workers*times {
				t.Fatalf("the counter is at %d after %d increments", n, workers*times)
			}
		})
	}
}

// TestCompareAndWriteAgainstWrites checks that no write comes between the halves of COMPARE AND WRITE (SBC-3 §5.2).
func TestCompareAndWriteAgainstWrites(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	other := r.connect("other", false)
	f.Hold(block.Read)
	caw := r.start(r.nexus, compareCDB(0, 2), append(r.fill(2, 0), r.fill(2, 'b')...))
	f.WaitHeld(1)
	f.Hold(block.Read, block.Write, block.Zero, block.Discard)
	waiting := []*call{
		r.start(other, cdb(wire.OpWrite10, 1, 1), r.fill(1, 'w')),
		r.start(other, cdb(wire.OpWriteSame10, 0, 2), r.fill(1, 'w')),
		r.start(other, cdb(wire.OpORWrite16, 1, 1), r.fill(1, 'w')),
		r.start(other, atomicCDB(0, 1), r.fill(1, 'w')),
		r.start(other, flags(cdb(wire.OpWriteVerify10, 0, 1), 2), r.fill(1, 'w')),
		r.start(other, cdb(wire.OpRead10, 0, 4), nil),
	}
	free := r.start(other, cdb(wire.OpWrite10, 2, 1), r.fill(1, 'w'))
	f.WaitHeld(2) // the first half, and the write that does not overlap
	if n := f.Held(); n != 2 {
		t.Fatalf("%d requests have passed COMPARE AND WRITE, want 1", n-1)
	}
	f.Release()
	for _, c := range append(waiting, caw, free) {
		if res := c.wait(); res.status != scsi.StatusGood {
			t.Errorf("% X: %v", c.CDB, res.sense)
		}
	}
}

// TestORWrite checks ORWRITE(16) (SBC-3 §5.5).
func TestORWrite(t *testing.T) {
	eachGeometry(t, 1000, func(t *testing.T, r *rig) {
		for _, count := range []int{1, 2, 100, 256} {
			for _, lba := range []int{0, 1000 - count} {
				r.put(lba, count, 0)
				r.good(cdb(wire.OpORWrite16, uint64(lba), uint32(count)), r.fill(count, 0xA5))
				r.has(lba, count, 0xA5)
				r.good(cdb(wire.OpORWrite16, uint64(lba), uint32(count)), r.fill(count, 0x5A))
				r.has(lba, count, 0xFF)
			}
		}
	})
}

// TestORWriteAtomic checks that ORWRITE(16) is atomic against itself (SBC-3 §4.17).
func TestORWriteAtomic(t *testing.T) {
	for name, dev := range counters(t) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, dev, unit.Attributes{BlockSize: 512}, nil)
			var wg sync.WaitGroup
			for i := range 8 {
				n := r.connect(fmt.Sprint("worker", i), false)
				wg.Go(func() {
					for lba := range uint64(64) {
						if res := r.on(n, cdb(wire.OpORWrite16, lba, 1), r.fill(1, 1<<i)); res.status != scsi.StatusGood {
							t.Errorf("%v", res.sense)
						}
					}
				})
			}
			wg.Wait()
			r.has(0, 64, 0xFF)
		})
	}
}

// TestORWriteError checks the sense of ORWRITE(16) where the device fails (SBC-3 §4.18).
func TestORWriteError(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	f.Inject(blocktest.Fault{Ops: []block.Op{block.Read}, Kind: block.KindMedium, Count: 1})
	r.fails(cdb(wire.OpORWrite16, 0, 1), r.fill(1, 0), wire.KeyMediumError, wire.UnrecoveredReadError)
	f.Inject(blocktest.Fault{Ops: []block.Op{block.Write}, Kind: block.KindNoSpace, Count: 1})
	r.fails(cdb(wire.OpORWrite16, 0, 1), r.fill(1, 0), wire.KeyDataProtect, wire.SpaceAllocationFailed)
	r.good(cdb(wire.OpORWrite16, 0, 1), r.fill(1, 0))
}

// TestORWriteLent checks ORWRITE(16) on a device that lends its memory (SBC-3 §5.5).
func TestORWriteLent(t *testing.T) {
	r := newRig(t, block.NewNull(1<<20), unit.Attributes{BlockSize: 512}, nil)
	r.good(cdb(wire.OpORWrite16, 0, 4), r.fill(4, 0xFF))
	r.has(0, 4, 0)
	r.good(compareCDB(0, 4), append(r.fill(4, 0), r.fill(4, 1)...))
	if got := r.good(cdb(wire.OpRead10, 0, 4), nil); !bytes.Equal(got, r.fill(4, 0)) {
		t.Fatal("the null device does not read as zeros")
	}
}
