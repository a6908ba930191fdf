package unit

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// hold is a guard with what the model knows of it.
type hold struct {
	guard        RangeGuard
	first, count uint64
	exclusive    bool
	held         bool
	cancelled    bool
	told         int
}

func (h *hold) Cancelled() bool { return h.cancelled }

func (h *hold) RangeReady(g *RangeGuard) {
	if g != &h.guard {
		panic("told of another's guard")
	}
	h.told++
}

func (h *hold) blocks(o *hold) bool {
	if !h.exclusive && !o.exclusive {
		return false
	}
	for b := h.first; b < h.first+h.count; b++ {
		if b >= o.first && b < o.first+o.count {
			return true
		}
	}
	return false
}

// TestRangesModel compares Ranges with a list in order of arrival of which
// everyone holds its range whom nobody ahead is in the way of.
func TestRangesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Ranges
		var queue []*hold // in order of arrival
		var reads []Lane  // of those that hold no range
		settle := func() {
			for i, h := range queue {
				free := true
				for _, o := range queue[:i] {
					free = free && !h.blocks(o)
				}
				free = free && (!h.exclusive || h.held || len(reads) == 0)
				if free && !h.held {
					h.held = true
					if h.told != 1 {
						t.Fatalf("[%d,+%d) told %d times", h.first, h.count, h.told)
					}
				}
				if h.held != h.guard.Held() {
					t.Fatalf("[%d,+%d) exclusive %v: held %v, want %v", h.first, h.count, h.exclusive, h.guard.Held(), h.held)
				}
			}
		}
		drop := func(i int) { queue = append(queue[:i:i], queue[i+1:]...) }
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				atomic := false
				for _, h := range queue {
					atomic = atomic || h.exclusive
				}
				if r.Atomic() != atomic {
					t.Fatalf("atomic %v, want %v", r.Atomic(), atomic)
				}
			},
			"begin to read": func(t *rapid.T) {
				lane := Lane(rapid.IntRange(0, lanes-1).Draw(t, "lane"))
				begun := r.BeginRead(lane)
				if begun == slices.ContainsFunc(queue, func(h *hold) bool { return h.exclusive }) {
					t.Fatalf("began to read: %v", begun)
				}
				if begun {
					reads = append(reads, lane)
				}
			},
			"end a read": func(t *rapid.T) {
				if len(reads) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(reads)-1).Draw(t, "read")
				lane := reads[i]
				reads = slices.Delete(reads, i, i+1)
				r.EndRead(lane)
				settle()
			},
			"take cancelled": func(t *rapid.T) {
				h := &hold{first: rapid.Uint64Range(0, 20).Draw(t, "first"), count: 3, exclusive: rapid.Bool().Draw(t, "exclusive"), cancelled: true}
				take := r.Shared
				if h.exclusive {
					take = r.Exclusive
				}
				if !take(&h.guard, h.first, h.count, h) || h.guard.Cancel() != nil {
					t.Fatal("a cancelled one waits")
				}
				if h.guard.Held() {
					r.Release(&h.guard)
				}
				settle()
			},
			"take": func(t *rapid.T) {
				h := &hold{
					first:     rapid.Uint64Range(0, 20).Draw(t, "first"),
					count:     rapid.Uint64Range(0, 8).Draw(t, "count"),
					exclusive: rapid.Bool().Draw(t, "exclusive"),
				}
				if h.exclusive {
					h.held = r.Exclusive(&h.guard, h.first, h.count, h)
				} else {
					h.held = r.Shared(&h.guard, h.first, h.count, h)
				}
				for _, o := range queue {
					if h.held && h.blocks(o) {
						t.Fatal("held at once although someone is in the way")
					}
				}
				queue = append(queue, h)
				settle()
			},
			"fence": func(t *rapid.T) {
				if len(queue) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(queue)-1).Draw(t, "which")
				h := queue[i]
				r.Fence(&h.guard)
				if h.held { // ahead of those that wait, also of those that came before it
					h.exclusive = true
					drop(i)
					queue = append([]*hold{h}, queue...)
				}
				settle()
			},
			"release": func(t *rapid.T) {
				if len(queue) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(queue)-1).Draw(t, "which")
				if h := queue[i]; h.held {
					r.Release(&h.guard)
				} else {
					h.guard.Cancel()()
					if h.told != 1 || h.guard.Held() {
						t.Fatal("not told that the wait was given up")
					}
				}
				if queue[i].guard.Cancel() != nil {
					t.Fatal("cancelled what does not wait")
				}
				drop(i)
				settle()
			},
		})
	})
}

func TestRangesEnds(t *testing.T) {
	var r Ranges
	var a, b RangeGuard
	h := &hold{}
	const top = 1<<64 - 1
	if !r.Exclusive(&a, 0, top, nil) || r.Shared(&b, top-1, 1, h) {
		t.Error("the last block is not covered")
	}
	if wake := b.Cancel(); wake == nil {
		t.Error("not cancelled")
	}
	r.Release(&a)
	defer func() {
		if recover() == nil {
			t.Error("released twice")
		}
	}()
	r.Release(&a)
}

func TestRangeMark(t *testing.T) {
	var r Ranges
	var g, w RangeGuard
	var a, b RangeMark
	if !r.Exclusive(&g, 10, 5, nil) {
		t.Fatal("not held")
	}
	r.Mark(&a, &g)
	r.Mark(&b, &g)
	r.Release(&g)
	r.Unmark(&b)
	for _, at := range []uint64{5, 15} {
		r.Shared(&w, at, 5, nil)
		r.Release(&w)
	}
	if a.Changed() {
		t.Error("changed by its neighbours")
	}
	r.Shared(&w, 14, 1, nil)
	if !a.Changed() || b.Changed() {
		t.Errorf("changed: %v %v", a.Changed(), b.Changed())
	}
	r.Release(&w)
	r.Unmark(&a)
}

// worker takes ranges again and again; RangeReady runs on other workers' goroutines.
type worker struct {
	r     *Ranges
	ready chan struct{}
}

func (w *worker) Cancelled() bool { return false }

func (w *worker) RangeReady(*RangeGuard) { w.ready <- struct{}{} }

func TestRangesConcurrently(t *testing.T) {
	const workers, rounds, blocks = 8, 2000, 16
	var r Ranges
	var users [blocks]atomic.Int32 // writers of a block, 1000 for an exclusive one
	var wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			w := &worker{r: &r, ready: make(chan struct{}, 1)}
			var g RangeGuard
			for i := range rounds {
				first, count := uint64(n*7+i)%blocks, uint64(i)%4+1
				count = min(count, blocks-first)
				exclusive := (n+i)%5 == 0
				take, add := r.Shared, int32(1)
				if exclusive {
					take, add = r.Exclusive, 1000
				}
				if !take(&g, first, count, w) {
					<-w.ready
				}
				for b := first; b < first+count; b++ {
					if v := users[b].Add(add); exclusive && v != 1000 || v > 1000 {
						t.Errorf("block %d has %d users", b, v)
					}
				}
				for b := first; b < first+count; b++ {
					users[b].Add(-add)
				}
				r.Release(&g)
			}
		})
	}
	wg.Wait()
	if r.Atomic() || r.held.head != nil || r.waiting.head != nil {
		t.Error("something is left")
	}
}

func BenchmarkSharedRelease(b *testing.B) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var g RangeGuard
		var r Ranges
		for pb.Next() {
			r.Shared(&g, 1, 8, nil)
			r.Release(&g)
		}
	})
}
