//go:build !race

package nvmetcp

import (
	"testing"

	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// TestAllocations checks that reads and writes allocate nothing.
func TestAllocations(t *testing.T) {
	h := newHarness(t, Config{})
	h.disk.quiet = true
	for _, digests := range []bool{false, true} {
		c := transportOnly(h)
		c.recv.HeaderDigest, c.recv.DataDigest = digests, digests
		c.send.HeaderDigest, c.send.DataDigest = digests, digests
		s := &wire.Sender{HeaderDigest: digests, DataDigest: digests, Align: 4}
		var in []byte
		for range 8 {
			in = s.Append(in, &wire.CapsuleCmd{SQE: rw(opRead, 0, 8, wirenvme.SGLTransport)}, nil)
			in = s.Append(in, &wire.CapsuleCmd{SQE: rw(opWrite, 0, 8, wirenvme.SGLOffset)}, make([]byte, 4096))
		}
		solicited := s.Append(nil, &wire.CapsuleCmd{SQE: rw(opWrite, 0, 32, wirenvme.SGLTransport)}, nil)
		var data []byte
		handle := func(in []byte) {
			for len(in) > 0 {
				l, f := c.recv.Check(in)
				if f.Bad() {
					t.Fatal(f)
				}
				if err := c.handle(in[:l.Size], l); err != nil {
					t.Fatal(err)
				}
				in = in[l.Size:]
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if err := c.flushLocked(); err != nil {
				t.Fatal(err)
			}
		}
		round := func() {
			handle(in)
			handle(solicited)
			for _, k := range c.tasks {
				if k.gathering {
					f := &wire.H2CData{Last: true, TransferTag: k.r2ts[0].tag, Count: 16384}
					data = s.Append(data[:0], f, h.disk.data[:16384])
				}
			}
			handle(data)
		}
		round()
		round()
		if n := testing.AllocsPerRun(100, round); n > 4 { // vectored writes of a conn that is no socket, and this test's PDU
			t.Errorf("17 commands make %v allocations", n)
		}
	}
}
