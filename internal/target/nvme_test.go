package target

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	nvmehost "lintel.io/lintel/internal/initiator/nvme"
	"lintel.io/lintel/internal/nvme/dhchap"
	"lintel.io/lintel/internal/nvme/tlskey"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

const (
	testSubsystem = "nqn.2026-11.io.lintel:test"
	testHostNQN   = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555"
)

// withNVMe adds an NVMe/TCP portal and lets any NQN in as the one host.
func (f *fixture) withNVMe() {
	f.doc.Portals = append(f.doc.Portals, &array.Portal{
		Object: array.Object{ID: "l9"}, Address: netip.MustParseAddr("127.0.0.1"), Port: freePort(f.t), Tag: 9, Protocol: array.NVMeTCP,
	})
	h := *f.doc.Hosts[0]
	h.NQNs = []string{"nqn.*"}
	f.doc.Hosts[0] = &h
	for i, m := range f.doc.Mappings {
		both := *m
		both.NSID = uint32(m.LUN) + 1
		f.doc.Mappings[i] = &both
	}
}

func (f *fixture) connect(opts nvmehost.Options) (*nvmehost.Controller, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if opts.Subsystem == "" {
		opts.Subsystem = testSubsystem
	}
	if opts.HostNQN == "" {
		opts.HostNQN = testHostNQN
	}
	return nvmehost.Dial(ctx, f.doc.Portals[len(f.doc.Portals)-1].AddrPort().String(), opts)
}

func (f *fixture) mustConnect(opts nvmehost.Options) *nvmehost.Controller {
	f.t.Helper()
	c, err := f.connect(opts)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

// TestOneVolumeOverBothProtocols writes over one protocol and reads over the
// other: one volume, one identity.
func TestOneVolumeOverBothProtocols(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 4<<20, 0)
	f.withNVMe()
	f.apply()
	ctx := context.Background()
	s := f.login()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	c := f.mustConnect(nvmehost.Options{IOQueues: 2})
	q := c.Queues()[0]
	data := bytes.Repeat([]byte("both"), 1024)
	if err := s.Write(ctx, 0, 16, 512, data); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := q.Read(ctx, 1, 16, 512, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read over NVMe: %v", err)
	}
	if err := c.Queues()[1].Write(ctx, 1, 100, 512, data, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Read(ctx, 0, 100, 512, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read over iSCSI: %v", err)
	}
	ns, err := c.ActiveNamespaces(ctx, 0)
	if err != nil || len(ns) != 1 || ns[0] != 1 {
		t.Errorf("namespaces: %v, %v", ns, err)
	}
	list := f.tgt.Controllers()
	if len(list) != 1 || list[0].OwnerID != "h1" || list[0].Namespaces != 1 || len(list[0].Queues) != 3 {
		t.Errorf("controllers: %+v", list)
	}
	if p := f.tgt.Portal("l9"); p.Sessions != 1 || !p.Listening.IsValid() {
		t.Errorf("portal: %+v", p)
	}
	if !f.tgt.DropController(list[0].ID) {
		t.Error("the controller cannot be dropped")
	}
	select {
	case <-c.Ended():
	case <-time.After(10 * time.Second):
		t.Error("a dropped controller lives on")
	}
	if block.BuffersInUse() < 0 {
		t.Error("buffers were given back twice")
	}
}

// TestReservationsAcrossProtocols checks that a reservation taken over one
// protocol is enforced on the other (NVMe Base 2.0 §8.19, SPC-4 §5.13).
func TestReservationsAcrossProtocols(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 4<<20, 0)
	f.withNVMe()
	f.apply()
	ctx := context.Background()
	s := f.login()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	q := f.mustConnect(nvmehost.Options{IOQueues: 1}).Queues()[0]
	block := make([]byte, 512)

	// PERSISTENT RESERVE OUT: register, then reserve as write exclusive.
	persistent := func(action, kind byte, key, newKey uint64) uint8 {
		t.Helper()
		param := make([]byte, 24)
		binary.BigEndian.PutUint64(param, key)
		binary.BigEndian.PutUint64(param[8:], newKey)
		r, err := s.Do(ctx, 0, []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}, param, 0)
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}
	if st := persistent(0, 0, 0, 0xabc); st != 0 {
		t.Fatalf("REGISTER: status %#x", st)
	}
	if st := persistent(1, 1, 0xabc, 0); st != 0 {
		t.Fatalf("RESERVE: status %#x", st)
	}
	if err := q.Write(ctx, 1, 0, 512, block, 0); nvmehost.StatusOf(err) != wire.ReservationConflict && nvmehost.StatusOf(err) != wire.ReservationConflict.DNR() {
		t.Errorf("write over NVMe against a SCSI reservation: %v", err)
	}
	if err := q.Read(ctx, 1, 0, 512, block); err != nil {
		t.Errorf("read over NVMe against a write exclusive reservation: %v", err)
	}
	report, err := q.Report(ctx, 1, true)
	if err != nil || len(report.Registrants) != 1 || report.Registrants[0].Key != 0xabc {
		t.Errorf("report: %+v, %v", report, err)
	}
	if st := persistent(2, 1, 0xabc, 0); st != 0 {
		t.Fatalf("RELEASE: status %#x", st)
	}
	if st := persistent(0, 0, 0xabc, 0); st != 0 {
		t.Fatalf("unregister: status %#x", st)
	}

	// The other way round.
	if err := q.Register(ctx, 1, nvmehost.Registration{Action: nvmehost.Register, NewKey: 0x77}); err != nil {
		t.Fatal(err)
	}
	if err := q.Acquire(ctx, 1, nvmehost.Acquire, nvmehost.ExclusiveAccess, 0x77, 0); err != nil {
		t.Fatal(err)
	}
	conflict := uint8(0x18)
	for range 3 { // past unit attentions
		r, err := s.Do(ctx, 0, []byte{0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil, 512)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status == 0 {
			t.Fatal("READ over iSCSI against an exclusive NVMe reservation succeeds")
		}
		if r.Status == conflict {
			conflict = 0
			break
		}
	}
	if conflict != 0 {
		t.Error("no RESERVATION CONFLICT over iSCSI")
	}
	if err := q.Write(ctx, 1, 0, 512, block, 0); err != nil {
		t.Errorf("write of the holder: %v", err)
	}
}

