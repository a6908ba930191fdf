package nvmetcp

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	opFlush, opWrite, opRead = 0x00, 0x01, 0x02
	opResult                 = 0xC2 // succeeds with data and a result
	opEcho                   = 0xC1 // takes as many bytes as its SGL says and throws them away
)

// disk is memory that the queues of a harness share: blocks of 512 bytes.
type disk struct {
	mu      sync.Mutex
	data    []byte
	hold    func(*nvme.Request) bool // keeps a command instead of running it
	held    []*nvme.Request
	order   []uint16 // command identifiers in order of execution
	refused []wirenvme.Status
	queues  []*queue
	quiet   bool // keeps no record
	hang    bool // Close does not end
}

// queue is a Queue with a minimal controller behind it.
type queue struct {
	d      *disk
	cfg    nvme.QueueConfig
	mu     sync.Mutex
	depth  int
	flow   bool
	id     uint16
	closed bool
	done   func()
}

func (q *queue) Depth() int        { q.mu.Lock(); defer q.mu.Unlock(); return q.depth }
func (q *queue) FlowControl() bool { q.mu.Lock(); defer q.mu.Unlock(); return q.flow }
func (q *queue) ID() uint16        { q.mu.Lock(); defer q.mu.Unlock(); return q.id }

func span(e wirenvme.SQE) (off, n int) { return int(min(e.SLBA(), 1<<40)) * 512, int(e.NLB()) * 512 }

func (q *queue) DataOutLength(r *nvme.Request) int {
	_, n, _ := r.SQE.SGL()
	switch r.SQE.Opcode() {
	case wirenvme.FabricsCommand:
		return 1024
	case opWrite:
		_, n := span(r.SQE)
		return n
	case opEcho:
		return int(n)
	}
	return 0
}

func (q *queue) Execute(r *nvme.Request) {
	d := q.d
	if !d.quiet {
		d.mu.Lock()
		d.order = append(d.order, r.SQE.CID())
		if r.Refuse != 0 {
			d.refused = append(d.refused, r.Refuse)
		}
		if d.hold != nil && d.hold(r) {
			d.held = append(d.held, r)
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
	}
	q.run(r)
}

func (q *queue) run(r *nvme.Request) {
	d := q.d
	r.Status, r.Result, r.DataIn = r.Refuse, [2]uint32{}, nil
	switch op := r.SQE.Opcode(); {
	case r.Refuse != 0:
	case op == wirenvme.FabricsCommand:
		q.mu.Lock()
		q.id = binary.LittleEndian.Uint16(r.SQE[42:])
		q.depth = int(binary.LittleEndian.Uint16(r.SQE[44:])) + 1
		q.flow = r.SQE[46]&4 == 0
		q.mu.Unlock()
		r.Result[0] = 7 // CNTLID
	case op == opFlush, op == opEcho:
	case op == opRead:
		if off, n := span(r.SQE); off+n <= len(d.data) {
			r.DataIn = d.data[off : off+n]
		} else {
			r.Status = wirenvme.LBAOutOfRange.DNR()
		}
	case op == opResult:
		r.DataIn, r.Result = d.data[:100], [2]uint32{1, 2}
	case op == opWrite:
		if off, n := span(r.SQE); off+n <= len(d.data) {
			d.mu.Lock()
			copy(d.data[off:], r.DataOut)
			d.mu.Unlock()
		} else {
			r.Status = wirenvme.LBAOutOfRange.DNR()
		}
	default:
		r.Status = wirenvme.InvalidOpcode.DNR()
	}
	r.Owner.RequestDone(r)
}

func (q *queue) Close(done func()) {
	q.mu.Lock()
	if q.closed {
		panic("closed twice")
	}
	q.closed = true
	q.done = done
	q.mu.Unlock()
	if !q.d.hang {
		q.d.letGo(q)
		done()
	}
}

// letGo runs what was held, of one queue or of all.
func (d *disk) letGo(q *queue) {
	d.mu.Lock()
	var held, rest []*nvme.Request
	for _, r := range d.held {
		if q == nil || r.Owner.(*task).conn.queue == q {
			held = append(held, r)
		} else {
			rest = append(rest, r)
		}
	}
	d.held = rest
	if q == nil {
		d.hold = nil
	}
	d.mu.Unlock()
	for _, r := range held {
		r.Owner.(*task).conn.queue.(*queue).run(r)
	}
}

func (d *disk) executed() []uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]uint16(nil), d.order...)
}

