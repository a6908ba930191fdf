package nvmetcp

import (
	"io"
	"testing"

	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// BenchmarkLoopback measures 4 KiB commands on one connection, 32 at a time,
// over loopback sockets; the client's part is included.
func BenchmarkLoopback(b *testing.B) {
	for _, op := range []struct {
		name string
		op   uint8
	}{{"read", opRead}, {"write", opWrite}} {
		b.Run(op.name, func(b *testing.B) {
			h := newHarness(b, Config{})
			h.disk.quiet = true
			c := h.connect(options{depth: 128, noFlow: true})
			const depth = 32
			var req []byte
			back := depth * (wire.DataSize + 4096)
			for range depth {
				if op.op == opRead {
					req = c.send.Append(req, &wire.CapsuleCmd{SQE: rw(opRead, 0, 8, wirenvme.SGLTransport)}, nil)
				} else {
					req = c.send.Append(req, &wire.CapsuleCmd{SQE: rw(opWrite, 0, 8, wirenvme.SGLOffset)}, make([]byte, 4096))
					back = depth * wire.CapsuleRespSize
				}
			}
			in := make([]byte, back)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.nc.Write(req); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c.nc, in); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*depth), "ns/command")
			c.nc.Close()
		})
	}
}

// BenchmarkTransport measures 4 KiB commands without sockets: what is left is
// the transport's own work.
func BenchmarkTransport(b *testing.B) {
	h := newHarness(b, Config{})
	h.disk.quiet = true
	c := transportOnly(h)
	s := &wire.Sender{Align: 4}
	in := s.Append(nil, &wire.CapsuleCmd{SQE: rw(opRead, 0, 8, wirenvme.SGLTransport)}, nil)
	l, _ := c.recv.Check(in)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if err := c.handle(in, l); err != nil {
			b.Fatal(err)
		}
		if n%32 == 0 {
			c.mu.Lock()
			_ = c.flushLocked()
			c.mu.Unlock()
		}
	}
}
