package iscsi

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testInitiator = "iqn.2026-11.io.lintel.test:initiator"
	testTarget    = "iqn.2026-11.io.lintel:array"
)

// disk is a Nexus with one LUN of memory: it knows TEST UNIT READY, READ(10)
// and WRITE(10) with blocks of 512 bytes.
type disk struct {
	mu      sync.Mutex
	data    []byte
	hold    func(t *scsi.Task) bool // keeps a command instead of running it
	held    []*scsi.Task
	done    []uint64 // tags in order of execution
	closed  bool
	closing func() // called before Close does anything
	tmf     []scsi.Function
}

func newDisk() *disk { return &disk{data: make([]byte, 16<<20)} }

func rw10(cdb []byte) (off, n int) {
	return int(binary.BigEndian.Uint32(cdb[2:])) * 512, int(binary.BigEndian.Uint16(cdb[7:])) * 512
}

func (d *disk) DataOutLength(t *scsi.Task) int {
	if t.CDB[0] == 0x2a {
		_, n := rw10(t.CDB)
		return n
	}
	return 0
}

func (d *disk) Execute(t *scsi.Task) {
	d.mu.Lock()
	d.done = append(d.done, t.Tag)
	if d.hold != nil && d.hold(t) {
		d.held = append(d.held, t)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	d.run(t)
}

func (d *disk) run(t *scsi.Task) {
	t.Status, t.SenseLen, t.DataIn, t.Aborted = scsi.StatusGood, 0, nil, false
	op := t.CDB[0]
	if op == 0x28 || op == 0x2a {
		if off, n := rw10(t.CDB); off+n > len(d.data) {
			op = 0xff
		}
	}
	switch op {
	case 0x00:
	case 0x28:
		off, n := rw10(t.CDB)
		t.DataIn = d.data[off : off+n]
	case 0x2a:
		off, n := rw10(t.CDB)
		if len(t.DataOut) < n {
			if len(t.DataOut)%512 != 0 {
				t.Status, t.SenseLen = scsi.StatusCheckCondition, 18
				copy(t.Sense[:], []byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x0e, 3})
			}
		}
		if t.Status == scsi.StatusGood {
			d.mu.Lock()
			copy(d.data[off:], t.DataOut)
			d.mu.Unlock()
		}
	default:
		t.Status, t.SenseLen = scsi.StatusCheckCondition, 18
		copy(t.Sense[:], []byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0})
	}
	t.Owner.TaskDone(t)
}

// letGo runs what was held.
func (d *disk) letGo() {
	d.mu.Lock()
	held := d.held
	d.held, d.hold = nil, nil
	d.mu.Unlock()
	for _, t := range held {
		d.run(t)
	}
}

func (d *disk) abort(match func(*scsi.Task) bool) int {
	d.mu.Lock()
	var ended, rest []*scsi.Task
	for _, t := range d.held {
		if match(t) {
			ended = append(ended, t)
		} else {
			rest = append(rest, t)
		}
	}
	d.held = rest
	d.mu.Unlock()
	for _, t := range ended {
		t.Aborted = true
		t.Owner.TaskDone(t)
	}
	return len(ended)
}

func (d *disk) Manage(f scsi.Function, lun, tag uint64, done func(scsi.Response)) {
	d.mu.Lock()
	d.tmf = append(d.tmf, f)
	d.mu.Unlock()
	if lun != 0 && f < scsi.TargetWarmReset {
		done(scsi.LUNDoesNotExist)
		return
	}
	switch f {
	case scsi.AbortTask:
		if d.abort(func(t *scsi.Task) bool { return t.Tag == tag }) == 0 {
			done(scsi.TaskDoesNotExist)
			return
		}
	case scsi.ClearACA:
		done(scsi.FunctionNotSupported)
		return
	default:
		d.abort(func(*scsi.Task) bool { return true })
	}
	done(scsi.FunctionComplete)
}

