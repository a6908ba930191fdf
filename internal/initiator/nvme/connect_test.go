package nvme_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/internal/initiator/nvme"
	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// TestConnect checks what the host says in ICReq and Connect (NVMe/TCP 1.0 §3.6.2.2, NVMe Base 2.0 §6.3).
func TestConnect(t *testing.T) {
	d := newTarget(t)
	id := [16]byte{1, 2, 3}
	d.script = func(p *peer) {
		request := p.initialize()
		if request.Version() != 0 || request.Align() != 3 || request.MaxR2T() != 5 {
			p.must(fmt.Errorf("ICReq %x", []byte(request[:16])))
		}
		e, data := p.opcode(wire.FabricsCommand)
		name := func(off int) string {
			s, _, _ := bytes.Cut(data[off:off+256], []byte{0})
			return string(s)
		}
		if e.FabricsType() != wire.Connect || le.Uint16(e[40:]) != 0 || le.Uint16(e[42:]) != 0 || le.Uint16(e[44:]) != 31 || e[46] != 4 || e.CDW(12) != 1500 ||
			[16]byte(data) != id || le.Uint16(data[16:]) != 0xFFFF || name(256) != subsystem || name(512) != "nqn.2014-08.org.nvmexpress:uuid:01020300-0000-0000-0000-000000000000" {
			p.must(fmt.Errorf("Connect %x with %x", []byte(e), data))
		}
		p.size, p.noFlow, p.head = 32, true, 1
		p.respond(e, 0, controllerID)
		p.serve()
	}
	opts := d.options()
	opts.HostID, opts.Align, opts.MaxR2T, opts.KeepAlive = id, 3, 5, 1500*time.Millisecond
	c := d.connect(opts)
	if c.ID() != controllerID || c.HostID() != id || c.Identity().Serial != "serial" || c.Identity().Model != "model" || c.Identity().MaxTransfer != 1<<20 ||
		c.Identity().Subsystem != subsystem || c.Identity().Capsule != 8192 || !c.Identity().WriteCache {
		t.Errorf("%+v", c.Identity())
	}
	if capabilities, version := c.Capabilities(); capabilities&0xFFFF != 127 || version != wire.Version20 {
		t.Errorf("%x, %x", capabilities, version)
	}
	if err := c.Shutdown(d.context()); err != nil {
		t.Error(err)
	}
	if !errors.Is(c.Err(), nvme.ErrClosed) || !errors.Is(c.Admin().Err(), nvme.ErrClosed) {
		t.Error(c.Err(), c.Admin().Err())
	}
	<-c.Ended()
}

