package history

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// ErrUndecided says that the time limit has ended the search for an order that
// explains a block's operations, and for a proof that there is none.
var ErrUndecided = errors.New("history: undecided within the time limit")

// DefaultLimit is the time limit of a Check that is given none.
const DefaultLimit = time.Minute

// Check returns nil where a correct volume, blank at the beginning, can have had
// this history, *Violation where it cannot, and ErrUndecided where that is not
// known of a block within the limit. Reducing a violation to its core takes at most
// as long again. The operations may come in any order.
func Check(ops []Op, limit time.Duration) error {
	if limit <= 0 {
		limit = DefaultLimit
	}
	byBlock, err := split(ops)
	if err != nil {
		return err
	}
	end := time.Now().Add(limit)
	var undecided error
	for _, block := range sortedKeys(byBlock) {
		h := byBlock[block]
		found := judge(h, end)
		if found == porcupine.Unknown && undecided == nil {
			undecided = fmt.Errorf("%w: block %d with %d operations", ErrUndecided, block, len(h))
		}
		if found == porcupine.Illegal {
			end := time.Now().Add(limit)
			core := shrink(h, func(h []Op) bool { return judge(h, end) == porcupine.Illegal })
			return &Violation{Block: block, Ops: core, Of: len(h)}
		}
	}
	return undecided
}

