package blocktest

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"lintel.io/lintel/internal/block"
)

// Extent is truthful: what it calls unallocated reads as zeros, and what was
// written is allocated.
func (s *suite) extent(t *testing.T) {
	size := s.dev.Size()
	s.do(t, &block.Request{Op: block.Discard, Len: size})
	Write(t, s.dev, 1<<20, fill(s.unit, 1))
	Write(t, s.dev, 2<<20, fill(256<<10, 1))
	s.do(t, &block.Request{Op: block.Discard, Off: 2<<20 + 64<<10, Len: 128 << 10})
	Write(t, s.dev, size-s.unit, fill(s.unit, 2))
	for _, flushed := range []bool{false, true} {
		if flushed {
			Flush(t, s.dev)
		}
		unallocated := int64(0)
		for off := int64(0); off < size; {
			allocated, n, err := s.dev.Extent(off, size-off)
			if err != nil || n < 1 || n > size-off {
				t.Fatalf("Extent(%d, %d) = %v, %d, %v", off, size-off, allocated, n, err)
			}
			if !allocated {
				unallocated += n
				// It may be as large as the device: look at its ends.
				s.zeros(t, off, min(n, MinSize))
				s.zeros(t, off+n-min(n, MinSize), min(n, MinSize))
			}
			off += n
		}
		if s.keeps {
			for _, off := range []int64{1 << 20, 2 << 20, size - s.unit} {
				if allocated, _, err := s.dev.Extent(off, s.unit); err != nil || !allocated {
					t.Errorf("bytes written at %d are called unallocated (%v)", off, err)
				}
			}
		}
		if !s.info.Sparse && unallocated > 0 {
			t.Errorf("a device that is not sparse calls %d bytes unallocated", unallocated)
		}
		if s.info.Sparse && s.info.Discard && flushed && unallocated < 2<<20 {
			t.Errorf("only %d of %d bytes are unallocated after a discard", unallocated, size)
		}
	}
	if s.info.Sparse && s.info.Discard && s.keeps {
		hole := int64(2<<20 + 64<<10)
		if allocated, n, err := s.dev.Extent(hole, 1<<20); err != nil || allocated || n != 128<<10 {
			t.Errorf("the discarded 128 KiB are reported as %v for %d bytes (%v)", allocated, n, err)
		}
	}
	// "at most up to limit"
	for _, off := range []int64{0, 1 << 20, 2<<20 + s.unit} {
		if _, n, err := s.dev.Extent(off, s.unit); err != nil || n < 1 || n > s.unit {
			t.Errorf("Extent(%d, %d) covers %d bytes (%v)", off, s.unit, n, err)
		}
	}
	if _, n, err := s.dev.Extent(size-s.unit, math.MaxInt64); err != nil || n != s.unit {
		t.Errorf("the last extent covers %d bytes, want %d (%v)", n, s.unit, err)
	}
	for _, r := range [][2]int64{{size, 1}, {-1, 10}, {math.MaxInt64, math.MaxInt64}, {0, 0}, {0, -1}} {
		if _, _, err := s.dev.Extent(r[0], r[1]); block.KindOf(err) != block.KindRange || err == nil {
			t.Errorf("Extent(%d, %d): %v, want %s", r[0], r[1], err, block.KindRange)
		}
	}
}

func (s *suite) zeros(t *testing.T, off, n int64) {
	t.Helper()
	if !bytes.Equal(Read(t, s.dev, off, int(n)), make([]byte, n)) {
		t.Fatalf("some of the %d bytes at %d, called unallocated, are not zero", n, off)
	}
}

// "Used returns how many bytes of backing space the device occupies."
func (s *suite) used(t *testing.T) {
	used := func() int64 {
		Flush(t, s.dev)
		n, err := s.dev.Used()
		if err != nil || n < 0 {
			t.Fatalf("Used() = %d, %v", n, err)
		}
		return n
	}
	s.do(t, &block.Request{Op: block.Discard, Len: s.dev.Size()})
	empty := used()
	Write(t, s.dev, 0, fill(2<<20, 1))
	full := used()
	if s.keeps && (full < 2<<20 || full < empty) {
		t.Errorf("%d bytes used with 2 MiB written, %d without", full, empty)
	}
	s.do(t, &block.Request{Op: block.Discard, Len: 1 << 20})
	if half := used(); s.info.Sparse && s.info.Discard && s.keeps && half > full-1<<20+int64(s.info.DiscardGranularity) {
		t.Errorf("a discard of 1 MiB left %d of %d bytes used", half, full)
	}
}

func (s *suite) resize(t *testing.T) {
	size := s.dev.Size()
	if err := s.dev.Resize(-1); err == nil {
		t.Error("a negative size was taken")
	}
	Write(t, s.dev, 0, fill(MinSize, 1))
	small := int64(1<<20) + s.unit
	if err := s.dev.Resize(small); errors.Is(err, errors.ErrUnsupported) {
		if s.dev.Size() != size {
			t.Errorf("a refused Resize changed the size from %d to %d", size, s.dev.Size())
		}
		return
	} else if err != nil {
		t.Fatal(err)
	}
	if s.dev.Size() != small {
		t.Fatalf("the size is %d, want %d", s.dev.Size(), small)
	}
	s.fails(t, block.KindRange, &block.Request{Op: block.Read, Off: small, Data: alignedBytes(int(s.unit))})
	s.fails(t, block.KindRange, &block.Request{Op: block.Write, Off: small - s.unit, Data: alignedBytes(int(2 * s.unit))})
	s.read(t, 0, fill(MinSize, 1)[:small])
	err := s.dev.Resize(2 << 20)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 2<<20)
	copy(want, fill(MinSize, 1)[:small])
	if s.info.Kind == "disk" { // what a disk holds beyond is not the device's to clear
		want = want[:small]
	}
	s.read(t, 0, want)
	Write(t, s.dev, 2<<20-s.unit, fill(s.unit, 3))
	s.read(t, 2<<20-s.unit, fill(s.unit, 3))
	if err := s.dev.Resize(0); err != nil {
		t.Fatal(err)
	}
	s.fails(t, block.KindRange, &block.Request{Op: block.Read, Data: alignedBytes(int(s.unit))})
	s.do(t, &block.Request{Op: block.Flush})
}

// "After Close every request fails with KindGone." "It is idempotent."
func (s *suite) close(t *testing.T) {
	Write(t, s.dev, 0, fill(s.unit, 1))
	for range 2 {
		if err := s.dev.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for op := block.Read; op <= block.Zero; op++ {
		r := &block.Request{Op: op}
		if op == block.Read || op == block.Write {
			r.Data = alignedBytes(int(s.unit))
		}
		s.fails(t, block.KindGone, r)
		if !errors.Is(r.Err, block.ErrClosed) {
			t.Errorf("%s: %v does not say that the device is closed", op, r.Err)
		}
	}
	if _, _, err := s.dev.Extent(0, 1); block.KindOf(err) != block.KindGone {
		t.Errorf("Extent: %v", err)
	}
	if err := s.dev.Resize(MinSize); block.KindOf(err) != block.KindGone {
		t.Errorf("Resize: %v", err)
	}
	s.dev.Info()
	s.dev.Size()
}
