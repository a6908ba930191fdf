package agent_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
)

func TestHosts(t *testing.T) {
	r := newRig(t)
	h := call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{
		Name: "esx1", Initiators: []string{"IQN.1998-01.com.vmware:esx1", "iqn.1998-01.com.vmware:esx1-*"},
		Addresses: []string{"192.0.2.7", "2001:db8::5/32"},
		ChapUser:  "esx1", ChapSecret: "secret-of-esx1", MutualUser: "array", MutualSecret: "secret-of-array",
	}}).Host
	want := &lintelv1.HostSpec{
		Name: "esx1", Initiators: []string{"iqn.1998-01.com.vmware:esx1", "iqn.1998-01.com.vmware:esx1-*"},
		Addresses: []string{"192.0.2.7", "2001:db8::/32"}, ChapUser: "esx1", MutualUser: "array",
	}
	if diff := cmp.Diff(want, h.Spec, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if !h.Status.ChapSecretSet || !h.Status.MutualSecretSet {
		t.Errorf("status %v", h.Status)
	}
	r.restart()
	if got, _ := r.agent.State().Host("esx1"); got.CHAPSecret != "secret-of-esx1" || got.MutualSecret != "secret-of-array" {
		t.Error("the secrets did not survive a restart")
	}
	h = call(r, r.hosts.UpdateHost, &lintelv1.UpdateHostRequest{Name: "esx1", Etag: h.Etag, Spec: &lintelv1.HostSpec{}, UpdateMask: mask("chap_user", "addresses")}).Host
	if h.Status.ChapSecretSet || h.Status.MutualSecretSet || h.Spec.MutualUser != "" || len(h.Spec.Addresses) != 0 {
		t.Errorf("CHAP is still set: %v", h)
	}
	for _, spec := range []*lintelv1.HostSpec{
		{Name: "esx1"},
		{Name: "esx2", Initiators: []string{"iqn.1998-01.com.vmware:esx1"}},
	} {
		refuse(r, connect.CodeAlreadyExists, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: spec})
	}
	for _, spec := range []*lintelv1.HostSpec{
		nil,
		{Name: "esx2", Initiators: []string{"no name"}},
		{Name: "esx2", Addresses: []string{"10.0.0.0/99"}},
		{Name: "esx2", ChapUser: "u", ChapSecret: "short"},
		{Name: "esx2", ChapSecret: "long-enough-secret"},
		{Name: "esx2", ChapUser: "u", ChapSecret: "long-enough-secret", MutualUser: "v", MutualSecret: "long-enough-secret"},
	} {
		refuse(r, connect.CodeInvalidArgument, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: spec})
	}
	call(r, r.hosts.DeleteHost, &lintelv1.DeleteHostRequest{Name: "esx1"})
	refuse(r, connect.CodeNotFound, r.hosts.GetHost, &lintelv1.GetHostRequest{Name: "esx1"})
}

