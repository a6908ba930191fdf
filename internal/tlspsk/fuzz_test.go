package tlspsk

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// tape is a connection whose peer said everything beforehand.
type tape struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (t *tape) Read(p []byte) (int, error)       { return t.in.Read(p) }
func (t *tape) Write(p []byte) (int, error)      { return t.out.Write(p) }
func (t *tape) Close() error                     { return nil }
func (t *tape) SetWriteDeadline(time.Time) error { return nil }

// hellos returns the first records of client and server.
func hellos(f *testing.F) (client, server []byte) {
	c := &tape{in: bytes.NewReader(nil)}
	_, _ = Client(c, []NamedKey{key128, key256})
	client = c.out.Bytes()
	s := &tape{in: bytes.NewReader(client)}
	_, _ = Server(s, keyring{key256}.lookup)
	if s.out.Len() == 0 {
		f.Fatal("the server does not answer")
	}
	return client, s.out.Bytes()
}

// FuzzServer gives a server anything as its client's first bytes.
func FuzzServer(f *testing.F) {
	client, _ := hellos(f)
	f.Add(client)
	f.Add(append(client, 20, 3, 3, 0, 1, 1, 21, 3, 3, 0, 2, 2, 40))
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, taken := range [][]Group{groups, {P384}} {
			if c, err := server(&tape{in: bytes.NewReader(p)}, keyring{key128, key256}.lookup, taken); err == nil {
				t.Fatalf("a stranger is in: %v", c.Identity())
			}
		}
	})
}

// FuzzClient gives a client anything as its server's first bytes.
func FuzzClient(f *testing.F) {
	_, server := hellos(f)
	f.Add(server)
	retry := (&serverHello{random: retryRandom[:], suite: AES256GCM, share: keyShare{group: P256}, cookie: []byte{1}, key: -1}).marshal()
	f.Add(append([]byte{typeHandshake, 3, 3, 0, byte(len(retry))}, retry...))
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, err := Client(&tape{in: bytes.NewReader(p)}, []NamedKey{key128, key256}); err == nil {
			t.Fatal("a stranger is taken for the server")
		}
	})
}

// FuzzClientHello checks that what is taken from a message lies in it.
func FuzzClientHello(f *testing.F) {
	client, _ := hellos(f)
	f.Add(client[headerSize:])
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) < 4 {
			return
		}
		if h, err := parseClientHello(m); err == nil && (h.truncated > len(m) || len(h.keys) == 0 || len(h.session) > 32) {
			t.Fatalf("%+v", h)
		}
	})
}

// FuzzServerHello checks that what is read can be written and read again.
func FuzzServerHello(f *testing.F) {
	f.Add((&serverHello{random: random(), suite: AES128GCM, share: keyShare{X25519, make([]byte, 32)}, key: 1}).marshal())
	f.Add((&serverHello{random: retryRandom[:], suite: AES128GCM, share: keyShare{group: P256}, cookie: []byte{7}, key: -1}).marshal())
	f.Fuzz(func(t *testing.T, m []byte) {
		if len(m) < 4 {
			return
		}
		h, err := parseServerHello(m)
		if err != nil {
			return
		}
		again, err := parseServerHello(h.marshal())
		if err != nil || !bytes.Equal(again.marshal(), h.marshal()) {
			t.Fatalf("%+v, %v", h, err)
		}
	})
}

// FuzzRecords gives a connection anything after its handshake: as it is, and
// as the content of a protected record.
func FuzzRecords(f *testing.F) {
	f.Add([]byte{typeData, 3, 3, 0, 20}, byte(typeHandshake), []byte{typeKeyUpdate, 0, 0, 1, 1})
	f.Add([]byte{}, byte(typeAlert), []byte{1, 0})
	f.Add([]byte{}, byte(typeData), []byte("data"))
	f.Fuzz(func(t *testing.T, raw []byte, contentType byte, content []byte) {
		content = content[:min(len(content), maxPlain)]
		if contentType == 0 { // padding: the type would be in content
			contentType = typeData
		}
		secret := make([]byte, 32)
		var peer direction
		peer.rekey(AES128GCM, secret)
		out := append(make([]byte, headerSize, len(content)+overhead), content...)
		c := newConn(&tape{in: bytes.NewReader(append(peer.seal(out, 0, contentType), raw...))})
		c.isServer = true
		c.done.Store(true)
		c.in.rekey(AES128GCM, secret)
		c.out.rekey(AES128GCM, secret)
		got, err := io.ReadAll(c)
		if contentType == typeData && !bytes.Equal(got, content) || contentType != typeData && len(got) > 0 || err == nil && contentType != typeAlert {
			t.Fatalf("%q, %v", got, err)
		}
	})
}
