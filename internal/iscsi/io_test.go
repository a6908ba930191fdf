package iscsi

import (
	"bytes"
	"testing"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// TestReadWrite checks a write with immediate data and a read back (RFC 7143 §11.3, §11.7).
func TestReadWrite(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("ImmediateData=Yes", "InitialR2T=No")
	data := pattern(8 * 512)
	c.good(c.writeCmd(5, 8, true, data))
	itt := c.read(5, 8)
	p := c.recv(wire.OpDataIn)
	if p.ITT() != itt || !bytes.Equal(p.data, data) || p.Flags() != wire.FlagFinal|wire.FlagStatus {
		t.Fatalf("Data-In: % x", p.BHS)
	}
}

// TestR2T checks solicited data (RFC 7143 §11.8).
func TestR2T(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=1024", "MaxOutstandingR2T=2")
	data := pattern(5 * 512)
	itt := c.writeCmd(0, 5, true, nil)
	got := 0
	for got < len(data) {
		r := c.recv(wire.OpR2T)
		off, n := int(r.BufferOffset()), int(r.DesiredLength())
		if off != got || r.ITT() != itt {
			t.Fatalf("R2T for %d bytes at %d", n, off)
		}
		c.send(&wire.DataOut{ITT: itt, TTT: r.TTT(), DataSN: 0, BufferOffset: uint32(off)}, data[off:off+n/2])
		c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r.TTT(), DataSN: 1, BufferOffset: uint32(off + n/2)}, data[off+n/2:off+n])
		got += n
	}
	c.good(itt)
	if !bytes.Equal(h.array.disk.data[:len(data)], data) {
		t.Error("data differs")
	}
}
