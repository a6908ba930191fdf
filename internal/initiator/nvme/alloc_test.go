package nvme

import (
	"context"
	"io"
	"net"
	"testing"

	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// idleQueue is a connected I/O queue without its reader, so that a test can act
// as one.
func idleQueue(tb testing.TB) *Queue {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	drained := make(chan struct{})
	c := &Controller{opts: Options{MaxR2T: 1}, ended: make(chan struct{})}
	c.opts.Dial = func(context.Context, string) (net.Conn, error) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		peer, err := l.Accept()
		if err != nil {
			return nil, err
		}
		h := make(pdu.PDU, pdu.ICSize)
		(&pdu.ICResp{MaxH2CData: 1 << 20}).Put(h)
		if _, err := peer.Write(h); err != nil {
			return nil, err
		}
		go func() {
			defer close(drained)
			defer peer.Close()
			_, _ = io.Copy(io.Discard, peer)
		}()
		return conn, nil
	}
	q, err := c.connection(tb.Context(), 1)
	if err != nil {
		tb.Fatal(err)
	}
	q.head = noHead
	if err := q.open(64); err != nil {
		tb.Fatal(err)
	}
	q.running.Add(1)
	go q.writer()
	tb.Cleanup(func() {
		close(q.gone)
		q.Close()
		<-drained
	})
	return q
}

// round answers commands whose callbacks submit them again. The answers are patched
// rather than made, so that only the queue's own work counts.
func round(tb testing.TB, in *Queue, cmds []Command, answers []byte) {
	in.mu.Lock()
	for in.sending {
		in.quiet.Wait()
	}
	in.mu.Unlock()
	at := 0
	for i := range cmds {
		p := pdu.PDU(answers[at:])
		if p.Type() == pdu.TypeCapsuleResp {
			le.PutUint16(p.CQE()[12:], cmds[i].cid)
		} else {
			le.PutUint16(p[pdu.OffCCCID:], cmds[i].cid)
		}
		at += p.Length()
	}
	in.feed(tb, answers)
}

// feed hands bytes to the queue as its reader does, with memory of its own.
func (q *Queue) feed(tb testing.TB, p []byte) {
	q.r, q.w, q.buf = 0, len(p), p
	if err := q.take(); err != nil {
		tb.Fatal(err)
	}
}

func load(tb testing.TB, q *Queue, write bool) (cmds []Command, answers []byte) {
	cmds = make([]Command, 16)
	data := make([]byte, 4096)
	var s pdu.Sender
	for i := range cmds {
		cmd := &cmds[i]
		if write {
			cmd.Out = data
			cmd.SetIO(wire.Write, 1, uint64(i), 8, 0)
			answers = s.Append(answers, &pdu.CapsuleResp{}, nil)
		} else {
			cmd.In = data
			cmd.SetIO(wire.Read, 1, uint64(i), 8, 0)
			answers = s.Append(answers, &pdu.C2HData{Last: true, Success: true, Count: 4096}, data)
		}
		cmd.Done = func(cmd *Command) {
			if err := q.Submit(cmd); err != nil {
				tb.Error(err)
			}
		}
		if err := q.Submit(cmd); err != nil {
			tb.Fatal(err)
		}
	}
	return cmds, answers
}

func TestNoAllocation(t *testing.T) {
	for name, write := range map[string]bool{"read": false, "write": true} {
		t.Run(name, func(t *testing.T) {
			q := idleQueue(t)
			cmds, answers := load(t, q, write)
			if n := testing.AllocsPerRun(100, func() { round(t, q, cmds, answers) }); n > 0 {
				t.Errorf("%v allocations in %d commands", n, len(cmds))
			}
		})
	}
}

func BenchmarkRead(b *testing.B)  { benchmark(b, false) }
func BenchmarkWrite(b *testing.B) { benchmark(b, true) }

// benchmark measures one command of 4 KiB, sending included.
func benchmark(b *testing.B, write bool) {
	q := idleQueue(b)
	cmds, answers := load(b, q, write)
	b.ReportAllocs()
	for i := 0; i < b.N; i += len(cmds) {
		round(b, q, cmds, answers)
	}
}
