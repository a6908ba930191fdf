package history

import (
	"cmp"
	"fmt"
	"slices"
)

// Clock relates the monotonic clock of the machine that recorded a log to that
// of the machine whose clock a history is based on. Processes of one machine share
// its clock and need none; a guest has a clock of its own, and so has a machine
// that was booted again.
type Clock struct {
	Offset int64 // to add to the log's times, in nanoseconds
	Error  int64 // how wrong Offset may be in either direction, in nanoseconds
}

// MeasureClock asks another machine for its Monotonic a number of times and
// returns its Clock in relation to this machine's, as exact as the fastest answer.
func MeasureClock(times int, ask func() (int64, error)) (Clock, error) {
	return measureClock(Monotonic, times, ask)
}

func measureClock(now func() int64, times int, ask func() (int64, error)) (Clock, error) {
	best := Clock{Error: Forever}
	for range max(times, 1) {
		before := now()
		there, err := ask()
		if err != nil {
			return Clock{}, fmt.Errorf("history: measure a clock: %w", err)
		}
		// The answer was made at some moment between before and after.
		after := now()
		if e := (after-before)/2 + 1; e < best.Error {
			best = Clock{Offset: before + (after-before)/2 - there, Error: e}
		}
	}
	return best, nil
}

// Merge makes one history of the logs of several hosts, in the order of the calls.
// It extends each operation by the error of its log's clock, so that an inexact
// clock can hide a violation but never make one. It fails where two logs share a client.
func Merge(logs ...Log) ([]Op, error) {
	var ops []Op
	owner := make(map[uint32]int)
	for i, l := range logs {
		for _, op := range l.Ops {
			if j, ok := owner[op.Client]; ok && j != i {
				return nil, fmt.Errorf("history: the logs of %s and %s both have client %d: number the clients of each run anew", logs[j].Host, l.Host, op.Client)
			}
			owner[op.Client] = i
			op.Call += l.Clock.Offset - l.Clock.Error
			if op.Return != Forever {
				op.Return += l.Clock.Offset + l.Clock.Error
			}
			ops = append(ops, op)
		}
	}
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Compare(a.Call, b.Call) })
	return ops, nil
}
