package agent_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/block"
)

const gib = 1 << 30

func (r *rig) createVolume(spec *lintelv1.VolumeSpec) *lintelv1.Volume {
	r.t.Helper()
	return call(r, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: spec}).Volume
}

func (r *rig) volume(name string) *lintelv1.Volume {
	r.t.Helper()
	return call(r, r.volumes.GetVolume, &lintelv1.GetVolumeRequest{Name: name}).Volume
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func (r *rig) backing(v *lintelv1.Volume) string {
	return filepath.Join(r.dir, "pools", v.Spec.Pool, "volumes", v.Id)
}

func TestVolumeSurvivesRestart(t *testing.T) {
	r := newRig(t)
	resp := call(r, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib + 1, Comment: "täst"}})
	v := resp.Volume
	if v.Spec.SizeBytes != gib+1<<20 || resp.RequestedBytes != gib+1 {
		t.Errorf("size %d for %d, want it rounded up to 1 MiB", v.Spec.SizeBytes, resp.RequestedBytes)
	}
	if len(resp.Plan.Steps) != 2 {
		t.Errorf("plan %q, want a step for the rounding and one for the volume", resp.Plan.Steps)
	}
	if v.Status.State != lintelv1.VolumeState_VOLUME_STATE_ONLINE || v.Spec.Vendor != "LINTEL" || v.Spec.Product != "VIRTUAL-DISK" ||
		!strings.HasPrefix(v.Spec.NaaId, "6024c4e") || len(v.Spec.NaaId) != 32 || !v.Spec.GetThin() || v.Spec.GetPhysicalExponent() != 3 {
		t.Errorf("got %v", v)
	}
	st, err := os.Stat(r.backing(v))
	if err != nil || st.Size() != int64(v.Spec.SizeBytes) {
		t.Fatalf("backing file: %v, %v", st, err)
	}
	r.restart()
	if diff := cmp.Diff(v, r.volume("db1"), protocmp.Transform()); diff != "" {
		t.Errorf("after a restart (-before +after):\n%s", diff)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	r := newRig(t)
	r.createVolume(&lintelv1.VolumeSpec{Name: "keep", SizeBytes: gib})
	before := r.agent.State()
	resp := call(r, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib}, DryRun: true})
	if resp.Volume.Spec.Name != "db1" || len(resp.Plan.Steps) != 1 {
		t.Errorf("dry run answers %v", resp)
	}
	call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "keep", DryRun: true})
	call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "keep", SizeBytes: 2 * gib, DryRun: true})
	call(r, r.pools.CreatePool, &lintelv1.CreatePoolRequest{Spec: &lintelv1.PoolSpec{Name: "fast"}, DryRun: true})
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}, DryRun: true})
	call(r, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "::1"}, DryRun: true})
	if r.agent.State() != before {
		t.Error("a dry run has changed the state")
	}
	refuse(r, connect.CodeAlreadyExists, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "keep", SizeBytes: gib}, DryRun: true})
}

func TestUpdateVolumeInUse(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	r.plane.inUse[v.Id] = 1
	for path, spec := range map[string]*lintelv1.VolumeSpec{
		"naa_id": {NaaId: "5001122334455667"}, "eui64_id": {Eui64Id: "0011223344556677"}, "t10_dev_id": {T10DevId: "x"},
		"usn": {Usn: "x"}, "physical_exponent": {PhysicalExponent: new(uint32(1))}, "thin": {Thin: new(false)},
	} {
		err := refuse(r, connect.CodeFailedPrecondition, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "db1", Spec: spec, UpdateMask: mask(path)})
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: the error does not name the field: %v", path, err)
		}
	}
	got := call(r, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{
		Name: "db1", Etag: v.Etag, Spec: &lintelv1.VolumeSpec{Name: "db2", ReadOnly: true, WriteThrough: true, Rotational: true, Product: "ACME", ThinThresholdPercent: 80},
		UpdateMask: mask("name", "read_only", "write_through", "rotational", "product", "thin_threshold_percent"),
	}).Volume
	if s := got.Spec; s.Name != "db2" || !s.ReadOnly || !s.WriteThrough || !s.Rotational || s.Product != "ACME" || s.ThinThresholdPercent != 80 || got.Id != v.Id {
		t.Errorf("got %v", got)
	}
	refuse(r, connect.CodeAborted, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "db2", Etag: v.Etag, Spec: &lintelv1.VolumeSpec{}, UpdateMask: mask("comment")})
	r.plane.inUse[v.Id] = 0
	got = call(r, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "db2", Spec: &lintelv1.VolumeSpec{NaaId: "50:01:12:23:34:45:56:67"}, UpdateMask: mask("naa_id")}).Volume
	if got.Spec.NaaId != "5001122334455667" {
		t.Errorf("naa_id %s", got.Spec.NaaId)
	}
}

