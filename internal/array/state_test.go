package array

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// testEnv is a world that repeats itself.
func testEnv() Env {
	var seed [32]byte
	return Env{Now: func() time.Time { return time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC) }, Random: rand.NewChaCha8(seed)}
}

type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newState(t tester) (*State, Env) {
	t.Helper()
	env := testEnv()
	s, err := New(env, "san", "head-a", "default")
	if err != nil {
		t.Fatal(err)
	}
	return s, env
}

// setup is a state with hosts esx1 and esx2, group esx of esx1, and volumes db1 to db3.
func setup(t *testing.T) (*State, Env) {
	t.Helper()
	s, env := newState(t)
	var err error
	for _, name := range []string{"esx1", "esx2"} {
		if s, _, _, err = s.CreateHost(env, Host{Name: name, Initiators: []string{"iqn.1998-01.com.vmware:" + name}}); err != nil {
			t.Fatal(err)
		}
	}
	if s, _, _, err = s.CreateHostGroup(env, "esx", []string{"esx1"}, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"db1", "db2", "db3"} {
		if s, _, _, err = s.CreateVolume(env, "", Volume{Name: name, Kind: VolumeFile, Size: GiB, Thin: true}); err != nil {
			t.Fatal(err)
		}
	}
	return s, env
}

func TestNewArray(t *testing.T) {
	s, _ := newState(t)
	d := s.Document
	if !strings.HasPrefix(d.Target.IQN, "iqn.2026-11.io.lintel:san.") || d.Target.PortGroups[0].ID != 1 || !s.Pools[0].System || s.Access(1, s.Pools[0].ID) != Optimized {
		t.Errorf("got %+v", d)
	}
	if _, err := New(testEnv(), "Not A Name", "h", "default"); KindOf(err) != KindInvalid {
		t.Errorf("got %v", err)
	}
	if _, err := New(Env{Now: time.Now, Random: bytes.NewReader(nil)}, "san", "h", "default"); err == nil {
		t.Error("an array was made without random bytes")
	}
}

func TestIdentityIsGeneratedOnce(t *testing.T) {
	s, env := setup(t)
	v, _, _ := s.Volume("db1")
	if !strings.HasPrefix(v.NAA, "6024c4e") || len(v.NAA) != 32 || len(v.EUI64) != 16 || v.T10ID != v.ID || len(v.Serial) != 16 {
		t.Errorf("identity %+v", v)
	}
	s, now, plan, err := s.UpdateVolume(env, "db1", v.Etag(), true, func(v *Volume) { v.Comment = "x" })
	if err != nil || now.NAA != v.NAA || now.Serial != v.Serial || now.EUI64 != v.EUI64 || now.Etag() == v.Etag() || len(plan.Steps) != 1 {
		t.Errorf("after an update: %+v, %v, %v", now, plan, err)
	}
	if same, v, plan, err := s.UpdateVolume(env, "db1", "", true, func(*Volume) {}); same != s || v != now || len(plan.Steps) != 0 || err != nil {
		t.Errorf("an update of nothing changes something: %v, %v", plan, err)
	}
}

// What hosts identify a volume or its geometry by stays while a session sees it.
func TestIdentityStaysInUse(t *testing.T) {
	s, env := setup(t)
	for field, edit := range map[string]func(*Volume){
		"naa_id":            func(v *Volume) { v.NAA = "6024c4e0000000000000000000000001" },
		"eui64_id":          func(v *Volume) { v.EUI64 = "024c4e0000000001" },
		"t10_dev_id":        func(v *Volume) { v.T10ID = "other" },
		"usn":               func(v *Volume) { v.Serial = "other" },
		"vendor":            func(v *Volume) { v.Vendor = "OTHER" },
		"physical_exponent": func(v *Volume) { v.PhysicalExponent++ },
		"thin":              func(v *Volume) { v.Thin = !v.Thin },
	} {
		if _, _, _, err := s.UpdateVolume(env, "db1", "", true, edit); KindOf(err) != KindBusy || !strings.Contains(err.Error(), field) {
			t.Errorf("%s of a volume in use: %v", field, err)
		}
		if _, _, plan, err := s.UpdateVolume(env, "db1", "", false, edit); err != nil || len(plan.Warnings) != 1 {
			t.Errorf("%s of a volume that is not: %v, %v", field, plan, err)
		}
	}
}

