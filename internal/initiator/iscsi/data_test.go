package iscsi_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"lintel.io/lintel/internal/initiator/iscsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

var read6 = []byte{0x08, 0, 0, 0, 1, 0}

// fragments writes b in pieces of n bytes.
func (p *peer) fragments(b []byte, n int) {
	for len(b) > 0 {
		part := min(n, len(b))
		p.write(b[:part])
		b = b[part:]
	}
}

// TestDataIn checks SCSI Data-In with status, digests and any fragmentation (RFC 7143 §11.7).
func TestDataIn(t *testing.T) {
	for _, test := range []struct {
		size, pdu, fragment int
		digests, discard    bool
		pipe                bool
	}{
		{size: 512, pdu: 512, fragment: 1},
		{size: 512, pdu: 512, fragment: 1, digests: true},
		{size: 4097, pdu: 1000, fragment: 7, digests: true},
		{size: 4096, pdu: 4096, fragment: 1 << 20, pipe: true},
		{size: 1<<20 + 1, pdu: 256 << 10, fragment: 100_000},
		{size: 1<<20 + 3, pdu: 256 << 10, fragment: 64 << 10, digests: true},
		{size: 1<<20 + 2, pdu: 250_001, fragment: 1 << 20, digests: true, discard: true},
		{size: 1 << 20, pdu: 256 << 10, fragment: 33_333, discard: true, pipe: true},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			data := pattern(test.size)
			d := newTarget(t, func(p *peer) {
				if test.digests {
					p.login(digests...)
				} else {
					p.login()
				}
				for range 2 {
					h, _ := p.expect(wire.OpSCSICommand)
					if !h.Read() || h.Write() || !h.Final() || h.ExpectedLength() != uint32(test.size)+10 {
						p.must(errors.New("wrong command"))
					}
					var stream []byte
					sn := uint32(0)
					for off := 0; off < test.size; off += test.pdu {
						part := data[off:min(off+test.pdu, test.size)]
						f := wire.DataIn{ITT: h.ITT(), TTT: wire.NoTag, DataSN: sn, BufferOffset: uint32(off), Numbers: p.now()}
						if off+len(part) == test.size {
							f.Flags = wire.FlagFinal | wire.FlagStatus | wire.FlagUnderflow
							f.Residual, f.Numbers = 10, p.numbers()
						}
						stream = append(stream, p.pdu(&f, part)...)
						sn++
					}
					p.fragments(stream, test.fragment)
				}
				p.drain()
			})
			d.pipe = test.pipe
			opts := d.options()
			if test.digests {
				op := iscsi.DefaultOperational()
				op.HeaderDigest, op.DataDigest = []string{"CRC32C", "None"}, []string{"CRC32C"}
				opts.Operational = &op
			}
			s := d.session(opts)
			for range 2 {
				cmd := &iscsi.Command{CDB: read6, In: make([]byte, test.size+10)}
				if test.discard {
					cmd.In, cmd.Discard = nil, test.size+10
				}
				done := make(chan struct{})
				cmd.Done = func(*iscsi.Command) { close(done) }
				if err := s.Submit(cmd); err != nil {
					t.Fatal(err)
				}
				<-done
				if err := cmd.Failure(); err != nil {
					t.Fatal(err)
				}
				if cmd.Received != test.size || cmd.Residual != 10 {
					t.Errorf("received %d, residual %d", cmd.Received, cmd.Residual)
				}
				if !test.discard && !bytes.Equal(cmd.In[:test.size], data) {
					t.Error("wrong data")
				}
			}
		})
	}
}

