package blocktest

import (
	"bytes"
	"math"
	"testing"

	"lintel.io/lintel/internal/block"
)

// "Info says what a device can do. It does not change while the device is open."
func (s *suite) facts(t *testing.T) {
	powerOfTwo := func(name string, n int) {
		if n < 1 || n&(n-1) != 0 {
			t.Errorf("%s is %d, not a power of two", name, n)
		}
	}
	powerOfTwo("BlockSize", s.info.BlockSize)
	powerOfTwo("PhysicalBlockSize", s.info.PhysicalBlockSize)
	powerOfTwo("Align", s.info.Align)
	if s.info.PhysicalBlockSize < s.info.BlockSize {
		t.Errorf("the physical block of %d bytes is smaller than the logical of %d", s.info.PhysicalBlockSize, s.info.BlockSize)
	}
	if s.info.Discard && s.info.DiscardGranularity < 1 {
		t.Errorf("DiscardGranularity is %d", s.info.DiscardGranularity)
	}
	if s.info.Kind == "" || s.info.ReadOnly {
		t.Errorf("unexpected facts: %+v", s.info)
	}
	if s.dev.Size()%int64(s.info.BlockSize) != 0 {
		t.Errorf("the size %d is not a multiple of the block size %d", s.dev.Size(), s.info.BlockSize)
	}
	Write(t, s.dev, 0, fill(s.unit, 1))
	if now := s.dev.Info(); now != s.info {
		t.Errorf("the facts have changed from %+v to %+v", s.info, now)
	}
}

func (s *suite) readBack(t *testing.T) {
	size := s.dev.Size()
	for i, off := range []int64{0, s.unit, 64<<10 - s.unit, 1<<20 + s.unit, size - 3*s.unit} {
		for j, n := range []int64{s.unit, 2 * s.unit, 3 * s.unit} {
			for _, flags := range []block.Flags{0, block.FUA} {
				p := fill(n, 100*i+10*j+int(flags))
				keep := bytes.Clone(p)
				s.do(t, &block.Request{Op: block.Write, Flags: flags, Off: off, Data: p})
				if !bytes.Equal(p, keep) {
					t.Fatal("a write changed its buffer")
				}
				clear(p) // it belongs to the caller again
				s.read(t, off, keep)
			}
		}
	}
	// Overwriting a part leaves the rest.
	Write(t, s.dev, 0, fill(8*s.unit, 1))
	Write(t, s.dev, 3*s.unit, fill(2*s.unit, 2))
	want := fill(8*s.unit, 1)
	copy(want[3*s.unit:], fill(2*s.unit, 2))
	s.read(t, 0, want)
	Flush(t, s.dev)
	s.read(t, 0, want)
}

func (s *suite) large(t *testing.T) {
	p := fill(MinSize, 7)
	Write(t, s.dev, 0, p)
	s.read(t, 0, p)
	s.read(t, 1<<20+s.unit, p[1<<20+s.unit:3<<20])
}

// "Discard: it reads as zeros afterwards", "Zero: make it read as zeros".
func (s *suite) zeroAndDiscard(t *testing.T) {
	const span = 1 << 20
	full, part := fill(span, 1), fill(s.unit, 9)
	want := make([]byte, span)
	for _, op := range []block.Op{block.Zero, block.Discard} {
		for i, r := range [][2]int64{{0, s.unit}, {s.unit, 3 * s.unit}, {64 << 10, 128 << 10}, {4096 + s.unit, 200 << 10}, {span - s.unit, s.unit}, {0, span}} {
			flags := block.FUA * block.Flags(i%2)
			Write(t, s.dev, 0, full)
			copy(want, full)
			s.do(t, &block.Request{Op: op, Flags: flags, Off: r[0], Len: r[1]})
			clear(want[r[0] : r[0]+r[1]])
			s.read(t, 0, want)
			// Again, where there is nothing left to do, and writing there.
			s.do(t, &block.Request{Op: op, Flags: flags, Off: r[0], Len: r[1]})
			copy(want[r[0]:], part)
			Write(t, s.dev, r[0], part)
			s.read(t, 0, want)
		}
		s.do(t, &block.Request{Op: op, Len: s.dev.Size()})
		s.read(t, 0, make([]byte, span))
	}
}

// A request of no bytes succeeds without effect.
func (s *suite) empty(t *testing.T) {
	p := fill(s.unit, 1)
	Write(t, s.dev, 0, p)
	for _, off := range []int64{0, s.unit, s.dev.Size()} {
		for _, op := range []block.Op{block.Read, block.Write, block.Discard, block.Zero} {
			for _, flags := range []block.Flags{0, block.FUA} {
				s.do(t, &block.Request{Op: op, Flags: flags, Off: off})
				s.do(t, &block.Request{Op: op, Flags: flags, Off: off, Data: []byte{}})
			}
		}
	}
	s.read(t, 0, p)
}

