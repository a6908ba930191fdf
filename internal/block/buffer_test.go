package block

import (
	"sync"
	"testing"
)

func TestBufferSizesAndAlignment(t *testing.T) {
	for _, c := range []struct{ n, size int }{
		{-1, 4096}, {0, 4096}, {1, 4096}, {4095, 4096}, {4096, 4096}, {4097, 8192}, {8192, 8192},
		{65535, 65536}, {65537, 131072}, {MaxBuffer - 1, MaxBuffer}, {MaxBuffer, MaxBuffer},
	} {
		b := Get(c.n)
		if got := len(b.Bytes(c.size)); got != c.size || cap(b.mem) != c.size {
			t.Errorf("Get(%d) holds %d of %d bytes, want %d", c.n, got, cap(b.mem), c.size)
		}
		if skip(b.mem) != 0 {
			t.Errorf("Get(%d) is not aligned", c.n)
		}
		b.Put()
	}
	if n := skip(alignedMemory(8192)[100:]); n != bufferAlign-100 {
		t.Errorf("the next aligned byte after 100 is %d away", n)
	}
}

func TestBufferAccounting(t *testing.T) {
	before := BuffersInUse()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for n := range 1000 {
				a, b := Get(n), Get(n*100)
				a.Bytes(n)
				b.Put()
				a.Put()
			}
		})
	}
	all.Wait()
	held := Get(5000)
	if now := BuffersInUse(); now != before+8192 {
		t.Errorf("%d bytes in use, want %d", now, before+8192)
	}
	held.Put()
	if now := BuffersInUse(); now != before {
		t.Errorf("%d bytes in use after all were put back, want %d", now, before)
	}
}

func TestBufferNoAllocation(t *testing.T) {
	Get(4096).Put()
	if n := testing.AllocsPerRun(100, func() { Get(4096).Put() }); n > 0 {
		t.Errorf("a pooled buffer costs %v allocations", n)
	}
}