// TestDataOut checks immediate, unsolicited and solicited data of writes (RFC 7143 §4.2.4.2, §11.7, §11.8).
func TestDataOut(t *testing.T) {
	const size = 10_001
	for _, test := range []struct {
		name                   string
		keys                   []wire.KeyValue
		immediate, unsolicited int
	}{
		{"nothing", pairs("ImmediateData", "No", "InitialR2T", "Yes"), 0, 0},
		{"immediate", pairs("InitialR2T", "Yes", "FirstBurstLength", "3000"), 1024, 0},
		{"unsolicited", pairs("ImmediateData", "No", "InitialR2T", "No", "FirstBurstLength", "3000"), 0, 3000},
		{"both", pairs("ImmediateData", "Yes", "InitialR2T", "No", "FirstBurstLength", "3000"), 1024, 1976},
		{"all", pairs("ImmediateData", "Yes", "InitialR2T", "No", "FirstBurstLength", "65536"), 1024, size - 1024},
	} {
		for _, digest := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,%v", test.name, digest), func(t *testing.T) {
				data := pattern(size)
				got := make([]byte, size)
				d := newTarget(t, func(p *peer) {
					keys := append(pairs("MaxRecvDataSegmentLength", "1024"), test.keys...)
					if digest {
						keys = append(keys, digests...)
					}
					p.login(keys...)
					h, part := p.expect(wire.OpSCSICommand)
					if len(part) != test.immediate || h.Final() != (test.unsolicited == 0) || !h.Write() || h.ExpectedLength() != size {
						p.must(fmt.Errorf("command with %d bytes of data, F %v", len(part), h.Final()))
					}
					copy(got, part)
					if test.unsolicited > 0 {
						p.sequence(got, h.ITT(), wire.NoTag, test.immediate, test.unsolicited)
					}
					// The rest is asked for from the end, in bursts of 2500.
					sn := uint32(0)
					first := test.immediate + test.unsolicited
					for end := size; end > first; {
						off := max(end-2500, first)
						p.send(&wire.R2T{ITT: h.ITT(), TTT: 5 + sn, Numbers: p.now(), R2TSN: sn, BufferOffset: uint32(off), DesiredLength: uint32(end - off)}, nil)
						p.sequence(got, h.ITT(), 5+sn, off, end-off)
						end = off
						sn++
					}
					p.good(h)
					p.drain()
				})
				opts := d.options()
				op := iscsi.DefaultOperational()
				if digest {
					op.HeaderDigest, op.DataDigest = []string{"CRC32C"}, []string{"CRC32C"}
				}
				opts.Operational = &op
				s := d.session(opts)
				r, err := s.Do(d.context(), 0, []byte{0x0a, 0, 0, 0, 1, 0}, data, 0)
				if err != nil || r.Err() != nil {
					t.Fatal(err, r.Err())
				}
				s.Close()
				if !bytes.Equal(got, data) {
					t.Error("wrong data")
				}
			})
		}
	}
}

// sequence reads the Data-Out PDUs of one sequence.
func (p *peer) sequence(into []byte, itt, ttt uint32, off, n int) {
	for sn := uint32(0); n > 0; sn++ {
		h, part := p.expect(wire.OpDataOut)
		switch {
		case h.ITT() != itt, h.TTT() != ttt, h.DataSN() != sn, int(h.BufferOffset()) != off, len(part) > 1024,
			len(part) == 0, len(part) > n, h.Final() != (len(part) == n):
			p.must(fmt.Errorf("wrong Data-Out: %x", []byte(h)))
		}
		copy(into[off:], part)
		off += len(part)
		n -= len(part)
	}
}

// TestSense checks the SCSI Response with sense data and residual (RFC 7143 §11.4).
func TestSense(t *testing.T) {
	sense := []byte{0x72, 5, 0x24, 0, 0, 0, 0, 0}
	d := newTarget(t, func(p *peer) {
		p.login()
		h, _ := p.expect(wire.OpSCSICommand)
		p.send(&wire.SCSIResponse{Flags: wire.FlagOverflow, Residual: 77, Status: 2, ITT: h.ITT(), Numbers: p.numbers()}, append([]byte{0, 8}, sense...))
		h, _ = p.expect(wire.OpSCSICommand)
		p.send(&wire.SCSIResponse{Response: wire.ResponseTargetFailure, ITT: h.ITT(), Numbers: p.numbers()}, nil)
		p.drain()
	})
	s := d.session(d.options())
	r, err := s.Do(d.context(), 0, read6, nil, 512)
	if err != nil || r.Status != 2 || r.Residual != -77 || !bytes.Equal(r.Sense, sense) {
		t.Errorf("%+v, %v", r, err)
	}
	if want := "SCSI status 0x02 CHECK CONDITION: ILLEGAL REQUEST, INVALID FIELD IN CDB (5/24/00)"; r.Err().Error() != want {
		t.Errorf("error %q, want %q", r.Err(), want)
	}
	var failure *iscsi.ResponseError
	if _, err := s.Do(d.context(), 0, read6, nil, 512); !errors.As(err, &failure) || failure.Response != 1 {
		t.Errorf("got %v", err)
	}
}