// What two volumes share in the first 8 bytes some initiators take for one volume.
func TestIdentityCollisions(t *testing.T) {
	s, env := setup(t)
	db1, _, _ := s.Volume("db1")
	for field, edit := range map[string]func(*Volume){
		"naa_id":     func(v *Volume) { v.NAA = db1.NAA[:16] + "ffffffffffffffff" },
		"eui64_id":   func(v *Volume) { v.EUI64 = db1.EUI64 },
		"t10_dev_id": func(v *Volume) { v.T10ID = db1.T10ID },
		"usn":        func(v *Volume) { v.Serial = db1.Serial },
		"exists":     func(v *Volume) { v.Name = "db1" },
	} {
		if _, _, _, err := s.UpdateVolume(env, "db2", "", false, edit); KindOf(err) != KindExists || !strings.Contains(err.Error(), field) || !strings.Contains(err.Error(), "db1") {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, _, _, err := s.UpdateVolume(env, "db2", "", false, func(v *Volume) { v.Size *= 2 }); KindOf(err) != KindInvalid {
		t.Errorf("the size was set: %v", err)
	}
	// A source of random bytes that repeats itself is noticed.
	env.Random = repeat(0)
	s, _, _, err := s.CreateVolume(env, "", Volume{Name: "x1", Kind: VolumeNull, Size: GiB})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err = s.CreateVolume(env, "", Volume{Name: "x2", Kind: VolumeNull, Size: GiB}); KindOf(err) != KindInternal || err == nil {
		t.Errorf("got %v", err)
	}
}

type repeat byte

func (r repeat) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r)
	}
	return len(b), nil
}

