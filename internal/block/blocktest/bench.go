package blocktest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"lintel.io/lintel/internal/block"
)

// A step is a request that is repeated without allocating.
type step struct {
	block.Request
	done chan struct{}
}

func (s *step) RequestDone(*block.Request) { s.done <- struct{}{} }

func newStep(op block.Op, n int) *step {
	r := &step{done: make(chan struct{}, 1)}
	r.Done, r.Op, r.Data = r, op, alignedBytes(n)
	return r
}

func (s *step) run(dev block.Device) {
	dev.Submit(&s.Request)
	<-s.done
}

// NoAllocation checks that the way of an I/O through a device that open returns as
// for Run allocates nothing, whether it completes inline or not.
func NoAllocation(t *testing.T, open func(testing.TB) block.Device) {
	dev := open(t)
	defer func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, op := range []block.Op{block.Write, block.Read} {
		for _, size := range []int{4 << 10, 128 << 10} {
			r := newStep(op, size)
			if n := testing.AllocsPerRun(200, func() { r.run(dev) }); n > 0 {
				t.Errorf("a %s of %d bytes allocates %v times", op, size, n)
			}
			if r.Err != nil {
				t.Error(r.Err)
			}
		}
	}
}

// Benchmark measures random reads and writes on a device that open returns
// as for Run, in sizes from 4 KiB to 1 MiB, and a flush after each write.
func Benchmark(b *testing.B, open func(testing.TB) block.Device) {
	dev := open(b)
	defer func() {
		if err := dev.Close(); err != nil {
			b.Error(err)
		}
	}()
	span := min(dev.Size(), 256<<20)
	warm := alignedBytes(1 << 20)
	for off := int64(0); off+1<<20 <= span; off += 1 << 20 {
		if err := Do(dev, &block.Request{Op: block.Write, Off: off, Data: warm}); err != nil {
			b.Fatal(err)
		}
	}
	for _, op := range []block.Op{block.Read, block.Write} {
		for _, size := range []int64{4 << 10, 64 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s-%dK", op, size>>10), func(b *testing.B) {
				b.SetBytes(size)
				b.ReportAllocs()
				r := newStep(op, int(size))
				rng := rand.New(rand.NewPCG(1, 2))
				for b.Loop() {
					r.Off = rng.Int64N(span/size) * size
					r.run(dev)
				}
				if r.Err != nil {
					b.Fatal(r.Err)
				}
			})
		}
	}
	b.Run("flush", func(b *testing.B) {
		for b.Loop() {
			if err := Do(dev, &block.Request{Op: block.Write, Data: warm[:4096]}); err != nil {
				b.Fatal(err)
			}
			if err := Do(dev, &block.Request{Op: block.Flush}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
