package sbc

import (
	"fmt"
	"path/filepath"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// unitDevice is a device with another AtomicUnit, that tells which writes were to be atomic.
type unitDevice struct {
	block.Device
	unit   int
	atomic int
}

func (d *unitDevice) Info() block.Info {
	i := d.Device.Info()
	i.AtomicUnit = d.unit
	return i
}

func (d *unitDevice) Submit(r *block.Request) {
	if r.Op == block.Write && r.Flags&block.Atomic != 0 {
		d.atomic++
	}
	d.Device.Submit(r)
}

// atomicPage returns the five fields of the Block Limits page that concern atomic writes.
func atomicPage(r *rig) (f [5]uint32) {
	page := r.good([]byte{wire.OpInquiry, 1, 0xB0, 0, 64, 0}, nil)
	for i := range f {
		f[i] = wire.Uint32(page[44+4*i:])
	}
	return f
}

// TestAtomicLimits checks the atomic limits of Block Limits and that WRITE ATOMIC(16) keeps to them (SBC-4 §6.6.4, §5.48).
func TestAtomicLimits(t *testing.T) {
	for _, c := range []struct {
		unit      int
		blockSize uint32
		want      uint32 // blocks of length, alignment and granularity
	}{
		{0, 512, 1},
		{512, 512, 1},
		{4096, 512, 8},
		{16384, 512, 32},
		{1 << 20, 512, scsi.MaxAtomicBlocks},
		{0, 4096, 1},
		{512, 4096, 1},
		{4096, 4096, 1},
		{16384, 4096, 4},
	} {
		t.Run(fmt.Sprintf("%d of %d", c.unit, c.blockSize), func(t *testing.T) {
			d := &unitDevice{Device: block.NewMem(4096 * int64(c.blockSize)), unit: c.unit}
			r := newRig(t, d, unit.Attributes{BlockSize: c.blockSize}, nil)
			if got := atomicPage(r); got != [5]uint32{c.want, c.want, c.want, 0, 0} {
				t.Errorf("Block Limits says %d", got)
			}
			n := int(c.want)
			r.good(atomicCDB(uint64(n), uint16(n)), r.fill(n, 'a'))
			r.has(n, n, 'a')
			r.good(flags(atomicCDB(0, uint16(n)), bitFUA), r.fill(n, 'b'))
			r.good(atomicCDB(1, 0), nil)
			if d.atomic != 2 {
				t.Errorf("%d of 2 writes were atomic", d.atomic)
			}
			r.invalid(atomicCDB(0, uint16(n+1)), nil, false, 12, -1)
			r.invalid(atomicCDB(0, uint16(2*n)), nil, false, 12, -1)
			if n > 1 {
				r.invalid(atomicCDB(1, uint16(n)), r.fill(n, 'c'), false, 2, -1)
				r.invalid(atomicCDB(uint64(n/2), uint16(n)), r.fill(n, 'c'), false, 2, -1)
				r.invalid(atomicCDB(0, uint16(n/2)), r.fill(n/2, 'c'), false, 12, -1)
				r.invalid(atomicCDB(0, 1), r.fill(1, 'c'), false, 12, -1)
			}
			r.has(0, n, 'b')
			r.good(cdb(wire.OpWrite16, 0, 1), r.fill(1, 'd'))
			if d.atomic != 2 {
				t.Error("a plain or refused write was atomic")
			}
		})
	}
}

// TestAtomicLimitsByKind checks the atomic limits of Block Limits for each kind of device (SBC-4 §6.6.4).
func TestAtomicLimitsByKind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volume")
	if err := block.CreateFile(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	file, err := block.OpenFile(path, block.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	onFile := uint32(max(file.Info().AtomicUnit/512, 1))
	if onFile > 128 {
		t.Errorf("a file promises %d blocks, more than a page", onFile)
	}
	for _, c := range []struct {
		dev  block.Device
		want [5]uint32
	}{
		{block.NewMem(1 << 20), [5]uint32{scsi.MaxAtomicBlocks}},
		{block.NewNull(1 << 20), [5]uint32{scsi.MaxAtomicBlocks}},
		{file, [5]uint32{onFile, onFile, onFile}},
	} {
		r := newRig(t, c.dev, unit.Attributes{BlockSize: 512}, nil)
		if got := atomicPage(r); got != c.want {
			t.Errorf("%s: Block Limits says %d, want %d", c.dev.Info().Kind, got, c.want)
		}
	}
}