func TestMatchMostSpecific(t *testing.T) {
	s, env := newState(t)
	net := func(list ...string) (out []netip.Prefix) {
		for _, p := range list {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	var err error
	for _, h := range []Host{
		{Name: "any", Initiators: []string{"*"}},
		{Name: "lab", Initiators: []string{"*"}, Addresses: net("192.0.2.0/24")},
		{Name: "rack", Initiators: []string{"*"}, Addresses: net("192.0.2.0/28", "2001:db8::/32")},
		{Name: "vmware", Initiators: []string{"iqn.1998-01.com.vmware:*"}},
		{Name: "esx", Initiators: []string{"iqn.1998-01.com.vmware:esx?"}},
		{Name: "esx1", Initiators: []string{"iqn.1998-01.com.vmware:esx1"}},
		{Name: "esx2", Initiators: []string{"IQN.1998-01.com.vmware:ESX2"}, Addresses: net("10.0.0.0/8")},
		{Name: "nobody"},
	} {
		if s, _, _, err = s.CreateHost(env, h); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, from, want string }{
		{"iqn.1998-01.com.vmware:esx1", "10.1.1.1", "esx1"},
		{"iqn.1998-01.com.vmware:esx2", "10.1.1.1", "esx2"},
		{"iqn.1998-01.com.vmware:esx2", "::ffff:10.1.1.1", "esx2"},
		{"iqn.1998-01.com.vmware:esx2", "11.1.1.1", "esx"}, // the exact name may not come from there
		{"iqn.1998-01.com.vmware:esx10", "10.1.1.1", "vmware"},
		{"iqn.1993-08.org.debian:01:x", "10.1.1.1", "any"},
		{"iqn.1993-08.org.debian:01:x", "192.0.2.200", "lab"},
		{"iqn.1993-08.org.debian:01:x", "192.0.2.2", "rack"},
		{"iqn.1993-08.org.debian:01:x", "2001:db8::1", "rack"},
		{"IQN.1998-01.COM.VMWARE:ESX1", "192.0.2.2", "esx1"},
		{"garbage name", "192.0.2.2", ""},
	} {
		got := ""
		if h := s.Match(c.name, netip.MustParseAddr(c.from)); h != nil {
			got = h.Name
		}
		if got != c.want {
			t.Errorf("%s from %s belongs to %q, want %q", c.name, c.from, got, c.want)
		}
	}
	if h := s.Match("garbage", netip.Addr{}); h != nil {
		t.Errorf("got %v", h)
	}
}

func TestLUNs(t *testing.T) {
	s, env := setup(t)
	var err error
	for _, m := range []struct {
		volume string
		to     To
		lun    *uint32
	}{
		{"db1", To{Group: "esx"}, nil}, {"db2", To{Host: "esx1"}, nil}, {"db3", To{Host: "esx2"}, new(uint32(9))}, {"db3", To{Host: "esx1"}, nil},
	} {
		if s, _, _, err = s.CreateMapping(env, m.volume, m.to, MappingSpec{LUN: m.lun, ReadOnly: m.volume == "db2"}); err != nil {
			t.Fatal(err)
		}
	}
	show := func(host string) string {
		h, err := s.Host(host)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, l := range s.LUNs(h.ID) {
			out = append(out, fmt.Sprintf("%d:%s:%v", l.Number, l.Volume.Name, l.ReadOnly))
		}
		return strings.Join(out, " ")
	}
	if got := show("esx1"); got != "0:db1:false 1:db2:true 2:db3:false" {
		t.Errorf("esx1 sees %s", got)
	}
	if got := show("esx2"); got != "9:db3:false" {
		t.Errorf("esx2 sees %s", got)
	}
	h := s.Match("iqn.1998-01.com.vmware:esx2", netip.MustParseAddr("::1"))
	// A volume whose pool is missing keeps its LUN, and its mapping can be ended by its id.
	missing, err := NewState(s.Document, []*PoolDocument{{Format: 1, Object: Object{ID: "p1"}, Name: "default", Kind: PoolFile, ArrayID: s.Document.ID, System: true, Extent: MiB}})
	if err != nil {
		t.Fatal(err)
	}
	if luns := missing.LUNs(h.ID); len(luns) != 1 || luns[0].Number != 9 || luns[0].Volume != nil {
		t.Errorf("LUNs without their volumes: %+v", luns)
	}
	db3, _, err := s.Volume("db3")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := missing.DeleteMapping("db3", To{Host: "esx2"}, ""); KindOf(err) != KindNotFound {
		t.Errorf("unmap by a name that is not known now: %v", err)
	}
	if _, _, _, err := s.DeleteMapping(db3.ID, To{Host: "esx2"}, ""); KindOf(err) != KindNotFound {
		t.Errorf("unmap by the id of a volume that has a name: %v", err)
	}
	if without, _, _, err := missing.DeleteMapping(db3.ID, To{Host: "esx2"}, ""); err != nil || len(without.LUNs(h.ID)) != 0 {
		t.Errorf("unmap by id: %v", err)
	}
	if s, _, _, err = s.UpdateHostGroup("esx", "", func(g *HostGroupSpec) { g.Hosts = append(g.Hosts, "esx2") }); err != nil {
		t.Fatal(err)
	}
	if got := show("esx2"); got != "0:db1:false 9:db3:false" {
		t.Errorf("in the group, esx2 sees %s", got)
	}
}

func TestEtags(t *testing.T) {
	s, env := setup(t)
	s, err := first(s.CreateMapping(env, "db1", To{Host: "esx1"}, MappingSpec{}))
	if err != nil {
		t.Fatal(err)
	}
	s, err = first(s.AddPortal(env, Portal{Address: netip.MustParseAddr("::1")}))
	if err != nil {
		t.Fatal(err)
	}
	const stale = "x.1"
	for what, call := range map[string]func() error{
		"volume":  func() error { _, _, _, err := s.UpdateVolume(env, "db1", stale, false, nil); return err },
		"resize":  func() error { _, _, _, err := s.ResizeVolume("db1", stale, GiB, false); return err },
		"delete":  func() error { _, _, _, err := s.DeleteVolume("db1", stale, true); return err },
		"host":    func() error { _, _, _, err := s.UpdateHost("esx1", stale, nil); return err },
		"no host": func() error { _, _, _, err := s.DeleteHost("esx1", stale, true); return err },
		"group":   func() error { _, _, _, err := s.UpdateHostGroup("esx", stale, nil); return err },
		"ungroup": func() error { _, _, _, err := s.DeleteHostGroup("esx", stale, true); return err },
		"mapping": func() error { _, _, _, err := s.UpdateMapping("db1", To{Host: "esx1"}, stale, true); return err },
		"unmap":   func() error { _, _, _, err := s.DeleteMapping("db1", To{Host: "esx1"}, stale); return err },
		"target":  func() error { _, _, err := s.UpdateTarget(stale, nil, nil); return err },
		"portal":  func() error { _, _, _, err := s.RemovePortal(netip.MustParseAddr("::1"), 0, stale); return err },
		"alua":    func() error { _, _, err := s.SetAccessState("default", 0, Standby, stale); return err },
		"pool":    func() error { _, _, _, err := s.DeletePool("default", stale); return err },
		"array":   func() error { _, _, err := s.UpdateArray(stale, nil); return err },
	} {
		if err := call(); KindOf(err) != KindConflict || err == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func first[A, B any](s *State, _ A, _ B, err error) (*State, error) { return s, err }

func TestPortalTags(t *testing.T) {
	s, env := newState(t)
	add := func(address string, tag uint16) uint16 {
		t.Helper()
		next, p, _, err := s.AddPortal(env, Portal{Address: netip.MustParseAddr(address), Tag: tag})
		if err != nil {
			t.Fatal(err)
		}
		s = next
		return p.Tag
	}
	if a, b := add("127.0.0.1", 0), add("127.0.0.2", 0); a != 1 || b != 2 {
		t.Errorf("tags %d and %d", a, b)
	}
	s, _, _, err := s.RemovePortal(netip.MustParseAddr("127.0.0.2"), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	if tag := add("127.0.0.2", 0); tag != 3 {
		t.Errorf("tag %d: 2 was used before", tag)
	}
	if tag := add("127.0.0.3", 65535); tag != 65535 {
		t.Errorf("tag %d", tag)
	}
	if _, _, _, err := s.AddPortal(env, Portal{Address: netip.MustParseAddr("127.0.0.4")}); KindOf(err) != KindExists {
		t.Errorf("no tag is left: %v", err)
	}
	if tag := add("127.0.0.4", 3); tag != 3 {
		t.Errorf("a shared tag became %d", tag)
	}
}

// TestPortGroups checks that target port groups come and go with their portals (SPC-4 §5.15.2).
func TestPortGroups(t *testing.T) {
	s, env := newState(t)
	add := func(address string, tag, group uint16) *Portal {
		t.Helper()
		next, p, _, err := s.AddPortal(env, Portal{Address: netip.MustParseAddr(address), Tag: tag, Group: group})
		if err != nil {
			t.Fatal(err)
		}
		s = next
		return p
	}
	head := s.Document.Target.PortGroups[0].ID
	if p := add("127.0.0.1", 0, 0); p.Group != head {
		t.Errorf("group %d, want the head's, %d", p.Group, head)
	}
	second := add("127.0.0.2", 7, 2)
	if p := add("127.0.0.3", 7, 0); p.Group != 2 {
		t.Errorf("group %d of a portal whose tag is in group 2", p.Group)
	}
	if len(s.Document.Target.PortGroups) != 2 {
		t.Fatalf("groups: %+v", s.Document.Target.PortGroups)
	}
	if _, _, _, err := s.AddPortal(env, Portal{Address: netip.MustParseAddr("127.0.0.4"), Tag: 7, Group: head}); KindOf(err) != KindInvalid {
		t.Errorf("one port in two groups: %v", err)
	}
	pool := s.Pools[0]
	s, _, err := s.SetAccessState(pool.Name, 2, Standby, "")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := s.Access(head, pool.ID), s.Access(2, pool.ID); a != Optimized || b != Standby {
		t.Errorf("%s and %s", a, b)
	}
	if _, _, err := s.SetAccessState(pool.Name, 0, Standby, ""); KindOf(err) != KindInvalid {
		t.Errorf("no group named: %v", err)
	}
	before := s
	for _, address := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.1"} {
		if s, _, _, err = s.RemovePortal(netip.MustParseAddr(address), 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	if groups := s.Document.Target.PortGroups; len(groups) != 1 || groups[0].ID != head {
		t.Errorf("groups after the last portal: %+v", groups)
	}
	if len(before.Document.Target.PortGroups) != 2 || second.Group != 2 {
		t.Error("an earlier state was changed")
	}
}

func TestEncoding(t *testing.T) {
	s, env := setup(t)
	s, err := first(s.CreateMapping(env, "db1", To{Host: "esx1"}, MappingSpec{}))
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Document.Encode()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := DecodeDocument(b)
	if err != nil {
		t.Fatal(err)
	}
	pb, err := s.Pools[0].Encode()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := DecodePoolDocument(pb)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Document, doc, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if !reflect.DeepEqual(s.Pools[0], pool) {
		t.Error("the pool's document has changed")
	}
	for name, c := range map[string]struct {
		b     []byte
		newer bool
	}{
		"newer":     {bytes.Replace(b, []byte(`"format":1`), []byte(`"format":2,"what":"is this"`), 1), true},
		"no format": {bytes.Replace(b, []byte(`"format":1,`), nil, 1), false},
		"unknown":   {bytes.Replace(b, []byte(`"name"`), []byte(`"color":"red","name"`), 1), true},
		"trailing":  {append(slices.Clone(b), "{}"...), false},
		"null host": {bytes.Replace(b, []byte(`"hosts":[`), []byte(`"hosts":[null,`), 1), false},
		"cut":       {b[:len(b)-1], false},
		"empty":     {nil, false},
	} {
		if _, err := DecodeDocument(c.b); err == nil || errors.Is(err, ErrNewer) != c.newer {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodePoolDocument([]byte(`{"format":1,"volumes":[null]}`)); err == nil {
		t.Error("a null volume was accepted")
	}
}

// Whatever is decoded is either refused or a valid state that can be encoded again.
func FuzzDecode(f *testing.F) {
	s, err := New(testEnv(), "san", "head-a", "default")
	if err != nil {
		f.Fatal(err)
	}
	if s, _, _, err = s.CreateVolume(testEnv(), "", Volume{Name: "db1", Kind: VolumeNull, Size: GiB}); err != nil {
		f.Fatal(err)
	}
	doc, err := s.Document.Encode()
	if err != nil {
		f.Fatal(err)
	}
	pool, err := s.Pools[0].Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc, pool)
	f.Fuzz(func(t *testing.T, doc, pool []byte) {
		d, err := DecodeDocument(doc)
		if err != nil {
			return
		}
		p, err := DecodePoolDocument(pool)
		if err != nil {
			return
		}
		s, err := NewState(d, []*PoolDocument{p})
		if err != nil {
			return
		}
		for _, h := range s.Document.Hosts {
			s.LUNs(h.ID)
		}
		s.Match("iqn.2001-04.com.example:a", netip.Addr{})
		if b, err := d.Encode(); err != nil {
			t.Fatal(err)
		} else if _, err := DecodeDocument(b); err != nil {
			t.Fatal(err)
		}
	})
}

// Any sequence of changes leaves a valid state, does not touch the one before, never uses an id
// twice, and gives no host two volumes at one LUN.
func TestChangesModel(t *testing.T) {
	names := []string{"aa", "bb", "cc", "dd"}
	rapid.Check(t, func(t *rapid.T) {
		s, env := newState(t)
		ids := map[string]bool{}
		fresh := func(id string) {
			if ids[id] {
				t.Fatalf("id %s was used twice", id)
			}
			ids[id] = true
		}
		pick := func(what string) string { return rapid.SampledFrom(names).Draw(t, what) }
		to := func() To {
			if rapid.Bool().Draw(t, "to a group") {
				return To{Group: "g" + pick("group")}
			}
			return To{Host: pick("host")}
		}
		step := func(next *State, err error) bool {
			switch {
			case err == nil:
				if err := next.Validate(); err != nil {
					t.Fatalf("an invalid state: %v", err)
				}
				s = next
				return true
			case KindOf(err) == KindInternal:
				t.Fatal(err)
			}
			return false
		}
		t.Repeat(map[string]func(*rapid.T){
			"create pool": func(*rapid.T) {
				next, p, _, err := s.CreatePool(env, pick("pool"), PoolFile, "")
				if step(next, err) {
					fresh(p.ID)
				}
			},
			"delete pool": func(*rapid.T) {
				step(first(s.DeletePool(pick("pool"), "")))
			},
			"create volume": func(t *rapid.T) {
				pool := rapid.SampledFrom(append([]string{""}, names...)).Draw(t, "pool")
				next, v, _, err := s.CreateVolume(env, pool, Volume{Name: pick("volume"), Kind: VolumeFile, Size: rapid.Uint64Range(0, 4<<20).Draw(t, "size")})
				if step(next, err) {
					fresh(v.ID)
				}
			},
			"update volume": func(*rapid.T) {
				name := pick("new name")
				step(first(s.UpdateVolume(env, pick("volume"), "", rapid.Bool().Draw(t, "in use"), func(v *Volume) { v.Name, v.T10ID = name, name })))
			},
			"resize": func(t *rapid.T) {
				step(first(s.ResizeVolume(pick("volume"), "", rapid.Uint64Range(0, 8<<20).Draw(t, "size"), rapid.Bool().Draw(t, "shrink"))))
			},
			"delete volume": func(*rapid.T) {
				step(first(s.DeleteVolume(pick("volume"), "", rapid.Bool().Draw(t, "force"))))
			},
			"create host": func(*rapid.T) {
				next, h, _, err := s.CreateHost(env, Host{Name: pick("host"), Initiators: []string{"iqn.2001-04.com.example:" + pick("initiator")}})
				if step(next, err) {
					fresh(h.ID)
				}
			},
			"delete host": func(*rapid.T) { step(first(s.DeleteHost(pick("host"), "", rapid.Bool().Draw(t, "force")))) },
			"create group": func(*rapid.T) {
				next, g, _, err := s.CreateHostGroup(env, "g"+pick("group"), []string{pick("member")}, "")
				if step(next, err) {
					fresh(g.ID)
				}
			},
			"update group": func(*rapid.T) {
				members := []string{pick("member"), pick("member")}
				step(first(s.UpdateHostGroup("g"+pick("group"), "", func(g *HostGroupSpec) { g.Hosts = members })))
			},
			"delete group": func(*rapid.T) {
				step(first(s.DeleteHostGroup("g"+pick("group"), "", rapid.Bool().Draw(t, "force"))))
			},
			"map": func(t *rapid.T) {
				var lun *uint32
				if rapid.Bool().Draw(t, "given") {
					lun = new(rapid.Uint32Range(0, 4).Draw(t, "lun"))
				}
				next, m, _, err := s.CreateMapping(env, pick("volume"), to(), MappingSpec{LUN: lun})
				if step(next, err) {
					fresh(m.ID)
				}
			},
			"unmap": func(*rapid.T) { step(first(s.DeleteMapping(pick("volume"), to(), ""))) },
			"": func(*rapid.T) {
				for _, h := range s.Document.Hosts {
					luns := s.LUNs(h.ID)
					for i := 1; i < len(luns); i++ {
						if luns[i].Number == luns[i-1].Number {
							t.Fatalf("host %s sees two volumes at LUN %d", h.Name, luns[i].Number)
						}
					}
				}
			},
		})
	})
}

// Consecutive states share what did not change, and a change leaves the former state alone.
func TestStatesAreImmutable(t *testing.T) {
	s, env := setup(t)
	doc, err := s.Document.Encode()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := s.Pools[0].Encode()
	if err != nil {
		t.Fatal(err)
	}
	db2, _, _ := s.Volume("db2")
	next := s
	for i, change := range []func() (*State, error){
		func() (*State, error) {
			return first(next.UpdateVolume(env, "db1", "", false, func(v *Volume) { v.ReadOnly = true }))
		},
		func() (*State, error) { return first(next.CreateMapping(env, "db2", To{Group: "esx"}, MappingSpec{})) },
		func() (*State, error) {
			return first(next.UpdateHost("esx1", "", func(h *Host) { h.Initiators[0] = "iqn.2001-04.com.example:x" }))
		},
		func() (*State, error) { return first(next.DeleteHost("esx1", "", true)) },
		func() (*State, error) { return first(next.DeleteVolume("db1", "", true)) },
		func() (*State, error) {
			n, _, err := next.SetAccessState("default", 0, Standby, "")
			return n, err
		},
	} {
		if next, err = change(); err != nil {
			t.Fatal(i, err)
		}
	}
	if now, _, _ := next.Volume("db2"); now != db2 {
		t.Error("a volume that did not change was copied")
	}
	docNow, _ := s.Document.Encode()
	poolNow, _ := s.Pools[0].Encode()
	if !bytes.Equal(doc, docNow) || !bytes.Equal(pool, poolNow) {
		t.Error("a change has altered the state it started from")
	}
}

func TestVolumeNumber(t *testing.T) {
	p := &PoolDocument{Object: Object{ID: "p1"}}
	for id, want := range map[string]uint64{"p1-1": 1, "p1-42": 42} {
		if n, ok := p.VolumeNumber(id); !ok || n != want {
			t.Errorf("%s: %d, %v", id, n, ok)
		}
	}
	for _, id := range []string{"", "p1", "p1-", "p1-0", "p1-01", "p1-x", "p2-1", "p1-+1", fmt.Sprintf("p1-%d", uint64(1)<<63)} {
		if n, ok := p.VolumeNumber(id); ok {
			t.Errorf("%s: %d", id, n)
		}
	}
}

func TestKinds(t *testing.T) {
	for kind := KindInternal; kind <= KindUnavailable; kind++ {
		err := fmt.Errorf("outer: %w", Errorf(kind, "inner: %w", ErrNewer))
		if KindOf(err) != kind || !errors.Is(err, ErrNewer) || kind.String() == "" {
			t.Errorf("%v: %v", kind, err)
		}
	}
	if KindOf(ErrNewer) != KindInternal {
		t.Error("an error without a kind is not internal")
	}
}
