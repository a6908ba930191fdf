package array

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lintel.io/lintel/internal/nvme/dhchap"
)

const testUUID = nqnUUID + "0b5eec24-1d2f-4be0-8a2b-7a3e0f3c5a11"

// TestCheckNQN checks NVMe qualified names (NVMe Base 2.0 §4.5).
func TestCheckNQN(t *testing.T) {
	long := "nqn.2014-08.com.example:" + strings.Repeat("x", maxNQN)
	for _, nqn := range []string{
		"nqn.2014-08.com.example:a", "nqn.2014-08.com.Example:Host/1_ü", testUUID, nqnUUID + strings.ToUpper(testUUID[len(nqnUUID):]),
		"nqn.2014-08.org.nvmexpress:NVMf:uuid:x", long[:maxNQN],
	} {
		if err := CheckNQN(nqn); err != nil {
			t.Error(err)
		}
	}
	for _, nqn := range []string{
		"", "nqn.2014-08", "nqn.2014-13.com.example:a", "nqn.2014-08.com.example", "nqn.2014-08.com.example:", "NQN.2014-08.com.example:a",
		"iqn.2014-08.com.example:a", "nqn.2014-08.com.example:a b", "nqn.2014-08.com.example:a\x00", "nqn.2014-08.com.example:\xff",
		"nqn.2014-08.com_example:a", nqnUUID + "1", testUUID + "0", long[:maxNQN+1], "nqn.2014-08.org.nvmexpress.discovery",
	} {
		if err := CheckNQN(nqn); KindOf(err) != KindInvalid || err == nil {
			t.Errorf("%q: %v", nqn, err)
		}
	}
	for pattern, ok := range map[string]bool{"*": true, "nqn.2014-08.com.example:*": true, "?qn*": true, "nqn *": false, "a": false, "*" + long[:maxNQN]: false} {
		if err := CheckNQNPattern(pattern); (err == nil) != ok {
			t.Errorf("pattern %q: %v", pattern, err)
		}
	}
}

