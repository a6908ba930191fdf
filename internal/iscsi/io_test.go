package iscsi

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/transport"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// TestReadWrite checks SCSI Command with immediate data, and Data-In (RFC 7143 §11.3, §11.7).
func TestReadWrite(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("ImmediateData=Yes", "InitialR2T=No")
	data := pattern(8 * 512)
	p := c.good(c.writeCmd(5, 8, true, data))
	if p.Flags() != wire.FlagFinal || p.Residual() != 0 || p.ExpDataSN() != 0 || p.Response() != wire.ResponseCompleted {
		t.Errorf("response % x", p.BHS)
	}
	itt := c.read(5, 8)
	d := c.recv(wire.OpDataIn)
	if d.ITT() != itt || !bytes.Equal(d.data, data) || d.Flags() != wire.FlagFinal|wire.FlagStatus || d.TTT() != wire.NoTag || d.Status() != 0 {
		t.Fatalf("Data-In: % x", d.BHS)
	}
	if d.StatSN() != p.StatSN()+1 || d.ExpCmdSN() != c.cmdSN || d.MaxCmdSN() != c.cmdSN+127 {
		t.Errorf("StatSN %d after %d, window %d to %d with next CmdSN %d", d.StatSN(), p.StatSN(), d.ExpCmdSN(), d.MaxCmdSN(), c.cmdSN)
	}
}

// TestDataIn checks Data-In bounded by MaxRecvDataSegmentLength and MaxBurstLength (RFC 7143 §11.7.1, §13.12, §13.13).
func TestDataIn(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("MaxRecvDataSegmentLength=1024", "MaxBurstLength=2560")
	copy(h.array.disk.data, pattern(8*512))
	itt := c.read(0, 8)
	want := []struct {
		size  int
		flags uint8
	}{{1024, 0}, {1024, 0}, {512, wire.FlagFinal}, {1024, 0}, {512, wire.FlagFinal | wire.FlagStatus}}
	off := 0
	for i, w := range want {
		p := c.recv(wire.OpDataIn)
		if p.ITT() != itt || len(p.data) != w.size || p.Flags() != w.flags || int(p.BufferOffset()) != off || int(p.DataSN()) != i {
			t.Fatalf("PDU %d: flags %#x, %d bytes at %d, DataSN %d", i, p.Flags(), len(p.data), p.BufferOffset(), p.DataSN())
		}
		if !bytes.Equal(p.data, h.array.disk.data[off:off+w.size]) {
			t.Fatalf("PDU %d has wrong data", i)
		}
		if w.flags&wire.FlagStatus == 0 && p.StatSN() != 0 {
			t.Errorf("PDU %d without status has StatSN %d", i, p.StatSN())
		}
		off += w.size
	}
}

// TestR2T checks Ready To Transfer and solicited Data-Out (RFC 7143 §11.8, §4.2.5.2).
func TestR2T(t *testing.T) {
	for _, outstanding := range []int{1, 2, 4} {
		h := newHarness(t, Config{})
		c := h.login("InitialR2T=Yes", "ImmediateData=No", "MaxBurstLength=1024", "MaxOutstandingR2T="+itoa(outstanding))
		data := pattern(9 * 512)
		itt := c.writeCmd(0, 9, true, nil)
		var open []pdu
		for asked, got := 0, 0; got < len(data); {
			for len(open) < outstanding && asked < len(data) {
				r := c.recv(wire.OpR2T)
				want := min(1024, len(data)-asked)
				if r.ITT() != itt || int(r.BufferOffset()) != asked || int(r.DesiredLength()) != want || r.TTT() == wire.NoTag {
					t.Fatalf("R2T for %d bytes at %d, want %d at %d", r.DesiredLength(), r.BufferOffset(), want, asked)
				}
				if int(r.DataSN()) != asked/1024 {
					t.Fatalf("R2TSN %d", r.DataSN())
				}
				asked += want
				open = append(open, r)
			}
			r := open[0]
			open = open[1:]
			off, n := int(r.BufferOffset()), int(r.DesiredLength())
			half := min(512, n-1)
			c.send(&wire.DataOut{ITT: itt, TTT: r.TTT(), DataSN: 0, BufferOffset: uint32(off)}, data[off:off+half])
			c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r.TTT(), DataSN: 1, BufferOffset: uint32(off + half)}, data[off+half:off+n])
			got += n
		}
		if p := c.good(itt); p.ExpDataSN() != 5 {
			t.Errorf("ExpDataSN %d, want the 5 R2Ts", p.ExpDataSN())
		}
		if !bytes.Equal(h.array.disk.data[:len(data)], data) {
			t.Error("data differs")
		}
	}
}

