package nvme_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"lintel.io/lintel/internal/initiator/nvme"
	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// TestTransfers checks reads and writes of every way that data can take, with
// and without digests, padding and sockets (NVMe/TCP 1.0 §3.3.2).
func TestTransfers(t *testing.T) {
	for i := range 32 {
		digests, aligned, flow, pipe, small := i&1 != 0, i&2 != 0, i&4 != 0, i&8 != 0, i&16 != 0
		t.Run(fmt.Sprintf("digests=%v,aligned=%v,flow=%v,pipe=%v,small=%v", digests, aligned, flow, pipe, small), func(t *testing.T) {
			sizes := []int{512, 8192, 12288, 1 << 20}
			d := newTarget(t, func(p *peer) {
				for _, n := range sizes {
					e, data := p.opcode(wire.Write)
					if _, length, _ := e.SGL(); int(length) != n || len(data) != 0 && len(data) != n || (len(data) > 0) != (n <= p.target.capsule) {
						p.must(fmt.Errorf("SGL of %d, %d bytes in the capsule of a write of %d", length, len(data), n))
					}
					for at := len(data); at < n; {
						part := min(n-at, 100_000)
						p.r2t(e, 5, at, part)
						data = append(data, p.collect(e, 5, at, part)...)
						at += part
					}
					p.respond(e, 0)
					e, _ = p.opcode(wire.Read)
					for at := 0; at < n; {
						part := min(n-at, 200_000)
						last := at+part == n
						p.pdu(&pdu.C2HData{CommandID: e.CID(), Offset: uint32(at), Count: uint32(part), Last: last, Success: last && p.noFlow}, data[at:at+part])
						at += part
					}
					if !p.noFlow {
						p.respond(e, 0)
					}
				}
				p.drain()
			})
			d.pipe, d.keepFlow = pipe, flow
			if small {
				d.capsule = 0
			}
			opts := d.options()
			opts.HeaderDigest, opts.DataDigest = digests, digests
			if aligned {
				opts.Align = 15
			}
			d.setup = func(p *peer) {
				p.hdgst, p.ddgst = digests, digests
				if aligned {
					p.align = 31
				}
			}
			c := d.connect(opts)
			q := c.Queues()[0]
			if h, dd := q.Digests(); h != digests || dd != digests || q.FlowControl() != flow {
				t.Errorf("digests %v and %v, flow control %v", h, dd, q.FlowControl())
			}
			for _, n := range sizes {
				want := pattern(n)
				if err := q.Write(t.Context(), 1, 0, 512, want, 0); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, n)
				if err := q.Read(t.Context(), 1, 0, 512, got); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("%d bytes came back changed", n)
				}
			}
		})
	}
}

// collect reads the H2CData PDUs of an R2T.
func (p *peer) collect(e wire.SQE, tag uint16, at, n int) []byte {
	var all []byte
	for len(all) < n {
		h, data := p.expect(pdu.TypeH2CData)
		if h.CommandID() != e.CID() || h.TransferTag() != tag || int(h.Offset()) != at+len(all) || int(h.Count()) != len(data) ||
			len(data) > int(p.maxH2C) || h.Last() != (len(all)+len(data) == n) {
			p.must(fmt.Errorf("H2CData %x", []byte(h[:24])))
		}
		all = append(all, data...)
	}
	return all
}

// TestSeveralR2Ts checks that as many R2Ts as were offered may be outstanding for a
// command (NVMe/TCP 1.0 §3.6.2.10).
func TestSeveralR2Ts(t *testing.T) {
	const n = 65536
	d := newTarget(t, func(p *peer) {
		e, _ := p.opcode(wire.Write)
		p.r2t(e, 1, 0, n/2)
		p.r2t(e, 2, n/2, n/2)
		data := append(p.collect(e, 1, 0, n/2), p.collect(e, 2, n/2, n/2)...)
		if !bytes.Equal(data, pattern(n)) {
			p.must(errors.New("other data"))
		}
		p.respond(e, 0)
		p.drain()
	})
	opts := d.options()
	opts.MaxR2T = 2
	if err := d.connect(opts).Queues()[0].Write(t.Context(), 1, 0, 512, pattern(n), 0); err != nil {
		t.Fatal(err)
	}
}

