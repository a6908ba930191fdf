package blocktest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"lintel.io/lintel/internal/block"
)

// A tally counts how often its request has come back.
type tally struct {
	block.Request
	count atomic.Int32
	all   *sync.WaitGroup
}

func (c *tally) RequestDone(r *block.Request) {
	if r != &c.Request {
		panic("RequestDone was given another request")
	}
	if c.count.Add(1) == 1 {
		c.all.Done()
	}
}

// mixture returns n requests of all operations over the device.
func (s *suite) mixture(n int, all *sync.WaitGroup) []*tally {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	list := make([]*tally, n)
	for i := range list {
		c := &tally{all: all}
		c.Op = block.Op(rng.IntN(int(block.Zero) + 1))
		c.Off = rng.Int64N(1<<20/s.unit) * s.unit
		c.Done = c
		if rng.IntN(8) == 0 {
			c.Flags = block.FUA
		}
		switch c.Op {
		case block.Read, block.Write:
			c.Data = alignedBytes(int(s.unit * (1 + rng.Int64N(16))))
		case block.Discard, block.Zero:
			c.Len = s.unit * (1 + rng.Int64N(16))
		}
		list[i] = c
	}
	all.Add(n)
	return list
}

// submit spreads requests over goroutines and returns after the last Submit.
func (s *suite) submit(list []*tally) {
	var submitted sync.WaitGroup
	for part := range 4 {
		submitted.Go(func() {
			for i := part; i < len(list); i += 4 {
				s.dev.Submit(&list[i].Request)
			}
		})
	}
	submitted.Wait()
}

// "RequestDone is called exactly once for every submitted request."
func (s *suite) doneOnce(t *testing.T) {
	var all sync.WaitGroup
	list := s.mixture(2000, &all)
	s.submit(list)
	all.Wait()
	// Whatever comes twice has come when Close returns.
	if err := s.dev.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.count.Load() != 1 {
			t.Errorf("%s at %d finished %d times", c.Op, c.Off, c.count.Load())
		}
		if c.Err != nil {
			t.Errorf("%s at %d: %v", c.Op, c.Off, c.Err)
		}
	}
}

// A chain submits its one request again and again from RequestDone.
type chain struct {
	block.Request
	dev  block.Device
	left int
	done chan error
}

func (c *chain) RequestDone(r *block.Request) {
	if c.left--; r.Err != nil || c.left == 0 {
		c.done <- r.Err
		return
	}
	r.Op ^= block.Read ^ block.Write
	c.dev.Submit(r)
}

// "The request and its Data belong to the completer again when it is called."
func (s *suite) submitFromDone(t *testing.T) {
	for _, flags := range []block.Flags{0, block.FUA} {
		c := &chain{dev: s.dev, left: 100, done: make(chan error, 1)}
		c.Flags = flags
		c.Data = alignedBytes(int(s.unit))
		c.Done = c
		s.dev.Submit(&c.Request)
		if err := <-c.done; err != nil {
			t.Fatal(err)
		}
	}
}