// TestUncorrectableAcrossProtocols checks that what an NVMe host has marked uncorrectable
// is a medium error over iSCSI too, until it is written (NVMe NVM 1.0 §3.2.7).
func TestUncorrectableAcrossProtocols(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 4<<20, 0)
	f.withNVMe()
	f.apply()
	ctx := context.Background()
	s := f.login()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	q := f.mustConnect(nvmehost.Options{IOQueues: 1}).Queues()[0]
	if err := q.WriteUncorrectable(ctx, 1, 100, 2); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8*512)
	var status *initiator.StatusError
	if err := s.Read(ctx, 0, 96, 512, buf); !errors.As(err, &status) || status.Sense[2]&0xF != 3 || status.Sense[12] != 0x11 || status.Sense[6] != 100 {
		t.Errorf("READ of a marked block: %v", err)
	}
	if err := s.Write(ctx, 0, 96, 512, buf); err != nil {
		t.Fatal(err)
	}
	if err := s.Read(ctx, 0, 96, 512, buf); err != nil {
		t.Error(err)
	}
	if err := q.Read(ctx, 1, 96, 512, buf); err != nil {
		t.Error(err)
	}
}

// TestNVMeHostsAndNamespacesFollowTheState refuses strangers, maps online, and
// ends the controllers of hosts that are gone.
func TestNVMeHostsAndNamespacesFollowTheState(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 4<<20, 0)
	f.withNVMe()
	f.apply()
	ctx := context.Background()
	c := f.mustConnect(nvmehost.Options{IOQueues: 1, OnEvent: func(uint32) {}})
	gone := f.mustConnect(nvmehost.Options{IOQueues: 1, OnEvent: func(uint32) {}})
	gone.Close() // with its event requests outstanding
	for len(f.tgt.Controllers()) > 1 {
		time.Sleep(time.Millisecond)
	}
	if _, err := f.connect(nvmehost.Options{Subsystem: testSubsystem + "x"}); err == nil {
		t.Error("a subsystem that does not exist took a host")
	}
	log, err := nvmehost.Discover(ctx, f.doc.Portals[1].AddrPort().String(), nvmehost.Options{HostNQN: testHostNQN})
	if err != nil || !slices.ContainsFunc(log.Records, func(r nvmehost.Record) bool { return r.Type == 2 && r.Subsystem == testSubsystem }) {
		t.Errorf("discovery: %+v, %v", log, err)
	}
	f.addVolume(2, 2<<20, 5)
	last := *f.doc.Mappings[1]
	last.NSID = 6
	f.doc.Mappings[1] = &last
	f.apply()
	ns, err := c.ActiveNamespaces(ctx, 0)
	if err != nil || len(ns) != 2 || ns[1] != 6 {
		t.Errorf("namespaces after mapping: %v, %v", ns, err)
	}
	bigger := *f.pd.Volumes[1]
	bigger.Size = 8 << 20
	f.pd.Volumes[1] = &bigger
	f.apply()
	if id, err := c.IdentifyNamespace(ctx, 6); err != nil || id.Blocks != 8<<20/512 {
		t.Errorf("size after resize: %+v, %v", id, err)
	}
	f.pd.Volumes, f.doc.Mappings = f.pd.Volumes[:1], f.doc.Mappings[:1]
	f.apply()
	if ns, err := c.ActiveNamespaces(ctx, 0); err != nil || len(ns) != 1 {
		t.Errorf("namespaces after removal: %v, %v", ns, err)
	}
	h := *f.doc.Hosts[0]
	h.NQNs = []string{"nqn.2026-11.io.example:other"}
	f.doc.Hosts[0] = &h
	f.apply()
	select {
	case <-c.Ended():
	case <-time.After(10 * time.Second):
		t.Error("the controller of a host that is gone lives on")
	}
	if _, err := f.connect(nvmehost.Options{}); err == nil {
		t.Error("a stranger connected")
	}
}

