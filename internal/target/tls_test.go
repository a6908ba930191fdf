package target

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/array"
	nvmehost "lintel.io/lintel/internal/initiator/nvme"
	"lintel.io/lintel/internal/nvme/tlskey"
	"lintel.io/lintel/internal/tlspsk"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// withTLS adds an NVMe/TCP portal that requires TLS, and gives the one host a key.
func (f *fixture) withTLS(h tlskey.Hash) *tlskey.Key {
	f.t.Helper()
	f.withNVMe()
	f.doc.Portals = append(f.doc.Portals, &array.Portal{
		Object: array.Object{ID: "l10"}, Address: netip.MustParseAddr("127.0.0.1"), Port: freePort(f.t), Tag: 10, Protocol: array.NVMeTCP, TLS: true,
	})
	key, err := tlskey.Generate(h)
	if err != nil {
		f.t.Fatal(err)
	}
	host := *f.doc.Hosts[0]
	host.TLSKey = key.Text()
	f.doc.Hosts[0] = &host
	return &key
}

// wiretap keeps what goes over connections.
type wiretap struct {
	mu   sync.Mutex
	seen []byte
}

func (w *wiretap) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	return &tapped{c, w}, err
}

func (w *wiretap) keep(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, p...)
}

type tapped struct {
	net.Conn
	tap *wiretap
}

func (t *tapped) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	t.tap.keep(p[:n])
	return n, err
}

func (t *tapped) Write(p []byte) (int, error) {
	t.tap.keep(p)
	return t.Conn.Write(p)
}

// TestTLSHidesData checks that data goes over a portal with TLS unharmed, and that who
// listens on the network reads nothing of it (NVMe/TCP 1.0 §3.6.1).
func TestTLSHidesData(t *testing.T) {
	for h := tlskey.None; h <= tlskey.SHA384; h++ {
		f := newFixture(t)
		f.addVolume(1, 4<<20, 0)
		key := f.withTLS(h)
		f.apply()
		ctx := context.Background()
		word := []byte("a word that nobody else may read")
		data := bytes.Repeat(word, 8192)
		got := make([]byte, len(data))
		for _, secret := range []bool{true, false} {
			var tap wiretap
			opts := nvmehost.Options{IOQueues: 2, TLS: key, Dial: tap.dial}
			if !secret { // the wiretap has to hear at all
				f.doc.Portals = f.doc.Portals[:len(f.doc.Portals)-1]
				host := *f.doc.Hosts[0]
				host.TLSKey = ""
				f.doc.Hosts[0] = &host
				f.apply()
				opts.TLS = nil
			}
			c := f.mustConnect(opts)
			if err := c.Queues()[0].Write(ctx, 1, 0, 512, data, 0); err != nil {
				t.Fatal(err)
			}
			clear(got)
			if err := c.Queues()[1].Read(ctx, 1, 0, 512, got); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read: %v, %t", err, bytes.Equal(got, data))
			}
			if list := f.tgt.Controllers(); secret && (len(list) != 1 || !list[0].Authenticated) {
				t.Errorf("controllers: %+v", list)
			}
			c.Close()
			tap.mu.Lock()
			heard := bytes.Contains(tap.seen, word) || bytes.Contains(tap.seen, []byte("LINTEL"))
			if heard == secret || len(tap.seen) < 2*len(data) {
				t.Errorf("TLS: %t, heard: %t, in %d bytes", secret, heard, len(tap.seen))
			}
			tap.mu.Unlock()
		}
	}
}