// TestUnsolicited checks immediate, unsolicited and solicited data of one command (RFC 7143 §4.2.5.2, §13.10, §13.11, §13.14).
func TestUnsolicited(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=2048", "MaxBurstLength=2048")
	data := pattern(8 * 512)
	itt := c.writeCmd(0, 8, false, data[:512])
	c.send(&wire.DataOut{ITT: itt, TTT: wire.NoTag, DataSN: 0, BufferOffset: 512}, data[512:1024])
	c.send(&wire.DataOut{Final: true, ITT: itt, TTT: wire.NoTag, DataSN: 1, BufferOffset: 1024}, data[1024:2048])
	r := c.recv(wire.OpR2T)
	if r.BufferOffset() != 2048 || r.DesiredLength() != 2048 {
		t.Fatalf("R2T for %d bytes at %d", r.DesiredLength(), r.BufferOffset())
	}
	c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r.TTT(), BufferOffset: 2048}, data[2048:])
	c.good(itt)
	if !bytes.Equal(h.array.disk.data[:len(data)], data) {
		t.Error("data differs")
	}

	// Less than FirstBurstLength is enough; the rest is asked for.
	itt = c.writeCmd(100, 8, true, data[:512])
	for off := 512; off < len(data); {
		r := c.recv(wire.OpR2T)
		n := int(r.DesiredLength())
		if int(r.BufferOffset()) != off {
			t.Fatalf("R2T at %d, want %d", r.BufferOffset(), off)
		}
		c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r.TTT(), BufferOffset: uint32(off)}, data[off:off+n])
		off += n
	}
	c.good(itt)
	if !bytes.Equal(h.array.disk.data[100*512:100*512+len(data)], data) {
		t.Error("data differs")
	}
}

// TestUnexpectedData checks unexpected unsolicited data (RFC 7143 §11.4.7.2).
func TestUnexpectedData(t *testing.T) {
	data := pattern(4096)
	for _, c := range []struct {
		name string
		keys []string
		send func(c *client) uint32
	}{
		{"immediate data refused", []string{"ImmediateData=No", "InitialR2T=No"}, func(c *client) uint32 { return c.writeCmd(0, 8, true, data[:512]) }},
		{"more than FirstBurstLength", []string{"FirstBurstLength=512"}, func(c *client) uint32 { return c.writeCmd(0, 8, true, data[:1024]) }},
		{"more than expected", nil, func(c *client) uint32 { return c.writeCmd(0, 1, true, data[:1024]) }},
		{"unsolicited before an R2T", []string{"InitialR2T=Yes"}, func(c *client) uint32 {
			itt := c.writeCmd(0, 8, false, data[:512])
			c.send(&wire.DataOut{Final: true, ITT: itt, TTT: wire.NoTag, BufferOffset: 512}, data[512:1024])
			return itt
		}},
		{"unsolicited past FirstBurstLength", []string{"InitialR2T=No", "FirstBurstLength=1024"}, func(c *client) uint32 {
			itt := c.writeCmd(0, 8, false, data[:512])
			c.send(&wire.DataOut{Final: true, ITT: itt, TTT: wire.NoTag, BufferOffset: 512}, data[512:2048])
			return itt
		}},
		{"data of a command without W", nil, func(c *client) uint32 {
			itt, sn := c.next()
			c.send(&wire.SCSICommand{Final: true, ITT: itt, CmdSN: sn, CDB: make([]byte, 6)}, data[:512])
			return itt
		}},
	} {
		h := newHarness(t, Config{})
		cl := h.login(c.keys...)
		if key, code := cl.sense(c.send(cl)); key != 0x0b || code != 0x0c0c {
			t.Errorf("%s: sense %x/%04x", c.name, key, code)
		}
		cl.good(cl.tur())
		if len(h.array.disk.done) != 1 {
			t.Errorf("%s: the write was executed", c.name)
		}
	}
}

