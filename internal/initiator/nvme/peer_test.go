package nvme_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/initiator/nvme"
	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

var le = binary.LittleEndian

// peer is the target's side of one connection, driven by a test's script. A
// script that meets what it does not expect panics with scriptError, which ends the connection.
type peer struct {
	conn   net.Conn
	target *target
	recv   pdu.Receiver
	send   pdu.Sender
	noFlow bool
	size   uint16
	head   uint16 // commands taken
	maxH2C uint32
	kato   uint32
	align  uint8 // CPDA
	hdgst  bool  // taken where offered
	ddgst  bool
	result uint32 // of Connect beside the controller id
	data   []byte // of Connect
}

type scriptError struct{ error }

func (e scriptError) Unwrap() error { return e.error }

func (p *peer) must(err error) {
	if err != nil {
		panic(scriptError{err})
	}
}

// read returns the next PDU of the host, which must be well formed.
func (p *peer) read() (pdu.PDU, []byte) {
	h := make(pdu.PDU, pdu.CommonSize)
	_, err := io.ReadFull(p.conn, h)
	p.must(err)
	l, bad := p.recv.Check(h)
	if bad.Bad() {
		p.must(fmt.Errorf("%v: %v at %d", h.Type(), bad.Status, bad.Info))
	}
	all := make(pdu.PDU, l.Size)
	copy(all, h)
	_, err = io.ReadFull(p.conn, all[pdu.CommonSize:])
	p.must(err)
	data := all[l.Data : l.Data+l.DataLength]
	if h.Type() != pdu.TypeH2CTermReq {
		if p.recv.HeaderDigest && pdu.Digest(all[:l.HeaderDigest]) != pdu.GetDigest(all[l.HeaderDigest:]) {
			p.must(errors.New("wrong header digest"))
		}
		if p.recv.DataDigest && l.DataLength > 0 && pdu.Digest(data) != pdu.GetDigest(all[l.Data+l.DataLength:]) {
			p.must(errors.New("wrong data digest"))
		}
	}
	if h.Type() == pdu.TypeCapsuleCmd && p.size > 0 {
		p.head = (p.head + 1) % p.size
	}
	return all, data
}

// command reads a command capsule.
func (p *peer) command() (wire.SQE, []byte) {
	h, data := p.expect(pdu.TypeCapsuleCmd)
	return wire.SQE(h.SQE()), data
}

// opcode reads a command capsule with a certain opcode.
func (p *peer) opcode(op uint8) (wire.SQE, []byte) {
	e, data := p.command()
	if e.Opcode() != op {
		p.must(fmt.Errorf("opcode %#02x instead of %#02x", e.Opcode(), op))
	}
	return e, data
}

func (p *peer) expect(t pdu.Type) (pdu.PDU, []byte) {
	h, data := p.read()
	if h.Type() != t {
		p.must(fmt.Errorf("got %v, want %v", h.Type(), t))
	}
	return h, data
}

// terminated expects the termination request that a broken PDU earns. The host may
// have sent a command before it saw that PDU.
func (p *peer) terminated(s pdu.Status) {
	h, _ := p.read()
	if h.Type() == pdu.TypeCapsuleCmd {
		h, _ = p.expect(pdu.TypeH2CTermReq)
	} else if h.Type() != pdu.TypeH2CTermReq {
		p.must(fmt.Errorf("got %v, want %v", h.Type(), pdu.TypeH2CTermReq))
	}
	if h.Status() != s {
		p.must(fmt.Errorf("terminated for %v instead of %v", h.Status(), s))
	}
	p.drain()
}

// drain reads until the host closes.
func (p *peer) drain() { _, _ = io.Copy(io.Discard, p.conn) }

func (p *peer) write(b []byte) {
	_, err := p.conn.Write(b)
	p.must(err)
}

func (p *peer) pdu(f pdu.Fields, data []byte) { p.write(p.send.Append(nil, f, data)) }

