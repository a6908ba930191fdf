package history

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// oracle tells by trying every order, every fate of the operations without answer, and
// every content that a power cut may leave, whether a block can have had a history.
type oracle struct {
	h             []Op
	flushes, cuts []Op
	placed        []bool
}

func possible(h []Op) bool {
	o := &oracle{h: h, placed: make([]bool, len(h))}
	for _, op := range h {
		switch {
		case op.Kind == PowerCut:
			o.cuts = append(o.cuts, op)
		case op.Kind == Flush && op.Outcome == OK:
			o.flushes = append(o.flushes, op)
		}
	}
	return o.rest(Blank, nil, 0)
}

// rest tries what may follow, given the content, what a power cut may bring back,
// and the number of cuts so far.
func (o *oracle) rest(now Value, back []Value, cuts int) bool {
	first, done := int64(Forever), true
	for i, op := range o.h {
		if !o.placed[i] {
			first = min(first, op.Return)
			done = done && op.Outcome == Unknown
		}
	}
	if done {
		return true
	}
	for i, op := range o.h {
		if o.placed[i] || op.Call > first {
			continue
		}
		o.placed[i] = true
		if o.place(op, now, back, cuts) {
			return true
		}
		o.placed[i] = false
	}
	return false
}

func (o *oracle) place(op Op, now Value, back []Value, cuts int) bool {
	switch {
	case op.Kind == PowerCut:
		return slices.ContainsFunc(append(slices.Clone(back), now), func(v Value) bool { return o.rest(v, nil, cuts+1) })
	case op.Kind == Read && op.Outcome == OK && op.Value != now,
		op.Outcome == Miscompare && op.Expect == now,
		op.Kind == CompareAndWrite && op.Outcome == OK && op.Expect != now:
		return false
	case !op.Kind.stores() || op.Outcome == Miscompare || op.Kind == CompareAndWrite && op.Expect != now:
		return o.rest(now, back, cuts)
	}
	back = append(slices.Clone(back), now)
	if op.Outcome == OK {
		if ok, at := stable(op, o.flushes, o.cuts); ok && at == cuts {
			back = nil
		}
	}
	return o.rest(op.Value, back, cuts)
}

// drawHistory draws few operations on one block; some of what they found may be wrong.
func drawHistory(t *rapid.T) []Op {
	n := rapid.IntRange(1, 8).Draw(t, "operations")
	value := rapid.Map(rapid.IntRange(0, n), func(i int) Value {
		if i == 0 {
			return Blank
		}
		return NewValue(uint32(i), 1)
	})
	free := int64(0) // when the last power cut was over
	var h []Op
	for i := range n {
		op := Op{Client: uint32(i + 1), Outcome: OK}
		op.Kind = rapid.SampledFrom([]Kind{Read, Read, Write, Write, CompareAndWrite, CompareAndWrite, Flush, PowerCut, Kill}).Draw(t, "kind")
		op.Call = rapid.Int64Range(0, 12).Draw(t, "call")
		op.Return = op.Call + rapid.Int64Range(1, 6).Draw(t, "time")
		switch op.Kind {
		case Read:
			op.Value = value.Draw(t, "found")
		case Write, CompareAndWrite:
			op.Value = NewValue(op.Client, 1)
			op.FUA = rapid.IntRange(0, 3).Draw(t, "fua") == 0
		case PowerCut: // one after the other
			op.Call = free + rapid.Int64Range(1, 8).Draw(t, "after")
			op.Return = op.Call + 1
			free = op.Return
		}
		if op.Kind == CompareAndWrite {
			op.Expect = value.Filter(func(v Value) bool { return v != op.Value }).Draw(t, "expected")
			if rapid.Bool().Draw(t, "miscompare") {
				op.Outcome = Miscompare
			}
		}
		if op.Kind < Kill && op.Outcome == OK && rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
			op.Outcome, op.Return = Unknown, Forever
		}
		h = append(h, op)
	}
	slices.SortStableFunc(h, func(a, b Op) int { return int(a.Call - b.Call) })
	return h
}

func TestJudgeAgainstOracle(t *testing.T) {
	verdicts := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		h := drawHistory(t)
		err := Check(h, time.Minute)
		v, illegal := errors.AsType[*Violation](err)
		if err != nil && !illegal {
			t.Fatal(err)
		}
		verdicts[illegal]++
		lenient := slices.ContainsFunc(h, func(op Op) bool { return op.Outcome == Miscompare }) &&
			slices.ContainsFunc(h, func(op Op) bool { return op.Outcome == Unknown })
		if ok := possible(h); ok == illegal && (illegal || !lenient) {
			t.Fatalf("possible is %v, but the judge says %v:\n%s", ok, err, Timeline(h))
		}
		if illegal && possible(v.Ops) {
			t.Fatalf("this core of\n%sis possible:\n%s", Timeline(h), Timeline(v.Ops))
		}
	})
	if verdicts[true] == 0 || verdicts[false] == 0 {
		t.Errorf("one-sided histories: %v", verdicts)
	}
}