// TestSequenceErrors checks lost and misplaced Data-Out at error recovery level 0 (RFC 7143 §7.9, §11.4.7.2).
func TestSequenceErrors(t *testing.T) {
	data := pattern(4096)
	for _, c := range []struct {
		name string
		pdus []wire.DataOut // TTT is filled in; 512 bytes each
	}{
		{"DataSN twice", []wire.DataOut{{DataSN: 0}, {DataSN: 0, BufferOffset: 512, Final: true}}},
		{"DataSN lost", []wire.DataOut{{DataSN: 27, Final: true}}},
		{"DataSN backwards", []wire.DataOut{{DataSN: 1}, {DataSN: 0, BufferOffset: 512, Final: true}}},
		{"offset behind", []wire.DataOut{{DataSN: 0}, {DataSN: 1, BufferOffset: 0, Final: true}}},
		{"offset ahead", []wire.DataOut{{DataSN: 0}, {DataSN: 1, BufferOffset: 1024, Final: true}}},
		{"final too early", []wire.DataOut{{DataSN: 0, Final: true}}},
		{"final missing", []wire.DataOut{{DataSN: 0}, {DataSN: 1, BufferOffset: 512}}},
		{"past the end", []wire.DataOut{{DataSN: 0}, {DataSN: 1, BufferOffset: 512}, {DataSN: 2, BufferOffset: 1024, Final: true}}},
	} {
		h := newHarness(t, Config{})
		cl := h.login("ImmediateData=No")
		itt := cl.writeCmd(0, 2, true, nil)
		r := cl.recv(wire.OpR2T)
		for _, p := range c.pdus {
			p.ITT, p.TTT = itt, r.TTT()
			cl.send(&p, data[:512])
		}
		if key, code := cl.sense(itt); key != 0x0b || code != 0x4705 {
			t.Errorf("%s: sense %x/%04x", c.name, key, code)
		}
		cl.good(cl.tur())
		if len(h.array.disk.done) != 1 {
			t.Errorf("%s: the write was executed", c.name)
		}
	}
}

// TestSequenceOrder checks DataSequenceInOrder (RFC 7143 §13.19).
func TestSequenceOrder(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("ImmediateData=No", "MaxBurstLength=512", "MaxOutstandingR2T=4")
	itt := c.writeCmd(0, 4, true, nil)
	var r2ts []pdu
	for range 4 {
		r2ts = append(r2ts, c.recv(wire.OpR2T))
	}
	for _, i := range []int{1, 0, 2, 3} {
		c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r2ts[i].TTT(), BufferOffset: r2ts[i].BufferOffset()}, make([]byte, 512))
	}
	if key, code := c.sense(itt); key != 0x0b || code != 0x4705 {
		t.Errorf("sense %x/%04x", key, code)
	}
	c.good(c.tur())
}

// TestStrayDataOut checks that Data-Out of no command is skipped (RFC 7143 §11.7.4).
func TestStrayDataOut(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login()
	c.send(&wire.DataOut{Final: true, ITT: 7, TTT: wire.NoTag}, make([]byte, 512))
	c.send(&wire.DataOut{Final: true, ITT: 7, TTT: 5}, make([]byte, 512))
	c.send(&wire.DataOut{Final: true, ITT: 7, TTT: 0xfff00000}, make([]byte, 70000))
	c.good(c.tur())
}

// TestLargeData checks data segments larger than the receive buffer (RFC 7143 §13.12).
func TestLargeData(t *testing.T) {
	for _, digests := range []string{"None", "CRC32C"} {
		h := newHarness(t, Config{MaxRecvDataSegment: 1 << 20, FirstBurst: 1 << 20, MaxBurst: 4 << 20})
		c := h.login("InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=1048576", "MaxBurstLength=4194304", "MaxRecvDataSegmentLength=262144",
			"HeaderDigest="+digests, "DataDigest="+digests)
		const blocks = 4097
		data := pattern(blocks * 512)
		itt := c.writeCmd(3, blocks, false, data[:600_000])
		c.send(&wire.DataOut{Final: true, ITT: itt, TTT: wire.NoTag, BufferOffset: 600_000}, data[600_000:1<<20])
		r := c.recv(wire.OpR2T)
		sn := uint32(0)
		for off := 1 << 20; off < len(data); sn++ {
			n := min(len(data)-off, 777_777)
			c.send(&wire.DataOut{Final: off+n == len(data), ITT: itt, TTT: r.TTT(), DataSN: sn, BufferOffset: uint32(off)}, data[off:off+n])
			off += n
		}
		c.good(itt)
		c.read(3, blocks)
		var back []byte
		for {
			p := c.recv(wire.OpDataIn)
			back = append(back, p.data...)
			if p.Flags()&wire.FlagStatus != 0 {
				break
			}
		}
		if !bytes.Equal(back, data) {
			t.Error("data differs")
		}
		// A ping as large as a PDU may be does not fit in the receive buffer.
		c.itt++
		c.send(&wire.NOPOut{Immediate: true, ITT: c.itt, TTT: wire.NoTag, CmdSN: c.cmdSN}, data[:1<<20])
		if p := c.recv(wire.OpNOPIn); !bytes.Equal(p.data, data[:262144]) {
			t.Errorf("ping comes back with %d bytes", len(p.data))
		}
		c.good(c.tur())
	}
}