// respond ends a command.
func (p *peer) respond(e wire.SQE, s wire.Status, result ...uint32) {
	var r [2]uint32
	copy(r[:], result)
	head := p.head
	if p.noFlow {
		head = 0xFFFF
	}
	cqe := make(wire.CQE, wire.CQESize)
	cqe.Put(r, head, 0, e.CID(), s)
	p.pdu(&pdu.CapsuleResp{CQE: cqe}, nil)
}

// in sends all the data of a command and ends it.
func (p *peer) in(e wire.SQE, data []byte) {
	f := pdu.C2HData{Last: true, Success: p.noFlow, CommandID: e.CID(), Count: uint32(len(data))}
	p.pdu(&f, data)
	if !p.noFlow {
		p.respond(e, 0)
	}
}

func (p *peer) r2t(e wire.SQE, tag uint16, off, n int) {
	p.pdu(&pdu.R2T{CommandID: e.CID(), TransferTag: tag, Offset: uint32(off), Count: uint32(n)}, nil)
}

// initialize answers ICReq.
func (p *peer) initialize() pdu.PDU {
	request := make(pdu.PDU, pdu.ICSize)
	_, err := io.ReadFull(p.conn, request)
	p.must(err)
	header, data := request.Digests()
	header, data = header && p.hdgst, data && p.ddgst
	response := make(pdu.PDU, pdu.ICSize)
	f := pdu.ICResp{Align: p.align, HeaderDigest: header, DataDigest: data, MaxH2CData: p.maxH2C}
	f.Put(response)
	p.write(response)
	p.recv = pdu.Receiver{HeaderDigest: header, DataDigest: data, Align: pdu.AlignBytes(p.align)}
	p.send = pdu.Sender{HeaderDigest: header, DataDigest: data, Align: pdu.AlignBytes(request.Align())}
	return request
}

// accept initializes the connection and answers Connect.
func (p *peer) accept() wire.SQE {
	p.initialize()
	e, data := p.opcode(wire.FabricsCommand)
	if e.FabricsType() != wire.Connect || len(data) != 1024 {
		p.must(errors.New("no Connect"))
	}
	p.data, p.kato = data, e.CDW(12)
	p.size = le.Uint16(e[44:]) + 1
	p.noFlow = e[46]&4 != 0 && !p.target.keepFlow
	p.head = 1
	p.respond(e, 0, controllerID|p.result)
	return e
}

const (
	controllerID = 7
	subsystem    = "nqn.2026-11.io.lintel:test"
)

// admin serves the admin queue until the host closes.
func (p *peer) admin() {
	p.accept()
	p.serve()
}

func (p *peer) serve() {
	for {
		h, data := p.read()
		if h.Type() != pdu.TypeCapsuleCmd {
			p.must(fmt.Errorf("%v on the admin queue", h.Type()))
		}
		e := wire.SQE(h.SQE())
		if f := p.target.hook; f != nil && f(p, e, data) {
			continue
		}
		p.answer(e)
	}
}

// answer executes an admin command as a controller does that has nothing special.
func (p *peer) answer(e wire.SQE) {
	switch op := e.Opcode(); {
	case op == wire.FabricsCommand && e.FabricsType() == wire.PropertyGet:
		switch e.CDW(11) {
		case wire.PropertyCAP:
			p.respond(e, 0, 127|2<<24, 0)
		case wire.PropertyVS:
			p.respond(e, 0, wire.Version20)
		case wire.PropertyCSTS:
			p.respond(e, 0, p.target.status)
		}
	case op == wire.FabricsCommand && e.FabricsType() == wire.PropertySet:
		if e.CDW(12)&wire.CCEnable != 0 {
			p.target.status |= wire.CSTSReady
		}
		if e.CDW(12)&wire.CCShutdownMask != 0 {
			p.target.status |= wire.CSTSShutdownDone
		}
		p.respond(e, 0)
	case op == wire.AdminIdentify && uint8(e.CDW(10)) == wire.CNSController:
		p.in(e, identity(p.target.capsule))
	case op == wire.AdminSetFeatures && uint8(e.CDW(10)) == wire.FeatureQueues:
		p.respond(e, 0, e.CDW(11))
	case op == wire.AdminSetFeatures, op == wire.AdminKeepAlive:
		p.respond(e, 0)
	case op == wire.AdminAsyncEvent:
	default:
		p.respond(e, wire.InvalidOpcode)
	}
}

