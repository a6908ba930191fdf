package sbc

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

func readCapacity16(lba uint64, allocation uint32) []byte {
	return flags(cdb(wire.OpServiceActionIn16, lba, allocation), wire.ActionReadCapacity16)
}

// TestReadCapacity checks READ CAPACITY(10), READ CAPACITY(16) (SBC-3 §5.12, §5.13).
func TestReadCapacity(t *testing.T) {
	for _, c := range []struct {
		bytes  int64
		size   uint32
		exp    uint8
		thin   bool
		last10 uint32
		last16 uint64
	}{
		{1 << 20, 512, 0, false, 2047, 2047},
		{1 << 20, 512, 3, true, 2047, 2047},
		{1 << 20, 4096, 0, true, 255, 255},
		{1 << 41, 512, 3, false, 0xFFFFFFFF, 1<<32 - 1},
		{1<<41 - 512, 512, 3, false, 0xFFFFFFFE, 1<<32 - 2},
		{64 << 40, 512, 3, false, 0xFFFFFFFF, 1<<37 - 1},
		{64 << 40, 4096, 0, true, 0xFFFFFFFF, 1<<34 - 1},
	} {
		r := newRig(t, block.NewNull(c.bytes), unit.Attributes{BlockSize: c.size, PhysicalExponent: c.exp, Thin: c.thin}, nil)
		data := r.good(cdb(wire.OpReadCapacity10, 0, 0), nil)
		if len(data) != 8 || wire.Uint32(data) != c.last10 || wire.Uint32(data[4:]) != c.size {
			t.Errorf("%d bytes of %d: % X", c.bytes, c.size, data)
		}
		want := make([]byte, 32)
		wire.PutUint64(want, c.last16)
		wire.PutUint32(want[8:], c.size)
		want[13] = c.exp
		if c.thin {
			want[14] = 0xC0
		}
		for allocation := range uint32(40) {
			if data = r.good(readCapacity16(0, allocation), nil); !bytes.Equal(data, want[:min(allocation, 32)]) {
				t.Errorf("%d bytes of %d: % X", c.bytes, c.size, data)
			}
		}
		r.good(readCapacity16(0, 1<<32-1), nil)
		r.fails(readCapacity16(5, 32), nil, wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
		r.fails(cdb(wire.OpReadCapacity10, 5, 0), nil, wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	}
}

// TestReadDefectData checks READ DEFECT DATA(10), READ DEFECT DATA(12) (SBC-3 §5.14, §5.15).
func TestReadDefectData(t *testing.T) {
	r := newRig(t, block.NewNull(1<<20), unit.Attributes{BlockSize: 512}, nil)
	for bits := range byte(0x20) {
		ten := cdb(wire.OpReadDefectData10, 0, 32)
		ten[2] = bits
		twelve := cdb(wire.OpReadDefectData12, 0, 32)
		twelve[1] = bits
		if bits&bitsDefectFormat == formatReserved {
			r.invalid(ten, nil, false, 2, 2)
			r.invalid(twelve, nil, false, 1, 2)
			continue
		}
		if data := r.good(ten, nil); !bytes.Equal(data, []byte{0, bits, 0, 0}) {
			t.Errorf("READ DEFECT DATA(10): % X", data)
		}
		if data := r.good(twelve, nil); !bytes.Equal(data, []byte{0, bits, 0, 0, 0, 0, 0, 0}) {
			t.Errorf("READ DEFECT DATA(12): % X", data)
		}
	}
	if data := r.good(cdb(wire.OpReadDefectData10, 0, 2), nil); len(data) != 2 {
		t.Errorf("READ DEFECT DATA(10) of 2 bytes: % X", data)
	}
	if data := r.good(cdb(wire.OpReadDefectData12, 0, 0), nil); len(data) != 0 {
		t.Errorf("READ DEFECT DATA(12) of no bytes: % X", data)
	}
}
