package target

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"lintel.io/lintel/internal/array"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	nvmehost "lintel.io/lintel/internal/initiator/nvme"
)

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

func (f *fixture) login() *initiator.Session {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := initiator.Dial(ctx, f.addr(), initiator.Options{Target: testIQN})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { s.Close() })
	return s
}

func (f *fixture) luns(s *initiator.Session) []uint64 {
	f.t.Helper()
	luns, err := s.LUNs(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return luns
}

func TestVolumesComeAndGoWhileInUse(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 1)
	f.apply()
	s := f.login()
	ctx := context.Background()
	if err := s.Ready(ctx, initiator.LUN(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(ctx, initiator.LUN(1), 8, 512, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	f.addVolume(2, 2<<20, 7)
	f.apply()
	if got := f.luns(s); !slices.Equal(got, []uint64{initiator.LUN(1), initiator.LUN(7)}) {
		t.Errorf("LUNs after mapping: %x", got)
	}
	blocks, size, err := s.Capacity(ctx, initiator.LUN(7))
	for i := 0; err != nil && i < 4; i++ { // unit attentions come first
		blocks, size, err = s.Capacity(ctx, initiator.LUN(7))
	}
	if err != nil || blocks*uint64(size) != 2<<20 {
		t.Errorf("capacity of the new volume: %d blocks of %d, %v", blocks, size, err)
	}
	f.pd.Volumes = f.pd.Volumes[1:]
	f.doc.Mappings = f.doc.Mappings[1:]
	f.apply()
	if got := f.luns(s); !slices.Equal(got, []uint64{initiator.LUN(7)}) {
		t.Errorf("LUNs after removal: %x", got)
	}
	if st := f.tgt.Stats(); st.Total.Writes == 0 {
		t.Error("the counters of the removed volume are lost from the total")
	}
}

func TestResizeAndAttributesOnline(t *testing.T) {
	f := newFixture(t)
	v := f.addVolume(1, 1<<20, 0)
	f.apply()
	s := f.login()
	ctx := context.Background()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	bigger := *v
	bigger.Size, bigger.WriteThrough = 4<<20, true
	f.pd.Volumes[0] = &bigger
	f.apply()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	blocks, _, err := s.Capacity(ctx, 0)
	if err != nil || blocks != 4<<20/512 {
		t.Errorf("capacity after resize: %d blocks, %v", blocks, err)
	}
	other := bigger
	other.Serial = "another"
	f.pd.Volumes[0] = &other
	if err := f.tryApply(); err == nil {
		t.Error("the serial number changed under a session that sees the volume")
	}
}

func TestMissingBackingBecomesReady(t *testing.T) {
	f := newFixture(t)
	v := f.addVolume(1, 1<<20, 0)
	f.pool.missing[v.ID] = true
	f.apply()
	if st := f.tgt.Volume(v.ID); st.Online || st.Reason == "" {
		t.Errorf("status of a volume without backing: %+v", st)
	}
	s := f.login()
	ctx := context.Background()
	buf := make([]byte, 512)
	for range 3 { // past the unit attentions
		if err := s.Read(ctx, 0, 0, 512, buf); err == nil {
			t.Fatal("a volume without backing was read")
		}
	}
	if got := f.luns(s); len(got) != 1 {
		t.Errorf("the LUN vanished: %x", got)
	}
	f.pool.mu.Lock()
	f.pool.missing[v.ID] = false
	f.pool.mu.Unlock()
	for f.tgt.Volume(v.ID).Online == false {
		time.Sleep(5 * time.Millisecond)
	}
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Read(ctx, 0, 0, 512, buf); err != nil {
		t.Error(err)
	}
}

func TestAccessFollowsHosts(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.doc.Hosts[0] = &array.Host{Object: f.doc.Hosts[0].Object, Name: "any", Initiators: []string{"iqn.2026-11.io.lintel:*"}}
	f.apply()
	s := f.login()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := initiator.Dial(ctx, f.addr(), initiator.Options{Target: testIQN, Initiator: "iqn.2000-01.org.stranger:x"}); err == nil {
		t.Error("a stranger logged in")
	}
	if _, err := initiator.Dial(ctx, f.addr(), initiator.Options{Target: testIQN + "x"}); err == nil {
		t.Error("a target that does not exist took a login")
	}
	if got := f.tgt.Sessions(); len(got) != 1 || got[0].HostID != "h1" || got[0].LUNs != 1 {
		t.Errorf("sessions: %+v", got)
	}
	f.doc.Hosts, f.doc.Mappings = nil, nil
	f.apply()
	for len(f.tgt.Sessions()) > 0 {
		time.Sleep(5 * time.Millisecond)
	}
	if err := s.Ready(ctx, 0); err == nil {
		t.Error("the session of a host that is gone still serves")
	}
}

// TestPortGroupsHaveTheirOwnStates checks that a pool's access state counts for the portals of one target port group alone, over both protocols (SPC-4 §5.15.2, NVMe Base 2.0 §8.1).
func TestPortGroupsHaveTheirOwnStates(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.doc.Portals = append(f.doc.Portals, &array.Portal{
		Object: array.Object{ID: "l2"}, Address: netip.MustParseAddr("127.0.0.1"), Port: freePort(t), Tag: 2, Group: 2, Protocol: array.ISCSI,
	})
	f.withNVMe()
	f.doc.Portals[2].Group = 2
	own := array.PortGroup{ID: 1, Head: "a"}
	for _, state := range []array.AccessState{array.Optimized, array.NonOptimized, array.Standby, array.Unavailable, array.Offline, array.Transitioning} {
		f.doc.Target.PortGroups = []array.PortGroup{own, {ID: 2, Head: "a", States: map[string]array.AccessState{f.pd.ID: state}}}
		f.apply()
		ctx := context.Background()
		buf := make([]byte, 512)
		usable := state == array.Optimized || state == array.NonOptimized
		for i, p := range f.doc.Portals[:2] {
			s, err := initiator.Dial(ctx, p.AddrPort().String(), initiator.Options{Target: testIQN})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 { // past the unit attentions
				err = s.Read(ctx, 0, 0, 512, buf)
			}
			if (err == nil) != (i == 0 || usable) {
				t.Errorf("%s: read through port group %d: %v", state, i+1, err)
			}
			s.Close()
		}
		if state == array.Offline || state == array.Transitioning {
			continue // a host cannot even look at a namespace in these
		}
		c := f.mustConnect(nvmehost.Options{IOQueues: 1})
		if err := c.Queues()[0].Read(ctx, 1, 0, 512, buf); (err == nil) != usable {
			t.Errorf("%s: read over NVMe: %v", state, err)
		}
		c.Close()
	}
}

func TestPortalsComeAndGo(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	second := &array.Portal{Object: array.Object{ID: "l2"}, Address: netip.MustParseAddr("127.0.0.1"), Port: freePort(t), Tag: 2, Protocol: array.ISCSI}
	f.doc.Portals = append(f.doc.Portals, second)
	f.apply()
	records, err := initiator.Discover(context.Background(), f.addr(), initiator.Options{})
	if err != nil || len(records) != 1 || len(records[0].Portals) != 2 {
		t.Fatalf("discovery: %+v, %v", records, err)
	}
	for _, id := range []string{"l1", "l2"} {
		if p := f.tgt.Portal(id); !p.Listening.IsValid() {
			t.Errorf("portal %s: %+v", id, p)
		}
	}
	f.doc.Portals = f.doc.Portals[:1]
	f.apply()
	if c, err := net.Dial("tcp", second.AddrPort().String()); err == nil {
		c.Close()
		t.Error("a portal that was removed still accepts")
	}
}

// A portal at 0.0.0.0 is for IPv4 alone, one at [::] for both: whoever asked for the
// first does not want the networks of the other.
func TestUnspecifiedPortals(t *testing.T) {
	for _, c := range []struct {
		address string
		six     bool
	}{{"0.0.0.0", false}, {"::", true}} {
		f := newFixture(t)
		f.addVolume(1, 1<<20, 0)
		f.doc.Portals[0].Address = netip.MustParseAddr(c.address)
		loop := &array.Portal{Object: array.Object{ID: "l2"}, Address: netip.IPv6Loopback(), Port: freePort(t), Tag: 2, Protocol: array.ISCSI}
		f.doc.Portals = append(f.doc.Portals, loop)
		f.apply()
		port := f.doc.Portals[0].Port
		four, six := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), netip.AddrPortFrom(netip.IPv6Loopback(), port)
		for at, want := range map[netip.AddrPort]bool{four: true, six: c.six} {
			conn, err := net.Dial("tcp", at.String())
			if err == nil {
				conn.Close()
			}
			if (err == nil) != want {
				t.Errorf("portal %s at %s: %v", c.address, at, err)
			}
		}
		records, err := initiator.Discover(context.Background(), loop.AddrPort().String(), initiator.Options{})
		if err != nil || len(records) != 1 {
			t.Fatalf("discovery: %+v, %v", records, err)
		}
		if got := len(records[0].Portals) == 2; got != c.six {
			t.Errorf("over IPv6 portal %s is told as %+v", c.address, records[0].Portals)
		}
	}
}