// TestTLSProvesNames checks that a host is who its TLS identity says, at the subsystem that it
// says, and that a host with a key cannot do without TLS (NVMe/TCP 1.0 §3.6.1.3).
func TestTLSProvesNames(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 4<<20, 0)
	key := f.withTLS(tlskey.SHA256)
	f.apply()
	as := func(host, subsystem string) func(context.Context, string) (net.Conn, error) {
		return func(ctx context.Context, address string) (net.Conn, error) {
			var d net.Dialer
			nc, err := d.DialContext(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			offers, err := key.Offers(host, subsystem)
			if err != nil {
				return nil, err
			}
			return tlspsk.Client(nc, offers)
		}
	}
	f.mustConnect(nvmehost.Options{Dial: as(testHostNQN, testSubsystem)})
	for _, tc := range []struct{ host, subsystem string }{{"nqn.2014-08.com.example:other", testSubsystem}, {testHostNQN, "nqn.2014-08.com.example:subsystem"}} {
		_, err := f.connect(nvmehost.Options{Dial: as(tc.host, tc.subsystem)})
		if s := (*nvmehost.StatusError)(nil); !errors.As(err, &s) || s.Status != wire.ConnectInvalidHost {
			t.Errorf("as %s at %s: %v", tc.host, tc.subsystem, err)
		}
	}
	if _, err := f.connect(nvmehost.Options{}); err == nil {
		t.Error("a portal with TLS does without")
	}
	plain := f.doc.Portals[len(f.doc.Portals)-2].AddrPort().String()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := nvmehost.Dial(ctx, plain, nvmehost.Options{Subsystem: testSubsystem, HostNQN: testHostNQN})
	if s := (*nvmehost.StatusError)(nil); !errors.As(err, &s) || s.Status != wire.ConnectInvalidHost {
		t.Errorf("a host with a key does without TLS: %v", err)
	}

	// A new key counts at once: also where the handshake was made before it.
	fresh, err := tlskey.Generate(tlskey.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	host := *f.doc.Hosts[0]
	host.TLSKey = fresh.Text()
	f.doc.Hosts[0] = &host
	before := as(testHostNQN, testSubsystem)
	_, err = f.connect(nvmehost.Options{Dial: func(ctx context.Context, address string) (net.Conn, error) {
		nc, err := before(ctx, address)
		if err == nil {
			f.apply()
		}
		return nc, err
	}})
	if s := (*nvmehost.StatusError)(nil); !errors.As(err, &s) || s.Status != wire.ConnectInvalidHost {
		t.Errorf("connected with a key of before: %v", err)
	}
	if _, err := f.connect(nvmehost.Options{TLS: key}); err == nil || !strings.Contains(err.Error(), "decrypt_error") {
		t.Errorf("with the key of before: %v", err)
	}
	f.mustConnect(nvmehost.Options{TLS: &fresh})
}

// TestTLSIsDiscovered checks that the discovery log names the portals that a host can use,
// and whether they require TLS (NVMe Base 2.0 §5.16.1.23, NVMe/TCP 1.0 §3.1.2).
func TestTLSIsDiscovered(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 4<<20, 0)
	key := f.withTLS(tlskey.SHA384)
	f.apply()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	plain, secure := f.doc.Portals[len(f.doc.Portals)-2], f.doc.Portals[len(f.doc.Portals)-1]
	check := func(at *array.Portal, opts nvmehost.Options, want *array.Portal, requirement, security uint8) {
		t.Helper()
		opts.HostNQN = testHostNQN
		log, err := nvmehost.Discover(ctx, at.AddrPort().String(), opts)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, r := range log.Records {
			if r.Subsystem != testSubsystem {
				continue
			}
			found++
			if r.Endpoint() != want.AddrPort().String() || r.Secure&3 != requirement || r.Security != security {
				t.Errorf("%+v", r)
			}
		}
		if found != 1 {
			t.Errorf("%d records of the subsystem", found)
		}
	}
	check(plain, nvmehost.Options{}, secure, 1, 2)
	check(secure, nvmehost.Options{TLS: key}, secure, 1, 2)
	host := *f.doc.Hosts[0]
	host.TLSKey = ""
	f.doc.Hosts[0] = &host
	f.apply()
	check(plain, nvmehost.Options{}, plain, 0, 0)
}
