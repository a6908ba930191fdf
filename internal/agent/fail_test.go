package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/pool"
)

// breakPool makes every write of a pool's metadata fail.
func (r *rig) breakPool(name string) *pool.Pool {
	r.t.Helper()
	p, err := r.agent.State().Pool(name)
	if err != nil {
		r.t.Fatal(err)
	}
	store, err := r.agent.Pool(p.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		r.t.Fatal(err)
	}
	return store
}

// A change that cannot be stored leaves everything as it was.
func TestFailedWriteIsUndone(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	before := r.agent.State()
	r.breakPool("default")
	refuse(r, connect.CodeUnavailable, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib}})
	refuse(r, connect.CodeUnavailable, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: 2 * gib})
	refuse(r, connect.CodeUnavailable, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1"})
	refuse(r, connect.CodeUnavailable, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	if r.agent.State() != before {
		t.Error("the state has changed")
	}
	if st, err := os.Stat(r.backing(v)); err != nil || st.Size() != gib {
		t.Errorf("db1's file: %v, %v", st, err)
	}
	if files, err := os.ReadDir(filepath.Dir(r.backing(v))); err != nil || len(files) != 1 {
		t.Errorf("backing files: %v, %v", files, err)
	}
	r.restart()
	if r.volume("db1").Spec.SizeBytes != gib {
		t.Error("db1 has changed")
	}
	r.createVolume(&lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib})
}

// A change of two pools that stops half-way says what it has done.
func TestHalfDoneDelete(t *testing.T) {
	r := newRig(t)
	call(r, r.pools.CreatePool, &lintelv1.CreatePoolRequest{Spec: &lintelv1.PoolSpec{Name: "fast"}})
	r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib, Pool: "fast"})
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	call(r, r.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: &lintelv1.MappingSpec{Volume: "db1", To: toHost("esx1")}})
	r.breakPool("fast")
	refuse(r, connect.CodeUnavailable, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1", Force: true})
	check := func() {
		t.Helper()
		if v := r.volume("db1"); v.Status.Mappings != 0 || v.Status.State != lintelv1.VolumeState_VOLUME_STATE_ONLINE {
			t.Errorf("db1: %v", v.Status)
		}
		if err := r.agent.State().Validate(); err != nil {
			t.Error(err)
		}
	}
	check()
	found := false
	for _, a := range call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts {
		found = found || a.Code == "copy-behind" && a.Subject == "pool fast"
	}
	if !found {
		t.Error("nothing tells that the pool's copy of the configuration is behind")
	}
	r.restart()
	check()
	call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1"})
}

func TestApplyErrorIsAnAlert(t *testing.T) {
	r := newRig(t)
	r.plane.applyErr = errors.New("no such luck")
	got := call(r, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib}})
	if w := got.Plan.Warnings; len(w) != 1 || w[0] != "stored, not in effect yet: no such luck" {
		t.Errorf("warnings %q", w)
	}
	alerts := call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts
	if len(alerts) == 0 || alerts[0].Code != "configuration-not-applied" {
		t.Errorf("alerts %v", alerts)
	}
}

func TestApplyIsTriedAgain(t *testing.T) {
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "data"), retry: 10 * time.Millisecond}
	r.start()
	t.Cleanup(r.stop)
	r.plane.mu.Lock()
	r.plane.applyErr = errors.New("no such luck")
	r.plane.mu.Unlock()
	call(r, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib}})
	notApplied := func() bool {
		return slices.ContainsFunc(call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts,
			func(a *lintelv1.Alert) bool { return a.Code == "configuration-not-applied" })
	}
	if !notApplied() {
		t.Fatal("no alert")
	}
	r.plane.mu.Lock()
	r.plane.applyErr = nil
	r.plane.mu.Unlock()
	for notApplied() { // until the test's own deadline
		time.Sleep(time.Millisecond)
	}
	// An agent that is closed gives nothing to its data plane any more.
	r.plane.mu.Lock()
	r.plane.applyErr = errors.New("no such luck")
	r.plane.mu.Unlock()
	call(r, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib}})
	a := r.agent
	r.stop()
	before := r.plane.applies
	a.Reapply(t.Context())
	if r.plane.applies != before {
		t.Error("a closed agent has given its state to the data plane")
	}
}

func TestClosedAgentRefuses(t *testing.T) {
	r := newRig(t)
	server := r.server
	volumes := r.volumes
	a := r.agent
	r.plane.close()
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	refuse(r, connect.CodeUnavailable, volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib}})
	if _, err := a.Pool("none"); array.KindOf(err) != array.KindNotFound {
		t.Errorf("got %v", err)
	}
	server.Close()
	r.agent = nil
}