// TestResiduals checks residual counts (RFC 7143 §11.4.5).
func TestResiduals(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("ImmediateData=Yes", "InitialR2T=No")
	for _, x := range []struct {
		name     string
		op       byte
		blocks   int
		expected int
		flags    uint8
		residual int
	}{
		{"read nothing of a block", 0x28, 1, 0, wire.FlagOverflow, 512},
		{"read a block of 10000 bytes", 0x28, 1, 10000, wire.FlagUnderflow, 10000 - 512},
		{"read 200 bytes of a block", 0x28, 1, 200, wire.FlagOverflow, 312},
		{"read one block of two", 0x28, 2, 512, wire.FlagOverflow, 512},
		{"read no block", 0x28, 0, 512, wire.FlagUnderflow, 512},
		{"write nothing of a block", 0x2a, 1, 0, wire.FlagOverflow, 512},
		{"write one block of two announced", 0x2a, 1, 1024, wire.FlagUnderflow, 512},
		{"write one block of two wanted", 0x2a, 2, 512, wire.FlagOverflow, 512},
		{"write 10000 bytes into a block", 0x2a, 1, 10000, wire.FlagUnderflow, 10000 - 512},
		{"write 200 bytes into a block", 0x2a, 1, 200, wire.FlagOverflow, 312},
		{"unknown command with data", 0xff, 0, 512, wire.FlagUnderflow, 512},
	} {
		itt, sn := c.next()
		f := &wire.SCSICommand{Final: true, ITT: itt, CmdSN: sn, ExpectedLength: uint32(x.expected), CDB: cdb10(x.op, 0, x.blocks)}
		f.Read, f.Write = x.op == 0x28, x.op != 0x28
		var data []byte
		if f.Write {
			data = pattern(x.expected)
		}
		c.send(f, data)
		var p pdu
		if n := min(x.expected, x.blocks*512); f.Read && n > 0 {
			if p = c.recv(wire.OpDataIn); len(p.data) != n {
				t.Errorf("%s: got %d bytes, want %d", x.name, len(p.data), n)
			}
		} else {
			p = c.recv(wire.OpSCSIResponse)
		}
		if p.Flags()&(wire.FlagOverflow|wire.FlagUnderflow) != x.flags || int(p.Residual()) != x.residual {
			t.Errorf("%s: flags %#x, residual %d, want %#x and %d", x.name, p.Flags(), p.Residual(), x.flags, x.residual)
		}
	}
}

// TestSense checks sense data in the SCSI Response (RFC 7143 §11.4.7).
func TestSense(t *testing.T) {
	h := newHarness(t, Config{})
	for _, digests := range []string{"None", "CRC32C"} {
		c := h.login("DataDigest=" + digests)
		itt, sn := c.next()
		c.send(&wire.SCSICommand{Final: true, Read: true, ExpectedLength: 96, ITT: itt, CmdSN: sn, CDB: []byte{0xff}}, nil)
		p := c.recv(wire.OpSCSIResponse)
		if p.Status() != 2 || len(p.data) != 20 || p.data[1] != 18 || p.data[2] != 0x70 || p.data[4] != 5 || p.Flags() != wire.FlagFinal|wire.FlagUnderflow || p.Residual() != 96 {
			t.Errorf("response % x, % x", p.BHS, p.data)
		}
	}
}

