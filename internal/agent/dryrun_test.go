package agent_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
)

// tooMuch returns more than a directory's file system has free.
func tooMuch(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return (st.Bavail*uint64(st.Bsize)/gib + 64) * gib
}

// What would be refused for want of space, or for what is in the way, a dry run refuses too, in the
// same words.
func TestDryRunRefusesWhatTheChangeWould(t *testing.T) {
	r := newRig(t)
	tooMuch := tooMuch(t, r.dir)
	r.createVolume(&lintelv1.VolumeSpec{Name: "thin1", SizeBytes: tooMuch})
	r.createVolume(&lintelv1.VolumeSpec{Name: "thick1", SizeBytes: 1 << 20, Thin: new(false)})
	if err := os.Mkdir(filepath.Join(r.dir, "pools", "fast"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := r.agent.State()
	for _, try := range []struct {
		name string
		code connect.Code
		call func(dry bool) error
	}{
		{"create thick", connect.CodeFailedPrecondition, func(dry bool) error {
			return refuse(r, connect.CodeFailedPrecondition, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{DryRun: dry, Spec: &lintelv1.VolumeSpec{Name: "db1", SizeBytes: tooMuch, Thin: new(false)}})
		}},
		{"make thick", connect.CodeFailedPrecondition, func(dry bool) error {
			return refuse(r, connect.CodeFailedPrecondition, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{DryRun: dry, Name: "thin1", Spec: &lintelv1.VolumeSpec{Thin: new(false)}, UpdateMask: mask("thin")})
		}},
		{"pool directory in the way", connect.CodeAlreadyExists, func(dry bool) error {
			return refuse(r, connect.CodeAlreadyExists, r.pools.CreatePool, &lintelv1.CreatePoolRequest{DryRun: dry, Spec: &lintelv1.PoolSpec{Name: "fast"}})
		}},
	} {
		dry, wet := try.call(true), try.call(false)
		if dry.Error() != wet.Error() {
			t.Errorf("%s: a dry run says %q, the change %q", try.name, dry, wet)
		}
	}
	// The whole of what a volume grows by counts, less what it has.
	refuse(r, connect.CodeFailedPrecondition, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "thick1", SizeBytes: tooMuch, DryRun: true})
	if r.agent.State() != before {
		t.Error("the state has changed")
	}
	r.plane.setAway(true, false)
	if err := refuse(r, connect.CodeUnavailable, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}, DryRun: true}); !strings.Contains(err.Error(), agent.ErrNoAnswer.Error()) {
		t.Errorf("while the target is away: %v", err)
	}
}

// The plan names the space that a change takes, and the sessions that it ends.
func TestPlanTellsAll(t *testing.T) {
	r := newRig(t)
	r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: 4 << 20})
	thick := call(r, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "db1", Spec: &lintelv1.VolumeSpec{Thin: new(false)}, UpdateMask: mask("thin"), DryRun: true}).Plan
	if !slices.Contains(thick.Steps, "allocate 4MiB for volume db1 in pool default") {
		t.Errorf("making it thick: %q", thick.Steps)
	}
	call(r, r.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{Name: "db1", Spec: &lintelv1.VolumeSpec{Thin: new(false)}, UpdateMask: mask("thin")})
	grow := call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: 6 << 20, DryRun: true}).Plan
	if !slices.Contains(grow.Steps, "allocate 2MiB for volume db1 in pool default") {
		t.Errorf("growing: %q", grow.Steps)
	}

	h := call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1", Initiators: []string{"iqn.1998-01.com.vmware:esx1"}, Nqns: []string{"nqn.2014-08.com.vmware:esx1"}}}).Host
	r.plane.mu.Lock()
	r.plane.sessions = []agent.Session{{ID: "1", Protocol: array.ISCSI, HostID: h.Id}, {ID: "2", Protocol: array.ISCSI, HostID: h.Id}, {ID: "nvme-1", Protocol: array.NVMeTCP, HostID: h.Id}, {ID: "3", Protocol: array.ISCSI}}
	r.plane.mu.Unlock()
	const iscsi, nvme = "sessions of host esx1 that end at once (iscsi): 2", "sessions of host esx1 that end at once (nvme-tcp): 1"
	set := func(spec *lintelv1.HostSpec, paths ...string) []string {
		return call(r, r.hosts.UpdateHost, &lintelv1.UpdateHostRequest{Name: "esx1", Spec: spec, UpdateMask: mask(paths...), DryRun: true}).Plan.Warnings
	}
	if w := set(&lintelv1.HostSpec{Comment: "x"}, "comment"); len(w) != 0 {
		t.Errorf("a comment: %q", w)
	}
	if w := set(&lintelv1.HostSpec{ChapUser: "u", ChapSecret: "0123456789ab"}, "chap_user", "chap_secret"); !slices.Contains(w, iscsi) || slices.Contains(w, nvme) {
		t.Errorf("a CHAP secret: %q", w)
	}
	if w := call(r, r.hosts.DeleteHost, &lintelv1.DeleteHostRequest{Name: "esx1", DryRun: true}).Plan.Warnings; !slices.Equal(w, []string{iscsi, nvme}) {
		t.Errorf("deleting the host: %q", w)
	}
}

// What volumes of kind mem hold, the machine has to have.
func TestMemoryVolumesFitTheMachine(t *testing.T) {
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "data"), memory: 3 << 30}
	r.start()
	t.Cleanup(r.stop)
	const mem = lintelv1.VolumeKind_VOLUME_KIND_MEM
	r.createVolume(&lintelv1.VolumeSpec{Name: "m1", SizeBytes: 2 * gib, Kind: mem})
	for _, dry := range []bool{true, false} {
		err := refuse(r, connect.CodeFailedPrecondition, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "m2", SizeBytes: 2 * gib, Kind: mem}, DryRun: dry})
		if !strings.Contains(err.Error(), "4GiB together") || !strings.Contains(err.Error(), "3GiB of memory") {
			t.Errorf("got %v", err)
		}
	}
	refuse(r, connect.CodeFailedPrecondition, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "m1", SizeBytes: 4 * gib})
	call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "m1", SizeBytes: 3 * gib})
	r.createVolume(&lintelv1.VolumeSpec{Name: "f1", SizeBytes: 8 * gib})

	// On a smaller machine what is there stays, and may shrink.
	r.memory = 1 << 30
	r.restart()
	call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "m1", SizeBytes: 2 * gib, Shrink: true})
	r.memory = math.MaxUint64
	r.restart()
	r.createVolume(&lintelv1.VolumeSpec{Name: "m2", SizeBytes: 64 << 40, Kind: mem})
}
