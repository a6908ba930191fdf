package blocktest

import (
	"bytes"
	"errors"
	"testing"

	"lintel.io/lintel/internal/block"
	"pgregory.net/rapid"
)

// model compares random sequences of requests with the same on a slice.
func (s *suite) model(t *testing.T) {
	const span = 512 << 10
	unit := int64(s.info.BlockSize)
	rapid.Check(t, func(t *rapid.T) {
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		size := s.dev.Size()
		resizes := true
		if err := s.dev.Resize(span); errors.Is(err, errors.ErrUnsupported) {
			resizes = false
		} else {
			must(err)
		}
		must(Do(s.dev, &block.Request{Op: block.Zero, Len: span}))
		want := make([]byte, span)
		rangeOf := func() (off, n int64) {
			blocks := int64(len(want)) / unit
			if rapid.Bool().Draw(t, "small") {
				n = rapid.Int64Range(0, min(blocks, 16)).Draw(t, "n")
			} else {
				n = rapid.Int64Range(0, blocks).Draw(t, "n")
			}
			off = rapid.Int64Range(0, blocks-n).Draw(t, "off")
			return off * unit, n * unit
		}
		flags := func() block.Flags {
			if rapid.IntRange(0, 15).Draw(t, "fua") == 0 {
				return block.FUA
			}
			return 0
		}
		verify := func(off, n int64) {
			got := alignedBytes(int(n))
			must(Do(s.dev, &block.Request{Op: block.Read, Off: off, Data: got}))
			if s.keeps && !bytes.Equal(got, want[off:off+n]) {
				t.Fatalf("%d bytes at %d differ", n, off)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				off, n := rangeOf()
				p := fill(n, rapid.Int().Draw(t, "seed"))
				copy(want[off:], p)
				must(Do(s.dev, &block.Request{Op: block.Write, Flags: flags(), Off: off, Data: p}))
			},
			"zero": func(t *rapid.T) {
				off, n := rangeOf()
				clear(want[off : off+n])
				must(Do(s.dev, &block.Request{Op: block.Zero, Flags: flags(), Off: off, Len: n}))
			},
			"discard": func(t *rapid.T) {
				off, n := rangeOf()
				clear(want[off : off+n])
				must(Do(s.dev, &block.Request{Op: block.Discard, Flags: flags(), Off: off, Len: n}))
			},
			"read": func(*rapid.T) { verify(rangeOf()) },
			"flush": func(*rapid.T) {
				must(Do(s.dev, &block.Request{Op: block.Flush}))
			},
			"extent": func(*rapid.T) {
				off, n := rangeOf()
				if n == 0 {
					return
				}
				allocated, run, err := s.dev.Extent(off, n)
				must(err)
				if run < 1 || run > n {
					t.Fatalf("Extent(%d, %d) covers %d bytes", off, n, run)
				}
				if s.keeps && !allocated && !bytes.Equal(want[off:off+run], make([]byte, run)) {
					t.Fatalf("data in the %d bytes at %d, called unallocated", run, off)
				}
			},
			"resize": func(t *rapid.T) {
				if !resizes {
					return
				}
				to := rapid.Int64Range(1, span/unit).Draw(t, "size") * unit
				must(s.dev.Resize(to))
				from := int64(len(want))
				if want = want[:min(from, to)]; to > from {
					want = append(want, make([]byte, to-from)...)
					if s.info.Kind == "disk" {
						must(Do(s.dev, &block.Request{Op: block.Zero, Off: from, Len: to - from}))
					}
				}
			},
		})
		verify(0, int64(len(want)))
		if resizes {
			must(s.dev.Resize(size))
		}
	})
}
