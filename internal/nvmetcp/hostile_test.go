package nvmetcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"lintel.io/lintel/internal/nvme"
	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// canned is a connection whose peer sends given bytes, takes everything, and
// then goes away.
type canned struct {
	net.Conn
	in    *bytes.Reader
	chunk int // most bytes of one read, 0 for any
}

func (c *canned) Read(p []byte) (int, error) {
	if c.chunk > 0 {
		p = p[:min(len(p), c.chunk)]
	}
	return c.in.Read(p)
}
func (c *canned) Write(p []byte) (int, error) { return len(p), nil }
func (c *canned) Close() error                { return nil }
func (c *canned) SetDeadline(time.Time) error { return nil }
func (c *canned) RemoteAddr() net.Addr        { return &net.TCPAddr{} }
func (c *canned) LocalAddr() net.Addr         { return &net.TCPAddr{} }

// feed serves a connection that sends in, in reads of at most chunk bytes.
func (h *harness) feed(in []byte, chunk int) {
	h.server.serveConn(h.server.admit(&canned{in: bytes.NewReader(in), chunk: chunk}, 1))
}

// sample is a conversation with one of everything.
func sample(digests bool) []byte {
	req := &wire.ICReq{Align: 1, MaxR2T: 1, HeaderDigest: digests, DataDigest: digests}
	out := (&wire.Sender{}).Append(nil, req, nil)
	s := &wire.Sender{HeaderDigest: digests, DataDigest: digests, Align: 4}
	cid := uint16(0)
	add := func(e wirenvme.SQE, data []byte) {
		cid++
		e.SetCID(cid)
		out = s.Append(out, &wire.CapsuleCmd{SQE: e}, data)
	}
	data := pattern(36 * 512)
	add(connectSQE(options{}), make([]byte, 1024))
	add(rw(opWrite, 0, 4, wirenvme.SGLOffset), data[:2048])
	add(rw(opWrite, 4, 32, wirenvme.SGLTransport), nil)
	// The tags of R2Ts can be foretold: the answers to the first commands have
	// not been written when all comes with one read.
	h2c := func(index, off, n int, last bool) {
		out = s.Append(out, &wire.H2CData{Last: last, CommandID: 3, TransferTag: uint16(index)<<tagShift | uint16(off/8192), Offset: uint32(off), Count: uint32(n)}, data[2048+off:][:n])
	}
	h2c(2, 0, 4096, false)
	h2c(2, 8192, 8192, true)
	add(rw(opRead, 0, 8, wirenvme.SGLTransport), nil)
	h2c(2, 4096, 4096, true)
	add(rw(opFlush, 0, 1, 0), nil)
	add(rw(0x55, 0, 1, 0), nil)
	return append(out, wire.AppendTerm(nil, &wire.H2CTermReq{Fault: wire.Invalid(2)}, make([]byte, 24))...)
}

func sampleHarness(t testing.TB) *harness { return newHarness(t, Config{MaxH2CData: 8192}) }

// TestSample makes sure that the sample does what it is meant to.
func TestSample(t *testing.T) {
	for _, digests := range []bool{false, true} {
		h := sampleHarness(t)
		h.feed(sample(digests), 0)
		if n := len(h.disk.executed()); n != 6 {
			t.Errorf("%d commands were executed, want 6", n)
		}
		if !bytes.Equal(h.disk.data[:36*512], pattern(36*512)) {
			t.Error("the writes did not arrive")
		}
	}
}

// TestDisconnectAnywhere checks that a connection may end at any byte of its
// initialization, Connect, reads, writes and everything else.
func TestDisconnectAnywhere(t *testing.T) {
	h := sampleHarness(t)
	for _, digests := range []bool{false, true} {
		in := sample(digests)
		step := 1
		if testing.Short() {
			step = 13
		}
		for n := 0; n < len(in); n += step {
			if n > 1400 && n%7 != 0 { // within data every byte is like the next
				continue
			}
			h.feed(in[:n], 0)
		}
	}
}

