package sbc

import (
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

type extent struct {
	lba   uint64
	count uint32
}

// unmapList returns an UNMAP command's CDB and parameter list.
func unmapList(list ...extent) (cdb10, out []byte) {
	out = make([]byte, 8+16*len(list))
	wire.PutUint16(out[0:], uint16(len(out)-2))
	wire.PutUint16(out[2:], uint16(16*len(list)))
	for i, e := range list {
		wire.PutUint64(out[8+16*i:], e.lba)
		wire.PutUint32(out[16+16*i:], e.count)
	}
	return cdb(wire.OpUnmap, 0, uint32(len(out))), out
}

func thinRig(t *testing.T, size uint32, blocks int64) *rig {
	return newRig(t, block.NewMem(blocks*int64(size)), unit.Attributes{BlockSize: size, Thin: true}, nil)
}

// TestUnmap checks UNMAP (SBC-3 §5.28).
func TestUnmap(t *testing.T) {
	for _, size := range []uint32{512, 4096} {
		r := thinRig(t, size, 1000)
		for count := 1; count <= 256; count += 15 {
			r.put(0, 1000, 'a')
			r.good(unmapList(extent{3, uint32(count)}))
			r.has(0, 3, 'a')
			r.has(3, count, 0)
			r.has(3+count, 997-count, 'a')
		}
		r.put(0, 1000, 'a')
		var list []extent
		for i := range scsi.MaxUnmapDescriptors {
			list = append(list, extent{uint64(2 * i), 1})
		}
		r.good(unmapList(list...))
		for i := range 500 {
			want := byte('a')
			if i%2 == 0 && i < 2*scsi.MaxUnmapDescriptors {
				want = 0
			}
			r.has(i, 1, want)
		}
		r.good(unmapList(extent{0, 1000}, extent{10, 5}, extent{0, 1000}))
		if used, _ := r.dev.Used(); used != 0 {
			t.Fatalf("%d bytes are in use after everything was unmapped", used)
		}
	}
}

// TestUnmapNothing checks UNMAP of no blocks and without descriptors (SBC-3 §5.28).
func TestUnmapNothing(t *testing.T) {
	r := thinRig(t, 512, 1000)
	r.put(0, 1000, 'a')
	r.good(cdb(wire.OpUnmap, 0, 0), nil)
	r.good(unmapList())
	r.good(unmapList(extent{0, 0}))
	r.good(unmapList(extent{1000, 0}))
	r.good(unmapList(extent{7, 0}, extent{7, 0}, extent{8, 0}))
	// Half a descriptor is ignored.
	b, out := unmapList(extent{0, 1}, extent{5, 1})
	wire.PutUint16(out[2:], 24)
	r.good(b, out)
	r.has(0, 1, 0)
	r.has(1, 999, 'a')
}

// TestUnmapRefused checks what UNMAP refuses, before it unmaps anything (SBC-3 §5.28).
func TestUnmapRefused(t *testing.T) {
	r := thinRig(t, 512, 1000)
	r.put(0, 1000, 'a')
	b, out := unmapList(extent{0, 1}, extent{1000, 1})
	r.outOfRange(b, out, 1000)
	b, out = unmapList(extent{0, 1}, extent{1001, 0})
	r.outOfRange(b, out, 1001)
	b, out = unmapList(extent{0, 1}, extent{^uint64(0), 1<<32 - 1})
	r.outOfRange(b, out, ^uint64(0))
	b, out = unmapList(make([]extent, scsi.MaxUnmapDescriptors+1)...)
	r.invalid(b, out, true, 2, -1)
	b, out = unmapList(extent{0, 1})
	r.invalid(flags(b, 1), out, false, 1, 0) // ANCHOR
	for n := 1; n < 24; n++ {
		r.fails(cdb(wire.OpUnmap, 0, uint32(n)), out[:n], wire.KeyIllegalRequest, wire.ParameterListLengthError)
	}
	r.fails(cdb(wire.OpUnmap, 0, 24), out[:20], wire.KeyIllegalRequest, wire.ParameterListLengthError)
	r.has(0, 1000, 'a')
}

// TestUnmapLimit checks the MAXIMUM UNMAP LBA COUNT (SBC-3 §6.5.3).
func TestUnmapLimit(t *testing.T) {
	r := newRig(t, block.NewNull(64<<40), unit.Attributes{BlockSize: 512, Thin: true}, nil)
	r.good(unmapList(extent{1 << 33, scsi.MaxUnmapBlocks}))
	b, out := unmapList(extent{0, 1}, extent{1 << 33, scsi.MaxUnmapBlocks})
	r.invalid(b, out, true, 8+16+8, -1)
}

// TestUnmapThick checks that fully provisioned units have no UNMAP (SBC-3 §4.7.2).
func TestUnmapThick(t *testing.T) {
	r := newRig(t, block.NewMem(1<<20), unit.Attributes{BlockSize: 512}, nil)
	b, out := unmapList(extent{0, 1})
	r.fails(b, out, wire.KeyIllegalRequest, wire.InvalidOperationCode)
}

// TestUnmapError checks the sense of UNMAP where the device fails (SBC-3 §4.18).
func TestUnmapError(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, nil)
	f.Inject(blocktest.Fault{Ops: []block.Op{block.Discard}, Off: 512 * 5, Len: 512, Kind: block.KindIO, Count: 1})
	b, out := unmapList(extent{0, 1}, extent{5, 1})
	r.fails(b, out, wire.KeyHardwareError, wire.InternalTargetFailure)
	r.good(b, out)
}