func TestVolumeErrors(t *testing.T) {
	r := newRig(t)
	r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib, NaaId: "5001122334455667", Usn: "S1"})
	for name, c := range map[string]struct {
		code connect.Code
		spec *lintelv1.VolumeSpec
	}{
		"no spec":         {connect.CodeInvalidArgument, nil},
		"no name":         {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{SizeBytes: gib}},
		"bad name":        {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "../x", SizeBytes: gib}},
		"no size":         {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1"}},
		"huge":            {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: 1<<64 - 1}},
		"block size":      {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, BlockSize: 1024}},
		"exponent":        {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, PhysicalExponent: new(uint32(257))}},
		"threshold":       {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, ThinThresholdPercent: 356}},
		"path":            {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, Path: "/dev/null"}},
		"not a disk":      {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", Kind: lintelv1.VolumeKind_VOLUME_KIND_DISK, Path: "/dev/null"}},
		"missing disk":    {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", Kind: lintelv1.VolumeKind_VOLUME_KIND_DISK, Path: "/dev/lintel-none"}},
		"kind":            {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, Kind: 99}},
		"naa":             {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, NaaId: "1234"}},
		"vendor":          {connect.CodeInvalidArgument, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, Vendor: "far too long"}},
		"no pool":         {connect.CodeNotFound, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, Pool: "none"}},
		"name taken":      {connect.CodeAlreadyExists, &lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib}},
		"naa taken":       {connect.CodeAlreadyExists, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, NaaId: "5001122334455667"}},
		"usn taken":       {connect.CodeAlreadyExists, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: gib, Usn: "S1"}},
		"too large thick": {connect.CodeFailedPrecondition, &lintelv1.VolumeSpec{Name: "x1", SizeBytes: 15 << 40, Thin: new(false)}},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			refuse(r, c.code, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: c.spec})
		})
	}
	r.t = t
	refuse(r, connect.CodeInvalidArgument, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "db1"})
	refuse(r, connect.CodeInvalidArgument, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "db1", UpdateMask: mask("size_bytes")})
	refuse(r, connect.CodeNotFound, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "none", UpdateMask: mask("name")})
	refuse(r, connect.CodeFailedPrecondition, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: 1 << 20})
	refuse(r, connect.CodeNotFound, r.volumes.GetVolume, &lintelv1.GetVolumeRequest{Name: "none"})
	refuse(r, connect.CodeNotFound, r.volumes.ListVolumes, &lintelv1.ListVolumesRequest{Pool: "none"})
	files, err := os.ReadDir(filepath.Join(r.dir, "pools/default/volumes"))
	if err != nil || len(files) != 1 {
		t.Errorf("backing files after refusals: %v, %v", files, err)
	}
}

