package nvme

import (
	"net"
	"testing"

	"lintel.io/lintel/internal/initiator/sendq"
	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// FuzzReceive feeds what a target may send, in two pieces, to a queue with a read and a write under way.
func FuzzReceive(f *testing.F) {
	var s pdu.Sender
	cqe := make(wire.CQE, wire.CQESize)
	var all []byte
	all = s.Append(all, &pdu.C2HData{Count: 4096, CommandID: 0}, make([]byte, 4096))
	all = s.Append(all, &pdu.C2HData{Count: 4096, Offset: 4096, Last: true, Success: true}, make([]byte, 4096))
	all = s.Append(all, &pdu.R2T{CommandID: 1, Count: 65536}, nil)
	cqe.Put([2]uint32{}, noHead, 0, 1, wire.LBAOutOfRange)
	all = s.Append(all, &pdu.CapsuleResp{CQE: cqe}, nil)
	f.Add(uint8(0), uint16(100), all)
	f.Add(uint8(3), uint16(8), pdu.AppendTerm(nil, &pdu.C2HTermReq{}, make([]byte, 24)))
	f.Fuzz(func(t *testing.T, digests uint8, cut uint16, p []byte) {
		near, far := net.Pipe()
		defer far.Close()
		defer near.Close()
		q := &Queue{
			ctrl: &Controller{ended: make(chan struct{})}, id: 1, maxH2C: 4096, maxR2T: 1, ended: make(chan struct{}), handoff: make(chan struct{}, 1),
			queue: new(sendq.Batch), flight: new(sendq.Batch), out: sendq.NewOutput(near), head: noHead,
			input: input{conn: near, recv: pdu.Receiver{Host: true, HeaderDigest: digests&1 != 0, DataDigest: digests&2 != 0}, buf: make([]byte, 8192)},
		}
		q.quiet.L = &q.mu
		if err := q.open(4); err != nil {
			t.Fatal(err)
		}
		q.free = []uint16{3, 2, 1, 0}
		ended := 0
		done := func(*Command) { ended++ }
		read, write := &Command{In: make([]byte, 8192), Done: done}, &Command{Out: make([]byte, 65536), Done: done}
		read.SetIO(wire.Read, 1, 0, 16, 0)
		write.SetIO(wire.Write, 1, 0, 128, 0)
		for _, cmd := range []*Command{read, write} {
			if err := q.Submit(cmd); err != nil {
				t.Fatal(err)
			}
		}
		for len(p) > 0 {
			if st := &q.stream; st.active && st.left > 0 && q.r == q.w {
				into := st.cmd.In[st.at : st.at+st.left]
				n := copy(into, p)
				q.streamed(into[:n])
				p = p[n:]
			} else {
				if q.r == q.w {
					q.r, q.w = 0, 0
				} else if q.w == len(q.buf) {
					q.w = copy(q.buf, q.buf[q.r:q.w])
					q.r = 0
				}
				n := copy(q.buf[q.w:min(len(q.buf), q.w+int(cut)+1)], p)
				if n == 0 {
					t.Fatal("the buffer is full and nothing is taken from it")
				}
				q.w += n
				p = p[n:]
			}
			if q.take() != nil {
				break
			}
		}
		if ended > 2 {
			t.Fatalf("%d ends of two commands", ended)
		}
	})
}