func (d *disk) Close(done func()) {
	if d.closing != nil {
		d.closing()
	}
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.abort(func(*scsi.Task) bool { return true })
	done()
}

// array is an Access for tests.
type array struct {
	mu      sync.Mutex
	disk    *disk
	grant   Grant
	refuse  error
	openErr error
	targets []TargetInfo
	opened  []SessionInfo
	decide  func(LoginRequest) (Grant, error) // instead of grant, where it is set
	opening func()                            // is called before a nexus is made
}

func newArray() *array {
	return &array{disk: newDisk(), targets: []TargetInfo{{Name: testTarget, Portals: []Portal{{netip.MustParseAddrPort("127.0.0.1:3260"), 1}}}}}
}

func (a *array) Targets(Peer) []TargetInfo { return a.targets }

func (a *array) Authorize(r LoginRequest) (Grant, error) {
	a.mu.Lock()
	decide := a.decide
	a.mu.Unlock()
	switch {
	case decide != nil:
		return decide(r)
	case a.refuse != nil:
		return Grant{}, a.refuse
	case !r.Discovery && r.Target != testTarget:
		return Grant{}, Refuse(wire.LoginNotFound, "no target %s", r.Target)
	}
	return a.grant, nil
}

// decideBy sets decide.
func (a *array) decideBy(f func(LoginRequest) (Grant, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.decide = f
}

// only lets in from each address on the terms given for it.
func (a *array) only(terms map[string]string) {
	a.decideBy(func(r LoginRequest) (Grant, error) {
		if m, ok := terms[r.Remote.Addr().String()]; ok {
			return Grant{Terms: m}, nil
		}
		return Grant{}, Refuse(wire.LoginForbidden, "nobody is let in from %s", r.Remote.Addr())
	})
}

func (a *array) Open(i SessionInfo) (Nexus, error) {
	if a.opening != nil {
		a.opening()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.openErr != nil {
		return nil, a.openErr
	}
	a.opened = append(a.opened, i)
	return a.disk, nil
}

// harness is a Server with in-memory connections.
type harness struct {
	t      testing.TB
	array  *array
	server *Server
	budget int64 // bytes free where nothing is under way
}

// harnesses counts those whose buffers may be in use.
var harnesses atomic.Int32

func newHarness(t testing.TB, cfg Config) *harness {
	h := &harness{t: t, array: newArray()}
	cfg.Access = h.array
	if os.Getenv("TESTLOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	h.server = NewServer(cfg)
	h.budget = h.server.budget.Free()
	harnesses.Add(1)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		h.server.Shutdown(ctx)
		if n := block.BuffersInUse(); harnesses.Add(-1) == 0 && n != 0 {
			t.Errorf("%d bytes of buffers are still in use", n)
		}
		if free := h.server.budget.Free(); free != h.budget {
			t.Errorf("the data budget has %d bytes free", free)
		}
	})
	return h
}

// pdu is what the client has received.
type pdu struct {
	wire.BHS
	data []byte
}

// client is a bare initiator: it sends exactly what it is told.
type client struct {
	t       testing.TB
	nc      net.Conn
	in      chan pdu
	hd, dd  bool
	itt     uint32
	cmdSN   uint32
	statSN  uint32 // next expected
	isid    wire.ISID
	tsih    uint16
	cid     uint16
	readErr error
}

func (h *harness) dial() *client {
	a, b := net.Pipe()
	h.server.accept(b, 1)
	return newClient(h.t, a)
}

// placed is a connection from an address.
type placed struct {
	net.Conn
	from string
}

func (p placed) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(p.from), 40000))
}

func (h *harness) dialFrom(address string) *client {
	a, b := net.Pipe()
	h.server.accept(placed{b, address}, 1)
	return newClient(h.t, a)
}