func TestNVMeHosts(t *testing.T) {
	r := newRig(t)
	const key, ctrl = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:", "DHHC-1:02:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vcSEgBQ==:"
	h := call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{
		Name: "esx1", Initiators: []string{"iqn.1998-01.com.vmware:esx1"}, Nqns: []string{"nqn.2014-08.com.vmware:ESX1"},
		DhchapKey: key, DhchapCtrlKey: ctrl,
	}}).Host
	if h.Spec.DhchapKey != "" || h.Spec.DhchapCtrlKey != "" || !h.Status.DhchapKeySet || !h.Status.DhchapCtrlKeySet || h.Spec.Nqns[0] != "nqn.2014-08.com.vmware:ESX1" {
		t.Errorf("host %v", h)
	}
	refuse(r, connect.CodeAlreadyExists, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx2", Nqns: []string{"nqn.2014-08.com.vmware:ESX1"}}})
	refuse(r, connect.CodeInvalidArgument, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx2", Nqns: []string{"nqn"}}})
	refuse(r, connect.CodeInvalidArgument, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx2", DhchapKey: ctrl[:20]}})
	r.restart()
	if got, _ := r.agent.State().Host("esx1"); got.DHCHAPKey != key || got.DHCHAPCtrlKey != ctrl {
		t.Error("the keys did not survive a restart")
	}
	h = call(r, r.hosts.UpdateHost, &lintelv1.UpdateHostRequest{Name: "esx1", Spec: &lintelv1.HostSpec{}, UpdateMask: mask("dhchap_key", "nqns")}).Host
	if h.Status.DhchapKeySet || h.Status.DhchapCtrlKeySet || len(h.Spec.Nqns) != 0 {
		t.Errorf("host %v", h)
	}
	b, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "AAEC") || strings.Count(string(b), `"***"`) != 3 {
		t.Errorf("the audit log shows a key: %s", b)
	}
}

func TestNVMePortalsAndSessions(t *testing.T) {
	r := newRig(t)
	const nvme = lintelv1.Protocol_PROTOCOL_NVME_TCP
	p := call(r, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1", Protocol: nvme}}).Portal
	if p.Spec.Port != 4420 || p.Spec.Protocol != nvme {
		t.Errorf("portal %v", p)
	}
	refuse(r, connect.CodeAlreadyExists, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1", Port: 4420}})
	refuse(r, connect.CodeInvalidArgument, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1", Protocol: 99}})
	refuse(r, connect.CodeInvalidArgument, r.target.RemovePortal, &lintelv1.RemovePortalRequest{Address: "127.0.0.1", Protocol: 99})
	refuse(r, connect.CodeNotFound, r.target.RemovePortal, &lintelv1.RemovePortalRequest{Address: "127.0.0.1"})
	call(r, r.target.RemovePortal, &lintelv1.RemovePortalRequest{Address: "127.0.0.1", Protocol: nvme})

	r.plane.sessions = []agent.Session{{
		ID: "n1", Protocol: array.NVMeTCP, Initiator: "nqn.2014-08.com.vmware:esx1", ControllerID: 3, HostIdentifier: [16]byte{1}, Authenticated: true,
		Connections: []agent.Connection{{QueueDepth: 32}, {QueueID: 1, QueueDepth: 128}},
	}}
	s := call(r, r.sessions.ListSessions, &lintelv1.ListSessionsRequest{}).Sessions[0]
	if s.Protocol != nvme || s.ControllerId != 3 || s.Isid != "" || s.HostIdentifier != "01000000000000000000000000000000" || !s.Authenticated || s.Connections[1].QueueId != 1 || s.Connections[1].QueueDepth != 128 {
		t.Errorf("session %v", s)
	}
	set := func(code connect.Code, field string) {
		t.Helper()
		req := &lintelv1.UpdateTargetRequest{UpdateMask: mask(field), Spec: &lintelv1.TargetSpec{Iqn: "iqn.2020-01.com.example:x", SubsystemNqn: "nqn.2020-01.com.example:X"}}
		if _, err := r.target.UpdateTarget(t.Context(), connect.NewRequest(req)); err == nil && code != 0 || err != nil && connect.CodeOf(err) != code {
			t.Errorf("%s: %v", field, err)
		}
	}
	set(connect.CodeFailedPrecondition, "subsystem_nqn")
	r.plane.sessions[0].Discovery = true // one that waits for news does not keep the name
	set(0, "subsystem_nqn")
	set(0, "iqn") // no iSCSI session uses it
	r.plane.sessions = nil
	target := call(r, r.target.GetTarget, &lintelv1.GetTargetRequest{}).Target
	if target.Spec.SubsystemNqn != "nqn.2020-01.com.example:X" || target.SubsystemSerial != r.agent.State().Document.ID || target.SubsystemModel == "" {
		t.Errorf("target %v", target)
	}
}

func toHost(name string) *lintelv1.MappingSpec_Host { return &lintelv1.MappingSpec_Host{Host: name} }

func toGroup(name string) *lintelv1.MappingSpec_HostGroup {
	return &lintelv1.MappingSpec_HostGroup{HostGroup: name}
}

func TestGroupsAndMappings(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"esx1", "esx2"} {
		call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: name}})
	}
	for _, name := range []string{"db1", "db2", "db3"} {
		r.createVolume(&lintelv1.VolumeSpec{Name: name, SizeBytes: gib})
	}
	call(r, r.groups.CreateHostGroup, &lintelv1.CreateHostGroupRequest{Spec: &lintelv1.HostGroupSpec{Name: "esx", Hosts: []string{"esx1"}}})
	refuse(r, connect.CodeAlreadyExists, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx"}})
	create := func(spec *lintelv1.MappingSpec) *lintelv1.Mapping {
		return call(r, r.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: spec}).Mapping
	}
	if m := create(&lintelv1.MappingSpec{Volume: "db1", To: toGroup("esx")}); m.Spec.GetLun() != 0 {
		t.Errorf("first LUN %d", m.Spec.GetLun())
	}
	if m := create(&lintelv1.MappingSpec{Volume: "db2", To: toHost("esx1")}); m.Spec.GetLun() != 1 {
		t.Errorf("second LUN %d: 0 is the group's", m.Spec.GetLun())
	}
	create(&lintelv1.MappingSpec{Volume: "db3", To: toHost("esx2"), Lun: new(uint32(0)), ReadOnly: true})
	refuse(r, connect.CodeAlreadyExists, r.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: &lintelv1.MappingSpec{Volume: "db1", To: toHost("esx1")}})
	refuse(r, connect.CodeAlreadyExists, r.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: &lintelv1.MappingSpec{Volume: "db3", To: toHost("esx1"), Lun: new(uint32(0))}})
	// esx2 has another volume at the group's LUN 0.
	refuse(r, connect.CodeAlreadyExists, r.groups.UpdateHostGroup, &lintelv1.UpdateHostGroupRequest{Name: "esx", Spec: &lintelv1.HostGroupSpec{Hosts: []string{"esx1", "esx2"}}, UpdateMask: mask("hosts")})
	for _, req := range []*lintelv1.CreateMappingRequest{
		{}, {Spec: &lintelv1.MappingSpec{Volume: "db1"}}, {Spec: &lintelv1.MappingSpec{Volume: "db1", To: toHost("esx2"), Lun: new(uint32(16384))}},
	} {
		if _, err := r.mappings.CreateMapping(t.Context(), connect.NewRequest(req)); err == nil {
			t.Errorf("%v was accepted", req)
		}
	}
	if n := len(call(r, r.mappings.ListMappings, &lintelv1.ListMappingsRequest{Host: "esx1"}).Mappings); n != 2 {
		t.Errorf("esx1 sees %d LUNs, want 2", n)
	}
	if n := len(call(r, r.mappings.ListMappings, &lintelv1.ListMappingsRequest{Volume: "db1", HostGroup: "esx"}).Mappings); n != 1 {
		t.Errorf("%d mappings of db1 to esx", n)
	}
	m := call(r, r.mappings.UpdateMapping, &lintelv1.UpdateMappingRequest{Volume: "db2", To: &lintelv1.UpdateMappingRequest_Host{Host: "esx1"}, ReadOnly: true}).Mapping
	if !m.Spec.ReadOnly {
		t.Error("the mapping is not read-only")
	}
	refuse(r, connect.CodeFailedPrecondition, r.hosts.DeleteHost, &lintelv1.DeleteHostRequest{Name: "esx1"})
	refuse(r, connect.CodeFailedPrecondition, r.groups.DeleteHostGroup, &lintelv1.DeleteHostGroupRequest{Name: "esx"})
	call(r, r.mappings.DeleteMapping, &lintelv1.DeleteMappingRequest{Volume: "db1", To: &lintelv1.DeleteMappingRequest_HostGroup{HostGroup: "esx"}})
	refuse(r, connect.CodeNotFound, r.mappings.DeleteMapping, &lintelv1.DeleteMappingRequest{Volume: "db1", To: &lintelv1.DeleteMappingRequest_HostGroup{HostGroup: "esx"}})
	call(r, r.hosts.DeleteHost, &lintelv1.DeleteHostRequest{Name: "esx1", Force: true})
	g := call(r, r.groups.GetHostGroup, &lintelv1.GetHostGroupRequest{Name: "esx"}).HostGroup
	if len(g.Spec.Hosts) != 0 {
		t.Errorf("group has %v", g.Spec.Hosts)
	}
	call(r, r.groups.UpdateHostGroup, &lintelv1.UpdateHostGroupRequest{Name: "esx", Etag: g.Etag, Spec: &lintelv1.HostGroupSpec{Name: "vmware", Comment: "c"}, UpdateMask: mask("name", "comment")})
	if list := call(r, r.groups.ListHostGroups, &lintelv1.ListHostGroupsRequest{}).HostGroups; len(list) != 1 || list[0].Spec.Name != "vmware" {
		t.Errorf("groups %v", list)
	}
	call(r, r.groups.DeleteHostGroup, &lintelv1.DeleteHostGroupRequest{Name: "vmware"})
	if list := call(r, r.hosts.ListHosts, &lintelv1.ListHostsRequest{}).Hosts; len(list) != 1 || list[0].Status.Luns != 1 {
		t.Errorf("hosts %v", list)
	}
}

