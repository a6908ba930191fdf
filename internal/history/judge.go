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
	left := time.Until(end)
	if left <= 0 {
		return porcupine.Unknown
	}
	cuts := 0
	var list []porcupine.Operation
	for _, e := range settle(h) {
		if e.Kind == PowerCut {
			cuts++
		}
		list = append(list, porcupine.Operation{Input: e, Call: e.Call, Return: e.Return})
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

// event is an operation as the model takes it: one that took effect before its
// Return.
type event struct {
	Op
	// stable says that the power cut after a store's acknowledgement must not
	// lose it, provided that it took effect after the cuts before: their number
	// is cuts.
	stable bool
	cuts   int
	// excused says that a miscompare may be due to a content that nobody saw.
	excused bool
}

// settle derives from the times of a block's operations what the model needs to
// know, and leaves out what constrains nothing: flushes, and operations without an
// answer that nobody noticed. That a store among these may have been the cause
// of a miscompare is all that it can explain; it is let explain several, which
// saves a search that is exponential in their number.
func settle(h []Op) []event {
	seen := witnesses(h)
	unseen := firstUnseen(h, seen)
	var cuts, flushes []Op
	for _, op := range h {
		switch {
		case op.Kind == PowerCut:
			cuts = append(cuts, op)
		case op.Kind == Flush && op.Outcome == OK:
			flushes = append(flushes, op)
		}
	}
	var list []event
	for _, op := range h {
		e := event{Op: op}
		bound, witnessed := seen[op.Value]
		switch {
		case op.Kind == PowerCut, op.Kind == Read && op.Outcome == OK:
		case op.Outcome == Miscompare:
			e.excused = unseen <= op.Return
		case op.Kind.stores() && op.Outcome == OK:
			e.stable, e.cuts = stable(op, flushes, cuts)
		case op.Kind.stores() && witnessed:
			e.Return = max(bound, op.Call)
		default:
			continue
		}
		list = append(list, e)
	}
	return list
}

// firstUnseen returns the call of the first store that had no answer and that
// nobody noticed; Forever where there is none.
func firstUnseen(h []Op, seen map[Value]int64) int64 {
	first := int64(Forever)
	for _, op := range h {
		if _, ok := seen[op.Value]; !ok && op.Kind.stores() && op.Outcome == Unknown {
			first = min(first, op.Call)
		}
	}
	return first
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

// hidden stands for any content that nobody saw.
const hidden = Torn - 1

// step takes an operation into effect, or tells that it cannot have happened
// in this state. cuts is how many power cuts the whole history has.
func step(s state, e event, cuts int) (state, bool) {
	replaced := s.now // by what it stores
	switch e.Kind {
	case PowerCut:
		return state{now: union(s.now, s.back), cuts: s.cuts + 1}, true
	case Read:
		ok := slices.Contains(s.now, e.Value) && e.Value != hidden
		s.now = []Value{e.Value}
		return s, ok
	case CompareAndWrite:
		found := slices.Contains(s.now, e.Expect)
		if e.Outcome != Miscompare {
			if !found {
				return s, false
			}
			replaced = []Value{e.Expect}
			break
		}
		if !found {
			return s, true
		}
		s.now = without(s.now, e.Expect)
		if e.excused {
			s.now, s.back = union(s.now, []Value{hidden}), union(s.back, []Value{e.Expect})
		}
		return s, len(s.now) > 0
	}
	s.now = []Value{e.Value}
	if s.cuts == cuts || e.stable && e.cuts == s.cuts {
		s.back = nil
	} else {
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
