package history

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// allOps has each kind of event in it.
func allOps() []Op {
	return []Op{
		{Client: 1, Kind: Write, Block: 1<<64 - 1, Value: NewValue(1, 1), FUA: true, Outcome: OK},
		{Client: 2, Kind: Read, Block: 7, Outcome: OK, Value: Torn, Note: "bytes 0 to 31 damaged or foreign"},
		{Client: 3, Kind: CompareAndWrite, Expect: NewValue(1, 1), Value: NewValue(3, math.MaxUint32), Outcome: Miscompare},
		{Client: 3, Kind: CompareAndWrite, Expect: Blank, Value: NewValue(3, 2), Note: "the link is down"},
		{Client: MaxClient, Kind: Flush, Outcome: OK},
		{Client: 5, Kind: Kill, Outcome: OK},
		{Client: 5, Kind: PowerCut, Outcome: OK},
		{Client: 6, Kind: Read},
	}
}

// writeLog records operations; a step of the clock is a nanosecond.
func writeLog(t testing.TB, ops []Op) (log []byte, done []Op) {
	t.Helper()
	var b bytes.Buffer
	rec, err := NewRecorder(&b, "host1")
	if err != nil {
		t.Fatal(err)
	}
	now := int64(1e15)
	rec.now = func() int64 { now++; return now }
	for _, want := range ops {
		op := want
		op.Outcome, op.Note = Unknown, ""
		op, err := rec.Do(op, func(op *Op) error {
			switch want.Outcome {
			case OK:
				op.Note = want.Note
				return nil
			case Miscompare:
				return ErrMiscompare
			}
			return errors.New(want.Note)
		})
		if err != nil {
			t.Fatal(err)
		}
		done = append(done, op)
	}
	return b.Bytes(), done
}

func TestLogRoundTrip(t *testing.T) {
	ops := allOps()
	log, done := writeLog(t, ops)
	l, err := ReadLog(bytes.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Log{Host: "host1", Ops: done}, l); diff != "" {
		t.Error(diff)
	}
	for i := range ops {
		ops[i].Call, ops[i].Return = done[i].Call, done[i].Return
	}
	if diff := cmp.Diff(ops, done); diff != "" {
		t.Error(diff)
	}
	if per := len(log) / len(ops); per > 40 {
		t.Errorf("%d bytes an operation", per)
	}
}

func TestLogOfWriterThatDied(t *testing.T) {
	log, done := writeLog(t, allOps())
	last := 0
	for n := range len(log) {
		l, err := ReadLog(bytes.NewReader(log[:n]))
		if n < len(logMagic)+2+len("host1") {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%d bytes: %v", n, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if len(l.Ops) < last || len(l.Ops) > len(done) {
			t.Fatalf("%d bytes: %d operations after %d", n, len(l.Ops), last)
		}
		last = len(l.Ops)
		if last == 0 {
			continue
		}
		if op := l.Ops[last-1]; op.Return == Forever && op.Outcome != Unknown {
			t.Fatalf("%d bytes: %s without an answer", n, op)
		}
	}
}

func TestLogRefused(t *testing.T) {
	head := string(appendHeader(nil, ""))
	event := func(b ...byte) string { return string(append([]byte{byte(len(b))}, b...)) }
	call := event(0, byte(Read), 1, 5)
	for name, log := range map[string]string{
		"empty":               "",
		"another magic":       strings.Repeat("x", 20),
		"a newer version":     logMagic + "\x02\x00",
		"an empty event":      head + "\x00",
		"client 0":            head + event(0, byte(Read), 0, 5),
		"unknown kind":        head + event(0, 6, 1),
		"no block":            head + event(0, byte(Read), 1),
		"more than a call":    head + event(0, byte(Read), 1, 5, 5),
		"return of nothing":   head + event(0, tagReturn|byte(OK), 1),
		"two calls":           head + call + call,
		"unknown outcome":     head + call + event(0, tagReturn|3, 1),
		"a read's miscompare": head + call + event(0, tagReturn|byte(Miscompare), 1),
		"no value":            head + call + event(0, tagReturn|byte(OK), 1, 1),
		"a long note":         head + call + event(append([]byte{0, tagReturn, 1}, make([]byte, maxNote+1)...)...),
		"time overflow":       head + call + event(0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, tagReturn, 1),
	} {
		if l, err := ReadLog(strings.NewReader(log)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
}

func FuzzReadLog(f *testing.F) {
	log, _ := writeLog(f, allOps())
	f.Add(log)
	f.Add(log[:len(log)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ReadLog(bytes.NewReader(b))
		if err != nil {
			return
		}
		last := int64(0)
		for _, op := range l.Ops {
			if op.Call < last || op.Return < op.Call || (op.Return == Forever) != (op.Outcome == Unknown) || op.Client == 0 {
				t.Fatalf("%+v after %d", op, last)
			}
			last = op.Call
			_ = op.String()
		}
		if len(l.Ops) > len(b) {
			t.Fatalf("%d operations of %d bytes", len(l.Ops), len(b))
		}
	})
}

// full is a disk with room for a number of writes.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f--; *f < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

func TestNothingIsIssuedWithoutLog(t *testing.T) {
	if _, err := NewRecorder(new(full), "host1"); err == nil {
		t.Error("a log without a header")
	}
	if _, err := NewRecorder(new(bytes.Buffer), strings.Repeat("h", 256)); err == nil {
		t.Error("a host name of 256 bytes")
	}
	room := full(6)
	rec, err := NewRecorder(&room, "host1")
	if err != nil {
		t.Fatal(err)
	}
	d := newDouble(flawless)
	cfg := Config{Recorder: rec, FirstClient: 1, Clients: 1, Blocks: 1, BlockSize: testBlockSize}
	if err := Run(context.Background(), cfg, d); err == nil {
		t.Error("the run goes on without a log")
	}
	if n := d.count[PowerCut]; n != 3 {
		t.Errorf("%d operations were issued, want 3", n)
	}
	if err := Sweep(context.Background(), cfg, d); err == nil {
		t.Error("the sweep goes on without a log")
	}
	for _, op := range []Op{{Kind: Read}, {Client: 1, Kind: PowerCut + 1}} {
		if _, err := rec.Do(op, func(*Op) error { t.Error("issued"); return nil }); err == nil {
			t.Errorf("%+v is recorded", op)
		}
	}
}