// TestDigests checks header and data digests (RFC 7143 §7.8, §13.1).
func TestDigests(t *testing.T) {
	data := pattern(4096)
	keys := []string{"HeaderDigest=CRC32C", "DataDigest=CRC32C", "InitialR2T=No", "MaxRecvDataSegmentLength=1000"}

	t.Run("good", func(t *testing.T) {
		h := newHarness(t, Config{})
		c := h.login(keys...)
		c.good(c.writeCmd(0, 8, true, data))
		c.read(0, 8)
		var back []byte
		for len(back) < len(data) {
			back = append(back, c.recv(wire.OpDataIn).data...)
		}
		if !bytes.Equal(back, data) {
			t.Error("data differs")
		}
		s := h.server.Sessions()[0].Connections[0]
		if !s.HeaderDigest || !s.DataDigest {
			t.Errorf("status says %+v", s)
		}
	})
	t.Run("header", func(t *testing.T) {
		h := newHarness(t, Config{})
		c := h.login(keys...)
		itt, sn := c.next()
		b := c.bytes(&wire.SCSICommand{Final: true, ITT: itt, CmdSN: sn}, nil, nil)
		b[wire.HeaderSize] ^= 1
		c.write(b)
		c.ended()
	})
	t.Run("immediate data", func(t *testing.T) {
		h := newHarness(t, Config{})
		c := h.login(keys...)
		itt, sn := c.next()
		f := &wire.SCSICommand{Final: true, Write: true, ITT: itt, CmdSN: sn, ExpectedLength: 4096, CDB: cdb10(0x2a, 0, 8)}
		b := c.bytes(f, nil, data)
		b[len(b)-1] ^= 1
		c.write(b)
		p := c.recv(wire.OpReject)
		if wire.Reason(p.Response()) != wire.ReasonDataDigest || !bytes.Equal(p.data, b[:wire.HeaderSize]) || p.ITT() != wire.NoTag {
			t.Errorf("reject % x", p.BHS)
		}
		if p.ExpCmdSN() != sn {
			t.Errorf("ExpCmdSN %d, the rejected command's %d has to stay open", p.ExpCmdSN(), sn)
		}
		c.send(f, data)
		c.good(itt)
	})
	for _, size := range []int{512, 100_000} {
		t.Run("Data-Out of "+itoa(size), func(t *testing.T) {
			h := newHarness(t, Config{})
			c := h.login("HeaderDigest=CRC32C", "DataDigest=CRC32C", "ImmediateData=No")
			data := pattern(200 * 512)
			itt := c.writeCmd(0, 200, true, nil)
			r := c.recv(wire.OpR2T)
			b := c.bytes(&wire.DataOut{ITT: itt, TTT: r.TTT()}, nil, data[:size])
			b[wire.HeaderSize+100] ^= 1
			c.write(b)
			if p := c.recv(wire.OpReject); wire.Reason(p.Response()) != wire.ReasonDataDigest {
				t.Errorf("reject % x", p.BHS)
			}
			c.send(&wire.DataOut{Final: true, ITT: itt, TTT: r.TTT(), DataSN: 1, BufferOffset: uint32(size)}, data[size:])
			if key, code := c.sense(itt); key != 0x0b || code != 0x4705 {
				t.Errorf("sense %x/%04x", key, code)
			}
			c.good(c.tur())
		})
	}
	t.Run("ping", func(t *testing.T) {
		h := newHarness(t, Config{})
		c := h.login(keys...)
		b := c.bytes(&wire.NOPOut{Immediate: true, ITT: 5, TTT: wire.NoTag, CmdSN: c.cmdSN}, nil, data[:10])
		b[len(b)-1] ^= 1
		c.write(b)
		c.recv(wire.OpReject)
		c.good(c.tur())
		if n := h.server.Sessions()[0].Counters; n.DigestErrors != 1 || n.Rejects != 1 {
			t.Errorf("counters %+v", n)
		}
	})
}

