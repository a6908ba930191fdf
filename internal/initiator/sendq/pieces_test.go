package sendq

import (
	"bytes"
	"errors"
	"net"
	"testing"
)

// whole is a connection that writes several buffers as one.
type whole struct {
	net.Conn
	writes [][]byte
	err    error
}

func (w *whole) WriteBuffers(vec net.Buffers) error {
	w.writes = append(w.writes, bytes.Join(vec, nil))
	return w.err
}

func TestWriteAsOne(t *testing.T) {
	var b Batch
	copy(b.Grow(3), "abc")
	b.Append(bytes.Repeat([]byte{7}, small+1))
	copy(b.Grow(1), "z")
	w := &whole{}
	o := NewOutput(w)
	for range 2 {
		o.Begin(&b)
		if n, done, err := o.Write(false); n != 0 || done || err != nil {
			t.Fatal("it may have waited")
		}
		if n, done, err := o.Write(true); n != b.Size() || !done || err != nil {
			t.Fatal(n, done, err)
		}
	}
	if len(w.writes) != 2 || len(w.writes[1]) != b.Size() || w.writes[1][0] != 'a' || w.writes[1][b.Size()-1] != 'z' {
		t.Errorf("%q", w.writes)
	}
	w.err = errors.New("cut")
	o.Begin(&b)
	if n, done, err := o.Write(true); n != 0 || done || !errors.Is(err, w.err) {
		t.Error(n, done, err)
	}
}
