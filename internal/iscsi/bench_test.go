package iscsi

import (
	"io"
	"net"
	"testing"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// BenchmarkLoopback measures 4 KiB commands on one connection, 32 at a time,
// over loopback sockets; the client's part is included.
func BenchmarkLoopback(b *testing.B) {
	for _, write := range []bool{false, true} {
		name := "read"
		if write {
			name = "write"
		}
		b.Run(name, func(b *testing.B) {
			h := newHarness(b, Config{})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go h.server.Serve(l, 1)
			nc, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			c := newClient(b, nc)
			c.loginPDU(wire.StageOperational, wire.StageFullFeature, true, normal("InitialR2T=No")...)
			h.array.disk.done = make([]uint64, 0, b.N+1000)
			const depth = 32
			in, out := wire.HeaderSize, wire.HeaderSize+4096
			f := &wire.SCSICommand{Final: true, Read: !write, Write: write, ExpectedLength: 4096, CDB: cdb10(0x28, 0, 8)}
			if write {
				in, out = out, in
				f.CDB = cdb10(0x2a, 0, 8)
			}
			req := make([]byte, depth*in)
			for i := range depth {
				f.Put(req[i*in:])
				if write {
					wire.BHS(req[i*in:]).SetDataLength(4096)
				}
			}
			back := make([]byte, depth*out)
			b.ReportAllocs()
			for b.Loop() {
				for i := range depth {
					wire.BHS(req[i*in:]).SetCmdSN(c.cmdSN)
					c.cmdSN++
				}
				if _, err := nc.Write(req); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(nc, back); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*depth), "ns/command")
			nc.Close()
		})
	}
}
