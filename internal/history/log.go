package history

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A log is a header and a row of events, each one byte of length and as many
// bytes. Numbers are varints as in encoding/binary. Whoever wrote it may have
// died at any moment: an incomplete event at the end is ignored, and a call
// without a return is an operation with unknown outcome.
//
//	header  "lintel-history", version, length of the host's name, name
//	event   nanoseconds since the event before (the first: since the clock's zero),
//	        tag, client, and
//	call    for kinds of one block: block; for those that store: value;
//	        for COMPARE AND WRITE: expected value
//	return  of a Read that is OK: value; then the note up to the end
//
// The tag of a call is its kind and tagFUA; that of a return tagReturn and its
// outcome. A value is two numbers: client and sequence.
const (
	logMagic   = "lintel-history"
	logVersion = 1

	tagFUA    = 0x40
	tagReturn = 0x80

	maxHost = 255
	maxNote = 192 // so that the length of an event fits in its byte
)

// ErrFormat says that a log is not one, is damaged, or is of a newer version.
var ErrFormat = errors.New("not a history log")

func appendHeader(b []byte, host string) []byte {
	b = append(b, logMagic...)
	b = append(b, logVersion, byte(len(host)))
	return append(b, host...)
}

func appendValue(b []byte, v Value) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(v>>32)), uint64(uint32(v)))
}

func appendCall(b []byte, op Op) []byte {
	tag := byte(op.Kind)
	if op.FUA {
		tag |= tagFUA
	}
	b = binary.AppendUvarint(append(b, tag), uint64(op.Client))
	if op.Kind.whole() {
		return b
	}
	b = binary.AppendUvarint(b, op.Block)
	if op.Kind.stores() {
		b = appendValue(b, op.Value)
	}
	if op.Kind == CompareAndWrite {
		b = appendValue(b, op.Expect)
	}
	return b
}

func appendReturn(b []byte, op Op) []byte {
	b = binary.AppendUvarint(append(b, tagReturn|byte(op.Outcome)), uint64(op.Client))
	if op.Kind == Read && op.Outcome == OK {
		b = appendValue(b, op.Value)
	}
	return append(b, op.Note...)
}

// Log is what one Recorder logged.
type Log struct {
	Host string
	// Clock is how the times of this log become those of a history; zero where
	// it was recorded on the machine whose monotonic clock the history has.
	Clock Clock
	Ops   []Op // in the order of their calls
}

// ReadLog reads a log to its end. It fails with ErrFormat where the log is damaged.
func ReadLog(r io.Reader) (Log, error) {
	in := bufio.NewReader(r)
	head := make([]byte, len(logMagic)+2)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(logMagic)]) != logMagic {
		return Log{}, fmt.Errorf("%w: wrong header", ErrFormat)
	}
	if v := head[len(logMagic)]; v != logVersion {
		return Log{}, fmt.Errorf("%w: version %d, this program reads version %d", ErrFormat, v, logVersion)
	}
	host := make([]byte, head[len(logMagic)+1])
	if _, err := io.ReadFull(in, host); err != nil {
		return Log{}, fmt.Errorf("%w: wrong header", ErrFormat)
	}
	l := reader{log: Log{Host: string(host)}, open: make(map[uint32]int)}
	buf := make([]byte, 255)
	for n := 0; ; n++ {
		size, err := in.ReadByte()
		if err == nil {
			_, err = io.ReadFull(in, buf[:size])
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return l.log, nil
		}
		if err != nil {
			return Log{}, fmt.Errorf("history: read the log: %w", err)
		}
		if err := l.event(fields{b: buf[:size]}); err != nil {
			return Log{}, fmt.Errorf("%w: event %d: %w", ErrFormat, n, err)
		}
	}
}

// reader makes operations of events.
type reader struct {
	log  Log
	now  int64
	open map[uint32]int // the operation that a client has under way
}

func (l *reader) event(f fields) error {
	dt, tag, client := f.number(Forever-1-uint64(l.now)), f.byte(), uint32(f.number(MaxClient))
	if f.bad || client == 0 {
		return errors.New("it is malformed")
	}
	l.now += int64(dt)
	if tag&tagReturn == 0 {
		return l.call(&f, tag, client)
	}
	i, ok := l.open[client]
	if !ok {
		return fmt.Errorf("client %d has nothing to return from", client)
	}
	delete(l.open, client)
	op := &l.log.Ops[i]
	op.Outcome = Outcome(tag &^ tagReturn)
	if op.Outcome > Miscompare || op.Outcome == Miscompare && op.Kind != CompareAndWrite {
		return fmt.Errorf("a %s with %s", op.Kind, op.Outcome)
	}
	if op.Outcome != Unknown {
		op.Return = l.now
	}
	if op.Kind == Read && op.Outcome == OK {
		op.Value = f.value()
	}
	op.Note = string(f.b)
	if f.bad || len(op.Note) > maxNote {
		return errors.New("it is malformed")
	}
	return nil
}

func (l *reader) call(f *fields, tag byte, client uint32) error {
	if _, ok := l.open[client]; ok {
		return fmt.Errorf("client %d calls while it has an operation under way", client)
	}
	op := Op{Client: client, Kind: Kind(tag &^ tagFUA), FUA: tag&tagFUA != 0, Call: l.now, Return: Forever}
	if op.Kind > PowerCut {
		return fmt.Errorf("unknown %s", op.Kind)
	}
	if !op.Kind.whole() {
		op.Block = f.number(1<<64 - 1)
	}
	if op.Kind.stores() {
		op.Value = f.value()
	}
	if op.Kind == CompareAndWrite {
		op.Expect = f.value()
	}
	if f.bad || len(f.b) > 0 {
		return errors.New("it is malformed")
	}
	l.open[client] = len(l.log.Ops)
	l.log.Ops = append(l.log.Ops, op)
	return nil
}

// fields takes an event apart.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) number(limit uint64) uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || v > limit {
		f.bad, f.b = true, nil
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) byte() byte {
	if len(f.b) == 0 {
		f.bad = true
		return 0
	}
	c := f.b[0]
	f.b = f.b[1:]
	return c
}

func (f *fields) value() Value {
	client := f.number(1<<32 - 1)
	return NewValue(uint32(client), uint32(f.number(1<<32-1)))
}
