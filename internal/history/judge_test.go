package history

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// record runs workloads on a double with crashes between them, and returns the
// history by way of its log.
func record(t *testing.T, d *double, crash Kind, seed uint64) []Op {
	t.Helper()
	var log bytes.Buffer
	rec, err := NewRecorder(&log, "host1")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	cfg := Config{
		Recorder: rec, Clients: 3, Blocks: 3, BlockSize: testBlockSize, Ops: 200, Seed: seed, Pause: time.Microsecond,
		Mix: Mix{Read: 40, Write: 18, WriteFUA: 10, CompareAndWrite: 28, Flush: 4},
	}
	for round := range uint32(3) {
		cfg.FirstClient = 1 + 10*round
		if err := Run(ctx, cfg, d); err != nil {
			t.Fatal(err)
		}
		if crash == Flush {
			continue
		}
		do := d.kill
		if crash == PowerCut {
			do = d.powerCut
		}
		if _, err := rec.Do(Op{Client: 1000, Kind: crash}, do); err != nil {
			t.Fatal(err)
		}
		cfg.FirstClient = 5 + 10*round
		mute := d.mute
		d.mute = 0
		if err := Sweep(ctx, cfg, d); err != nil {
			t.Fatal(err)
		}
		d.mute = mute
	}
	l, err := ReadLog(&log)
	if err != nil {
		t.Fatal(err)
	}
	ops, err := Merge(l)
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

func TestCorrectTargetIsAccepted(t *testing.T) {
	for _, crash := range []Kind{Flush, Kill, PowerCut} {
		for _, mute := range []int{0, 40} {
			for seed := range uint64(5) {
				d := newDouble(flawless)
				d.mute = mute
				if err := Check(record(t, d, crash, seed), time.Minute); err != nil {
					t.Fatalf("crash by %s, one in %d without answer, seed %d: %v", crash, mute, seed, err)
				}
			}
		}
	}
}

func TestBrokenTargetIsRejected(t *testing.T) {
	for _, test := range []struct {
		flaw  flaw
		crash Kind
	}{
		{dropsWrite, Flush},
		{staleRead, Flush},
		{lateRead, Flush},
		{twoWinners, Flush},
		{falseMiss, Flush},
		{tearsBlock, Flush},
		{misdirects, Flush},
		{losesFlushed, PowerCut},
		{losesFUA, PowerCut},
		{losesKilled, Kill},
	} {
		for _, mute := range []int{0, 40} {
			v, ok := rejection(t, test.flaw, test.crash, mute)
			if !ok {
				t.Errorf("a target that %s is not rejected", test.flaw)
				continue
			}
			t.Logf("a target that %s: %v", test.flaw, v)
			checkMinimal(t, v)
		}
	}
}

// checkMinimal checks that a violation is one, and that no operation can be spared.
func checkMinimal(t *testing.T, v *Violation) {
	t.Helper()
	end := time.Now().Add(time.Minute)
	if judge(v.Ops, end) != porcupine.Illegal {
		t.Errorf("this is no violation: %v", v)
	}
	for i := range v.Ops {
		less := remove(v.Ops, i, i+1)
		if len(less) < len(v.Ops) && sound(v.Ops, less) && judge(less, end) == porcupine.Illegal {
			t.Errorf("%s can be spared: %v", v.Ops[i], v)
		}
	}
	if len(v.Ops) > 20 {
		t.Errorf("%d operations are not for human eyes", len(v.Ops))
	}
}

// rejection records until the flaw has shown in what the target answered.
func rejection(t *testing.T, f flaw, crash Kind, mute int) (*Violation, bool) {
	for seed := range uint64(20) {
		d := newDouble(f)
		d.mute = mute
		err := Check(record(t, d, crash, seed), time.Minute)
		if v, ok := errors.AsType[*Violation](err); ok {
			return v, true
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return nil, false
}

// Each history is of one block. An operation is "client call-return what", with an
// empty return where there was no answer.
var verdicts = []struct {
	name, history string
	legal         bool
}{
	{"blank at first", "1 1-2 r 0", true},
	{"a write without answer was done", "1 1- w a; 2 5-6 r a", true},
	{"a write without answer was not done", "1 1- w a; 2 5-6 r 0", true},
	{"a write without answer is done late", "1 1- w a; 2 3-4 r 0; 2 5-6 w b; 2 7-8 r b; 2 9-10 r a", true},
	{"and only once", "1 1- w a; 2 5-6 r a; 2 7-8 w b; 2 9-10 r b; 2 11-12 r a", false},
	{"a write is read before its call", "2 1-2 r a; 1 3-4 w a", false},
	{"reads disagree on the order", "1 1-9 w a; 2 1-9 w b; 3 2-3 r a; 3 4-5 r b; 3 6-7 r a", false},
	{"one of two wins", "1 1-5 c 0 a; 2 1-5 x 0 b; 3 6-7 r a", true},
	{"both win", "1 1-5 c 0 a; 2 1-5 c 0 b", false},
	{"neither wins", "1 1-5 x 0 a; 2 1-5 x 0 b", false},
	{"one without answer has won", "1 1- c 0 a; 2 3-5 x 0 b", true},
	{"one without answer has won, late", "1 1- c 0 a; 2 3-4 r 0; 2 5-6 w b; 2 7-8 r b; 3 9-10 r a", false},
	{"an unseen write explains a miscompare", "1 1- w a; 2 3-4 x 0 b; 2 5-6 w c; 2 7-8 r c", true},
	{"but not where the content is found afterwards", "1 1- w a; 2 3-4 x 0 b; 2 5-6 r 0", false},
	{"nor where it is brought about by a power cut", "1 1- w a; 2 3-4 x 0 b; 9 5-6 p; 2 7-8 r 0; 2 9-10 x 0 c; 2 11-12 r 0", false},
	{"but a power cut may bring it back", "1 1- w a; 2 3-4 x 0 b; 9 5-6 p; 2 7-8 r 0", true},
	{"also twice", "1 1-2 w a; 9 3-4 p; 2 5- w b; 3 7-8 x a c; 9 9-10 p; 1 11-12 r a", true},
	{"an unseen write that was called later explains none", "2 3-4 x 0 b; 1 5- w a", false},
	{"a chain without answers is found out", "1 1- c 0 a; 2 1- c a b; 3 5-6 r b", true},
	{"and its beginning is over by then", "1 1- c 0 a; 2 1- c a b; 3 5-6 r b; 3 7-8 r a", false},
	{"a kill loses nothing", "1 1-2 w a; 9 3-4 k; 1 5-6 r 0", false},
	{"a power cut may lose a write", "1 1-2 w a; 9 3-4 p; 1 5-6 r 0", true},
	{"or not", "1 1-2 w a; 9 3-4 p; 1 5-6 r a", true},
	{"but not both", "1 1-2 w a; 9 3-4 p; 1 5-6 r 0; 1 7-8 r a", false},
	{"also not in the next cut", "1 1-2 w a; 9 3-4 p; 1 5-6 r 0; 9 7-8 p; 1 9-10 r a", false},
	{"any of the writes may be the one", "1 1-2 w a; 1 3-4 w b; 1 5-6 w c; 9 7-8 p; 1 9-10 r b", true},
	{"what was read may be lost", "1 1-2 w a; 1 3-4 r a; 9 5-6 p; 1 7-8 r 0", true},
	{"a flushed write is not lost", "1 1-2 w a; 1 3-4 f; 9 5-6 p; 1 7-8 r 0", false},
	{"what was written since may be", "1 1-2 w a; 1 3-4 f; 1 5-6 w b; 9 7-8 p; 1 9-10 r a", true},
	{"what was flushed over is gone", "1 1-2 w a; 1 3-4 w b; 1 5-6 f; 9 7-8 p; 1 9-10 r a", false},
	{"a flush covers only what was acknowledged before its call", "1 1-4 w a; 2 3-5 f; 9 6-7 p; 1 8-9 r 0", true},
	{"a flush without answer covers nothing", "1 1-2 w a; 1 3- f; 9 5-6 p; 2 7-8 r 0", true},
	{"a flush that ends after the cut covers nothing before it", "1 1-2 w a; 2 3-7 f; 9 5-6 p; 1 8-9 r 0", true},
	{"an acknowledged write with FUA is not lost", "1 1-2 W a; 9 3-4 p; 1 5-6 r 0", false},
	{"nor brings an older one back", "1 1-2 w a; 1 3-4 W b; 9 5-6 p; 1 7-8 r a", false},
	{"one without answer may be", "1 1- W a; 9 3-4 p; 1 5-6 r 0", true},
	{"a flush after the cut does not help before it", "1 1-2 w a; 9 3-4 p; 1 5-6 f; 1 7-8 r 0", true},
	{"what a cut left is stable", "1 1-2 w a; 9 3-4 p; 1 5-6 r a; 9 7-8 p; 1 9-10 r 0", false},
	{"an acknowledgement may arrive after the cut", "1 1-6 w a; 9 3-4 p; 1 7-8 r 0", true},
	{"a write around the cut is flushed for the next", "1 1-6 w a; 9 3-4 p; 1 7-8 r a; 1 9-10 f; 9 11-12 p; 1 13-14 r 0", false},
	{"COMPARE AND WRITE tells what a cut left", "1 1-2 w a; 9 3-4 p; 1 5-6 c 0 b; 9 7-8 p; 1 9-10 r a", false},
	{"so does a miscompare", "1 1-2 w a; 9 3-4 p; 1 5-6 x 0 b; 1 7-8 r 0", false},
	{"one without answer leaves it open", "1 1-2 w a; 9 3-4 p; 1 5- c 0 b; 2 7-8 x 0 c; 2 9-10 r a", true},
	{"a write without answer is done after the cut", "1 1- w a; 9 3-4 p; 1 5-6 r 0; 1 7-8 r a", true},
}

func parse(t *testing.T, text string) []Op {
	t.Helper()
	value := func(s string) Value {
		if s == "0" {
			return Blank
		}
		return NewValue(1, uint32(s[0]))
	}
	var ops []Op
	for line := range strings.SplitSeq(text, ";") {
		f := strings.Fields(line)
		op := Op{Client: uint32(f[0][0] - '0'), Outcome: OK, Return: Forever}
		from, to, _ := strings.Cut(f[1], "-")
		op.Call = number(from)
		if to == "" {
			op.Outcome = Unknown
		} else {
			op.Return = number(to)
		}
		switch f[2] {
		case "r":
			op.Kind, op.Value = Read, value(f[3])
		case "w", "W":
			op.Kind, op.Value, op.FUA = Write, value(f[3]), f[2] == "W"
		case "c", "x":
			op.Kind, op.Expect, op.Value = CompareAndWrite, value(f[3]), value(f[4])
			if f[2] == "x" {
				op.Outcome = Miscompare
			}
		case "f":
			op.Kind = Flush
		case "k":
			op.Kind = Kill
		case "p":
			op.Kind = PowerCut
		default:
			t.Fatalf("%q", line)
		}
		ops = append(ops, op)
	}
	return ops
}

func number(s string) (n int64) {
	for _, c := range s {
		n = 10*n + int64(c-'0')
	}
	return n
}

func TestVerdicts(t *testing.T) {
	for _, test := range verdicts {
		err := Check(parse(t, test.history), time.Minute)
		if _, illegal := errors.AsType[*Violation](err); illegal == test.legal || err != nil && !illegal {
			t.Errorf("%s: %s: %v", test.name, test.history, err)
		}
	}
}

func TestMinimalHistory(t *testing.T) {
	for _, test := range []struct{ history, core string }{
		{ // a stale read
			"1 1-2 w a; 2 3-4 r a; 2 5-6 w b; 1 6-7 f; 2 7-8 r b; 3 9-10 r a; 3 11-12 w c; 1 13-14 r c",
			"1 1-2 w a; 2 5-6 w b; 3 9-10 r a",
		},
		{ // a stale read, while another one finds what is written after that
			"1 1-2 w a; 2 3-4 w b; 3 5-20 r c; 4 5-20 c c d; 1 6-7 r a; 2 9-10 w c",
			"1 1-2 w a; 2 3-4 w b; 1 6-7 r a",
		},
		{ // a lost flushed write
			"1 1-2 w a; 2 3-4 w b; 1 5-6 f; 2 7-8 w c; 1 9-10 r c; 9 11-12 p; 1 13-14 r a",
			"1 1-2 w a; 2 3-4 w b; 1 5-6 f; 9 11-12 p; 1 13-14 r a",
		},
		{ // a false miscompare: what might explain it stays
			"1 1-2 w a; 2 3-4 w b; 3 4-6 w c; 1 7-8 r c; 1 9-10 x c d; 1 11-12 w e; 1 13-14 x e f",
			"2 3-4 w b; 3 4-6 w c; 1 7-8 r c; 1 9-10 x c d",
		},
	} {
		err := Check(parse(t, test.history), time.Minute)
		v, ok := errors.AsType[*Violation](err)
		if !ok {
			t.Errorf("%s: %v", test.history, err)
			continue
		}
		if want := Timeline(parse(t, test.core)); Timeline(v.Ops) != want {
			t.Errorf("got\n%swant\n%s", Timeline(v.Ops), want)
		}
	}
}

func TestTimeline(t *testing.T) {
	ops := parse(t, "1 1000-3000 w a; 2 2000- c 0 b; 3 4000-5000 r a")
	ops[1].Note = "the link is down"
	const want = "" +
		"       0.0        2.0 us  c1    |---|      write c1#97: ok\n" +
		"       1.0          - us  c2      |------  compare and write blank -> c1#98: no answer (the link is down)\n" +
		"       3.0        4.0 us  c3          |-|  read: c1#97\n"
	if got := Timeline(ops); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestCheckRefusesAmbiguousValues(t *testing.T) {
	for _, h := range []string{"1 1-2 w a; 2 3-4 w a", "1 1-2 w 0"} {
		if err := Check(parse(t, h), time.Minute); err == nil {
			t.Errorf("%s: accepted", h)
		}
	}
}

func TestCheckKeepsToItsLimit(t *testing.T) {
	if err := Check(parse(t, "1 1-2 w a"), 1); !errors.Is(err, ErrUndecided) {
		t.Errorf("within a nanosecond: %v", err)
	}
}

func TestTwoHostsMakeOneHistory(t *testing.T) {
	d := newDouble(flawless)
	logs, configs := make([]bytes.Buffer, 2), make([]Config, 2)
	var wg sync.WaitGroup
	for i := range logs {
		rec, err := NewRecorder(&logs[i], "host")
		if err != nil {
			t.Fatal(err)
		}
		skew := int64(i) * int64(time.Hour) // the clock of the second is ahead
		rec.now = func() int64 { return Monotonic() + skew }
		configs[i] = Config{Recorder: rec, FirstClient: uint32(10*i + 1), Clients: 2, Blocks: 2, BlockSize: testBlockSize, Ops: 200}
		wg.Go(func() {
			if err := Run(context.Background(), configs[i], d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// However the two took turns, the first finds at the end what the second has written.
	configs[0].FirstClient, configs[1].FirstClient = 5, 15
	if err := errors.Join(Run(context.Background(), configs[1], d), Sweep(context.Background(), configs[0], d)); err != nil {
		t.Fatal(err)
	}
	var read [2]Log
	for i := range logs {
		var err error
		if read[i], err = ReadLog(&logs[i]); err != nil {
			t.Fatal(err)
		}
	}
	check := func() error {
		ops, err := Merge(read[0], read[1])
		if err != nil {
			t.Fatal(err)
		}
		return Check(ops, time.Minute)
	}
	if err := check(); err == nil {
		t.Error("clocks an hour apart were taken for one")
	}
	var err error
	read[1].Clock, err = MeasureClock(10, func() (int64, error) { return Monotonic() + int64(time.Hour), nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	if _, err := Merge(read[0], read[0]); err == nil {
		t.Error("the same clients twice were accepted")
	}
}
