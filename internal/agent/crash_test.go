package agent_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/pool"
)

// copyTree copies a data directory as a crash would leave it. Backing files have no data in
// these tests, so that their sizes are all there is to copy.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSocket != 0 {
			return err
		}
		into := filepath.Join(to, strings.TrimPrefix(path, from))
		if d.IsDir() {
			return os.MkdirAll(into, 0o700)
		}
		if filepath.Base(filepath.Dir(path)) == "volumes" {
			info, err := d.Info()
			if err == nil {
				create(t, into, info.Size())
			}
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(into, b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func openErr(t *testing.T, dir string) error {
	t.Helper()
	a, err := agent.Open(agent.Options{DataDir: dir})
	if err == nil {
		_ = a.Close()
		t.Fatal("the directory was opened")
	}
	return err
}

func TestSecondOpenIsRefused(t *testing.T) {
	r := newRig(t)
	if err := openErr(t, r.dir); array.KindOf(err) != array.KindBusy {
		t.Errorf("got %v", err)
	}
}

func TestLostPoolIsRefused(t *testing.T) {
	r := newRig(t)
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "pools")); err != nil {
		t.Fatal(err)
	}
	if err := openErr(t, r.dir); !strings.Contains(err.Error(), "pools are gone") {
		t.Errorf("got %v", err)
	}
}

func TestSystemPoolOlderThanHeadIsRefused(t *testing.T) {
	r := newRig(t)
	old := filepath.Join(t.TempDir(), "old")
	copyTree(t, filepath.Join(r.dir, "pools"), old)
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "pools")); err != nil {
		t.Fatal(err)
	}
	copyTree(t, old, filepath.Join(r.dir, "pools"))
	if err := openErr(t, r.dir); !strings.Contains(err.Error(), "lost acknowledged changes") {
		t.Errorf("got %v", err)
	}
	report, err := pool.Check(r.dir)
	if err != nil || !report.Fatal() {
		t.Errorf("check: %v, %v", report, err)
	}
}

func TestRenamedPoolIsRefused(t *testing.T) {
	r := newRig(t)
	r.stop()
	if err := os.Rename(filepath.Join(r.dir, "pools/default"), filepath.Join(r.dir, "pools/other")); err != nil {
		t.Fatal(err)
	}
	if err := openErr(t, r.dir); !strings.Contains(err.Error(), "give it its name back") {
		t.Errorf("got %v", err)
	}
}

// A crash between the steps of a change leaves nothing behind after the next start.
func TestCrashBetweenSteps(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	id := v.Id
	next := strings.TrimSuffix(id, "1") + "2"
	volumes := filepath.Join(r.dir, "pools/default/volumes")
	r.stop()
	for name, c := range map[string]struct {
		leave func(t *testing.T)
		gone  string
	}{
		"create": {func(t *testing.T) { create(t, filepath.Join(volumes, next), gib) }, next},
		"grow": {func(t *testing.T) {
			if err := os.Truncate(filepath.Join(volumes, id), 2*gib); err != nil {
				t.Fatal(err)
			}
		}, ""},
		"new pool": {func(t *testing.T) {
			staging := filepath.Join(r.dir, "pools/.new-fast")
			if err := os.MkdirAll(filepath.Join(staging, "volumes"), 0o700); err != nil {
				t.Fatal(err)
			}
			create(t, filepath.Join(staging, "metadata"), 100)
		}, "../../.new-fast"},
	} {
		t.Run(name, func(t *testing.T) {
			c.leave(t)
			r.t = t
			r.start()
			defer r.stop()
			if c.gone != "" {
				if _, err := os.Stat(filepath.Join(volumes, c.gone)); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is still there: %v", c.gone, err)
				}
			}
			if got := r.volume("db1"); got.Status.State != lintelv1.VolumeState_VOLUME_STATE_ONLINE {
				t.Errorf("db1: %v", got.Status)
			}
			if st, err := os.Stat(filepath.Join(volumes, id)); err != nil || st.Size() != gib {
				t.Errorf("db1's file: %v, %v", st, err)
			}
		})
	}
	r.t = t
	r.start()
	if made := r.createVolume(&lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib}); made.Id != next {
		t.Errorf("id %s, want %s: it was never told to anybody", made.Id, next)
	}
}

func create(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// A file with data that no volume has is left alone, and in nobody's way.
func TestForeignFileIsLeftAlone(t *testing.T) {
	r := newRig(t)
	p := r.agent.State().Pools[0]
	path := filepath.Join(r.dir, "pools/default/volumes", p.ID+"-1")
	r.stop()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	if v.Id != p.ID+"-2" {
		t.Errorf("id %s", v.Id)
	}
	r.restart()
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, []byte("precious")) {
		t.Errorf("the file has changed: %q, %v", b, err)
	}
	found := false
	for _, a := range call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts {
		found = found || a.Code == "pool-problem" && strings.Contains(a.Text, path)
	}
	if !found {
		t.Error("nothing tells of the file")
	}
}