// TestNewTermsEndControllers checks that controllers end when their NQN leads to another host
// or other keys, and not when something else of the host changes.
func TestNewTermsEndControllers(t *testing.T) {
	secret, err := dhchap.GenerateSecret(dhchap.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tlskey.Generate(tlskey.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(f *fixture, h *array.Host){
		"DH-HMAC-CHAP key": func(_ *fixture, h *array.Host) { h.DHCHAPKey = secret.Text() },
		"TLS key":          func(_ *fixture, h *array.Host) { h.TLSKey = key.Text() },
		"host": func(f *fixture, _ *array.Host) {
			f.doc.Hosts = append(f.doc.Hosts, &array.Host{Object: array.Object{ID: "h2"}, Name: "other", NQNs: []string{testHostNQN}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.addVolume(1, 1<<20, 0)
			f.withNVMe()
			f.apply()
			c := f.mustConnect(nvmehost.Options{IOQueues: 1})
			h := *f.doc.Hosts[0]
			h.Name = "renamed"
			f.doc.Hosts[0] = &h
			f.apply()
			if err := c.Queues()[0].Read(context.Background(), 1, 0, 512, make([]byte, 512)); err != nil {
				t.Fatalf("after another name: %v", err)
			}
			changed := h
			change(f, &changed)
			f.doc.Hosts[0] = &changed
			f.apply()
			select {
			case <-c.Ended():
			case <-time.After(10 * time.Second):
				t.Error("the controller lives on")
			}
		})
	}
}

// interrupted is a connection on which something happens before its first Authentication_Send.
type interrupted struct {
	net.Conn
	once sync.Once
	what func()
}

func (i *interrupted) Write(p []byte) (int, error) {
	if len(p) > 12 && p[0] == 4 && p[8] == wire.FabricsCommand && p[12] == wire.AuthenticationSend {
		i.once.Do(i.what)
	}
	return i.Conn.Write(p)
}

// TestKeyChangesWhileHostAuthenticates checks that a host that proves its old key after the array
// has been given a new one does not get in (NVMe Base 2.0 §8.13).
func TestKeyChangesWhileHostAuthenticates(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.withNVMe()
	var keys [2]dhchap.Secret
	for i := range keys {
		var err error
		if keys[i], err = dhchap.GenerateSecret(dhchap.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	use := func(k dhchap.Secret) {
		h := *f.doc.Hosts[0]
		h.DHCHAPKey = k.Text()
		f.doc.Hosts[0] = &h
		f.apply()
	}
	use(keys[0])
	changed := false
	_, err := f.connect(nvmehost.Options{Auth: &nvmehost.Auth{HostKey: keys[0]}, Dial: func(ctx context.Context, address string) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		return &interrupted{Conn: c, what: func() { use(keys[1]); changed = true }}, err
	}})
	if err == nil || !changed {
		t.Errorf("changed: %t, connected: %v", changed, err)
	}
	if len(f.tgt.Controllers()) > 0 && f.tgt.Controllers()[0].Namespaces > 0 {
		t.Error("a host with an old key sees namespaces")
	}
	f.mustConnect(nvmehost.Options{IOQueues: 1, Auth: &nvmehost.Auth{HostKey: keys[1]}})
}

// TestStatisticsOfBothProtocols counts the commands on a volume over both
// protocols together, and goes on with what is gone.
func TestStatisticsOfBothProtocols(t *testing.T) {
	f := newFixture(t)
	v := f.addVolume(1, 4<<20, 0)
	f.addVolume(2, 4<<20, 1)
	f.withNVMe()
	f.apply()
	ctx := context.Background()
	s := f.login()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	c := f.mustConnect(nvmehost.Options{IOQueues: 2, HeaderDigest: true})
	before := f.tgt.Stats().Volumes[v.ID]
	buf := make([]byte, 4096)
	for i, q := range c.Queues() {
		if err := q.Write(ctx, 1, uint64(8*i), 512, buf, 0); err != nil {
			t.Fatal(err)
		}
		if err := q.Read(ctx, 2, 0, 512, buf[:512]); err != nil {
			t.Fatal(err)
		}
		if err := q.Read(ctx, 1, 1<<40, 512, buf); err == nil {
			t.Fatal("a read beyond the end succeeds")
		}
	}
	if err := s.Write(ctx, 0, 0, 512, buf); err != nil {
		t.Fatal(err)
	}
	want := before
	want.ReadTime, want.WriteTime = 0, 0
	want.Add(unit.Stats{Writes: 3, WriteBytes: 3 * 4096, Errors: 2})
	check := func(when string) {
		t.Helper()
		got := f.tgt.Stats().Volumes[v.ID]
		if got.ReadTime, got.WriteTime = 0, 0; got != want {
			t.Errorf("%s: %+v, want %+v", when, got, want)
		}
	}
	check("while connected")
	if q := f.tgt.Controllers()[0].Queues; len(q) != 3 || !q[1].HeaderDigest || q[1].DataDigest || q[1].InFlight != 0 {
		t.Errorf("queues: %+v", q)
	}
	c.Close()
	for len(f.tgt.Controllers()) > 0 {
		time.Sleep(time.Millisecond)
	}
	check("when the host has gone")
	total := f.tgt.Stats().Total
	f.mustConnect(nvmehost.Options{})
	f.pd.Volumes, f.doc.Mappings = f.pd.Volumes[1:], f.doc.Mappings[1:]
	f.apply()
	if got := f.tgt.Stats().Total; got.Writes != total.Writes || got.WriteBytes != total.WriteBytes || got.Reads != total.Reads || got.Errors < total.Errors {
		t.Errorf("total after the volume was deleted: %+v, before %+v", got, total)
	}
}

// TestRenamedOnline checks that new names of the target and the subsystem are the
// names at once, and the sessions under the old ones end.
func TestRenamedOnline(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 4<<20, 0)
	f.withNVMe()
	f.apply()
	ctx := context.Background()
	s := f.login()
	old := f.mustConnect(nvmehost.Options{IOQueues: 1})
	events := make(chan uint32, 8)
	discovery := f.mustConnect(nvmehost.Options{
		Subsystem: f.doc.DiscoveryNQN(), KeepAlive: time.Minute, OnEvent: func(e uint32) { events <- e },
	})
	before, err := discovery.DiscoveryLog(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.doc.Target.IQN, f.doc.Target.SubsystemNQN = testIQN+"2", testSubsystem+"2"
	f.apply()
	if e := <-events; e != wire.EventDiscoveryChanged {
		t.Errorf("event %#x", e)
	}
	after, err := discovery.DiscoveryLog(ctx)
	if err != nil || after.Generation <= before.Generation || !slices.ContainsFunc(after.Records, func(r nvmehost.Record) bool { return r.Subsystem == testSubsystem+"2" }) {
		t.Errorf("discovery: %+v, %v", after, err)
	}
	<-old.Ended()
	if _, err := f.connect(nvmehost.Options{}); err == nil {
		t.Error("the old NQN takes a host")
	}
	f.mustConnect(nvmehost.Options{Subsystem: testSubsystem + "2", IOQueues: 1})
	for len(f.tgt.Sessions()) > 0 {
		time.Sleep(time.Millisecond)
	}
	if err := s.Ready(ctx, 0); err == nil {
		t.Error("the session of the old IQN serves on")
	}
	if _, err := initiator.Dial(ctx, f.addr(), initiator.Options{Target: testIQN}); err == nil {
		t.Error("the old IQN takes an initiator")
	}
	now, err := initiator.Dial(ctx, f.addr(), initiator.Options{Target: testIQN + "2"})
	if err != nil {
		t.Fatal(err)
	}
	defer now.Close()
	page, err := now.Do(ctx, 0, []byte{0x12, 1, 0x83, 4, 0, 0}, nil, 1024)
	if err != nil || bytes.Count(page.Data, []byte(testIQN+"2")) != 2 || bytes.Count(page.Data, []byte(testIQN)) != 2 {
		t.Errorf("device identification: %q, %v", page.Data, err)
	}
}

// TestDiscoveryOfPortals checks which portals a host discovers, and that it does
// so before it authenticates.
func TestDiscoveryOfPortals(t *testing.T) {
	key, err := dhchap.GenerateSecret(dhchap.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.withNVMe()
	f.doc.Hosts[0].NQNs, f.doc.Hosts[0].DHCHAPKey = []string{testHostNQN}, key.Text()
	f.doc.Portals = append(f.doc.Portals, &array.Portal{
		Object: array.Object{ID: "l10"}, Address: netip.MustParseAddr("127.0.0.1"), Port: freePort(t), Tag: 10, Protocol: array.NVMeDiscovery,
	})
	f.doc.Target.Referrals = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:8009")}
	f.apply()
	ctx := context.Background()
	io, only := f.doc.Portals[1].AddrPort().String(), f.doc.Portals[2].AddrPort().String()
	for _, at := range []string{io, only} {
		log, err := nvmehost.Discover(ctx, at, nvmehost.Options{HostNQN: testHostNQN})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]string, len(log.Records))
		for i, r := range log.Records {
			got[i] = fmt.Sprintf("%d %s %s", r.Type, r.Endpoint(), r.Subsystem)
		}
		if want := []string{"3 " + io + " " + f.doc.DiscoveryNQN(), "2 " + io + " " + testSubsystem, "3 " + only + " " + f.doc.DiscoveryNQN(), "1 192.0.2.9:8009 " + wire.DiscoveryNQN}; !slices.Equal(got, want) {
			t.Errorf("discovery through %s: %q, want %q", at, got, want)
		}
		if _, err := nvmehost.Discover(ctx, at, nvmehost.Options{HostNQN: testHostNQN + "x"}); err == nil {
			t.Error("a stranger discovers")
		}
		if _, err := nvmehost.Dial(ctx, at, nvmehost.Options{HostNQN: testHostNQN, Subsystem: testSubsystem}); err == nil {
			t.Errorf("connected through %s without a key, or through a portal for discovery", at)
		}
	}
}

// TestANAFollowsTheState checks that hosts are told of each access state that the
// administrator sets, find it in the log page, and get the status that goes with it (NVMe
// Base 2.0 §8.1.3, §5.16.1.13).
func TestANAFollowsTheState(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.withNVMe()
	f.apply()
	ctx := context.Background()
	events := make(chan uint32, 8)
	c := f.mustConnect(nvmehost.Options{IOQueues: 1, OnEvent: func(e uint32) { events <- e }})
	for _, w := range []struct {
		state  array.AccessState
		ana    byte
		status wire.Status
	}{
		{array.NonOptimized, wire.ANANonOptimized, 0},
		{array.Standby, wire.ANAInaccessible, wire.PathInaccessible},
		{array.Transitioning, wire.ANAChange, wire.PathTransition},
		{array.Offline, wire.ANAPersistentLoss, wire.PathPersistentLoss},
		{array.Unavailable, wire.ANAInaccessible, wire.PathInaccessible},
		{array.Optimized, wire.ANAOptimized, 0},
	} {
		f.doc.Target.PortGroups = []array.PortGroup{{ID: 1, Head: "head1", States: map[string]array.AccessState{f.pd.ID: w.state}}}
		f.apply()
		for e := range events {
			if e == wire.EventANAChanged {
				break
			}
		}
		log := make([]byte, 56)
		if err := c.LogPage(ctx, nvmehost.LogRequest{Page: wire.LogANA}, log); err != nil || log[8] != 1 || log[16+16] != w.ana {
			t.Errorf("%s: % X, %v", w.state, log, err)
		}
		if err := c.Queues()[0].Read(ctx, 1, 0, 512, make([]byte, 512)); nvmehost.StatusOf(err) != w.status || w.status == 0 && err != nil {
			t.Errorf("%s: a read ends with %v", w.state, err)
		}
	}
}