type harness struct {
	t      testing.TB
	disk   *disk
	server *Server
	addr   string
}

func newHarness(t testing.TB, cfg Config) *harness {
	h := &harness{t: t, disk: &disk{data: make([]byte, 8<<20)}}
	if cfg.NewQueue == nil {
		cfg.NewQueue = h.newQueue
	}
	if cfg.TermTimeout == 0 {
		cfg.TermTimeout = 100 * time.Millisecond
	}
	h.server = NewServer(cfg)
	t.Cleanup(func() {
		if h.disk.hang {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := h.server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		settle(t, "buffers to come back", func() bool { return block.BuffersInUse() == 0 })
	})
	return h
}

func (h *harness) newQueue(cfg nvme.QueueConfig) Queue {
	q := &queue{d: h.disk, cfg: cfg, depth: 2, flow: true}
	h.disk.mu.Lock()
	h.disk.queues = append(h.disk.queues, q)
	h.disk.mu.Unlock()
	return q
}

// listen serves a loopback port.
func (h *harness) listen(network, addr string) {
	l, err := net.Listen(network, addr)
	if err != nil {
		h.t.Fatal(err)
	}
	h.addr = l.Addr().String()
	done := make(chan error, 1)
	go func() { done <- h.server.Serve(l, 3) }()
	h.t.Cleanup(func() {
		l.Close()
		<-done
	})
}

func settle(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// client is the host's end of a connection.
type client struct {
	t    testing.TB
	nc   net.Conn
	send wire.Sender
	recv wire.Receiver
	resp wire.PDU // the ICResp
	cid  uint16
}

func (h *harness) dial() *client {
	if h.addr == "" {
		h.listen("tcp", "127.0.0.1:0")
	}
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	h.t.Cleanup(func() { nc.Close() })
	return &client{t: h.t, nc: nc}
}

// options of a host's initialization.
type options struct {
	req       wire.ICReq
	depth     int // 32
	noFlow    bool
	id        uint16
	noConnect bool
}

func (h *harness) connect(o options) *client {
	c := h.dial()
	c.init(o)
	if !o.noConnect {
		c.connect(o)
	}
	return c
}

func (c *client) init(o options) {
	c.t.Helper()
	c.write((&wire.Sender{}).Append(nil, &o.req, nil))
	c.resp = make(wire.PDU, wire.ICSize)
	if _, err := io.ReadFull(c.nc, c.resp); err != nil {
		c.t.Fatal(err)
	}
	c.agree(o)
}

// agree takes over what was agreed on.
func (c *client) agree(o options) {
	header, data := c.resp.Digests()
	c.send = wire.Sender{HeaderDigest: header, DataDigest: data, Align: wire.AlignBytes(c.resp.Align())}
	c.recv = wire.Receiver{Host: true, HeaderDigest: header, DataDigest: data, Align: wire.AlignBytes(o.req.Align)}
}

func connectSQE(o options) wirenvme.SQE {
	e := make(wirenvme.SQE, wirenvme.SQESize)
	e.SetOpcode(wirenvme.FabricsCommand)
	e.SetFabricsType(wirenvme.Connect)
	e.SetSGL(0, 1024, wirenvme.SGLOffset)
	if o.depth == 0 {
		o.depth = 32
	}
	binary.LittleEndian.PutUint16(e[42:], o.id)
	binary.LittleEndian.PutUint16(e[44:], uint16(o.depth-1))
	if o.noFlow {
		e[46] = 4
	}
	return e
}

func (c *client) connect(o options) wirenvme.CQE {
	c.t.Helper()
	c.command(connectSQE(o), make([]byte, 1024))
	q := c.response()
	if !q.Status().OK() {
		c.t.Fatalf("Connect: %v", q.Status())
	}
	return q
}

func (c *client) write(p []byte) {
	c.t.Helper()
	if _, err := c.nc.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

// command sends a capsule and returns its command identifier.
func (c *client) command(e wirenvme.SQE, data []byte) uint16 {
	c.t.Helper()
	c.cid++
	e.SetCID(c.cid)
	c.write(c.send.Append(nil, &wire.CapsuleCmd{SQE: e}, data))
	return c.cid
}

// rw returns the entry of a read or write of blocks.
func rw(op uint8, lba, blocks int, kind uint8) wirenvme.SQE {
	e := make(wirenvme.SQE, wirenvme.SQESize)
	e.SetOpcode(op)
	e.SetNSID(1)
	e.SetCDW(10, uint32(lba))
	e.SetNLB(uint32(blocks))
	e.SetSGL(0, uint32(blocks*512), kind)
	return e
}

// pdu reads a PDU and checks its digests.
func (c *client) pdu() (wire.PDU, []byte, error) {
	p := make(wire.PDU, wire.CommonSize)
	if _, err := io.ReadFull(c.nc, p); err != nil {
		return nil, nil, err
	}
	l, f := c.recv.Check(p)
	if f.Bad() {
		c.t.Fatalf("% x: %+v", p, f)
	}
	p = append(p, make([]byte, l.Size-len(p))...)
	if _, err := io.ReadFull(c.nc, p[wire.CommonSize:]); err != nil {
		return nil, nil, err
	}
	if c.recv.HeaderDigest && p.Type() != wire.TypeC2HTermReq && wire.Digest(p[:l.HeaderDigest]) != wire.GetDigest(p[l.HeaderDigest:]) {
		c.t.Fatalf("wrong header digest: % x", p)
	}
	data := p[l.Data:][:l.DataLength]
	if c.recv.DataDigest && l.DataLength > 0 && p.Type() != wire.TypeC2HTermReq && wire.Digest(data) != wire.GetDigest(p[l.Data+l.DataLength:]) {
		c.t.Fatalf("wrong data digest: % x", p[:l.Data])
	}
	return p, data, nil
}

func (c *client) expect(want wire.Type) (wire.PDU, []byte) {
	c.t.Helper()
	p, data, err := c.pdu()
	if err != nil {
		c.t.Fatalf("%v instead of %s", err, want)
	}
	if p.Type() != want {
		c.t.Fatalf("%s (% x) instead of %s", p.Type(), p[:min(len(p), 24)], want)
	}
	return p, data
}

func (c *client) response() wirenvme.CQE {
	c.t.Helper()
	p, _ := c.expect(wire.TypeCapsuleResp)
	return wirenvme.CQE(p.CQE())
}

// status reads a response and expects a status.
func (c *client) status(want wirenvme.Status) {
	c.t.Helper()
	if got := c.response().Status(); got != want {
		c.t.Errorf("status %v, want %v", got, want)
	}
}

// answer sends the data that an R2T asks for, in PDUs of at most size bytes.
func (c *client) answer(r wire.PDU, data []byte, size int) {
	c.t.Helper()
	c.write(c.answerBytes(r, data, size))
}

func (c *client) answerBytes(r wire.PDU, data []byte, size int) []byte {
	var out []byte
	off, end := int(r.Offset()), int(r.Offset()+r.Count())
	for off < end {
		n := min(size, end-off)
		out = c.send.Append(out, &wire.H2CData{
			Last: off+n == end, CommandID: r.CommandID(), TransferTag: r.TransferTag(), Offset: uint32(off), Count: uint32(n),
		}, data[off:off+n])
		off += n
	}
	return out
}

// term expects a termination request and the end of the connection.
func (c *client) term(want wire.Fault) wire.PDU {
	c.t.Helper()
	for {
		p, _, err := c.pdu()
		if err != nil {
			c.t.Errorf("%v instead of a termination request with %+v", err, want)
			return nil
		}
		if p.Type() != wire.TypeC2HTermReq {
			continue
		}
		if got := (wire.Fault{Status: p.Status(), Info: p.Info()}); got != want {
			c.t.Errorf("terminated with %+v, want %+v", got, want)
		}
		if _, _, err := c.pdu(); !errors.Is(err, io.EOF) {
			c.t.Errorf("after the termination request: %v", err)
		}
		return p
	}
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8 + 1)
	}
	return p
}