// TestConnectRefused checks Connects that fail, or are answered wrongly (NVMe Base 2.0 §6.3).
func TestConnectRefused(t *testing.T) {
	start := func(p *peer) wire.SQE {
		p.initialize()
		e, _ := p.opcode(wire.FabricsCommand)
		return e
	}
	response := func(change func(f *pdu.ICResp, h pdu.PDU)) func(p *peer) {
		return func(p *peer) {
			_, err := io.ReadFull(p.conn, make([]byte, pdu.ICSize))
			p.must(err)
			h := make(pdu.PDU, pdu.ICSize)
			f := pdu.ICResp{MaxH2CData: 4096}
			change(&f, h)
			f.Put(h)
			change(&f, h)
			p.write(h)
			p.drain()
		}
	}
	for name, c := range map[string]struct {
		want   error
		script func(p *peer)
	}{
		"refused":            {nil, func(p *peer) { p.respond(start(p), wire.ConnectInvalidHost.DNR()) }},
		"another controller": {nvme.ErrProtocol, func(p *peer) { e := start(p); p.noFlow = true; p.respond(e, 0, 9) }},
		"SQ head":            {nvme.ErrProtocol, func(p *peer) { e := start(p); p.head = 2; p.respond(e, 0, controllerID) }},
		"secure channel":     {nvme.ErrAuthentication, func(p *peer) { e := start(p); p.noFlow = true; p.respond(e, 0, controllerID|1<<18) }},
		"authentication":     {nvme.ErrAuthentication, func(p *peer) { e := start(p); p.noFlow = true; p.respond(e, 0, controllerID|1<<17) }},
		"version":            {nvme.ErrProtocol, response(func(f *pdu.ICResp, _ pdu.PDU) { f.Version = 1 })},
		"digests":            {nvme.ErrProtocol, response(func(f *pdu.ICResp, _ pdu.PDU) { f.HeaderDigest = true })},
		"small MAXH2CDATA":   {nvme.ErrProtocol, response(func(f *pdu.ICResp, _ pdu.PDU) { f.MaxH2CData = 4092 })},
		"odd MAXH2CDATA":     {nvme.ErrProtocol, response(func(f *pdu.ICResp, _ pdu.PDU) { f.MaxH2CData = 4098 })},
		"type":               {nvme.ErrProtocol, response(func(_ *pdu.ICResp, h pdu.PDU) { h[0] = 5 })},
		"length":             {nvme.ErrProtocol, response(func(_ *pdu.ICResp, h pdu.PDU) { h[4] = 127 })},
		"cut": {io.ErrUnexpectedEOF, func(p *peer) {
			_, _ = io.ReadFull(p.conn, make([]byte, 128))
			p.write([]byte{1, 0, 128, 0, 128, 0, 0, 0, 0})
		}},
		"nothing": {io.ErrUnexpectedEOF, func(p *peer) { _, _ = io.ReadFull(p.conn, make([]byte, 128)) }},
		"terminated": {nil, func(p *peer) {
			p.write(pdu.AppendTerm(nil, &pdu.C2HTermReq{Fault: pdu.Fault{Status: pdu.StatusUnsupported}}, make([]byte, 8)))
			p.drain()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t)
			d.script = c.script
			opts := d.options()
			opts.Controller = controllerID
			_, err := nvme.Dial(d.context(), "target:4420", opts)
			var terminated *nvme.TerminatedError
			switch {
			case c.want != nil:
				if !errors.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
			case name == "refused" && nvme.StatusOf(err) == wire.ConnectInvalidHost:
			case name == "terminated" && errors.As(err, &terminated) && terminated.Status == pdu.StatusUnsupported:
			default:
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestControllerStart checks controllers that do not come up as they should (NVMe Base 2.0 §3.5).
func TestControllerStart(t *testing.T) {
	property := func(offset uint32, answer func(p *peer, e wire.SQE)) func(*peer, wire.SQE, []byte) bool {
		return func(p *peer, e wire.SQE, _ []byte) bool {
			if e.Opcode() != wire.FabricsCommand || e.FabricsType() != wire.PropertyGet || e.CDW(11) != offset {
				return false
			}
			answer(p, e)
			return true
		}
	}
	identify := func(change func(d []byte)) func(*peer, wire.SQE, []byte) bool {
		return func(p *peer, e wire.SQE, _ []byte) bool {
			if e.Opcode() != wire.AdminIdentify {
				return false
			}
			data := identity(8192)
			change(data)
			p.in(e, data)
			return true
		}
	}
	for name, hook := range map[string]func(*peer, wire.SQE, []byte) bool{
		"never ready":  property(wire.PropertyCSTS, func(p *peer, e wire.SQE) { p.respond(e, 0, 0) }),
		"fatal status": property(wire.PropertyCSTS, func(p *peer, e wire.SQE) { p.respond(e, 0, wire.CSTSFatal) }),
		"wide value":   property(wire.PropertyVS, func(p *peer, e wire.SQE) { p.respond(e, 0, 1, 1) }),
		"no property":  property(wire.PropertyCAP, func(p *peer, e wire.SQE) { p.respond(e, wire.InvalidField) }),
		"no status":    property(wire.PropertyCSTS, func(p *peer, e wire.SQE) { p.respond(e, wire.InvalidField) }),
		"wrong id":     identify(func(d []byte) { d[78]++ }),
		"capsules":     identify(func(d []byte) { le.PutUint32(d[1792:], 3) }),
		"too few queues": func(p *peer, e wire.SQE, _ []byte) bool {
			return e.Opcode() == wire.AdminSetFeatures && answer(p, e, 0, 0)
		},
		"no queues": func(p *peer, e wire.SQE, _ []byte) bool {
			return e.Opcode() == wire.AdminSetFeatures && answer(p, e, wire.InvalidField)
		},
		"refuses to start": func(p *peer, e wire.SQE, _ []byte) bool {
			return e.Opcode() == wire.FabricsCommand && e.FabricsType() == wire.PropertySet && answer(p, e, wire.InvalidField)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t)
			d.hook = hook
			opts := d.options()
			opts.IOQueues = 2
			opts.After = soon
			if _, err := nvme.Dial(d.context(), "target:4420", opts); err == nil {
				t.Error("connected")
			}
		})
	}
}

// soon is a clock that runs fast.
func soon(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

func answer(p *peer, e wire.SQE, s wire.Status, result ...uint32) bool {
	p.respond(e, s, result...)
	return true
}

// TestSlowController checks that the host waits for CSTS.RDY and for the end of a shutdown (NVMe
// Base 2.0 §3.5.2, §3.6).
func TestSlowController(t *testing.T) {
	d := newTarget(t)
	polls := 0
	d.hook = func(p *peer, e wire.SQE, _ []byte) bool {
		if e.Opcode() != wire.FabricsCommand || e.FabricsType() != wire.PropertyGet || e.CDW(11) != wire.PropertyCSTS {
			return false
		}
		polls++
		switch {
		case polls <= 3:
			p.respond(e, 0, 0)
		case polls <= 5:
			p.respond(e, 0, wire.CSTSReady|wire.CSTSShutdownBusy)
		default:
			return false
		}
		return true
	}
	opts := d.options()
	opts.After = soon
	c := d.connect(opts)
	if err := c.Shutdown(d.context()); err != nil {
		t.Error(err)
	}
}

// TestBadOptions checks that what cannot be asked for is refused at once.
func TestBadOptions(t *testing.T) {
	d := newTarget(t)
	for name, change := range map[string]func(*nvme.Options){
		"no subsystem": func(o *nvme.Options) { o.Subsystem = "" },
		"long name":    func(o *nvme.Options) { o.HostNQN = strings.Repeat("n", 224) },
		"depth":        func(o *nvme.Options) { o.Depth = 1 },
		"admin depth":  func(o *nvme.Options) { o.AdminDepth = nvme.MaxDepth + 1 },
		"queues":       func(o *nvme.Options) { o.IOQueues = -1 },
		"alignment":    func(o *nvme.Options) { o.Align = 32 },
		"keep alive":   func(o *nvme.Options) { o.KeepAlive = time.Microsecond },
	} {
		opts := d.options()
		change(&opts)
		if _, err := nvme.Dial(t.Context(), "target:4420", opts); err == nil {
			t.Errorf("%s: connected", name)
		}
	}
	opts := d.options()
	opts.Dial = nil
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	if _, err := nvme.Dial(t.Context(), address, opts); err == nil {
		t.Error("connected to nobody")
	}
	d.script = func(p *peer) { p.drain() }
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := nvme.Dial(ctx, "target:4420", d.options()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