func TestTarget(t *testing.T) {
	r := newRig(t)
	target := call(r, r.target.GetTarget, &lintelv1.GetTargetRequest{}).Target
	if !strings.HasPrefix(target.Spec.Iqn, "iqn.2026-11.io.lintel:lintel.") || len(target.PortGroups) != 1 || len(target.Portals) != 0 {
		t.Errorf("new target %v", target)
	}
	p := call(r, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1"}}).Portal
	if p.Spec.Port != 3260 || p.Spec.Tag != 1 || p.Listening != "127.0.0.1:3260" {
		t.Errorf("portal %v", p)
	}
	if p := call(r, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "[::1]", Port: 3261}}).Portal; p.Spec.Tag != 2 {
		t.Errorf("second portal %v", p)
	}
	refuse(r, connect.CodeAlreadyExists, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1", Port: 3260}})
	refuse(r, connect.CodeInvalidArgument, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "localhost"}})
	refuse(r, connect.CodeInvalidArgument, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "::1", Port: 70000}})
	r.plane.busy[netip.MustParseAddrPort("127.0.0.1:3262")] = true
	refuse(r, connect.CodeUnavailable, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1", Port: 3262}})
	call(r, r.target.RemovePortal, &lintelv1.RemovePortalRequest{Address: "127.0.0.1"})
	refuse(r, connect.CodeNotFound, r.target.RemovePortal, &lintelv1.RemovePortalRequest{Address: "127.0.0.1"})

	got := call(r, r.target.UpdateTarget, &lintelv1.UpdateTargetRequest{
		Etag: target.Etag, UpdateMask: mask("iqn", "alias", "chap_algorithms"),
		Spec: &lintelv1.TargetSpec{Iqn: "iqn.2020-01.com.example:SAN", Alias: "my san", ChapAlgorithms: []lintelv1.ChapAlgorithm{lintelv1.ChapAlgorithm_CHAP_ALGORITHM_SHA256}},
	}).Target
	if got.Spec.Iqn != "iqn.2020-01.com.example:san" || got.Spec.Alias != "my san" || len(got.Spec.ChapAlgorithms) != 1 {
		t.Errorf("target %v", got)
	}
	r.plane.sessions = []agent.Session{{ID: "1", Protocol: array.ISCSI}}
	refuse(r, connect.CodeFailedPrecondition, r.target.UpdateTarget, &lintelv1.UpdateTargetRequest{UpdateMask: mask("iqn"), Spec: &lintelv1.TargetSpec{Iqn: "iqn.2020-01.com.example:x"}})
	refuse(r, connect.CodeInvalidArgument, r.target.UpdateTarget, &lintelv1.UpdateTargetRequest{UpdateMask: mask("wwn"), Spec: &lintelv1.TargetSpec{}})

	set := call(r, r.target.SetAccessState, &lintelv1.SetAccessStateRequest{Pool: "default", State: lintelv1.AccessState_ACCESS_STATE_STANDBY})
	if s := set.Target.PortGroups[0].Pools[0].State; s != lintelv1.AccessState_ACCESS_STATE_STANDBY || len(set.Plan.Warnings) != 1 {
		t.Errorf("state %v, plan %v", s, set.Plan)
	}
	refuse(r, connect.CodeInvalidArgument, r.target.SetAccessState, &lintelv1.SetAccessStateRequest{Pool: "default"})
	refuse(r, connect.CodeNotFound, r.target.SetAccessState, &lintelv1.SetAccessStateRequest{Pool: "default", PortGroup: 7, State: lintelv1.AccessState_ACCESS_STATE_STANDBY})
}

