package nvmetcp

import (
	"bytes"
	"fmt"
	"testing"

	"lintel.io/lintel/internal/nvme"
	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// TestInitialize checks what ICResp answers to ICReq (NVMe/TCP 1.0 §3.1, §3.6.2.2, §3.6.2.3).
func TestInitialize(t *testing.T) {
	h := newHarness(t, Config{Align: 3, MaxH2CData: 10_003})
	for _, digests := range [][2]bool{{}, {true, false}, {false, true}, {true, true}} {
		c := h.connect(options{req: wire.ICReq{Align: 31, HeaderDigest: digests[0], DataDigest: digests[1], MaxR2T: 0xFFFFFFFF}})
		r := c.resp
		if hd, dd := r.Digests(); r.Type() != wire.TypeICResp || r.Version() != 0 || r.Align() != 3 || r.MaxH2CData() != 10_000 || hd != digests[0] || dd != digests[1] {
			t.Errorf("ICResp % x", r[:16])
		}
	}
	h = newHarness(t, Config{RefuseDigests: true})
	c := h.connect(options{req: wire.ICReq{HeaderDigest: true, DataDigest: true}})
	if hd, dd := c.resp.Digests(); hd || dd || c.resp.MaxH2CData() != 1<<20 {
		t.Errorf("ICResp % x", c.resp[:16])
	}
}

// TestReadWrite checks in-capsule data, R2T, H2CData and C2HData with all
// digests and alignments (NVMe/TCP 1.0 §3.3.1, §3.3.2.1, §3.3.2.2, §3.6.2.6, §3.6.2.7, §3.6.2.8, §3.6.2.9, §3.6.2.10).
func TestReadWrite(t *testing.T) {
	for _, digests := range [][2]bool{{}, {true, false}, {false, true}, {true, true}} {
		for _, align := range []uint8{0, 1, 31} {
			for _, noFlow := range []bool{false, true} {
				t.Run(fmt.Sprint(digests, align, noFlow), func(t *testing.T) {
					h := newHarness(t, Config{Align: align})
					c := h.connect(options{req: wire.ICReq{Align: align, HeaderDigest: digests[0], DataDigest: digests[1]}, noFlow: noFlow})
					data := pattern(600 * 512)
					c.command(rw(opWrite, 0, 16, wirenvme.SGLOffset), data[:8192])
					c.status(0)
					c.command(rw(opWrite, 16, 584, wirenvme.SGLTransport), nil)
					r, _ := c.expect(wire.TypeR2T)
					if r.Offset() != 0 || r.Count() != 584*512 || r.CommandID() != c.cid {
						t.Errorf("R2T % x", r)
					}
					c.answer(r, data[8192:], 100_000)
					c.status(0)
					if !bytes.Equal(h.disk.data[:len(data)], data) {
						t.Error("the disk has something else than what was written")
					}
					for _, blocks := range []int{1, 16, 600} {
						c.command(rw(opRead, 0, blocks, wirenvme.SGLTransport), nil)
						p, got := c.expect(wire.TypeC2HData)
						if !bytes.Equal(got, data[:blocks*512]) {
							t.Error("a read returns something else than what was written")
						}
						if p.CommandID() != c.cid || !p.Last() || p.Success() != noFlow || p.Offset() != 0 || int(p.Count()) != blocks*512 {
							t.Errorf("C2HData % x", p[:24])
						}
						if !noFlow {
							c.status(0)
						}
					}
					c.command(rw(opResult, 0, 1, wirenvme.SGLTransport), nil)
					if p, _ := c.expect(wire.TypeC2HData); p.Success() {
						t.Error("SUCCESS would hide the result")
					}
					if q := c.response(); q.Result() != [2]uint32{1, 2} {
						t.Errorf("result %v", q.Result())
					}
					c.command(rw(opRead, 1<<20, 1, wirenvme.SGLTransport), nil)
					c.status(wirenvme.LBAOutOfRange.DNR())
				})
			}
		}
	}
}

// TestOutstandingR2T checks that as many R2Ts are outstanding as MAXR2T
// allows, and that they may be answered in any order (NVMe/TCP 1.0 §3.3.2.1, §3.6.2.2).
func TestOutstandingR2T(t *testing.T) {
	for _, max := range []uint32{0, 1, 3, 0xFFFFFFFF} {
		h := newHarness(t, Config{MaxH2CData: 4096, MaxR2T: 3})
		c := h.connect(options{req: wire.ICReq{MaxR2T: max}})
		data := pattern(20 * 1024)
		c.command(rw(opWrite, 0, 40, wirenvme.SGLTransport), nil)
		allowed := int(min(max, 2)) + 1
		var open []wire.PDU
		tags := map[uint16]bool{}
		for i := range 5 {
			for len(open) < allowed && i+len(open) < 5 {
				r, _ := c.expect(wire.TypeR2T)
				if tags[r.TransferTag()] {
					t.Errorf("tag %#x twice", r.TransferTag())
				}
				tags[r.TransferTag()] = true
				open = append(open, r)
			}
			last := len(open) - 1
			c.answer(open[last], data, 1000)
			open = open[:last]
		}
		c.status(0)
		if !bytes.Equal(h.disk.data[:len(data)], data) {
			t.Error("the disk has something else than what was written")
		}
		if h.server.Connections()[0].InFlight != 0 {
			t.Error("something is in flight")
		}
	}
}

// TestHead checks the SQ head pointer with and without flow control (NVMe Base 2.0 §3.3.2, §3.3.3.2).
func TestHead(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.dial()
	c.init(options{})
	o := options{depth: 4, id: 5}
	q := c.connect(o)
	want := q.SQHD()
	for range 10 {
		c.command(rw(opFlush, 0, 1, 0), nil)
		q := c.response()
		if want = (want + 1) % 4; q.SQHD() != want || q.SQID() != 5 || q.CID() != c.cid {
			t.Errorf("completion % x, want SQHD %d", []byte(q), want)
		}
	}
	c = h.dial()
	c.init(options{})
	o.noFlow = true
	if q := c.connect(o); q.SQHD() != 0xFFFF {
		t.Errorf("SQHD %#x without flow control", q.SQHD())
	}
}

// TestBatch checks that many capsules of one read are answered together, in any order of completion.
func TestBatch(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.connect(options{depth: 128})
	copy(h.disk.data, pattern(1<<20))
	h.disk.hold = func(r *nvme.Request) bool { return r.SQE.CID()%3 == 0 }
	var out []byte
	for range 100 {
		c.cid++
		e := rw(opRead, int(c.cid), 8, wirenvme.SGLTransport)
		e.SetCID(c.cid)
		out = c.send.Append(out, &wire.CapsuleCmd{SQE: e}, nil)
	}
	c.write(out)
	seen := map[uint16]bool{}
	for i := range 100 {
		if i == 60 {
			settle(t, "all commands", func() bool { return len(h.disk.executed()) == 101 })
			if n := h.server.Connections()[0].InFlight; n < 33 {
				t.Errorf("%d commands are in flight", n)
			}
			h.disk.letGo(nil)
		}
		p, data := c.expect(wire.TypeC2HData)
		lba := int(p.CommandID())
		if !bytes.Equal(data, h.disk.data[lba*512:][:4096]) {
			t.Errorf("command %d got other data", lba)
		}
		if q := c.response(); q.CID() != p.CommandID() || !q.Status().OK() {
			t.Errorf("completion % x", []byte(q))
		}
		seen[p.CommandID()] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d commands were answered", len(seen))
	}
	st := h.server.Connections()[0]
	if st.Counters.Commands != 101 || st.Counters.BytesRead != 100*4096 || st.Depth != 128 || !st.FlowControl || !st.Connected {
		t.Errorf("status %+v", st)
	}
}

// TestDepth checks that a queue takes as many commands as it has entries, up to 1024 (NVMe Base 2.0 §3.3.2).
func TestDepth(t *testing.T) {
	for _, depth := range []int{2, 64, 1024, 5000} {
		h := newHarness(t, Config{})
		c := h.connect(options{depth: depth})
		h.disk.hold = func(*nvme.Request) bool { return true }
		fits := min(depth, 1024)
		for range fits {
			c.command(rw(opFlush, 0, 1, 0), nil)
		}
		settle(t, "all commands", func() bool { return len(h.disk.executed()) == fits+1 })
		h.disk.letGo(nil)
		for range fits {
			c.status(0)
		}
		h.disk.mu.Lock()
		h.disk.hold = func(*nvme.Request) bool { return true }
		h.disk.mu.Unlock()
		for range fits + 1 {
			c.command(rw(opFlush, 0, 1, 0), nil)
		}
		c.term(wire.Fault{Status: wire.StatusSequence})
	}
	h := newHarness(t, Config{})
	c := h.connect(options{noConnect: true})
	h.disk.hold = func(*nvme.Request) bool { return true }
	for range 3 {
		c.command(rw(opFlush, 0, 1, 0), nil)
	}
	c.term(wire.Fault{Status: wire.StatusSequence})
}

// TestInCapsuleLength checks capsules whose data is not what the SGL says (NVMe/TCP 1.0 §3.3.1, §3.6.2.6).
func TestInCapsuleLength(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.connect(options{})
	short := wirenvme.SGLLengthInvalid.DNR()
	c.command(rw(opWrite, 0, 2, wirenvme.SGLOffset), pattern(1020))
	c.status(short)
	c.command(rw(opWrite, 0, 2, wirenvme.SGLOffset), nil)
	c.status(short)
	c.command(rw(opWrite, 0, 2, wirenvme.SGLOffset), pattern(1100))
	c.status(0)
	e := rw(opWrite, 0, 2, wirenvme.SGLOffset)
	e.SetSGL(16, 1024, wirenvme.SGLOffset)
	c.command(e, append(make([]byte, 16), pattern(1024)...))
	c.status(0)
	if !bytes.Equal(h.disk.data[:1024], pattern(1024)) {
		t.Error("data at an offset is taken from elsewhere")
	}
	e.SetSGL(1<<63, 1024, wirenvme.SGLOffset)
	c.command(e, pattern(1024))
	c.status(short)
	// Data in the capsule of a command that takes none, or gets it otherwise, is dropped.
	c.command(rw(opFlush, 0, 1, 0), pattern(512))
	c.status(0)
	c.command(rw(opWrite, 0, 1, wirenvme.SGLTransport), pattern(512))
	r, _ := c.expect(wire.TypeR2T)
	c.answer(r, pattern(512), 512)
	c.status(0)
	e = rw(opEcho, 0, 1, wirenvme.SGLTransport)
	e.SetSGL(0, 1<<30, wirenvme.SGLTransport)
	c.command(e, nil)
	c.status(wirenvme.InvalidField.DNR())
}

// TestCapsuleSize checks that a larger capsule may be allowed (NVMe/TCP 1.0 §3.3.1).
func TestCapsuleSize(t *testing.T) {
	h := newHarness(t, Config{InCapsule: 32 << 10})
	c := h.connect(options{})
	if n := h.disk.queues[0].cfg.InCapsule; n != 32<<10 {
		t.Errorf("the controller is told of %d bytes", n)
	}
	c.command(rw(opWrite, 0, 64, wirenvme.SGLOffset), pattern(32<<10))
	c.status(0)
	h = newHarness(t, Config{InCapsule: 4096})
	c = h.connect(options{})
	c.command(rw(opWrite, 0, 16, wirenvme.SGLOffset), pattern(8<<10))
	c.status(0)
}

// TestDataDigest checks that a wrong data digest fails its command and no more (NVMe/TCP 1.0 §3.3.1.1, §3.5).
func TestDataDigest(t *testing.T) {
	h := newHarness(t, Config{MaxH2CData: 40 << 10})
	c := h.connect(options{req: wire.ICReq{DataDigest: true, HeaderDigest: true, MaxR2T: 1}})
	broken := func(p []byte) []byte {
		p[len(p)-1] ^= 1
		return p
	}
	e := rw(opWrite, 0, 2, wirenvme.SGLOffset)
	c.write(broken(c.send.Append(nil, &wire.CapsuleCmd{SQE: e}, pattern(1024))))
	c.status(wirenvme.TransientTransport)
	c.write(broken(c.send.Append(nil, &wire.CapsuleCmd{SQE: rw(opFlush, 0, 1, 0)}, pattern(1024))))
	c.status(wirenvme.TransientTransport)
	for _, size := range []int{1000, 40 << 10} {
		c.command(rw(opWrite, 0, 240, wirenvme.SGLTransport), nil)
		first, _ := c.expect(wire.TypeR2T)
		second, _ := c.expect(wire.TypeR2T)
		data := pattern(240 * 512)
		c.write(broken(c.answerBytes(first, data, size)))
		// What was asked for is still to come, but no more is asked for.
		c.answer(second, data, size)
		c.status(wirenvme.TransientTransport)
	}
	if !bytes.Equal(h.disk.data[:1024], make([]byte, 1024)) {
		t.Error("something was written")
	}
	c.command(rw(opFlush, 0, 1, 0), nil)
	c.status(0)
	if n := h.server.Connections()[0].Counters.DigestErrors; n != 4 {
		t.Errorf("%d digest errors were counted", n)
	}
}