func TestResizeAndDelete(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	size := func() int64 {
		st, err := os.Stat(r.backing(v))
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: 3 * gib})
	if size() != 3*gib {
		t.Errorf("grown to %d", size())
	}
	resp := call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: gib, Shrink: true})
	if size() != gib || len(resp.Plan.Warnings) != 1 {
		t.Errorf("shrunk to %d with warnings %q", size(), resp.Plan.Warnings)
	}
	call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: 2 * gib})
	r.restart()
	if got := r.volume("db1"); got.Spec.SizeBytes != 2*gib || got.Status.State != lintelv1.VolumeState_VOLUME_STATE_ONLINE {
		t.Errorf("after a restart: %v", got)
	}
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	call(r, r.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: &lintelv1.MappingSpec{Volume: "db1", To: &lintelv1.MappingSpec_Host{Host: "esx1"}}})
	refuse(r, connect.CodeFailedPrecondition, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1"})
	call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1", Force: true})
	if _, err := os.Stat(r.backing(v)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the backing file is still there: %v", err)
	}
	if again := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib}); again.Id == v.Id {
		t.Errorf("id %s was used twice", v.Id)
	}
	if doomed := r.agent.State().Pools[0].Doomed; len(doomed) != 0 {
		t.Errorf("doomed %v, want it tidied up", doomed)
	}
	if n := len(call(r, r.mappings.ListMappings, &lintelv1.ListMappingsRequest{}).Mappings); n != 0 {
		t.Errorf("%d mappings are left", n)
	}
}

func TestVolumeKinds(t *testing.T) {
	r := newRig(t)
	r.createVolume(&lintelv1.VolumeSpec{Name: "null1", SizeBytes: gib, Kind: lintelv1.VolumeKind_VOLUME_KIND_NULL})
	r.createVolume(&lintelv1.VolumeSpec{Name: "mem1", SizeBytes: gib, Kind: lintelv1.VolumeKind_VOLUME_KIND_MEM, BlockSize: 4096})
	thick := r.createVolume(&lintelv1.VolumeSpec{Name: "thick1", SizeBytes: 4 << 20, Thin: new(false)})
	thin := r.createVolume(&lintelv1.VolumeSpec{Name: "thin1", SizeBytes: 4 << 20})
	if thick.Status.GetUsedBytes() < 4<<20 || thin.Status.GetUsedBytes() != 0 {
		t.Errorf("used: thick %d, thin %d", thick.Status.GetUsedBytes(), thin.Status.GetUsedBytes())
	}
	got := call(r, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "thin1", Spec: &lintelv1.VolumeSpec{Thin: new(false)}, UpdateMask: mask("thin")}).Volume
	if got.Status.GetUsedBytes() < 4<<20 {
		t.Errorf("a volume made thick uses %d bytes", got.Status.GetUsedBytes())
	}
	for _, name := range []string{"thick1", "thin1"} {
		got := call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: name, SizeBytes: 12 << 20}).Volume
		if got.Status.GetUsedBytes() < 12<<20 {
			t.Errorf("%s, which is thick, uses %d bytes after it was grown to 12 MiB", name, got.Status.GetUsedBytes())
		}
	}
	call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "mem1", SizeBytes: 2 * gib})
	call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "null1"})
	list := call(r, r.volumes.ListVolumes, &lintelv1.ListVolumesRequest{Pool: "default"}).Volumes
	var names []string
	for _, v := range list {
		names = append(names, v.Spec.Name)
	}
	if diff := cmp.Diff([]string{"mem1", "thick1", "thin1"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestMissingBackingFile(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	r.stop()
	if err := os.Remove(r.backing(v)); err != nil {
		t.Fatal(err)
	}
	r.start()
	if got := r.volume("db1"); got.Status.State != lintelv1.VolumeState_VOLUME_STATE_OFFLINE || got.Status.Reason == "" {
		t.Errorf("got %v", got.Status)
	}
	alerts := call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts
	if len(alerts) == 0 || alerts[0].Code != "volume-offline" || alerts[0].Subject != "volume/db1" {
		t.Errorf("alerts %v", alerts)
	}
}

// Concurrent mutations share writes, and each sees the ones before it.
func TestConcurrentMutations(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	errs := make([]error, 40)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = r.volumes.CreateVolume(t.Context(), connect.NewRequest(&lintelv1.CreateVolumeRequest{
				Spec: &lintelv1.VolumeSpec{Name: fmt.Sprintf("vol-%d", i/2), SizeBytes: gib},
			}))
		})
	}
	wg.Wait()
	taken := 0
	for _, err := range errs {
		if err != nil && connect.CodeOf(err) != connect.CodeAlreadyExists {
			t.Error(err)
		}
		if err != nil {
			taken++
		}
	}
	if taken != 20 {
		t.Errorf("%d of 40 were refused, want one of each name", taken)
	}
	r.restart()
	if n := len(call(r, r.volumes.ListVolumes, &lintelv1.ListVolumesRequest{}).Volumes); n != 20 {
		t.Errorf("%d volumes, want 20", n)
	}
}

