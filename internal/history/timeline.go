package history

import (
	"fmt"
	"slices"
	"strings"
)

// Violation is a history that no correct volume can have had.
type Violation struct {
	Block uint64
	// Ops are the fewest operations that show it, in the order of their calls:
	// with any of them left out, and what depends on it, the rest could have happened.
	// Of a CompareAndWrite whose comparison proves nothing, only the Write is left.
	Ops []Op
	// Of is how many operations the history of the block has.
	Of int
}

func (v *Violation) Error() string {
	return fmt.Sprintf("history: block %d: no order of these operations, which are %d of %d, explains their answers:\n%s",
		v.Block, len(v.Ops), v.Of, Timeline(v.Ops))
}

// maxColumns is the greatest width of the drawn part of a timeline.
const maxColumns = 64

// Timeline draws operations, one a line in the order of their calls: the times of
// call and answer in microseconds since the first call, the client, a bar from call to
// answer (an open one where none came), and what was asked and answered. Bars
// show the order of the events, not their distances.
func Timeline(ops []Op) string {
	if len(ops) == 0 {
		return ""
	}
	var times []int64
	for _, op := range ops {
		times = append(times, op.Call)
		if op.Return != Forever {
			times = append(times, op.Return)
		}
	}
	slices.Sort(times)
	times = slices.Compact(times)
	columns := min(2*len(times)-1, maxColumns)
	column := func(t int64) int {
		rank, _ := slices.BinarySearch(times, t)
		return rank * (columns - 1) / max(len(times)-1, 1)
	}
	sorted := slices.Clone(ops)
	slices.SortStableFunc(sorted, func(a, b Op) int { return int(min(1, max(-1, a.Call-b.Call))) })
	var b strings.Builder
	for _, op := range sorted {
		end, stop, answer := columns, "", "-"
		if op.Return != Forever {
			end, stop = column(op.Return), "|"
			answer = fmt.Sprintf("%.1f", float64(op.Return-times[0])/1e3)
		}
		from := column(op.Call)
		bar := strings.Repeat(" ", from) + "|" + strings.Repeat("-", max(end-from-1, 0)) + stop
		fmt.Fprintf(&b, "%10.1f %10s us  c%-4d %-*s  %s\n", float64(op.Call-times[0])/1e3, answer, op.Client, columns, bar, op)
	}
	return b.String()
}
