package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Recorder logs the operations of one host. It writes each call to the log
// before the operation is issued, so that also what was under way when the host
// died is known. Its methods may be called concurrently.
type Recorder struct {
	now func() int64

	mu   sync.Mutex
	w    io.Writer
	last int64 // time of the last event
	buf  []byte
	err  error // the log has failed
}

// NewRecorder starts a log, with its times from Monotonic. Each event is one
// Write of w.
func NewRecorder(w io.Writer, host string) (*Recorder, error) {
	if len(host) > maxHost {
		return nil, fmt.Errorf("history: host name of %d bytes: use at most %d", len(host), maxHost)
	}
	r := &Recorder{now: Monotonic, w: w}
	if _, err := w.Write(appendHeader(nil, host)); err != nil {
		return nil, fmt.Errorf("history: begin the log: %w", err)
	}
	return r, nil
}

// Do logs the call of an operation, issues it, and logs its answer. issue sets
// the Value of a Read, may set a Note, and returns nil where the operation was
// done, ErrMiscompare where it found another content than expected; after any
// other error the outcome is unknown. Do returns the operation with its
// outcome and times. Its own error is that of the log, after which nothing is
// issued any more.
func (r *Recorder) Do(op Op, issue func(*Op) error) (Op, error) {
	if op.Client == 0 || op.Client > MaxClient || op.Kind > PowerCut {
		return op, fmt.Errorf("history: %s of client %d cannot be recorded", op.Kind, op.Client)
	}
	var err error
	op.Outcome, op.Return = Unknown, Forever
	if op.Call, err = r.event(op, appendCall); err != nil {
		return op, err
	}
	switch err := issue(&op); {
	case err == nil:
		op.Outcome = OK
	case op.Kind == CompareAndWrite && errors.Is(err, ErrMiscompare):
		op.Outcome = Miscompare
	default:
		op.Note = err.Error()
	}
	op.Note = op.Note[:min(len(op.Note), maxNote)]
	t, err := r.event(op, appendReturn)
	if err == nil && op.Outcome != Unknown {
		op.Return = t
	}
	return op, err
}

// event takes the time and logs. Under one lock, so that times do not go back.
func (r *Recorder) event(op Op, encode func([]byte, Op) []byte) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	t := max(r.now(), r.last)
	r.buf = encode(binary.AppendUvarint(append(r.buf[:0], 0), uint64(t-r.last)), op)
	r.buf[0] = byte(len(r.buf) - 1)
	r.last = t
	if _, err := r.w.Write(r.buf); err != nil {
		r.err = fmt.Errorf("history: write the log: %w", err)
	}
	return t, r.err
}
