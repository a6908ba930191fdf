package agent_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
)

// setAway makes the data plane answer or not; where only Apply fails, it goes away in the
// middle of a change.
func (f *fakePlane) setAway(away, atApply bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away, f.awayAtApply = away, atApply
}

// While the data plane does not answer, nothing is changed, and nothing is said of what it does.
func TestWithoutDataPlane(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	call(r, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1"}})
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	before := r.agent.State()
	r.plane.setAway(true, false)
	err := refuse(r, connect.CodeUnavailable, r.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib}})
	if !strings.Contains(err.Error(), "nothing was changed: the target does not answer") {
		t.Errorf("got %v", err)
	}
	refuse(r, connect.CodeUnavailable, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1"})
	refuse(r, connect.CodeUnavailable, r.pools.CreatePool, &lintelv1.CreatePoolRequest{Spec: &lintelv1.PoolSpec{Name: "fast"}})
	refuse(r, connect.CodeUnavailable, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.2"}, DryRun: true})
	refuse(r, connect.CodeUnavailable, r.sessions.ListSessions, &lintelv1.ListSessionsRequest{})
	refuse(r, connect.CodeUnavailable, r.sessions.DropSession, &lintelv1.DropSessionRequest{Id: "1"})
	refuse(r, connect.CodeUnavailable, r.stats.GetStats, &lintelv1.GetStatsRequest{})
	if r.agent.State() != before {
		t.Error("the state has changed")
	}
	if _, err := os.Stat(r.backing(v)); err != nil {
		t.Error(err)
	}
	const notServed = "not served: the target does not answer"
	if got := r.volume("db1").Status; got.State != lintelv1.VolumeState_VOLUME_STATE_OFFLINE || got.Reason != notServed {
		t.Errorf("db1: %v", got)
	}
	if got := r.volume("db1").Status; got.UsedBytes != nil || got.Sessions != nil || got.FailedRequests != nil {
		t.Errorf("figures of a volume that nobody knows: %v", got)
	}
	target := call(r, r.target.GetTarget, &lintelv1.GetTargetRequest{}).Target
	if got := target.Portals[0]; got.Reason != notServed || got.Sessions != nil {
		t.Errorf("portal: %v", got)
	}
	if got := target.PortGroups[0].Pools[0]; got.State != lintelv1.AccessState_ACCESS_STATE_OPTIMIZED || got.Effective != lintelv1.AccessState_ACCESS_STATE_UNSPECIFIED {
		t.Errorf("access: %v", got)
	}
	if got := call(r, r.hosts.ListHosts, &lintelv1.ListHostsRequest{}).Hosts[0].Status; got.Sessions != nil {
		t.Errorf("host: %v", got)
	}
	alerts := call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts
	if len(alerts) != 1 || alerts[0].Code != "target-not-answering" {
		t.Errorf("alerts %v", alerts)
	}
	r.plane.setAway(false, false)
	r.createVolume(&lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib})
}

// A data plane that goes away in the middle of a change may still have open what the change
// took away: that is removed when it is back.
func TestDataPlaneGoesAwayDuringAChange(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	r.plane.setAway(false, true)
	deleted := call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1"})
	if w := deleted.Plan.Warnings; len(w) != 2 || w[1] != "stored, not in effect yet: the target does not answer" {
		t.Errorf("warnings %q", w)
	}
	if _, err := os.Stat(r.backing(v)); err != nil {
		t.Errorf("the file went while it may be open: %v", err)
	}
	alerts := call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts
	if len(alerts) == 0 || alerts[0].Code != "configuration-not-applied" {
		t.Errorf("alerts %v", alerts)
	}
	r.plane.setAway(true, true)
	codes := map[string]bool{}
	for _, a := range call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts {
		codes[a.Code] = true
	}
	if !codes["target-not-answering"] || !codes["configuration-not-applied"] {
		t.Errorf("alerts %v", codes)
	}
	r.plane.setAway(false, true)
	r.agent.Reapply(t.Context())
	if _, err := os.Stat(r.backing(v)); err != nil {
		t.Errorf("the file went before there was an answer: %v", err)
	}
	refuse(r, connect.CodeUnavailable, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	r.plane.setAway(false, false)
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	if _, err := os.Stat(r.backing(v)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	for _, a := range call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts {
		if a.Code == "configuration-not-applied" {
			t.Errorf("still %v", a)
		}
	}
}

// hung is a data plane that does not answer, and takes its time over that.
type hung struct{ *fakePlane }

func (h hung) Apply(ctx context.Context, _ *array.State) error {
	<-ctx.Done()
	return errors.Join(agent.ErrNoAnswer, ctx.Err())
}

// An agent whose data plane hangs starts all the same, and gives it the state when it is back.
func TestStartBesideAHungDataPlane(t *testing.T) {
	a, err := agent.Open(agent.Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	plane := hung{newFakePlane(t.TempDir())}
	plane.setAway(true, true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := a.Start(ctx, plane); err != nil {
		t.Fatalf("it waited for the data plane: %v", err)
	}
}

// Nor does the next agent remove what the data plane may still have open, until that has its state.
func TestDeletedVolumeOutlivesTheAgent(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	r.plane.setAway(false, true)
	call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1"})
	path := r.backing(v)
	r.stop()
	a, err := agent.Open(agent.Options{DataDir: r.dir})
	if err != nil {
		t.Fatal(err)
	}
	plane := newFakePlane(r.dir)
	defer plane.close()
	plane.setAway(true, false)
	if err := a.Start(t.Context(), plane); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file went before the data plane was asked: %v", err)
	}
	plane.setAway(false, false)
	a.Reapply(t.Context())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.createVolume(&lintelv1.VolumeSpec{Name: "db2", SizeBytes: gib})
	r.createVolume(&lintelv1.VolumeSpec{Name: "db3", SizeBytes: gib})
	if doomed := r.agent.State().Pools[0].Doomed; len(doomed) != 0 {
		t.Errorf("doomed %v, want it tidied up", doomed)
	}
}