// statusOf returns the LBA status descriptors from a block on.
func (r *rig) statusOf(lba uint64, allocation uint32) (list []extent, states []byte) {
	r.t.Helper()
	b := cdb(wire.OpServiceActionIn16, lba, allocation)
	data := r.good(flags(b, wire.ActionGetLBAStatus), nil)
	if n := int(wire.Uint32(data)) + 4; n != len(data) {
		r.t.Fatalf("%d bytes of LBA status, the header says %d", len(data), n)
	}
	for d := data[8:]; len(d) > 0; d = d[16:] {
		list = append(list, extent{wire.Uint64(d), wire.Uint32(d[8:])})
		states = append(states, d[12])
	}
	return list, states
}

// TestGetLBAStatus checks GET LBA STATUS (SBC-3 §5.4).
func TestGetLBAStatus(t *testing.T) {
	for _, size := range []uint32{512, 4096} {
		const chunks = 10 // of 64 KiB, in which a mem device deallocates
		per := uint64(64<<10) / uint64(size)
		r := thinRig(t, size, int64(chunks*per))
		r.put(int(2*per), int(3*per), 'a')
		list, states := r.statusOf(0, 1024)
		want := []extent{{0, uint32(2 * per)}, {2 * per, uint32(3 * per)}, {5 * per, uint32(5 * per)}}
		if len(list) != 3 || list[0] != want[0] || list[1] != want[1] || list[2] != want[2] || string(states) != "\x01\x00\x01" {
			t.Fatalf("%v % X", list, states)
		}
		list, states = r.statusOf(2*per+1, 24)
		if len(list) != 1 || list[0] != (extent{2*per + 1, uint32(3*per - 1)}) || states[0] != mapped {
			t.Fatalf("%v % X", list, states)
		}
		r.good(unmapList(extent{3 * per, uint32(per)}))
		list, states = r.statusOf(3*per, 40)
		if len(list) != 2 || list[0] != (extent{3 * per, uint32(per)}) || string(states) != "\x01\x00" {
			t.Fatalf("%v % X", list, states)
		}
		if list, _ = r.statusOf(chunks*per-1, 24); list[0] != (extent{chunks*per - 1, 1}) {
			t.Fatalf("%v", list)
		}
		for _, lba := range []uint64{chunks * per, chunks*per + 1, 1 << 63, ^uint64(0)} {
			r.outOfRange(flags(cdb(wire.OpServiceActionIn16, lba, 24), wire.ActionGetLBAStatus), nil, lba)
		}
		for allocation := range uint32(24) {
			if data := r.good(flags(cdb(wire.OpServiceActionIn16, 0, allocation), wire.ActionGetLBAStatus), nil); len(data) != int(allocation) {
				t.Fatalf("%d bytes for an allocation length of %d", len(data), allocation)
			}
		}
	}
}