// What was acknowledged is there after a crash at any moment: the directory is copied as
// it is, without closing anything.
func TestCrashImages(t *testing.T) {
	r := newRig(t)
	steps := []func(){
		func() { r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib}) },
		func() {
			call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
		},
		func() {
			call(r, r.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: &lintelv1.MappingSpec{Volume: "db1", To: toHost("esx1")}})
		},
		func() {
			call(r, r.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{Name: "db1", SizeBytes: 2 * gib})
		},
		func() {
			call(r, r.pools.CreatePool, &lintelv1.CreatePoolRequest{Spec: &lintelv1.PoolSpec{Name: "fast"}})
		},
		func() { r.createVolume(&lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib, Pool: "fast"}) },
		func() { call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1", Force: true}) },
		func() { call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db2"}) },
		func() { call(r, r.pools.DeletePool, &lintelv1.DeletePoolRequest{Name: "fast"}) },
	}
	for _, step := range steps {
		step()
		image := filepath.Join(t.TempDir(), "image")
		copyTree(t, r.dir, image)
		a, err := agent.Open(agent.Options{DataDir: image})
		if err != nil {
			t.Fatal(err)
		}
		want, got := r.agent.State(), a.State()
		if got.Document.Generation != want.Document.Generation || len(got.Pools) != len(want.Pools) {
			t.Errorf("generation %d, want %d", got.Document.Generation, want.Document.Generation)
		}
		for i, p := range got.Pools {
			if len(p.Volumes) != len(want.Pools[i].Volumes) || p.Generation != want.Pools[i].Generation {
				t.Errorf("pool %s has %d volumes, want %d", p.Name, len(p.Volumes), len(want.Pools[i].Volumes))
			}
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if report, err := pool.Check(image); err != nil || len(report.Problems) != 0 {
			t.Errorf("check: %v, %v", report, err)
		}
	}
}

// Every method takes an empty request without harm.
func TestEmptyRequests(t *testing.T) {
	r := newRig(t)
	services := lintelv1.File_lintel_v1_volume_proto.Services()
	if services.Len() != 1 || lintelv1connect.VolumeServiceName != string(services.Get(0).FullName()) {
		t.Fatal("the descriptors are not as expected")
	}
	client := r.server.Client()
	for _, file := range descriptors {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				url := r.server.URL + "/" + string(service.FullName()) + "/" + string(service.Methods().Get(j).Name())
				for _, body := range []string{`{}`, `{"spec":{},"dryRun":true}`, `{"spec":{},"updateMask":"name"}`, `{"updateMask":"comment,name"}`} {
					resp, err := client.Post(url, "application/json", strings.NewReader(body))
					if err != nil {
						t.Fatalf("%s %s: %v", url, body, err)
					}
					_ = resp.Body.Close()
					if resp.StatusCode >= http.StatusInternalServerError && resp.StatusCode != http.StatusServiceUnavailable {
						t.Errorf("%s %s: status %d", url, body, resp.StatusCode)
					}
				}
			}
		}
	}
	refuse(r, connect.CodeNotFound, r.hosts.GetHost, &lintelv1.GetHostRequest{})
}

// The mappings of a pool that is missing are told, and can be given up.
func TestMissingPool(t *testing.T) {
	r := newRig(t)
	call(r, r.pools.CreatePool, &lintelv1.CreatePoolRequest{Spec: &lintelv1.PoolSpec{Name: "arc"}})
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", Pool: "arc", SizeBytes: gib})
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	call(r, r.mappings.CreateMapping, &lintelv1.CreateMappingRequest{Spec: &lintelv1.MappingSpec{Volume: "db1", To: &lintelv1.MappingSpec_Host{Host: "esx1"}}})
	r.stop()
	if err := os.Rename(filepath.Join(r.dir, "pools/arc"), filepath.Join(t.TempDir(), "arc")); err != nil {
		t.Fatal(err)
	}
	r.start()
	told := func() bool {
		return slices.ContainsFunc(call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts, func(a *lintelv1.Alert) bool { return a.Code == "mapping-without-volume" })
	}
	if !told() {
		t.Error("no alert")
	}
	list := call(r, r.mappings.ListMappings, &lintelv1.ListMappingsRequest{}).Mappings
	if len(list) != 1 || list[0].Spec.Volume != v.Id {
		t.Fatalf("mappings %v, want one of volume %s", list, v.Id)
	}
	call(r, r.mappings.DeleteMapping, &lintelv1.DeleteMappingRequest{Volume: v.Id, To: &lintelv1.DeleteMappingRequest_Host{Host: "esx1"}})
	if told() {
		t.Error("still an alert")
	}
}
