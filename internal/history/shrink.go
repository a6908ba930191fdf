package history

import (
	"math"
	"slices"
)

// shrink returns a small part of a block's history that cannot have happened
// either: without any further operation it could.
func shrink(h []Op, illegal func([]Op) bool) []Op {
	h = prefix(h, illegal)
	miscompare := func(op Op) bool { return op.Outcome == Miscompare }
	if less := slices.DeleteFunc(slices.Clone(h), miscompare); illegal(less) {
		h = less // without them, all the others can be left out
	}
	for size := len(h) / 2; size > 0; {
		shrunk := false
		for at := 0; at < len(h); {
			smaller := remove(h, at, min(at+size, len(h)))
			if len(smaller) < len(h) && sound(h, smaller) && illegal(smaller) {
				h, shrunk = smaller, true
			} else {
				at += size
			}
		}
		if size > 1 {
			size /= 2
		} else if !shrunk {
			break
		}
	}
	return h
}

// prefix returns the operations called before the first answer that cannot be
// explained. What had no answer then counts as without one.
func prefix(h []Op, illegal func([]Op) bool) []Op {
	var times []int64
	for _, op := range h {
		if op.Return != Forever {
			times = append(times, op.Return)
		}
	}
	slices.Sort(times)
	until := func(t int64, cut bool) []Op {
		var p []Op
		for _, op := range h {
			if op.Call > t {
				continue
			}
			// What a read finds may be written after t.
			finds := op.Kind == Read || op.Kind == CompareAndWrite
			if (cut || finds) && op.Return > t && op.Kind != PowerCut {
				op.Outcome, op.Return = Unknown, Forever
			}
			p = append(p, op)
		}
		return p
	}
	low, high := 0, len(times)-1
	for low < high {
		mid := (low + high) / 2
		if illegal(until(times[mid], true)) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	if p := until(times[high], false); illegal(p) {
		return p
	}
	return h // the time was up
}

// remove returns a history without some operations, and without the reads that found
// what they stored. Of a COMPARE AND WRITE that did, the write is left: it could
// happen at any time that the whole could.
func remove(h []Op, from, to int) []Op {
	gone := make(map[Value]bool)
	dropped := make([]bool, len(h))
	for i := from; i < to; i++ {
		dropped[i] = true
		if h[i].Kind.stores() {
			gone[h[i].Value] = true
		}
	}
	first := int64(Forever) // call of the first store that is left
	for i, op := range h {
		if op.Kind.stores() && !dropped[i] {
			first = min(first, op.Call)
		}
	}
	var kept []Op
	for i, op := range h {
		switch {
		case op.Kind == PowerCut && dropped[i] && first <= op.Return:
			// It explains contents, unless nothing was stored before it.
		case dropped[i], op.Kind == Read && op.Outcome == OK && gone[op.Value]:
			continue
		case op.Kind == CompareAndWrite && op.Outcome != Miscompare && gone[op.Expect]:
			op.Kind, op.Expect, op.Note = Write, Blank, "of a "+op.Kind.String()
		}
		kept = append(kept, op)
	}
	return kept
}

// sound reports whether a part that cannot have happened proves the same of the
// whole. A miscompare is due to the last store before it, or to a power cut: of the
// stores that can have been the last, none may be missing, unless one that nobody
// saw is the excuse for all.
func sound(whole, part []Op) bool {
	kept := make(map[Value]bool)
	for _, op := range part {
		if op.Kind.stores() {
			kept[op.Value] = true
		}
	}
	cut := slices.ContainsFunc(whole, func(op Op) bool { return op.Kind == PowerCut })
	unseen := firstUnseen(part, witnesses(part))
	for _, miss := range part {
		if miss.Outcome != Miscompare || unseen <= miss.Return {
			continue
		}
		last := int64(math.MinInt64) // call of the last store that was over by then
		for _, op := range part {
			if op.Kind.stores() && op.Outcome == OK && op.Return < miss.Call && !cut {
				last = max(last, op.Call)
			}
		}
		for _, op := range whole {
			if op.Kind.stores() && op.Outcome != Miscompare && !kept[op.Value] && op.Call <= miss.Return && op.Return >= last {
				return false
			}
		}
	}
	return true
}
