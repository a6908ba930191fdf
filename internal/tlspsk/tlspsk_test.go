package tlspsk

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

var (
	key128 = NamedKey{"NVMe0R01 host subsystem", Key{AES128GCM, bytes.Repeat([]byte{1}, 32)}}
	key256 = NamedKey{"NVMe0R02 host subsystem", Key{AES256GCM, bytes.Repeat([]byte{2}, 48)}}
)

// keyring is what a server looks keys up in.
type keyring []NamedKey

func (r keyring) lookup(identity string) (keys []Key) {
	for _, k := range r {
		if k.Identity == identity {
			keys = append(keys, k.Key)
		}
	}
	return keys
}

// loopback returns the two ends of a TCP connection.
func loopback(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

type result struct {
	conn *Conn
	err  error
}

// shake does the handshake of both sides over a and b, and closes what fails.
func shake(a, b net.Conn, ring keyring, keys []NamedKey, taken, offered []Group) (c, s result) {
	done := make(chan result)
	go func() {
		conn, err := server(b, ring.lookup, taken)
		if err != nil {
			b.Close()
		}
		done <- result{conn, err}
	}()
	c.conn, c.err = client(a, keys, offered)
	if c.err != nil {
		a.Close()
	}
	return c, <-done
}

// pair returns two connected ends.
func pair(t testing.TB, key NamedKey) (client, server *Conn) {
	t.Helper()
	a, b := loopback(t)
	c, s := shake(a, b, keyring{key}, []NamedKey{key}, groups, groups)
	if c.err != nil || s.err != nil {
		t.Fatal(c.err, s.err)
	}
	return c.conn, s.conn
}

// TestHandshake checks the PSK handshake with (EC)DHE (RFC 8446 §2.2, §4.2.11, §4.1.4).
func TestHandshake(t *testing.T) {
	other := Key{AES128GCM, bytes.Repeat([]byte{9}, 32)}
	for _, tc := range []struct {
		name  string
		ring  keyring
		keys  []NamedKey
		taken []Group
		want  NamedKey
	}{
		{"AES-128", keyring{key128}, []NamedKey{key128}, groups, key128},
		{"AES-256", keyring{key256}, []NamedKey{key256}, groups, key256},
		{"one of two suites", keyring{key256}, []NamedKey{key128, key256}, groups, key256},
		{"retry", keyring{key256}, []NamedKey{key256}, []Group{P256}, key256},
		{"retry leaves a suite out", keyring{key256}, []NamedKey{key128, key256}, []Group{P384}, key256},
		{"several keys of one name", keyring{{key128.Identity, other}, key128}, []NamedKey{key128}, groups, key128},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := loopback(t)
			c, s := shake(a, b, tc.ring, tc.keys, tc.taken, groups)
			if c.err != nil || s.err != nil {
				t.Fatal(c.err, s.err)
			}
			for _, conn := range []*Conn{c.conn, s.conn} {
				if conn.Identity() != tc.want.Identity || conn.Suite() != tc.want.Suite {
					t.Errorf("agreed on %q, %s", conn.Identity(), conn.Suite())
				}
			}
			exchange(t, c.conn, s.conn)
			exchange(t, s.conn, c.conn)
		})
	}
}

// exchange sends from one to the other.
func exchange(t *testing.T, from, to *Conn) {
	t.Helper()
	want := bytes.Repeat([]byte("data and more of it."), 5000)
	written := make(chan struct{})
	go func() { defer close(written); from.Write(want) }()
	got := make([]byte, len(want))
	defer func() { <-written }()
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, want) {
		t.Fatal("data was lost", err)
	}
}

func TestRefusedHandshake(t *testing.T) {
	wrong := key128
	wrong.Secret = bytes.Repeat([]byte{7}, 32)
	named := key128
	named.Identity = "NVMe0R01 other subsystem"
	for _, tc := range []struct {
		name   string
		key    NamedKey
		taken  []Group
		server error
		alert  Alert
	}{
		{"wrong key", wrong, groups, ErrWrongKey, alertDecryptError},
		{"unknown identity", named, groups, ErrUnknownIdentity, alertDecryptError},
		{"other suite", NamedKey{key256.Identity, key256.Key}, groups, ErrUnknownIdentity, alertDecryptError},
		{"wrong key after a retry", wrong, []Group{P384}, ErrWrongKey, alertDecryptError},
		{"no group", key128, nil, nil, alertHandshakeFailure},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, b := loopback(t)
			c, s := shake(a, b, keyring{key128}, []NamedKey{tc.key}, tc.taken, groups)
			if tc.server != nil && !errors.Is(s.err, tc.server) || s.err == nil {
				t.Errorf("the server says: %v", s.err)
			}
			if !errors.Is(c.err, tc.alert) {
				t.Errorf("the client says: %v", c.err)
			}
			if s.err != nil && strings.Contains(s.err.Error(), string(tc.key.Secret)) {
				t.Error("the error shows the key")
			}
		})
	}
}

