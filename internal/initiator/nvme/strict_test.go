package nvme_test

import (
	"errors"
	"io"
	"testing"

	"lintel.io/lintel/internal/initiator/nvme"
	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// TestBrokenTarget checks that every way in which a target can break the transport is
// noticed, ends the queue, and is told in a termination request (NVMe/TCP 1.0 §3.5).
func TestBrokenTarget(t *testing.T) {
	read := func(p *peer) wire.SQE {
		e, _ := p.opcode(wire.Read)
		return e
	}
	data := func(p *peer, f pdu.C2HData, n int) { p.pdu(&f, make([]byte, n)) }
	for name, c := range map[string]struct {
		flow   bool
		status pdu.Status // of the termination request, 0 for none
		script func(p *peer)
	}{
		"unknown type":   {status: pdu.StatusInvalidHeader, script: func(p *peer) { p.write([]byte{0x55, 0, 8, 0, 8, 0, 0, 0}) }},
		"a host's PDU":   {status: pdu.StatusInvalidHeader, script: func(p *peer) { p.pdu(&pdu.CapsuleCmd{}, nil) }},
		"second ICResp":  {status: pdu.StatusSequence, script: func(p *peer) { h := make(pdu.PDU, 128); (&pdu.ICResp{}).Put(h); p.write(h) }},
		"header length":  {status: pdu.StatusInvalidHeader, script: func(p *peer) { p.write([]byte{0x05, 0, 25, 0, 24, 0, 0, 0}) }},
		"length":         {status: pdu.StatusInvalidHeader, script: func(p *peer) { p.write([]byte{0x05, 0, 24, 0, 25, 0, 0, 0}) }},
		"digest flag":    {status: pdu.StatusInvalidHeader, script: func(p *peer) { p.write([]byte{0x05, 1, 24, 0, 28, 0, 0, 0}) }},
		"unknown id":     {status: pdu.StatusInvalidHeader, script: func(p *peer) { e := read(p); e.SetCID(e.CID() + 1); p.respond(e, 0) }},
		"id used before": {status: pdu.StatusInvalidHeader, script: func(p *peer) { e := read(p); e.SetCID(e.CID() ^ 0x1000); p.in(e, make([]byte, 4096)) }},
		"two responses": {status: pdu.StatusInvalidHeader, script: func(p *peer) {
			e := read(p)
			p.respond(e, wire.InvalidField)
			p.respond(e, wire.InvalidField)
		}},
		"too much data":   {status: pdu.StatusOutOfRange, script: func(p *peer) { data(p, pdu.C2HData{CommandID: read(p).CID(), Count: 8192}, 8192) }},
		"data behind end": {status: pdu.StatusOutOfRange, script: func(p *peer) { data(p, pdu.C2HData{CommandID: read(p).CID(), Offset: 4095, Count: 4}, 4) }},
		"data with a gap": {status: pdu.StatusOutOfRange, script: func(p *peer) { data(p, pdu.C2HData{CommandID: read(p).CID(), Offset: 512, Count: 512}, 512) }},
		"data twice": {status: pdu.StatusOutOfRange, script: func(p *peer) {
			e := read(p)
			data(p, pdu.C2HData{CommandID: e.CID(), Count: 512}, 512)
			data(p, pdu.C2HData{CommandID: e.CID(), Count: 512}, 512)
		}},
		"data after the last": {status: pdu.StatusOutOfRange, script: func(p *peer) {
			e := read(p)
			data(p, pdu.C2HData{CommandID: e.CID(), Count: 512, Last: true}, 512)
			data(p, pdu.C2HData{CommandID: e.CID(), Offset: 512, Count: 512}, 512)
		}},
		"DATAL":   {status: pdu.StatusInvalidHeader, script: func(p *peer) { data(p, pdu.C2HData{CommandID: read(p).CID(), Count: 500}, 512) }},
		"no data": {status: pdu.StatusInvalidHeader, script: func(p *peer) { data(p, pdu.C2HData{CommandID: read(p).CID()}, 0) }},
		"early SUCCESS": {status: pdu.StatusInvalidHeader, script: func(p *peer) {
			data(p, pdu.C2HData{CommandID: read(p).CID(), Count: 512, Last: true, Success: true}, 512)
		}},
		"SUCCESS without LAST": {status: pdu.StatusInvalidHeader, script: func(p *peer) {
			data(p, pdu.C2HData{CommandID: read(p).CID(), Count: 4096, Success: true}, 4096)
		}},
		"SUCCESS with flow control": {flow: true, status: pdu.StatusInvalidHeader, script: func(p *peer) {
			data(p, pdu.C2HData{CommandID: read(p).CID(), Count: 4096, Last: true, Success: true}, 4096)
		}},
		"SUCCESS and response": {status: pdu.StatusInvalidHeader, script: func(p *peer) {
			e := read(p)
			p.in(e, make([]byte, 4096))
			p.respond(e, 0)
		}},
		"success without data": {status: pdu.StatusSequence, script: func(p *peer) { p.respond(read(p), 0) }},
		"success without LAST": {status: pdu.StatusSequence, script: func(p *peer) {
			e := read(p)
			data(p, pdu.C2HData{CommandID: e.CID(), Count: 4096}, 4096)
			p.respond(e, 0)
		}},
		"R2T of a read":  {status: pdu.StatusOutOfRange, script: func(p *peer) { p.r2t(read(p), 0, 0, 512) }},
		"SQ head ahead":  {flow: true, status: pdu.StatusInvalidHeader, script: func(p *peer) { e := read(p); p.head += 3; p.respond(e, wire.InvalidField) }},
		"SQ head behind": {flow: true, status: pdu.StatusInvalidHeader, script: func(p *peer) { e := read(p); p.head = p.size - 1; p.respond(e, wire.InvalidField) }},
		"SQ head beyond": {flow: true, status: pdu.StatusInvalidHeader, script: func(p *peer) { e := read(p); p.head = p.size; p.respond(e, wire.InvalidField) }},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t, func(p *peer) {
				c.script(p)
				p.terminated(c.status)
			})
			d.keepFlow = c.flow
			q := d.queue()
			err := q.Read(t.Context(), 1, 0, 512, make([]byte, 4096))
			if err == nil || name == "two responses" {
				<-q.Ended()
				err = q.Err()
			}
			if !errors.Is(err, nvme.ErrProtocol) {
				t.Errorf("got %v", err)
			}
			if err := q.Flush(t.Context(), 1); err == nil {
				t.Error("the queue lives on")
			}
		})
	}
}

