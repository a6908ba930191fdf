package history

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestStamp(t *testing.T) {
	p := make([]byte, testBlockSize)
	for _, v := range []Value{Blank, NewValue(1, 1), NewValue(MaxClient, 1<<32-1)} {
		Fill(p, 5, v)
		if got, note := Identify(p, 5); got != v || note != "" {
			t.Errorf("%s is taken for %s (%s)", v, got, note)
		}
		if got, _ := Identify(p, 6); v != Blank && got != Torn {
			t.Errorf("%s of block 5 is taken for %s of block 6", v, got)
		}
		for i := range p {
			p[i] ^= 0x10
			if got, note := Identify(p, 5); got != Torn || note == "" {
				t.Fatalf("%s with a wrong byte %d is taken for %s", v, i, got)
			}
			p[i] ^= 0x10
		}
	}
	// Cells that have moved are no block, although each is whole.
	Fill(p, 5, NewValue(1, 1))
	copy(p, bytes.Clone(p[CellSize:]))
	if got, _ := Identify(p, 5); got != Torn {
		t.Errorf("a block shifted by a cell is taken for %s", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	rec, err := NewRecorder(new(bytes.Buffer), "host1")
	if err != nil {
		t.Fatal(err)
	}
	good := Config{Recorder: rec, FirstClient: 1, Blocks: 1, BlockSize: 512, Ops: 1}
	for name, change := range map[string]func(*Config){
		"recorder":   func(c *Config) { c.Recorder = nil },
		"blocks":     func(c *Config) { c.Blocks = 0 },
		"block size": func(c *Config) { c.BlockSize = 520 - 1 },
		"client 0":   func(c *Config) { c.FirstClient = 0 },
		"clients":    func(c *Config) { c.FirstClient, c.Clients = MaxClient, 2 },
	} {
		cfg := good
		change(&cfg)
		if Run(context.Background(), cfg, newDouble(flawless)) == nil || Sweep(context.Background(), cfg, newDouble(flawless)) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := Run(context.Background(), good, newDouble(flawless)); err != nil {
		t.Error(err)
	}
}

// down is a target that never answers.
type down struct{ Target }

func (down) Read(ctx context.Context, _ uint64, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		rec, err := NewRecorder(&log, "host1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cfg := Config{Recorder: rec, FirstClient: 1, Clients: 2, Blocks: 1, BlockSize: 512, Mix: Mix{Read: 1}}
		if err := Run(ctx, cfg, down{}); err != nil {
			t.Fatal(err)
		}
		cfg.FirstClient = 3
		if err := Sweep(ctx, cfg, down{}); err == nil {
			t.Error("a sweep without answers is complete")
		}
		l, err := ReadLog(&log)
		if err != nil || len(l.Ops) != 3 {
			t.Fatalf("%+v, %v", l, err)
		}
		for _, op := range l.Ops {
			if op.Outcome != Unknown || op.Note != context.DeadlineExceeded.Error() {
				t.Errorf("%s", op)
			}
		}
	})
}

func TestMeasureClock(t *testing.T) {
	var now int64
	round := []int64{1000, 10, 500}
	i := 0
	c, err := measureClock(func() int64 { return now }, len(round), func() (int64, error) {
		now += round[i] / 4
		there := now + 7000
		now += round[i] - round[i]/4
		i++
		return there, nil
	})
	if err != nil || c.Error != 6 || c.Offset < -7000-c.Error || c.Offset > -7000+c.Error {
		t.Errorf("%+v, %v", c, err)
	}
	failure := errors.New("no answer")
	if _, err := MeasureClock(0, func() (int64, error) { return 0, failure }); !errors.Is(err, failure) {
		t.Error(err)
	}
}