func TestPools(t *testing.T) {
	r := newRig(t)
	p := call(r, r.pools.CreatePool, &lintelv1.CreatePoolRequest{Spec: &lintelv1.PoolSpec{Name: "fast", Comment: "c"}}).Pool
	if p.Status.State != lintelv1.PoolState_POOL_STATE_ONLINE || p.Status.System || p.Status.SizeBytes == 0 || p.Status.Path != filepath.Join(r.dir, "pools/fast") {
		t.Errorf("pool %v", p)
	}
	refuse(r, connect.CodeAlreadyExists, r.pools.CreatePool, &lintelv1.CreatePoolRequest{Spec: &lintelv1.PoolSpec{Name: "fast"}})
	refuse(r, connect.CodeInvalidArgument, r.pools.CreatePool, &lintelv1.CreatePoolRequest{})
	r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib, Pool: "fast"})
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	call(r, r.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: &lintelv1.MappingSpec{Volume: "db1", To: toHost("esx1")}})
	refuse(r, connect.CodeFailedPrecondition, r.pools.DeletePool, &lintelv1.DeletePoolRequest{Name: "fast"})
	refuse(r, connect.CodeFailedPrecondition, r.pools.DeletePool, &lintelv1.DeletePoolRequest{Name: "default"})
	r.restart()
	if store, err := r.agent.Pool(p.Id); err != nil || store.Array().Generation != r.agent.State().Document.Generation {
		t.Errorf("the pool's copy of the configuration is behind (%v)", err)
	}
	call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1", Force: true})
	call(r, r.pools.DeletePool, &lintelv1.DeletePoolRequest{Name: "fast", Etag: p.Etag})
	if _, err := os.Stat(filepath.Join(r.dir, "pools/fast")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pool's directory is still there: %v", err)
	}
	r.restart()
	if list := call(r, r.pools.ListPools, &lintelv1.ListPoolsRequest{}).Pools; len(list) != 1 || !list[0].Status.System {
		t.Errorf("pools %v", list)
	}
	refuse(r, connect.CodeNotFound, r.pools.GetPool, &lintelv1.GetPoolRequest{Name: "fast"})
}