// TestDepth checks that no more commands are under way than the queue holds, with and
// without SQ flow control (NVMe Base 2.0 §3.3.2.1, §6.3).
func TestDepth(t *testing.T) {
	for _, flow := range []bool{false, true} {
		d := newTarget(t, func(p *peer) {
			limit := int(p.size)
			if !p.noFlow {
				limit--
			}
			for range 50 {
				var taken []wire.SQE
				seen := map[uint16]bool{}
				for range limit {
					e, _ := p.opcode(wire.Read)
					if seen[e.CID()] {
						p.must(errors.New("a command identifier in use"))
					}
					seen[e.CID()] = true
					taken = append(taken, e)
				}
				for i := range taken {
					p.in(taken[len(taken)-1-i], make([]byte, 512))
				}
			}
			for {
				e, _ := p.opcode(wire.Read)
				p.in(e, make([]byte, 512))
			}
		})
		d.keepFlow = flow
		q := d.queue()
		want := 16
		if flow {
			want = 15
		}
		if q.Limit() != want {
			t.Errorf("limit %d", q.Limit())
		}
		done := make(chan error, 1000)
		for range 1000 {
			cmd := &nvme.Command{In: make([]byte, 512), Done: func(cmd *nvme.Command) { done <- cmd.Failure() }}
			cmd.SetIO(wire.Read, 1, 0, 1, 0)
			if err := q.Submit(cmd); err != nil {
				t.Fatal(err)
			}
		}
		for range 1000 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFused checks that the halves of a fused operation follow one another (NVMe Base 2.0 §3.4.2).
func TestFused(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		for _, s := range []wire.Status{0, wire.CompareFailure} {
			compare, expected := p.opcode(wire.Compare)
			write, data := p.opcode(wire.Write)
			if compare.Fuse() != wire.FuseFirst || write.Fuse() != wire.FuseSecond || expected[0] != 1 || data[0] != 2 {
				p.must(errors.New("not a fused pair"))
			}
			p.respond(compare, s)
			if s != 0 {
				s = wire.AbortedFailedFused
			}
			p.respond(write, s)
		}
		compare, _ := p.opcode(wire.Compare)
		write, _ := p.opcode(wire.Write)
		p.respond(compare, wire.CompareFailure)
		p.respond(write, 0)
		p.drain()
	})
	q := d.queue()
	one, two := bytes.Repeat([]byte{1}, 512), bytes.Repeat([]byte{2}, 512)
	if err := q.CompareAndWrite(t.Context(), 1, 9, 512, one, two); err != nil {
		t.Error(err)
	}
	if err := q.CompareAndWrite(t.Context(), 1, 9, 512, one, two); nvme.StatusOf(err) != wire.CompareFailure {
		t.Error(err)
	}
	if err := q.CompareAndWrite(t.Context(), 1, 9, 512, one, two); !errors.Is(err, nvme.ErrProtocol) {
		t.Error(err)
	}
	if err := q.CompareAndWrite(t.Context(), 1, 9, 512, one, nil); !errors.Is(err, nvme.ErrCommand) {
		t.Error(err)
	}
}

// TestErrorLeavesQueue checks that a command that fails early, with some or none of its data
// moved, leaves the queue in order.
func TestErrorLeavesQueue(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		e, _ := p.opcode(wire.Write)
		p.respond(e, wire.ReservationConflict)
		e, _ = p.opcode(wire.Read)
		p.pdu(&pdu.C2HData{CommandID: e.CID(), Count: 512}, make([]byte, 512))
		p.respond(e, wire.UnrecoveredRead.DNR())
		e, _ = p.opcode(wire.Flush)
		p.respond(e, 0)
		p.drain()
	})
	q := d.queue()
	if err := q.Write(t.Context(), 1, 0, 512, pattern(65536), 0); nvme.StatusOf(err) != wire.ReservationConflict {
		t.Error(err)
	}
	if err := q.Read(t.Context(), 1, 0, 512, make([]byte, 65536)); nvme.StatusOf(err) != wire.UnrecoveredRead {
		t.Error(err)
	}
	if err := q.Flush(t.Context(), 1); err != nil {
		t.Error(err)
	}
}
