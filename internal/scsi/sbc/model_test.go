package sbc

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
	"pgregory.net/rapid"
)

// model is a unit as a slice of bytes.
type model struct {
	r    *rig
	data []byte
	t    *rapid.T
}

const modelBlocks = 64

// extent draws a range of blocks, now and then one that exceeds the unit.
func (m *model) extent() (lba, count int) {
	return rapid.IntRange(0, modelBlocks+2).Draw(m.t, "lba"), rapid.IntRange(0, 20).Draw(m.t, "count")
}

func (m *model) at(lba, count int) []byte {
	return m.data[lba*m.r.size : (lba+count)*m.r.size]
}

// blocks draws data with few different bytes, so that comparisons succeed at times.
func (m *model) blocks(count int) []byte {
	b := make([]byte, 0, count*m.r.size)
	for range count {
		b = append(b, bytes.Repeat([]byte{rapid.SampledFrom([]byte{0, 0, 1, 2, 0xFF}).Draw(m.t, "byte")}, m.r.size)...)
	}
	return b
}

// run runs a command; it returns false where the range exceeds the unit, and has
// checked that then.
func (m *model) run(b, out []byte, lba, count int) (result, bool) {
	res := m.r.do(b, out)
	if lba+count > modelBlocks {
		if res.sense.Code != wire.LBAOutOfRange {
			m.t.Fatalf("% X: %02Xh %v, want a refusal", b, res.status, res.sense)
		}
		return res, false
	}
	return res, true
}

func (m *model) good(b []byte, res result) {
	if res.status != scsi.StatusGood {
		m.t.Fatalf("% X: %02Xh %v", b, res.status, res.sense)
	}
}

func (m *model) sample(ops ...byte) byte { return rapid.SampledFrom(ops).Draw(m.t, "op") }

func (m *model) read(t *rapid.T) {
	lba, count := m.extent()
	b := cdb(m.sample(wire.OpRead10, wire.OpRead12, wire.OpRead16), uint64(lba), uint32(count))
	if res, ok := m.run(b, nil, lba, count); ok {
		m.good(b, res)
		if !bytes.Equal(res.data, m.at(lba, count)) {
			t.Fatalf("% X: wrong data", b)
		}
	}
}

func (m *model) write(t *rapid.T) {
	lba, count := m.extent()
	op := m.sample(wire.OpWrite10, wire.OpWrite12, wire.OpWrite16, wire.OpWriteVerify10, wire.OpWriteVerify12, wire.OpWriteVerify16, wire.OpORWrite16, wire.OpWriteAtomic16)
	b := cdb(op, uint64(lba), uint32(count)) // WRITE ATOMIC has its length at the end of the same field
	out := m.blocks(count)
	res, ok := m.run(b, out, lba, count)
	if !ok {
		return
	}
	m.good(b, res)
	if op == wire.OpORWrite16 {
		for i, v := range m.at(lba, count) {
			out[i] |= v
		}
	}
	copy(m.at(lba, count), out)
}

func (m *model) compareAndWrite(t *rapid.T) {
	lba, count := m.extent()
	b, out := compareCDB(uint64(lba), count), m.blocks(2*count)
	if lba+count <= modelBlocks && rapid.Bool().Draw(t, "equal") {
		copy(out, m.at(lba, count))
	}
	res, ok := m.run(b, out, lba, count)
	if !ok {
		return
	}
	half := out[:count*m.r.size]
	if want := difference(half, m.at(lba, count)); want >= 0 {
		if res.sense.Key != wire.KeyMiscompare || res.sense.Information != uint64(want) {
			t.Fatalf("% X: %v at %d, want a miscompare at %d", b, res.sense, res.sense.Information, want)
		}
		return
	}
	m.good(b, res)
	copy(m.at(lba, count), out[len(half):])
}

func (m *model) verify(t *rapid.T) {
	lba, count := m.extent()
	b := flags(cdb(m.sample(allVerifies...), uint64(lba), uint32(count)), m.sample(checkData, checkAlike)<<1)
	out := m.blocks(count)
	want := out
	if byteCheck(b) == checkAlike {
		out = m.blocks(1)
		want = bytes.Repeat(out, count)
	}
	res, ok := m.run(b, out, lba, count)
	if !ok {
		return
	}
	if at := difference(want, m.at(lba, count)); at >= 0 {
		if res.sense.Key != wire.KeyMiscompare || res.sense.Information != uint64(at) {
			t.Fatalf("% X: %v at %d, want a miscompare at %d", b, res.sense, res.sense.Information, at)
		}
		return
	}
	m.good(b, res)
}

func (m *model) writeSame(*rapid.T) {
	lba, count := m.extent()
	b := flags(cdb(m.sample(bothSames...), uint64(lba), uint32(count)), m.sample(0, bitUnmap))
	out := m.blocks(1)
	res, ok := m.run(b, out, lba, count)
	switch {
	case !ok:
	case count == 0:
		if res.sense.Code != wire.InvalidFieldInCDB {
			m.t.Fatalf("% X: %02Xh %v, want a refusal", b, res.status, res.sense)
		}
	default:
		m.good(b, res)
		copy(m.at(lba, count), bytes.Repeat(out, count))
	}
}

func (m *model) unmap(*rapid.T) {
	lba, count := m.extent()
	lba2, count2 := m.extent()
	b, out := unmapList(extent{uint64(lba), uint32(count)}, extent{uint64(lba2), uint32(count2)})
	if lba+count > modelBlocks {
		m.run(b, out, lba, count)
		return
	}
	if res, ok := m.run(b, out, lba2, count2); ok {
		m.good(b, res)
		clear(m.at(lba, count))
		clear(m.at(lba2, count2))
	}
}

func (m *model) status(t *rapid.T) {
	lba := rapid.IntRange(0, modelBlocks-1).Draw(m.t, "lba")
	list, states := m.r.statusOf(uint64(lba), 4096)
	next := uint64(lba)
	for i, e := range list {
		if e.lba != next || e.count == 0 {
			t.Fatalf("%v", list)
		}
		next += uint64(e.count)
		if states[i] == deallocated && !bytes.Equal(m.at(int(e.lba), int(e.count)), make([]byte, int(e.count)*m.r.size)) {
			t.Fatalf("blocks with data are deallocated: %v % X", list, states)
		}
	}
	if next != modelBlocks {
		t.Fatalf("%v", list)
	}
}

// TestModel checks the block commands in random order against a model (SBC-3 §5).
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.SampledFrom([]uint32{512, 4096}).Draw(rt, "size")
		dev := rapid.SampledFrom([]func(block.Device) block.Device{
			func(d block.Device) block.Device { return d },
			func(d block.Device) block.Device { return elsewhere{d} },
			func(d block.Device) block.Device { return blocktest.NewFaulty(d) },
		}).Draw(rt, "device")(block.NewMem(modelBlocks * int64(size)))
		m := &model{r: newRig(t, dev, unit.Attributes{BlockSize: size, Thin: true}, nil), data: make([]byte, modelBlocks*size), t: rt}
		do := func(f func(*rapid.T)) func(*rapid.T) {
			return func(rt *rapid.T) {
				m.t = rt
				f(rt)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"read": do(m.read), "write": do(m.write), "compareAndWrite": do(m.compareAndWrite), "verify": do(m.verify),
			"writeSame": do(m.writeSame), "unmap": do(m.unmap), "status": do(m.status),
		})
	})
}