func TestSessionsAndStats(t *testing.T) {
	r := newRig(t)
	h := call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}}).Host
	r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	r.plane.sessions = []agent.Session{
		{ID: "2", Protocol: array.ISCSI, Initiator: "iqn.2001-04.com.example:b", Discovery: true},
		{ID: "1", Protocol: array.ISCSI, Initiator: "iqn.2001-04.com.example:a", HostID: h.Id, ISID: [6]byte{0, 2, 0x3d}, Connections: []agent.Connection{{Remote: netip.MustParseAddrPort("[::1]:4711")}}},
	}
	list := call(r, r.sessions.ListSessions, &lintelv1.ListSessionsRequest{}).Sessions
	if len(list) != 2 || list[0].Id != "1" || list[0].Host != "esx1" || list[0].Isid != "00023d000000" || list[0].Connections[0].Remote != "[::1]:4711" || list[0].Connections[0].Local != "" {
		t.Errorf("sessions %v", list)
	}
	if n := len(call(r, r.sessions.ListSessions, &lintelv1.ListSessionsRequest{Host: "esx1"}).Sessions); n != 1 {
		t.Errorf("%d sessions of esx1", n)
	}
	refuse(r, connect.CodeNotFound, r.sessions.ListSessions, &lintelv1.ListSessionsRequest{Host: "none"})
	call(r, r.sessions.DropSession, &lintelv1.DropSessionRequest{Id: "1", DryRun: true})
	call(r, r.sessions.DropSession, &lintelv1.DropSessionRequest{Id: "1"})
	refuse(r, connect.CodeNotFound, r.sessions.DropSession, &lintelv1.DropSessionRequest{Id: "1"})
	stats := call(r, r.stats.GetStats, &lintelv1.GetStatsRequest{})
	if len(stats.Volumes) != 1 || stats.Volumes[0].Io.ReadBytes != 4096 || stats.Process.ResidentBytes == 0 || stats.Process.CpuNanoseconds == 0 || stats.Time == nil {
		t.Errorf("stats %v", stats)
	}
	refuse(r, connect.CodeNotFound, r.stats.GetStats, &lintelv1.GetStatsRequest{Volume: "none"})
}

