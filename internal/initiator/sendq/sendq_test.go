package sendq

import (
	"bytes"
	"io"
	"net"
	"testing"

	"pgregory.net/rapid"
)

// connect returns the two ends of a connection, a socket or a pipe.
func connect(t *testing.T, socket bool) (near, far net.Conn) {
	if !socket {
		near, far = net.Pipe()
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		if far, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// TestWrite checks that every mixture of pieces arrives in order, however little
// the socket takes at once.
func TestWrite(t *testing.T) {
	for name, socket := range map[string]bool{"socket": true, "pipe": false} {
		t.Run(name, func(t *testing.T) {
			near, far := connect(t, socket)
			o := NewOutput(near)
			var b Batch
			rapid.Check(t, func(t *rapid.T) {
				b.Reset()
				var want []byte
				for i, n := range rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 600), rapid.IntRange(0, 300_000)), 1, 60).Draw(t, "pieces") {
					p := bytes.Repeat([]byte{byte(i + 1)}, n)
					want = append(want, p...)
					if n%3 == 0 && n <= 1000 {
						copy(b.Grow(n), p)
					} else {
						b.Append(p)
					}
				}
				if b.Size() != len(want) {
					t.Fatalf("size %d of %d", b.Size(), len(want))
				}
				read := make(chan []byte)
				go func() {
					got := make([]byte, len(want))
					_, _ = io.ReadFull(far, got)
					read <- got
				}()
				o.Begin(&b)
				total, wait := 0, false
				for done := false; !done; wait = true {
					n, end, err := o.Write(wait)
					if err != nil {
						t.Fatal(err)
					}
					total, done = total+n, end
				}
				if got := <-read; total != len(want) || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes written of %d, or others", total, len(want))
				}
			})
		})
	}
}

// TestWriteManyPieces checks a batch of more pieces than one system call takes.
func TestWriteManyPieces(t *testing.T) {
	near, far := connect(t, true)
	data := bytes.Repeat([]byte{7}, small+1)
	var b Batch
	for range 1500 {
		b.Append(data)
	}
	go func() {
		o := NewOutput(near)
		o.Begin(&b)
		for done := false; !done; {
			var err error
			if _, done, err = o.Write(true); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	got := make([]byte, b.Size())
	if _, err := io.ReadFull(far, got); err != nil || bytes.Count(got, []byte{7}) != len(got) {
		t.Error("not what was sent", err)
	}
}

func TestWriteClosed(t *testing.T) {
	for _, socket := range []bool{true, false} {
		near, _ := connect(t, socket)
		near.Close()
		var b Batch
		b.Append([]byte{1})
		o := NewOutput(near)
		o.Begin(&b)
		if _, _, err := o.Write(true); err == nil {
			t.Error("written to a closed connection")
		}
	}
}

func TestNoAllocation(t *testing.T) {
	var b Batch
	data := make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		b.Reset()
		for range 32 {
			b.Grow(72)
			b.Append(data)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