// TestExtendedCDB checks CDBs of more than 16 bytes (RFC 7143 §11.2.2.3).
func TestExtendedCDB(t *testing.T) {
	cdb := pattern(32)
	for _, digest := range []string{"None", "CRC32C"} {
		d := newTarget(t, func(p *peer) {
			p.login(pairs("HeaderDigest", digest)...)
			h, data := p.expect(wire.OpSCSICommand)
			kind, rest, _, err := wire.NextAHS(h[wire.HeaderSize:])
			p.must(err)
			if got := append(bytes.Clone(h.CDB()), rest[1:]...); kind != wire.AHSExtendedCDB || !bytes.Equal(got, cdb) || string(data) != "data" {
				p.must(fmt.Errorf("CDB %x, data %q", got, data))
			}
			p.good(h)
			p.drain()
		})
		opts := d.options()
		op := iscsi.DefaultOperational()
		op.HeaderDigest = []string{"CRC32C", "None"}
		opts.Operational = &op
		s := d.session(opts)
		if r, err := s.Do(d.context(), 0, cdb, []byte("data"), 0); err != nil || r.Status != 0 {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

// TestEarlyResponse checks that a command whose data is still on its way out
// is not given back before it has left.
func TestEarlyResponse(t *testing.T) {
	proceed := make(chan struct{})
	d := newTarget(t, func(p *peer) {
		p.login(pairs("InitialR2T", "No", "ImmediateData", "No")...)
		h, _ := p.expect(wire.OpSCSICommand)
		p.send(&wire.SCSIResponse{Status: 2, ITT: h.ITT(), Numbers: p.numbers()}, nil)
		// An asynchronous message tells when the response has been taken.
		p.send(&wire.Async{Numbers: p.numbers(), Event: wire.AsyncSCSI}, nil)
		<-proceed
		p.drain()
	})
	d.pipe = true
	taken := make(chan struct{})
	opts := d.options()
	opts.OnAsync = func(iscsi.AsyncMessage) { close(taken) }
	s := d.session(opts)
	done := make(chan struct{})
	cmd := &iscsi.Command{CDB: read6, Out: pattern(60_000), Done: func(*iscsi.Command) { close(done) }}
	if err := s.Submit(cmd); err != nil {
		t.Fatal(err)
	}
	<-taken
	select {
	case <-done:
		t.Error("the command was given back while its data was being sent")
	default:
	}
	close(proceed)
	<-done
	if cmd.Err != nil || cmd.Status != 2 {
		t.Errorf("%v, status %d", cmd.Err, cmd.Status)
	}
}

// TestWindow checks that commands wait for the command window (RFC 7143 §4.2.2.1).
func TestWindow(t *testing.T) {
	const commands = 20
	d := newTarget(t, func(p *peer) {
		p.window = 2
		p.login()
		var held []wire.BHS
		for n := 0; n < commands; {
			for range min(2, commands-n) {
				h, _ := p.expect(wire.OpSCSICommand)
				held = append(held, h)
				n++
			}
			for _, h := range held {
				p.good(h)
			}
			held = nil
		}
		p.drain()
	})
	s := d.session(d.options())
	done := make(chan error, commands)
	for range commands {
		cmd := &iscsi.Command{CDB: read6, Done: func(cmd *iscsi.Command) { done <- cmd.Failure() }}
		if err := s.Submit(cmd); err != nil {
			t.Fatal(err)
		}
	}
	for range commands {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