// split returns the history of each block, in the order of the calls; operations
// on the whole volume are in all of them.
func split(ops []Op) (map[uint64][]Op, error) {
	type content struct {
		block uint64
		value Value
	}
	stored := make(map[content]bool)
	byBlock := make(map[uint64][]Op)
	var whole []Op
	for _, op := range ops {
		if op.Kind.whole() {
			whole = append(whole, op)
			continue
		}
		if c := (content{op.Block, op.Value}); op.Kind.stores() {
			if stored[c] || op.Value == Blank || op.Value == Torn {
				return nil, fmt.Errorf("history: %s is not the only one in block %d that stores %s", op, op.Block, op.Value)
			}
			stored[c] = true
		}
		byBlock[op.Block] = append(byBlock[op.Block], op)
	}
	for block, h := range byBlock {
		h = append(h, whole...)
		slices.SortStableFunc(h, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
		byBlock[block] = h
	}
	return byBlock, nil
}

func sortedKeys(m map[uint64][]Op) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// judge decides on the history of one block.
func judge(h []Op, end time.Time) porcupine.CheckResult {
	// What is left without miscompares has few operations that can be anywhere,
	// and most violations show in it.
	found := search(settle(h, false), end)
	if found == porcupine.Ok && slices.ContainsFunc(h, func(op Op) bool { return op.Outcome == Miscompare }) {
		found = search(settle(h, true), end)
	}
	return found
}

func search(h []event, end time.Time) porcupine.CheckResult {
	left := time.Until(end)
	if left <= 0 {
		return porcupine.Unknown
	}
	cuts := 0
	list := make([]porcupine.Operation, len(h))
	for i, e := range h {
		if e.Kind == PowerCut {
			cuts++
		}
		list[i] = porcupine.Operation{Input: e, Call: e.Call, Return: e.Return}
	}
	return porcupine.CheckOperationsTimeout(porcupine.Model{
		Init: func() any { return state{now: []Value{Blank}} },
		Step: func(s, e, _ any) (bool, any) {
			next, ok := step(s.(state), e.(event), cuts)
			return ok, next
		},
		Equal: func(a, b any) bool { return a.(state).equal(b.(state)) },
	}, list, left)
}

// event is an operation as the model takes it.
type event struct {
	Op
	// stable says that the power cut after the write's acknowledgement must not
	// lose it, provided that it took effect after the cuts before: their number
	// is cuts.
	stable bool
	cuts   int
}

// settle derives from the times of a block's operations what the model needs to
// know, and leaves out what constrains nothing: flushes, reads without an answer,
// writes without an answer that nobody can have noticed.
func settle(h []Op, miscompares bool) []event {
	seen := witnesses(h)
	var cuts, flushes []Op
	lastMiss := int64(-1 << 63)
	for _, op := range h {
		switch {
		case op.Kind == PowerCut:
			cuts = append(cuts, op)
		case op.Kind == Flush && op.Outcome == OK:
			flushes = append(flushes, op)
		case op.Outcome == Miscompare:
			lastMiss = max(lastMiss, op.Return)
		}
	}
	var list []event
	for _, op := range h {
		e := event{Op: op}
		bound, witnessed := seen[op.Value]
		switch {
		case op.Kind == PowerCut, op.Kind == Read && op.Outcome == OK:
		case op.Outcome == Miscompare:
			if !miscompares {
				continue
			}
		case !op.Kind.stores():
			continue
		case op.Outcome == OK:
			e.stable, e.cuts = stable(op, flushes, cuts)
		case witnessed: // it did take effect, before its witness was answered
			e.Outcome, e.Return, e.cuts = OK, max(bound, op.Call), -1
		case !miscompares || op.Call > lastMiss:
			continue // only a miscompare can be due to a content that nobody saw
		}
		list = append(list, e)
	}
	return list
}

// witnesses returns, for each value that an operation found in the block, when the
// first such operation had its answer.
func witnesses(h []Op) map[Value]int64 {
	seen := make(map[Value]int64)
	note := func(v Value, t int64) bool {
		old, ok := seen[v]
		if ok && old <= t {
			return false
		}
		seen[v] = t
		return true
	}
	for _, op := range h {
		switch {
		case op.Outcome != OK:
		case op.Kind == Read:
			note(op.Value, op.Return)
		case op.Kind == CompareAndWrite:
			note(op.Expect, op.Return)
		}
	}
	// A COMPARE AND WRITE without an answer whose value was found has itself found
	// what it expected.
	for again := true; again; {
		again = false
		for _, op := range h {
			if t, ok := seen[op.Value]; ok && op.Kind == CompareAndWrite && op.Outcome == Unknown {
				again = note(op.Expect, t) || again
			}
		}
	}
	return seen
}

// stable tells what a power cut may do to an acknowledged write; see event. A
// write whose acknowledgement arrived after a cut may be of the time before it.
func stable(op Op, flushes, cuts []Op) (bool, int) {
	before := 0
	for before < len(cuts) && cuts[before].Call < op.Return {
		before++
	}
	if op.FUA {
		return true, before
	}
	return slices.ContainsFunc(flushes, func(f Op) bool {
		return f.Call > op.Return && (before == len(cuts) || f.Return < cuts[before].Call)
	}), before
}

// state is what the block may hold after the operations so far. Contents are
// several where a power cut has left open which it is.
type state struct {
	now  []Value // the contents that it may have, sorted
	back []Value // those beside them that a power cut may bring back, sorted
	cuts int     // how many there were
}

func (s state) equal(o state) bool {
	return s.cuts == o.cuts && slices.Equal(s.now, o.now) && slices.Equal(s.back, o.back)
}

// step takes an operation into effect, or tells that it cannot have happened
// in this state. cuts is how many power cuts the whole history has.
func step(s state, e event, cuts int) (state, bool) {
	has := slices.Contains(s.now, e.Value)
	expected := e.Kind == CompareAndWrite && slices.Contains(s.now, e.Expect)
	switch {
	case e.Kind == PowerCut:
		return state{now: union(s.now, s.back), cuts: s.cuts + 1}, true
	case e.Kind == Read:
		s.now = []Value{e.Value}
		return s, has
	case e.Outcome == Miscompare:
		s.now = without(s.now, e.Expect)
		return s, len(s.now) > 0
	case e.Kind == CompareAndWrite && e.Outcome == OK && !expected:
		return s, false
	case e.Kind == CompareAndWrite && e.Outcome == Unknown && !expected:
		return s, true // it was a miscompare
	}
	// It stores; where it compared without an answer, perhaps only some of the
	// contents are replaced.
	replaced, kept := s.now, []Value(nil)
	if e.Kind == CompareAndWrite {
		replaced = []Value{e.Expect}
		if e.Outcome == Unknown {
			kept = without(s.now, e.Expect)
		}
	}
	s.now = union(kept, []Value{e.Value})
	switch {
	case s.cuts == cuts, e.stable && e.cuts == s.cuts:
		s.back = nil
	default:
		s.back = union(s.back, replaced)
	}
	return s, true
}

func union(a, b []Value) []Value {
	u := slices.Concat(a, b)
	slices.Sort(u)
	return slices.Compact(u)
}

func without(list []Value, v Value) []Value {
	return slices.DeleteFunc(slices.Clone(list), func(w Value) bool { return w == v })
}