// TestGetLBAStatusThick checks GET LBA STATUS of fully provisioned units (SBC-3 §4.7.2).
func TestGetLBAStatusThick(t *testing.T) {
	r := newRig(t, block.NewNull(64<<40), unit.Attributes{BlockSize: 4096}, nil)
	list, states := r.statusOf(10, 1024)
	total := uint64(10)
	for i, e := range list {
		if e.lba != total || states[i] != mapped {
			t.Fatalf("%v % X", list, states)
		}
		total += uint64(e.count)
	}
	if total != 64<<40/4096 || len(list) != 4 {
		t.Fatalf("%v", list)
	}
}

// extents is a device whose map is given.
type extents struct {
	block.Device
	states []bool // of 512 bytes each
	fail   bool
}

func (e extents) Extent(off, limit int64) (bool, int64, error) {
	if e.fail {
		return false, 0, &block.Error{Op: block.Read, Kind: block.KindGone, Off: off}
	}
	return e.states[off/512], min(limit, 512), nil
}

// TestGetLBAStatusPartial checks that GET LBA STATUS merges runs and takes a block allocated in part for mapped (SBC-3 §5.4.2).
func TestGetLBAStatusPartial(t *testing.T) {
	states := make([]bool, 64) // 8 blocks
	states[9], states[22], states[23], states[24] = true, true, true, true
	r := newRig(t, extents{block.NewMem(32 << 10), states, false}, unit.Attributes{BlockSize: 4096, Thin: true}, nil)
	list, got := r.statusOf(0, 1024)
	// Where a run begins inside of a block, the device has said so little
	// about the block that it counts as mapped.
	total := uint64(0)
	for i, e := range list {
		if e.lba != total || i > 0 && got[i] == got[i-1] {
			t.Fatalf("%v % X", list, got)
		}
		for b := e.lba; b < e.lba+uint64(e.count); b++ {
			if got[i] == deallocated && (b == 1 || b == 2 || b == 3) {
				t.Fatalf("block %d is deallocated: %v % X", b, list, got)
			}
		}
		total += uint64(e.count)
	}
	if total != 8 {
		t.Fatalf("%v % X", list, got)
	}
	gone := newRig(t, extents{block.NewMem(32 << 10), states, true}, unit.Attributes{BlockSize: 512, Thin: true}, nil)
	gone.fails(flags(cdb(wire.OpServiceActionIn16, 0, 64), wire.ActionGetLBAStatus), nil, wire.KeyNotReady, wire.BecomingReady)
}

// TestGetLBAStatusMany checks that GET LBA STATUS ends before the end of the unit where there is no room for more (SBC-3 §5.4.2).
func TestGetLBAStatusMany(t *testing.T) {
	states := make([]bool, 10000)
	for i := range states {
		states[i] = i%2 == 0
	}
	r := newRig(t, extents{block.NewMem(5120000), states, false}, unit.Attributes{BlockSize: 512, Thin: true}, nil)
	list, _ := r.statusOf(0, 1<<20)
	if len(list) != maxDescriptors || list[255] != (extent{255, 1}) {
		t.Fatalf("%d descriptors", len(list))
	}
	if list, _ = r.statusOf(0, 8+16*7+15); len(list) != 7 {
		t.Fatalf("%d descriptors", len(list))
	}
}