// TestDisconnectLargeWrite is the same in data that is read straight to its place.
func TestDisconnectLargeWrite(t *testing.T) {
	h := newHarness(t, Config{})
	for _, digests := range []bool{false, true} {
		out := (&wire.Sender{}).Append(nil, &wire.ICReq{DataDigest: digests}, nil)
		s := &wire.Sender{DataDigest: digests, Align: 4}
		out = s.Append(out, &wire.CapsuleCmd{SQE: connectSQE(options{})}, make([]byte, 1024))
		begin := len(out)
		out = s.Append(out, &wire.CapsuleCmd{SQE: rw(opWrite, 0, 400, wirenvme.SGLTransport)}, nil)
		for off := 0; off < 204_800; off += 102_400 {
			out = s.Append(out, &wire.H2CData{Last: off > 0, TransferTag: 1 << tagShift, Offset: uint32(off), Count: 102_400}, pattern(102_400))
		}
		for n := begin; n < len(out); n += 97 {
			for _, chunk := range []int{0, 1000} {
				h.feed(out[:n], chunk)
			}
		}
	}
}

// TestMutations feeds a server with damaged conversations.
func TestMutations(t *testing.T) {
	h := sampleHarness(t)
	r := rand.New(rand.NewPCG(1, 2))
	base := sample(false)
	for range 3000 {
		in := bytes.Clone(base)
		for range 1 + r.IntN(4) {
			in[r.IntN(len(in))] = byte(r.Uint32())
		}
		h.feed(in, 1+r.IntN(2000))
	}
}

func FuzzConnection(f *testing.F) {
	f.Add(sample(false), 0)
	f.Add(sample(true), 100)
	f.Fuzz(func(t *testing.T, in []byte, chunk int) {
		h := sampleHarness(t)
		h.disk.data = h.disk.data[:64<<10]
		h.feed(in, max(chunk%1000, 0))
	})
}

// TestDisconnectWhileExecuting checks that a connection may end while commands
// are with the device or wait for data, and that their ends find their way.
func TestDisconnectWhileExecuting(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.connect(options{})
	h.disk.hold = func(*nvme.Request) bool { return true }
	c.command(rw(opWrite, 0, 8, wirenvme.SGLOffset), pattern(4096))
	c.command(rw(opRead, 0, 8, wirenvme.SGLTransport), nil)
	c.command(rw(opWrite, 0, 800, wirenvme.SGLTransport), nil)
	c.expect(wire.TypeR2T)
	settle(t, "execution", func() bool { return len(h.disk.executed()) == 3 })
	c.nc.Close()
	settle(t, "the end of the connection", func() bool { return len(h.server.Connections()) == 0 })
}