func (s *suite) concurrentFlush(t *testing.T) {
	var all sync.WaitGroup
	for i := range int64(16) {
		all.Go(func() {
			p := fill(s.unit, int(i))
			for range 8 {
				if err := Do(s.dev, &block.Request{Op: block.Write, Off: i * s.unit, Data: p}); err != nil {
					t.Error(err)
				}
				if err := Do(s.dev, &block.Request{Op: block.Flush}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for i := range int64(16) {
		s.read(t, i*s.unit, fill(s.unit, int(i)))
	}
}

// Requests that do not overlap do not disturb each other, wherever they meet
// inside of one page or chunk.
func (s *suite) concurrentBlocks(t *testing.T) {
	const workers = 8
	var all sync.WaitGroup
	s.do(t, &block.Request{Op: block.Zero, Len: 1 << 20})
	for w := range int64(workers) {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(w)))
			for i := range 200 {
				off := (rng.Int64N(1<<20/s.unit/workers)*workers + w) * s.unit
				var want []byte
				r := &block.Request{Op: block.Write, Off: off}
				switch i % 4 {
				case 0:
					r.Op, r.Len = block.Discard, s.unit
					want = make([]byte, s.unit)
				case 1:
					r.Op, r.Len = block.Zero, s.unit
					want = make([]byte, s.unit)
				default:
					r.Data = fill(s.unit, i)
					want = fill(s.unit, i)
				}
				got := alignedBytes(int(s.unit))
				if err := Do(s.dev, r); err != nil {
					t.Error(err)
				}
				if err := Do(s.dev, &block.Request{Op: block.Read, Off: off, Data: got}); err != nil {
					t.Error(err)
				}
				if s.keeps && !bytes.Equal(got, want) {
					t.Errorf("%s at %d read back wrong", r.Op, off)
				}
			}
		})
	}
	all.Wait()
}

// "Requests that overlap are ordered only by the caller waiting for the first":
// the outcome is open, but nothing else may break.
func (s *suite) concurrentOverlaps(t *testing.T) {
	var all sync.WaitGroup
	list := s.mixture(500, &all)
	for _, c := range list {
		if c.Off %= 16 * s.unit; c.Op == block.Write {
			for i := range c.Data {
				c.Data[i] = 0xA5
			}
		}
	}
	s.do(t, &block.Request{Op: block.Zero, Len: 1 << 20})
	s.submit(list)
	all.Wait()
	for i, b := range Read(t, s.dev, 0, int(32*s.unit)) {
		if b != 0 && b != 0xA5 {
			t.Fatalf("byte %d is %#x, which nobody wrote", i, b)
		}
	}
}

// Close waits for the requests under way: each one has finished when it returns,
// and has either been done or failed with KindGone.
func (s *suite) closeUnderLoad(t *testing.T) {
	var all, started sync.WaitGroup
	list := s.mixture(400, &all)
	started.Go(func() { s.submit(list[200:]) })
	s.submit(list[:200])
	var closers sync.WaitGroup
	for range 2 {
		closers.Go(func() {
			if err := s.dev.Close(); err != nil {
				t.Error(err)
			}
			for _, c := range list[:200] {
				if c.count.Load() != 1 {
					t.Error("Close returned before a request had finished")
				}
			}
		})
	}
	closers.Wait()
	started.Wait()
	all.Wait()
	for _, c := range list {
		if c.count.Load() != 1 {
			t.Errorf("%s finished %d times", c.Op, c.count.Load())
		}
		if c.Err != nil && block.KindOf(c.Err) != block.KindGone {
			t.Errorf("%s: %v", c.Op, c.Err)
		}
	}
}

// Resize may happen while requests are under way; those beyond the size of
// the moment fail with KindRange, the others are done.
func (s *suite) resizeUnderLoad(t *testing.T) {
	size := s.dev.Size()
	if err := s.dev.Resize(size - 64<<10); errors.Is(err, errors.ErrUnsupported) {
		return
	} else if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	list := s.mixture(2000, &all)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range int64(20) {
			if err := s.dev.Resize(1<<20 - i%2*(512<<10)); err != nil {
				t.Error(err)
			}
		}
	}()
	s.submit(list)
	all.Wait()
	<-done
	for _, c := range list {
		if c.count.Load() != 1 {
			t.Errorf("%s finished %d times", c.Op, c.count.Load())
		}
		if c.Err != nil && (block.KindOf(c.Err) != block.KindRange || c.Off+c.Length() <= 512<<10) {
			t.Errorf("%s of %d bytes at %d: %v", c.Op, c.Length(), c.Off, c.Err)
		}
	}
}

// Reopen may happen while requests are under way: they are all done, and nothing that was
// written is lost.
func (s *suite) reopenUnderLoad(t *testing.T) {
	r, ok := s.dev.(block.Reopener)
	if !ok {
		return
	}
	kept := fill(64<<10, 1)
	s.do(t, &block.Request{Op: block.Write, Off: 2 << 20, Data: kept})
	var all sync.WaitGroup
	list := s.mixture(2000, &all)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			told := 0
			if err := r.Reopen(t.Context(), func() { told++ }); err != nil || told != 1 {
				t.Errorf("reopen: told %d times, %v", told, err)
			}
		}
	}()
	s.submit(list)
	all.Wait()
	<-done
	for _, c := range list {
		if c.count.Load() != 1 || c.Err != nil {
			t.Errorf("%s of %d bytes at %d finished %d times: %v", c.Op, c.Length(), c.Off, c.count.Load(), c.Err)
		}
	}
	s.read(t, 2<<20, kept)
}
