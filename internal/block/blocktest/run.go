package blocktest

import (
	"bytes"
	"errors"
	"testing"

	"lintel.io/lintel/internal/block"
)

// MinSize is the least size, in bytes, of the devices that Run and Benchmark are given.
const MinSize = 4 << 20

// Run checks an implementation against the contract of block.Device, sentence by
// sentence. open returns a new writable device of MinSize or more, with any
// content, each time it is called; Run closes it. A device that lends memory
// cannot keep what is written: it is taken to read as zeros.
func Run(t *testing.T, open func(testing.TB) block.Device) {
	for _, test := range []struct {
		name string
		run  func(*suite, *testing.T)
	}{
		{"Info", (*suite).facts},
		{"ReadBack", (*suite).readBack},
		{"Large", (*suite).large},
		{"ZeroAndDiscard", (*suite).zeroAndDiscard},
		{"Empty", (*suite).empty},
		{"OutOfRange", (*suite).outOfRange},
		{"Malformed", (*suite).malformed},
		{"AnyMemory", (*suite).anyMemory},
		{"Lending", (*suite).lending},
		{"DoneOnce", (*suite).doneOnce},
		{"SubmitFromDone", (*suite).submitFromDone},
		{"ConcurrentFlush", (*suite).concurrentFlush},
		{"ConcurrentBlocks", (*suite).concurrentBlocks},
		{"ConcurrentOverlaps", (*suite).concurrentOverlaps},
		{"Extent", (*suite).extent},
		{"Used", (*suite).used},
		{"Resize", (*suite).resize},
		{"ResizeUnderLoad", (*suite).resizeUnderLoad},
		{"ReopenUnderLoad", (*suite).reopenUnderLoad},
		{"Close", (*suite).close},
		{"CloseUnderLoad", (*suite).closeUnderLoad},
		{"Model", (*suite).model},
	} {
		t.Run(test.name, func(t *testing.T) {
			dev := open(t)
			t.Cleanup(func() {
				if err := dev.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			if dev.Size() < MinSize {
				t.Fatalf("the suite needs %d bytes, the device has %d", MinSize, dev.Size())
			}
			info := dev.Info()
			test.run(&suite{
				dev:   dev,
				info:  info,
				keeps: !info.Lends,
				unit:  int64(max(info.BlockSize, 512)),
			}, t)
		})
	}
}

// A suite is one run of a test on a device of its own.
type suite struct {
	dev   block.Device
	info  block.Info
	keeps bool  // reads return what was written
	unit  int64 // bytes that small requests of the tests have
}

// read checks the content of a range.
func (s *suite) read(t *testing.T, off int64, want []byte) {
	t.Helper()
	got := Read(t, s.dev, off, len(want))
	if !s.keeps {
		want = make([]byte, len(want))
	}
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("byte %d of the read of %d bytes at %d is %#x, want %#x", i, len(want), off, got[i], want[i])
		}
	}
}

// do runs a request that must succeed.
func (s *suite) do(t *testing.T, r *block.Request) {
	t.Helper()
	if err := Do(s.dev, r); err != nil {
		t.Fatalf("%s of %d bytes at %d: %v", r.Op, r.Length(), r.Off, err)
	}
}

// fails runs a request that must fail with the given kind.
func (s *suite) fails(t *testing.T, kind block.Kind, r *block.Request) {
	t.Helper()
	err := Do(s.dev, r)
	var e *block.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Op != r.Op {
		t.Errorf("%s of %d bytes at %d: got %v, want a %s failing with %s", r.Op, r.Length(), r.Off, err, r.Op, kind)
	}
}

// fill returns n bytes that differ with seed and place.
func fill(n int64, seed int) []byte {
	p := alignedBytes(int(n))
	x := uint32(seed)*2654435761 + 12345
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x>>24) | 1
	}
	return p
}