// TestBrokenR2T checks R2Ts that ask for the wrong data (NVMe/TCP 1.0 §3.6.2.10).
func TestBrokenR2T(t *testing.T) {
	const n = 65536
	for name, c := range map[string]struct {
		status pdu.Status
		script func(p *peer, e wire.SQE)
	}{
		"behind the end": {pdu.StatusOutOfRange, func(p *peer, e wire.SQE) { p.r2t(e, 0, 0, n+4) }},
		"nothing":        {pdu.StatusOutOfRange, func(p *peer, e wire.SQE) { p.r2t(e, 0, 0, 0) }},
		"with a gap":     {pdu.StatusOutOfRange, func(p *peer, e wire.SQE) { p.r2t(e, 0, 512, 512) }},
		"again": {pdu.StatusOutOfRange, func(p *peer, e wire.SQE) {
			p.r2t(e, 0, 0, 512)
			p.collect(e, 0, 0, 512)
			p.r2t(e, 0, 0, 512)
		}},
		"too many": {pdu.StatusLimitExceeded, func(p *peer, e wire.SQE) {
			p.write(append(p.send.Append(nil, &pdu.R2T{CommandID: e.CID(), Count: 512}, nil), p.send.Append(nil, &pdu.R2T{CommandID: e.CID(), Offset: 512, Count: 512}, nil)...))
		}},
		"too few": {pdu.StatusSequence, func(p *peer, e wire.SQE) {
			p.r2t(e, 0, 0, 512)
			p.collect(e, 0, 0, 512)
			p.respond(e, 0)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t, func(p *peer) {
				e, _ := p.opcode(wire.Write)
				c.script(p, e)
				for {
					h, _ := p.read()
					if h.Type() == pdu.TypeH2CTermReq {
						if h.Status() != c.status {
							p.must(errors.New(h.Status().String()))
						}
						p.drain()
						return
					}
				}
			})
			if err := d.queue().Write(t.Context(), 1, 0, 512, make([]byte, n), 0); !errors.Is(err, nvme.ErrProtocol) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestDigestErrors checks that damaged PDUs are noticed (NVMe/TCP 1.0 §3.3.1.1).
func TestDigestErrors(t *testing.T) {
	for name, at := range map[string]int{"header": 24, "data": -1, "streamed data": -1} {
		t.Run(name, func(t *testing.T) {
			n := 4096
			if name == "streamed data" {
				n = 1 << 20
			}
			d := newTarget(t, func(p *peer) {
				e, _ := p.opcode(wire.Read)
				b := p.send.Append(nil, &pdu.C2HData{CommandID: e.CID(), Count: uint32(n), Last: true}, make([]byte, n))
				b[(at+len(b))%len(b)] ^= 1
				p.write(b)
				if at > 0 {
					p.terminated(pdu.StatusHeaderDigest)
				}
				p.drain()
			})
			d.setup = func(p *peer) { p.hdgst, p.ddgst = true, true }
			opts := d.options()
			opts.HeaderDigest, opts.DataDigest = true, true
			if err := d.connect(opts).Queues()[0].Read(t.Context(), 1, 0, 512, make([]byte, n)); !errors.Is(err, nvme.ErrDigest) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestConnectionLost checks every way in which a target may end a connection (NVMe/TCP 1.0 §3.6.2.5).
func TestConnectionLost(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.opcode(wire.Read)
		p.write(pdu.AppendTerm(nil, &pdu.C2HTermReq{Fault: pdu.Fault{Status: pdu.StatusLimitExceeded, Info: 9}}, make([]byte, 72)))
	})
	err := d.queue().Read(t.Context(), 1, 0, 512, make([]byte, 4096))
	var terminated *nvme.TerminatedError
	if !errors.As(err, &terminated) || terminated.Status != pdu.StatusLimitExceeded || terminated.Info != 9 {
		t.Errorf("got %v", err)
	}
	for _, n := range []int{0, 1, 7, 8, 23, 24, 100} {
		d := newTarget(t, func(p *peer) {
			e, _ := p.opcode(wire.Read)
			p.write(p.send.Append(nil, &pdu.C2HData{CommandID: e.CID(), Count: 4096, Last: true}, make([]byte, 4096))[:n])
		})
		c := d.connect(d.options())
		if err := c.Queues()[0].Read(t.Context(), 1, 0, 512, make([]byte, 4096)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: got %v", n, err)
		}
		if c.Err() != nil {
			t.Error("an I/O queue took the association with it")
		}
	}
}