// TestDHCHAPKeyOfHost checks which secrets a host may have (NVMe Base 2.0 §8.13.5.8).
func TestDHCHAPKeyOfHost(t *testing.T) {
	const known = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:"
	if err := checkDHCHAPKey(known); err != nil {
		t.Error(err)
	}
	for _, text := range []string{
		"", "DHHC-1", " " + known, known + "\n", known + "x", strings.ToLower(known), strings.Replace(known, ":01:", ":02:", 1),
		strings.Replace(known, "AAEC", "AAED", 1), strings.Replace(known, "AAEC", "AA\nEC", 1),
	} {
		if err := checkDHCHAPKey(text); KindOf(err) != KindInvalid || err == nil || strings.Contains(err.Error(), "BgcI") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMatchNQN(t *testing.T) {
	s, env := newState(t)
	var err error
	for _, h := range []Host{
		{Name: "any", Initiators: []string{"*"}, NQNs: []string{"*"}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		{Name: "lab", NQNs: []string{"nqn.2014-08.com.example:*"}},
		{Name: "esx", NQNs: []string{"nqn.2014-08.com.example:esx?"}},
		{Name: "esx1", Initiators: []string{"iqn.2014-08.com.example:esx1"}, NQNs: []string{"nqn.2014-08.com.example:esx1", testUUID}},
	} {
		if s, _, _, err = s.CreateHost(env, h); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ nqn, from, want string }{
		{"nqn.2014-08.com.example:esx1", "10.1.1.1", "esx1"},
		{"nqn.2014-08.com.example:ESX1", "10.1.1.1", "lab"}, // case counts
		{"nqn.2014-08.com.example:esx2", "10.1.1.1", "esx"},
		{testUUID, "::1", "esx1"},
		{strings.Replace(testUUID, "0b5", "0B5", 1), "::1", ""},
		{"nqn.2020-01.com.other:x", "::ffff:10.1.1.1", "any"},
		{"nqn.2020-01.com.other:x", "11.1.1.1", ""},
		{"iqn.2014-08.com.example:esx1", "10.1.1.1", ""},
		{"", "10.1.1.1", ""},
	} {
		got := ""
		if h := s.MatchNQN(c.nqn, netip.MustParseAddr(c.from)); h != nil {
			got = h.Name
		}
		if got != c.want {
			t.Errorf("%s from %s belongs to %q, want %q", c.nqn, c.from, got, c.want)
		}
	}
	if h := s.Match("nqn.2014-08.com.example:esx1", netip.MustParseAddr("10.1.1.1")); h != nil {
		t.Errorf("an NQN is taken for an iSCSI name of %s", h.Name)
	}
}

func TestDHCHAPOfHosts(t *testing.T) {
	s, env := newState(t)
	key := func(fill byte) string {
		return dhchap.Secret{Transform: dhchap.SHA256, Key: bytes.Repeat([]byte{fill}, 32)}.Text()
	}
	nqns := []string{"nqn.2014-08.com.example:a"}
	for _, h := range []Host{
		{DHCHAPCtrlKey: key(1)}, {DHCHAPKey: key(1), DHCHAPCtrlKey: key(1)}, {DHCHAPKey: "secret"}, {DHCHAPKey: key(1), DHCHAPCtrlKey: "secret"},
	} {
		h.Name, h.NQNs = "bad", nqns
		if _, _, _, err := s.CreateHost(env, h); KindOf(err) != KindInvalid || err == nil || strings.Contains(err.Error(), "AQEB") {
			t.Errorf("%+v: %v", h, err)
		}
	}
	s, h, plan, err := s.CreateHost(env, Host{Name: "good", NQNs: nqns, DHCHAPKey: key(1) + "\n", DHCHAPCtrlKey: key(2)})
	if err != nil || h.DHCHAPKey != key(1) || len(plan.Warnings) != 0 {
		t.Fatalf("%v, %v", plan, err)
	}
	s, h, plan, err = s.UpdateHost("good", h.Etag(), func(h *Host) { h.DHCHAPCtrlKey, h.Initiators = key(3), []string{"iqn.2014-08.com.example:a"} })
	if err != nil || h.DHCHAPCtrlKey != key(3) || len(plan.Warnings) != 2 || strings.Contains(fmt.Sprint(plan), "DHHC") {
		t.Fatalf("%v, %v", plan, err)
	}
	if _, h, _, err = s.UpdateHost("good", "", func(h *Host) { h.DHCHAPKey = "" }); err != nil || h.DHCHAPCtrlKey != "" {
		t.Errorf("%v, %v", h, err)
	}
	if _, _, plan, err = s.CreateHost(env, Host{Name: "open", NQNs: []string{"*"}, Initiators: []string{"*"}, CHAPUser: "u", CHAPSecret: "a long enough secret"}); err != nil || len(plan.Warnings) != 2 {
		t.Errorf("%v, %v", plan, err)
	}
	if _, _, _, err := s.CreateHost(env, Host{Name: "twin", NQNs: nqns}); KindOf(err) != KindExists || err == nil {
		t.Errorf("two hosts have one NQN: %v", err)
	}
}

func TestPortalProtocols(t *testing.T) {
	s, env := newState(t)
	local := netip.MustParseAddr("127.0.0.1")
	for i, want := range []struct {
		protocol Protocol
		port     uint16
	}{{"", 3260}, {NVMeTCP, 4420}, {NVMeDiscovery, 8009}} {
		next, p, plan, err := s.AddPortal(env, Portal{Protocol: want.protocol, Address: local})
		if err != nil || p.Port != want.port || int(p.Tag) != i+1 || len(plan.Warnings) != 0 {
			t.Fatalf("%+v, %v, %v", p, plan, err)
		}
		s = next
	}
	for what, c := range map[string]struct {
		spec Portal
		kind Kind
	}{
		"the address has another protocol":      {Portal{Protocol: NVMeTCP, Address: local, Port: 3260}, KindExists},
		"the tag is that of an NVMe portal":     {Portal{Address: local, Port: 1, Tag: 2}, KindExists},
		"NVMe portals do not share tags":        {Portal{Protocol: NVMeTCP, Address: local, Port: 1, Tag: 3}, KindExists},
		"an iSCSI portal's tag is not for them": {Portal{Protocol: NVMeDiscovery, Address: local, Port: 1, Tag: 1}, KindExists},
		"an unknown protocol":                   {Portal{Protocol: "fcoe", Address: local, Port: 1}, KindInvalid},
	} {
		if _, _, _, err := s.AddPortal(env, c.spec); KindOf(err) != c.kind || err == nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, p, plan, err := s.AddPortal(env, Portal{Protocol: NVMeTCP, Address: netip.MustParseAddr("192.0.2.1")}); err != nil || len(plan.Warnings) != 1 || !strings.Contains(plan.Warnings[0], "NVMe/TCP") {
		t.Errorf("%v, %v, %v", p, plan, err)
	}
	if _, p, _, err := s.AddPortal(env, Portal{Address: netip.MustParseAddr("::1"), Tag: 1}); err != nil || p.Protocol != ISCSI {
		t.Errorf("%v, %v", p, err)
	}
}

func TestSubsystem(t *testing.T) {
	s, _ := newState(t)
	d := s.Document
	if d.Target.SubsystemNQN != "nqn.2026-11.io.lintel:"+d.ID || d.SubsystemSerial() != d.ID || len(d.SubsystemSerial()) > 20 || len(SubsystemModel) > 40 {
		t.Errorf("%s, %s", d.Target.SubsystemNQN, d.SubsystemSerial())
	}
	if err := CheckNQN(d.DiscoveryNQN()); err != nil || d.DiscoveryNQN() == d.Target.SubsystemNQN {
		t.Errorf("%s: %v", d.DiscoveryNQN(), err)
	}
	rename := func(t *Target) { t.SubsystemNQN = "nqn.2020-01.com.example:San" }
	speaks := func(want Protocol) func(Protocol) bool { return func(p Protocol) bool { return p == want } }
	if _, _, err := s.UpdateTarget("", speaks(NVMeTCP), rename); KindOf(err) != KindBusy || err == nil {
		t.Errorf("the name changed under a controller: %v", err)
	}
	next, plan, err := s.UpdateTarget("", speaks(ISCSI), rename)
	if err != nil || next.Document.Target.SubsystemNQN != "nqn.2020-01.com.example:San" || len(plan.Steps) != 1 {
		t.Errorf("%v, %v", plan, err)
	}
	if _, _, err := s.UpdateTarget("", nil, func(t *Target) { t.Alias = "x" }); err != nil {
		t.Error(err)
	}
}

func TestNamespaces(t *testing.T) {
	s, env := setup(t)
	var err error
	add := func(volume string, to To, spec MappingSpec, want uint32) {
		t.Helper()
		next, m, _, err := s.CreateMapping(env, volume, to, spec)
		if err != nil || m.NSID != want {
			t.Fatalf("%+v, %v: want NSID %d", m, err, want)
		}
		s = next
	}
	add("db1", To{Group: "esx"}, MappingSpec{}, 1)
	add("db2", To{Host: "esx1"}, MappingSpec{LUN: new(uint32(5000)), ReadOnly: true}, MaxNSID) // no NSID belongs to the LUN
	add("db3", To{Host: "esx1"}, MappingSpec{NSID: new(uint32(6))}, 6)
	add("db2", To{Host: "esx2"}, MappingSpec{LUN: new(uint32(5))}, 6)
	if s, _, _, err = s.CreateVolume(env, "", Volume{Name: "db4", Kind: VolumeNull, Size: GiB}); err != nil {
		t.Fatal(err)
	}
	add("db4", To{Host: "esx1"}, MappingSpec{LUN: new(uint32(5))}, MaxNSID-1) // its NSID is taken
	for _, c := range []struct {
		nsid uint32
		kind Kind
	}{{0, KindInvalid}, {MaxNSID + 1, KindInvalid}, {6, KindExists}} {
		if _, _, _, err := s.CreateMapping(env, "db4", To{Host: "esx2"}, MappingSpec{NSID: new(c.nsid)}); KindOf(err) != c.kind || err == nil {
			t.Errorf("NSID %d: %v", c.nsid, err)
		}
	}
	show := func(host string) string {
		h, err := s.Host(host)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, n := range s.Namespaces(h.ID) {
			out = append(out, fmt.Sprintf("%d:%s:%v", n.ID, n.Volume.Name, n.ReadOnly))
		}
		return strings.Join(out, " ")
	}
	if got := show("esx1"); got != "1:db1:false 6:db3:false 1023:db4:false 1024:db2:true" {
		t.Errorf("esx1 sees %s", got)
	}
	if got := show("esx2"); got != "6:db2:false" {
		t.Errorf("esx2 sees %s", got)
	}
	// A member's NSID keeps a group's volume away, as its LUN does.
	add("db3", To{Host: "esx2"}, MappingSpec{LUN: new(uint32(7)), NSID: new(uint32(1))}, 1)
	if _, _, _, err = s.UpdateHostGroup("esx", "", func(g *HostGroupSpec) { g.Hosts = append(g.Hosts, "esx2") }); KindOf(err) != KindExists || !strings.Contains(err.Error(), "NSID 1 of host esx2") {
		t.Errorf("got %v", err)
	}
}

// A host with more volumes than namespaces sees the rest over iSCSI alone.
func TestNamespacesRunOut(t *testing.T) {
	taken := make([]bool, MaxNSID+1)
	taken[0] = true
	for lun := range uint16(MaxNSID + 2) {
		want := uint32(lun) + 1
		if want > MaxNSID {
			want = 0
		}
		if got := freeNSID(taken, lun); got != want {
			t.Fatalf("LUN %d has NSID %d, want %d", lun, got, want)
		}
		taken[want] = true
	}
	m := Mapping{LUN: 2000}
	if m.numbers() != "LUN 2000" {
		t.Error(m.numbers())
	}
}

// withoutNVMe returns a document as a program wrote it that knew no NVMe.
func withoutNVMe(t *testing.T, doc []byte) []byte {
	t.Helper()
	var d map[string]any
	if err := json.Unmarshal(doc, &d); err != nil {
		t.Fatal(err)
	}
	delete(d["target"].(map[string]any), "subsystem_nqn")
	for _, p := range d["portals"].([]any) {
		delete(p.(map[string]any), "protocol")
	}
	for _, m := range d["mappings"].([]any) {
		delete(m.(map[string]any), "nsid")
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDocumentsOfBeforeNVMe(t *testing.T) {
	s, env := setup(t)
	for _, step := range []func() (*State, error){
		func() (*State, error) { return first(s.AddPortal(env, Portal{Address: netip.MustParseAddr("::1")})) },
		func() (*State, error) { return first(s.CreateMapping(env, "db1", To{Group: "esx"}, MappingSpec{})) },
		func() (*State, error) {
			return first(s.CreateMapping(env, "db2", To{Host: "esx1"}, MappingSpec{LUN: new(uint32(1024))}))
		},
	} {
		next, err := step()
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	b, err := s.Document.Encode()
	if err != nil {
		t.Fatal(err)
	}
	old, err := DecodeDocument(withoutNVMe(t, b))
	if err != nil {
		t.Fatal(err)
	}
	completed, err := NewState(old, s.Pools)
	if err != nil {
		t.Fatal(err)
	}
	d := completed.Document
	if d.Target.SubsystemNQN != s.Document.Target.SubsystemNQN || d.Portals[0].Protocol != ISCSI || d.Mappings[0].NSID != 1 || d.Mappings[1].NSID != 0 {
		t.Errorf("completed to %+v, %+v, %+v, %+v", d.Target, d.Portals[0], d.Mappings[0], d.Mappings[1])
	}
	if old.Target.SubsystemNQN != "" || old.Portals[0].Protocol != "" || old.Mappings[0].NSID != 0 {
		t.Error("what was decoded has changed")
	}
	if again := complete(d); again != d {
		t.Error("what is complete was completed again")
	}
	// A mapping that has no NSID keeps none.
	if _, m, _, err := completed.UpdateMapping("db2", To{Host: "esx1"}, "", true); err != nil || m.NSID != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := DecodeDocument(append(b, 'x')); err == nil || errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
}

// Whatever LUNs and NSIDs are asked for, a host sees a volume once and nothing twice.
func TestNumbersModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, env := newState(t)
		for _, name := range []string{"aa", "bb", "cc", "dd", "ee"} {
			next, _, _, err := s.CreateVolume(env, "", Volume{Name: name, Kind: VolumeNull, Size: GiB})
			if err != nil {
				t.Fatal(err)
			}
			s = next
		}
		s, h, _, err := s.CreateHost(env, Host{Name: "esx1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"aa", "bb", "cc", "dd", "ee"} {
			var spec MappingSpec
			if rapid.Bool().Draw(t, "lun given") {
				spec.LUN = new(rapid.SampledFrom([]uint32{0, 1, 2, 1022, 1023, 1024, 16383}).Draw(t, "lun"))
			}
			if rapid.Bool().Draw(t, "nsid given") {
				spec.NSID = new(rapid.SampledFrom([]uint32{1, 2, 3, 1023, 1024}).Draw(t, "nsid"))
			}
			next, _, _, err := s.CreateMapping(env, name, To{Host: "esx1"}, spec)
			if err == nil {
				s = next
			} else if KindOf(err) != KindExists {
				t.Fatal(err)
			}
		}
		luns, namespaces := s.LUNs(h.ID), s.Namespaces(h.ID)
		if len(luns) != len(namespaces) {
			t.Fatalf("%d LUNs but %d namespaces", len(luns), len(namespaces))
		}
		for i := 1; i < len(namespaces); i++ {
			if namespaces[i].ID <= namespaces[i-1].ID {
				t.Fatalf("namespaces are not in order: %d, %d", namespaces[i-1].ID, namespaces[i].ID)
			}
		}
	})
}

// TestReferrals checks which discovery services hosts can be referred to (NVMe Base 2.0 §5.16.1.23).
func TestReferrals(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.9": "192.0.2.9:8009", "192.0.2.9:4420": "192.0.2.9:4420", "2001:db8::1": "[2001:db8::1]:8009",
		"[2001:db8::1]": "[2001:db8::1]:8009", "[2001:db8::1]:99": "[2001:db8::1]:99", "::ffff:192.0.2.9": "192.0.2.9:8009",
	} {
		if at, err := ParseReferral(text); err != nil || at.String() != want {
			t.Errorf("%q: %s, %v", text, at, err)
		}
	}
	for _, text := range []string{"", "array2", "0.0.0.0", "[::]:8009", "192.0.2.9:0", "224.0.0.1", "fe80::1%eth0"} {
		if at, err := ParseReferral(text); KindOf(err) != KindInvalid {
			t.Errorf("%q: %s, %v", text, at, err)
		}
	}
	s, _ := newState(t)
	idle := func(Protocol) bool { return false }
	set := func(list ...netip.AddrPort) (*State, Plan, error) {
		return s.UpdateTarget("", idle, func(t *Target) { t.Referrals = list })
	}
	one := netip.MustParseAddrPort("192.0.2.9:8009")
	if _, _, err := set(one, one); KindOf(err) != KindInvalid {
		t.Errorf("one twice: %v", err)
	}
	if _, _, err := set(make([]netip.AddrPort, MaxReferrals+1)...); KindOf(err) != KindInvalid {
		t.Errorf("too many: %v", err)
	}
	next, plan, err := set(one)
	if err != nil || len(next.Document.Target.Referrals) != 1 || len(s.Document.Target.Referrals) != 0 || len(plan.Steps) != 1 {
		t.Errorf("%v, %v", plan, err)
	}
}