func TestOffersThatCannotBeMade(t *testing.T) {
	for _, keys := range [][]NamedKey{nil, {{"", key128.Key}}, {{"x", Key{Suite: 7}}}, {{strings.Repeat("x", 2000), key128.Key}}} {
		if _, err := Client(nil, keys); err == nil {
			t.Errorf("offered %v", keys)
		}
	}
}

func TestNotTLS(t *testing.T) {
	a, b := loopback(t)
	go a.Write(make([]byte, 128))
	if _, err := Server(b, keyring{}.lookup); !errors.Is(err, ErrNotTLS) {
		t.Fatal(err)
	}
}

// TestKeyUpdate checks that keys are renewed before their limit and where the peer
// asks (RFC 8446 §4.6.3, §5.5).
func TestKeyUpdate(t *testing.T) {
	c, s := pair(t, key256)
	c.limit, s.limit = 3, 5
	for range 10 {
		exchange(t, c, s)
		exchange(t, s, c)
	}
	if c.updates.Load() < 20 || s.updates.Load() < 10 {
		t.Fatalf("%d and %d updates", c.updates.Load(), s.updates.Load())
	}
	s.limit = updateAfter
	before := s.updates.Load()
	c.wmu.Lock()
	c.appendLocked(typeHandshake, []byte{typeKeyUpdate, 0, 0, 1, 1})
	c.out.update()
	c.wmu.Unlock()
	exchange(t, c, s)
	exchange(t, s, c)
	if s.updates.Load() != before+1 {
		t.Fatal("the server does not answer KeyUpdate")
	}
}

// TestClose checks that the end of data is told from a cut (RFC 8446 §6.1).
func TestClose(t *testing.T) {
	c, s := pair(t, key128)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Fatal("written after the end:", err)
	}
	if n, err := s.Read(make([]byte, 9)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatal(n, err)
	}
	exchange(t, s, c)
	s.Close()
	if _, err := c.Read(make([]byte, 9)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}

	c, s = pair(t, key128)
	c.Conn.Close()
	if _, err := s.Read(make([]byte, 9)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal("a cut looks like the end:", err)
	}
}

func TestWriteBuffers(t *testing.T) {
	c, s := pair(t, key128)
	parts := net.Buffers{[]byte("header"), nil, bytes.Repeat([]byte("d"), 40000), []byte("tail")}
	want := bytes.Join(parts, nil)
	go c.WriteBuffers(parts)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
	if s.in.seq != 3 {
		t.Errorf("%d records for %d bytes", s.in.seq, len(want))
	}
}

func TestNoAllocation(t *testing.T) {
	c, s := pair(t, key256)
	data := bytes.Repeat([]byte("d"), 100_000)
	vec := net.Buffers{data[:72], data[72:]}
	got := make([]byte, len(data))
	turn := func() {
		done := make(chan struct{})
		go func() { defer close(done); io.ReadFull(s, got) }()
		if c.WriteBuffers(vec) != nil {
			t.Fatal("not written")
		}
		<-done
	}
	for range 20 {
		turn()
	}
	if n := testing.AllocsPerRun(50, turn); n > 8 { // those of the goroutine
		t.Errorf("%v allocations for 7 records", n)
	}
}

func BenchmarkRecords(b *testing.B) {
	for _, key := range []NamedKey{key128, key256} {
		b.Run(key.Suite.String(), func(b *testing.B) {
			c, s := pair(b, key)
			data := make([]byte, 128<<10)
			go func() {
				for {
					if _, err := c.Write(data); err != nil {
						return
					}
				}
			}()
			got := make([]byte, len(data))
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.ReadFull(s, got); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