func identity(capsule int) []byte {
	d := make([]byte, 4096)
	copy(d[4:], "serial              ")
	copy(d[24:], "model")
	copy(d[768:], subsystem)
	le.PutUint16(d[78:], controllerID)
	le.PutUint32(d[92:], 0x900)
	d[77], d[111], d[259], d[525] = 8, 1, 1, 1
	le.PutUint32(d[1792:], uint32(capsule+64)/16)
	return d
}

// target runs scripts as a target: the admin connection is served, the n-th of the others
// gets the n-th script.
type target struct {
	t        *testing.T
	hook     func(p *peer, e wire.SQE, data []byte) bool // takes admin commands before they are answered
	script   func(*peer)                                 // of the admin connection
	setup    func(*peer)                                 // of every connection
	scripts  []func(*peer)
	keepFlow bool
	pipe     bool // connections that are no sockets
	capsule  int  // in-capsule data
	status   uint32

	mu    sync.Mutex
	dials int
	group sync.WaitGroup
}

func newTarget(t *testing.T, scripts ...func(*peer)) *target {
	d := &target{t: t, scripts: scripts, capsule: 8192}
	t.Cleanup(d.group.Wait)
	return d
}

func (d *target) dial(context.Context, string) (net.Conn, error) {
	d.mu.Lock()
	n := d.dials
	d.dials++
	d.mu.Unlock()
	script := d.script
	switch {
	case n == 0 && script == nil:
		script = (*peer).admin
	case n > len(d.scripts):
		return nil, errors.New("no more scripts")
	case n > 0:
		inner := d.scripts[n-1]
		script = func(p *peer) {
			p.accept()
			inner(p)
		}
	}
	var mine, theirs net.Conn
	if d.pipe {
		mine, theirs = net.Pipe()
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		if theirs, err = net.Dial("tcp", l.Addr().String()); err != nil {
			return nil, err
		}
		if mine, err = l.Accept(); err != nil {
			return nil, err
		}
	}
	d.group.Go(func() {
		defer mine.Close()
		defer func() {
			e := recover()
			if s, ok := e.(scriptError); ok && (errors.Is(s, io.EOF) || errors.Is(s, io.ErrUnexpectedEOF) || errors.Is(s, io.ErrClosedPipe) || errors.As(s.error, new(*net.OpError))) {
				return // the host has left
			}
			if e != nil {
				d.t.Errorf("connection %d: the host did not follow the script: %v", n, e)
			}
		}()
		p := &peer{conn: mine, target: d, maxH2C: 1 << 17}
		if d.setup != nil {
			d.setup(p)
		}
		script(p)
	})
	return theirs, nil
}

func (d *target) options() nvme.Options {
	return nvme.Options{Subsystem: subsystem, Dial: d.dial, IOQueues: len(d.scripts), Depth: 16}
}

// connect connects to a target of scripts.
func (d *target) connect(opts nvme.Options) *nvme.Controller {
	d.t.Helper()
	c, err := nvme.Dial(d.context(), "target:4420", opts)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

// queue connects and returns the first I/O queue.
func (d *target) queue() *nvme.Queue { return d.connect(d.options()).Queues()[0] }

func (d *target) context() context.Context {
	ctx, cancel := context.WithTimeout(d.t.Context(), 20*time.Second)
	d.t.Cleanup(cancel)
	return ctx
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}