// TestSynchronizeCache checks SYNCHRONIZE CACHE(10), SYNCHRONIZE CACHE(16) (SBC-3 §5.26, §5.27).
func TestSynchronizeCache(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	for _, op := range []byte{wire.OpSynchronizeCache10, wire.OpSynchronizeCache16} {
		for _, bits := range []byte{0, bitSyncNV, bitImmed, bitImmed | bitSyncNV} {
			r.put(0, 2, 'a')
			r.good(flags(cdb(op, 0, 1), bits), nil)
			f.PowerCut()
			r.has(0, 2, 'a')
			r.put(0, 2, 'b')
			blocktest.Flush(t, f)
		}
		f.Inject(blocktest.Fault{Ops: []block.Op{block.Flush}, Kind: block.KindIO, Count: 1})
		r.fails(cdb(op, 0, 0), nil, wire.KeyHardwareError, wire.InternalTargetFailure)
	}
	// With IMMED the answer does not wait.
	f.Hold(block.Flush)
	r.good(flags(cdb(wire.OpSynchronizeCache10, 0, 0), bitImmed), nil)
	f.WaitHeld(1)
	f.Release()
	for detachedOps.Load() != 0 {
		t.Fatal("the flush goes on after it has completed")
	}
	// The number of operations without a task is bounded: one more waits.
	f.Hold(block.Flush)
	for range maxDetached {
		r.good(flags(cdb(wire.OpSynchronizeCache10, 0, 0), bitImmed), nil)
	}
	c := r.start(r.nexus, flags(cdb(wire.OpSynchronizeCache10, 0, 0), bitImmed), nil)
	f.WaitHeld(maxDetached + 1)
	select {
	case <-c.done:
		t.Fatal("answered")
	default:
	}
	f.Release()
	if res := c.wait(); res.status != scsi.StatusGood || detachedOps.Load() != 0 {
		t.Fatalf("%v, %d operations go on", res.sense, detachedOps.Load())
	}
}

// TestPreFetch checks PRE-FETCH(10), PRE-FETCH(16) (SBC-3 §5.5, §5.6).
func TestPreFetch(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(32 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	const most = scsi.MaxTransferBytes / 512
	for _, op := range []byte{wire.OpPreFetch10, wire.OpPreFetch16} {
		for _, c := range []struct {
			lba    uint64
			count  uint32
			flags  byte
			status scsi.Status
		}{
			{0, 1, 0, scsi.StatusConditionMet}, {100, most, 0, scsi.StatusConditionMet}, {100, most + 1, 0, scsi.StatusGood},
			{100, 0, 0, scsi.StatusGood}, {65535, 0, 0, scsi.StatusConditionMet}, {65536, 0, 0, scsi.StatusConditionMet},
			{0, 1, bitImmed, scsi.StatusConditionMet}, {0, most + 1, bitImmed, scsi.StatusGood},
		} {
			before := f.Count(block.Read)
			if res := r.do(flags(cdb(op, c.lba, c.count), c.flags), nil); res.status != c.status || len(res.data) != 0 {
				t.Fatalf("%d blocks at %d: status %02Xh, %v", c.count, c.lba, res.status, res.sense)
			}
			if c.lba < 65536 && f.Count(block.Read) == before {
				t.Fatal("nothing was read")
			}
		}
		f.Inject(blocktest.Fault{Ops: []block.Op{block.Read}, Kind: block.KindMedium, Count: 1})
		r.fails(cdb(op, 0, 1), nil, wire.KeyMediumError, wire.UnrecoveredReadError)
		b := cdb(op, 0, 1)
		b[map[int]int{10: group10, 16: group16}[len(b)]] = 3
		if res := r.do(b, nil); res.status != scsi.StatusConditionMet {
			t.Fatalf("with a group number: %v", res.sense)
		}
	}
	// A medium without a cache in front.
	plain := newRig(t, elsewhere{block.NewMem(1 << 20)}, unit.Attributes{BlockSize: 512}, nil)
	plain.good(cdb(wire.OpPreFetch10, 0, 1), nil)
}
