//go:build !race

package iscsi

import (
	"testing"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// TestAllocations checks that reads and writes allocate nothing.
func TestAllocations(t *testing.T) {
	h := newHarness(t, Config{})
	s := &session{server: h.server, nexus: h.array.disk, params: defaultParams().Negotiated}
	s.expCmdSN.Store(1)
	s.maxCmdSN.Store(128)
	l := newLogin(&h.server.cfg, nil, Peer{})
	l.first = make(wire.BHS, wire.HeaderSize)
	c := newConn(h.server, s, discard{}, l, 0)
	c.params.maxRecv = 256 << 10
	c.params.FirstBurst = 256 << 10
	c.busy = true
	var rd, wr [wire.HeaderSize + 4096]byte
	(&wire.SCSICommand{Final: true, Read: true, ExpectedLength: 4096, CDB: cdb10(0x28, 0, 8)}).Put(rd[:])
	(&wire.SCSICommand{Final: true, Write: true, ExpectedLength: 4096, CDB: cdb10(0x2a, 0, 8)}).Put(wr[:])
	wire.BHS(wr[:]).SetDataLength(4096)
	h.array.disk.done = make([]uint64, 0, 1<<20)
	round := func() {
		for range 16 {
			wire.BHS(rd[:]).SetCmdSN(s.expCmdSN.Load())
			c.handle(rd[:wire.HeaderSize], nil, nil, true)
			wire.BHS(wr[:]).SetCmdSN(s.expCmdSN.Load())
			c.handle(wr[:wire.HeaderSize], nil, wr[wire.HeaderSize:], true)
		}
		if err := c.flush(); err != nil {
			t.Fatal(err)
		}
	}
	round()
	round()
	if n := testing.AllocsPerRun(100, round); n > 1 { // the vectored write of a conn that is no socket
		t.Errorf("32 commands make %v allocations", n)
	}
}