// TestExtendedCDB checks additional header segments (RFC 7143 §11.2.2).
func TestExtendedCDB(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login("HeaderDigest=CRC32C")
	var seen []byte
	h.array.disk.hold = func(t *scsi.Task) bool {
		seen = append([]byte(nil), t.CDB...)
		return false
	}
	cdb := append([]byte{0x7f}, pattern(31)...)
	itt, sn := c.next()
	c.write(c.bytes(&wire.SCSICommand{Final: true, ITT: itt, CmdSN: sn, CDB: cdb}, wire.AppendExtendedCDB(nil, cdb), nil))
	c.recv(wire.OpSCSIResponse)
	if !bytes.Equal(seen, cdb) {
		t.Errorf("CDB % x, want % x", seen, cdb)
	}
	itt, sn = c.next()
	c.write(c.bytes(&wire.SCSICommand{Final: true, Read: true, Write: true, ITT: itt, CmdSN: sn, CDB: cdb10(0x28, 0, 0)}, wire.AppendAHS(nil, wire.AHSBidiLength, []byte{0, 0, 0, 2, 0}), nil))
	c.good(itt)
	for _, bad := range [][]byte{{0, 0, 0, 0}, wire.AppendAHS(nil, 9, []byte{0}), wire.AppendAHS(nil, wire.AHSBidiLength, []byte{0})} {
		itt, sn = c.next()
		c.cmdSN-- // a rejected command leaves its place open
		c.write(c.bytes(&wire.SCSICommand{Final: true, ITT: itt, CmdSN: sn}, bad, nil))
		if p := c.recv(wire.OpReject); wire.Reason(p.Response()) != wire.ReasonInvalidField {
			t.Errorf("reject % x", p.BHS)
		}
	}
	c.good(c.tur())
}

// TestDataBudget checks that commands wait for memory in order, and unsolicited data that finds none gets BUSY.
func TestDataBudget(t *testing.T) {
	h := newHarness(t, Config{DataBudget: block.MaxBuffer, ConnectionBudget: block.MaxBuffer})
	h.budget = 8 * 512 // less than any command may need, to see them wait
	h.server.budget = transport.NewBudget(h.budget, block.MaxBuffer)
	c := h.login("InitialR2T=No", "ImmediateData=Yes", "FirstBurstLength=512", "MaxBurstLength=65536")
	first := c.writeCmd(0, 8, true, nil)
	r1 := c.recv(wire.OpR2T)
	second := c.writeCmd(8, 8, true, nil) // waits
	third := c.writeCmd(16, 8, false, nil)
	c.send(&wire.DataOut{Final: true, ITT: third, TTT: wire.NoTag}, make([]byte, 512))
	if p := c.recv(wire.OpSCSIResponse); p.ITT() != third || scsi.Status(p.Status()) != scsi.StatusBusy {
		t.Fatalf("response of %d with status %#x, want BUSY of %d", p.ITT(), p.Status(), third)
	}
	c.good(c.writeCmd(24, 1, true, make([]byte, 512))) // complete in its PDU: needs no budget
	c.send(&wire.DataOut{Final: true, ITT: first, TTT: r1.TTT()}, make([]byte, 8*512))
	c.good(first)
	r2 := c.recv(wire.OpR2T)
	if r2.ITT() != second {
		t.Fatalf("R2T for %d, want %d", r2.ITT(), second)
	}
	c.send(&wire.DataOut{Final: true, ITT: second, TTT: r2.TTT()}, make([]byte, 8*512))
	c.good(second)

	// One that waits can be aborted.
	first = c.writeCmd(0, 8, true, nil)
	c.recv(wire.OpR2T)
	second = c.writeCmd(8, 8, true, nil)
	for _, itt := range []uint32{second, first} {
		c.itt++
		c.send(&wire.TaskManagement{Immediate: true, Function: uint8(scsi.AbortTask), ITT: c.itt, ReferencedTaskTag: itt, CmdSN: c.cmdSN, RefCmdSN: c.cmdSN - 1}, nil)
		if p := c.recv(wire.OpTaskManagementResponse); scsi.Response(p.Response()) != scsi.FunctionComplete {
			t.Fatalf("ABORT TASK: %d", p.Response())
		}
	}
	c.good(c.tur())
}

// TestDataOutTooLong checks that a command that takes more than a buffer holds fails.
func TestDataOutTooLong(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login()
	itt, sn := c.next()
	c.send(&wire.SCSICommand{Final: true, Write: true, ITT: itt, CmdSN: sn, ExpectedLength: 32 << 20, CDB: cdb10(0x2a, 0, 0xffff)}, nil)
	if key, code := c.sense(itt); key != 5 || code != 0x2400 {
		t.Errorf("sense %x/%04x", key, code)
	}
}