// TestBadInitialization checks every field of ICReq that can be wrong (NVMe/TCP 1.0 §3.1, §3.5, §3.6.2.2).
func TestBadInitialization(t *testing.T) {
	h := newHarness(t, Config{})
	ic := func(poke func(wire.PDU)) []byte {
		p := make(wire.PDU, wire.ICSize)
		(&wire.ICReq{}).Put(p)
		poke(p)
		return p
	}
	first := func(f wire.Fields) []byte { return (&wire.Sender{}).Append(nil, f, nil) }
	for name, c := range map[string]struct {
		in   []byte
		want wire.Fault
	}{
		"HTTP":           {[]byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"), wire.Invalid(wire.OffType)},
		"wrong way":      {first(&wire.ICResp{}), wire.Invalid(wire.OffType)},
		"command first":  {first(&wire.CapsuleCmd{}), wire.Fault{Status: wire.StatusSequence}},
		"data first":     {first(&wire.H2CData{}), wire.Fault{Status: wire.StatusSequence}},
		"HLEN":           {ic(func(p wire.PDU) { p[wire.OffHLEN] = 127 }), wire.Invalid(wire.OffHLEN)},
		"PLEN":           {ic(func(p wire.PDU) { p[wire.OffPLEN+3] = 1 }), wire.Invalid(wire.OffPLEN)},
		"format version": {ic(func(p wire.PDU) { p[wire.OffPFV] = 1 }), wire.Fault{Status: wire.StatusUnsupported, Info: wire.OffPFV}},
		"HPDA":           {ic(func(p wire.PDU) { p[wire.OffPDA] = 32 }), wire.Invalid(wire.OffPDA)},
	} {
		t.Run(name, func(t *testing.T) {
			d := h.dial()
			d.t = t
			d.recv.Host = true
			d.write(c.in)
			d.term(c.want)
		})
	}
}

// TestBadPDU checks that each field lied about gets the termination request
// with its status and information, and costs nobody else anything (NVMe/TCP 1.0
// §3.5, §3.6.2.1, §3.6.2.5, §3.6.2.6, §3.6.2.8).
func TestBadPDU(t *testing.T) {
	h := newHarness(t, Config{MaxH2CData: 8192})
	other := h.connect(options{})
	flush := &wire.CapsuleCmd{SQE: rw(opFlush, 0, 1, 0)}
	sequence := wire.Fault{Status: wire.StatusSequence}
	outOfRange := wire.Fault{Status: wire.StatusOutOfRange}
	type input struct {
		digests bool
		in      func(s *wire.Sender, r wire.PDU) []byte
		want    wire.Fault
	}
	capsule := func(n int, poke func(wire.PDU)) func(*wire.Sender, wire.PDU) []byte {
		return func(s *wire.Sender, _ wire.PDU) []byte {
			p := s.Append(nil, flush, make([]byte, n))
			poke(p)
			return p
		}
	}
	h2c := func(change func(f *wire.H2CData)) func(*wire.Sender, wire.PDU) []byte {
		return func(s *wire.Sender, r wire.PDU) []byte {
			f := &wire.H2CData{CommandID: r.CommandID(), TransferTag: r.TransferTag(), Offset: r.Offset(), Count: 1000}
			n := 1000
			if change != nil {
				change(f)
				n = min(int(f.Count), 20_000)
			}
			return s.Append(nil, f, make([]byte, n))
		}
	}
	for name, c := range map[string]input{
		"unknown type":          {false, capsule(0, func(p wire.PDU) { p[0] = 0x0B }), wire.Invalid(wire.OffType)},
		"controller's PDU":      {false, func(s *wire.Sender, _ wire.PDU) []byte { return s.Append(nil, &wire.CapsuleResp{}, nil) }, wire.Invalid(wire.OffType)},
		"second ICReq":          {false, func(s *wire.Sender, _ wire.PDU) []byte { return s.Append(nil, &wire.ICReq{}, nil) }, sequence},
		"header digest missing": {true, capsule(0, func(p wire.PDU) { p[1] = 0 }), wire.Invalid(wire.OffFlags)},
		"header digest unasked": {false, capsule(0, func(p wire.PDU) { p[1] = 1 }), wire.Invalid(wire.OffFlags)},
		"header digest wrong":   {true, capsule(0, func(p wire.PDU) { binary.LittleEndian.PutUint32(p[72:], 0x01020304) }), wire.Fault{Status: wire.StatusHeaderDigest, Info: 0x01020304}},
		"data digest missing":   {true, capsule(16, func(p wire.PDU) { p[1] = 1 }), wire.Invalid(wire.OffFlags)},
		"HLEN":                  {false, capsule(0, func(p wire.PDU) { p[2] = 80 }), wire.Invalid(wire.OffHLEN)},
		"PDO":                   {false, capsule(16, func(p wire.PDU) { p[3] = 73 }), wire.Invalid(wire.OffPDO)},
		"PLEN short":            {false, capsule(0, func(p wire.PDU) { p[4] = 71 }), wire.Invalid(wire.OffPLEN)},
		"PLEN long":             {false, capsule(16, func(p wire.PDU) { p[7] = 0xFF }), wire.Invalid(wire.OffPLEN)},
		"capsule too large":     {false, capsule(8193, func(wire.PDU) {}), wire.Invalid(wire.OffPLEN)},
		"unknown TTAG":          {false, h2c(func(f *wire.H2CData) { f.TransferTag = 0xFFFF }), wire.Invalid(wire.OffTTAG)},
		"TTAG of no R2T":        {false, h2c(func(f *wire.H2CData) { f.TransferTag++ }), wire.Invalid(wire.OffTTAG)},
		"TTAG of no write":      {false, h2c(func(f *wire.H2CData) { f.TransferTag ^= 1 << tagShift }), wire.Invalid(wire.OffTTAG)},
		"CCCID":                 {false, h2c(func(f *wire.H2CData) { f.CommandID++ }), wire.Invalid(wire.OffCCCID)},
		"DATAO":                 {false, h2c(func(f *wire.H2CData) { f.Offset = 4 }), outOfRange},
		"DATAO far":             {false, h2c(func(f *wire.H2CData) { f.Offset = 0xFFFFFFFF }), outOfRange},
		"LAST early":            {false, h2c(func(f *wire.H2CData) { f.Last = true }), wire.Invalid(wire.OffFlags)},
		"LAST missing":          {false, h2c(func(f *wire.H2CData) { f.Count = 8192 }), wire.Invalid(wire.OffFlags)},
		"more than MAXH2CDATA":  {false, h2c(func(f *wire.H2CData) { f.Count = 8196 }), wire.Fault{Status: wire.StatusLimitExceeded}},
		"DATAL": {false, func(s *wire.Sender, r wire.PDU) []byte {
			return s.Append(nil, &wire.H2CData{CommandID: r.CommandID(), TransferTag: r.TransferTag(), Count: 1001}, make([]byte, 1000))
		}, wire.Invalid(wire.OffPLEN)},
		"no data": {false, func(s *wire.Sender, r wire.PDU) []byte {
			return s.Append(nil, &wire.H2CData{CommandID: r.CommandID(), TransferTag: r.TransferTag()}, nil)
		}, wire.Invalid(wire.OffPLEN)},
		"beyond the R2T": {false, func(s *wire.Sender, r wire.PDU) []byte {
			in := s.Append(nil, &wire.H2CData{CommandID: r.CommandID(), TransferTag: r.TransferTag(), Count: 8000}, make([]byte, 8000))
			return s.Append(in, &wire.H2CData{CommandID: r.CommandID(), TransferTag: r.TransferTag(), Offset: 8000, Count: 512, Last: true}, make([]byte, 512))
		}, outOfRange},
		"R2T answered twice": {false, func(s *wire.Sender, r wire.PDU) []byte {
			f := &wire.H2CData{CommandID: r.CommandID(), TransferTag: r.TransferTag(), Count: 8192, Last: true}
			return s.Append(s.Append(nil, f, make([]byte, 8192)), f, make([]byte, 8192))
		}, wire.Invalid(wire.OffTTAG)},
	} {
		t.Run(name, func(t *testing.T) {
			d := h.connect(options{req: wire.ICReq{HeaderDigest: c.digests, DataDigest: c.digests}})
			d.t = t
			two := d.send.Append(d.send.Append(nil, flush, nil), flush, nil)
			d.write(two) // so that there are two tasks
			d.status(0)
			d.status(0)
			d.command(rw(opWrite, 0, 40, wirenvme.SGLTransport), nil)
			r, _ := d.expect(wire.TypeR2T)
			in := c.in(&d.send, r)
			d.write(in)
			if p := d.term(c.want); p != nil && name != "beyond the R2T" && name != "R2T answered twice" {
				if got := p[wire.TermReqSize:]; len(got) < wire.CommonSize || !bytes.HasPrefix(in, got) {
					t.Errorf("the header in error is % x, want % x", []byte(got), in[:24])
				}
			}
			other.command(rw(opFlush, 0, 1, 0), nil)
			other.status(0)
		})
	}
	other.nc.Close()
	settle(t, "the end of all connections", func() bool { return len(h.server.Connections()) == 0 })
}

// TestTermination checks that a host's termination request ends its connection
// without an answer, malformed ones too (NVMe/TCP 1.0 §3.5, §3.6.2.4).
func TestTermination(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.connect(options{req: wire.ICReq{HeaderDigest: true, DataDigest: true}})
	c.write(wire.AppendTerm(nil, &wire.H2CTermReq{Fault: wire.Fault{Status: wire.StatusHeaderDigest, Info: 7}}, make([]byte, 24)))
	if _, _, err := c.pdu(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
	c = h.connect(options{})
	bad := wire.AppendTerm(nil, &wire.H2CTermReq{}, nil)
	bad[wire.OffPLEN+1] = 9
	c.write(bad)
	if _, _, err := c.pdu(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

// TestTerminationAfterAnswers checks that what was answered before an error
// still arrives, with a host that goes on sending (NVMe/TCP 1.0 §3.5).
func TestTerminationAfterAnswers(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.connect(options{})
	var in []byte
	for i := range 20 {
		e := rw(opRead, 0, 128, wirenvme.SGLTransport)
		e.SetCID(uint16(i))
		in = c.send.Append(in, &wire.CapsuleCmd{SQE: e}, nil)
	}
	in = append(in, bytes.Repeat([]byte{0xFF}, 100_000)...)
	c.write(in)
	for range 20 {
		c.expect(wire.TypeC2HData)
		c.status(0)
	}
	c.term(wire.Invalid(wire.OffType))
}

func TestFaultText(t *testing.T) {
	for want, err := range map[string]error{
		"invalid PDU header field in R2T (information 0x4)":  newFault(wire.Invalid(wire.OffPLEN), wire.PDU{9, 0, 0, 0}),
		"PDU sequence error in CapsuleCmd (information 0x0)": newFault(wire.Fault{Status: wire.StatusSequence}, wire.PDU{4, 0, 72, 0}),
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}
