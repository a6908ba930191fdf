package iscsi_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/initiator/iscsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// peer is the target's side of one connection, driven by a test's script. A
// script that meets what it does not expect panics with scriptError, which ends the connection.
type peer struct {
	conn         net.Conn
	statSN       uint32
	expCmdSN     uint32
	window       uint32 // commands that may be sent ahead
	isid         wire.ISID
	tsih         uint16
	headerDigest bool
	dataDigest   bool
	loginKeys    []wire.KeyValue // what the initiator sent
}

type scriptError struct{ error }

func (p *peer) must(err error) {
	if err != nil {
		panic(scriptError{err})
	}
}

// read returns the next PDU of the initiator, whose digests must be right.
func (p *peer) read() (wire.BHS, []byte) {
	h := make(wire.BHS, wire.HeaderSize)
	_, err := io.ReadFull(p.conn, h)
	p.must(err)
	l := h.Layout(p.headerDigest, p.dataDigest)
	all := make([]byte, l.Size)
	copy(all, h)
	_, err = io.ReadFull(p.conn, all[wire.HeaderSize:])
	p.must(err)
	if p.headerDigest && wire.Digest(all[:l.HeaderDigest]) != wire.GetDigest(all[l.HeaderDigest:]) {
		p.must(errors.New("wrong header digest"))
	}
	if p.dataDigest && h.DataLength() > 0 && wire.Digest(all[l.Data:l.DataDigest]) != wire.GetDigest(all[l.DataDigest:]) {
		p.must(errors.New("wrong data digest"))
	}
	if h.Opcode() != wire.OpDataOut && !h.Immediate() {
		if h.CmdSN() != p.expCmdSN {
			p.must(errors.New("wrong CmdSN"))
		}
		p.expCmdSN++
	}
	return wire.BHS(all[:l.HeaderDigest]), all[l.Data : l.Data+h.DataLength()]
}

// expect reads a PDU of the given kind.
func (p *peer) expect(op wire.Opcode) (wire.BHS, []byte) {
	h, data := p.read()
	if h.Opcode() != op {
		p.must(errors.New("got " + h.Opcode().String() + ", want " + op.String()))
	}
	return h, data
}

// numbers returns the numbers of a PDU that carries a status.
func (p *peer) numbers() wire.Numbers {
	n := p.now()
	p.statSN++
	return n
}

// now returns the numbers of a PDU without one.
func (p *peer) now() wire.Numbers {
	return wire.Numbers{StatSN: p.statSN, ExpCmdSN: p.expCmdSN, MaxCmdSN: p.expCmdSN + p.window - 1}
}

// pdu encodes a PDU with the digests in use.
func (p *peer) pdu(f wire.Fields, data []byte) []byte {
	plain := wire.AppendPDU(nil, f, data)
	var out []byte
	out = append(out, plain[:wire.HeaderSize]...)
	if p.headerDigest {
		var d [4]byte
		wire.PutDigest(d[:], wire.Digest(plain[:wire.HeaderSize]))
		out = append(out, d[:]...)
	}
	out = append(out, plain[wire.HeaderSize:]...)
	if p.dataDigest && len(data) > 0 {
		var d [4]byte
		wire.PutDigest(d[:], wire.Digest(plain[wire.HeaderSize:]))
		out = append(out, d[:]...)
	}
	return out
}

func (p *peer) send(f wire.Fields, data []byte) { p.write(p.pdu(f, data)) }

func (p *peer) write(b []byte) {
	_, err := p.conn.Write(b)
	p.must(err)
}

// good ends a command with GOOD.
func (p *peer) good(h wire.BHS) {
	p.send(&wire.SCSIResponse{ITT: h.ITT(), Numbers: p.numbers()}, nil)
}

// login takes one login request and answers it.
func (p *peer) answerLogin(transit bool, status wire.LoginStatus, pairs ...wire.KeyValue) wire.BHS {
	h, data := p.expect(wire.OpLogin)
	keys, err := wire.ParseText(data, 100)
	p.must(err)
	p.loginKeys = append(p.loginKeys, keys...)
	p.isid, p.expCmdSN = h.ISID(), h.CmdSN()
	var text []byte
	for _, kv := range pairs {
		text = wire.AppendText(text, kv.Key, kv.Value)
	}
	f := wire.LoginResponse{ISID: p.isid, ITT: h.ITT(), Numbers: p.numbers(), Status: status, Transit: transit, CSG: h.CSG()}
	if transit {
		if f.NSG = h.NSG(); f.NSG == wire.StageFullFeature {
			f.TSIH = p.tsih
		}
	}
	p.send(&f, text)
	return h
}

// login goes through a login without authentication that answers the
// operational keys with pairs.
func (p *peer) login(pairs ...wire.KeyValue) {
	p.answerLogin(true, wire.LoginSuccess, wire.KeyValue{Key: wire.KeyTargetPortalGroupTag, Value: "1"}, wire.KeyValue{Key: wire.KeyAuthMethod, Value: "None"})
	p.answerLogin(true, wire.LoginSuccess, pairs...)
	for _, kv := range pairs {
		switch kv.Key {
		case wire.KeyHeaderDigest:
			p.headerDigest = kv.Value == "CRC32C"
		case wire.KeyDataDigest:
			p.dataDigest = kv.Value == "CRC32C"
		}
	}
}

// drain reads until the initiator closes.
func (p *peer) drain() { _, _ = io.Copy(io.Discard, p.conn) }

// target runs scripts as a target: the n-th connection gets the n-th script.
type target struct {
	t       *testing.T
	mu      sync.Mutex
	scripts []func(*peer)
	group   sync.WaitGroup
	pipe    bool // connections that are no sockets
}

func newTarget(t *testing.T, scripts ...func(*peer)) *target {
	d := &target{t: t, scripts: scripts}
	t.Cleanup(d.group.Wait)
	return d
}

func (d *target) dial(context.Context, string) (net.Conn, error) {
	d.mu.Lock()
	if len(d.scripts) == 0 {
		d.mu.Unlock()
		return nil, errors.New("no more scripts")
	}
	script := d.scripts[0]
	d.scripts = d.scripts[1:]
	d.mu.Unlock()
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
			if e, ok := recover().(scriptError); ok && !errors.Is(e.error, net.ErrClosed) {
				d.t.Errorf("the initiator did not follow the script: %v", e.error)
			}
		}()
		script(&peer{conn: mine, statSN: 1000, window: 64, tsih: 7})
	})
	return theirs, nil
}

func (d *target) options() iscsi.Options {
	return iscsi.Options{Target: "iqn.2026-11.io.lintel:t", Dial: d.dial}
}

// session logs in to a target of scripts.
func (d *target) session(opts iscsi.Options) *iscsi.Session {
	d.t.Helper()
	s, err := iscsi.Dial(d.context(), "target:3260", opts)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { s.Close() })
	return s
}

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

func pairs(kv ...string) []wire.KeyValue {
	var out []wire.KeyValue
	for c := range slices.Chunk(kv, 2) {
		out = append(out, wire.KeyValue{Key: c[0], Value: c[1]})
	}
	return out
}

var digests = pairs(wire.KeyHeaderDigest, "CRC32C", wire.KeyDataDigest, "CRC32C")