func (s *suite) outOfRange(t *testing.T) {
	size, u := s.dev.Size(), s.unit
	last := fill(u, 1)
	Write(t, s.dev, size-u, last)
	for _, r := range [][2]int64{{size, u}, {size - u, 2 * u}, {-u, u}, {-u, 2 * u}, {math.MaxInt64 - u + 1, u}, {math.MinInt64, u}} {
		s.fails(t, block.KindRange, &block.Request{Op: block.Read, Off: r[0], Data: alignedBytes(int(r[1]))})
		s.fails(t, block.KindRange, &block.Request{Op: block.Write, Off: r[0], Data: alignedBytes(int(r[1]))})
		s.fails(t, block.KindRange, &block.Request{Op: block.Zero, Off: r[0], Len: r[1]})
		s.fails(t, block.KindRange, &block.Request{Op: block.Discard, Off: r[0], Len: r[1]})
	}
	for _, r := range [][2]int64{{u, math.MaxInt64 - u + 1}, {0, -u}, {u, -u}, {0, math.MinInt64}, {size, math.MinInt64}} {
		s.fails(t, block.KindRange, &block.Request{Op: block.Zero, Off: r[0], Len: r[1]})
		s.fails(t, block.KindRange, &block.Request{Op: block.Discard, Off: r[0], Len: r[1]})
	}
	s.read(t, size-u, last)
	if s.dev.Size() != size {
		t.Errorf("the size went from %d to %d", size, s.dev.Size())
	}
}

// Requests that break the rules of Request fail; they neither panic nor get lost.
func (s *suite) malformed(t *testing.T) {
	s.fails(t, block.KindIO, &block.Request{Op: block.Zero + 1, Len: s.unit})
	s.fails(t, block.KindIO, &block.Request{Op: 255})
	s.fails(t, block.KindIO, &block.Request{Op: block.Write, Len: s.unit})
	if !s.info.Lends {
		s.fails(t, block.KindIO, &block.Request{Op: block.Read, Len: s.unit})
	}
	if half := int64(s.info.BlockSize / 2); half > 0 {
		s.fails(t, block.KindRange, &block.Request{Op: block.Read, Off: half, Data: alignedBytes(int(s.unit))})
		s.fails(t, block.KindRange, &block.Request{Op: block.Read, Data: alignedBytes(int(half))})
		s.fails(t, block.KindRange, &block.Request{Op: block.Write, Off: half, Data: alignedBytes(int(s.unit))})
		s.fails(t, block.KindRange, &block.Request{Op: block.Write, Data: alignedBytes(int(s.unit + half))})
		s.fails(t, block.KindRange, &block.Request{Op: block.Zero, Off: half, Len: s.unit})
		s.fails(t, block.KindRange, &block.Request{Op: block.Discard, Len: half})
	} else {
		want := fill(9000, 3)
		Write(t, s.dev, 12345, want)
		Write(t, s.dev, 13001, want[:999])
		copy(want[13001-12345:], want[:999])
		s.read(t, 12345, want)
		s.do(t, &block.Request{Op: block.Zero, Off: 12346, Len: 5000})
		s.do(t, &block.Request{Op: block.Discard, Off: 20001, Len: 5})
		clear(want[1:5001])
		clear(want[20001-12345:][:5])
		s.read(t, 12345, want)
	}
}

// Buffers that are not aligned as Info.Align asks cost a copy, no more: the
// pieces of a network packet lie anywhere.
func (s *suite) anyMemory(t *testing.T) {
	for _, n := range []int64{s.unit, 64 << 10, 1<<20 + 3*s.unit} {
		room := make([]byte, n+64)
		for _, shift := range []int64{0, 1, 8, 33} {
			p := room[shift : shift+n : shift+n]
			copy(p, fill(n, int(shift)))
			s.do(t, &block.Request{Op: block.Write, Off: s.unit, Data: p})
			clear(room)
			s.do(t, &block.Request{Op: block.Read, Off: s.unit, Data: p})
			if s.keeps && !bytes.Equal(p, fill(n, int(shift))) {
				t.Fatalf("%d bytes at memory offset %d read back wrong", n, shift)
			}
			if !bytes.Equal(room[:shift], make([]byte, shift)) || !bytes.Equal(room[shift+n:], make([]byte, 64-shift)) {
				t.Fatal("a read stored outside of its buffer")
			}
		}
	}
}

// "A Read whose Data is nil is allowed only where Info.Lends says so."
func (s *suite) lending(t *testing.T) {
	if !s.info.Lends {
		return // malformed checks the refusal
	}
	for _, n := range []int64{s.unit, 1 << 20, MinSize} {
		r := &block.Request{Op: block.Read, Len: n}
		s.do(t, r)
		if int64(len(r.Data)) != n || cap(r.Data) != len(r.Data) {
			t.Fatalf("asked for %d bytes, lent %d of %d", n, len(r.Data), cap(r.Data))
		}
		if !bytes.Equal(r.Data, make([]byte, n)) {
			t.Fatal("what was lent is not zeros")
		}
	}
	s.fails(t, block.KindRange, &block.Request{Op: block.Read, Off: s.dev.Size(), Len: s.unit})
}
