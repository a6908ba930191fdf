package iscsi

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// canned is a connection whose peer sends given bytes, takes everything, and
// then goes away.
type canned struct {
	net.Conn
	in     *bytes.Reader
	chunk  int // most bytes of one read, 0 for any
	closed bool
}

func (c *canned) Read(p []byte) (int, error) {
	if c.closed {
		return 0, net.ErrClosed
	}
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
	nc := &canned{in: bytes.NewReader(in), chunk: chunk}
	h.server.mu.Lock()
	p, _ := h.server.pending.Add(nc, Peer{}.Remote.Addr(), 10, 10)
	h.server.mu.Unlock()
	h.server.serveConn(nc, Peer{Group: 1}, p)
}

// conversation is a stream of PDUs under construction.
type conversation struct {
	client
	buf bytes.Buffer
}

func (c *conversation) add(f wire.Fields, data []byte) { c.buf.Write(c.bytes(f, nil, data)) }

func (c *conversation) login(keys ...string) {
	c.add(&wire.Login{Transit: true, CSG: 1, NSG: 3, ISID: wire.RandomISID(1, 1), ITT: 1, CmdSN: 1}, text(normal(keys...)...))
}

// sample is a conversation with one of everything.
func sample(digests bool) []byte {
	c := &conversation{}
	c.login("InitialR2T=No", "MaxConnections=4", "MaxBurstLength=1024", "FirstBurstLength=1024", "MaxOutstandingR2T=2", "HeaderDigest=CRC32C,None", "DataDigest=CRC32C,None")
	if digests {
		c.hd, c.dd = true, true
	}
	data := pattern(4096)
	c.add(&wire.SCSICommand{Write: true, ITT: 3, CmdSN: 1, ExpectedLength: 4096, CDB: cdb10(0x2a, 0, 8)}, data[:512])
	c.add(&wire.DataOut{Final: true, ITT: 3, TTT: wire.NoTag, BufferOffset: 512}, data[512:1024])
	// The tags of the first R2Ts can be foretold.
	c.add(&wire.DataOut{Final: true, ITT: 3, TTT: 0, BufferOffset: 1024}, data[1024:2048])
	c.add(&wire.SCSICommand{Final: true, ITT: 9, CmdSN: 4, CDB: make([]byte, 6)}, nil)
	c.add(&wire.NOPOut{Immediate: true, ITT: 4, TTT: wire.NoTag, CmdSN: 2}, []byte("ping"))
	c.add(&wire.Text{Immediate: true, Final: true, ITT: 5, TTT: wire.NoTag, CmdSN: 2}, text("SendTargets=All"))
	c.add(&wire.SNACK{ITT: 7}, nil)
	c.add(&wire.DataOut{Final: true, ITT: 3, TTT: 1, BufferOffset: 2048}, data[2048:3072])
	c.add(&wire.DataOut{Final: true, ITT: 3, TTT: 2, BufferOffset: 3072}, data[3072:4096])
	c.add(&wire.SCSICommand{Final: true, Read: true, ITT: 2, CmdSN: 2, ExpectedLength: 4096, CDB: cdb10(0x28, 0, 8)}, nil)
	c.add(&wire.SCSICommand{Final: true, ITT: 1, CmdSN: 3, CDB: make([]byte, 6)}, nil)
	c.add(&wire.TaskManagement{Immediate: true, Function: 1, ITT: 6, ReferencedTaskTag: 9, CmdSN: 5}, nil)
	c.add(&wire.SCSICommand{Final: true, Write: true, ITT: 10, CmdSN: 5, ExpectedLength: 100_000, CDB: cdb10(0x2a, 0, 196)}, data[:1024])
	c.add(&wire.Logout{Immediate: true, ITT: 8, CmdSN: 6}, nil)
	return c.buf.Bytes()
}

