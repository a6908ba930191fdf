package tlspsk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// meddler changes or cuts what is written.
type meddler struct {
	net.Conn
	at   int  // which byte, -1 for none
	cut  bool // rather than change
	sent []byte
}

func (m *meddler) Write(p []byte) (int, error) {
	q := bytes.Clone(p)
	i := m.at - len(m.sent)
	hit := m.at >= 0 && i >= 0 && i < len(q)
	m.sent = append(m.sent, p...)
	if hit && m.cut {
		m.Conn.Write(q[:i])
		m.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	if hit {
		q[i] ^= 0x55
	}
	return m.Conn.Write(q)
}

// talk does a handshake and sends a word each way. It reports whether client and server
// got what they expect.
func talk(client, server net.Conn, key NamedKey, taken []Group) (bool, bool) {
	_ = client.SetDeadline(time.Now().Add(time.Minute))
	_ = server.SetDeadline(time.Now().Add(time.Minute))
	word := func(c *Conn, want string) bool {
		got := make([]byte, len(want))
		_, err := io.ReadFull(c, got)
		return err == nil && string(got) == want
	}
	done := make(chan bool)
	go func() {
		defer server.Close()
		c, err := serverOf(server, key, taken)
		ok := err == nil && word(c, "ping")
		if ok {
			_, err = c.Write([]byte("pong"))
		}
		done <- ok && err == nil
	}()
	c, err := Client(client, []NamedKey{key})
	ok := err == nil
	if ok {
		_, err = c.Write([]byte("ping"))
		ok = err == nil && word(c, "pong")
	}
	client.Close()
	return ok, <-done
}

func serverOf(nc net.Conn, key NamedKey, taken []Group) (*Conn, error) {
	return server(nc, keyring{key}.lookup, taken)
}

// TestEveryByteMatters checks that a byte changed or a connection cut anywhere is
// noticed (RFC 8446 §4.4.4, §5.2).
func TestEveryByteMatters(t *testing.T) {
	for _, tc := range []struct {
		name  string
		taken []Group
	}{{"straight", groups}, {"retry", []Group{P256}}} {
		for _, fromServer := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				run := func(at int, cut bool) (cok, sok bool, sent []byte) {
					a, b := net.Pipe()
					m := &meddler{at: at, cut: cut}
					client, server := a, b
					if fromServer {
						m.Conn, server = b, m
					} else {
						m.Conn, client = a, m
					}
					cok, sok = talk(client, server, key256, tc.taken)
					return cok, sok, m.sent
				}
				cok, sok, sent := run(-1, false)
				if !cok || !sok {
					t.Fatal("they do not understand each other")
				}
				// The minor version in the header of a record without protection means nothing.
				free := map[int]bool{}
				for at := 0; at < len(sent); at += headerSize + length(sent[at:]) {
					if sent[at] != typeData {
						free[at+2] = true
					}
				}
				for at := range sent {
					for _, cut := range []bool{false, true} {
						cok, sok, _ := run(at, cut)
						good := cok && sok
						if !fromServer && at >= len(sent)-2*headerSize-tagSize { // only close_notify
							continue
						}
						if good && (cut || !free[at]) {
							t.Errorf("%s: byte %d of %d (server's: %t, cut: %t) does not matter", tc.name, at, len(sent), fromServer, cut)
						}
					}
				}
			})
		}
	}
}

// feed gives bytes to one end after its handshake as if they had come from the other.
func feed(t *testing.T, records ...[]byte) error {
	t.Helper()
	c, s := pair(t, key128)
	c.wmu.Lock()
	for _, r := range records {
		if r[0] == 0xff { // to be protected: type and content follow
			n := len(r)
			c.growLocked(n + overhead)
			at := len(c.buf)
			c.buf = c.out.seal(append(c.buf[:at+headerSize], r[2:]...), at, r[1])
		} else {
			c.growLocked(len(r))
			c.buf = append(c.buf, r...)
		}
	}
	c.wmu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.wmu.Lock()
		_ = c.flushLocked()
		c.wmu.Unlock()
		c.Conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c.Conn)
	}()
	_, err := io.Copy(io.Discard, s)
	s.Close()
	<-done
	return err
}