// A volume is noted as to be cut until its file has been, also where it was cut before.
func TestShrinkIsNotedUntilItIsDone(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: 4 * gib})
	noted := func() bool { return r.agent.State().Pools[0].Volumes[0].Truncate }
	for _, size := range []uint64{3 * gib, 2 * gib} {
		call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: size, Shrink: true})
		if !noted() {
			t.Errorf("a crash before the file is cut to %d bytes makes it one that was changed from outside", size)
		}
	}
	r.createVolume(&lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib})
	if noted() {
		t.Error("still noted after it was cut")
	}
	// The data plane cannot cut a file that is elsewhere.
	path := r.backing(v)
	if err := os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: gib, Shrink: true})
	r.createVolume(&lintelv1.VolumeSpec{Name: "db3", SizeBytes: gib})
	if !noted() {
		t.Error("no longer noted, and never cut")
	}
}

// A volume is opened anew by the data plane, in a bounded time; who asks is told what may be lost.
func TestReopenVolume(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	r.createVolume(&lintelv1.VolumeSpec{Name: "ram", SizeBytes: gib, Kind: lintelv1.VolumeKind_VOLUME_KIND_MEM})
	refuse(r, connect.CodeNotFound, r.volumes.ReopenVolume, &lintelv1.ReopenVolumeRequest{Name: "db2"})
	if err := refuse(r, connect.CodeFailedPrecondition, r.volumes.ReopenVolume, &lintelv1.ReopenVolumeRequest{Name: "ram"}); !strings.Contains(err.Error(), "kind mem") {
		t.Error(err)
	}
	if p := call(r, r.volumes.ReopenVolume, &lintelv1.ReopenVolumeRequest{Name: "db1"}).Plan; len(p.Warnings) != 0 {
		t.Errorf("a healthy volume: %v", p.Warnings)
	}
	r.plane.mu.Lock()
	r.plane.health[v.Id] = block.Health{Failed: 7, Fault: &block.Fault{Kind: block.FaultLost, Reason: "what it is"}}
	r.plane.reopenErr = errors.New("it still fails")
	r.plane.mu.Unlock()
	if err := refuse(r, connect.CodeUnavailable, r.volumes.ReopenVolume, &lintelv1.ReopenVolumeRequest{Name: "db1"}); !strings.Contains(err.Error(), "volume db1 is as it was: it still fails") {
		t.Error(err)
	}
	r.plane.mu.Lock()
	r.plane.reopenErr = nil
	r.plane.mu.Unlock()
	for _, dry := range []bool{true, false} {
		res := call(r, r.volumes.ReopenVolume, &lintelv1.ReopenVolumeRequest{Name: "db1", DryRun: dry})
		if len(res.Plan.Steps) != 1 || len(res.Plan.Warnings) != 1 || !strings.Contains(res.Plan.Warnings[0], "may be lost") {
			t.Errorf("dry run %v: %v", dry, res.Plan)
		}
		if degraded := res.Volume.Status.State == lintelv1.VolumeState_VOLUME_STATE_DEGRADED; degraded != dry {
			t.Errorf("dry run %v: degraded %v", dry, degraded)
		}
	}
	r.plane.mu.Lock()
	if got := r.plane.reopened; len(got) != 2 || got[1] != v.Id {
		t.Errorf("opened anew: %v", got)
	}
	r.plane.away = true
	r.plane.mu.Unlock()
	refuse(r, connect.CodeUnavailable, r.volumes.ReopenVolume, &lintelv1.ReopenVolumeRequest{Name: "db1"})
	log, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	if err != nil || strings.Count(string(log), "ReopenVolume") != 7 {
		t.Errorf("audit log: %v\n%s", err, log)
	}
}