func newClient(t testing.TB, nc net.Conn) *client {
	c := &client{t: t, nc: nc, in: make(chan pdu, 1024), cmdSN: 100, isid: wire.RandomISID(1, 1)}
	t.Cleanup(func() { nc.Close() })
	return c
}

// receive starts taking PDUs from the connection.
func (c *client) receive() {
	go func() {
		defer close(c.in)
		for {
			p, err := c.readPDU()
			if err != nil {
				c.readErr = err
				return
			}
			c.in <- p
		}
	}()
}

func (c *client) readPDU() (pdu, error) {
	h := make(wire.BHS, wire.HeaderSize)
	if _, err := io.ReadFull(c.nc, h); err != nil {
		return pdu{}, err
	}
	l := h.Layout(c.hd, c.dd)
	rest := make([]byte, l.Size-wire.HeaderSize)
	if _, err := io.ReadFull(c.nc, rest); err != nil {
		return pdu{}, err
	}
	if c.hd && wire.GetDigest(rest[l.HeaderDigest-wire.HeaderSize:]) != wire.Digest(h) {
		c.t.Errorf("%s has a wrong header digest", h.Opcode())
	}
	data := rest[l.Data-wire.HeaderSize : l.DataDigest-wire.HeaderSize]
	if c.dd && len(data) > 0 && wire.GetDigest(rest[l.DataDigest-wire.HeaderSize:]) != wire.Digest(data) {
		c.t.Errorf("%s has a wrong data digest", h.Opcode())
	}
	return pdu{h, data[:h.DataLength()]}, nil
}

// recv returns the next PDU, which has to be of the given kind.
func (c *client) recv(op wire.Opcode) pdu {
	c.t.Helper()
	select {
	case p, ok := <-c.in:
		if !ok {
			c.t.Fatalf("connection ended (%v), want %s", c.readErr, op)
		}
		if p.Opcode() != op {
			c.t.Fatalf("got %s % x, want %s", p.Opcode(), p.BHS, op)
		}
		return p
	case <-time.After(20 * time.Second):
		c.t.Fatalf("no answer, want %s", op)
	}
	panic("unreachable")
}

// ended waits for the end of the connection.
func (c *client) ended() {
	c.t.Helper()
	for {
		select {
		case p, ok := <-c.in:
			if !ok {
				return
			}
			c.t.Logf("before the end: %s", p.Opcode())
		case <-time.After(20 * time.Second):
			c.t.Fatal("connection goes on")
		}
	}
}

// bytes encodes a PDU with the digests in use.
func (c *client) bytes(f wire.Fields, ahs, data []byte) []byte {
	out := make([]byte, wire.HeaderSize, wire.HeaderSize+len(ahs)+len(data)+16)
	b := wire.BHS(out)
	f.Put(b)
	b.SetAHSLength(len(ahs))
	b.SetDataLength(len(data))
	out = append(out, ahs...)
	if c.hd {
		out = binary.LittleEndian.AppendUint32(out, wire.Digest(out))
	}
	at := len(out)
	out = append(out, data...)
	out = append(out, make([]byte, wire.Pad(len(data))-len(data))...)
	if c.dd && len(data) > 0 {
		out = binary.LittleEndian.AppendUint32(out, wire.Digest(out[at:]))
	}
	return out
}

func (c *client) write(b []byte) {
	c.t.Helper()
	_, _ = c.nc.Write(b) // the end of a connection shows where PDUs are received
}

func (c *client) send(f wire.Fields, data []byte) {
	c.t.Helper()
	c.write(c.bytes(f, nil, data))
}

// text makes text of key=value lines.
func text(pairs ...string) []byte {
	var out []byte
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		out = wire.AppendText(out, k, v)
	}
	return out
}