// TestSample makes sure that the sample does what it is meant to.
func TestSample(t *testing.T) {
	for _, digests := range []bool{false, true} {
		for _, chunk := range []int{0, 1, 47, 100} {
			h := newHarness(t, Config{})
			c := sample(digests)
			if !digests {
				c = bytes.ReplaceAll(c, []byte("Digest=CRC32C,None"), []byte("Digest=None,CRC32C"))
			}
			h.feed(c, chunk)
			if n := len(h.array.disk.order()); n != 4 {
				t.Errorf("%d commands were executed, want 4", n)
			}
			if !bytes.Equal(h.array.disk.data[:4096], pattern(4096)) {
				t.Error("the write did not arrive")
			}
			if n := len(h.server.Sessions()); n != 0 {
				t.Errorf("%d sessions are left", n)
			}
		}
	}
}

// TestDisconnectAnywhere checks that a connection may end at any byte of a
// login, of reads, writes and everything else.
func TestDisconnectAnywhere(t *testing.T) {
	h := newHarness(t, Config{})
	c := sample(true)
	for n := range len(c) {
		h.feed(c[:n], 0)
	}
	if n := len(h.server.Sessions()); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// TestDisconnectLargeWrite is the same in data that is read straight to its place.
func TestDisconnectLargeWrite(t *testing.T) {
	h := newHarness(t, Config{})
	for _, digest := range []string{"None", "CRC32C"} {
		c := &conversation{}
		c.login("InitialR2T=No", "FirstBurstLength=262144", "MaxRecvDataSegmentLength=262144", "DataDigest="+digest)
		c.dd = digest == "CRC32C"
		begin := c.buf.Len()
		c.add(&wire.SCSICommand{Write: true, ITT: 3, CmdSN: 1, ExpectedLength: 400 * 512, CDB: cdb10(0x2a, 0, 400)}, pattern(100_000))
		c.add(&wire.DataOut{Final: true, ITT: 3, TTT: wire.NoTag, BufferOffset: 100_000}, pattern(104_800))
		c.add(&wire.SCSICommand{Final: true, Write: true, ITT: 4, CmdSN: 2, ExpectedLength: 512, CDB: cdb10(0x2a, 0, 1)}, pattern(100_000))
		all := c.buf.Bytes()
		for n := begin; n < len(all); n += 97 {
			for _, chunk := range []int{0, 1000} {
				h.feed(all[:n], chunk)
			}
		}
	}
}

// TestDisconnectInChap is the same in a login with authentication.
func TestDisconnectInChap(t *testing.T) {
	h := newHarness(t, Config{})
	h.array.grant = Grant{CHAP: Credential{"user", "0123456789ab"}, Mutual: Credential{"array", "ba9876543210"}}
	seed := byte(0)
	h.server.rand = readerFunc(func(p []byte) (int, error) {
		for i := range p {
			p[i] = seed
		}
		return len(p), nil
	})
	c := &conversation{}
	f := wire.Login{CSG: 0, NSG: 3, ISID: wire.RandomISID(1, 1), ITT: 1, CmdSN: 1}
	c.add(&f, text(normal("AuthMethod=CHAP")...))
	c.add(&f, text("CHAP_A=7"))
	f.Transit = true
	r := chapResponse(7, 0, "0123456789ab", make([]byte, 32))
	c.add(&f, text("CHAP_N=user", "CHAP_R="+wire.FormatHex(r), "CHAP_I=7", "CHAP_C=0x010203"))
	all := c.buf.Bytes()
	for n := range len(all) {
		h.feed(all[:n], 0)
	}
	if n := len(h.array.opened); n != 0 {
		t.Errorf("%d nexuses were opened", n)
	}
	h.feed(all, 0)
	if n := len(h.array.opened); n != 1 || h.array.opened[0].User != "user" {
		t.Errorf("opened %+v", h.array.opened)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestDisconnectWhileExecuting checks that a connection may end while commands
// are with the device, and that their end finds its way.
func TestDisconnectWhileExecuting(t *testing.T) {
	h := newHarness(t, Config{})
	c := h.login()
	h.array.disk.hold = func(*scsi.Task) bool { return true }
	c.writeCmd(0, 8, true, pattern(4096))
	c.read(0, 8)
	settle(t, "execution", func() bool { return len(h.array.disk.order()) == 2 })
	c.nc.Close()
	settle(t, "the end of the session", func() bool { return len(h.server.Sessions()) == 0 })
}

// TestNotALogin checks that anything but a login request ends a new connection (RFC 7143 §6.3).
func TestNotALogin(t *testing.T) {
	h := newHarness(t, Config{})
	hdr := func(change func(wire.BHS)) []byte {
		b := make(wire.BHS, wire.HeaderSize)
		(&wire.Login{ISID: wire.RandomISID(1, 1)}).Put(b)
		change(b)
		return b
	}
	for name, in := range map[string][]byte{
		"HTTP":           []byte("GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: nobody\r\n\r\n"),
		"command":        hdr(func(b wire.BHS) { b.SetOpcode(wire.OpSCSICommand, false) }),
		"header segment": hdr(func(b wire.BHS) { b.SetAHSLength(4) }),
		"too much text":  hdr(func(b wire.BHS) { b.SetDataLength(8193) }),
	} {
		c := h.dial()
		go c.write(in)
		if b, err := io.ReadAll(c.nc); len(b) != 0 {
			t.Errorf("%s is answered with % x, %v", name, b, err)
		}
	}
}

// TestMutations feeds a connection with damaged conversations.
func TestMutations(t *testing.T) {
	h := newHarness(t, Config{})
	r := rand.New(rand.NewPCG(1, 2))
	base := bytes.ReplaceAll(sample(false), []byte("Digest=CRC32C,None"), []byte("Digest=None,CRC32C"))
	for range 3000 {
		in := bytes.Clone(base)
		for range 1 + r.IntN(4) {
			in[r.IntN(len(in))] = byte(r.Uint32())
		}
		h.feed(in, 1+r.IntN(400))
	}
}

func FuzzConnection(f *testing.F) {
	plain := bytes.ReplaceAll(sample(false), []byte("Digest=CRC32C,None"), []byte("Digest=None,CRC32C"))
	f.Add(plain, 0)
	f.Add(sample(true), 100)
	c := &conversation{}
	c.add(&wire.Login{CSG: 0, NSG: 1, Transit: true, ITT: 1}, text("InitiatorName="+testInitiator, "SessionType=Discovery", "AuthMethod=None"))
	c.add(&wire.Login{CSG: 1, NSG: 3, Transit: true, ITT: 1}, text("MaxRecvDataSegmentLength=512"))
	c.add(&wire.Text{Final: true, ITT: 5, TTT: wire.NoTag}, text("SendTargets=All"))
	f.Add(c.buf.Bytes(), 7)
	f.Fuzz(func(t *testing.T, in []byte, chunk int) {
		h := newHarness(t, Config{})
		h.array.disk.data = h.array.disk.data[:64<<10]
		h.feed(in, max(chunk%1000, 0))
	})
}

func FuzzLogin(f *testing.F) {
	f.Add(text(normal("HeaderDigest=CRC32C", "MaxBurstLength=1000")...), byte(0x87))
	f.Add(text(normal("AuthMethod=CHAP")...), byte(0x81))
	cfg := Config{Access: newArray()}
	cfg = cfg.withDefaults()
	f.Fuzz(func(t *testing.T, in []byte, flags byte) {
		l := newLogin(&cfg, new(counting), Peer{})
		b := make(wire.BHS, wire.HeaderSize)
		(&wire.Login{}).Put(b)
		b.SetFlags(flags)
		for range 2 {
			reply, err := l.step(b, in)
			if err != nil {
				if r := (*Refusal)(nil); !errors.As(err, &r) {
					t.Fatalf("error %T", err)
				}
				return
			}
			if _, err := wire.ParseText(reply.text, 1000); err != nil {
				t.Fatal(err)
			}
		}
	})
}