func TestSystem(t *testing.T) {
	r := newRig(t)
	info := call(r, r.system.GetInfo, &lintelv1.GetInfoRequest{})
	if info.Version != "test" || info.Array != "lintel" || info.Head != "head-a" || info.DataDir != r.dir || info.Format != 1 {
		t.Errorf("info %v", info)
	}
	a := call(r, r.system.UpdateArray, &lintelv1.UpdateArrayRequest{Spec: &lintelv1.ArraySpec{Name: "san-1", NaaPrefix: "AA-BB-CC"}, UpdateMask: mask("name", "naa_prefix")}).Array
	if a.Spec.Name != "san-1" || a.Spec.NaaPrefix != "aabbcc" {
		t.Errorf("array %v", a)
	}
	if v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib}); !strings.HasPrefix(v.Spec.NaaId, "6aabbcc") {
		t.Errorf("naa_id %s", v.Spec.NaaId)
	}
	refuse(r, connect.CodeInvalidArgument, r.system.UpdateArray, &lintelv1.UpdateArrayRequest{Spec: &lintelv1.ArraySpec{NaaPrefix: "12"}, UpdateMask: mask("naa_prefix")})
	r.restart()
	if got := call(r, r.system.GetArray, &lintelv1.GetArrayRequest{}).Array; got.Spec.Name != "san-1" || got.Etag != a.Etag {
		t.Errorf("array %v", got)
	}
	alerts := call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts
	var codes []string
	for _, a := range alerts {
		if a.Code != "pool-nearly-full" { // depends on the machine
			codes = append(codes, a.Code)
		}
		if a.Text == "" || a.Hint == "" || strings.Contains(a.Text, "%!") {
			t.Errorf("alert %v", a)
		}
	}
	if diff := cmp.Diff([]string{"no-portal"}, codes); diff != "" {
		t.Error(diff)
	}
}

func TestAuditLog(t *testing.T) {
	r := newRig(t)
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1", ChapUser: "u", ChapSecret: "do-not-show-this"}})
	refuse(r, connect.CodeNotFound, r.hosts.DeleteHost, &lintelv1.DeleteHostRequest{Name: "none"})
	call(r, r.hosts.ListHosts, &lintelv1.ListHostsRequest{})
	b, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "do-not-show-this") {
		t.Error("the audit log shows a secret")
	}
	var lines []map[string]any
	for line := range strings.Lines(string(b)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, m)
	}
	if len(lines) != 2 || lines[0]["code"] != "ok" || lines[1]["code"] != "not_found" || lines[0]["method"] != "/lintel.v1.HostService/CreateHost" {
		t.Errorf("audit log: %v", lines)
	}
}

func TestBrowsersAndOtherHostsAreRefused(t *testing.T) {
	r := newRig(t)
	for name, change := range map[string]func(*http.Request){
		"another host name": func(q *http.Request) { q.Host = "evil.example:80" },
		"another site":      func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "cross-site") },
	} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.server.URL+"/lintel.v1.PoolService/ListPools", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		change(q)
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: status %d", name, resp.StatusCode)
		}
	}
}