// loginPDU sends one login request and returns the answer.
func (c *client) loginPDU(csg, nsg wire.Stage, transit bool, pairs ...string) pdu {
	c.t.Helper()
	go c.send(&wire.Login{Transit: transit, CSG: csg, NSG: nsg, ISID: c.isid, TSIH: c.tsih, CID: c.cid, ITT: 1, CmdSN: c.cmdSN}, text(pairs...))
	p, err := c.readPDU()
	if err != nil {
		c.t.Fatalf("login: %v", err)
	}
	c.statSN = p.StatSN() + 1
	return p
}

func normal(more ...string) []string {
	return append([]string{"InitiatorName=" + testInitiator, "TargetName=" + testTarget, "SessionType=Normal"}, more...)
}

// login brings the connection to full feature phase with the given keys.
func (c *client) login(keys ...string) pdu {
	c.t.Helper()
	p := c.loginPDU(wire.StageOperational, wire.StageFullFeature, true, keys...)
	if p.LoginStatus() != wire.LoginSuccess || !p.Final() {
		c.t.Fatalf("login failed: %s", p.LoginStatus())
	}
	c.tsih = p.TSIH()
	pairs, err := wire.ParseText(p.data, 100)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, kv := range pairs {
		switch {
		case kv.Key == wire.KeyHeaderDigest && kv.Value == "CRC32C":
			c.hd = true
		case kv.Key == wire.KeyDataDigest && kv.Value == "CRC32C":
			c.dd = true
		}
	}
	c.receive()
	return p
}

func (h *harness) login(keys ...string) *client {
	h.t.Helper()
	c := h.dial()
	c.login(normal(keys...)...)
	return c
}

func cdb10(op byte, block, count int) []byte {
	b := make([]byte, 10)
	b[0] = op
	binary.BigEndian.PutUint32(b[2:], uint32(block))
	binary.BigEndian.PutUint16(b[7:], uint16(count))
	return b
}

func (c *client) next() (itt, cmdSN uint32) {
	c.itt++
	cmdSN = c.cmdSN
	c.cmdSN++
	return c.itt, cmdSN
}

// read sends READ(10) and returns its task tag.
func (c *client) read(block, count int) uint32 {
	itt, sn := c.next()
	c.send(&wire.SCSICommand{Final: true, Read: true, ITT: itt, ExpectedLength: uint32(count * 512), CmdSN: sn, CDB: cdb10(0x28, block, count)}, nil)
	return itt
}

// writeCmd sends WRITE(10) with immediate data.
func (c *client) writeCmd(block, count int, final bool, immediate []byte) uint32 {
	itt, sn := c.next()
	c.send(&wire.SCSICommand{Final: final, Write: true, ITT: itt, ExpectedLength: uint32(count * 512), CmdSN: sn, CDB: cdb10(0x2a, block, count)}, immediate)
	return itt
}

func (c *client) tur() uint32 {
	itt, sn := c.next()
	c.send(&wire.SCSICommand{Final: true, ITT: itt, CmdSN: sn, CDB: make([]byte, 6)}, nil)
	return itt
}

// good takes a SCSI Response with GOOD for the task.
func (c *client) good(itt uint32) pdu {
	c.t.Helper()
	p := c.recv(wire.OpSCSIResponse)
	if p.ITT() != itt || p.Status() != 0 {
		c.t.Fatalf("response of %d with status %#x, want GOOD of %d", p.ITT(), p.Status(), itt)
	}
	return p
}

// sense takes a SCSI Response with CHECK CONDITION and returns key and code.
func (c *client) sense(itt uint32) (key byte, code uint16) {
	c.t.Helper()
	p := c.recv(wire.OpSCSIResponse)
	if p.ITT() != itt || p.Status() != 2 || len(p.data) < 2+14 {
		c.t.Fatalf("response of %d with status %#x, want CHECK CONDITION of %d", p.ITT(), p.Status(), itt)
	}
	s := p.data[2:]
	return s[2], binary.BigEndian.Uint16(s[12:])
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/512)
	}
	return b
}

func itoa(n int) string { return strconv.Itoa(n) }
