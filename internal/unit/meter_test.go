package unit

import (
	"testing"
	"testing/synctest"
	"time"
)

// A meter measures all commands where there are few, and a part of many, which counts for the
// rest, so that the sum is nearly the same.
func TestMeter(t *testing.T) {
	const commands = 16000
	for _, c := range []struct {
		name        string
		pause, took time.Duration
		burst       int // commands between two pauses
		least, most int // that are measured
	}{
		{"few", time.Millisecond, 100 * time.Microsecond, 1, commands, commands},
		{"few, in pairs", time.Millisecond, time.Microsecond, 2, commands, commands},
		{"just few enough", 50 * time.Microsecond, 0, 1, commands, commands},
		{"many", 5 * time.Microsecond, 5 * time.Microsecond, 1, commands / 24, commands / 8},
		{"all at once", 0, time.Microsecond, 1, commands / 24, commands / 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := Meter{since: time.Since(meterEpoch)}
				measured, sum := 0, time.Duration(0)
				for i := range commands {
					if i%c.burst == 0 {
						time.Sleep(c.pause)
					}
					s := m.Start()
					time.Sleep(c.took)
					if s.weight != 0 {
						measured++
					}
					sum += s.Took()
				}
				if measured < c.least || measured > c.most {
					t.Errorf("%d of %d commands measured, want %d to %d", measured, commands, c.least, c.most)
				}
				if want, late := c.took*commands, c.took*2*meterShare; sum > want || sum < want-late {
					t.Errorf("%v in all, want %v", sum, want)
				}
			})
		})
	}
}

// Among many commands those of each kind are measured, also where the kinds alternate.
func TestMeterIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Meter{since: time.Since(meterEpoch)}
		var weight [2]int
		for i := range 1 << 16 {
			time.Sleep(1237 * time.Nanosecond)
			weight[i%2] += int(m.Start().weight)
		}
		if weight[0]*10 < weight[1]*9 || weight[1]*10 < weight[0]*9 {
			t.Errorf("of two kinds with as many commands one counts %d, the other %d", weight[0], weight[1])
		}
	})
}

// After a rush every command is measured again.
func TestMeterAfterARush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Meter{since: time.Since(meterEpoch)}
		for range 100 {
			m.Start()
		}
		for range 3 * meterShare {
			time.Sleep(time.Second)
			m.Start()
		}
		time.Sleep(time.Second)
		if got := m.Start().weight; got != 1 {
			t.Errorf("a command counts for %d", got)
		}
	})
}
