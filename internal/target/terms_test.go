package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/array"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

const (
	testUser   = "user"
	testSecret = "secret secret"
)

// dialFrom returns a Dial that uses a loopback address of this side.
func dialFrom(address string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, to string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		return d.DialContext(ctx, "tcp", to)
	}
}

func (f *fixture) tryLogin(o initiator.Options) (*initiator.Session, error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	o.Target = testIQN
	s, err := initiator.Dial(ctx, f.addr(), o)
	if err == nil {
		f.t.Cleanup(s.Close)
	}
	return s, err
}

func (f *fixture) mustLogin(o initiator.Options) *initiator.Session {
	f.t.Helper()
	s, err := f.tryLogin(o)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// setHost changes a host of the document.
func (f *fixture) setHost(i int, change func(h *array.Host)) {
	h := *f.doc.Hosts[i]
	change(&h)
	f.doc.Hosts[i] = &h
}

// TestNewTermsEndSessions checks that the sessions of a host end when it is deleted, when it has to prove
// something else, and when their initiator now belongs to another host or may no longer come from
// where one of its connections does; and that whatever else changes costs no session.
func TestNewTermsEndSessions(t *testing.T) {
	other := &array.Host{Object: array.Object{ID: "h9"}, Name: "other", Initiators: []string{initiator.DefaultInitiatorName}}
	network := func(p string) func(*fixture) {
		return func(f *fixture) {
			f.setHost(0, func(h *array.Host) { h.Addresses = []netip.Prefix{netip.MustParsePrefix(p)} })
		}
	}
	for name, test := range map[string]struct {
		change func(f *fixture)
		ends   bool
	}{
		"secret":  {func(f *fixture) { f.setHost(0, func(h *array.Host) { h.CHAPSecret += "2" }) }, true},
		"user":    {func(f *fixture) { f.setHost(0, func(h *array.Host) { h.CHAPUser += "2" }) }, true},
		"no CHAP": {func(f *fixture) { f.setHost(0, func(h *array.Host) { h.CHAPUser, h.CHAPSecret = "", "" }) }, true},
		"mutual secret": {func(f *fixture) {
			f.setHost(0, func(h *array.Host) { h.MutualUser, h.MutualSecret = "m", "other secret!" })
		}, true},
		"initiators": {func(f *fixture) {
			f.setHost(0, func(h *array.Host) { h.Initiators = []string{"iqn.2000-01.org.other:x"} })
		}, true},
		"moved":         {func(f *fixture) { f.doc.Hosts = append(f.doc.Hosts, other) }, true},
		"deleted":       {func(f *fixture) { f.doc.Hosts, f.doc.Mappings = f.doc.Hosts[1:], nil }, true},
		"made anew":     {func(f *fixture) { f.doc.Mappings = nil; f.setHost(0, func(h *array.Host) { h.ID = "h8" }) }, true},
		"first address": {network("127.0.0.3/32"), true},
		"other address": {network("127.0.0.2/32"), true},
		"wide network":  {network("127.0.0.0/8"), false},
		"name, comment": {func(f *fixture) { f.setHost(0, func(h *array.Host) { h.Name, h.Comment = "renamed", "text" }) }, false},
		"NVMe":          {func(f *fixture) { f.setHost(0, func(h *array.Host) { h.NQNs = []string{testHostNQN} }) }, false},
		"algorithms":    {func(f *fixture) { f.doc.Target.CHAP = []array.CHAPAlgorithm{array.SHA256} }, false},
		"mapping":       {func(f *fixture) { f.addVolume(2, 1<<20, 7) }, false},
		"exact name": {func(f *fixture) {
			f.setHost(0, func(h *array.Host) { h.Initiators = []string{initiator.DefaultInitiatorName} })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.addVolume(1, 1<<20, 0)
			f.setHost(0, func(h *array.Host) { h.CHAPUser, h.CHAPSecret = testUser, testSecret })
			f.doc.Hosts = append(f.doc.Hosts, &array.Host{Object: array.Object{ID: "h2"}, Name: "bystander", Initiators: []string{"iqn.2026-11.io.lintel:bystander"}})
			f.apply()
			bystander := f.mustLogin(initiator.Options{Initiator: "iqn.2026-11.io.lintel:bystander"})
			from := "127.0.0.2"
			var mu sync.Mutex
			o := initiator.DefaultOperational()
			s := f.mustLogin(initiator.Options{CHAP: &initiator.CHAP{User: testUser, Secret: testSecret}, Operational: &o,
				Dial: func(ctx context.Context, to string) (net.Conn, error) {
					mu.Lock()
					defer mu.Unlock()
					return dialFrom(from)(ctx, to)
				}})
			mu.Lock()
			from = "127.0.0.3"
			mu.Unlock()
			if _, err := s.AddConnection(context.Background(), f.addr()); err != nil {
				t.Fatal(err)
			}
			test.change(f)
			f.apply()
			if test.ends {
				select {
				case <-s.Ended():
				case <-time.After(10 * time.Second):
					t.Error("the session lives on")
				}
			} else if err := s.Ready(context.Background(), 0); err != nil {
				t.Errorf("the session serves no more: %v", err)
			}
			if _, err := bystander.LUNs(context.Background()); err != nil {
				t.Errorf("another host's session: %v", err)
			}
		})
	}
}

// interruptedLogin is a connection on which something happens before its last login request.
type interruptedLogin struct {
	net.Conn
	once sync.Once
	what func()
}

func (i *interruptedLogin) Write(p []byte) (int, error) {
	if b := wire.BHS(p); len(p) >= wire.HeaderSize && b.Opcode() == wire.OpLogin && b.Final() && b.NSG() == wire.StageFullFeature {
		i.once.Do(i.what)
	}
	return i.Conn.Write(p)
}

// TestSecretChangesDuringLogin checks that an initiator that has proved its old secret before the array
// has got a new one does not get in, neither with a session nor with a connection of one (RFC 7143 §12.1.3).
func TestSecretChangesDuringLogin(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.setHost(0, func(h *array.Host) { h.CHAPUser, h.CHAPSecret = testUser, testSecret })
	f.apply()
	chap := &initiator.CHAP{User: testUser, Secret: testSecret}
	changed := 0
	interrupt := func(ctx context.Context, to string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", to)
		return &interruptedLogin{Conn: c, what: func() {
			changed++
			f.setHost(0, func(h *array.Host) { h.CHAPSecret += "2" })
			f.apply()
		}}, err
	}
	_, err := f.tryLogin(initiator.Options{CHAP: chap, Dial: interrupt})
	if e := (*initiator.LoginError)(nil); !errors.As(err, &e) || e.Status != wire.LoginServiceUnavailable || changed != 1 {
		t.Errorf("changed %d times, login: %v", changed, err)
	}
	if _, err := f.tryLogin(initiator.Options{CHAP: chap}); err == nil {
		t.Error("a login with the old secret")
	}

	chap.Secret = f.doc.Hosts[0].CHAPSecret
	dial := dialFrom("127.0.0.1")
	s := f.mustLogin(initiator.Options{CHAP: chap, Dial: func(ctx context.Context, to string) (net.Conn, error) { return dial(ctx, to) }})
	dial = interrupt
	if _, err := s.AddConnection(context.Background(), f.addr()); err == nil || changed != 2 {
		t.Errorf("changed %d times, another connection: %v", changed, err)
	}
	<-s.Ended()
	chap.Secret = f.doc.Hosts[0].CHAPSecret
	f.mustLogin(initiator.Options{CHAP: chap})
}

// TestHostsShareInitiatorName checks that a connection from another address, where the initiator's name is that
// of another host, gets at neither the session nor its place (RFC 7143 §6.3.5, §6.3.6).
func TestHostsShareInitiatorName(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.setHost(0, func(h *array.Host) { h.Addresses = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")} })
	f.doc.Hosts = append(f.doc.Hosts, &array.Host{Object: array.Object{ID: "h2"}, Name: "rest", Initiators: []string{"*"}})
	f.apply()
	isid := wire.RandomISID(7, 7)
	dial := dialFrom("127.0.0.2")
	s := f.mustLogin(initiator.Options{ISID: isid, Dial: func(ctx context.Context, to string) (net.Conn, error) { return dial(ctx, to) }})
	dial = dialFrom("127.0.0.3")
	if _, err := s.AddConnection(context.Background(), f.addr()); err == nil {
		t.Error("a connection of another host joins the session")
	}
	if _, err := f.tryLogin(initiator.Options{ISID: isid, Dial: dial}); err == nil {
		t.Error("a session of another host replaces this one")
	}
	if err := s.Ready(context.Background(), 0); err != nil {
		t.Errorf("the session serves no more: %v", err)
	}
	other := f.mustLogin(initiator.Options{Dial: dial})
	f.addVolume(2, 1<<20, 5)
	f.doc.Mappings[1].Host = "h2"
	f.apply()
	if a, b := f.luns(s), f.luns(other); !slices.Equal(a, []uint64{initiator.LUN(0)}) || !slices.Equal(b, []uint64{initiator.LUN(5)}) {
		t.Errorf("LUNs %x of the first host and %x of the other", a, b)
	}
	if got := f.tgt.Sessions(); len(got) != 2 || got[0].HostID != "h1" || got[1].HostID != "h2" {
		t.Errorf("sessions %+v", got)
	}
}
