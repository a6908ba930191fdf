package unit

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// walker makes steps whose completion comes before, or after, the step has returned.
type walker struct {
	turn   Turn
	left   int
	later  bool // completes on another goroutine
	inside int  // calls of Next under way
	depth  int  // of the stack at the deepest
	ended  int
}

func (w *walker) Next() Step {
	if w.inside++; w.inside > 1 {
		panic("steps nest")
	}
	defer func() { w.inside-- }()
	w.depth = max(w.depth, runtime.Callers(0, make([]uintptr, 256)))
	switch w.left--; {
	case w.left < 0:
		w.ended++
		return Ended
	case w.left%3 == 0:
		return Again
	case w.later:
		go w.turn.Resume(w)
	default:
		w.turn.Resume(w)
	}
	return Waiting
}

// Steps follow each other whoever completes them, and those that complete at once do not nest.
func TestTurn(t *testing.T) {
	for _, later := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := &walker{left: 1000, later: later}
			w.turn.Run(w)
			synctest.Wait()
			if w.ended != 1 || w.left != -1 || w.depth > 40 {
				t.Errorf("later %v: ended %d times with %d steps left, %d calls deep", later, w.ended, w.left, w.depth)
			}
		})
	}
}

func TestDrain(t *testing.T) {
	done := 0
	d := NewDrain(func() { done++ })
	d.Hold()
	d.Release()
	if done != 0 {
		t.Error("done while it is held")
	}
	if d.Release(); done != 1 {
		t.Errorf("done %d times", done)
	}
}