// TestHostileRecords checks what ends a connection after the handshake (RFC 8446 §5, §6).
func TestHostileRecords(t *testing.T) {
	protected := func(contentType byte, content ...byte) []byte { return append([]byte{0xff, contentType}, content...) }
	var idle [][]byte
	for range maxIdle + 1 {
		idle = append(idle, protected(typeData))
	}
	for _, tc := range []struct {
		name    string
		records [][]byte
		want    Alert
	}{
		{"not TLS", [][]byte{{0, 1, 2, 3, 4, 5}}, alertUnexpectedMessage},
		{"too long", [][]byte{{typeData, 3, 3, 0x41, 0x01}}, alertRecordOverflow},
		{"too short", [][]byte{append([]byte{typeData, 3, 3, 0, 16}, make([]byte, 16)...)}, alertBadRecordMAC},
		{"forged", [][]byte{append([]byte{typeData, 3, 3, 0, 40}, make([]byte, 40)...)}, alertBadRecordMAC},
		{"unprotected", [][]byte{{typeHandshake, 3, 3, 0, 5, typeKeyUpdate, 0, 0, 1, 0}}, alertUnexpectedMessage},
		{"unprotected alert", [][]byte{{typeAlert, 3, 3, 0, 2, 1, 0}}, alertUnexpectedMessage},
		{"late ChangeCipherSpec", [][]byte{{typeChangeCipherSpec, 3, 3, 0, 1, 1}}, alertUnexpectedMessage},
		{"more than a record holds", [][]byte{protected(typeData, make([]byte, maxPlain+1)...)}, alertRecordOverflow},
		{"no type", [][]byte{protected(0)}, alertUnexpectedMessage},
		{"unknown type", [][]byte{protected(99, 1)}, alertUnexpectedMessage},
		{"empty handshake", [][]byte{protected(typeHandshake)}, alertUnexpectedMessage},
		{"empty records", idle, alertUnexpectedMessage},
		{"ticket from a client", [][]byte{protected(typeHandshake, typeNewSessionTicket, 0, 0, 1, 0)}, alertUnexpectedMessage},
		{"renegotiation", [][]byte{protected(typeHandshake, typeClientHello, 0, 0, 0)}, alertUnexpectedMessage},
		{"huge message", [][]byte{protected(typeHandshake, typeKeyUpdate, 0xff, 0, 0)}, alertIllegalParameter},
		{"long KeyUpdate", [][]byte{protected(typeHandshake, typeKeyUpdate, 0, 0, 2, 0, 0)}, alertDecodeError},
		{"odd KeyUpdate", [][]byte{protected(typeHandshake, typeKeyUpdate, 0, 0, 1, 2)}, alertIllegalParameter},
		{"KeyUpdate with more", [][]byte{protected(typeHandshake, typeKeyUpdate, 0, 0, 1, 0, typeKeyUpdate, 0, 0, 1, 0)}, alertUnexpectedMessage},
		{"data within a message", [][]byte{protected(typeHandshake, typeKeyUpdate, 0), protected(typeData, 1)}, alertUnexpectedMessage},
		{"half an alert", [][]byte{protected(typeAlert, 1)}, alertDecodeError},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var f *fault
			if err := feed(t, tc.records...); !errors.As(err, &f) || f.alert != tc.want {
				t.Fatalf("%v instead of %s", err, tc.want)
			}
		})
	}
	if err := feed(t, protected(typeAlert, 2, byte(alertInternalError))); !errors.Is(err, alertInternalError) {
		t.Error(err)
	}
	if err := feed(t, protected(typeAlert, 1, byte(alertUserCanceled)), protected(typeData, 1, 2, 3), protected(typeAlert, 1, 0)); err != nil {
		t.Error(err)
	}
	if err := feed(t, append(protected(typeData, 1, 2, 3), make([]byte, 200)...), protected(typeAlert, 1, 0)); err != nil {
		t.Error("padding:", err)
	}
}

// TestEarlyDataIsSkipped checks that early data is thrown away, up to a limit (RFC 8446 §4.2.10).
func TestEarlyDataIsSkipped(t *testing.T) {
	for _, tc := range []struct {
		records int
		alert   error
	}{{3, nil}, {8, alertBadRecordMAC}} {
		a, b := loopback(t)
		done := make(chan error)
		go func() {
			c, err := Server(b, keyring{key128}.lookup)
			if err == nil {
				_, err = c.Write([]byte("pong"))
			}
			done <- err
		}()
		c, err := run(a, false, func(h *handshake) error {
			o := &offer{random: random(), keys: []NamedKey{key128}, suites: []Suite{AES128GCM}, groups: groups}
			if err := o.makeShare(X25519); err != nil {
				return err
			}
			h.send(withEarlyData(t, o.marshal(nil), key128))
			for range tc.records {
				h.buf = append(h.buf, append([]byte{typeData, 3, 3, 0x30, 0}, make([]byte, 0x3000)...)...)
			}
			hello, m, err := h.receiveHello(o)
			if err != nil {
				return err
			}
			return h.conclude(o, hello, m)
		})
		if err != nil {
			t.Fatal(err)
		}
		_, rerr := io.ReadFull(c, make([]byte, 4))
		if serr := <-done; (serr == nil) != (tc.alert == nil) || !errors.Is(rerr, tc.alert) {
			t.Errorf("%d records: %v, %v", tc.records, serr, rerr)
		}
	}
}

// withEarlyData puts an early_data extension into a ClientHello of one key.
func withEarlyData(t *testing.T, m []byte, key NamedKey) []byte {
	t.Helper()
	at := 4 + 2 + 32 + 1 + 2 + 2 + 2 // behind compression
	m = bytes.Join([][]byte{m[:at+2], {0, extEarlyData, 0, 0}, m[at+2:]}, nil)
	for _, p := range [][]byte{m[2:4], m[at : at+2]} {
		binary.BigEndian.PutUint16(p, binary.BigEndian.Uint16(p)+4)
	}
	h, err := parseClientHello(m)
	if err != nil || !h.early {
		t.Fatal("no early data is offered", err)
	}
	copy(h.keys[0].binder, key.Suite.binder(key.Secret, key.Suite.sum(m[:h.truncated])))
	return m
}
