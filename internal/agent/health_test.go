package agent_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
)

// What fails below a volume is an alert with its time, and degrades the volume.
func TestFaultsAreAlerts(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	call(r, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1"}})
	since := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	for kind, code := range map[block.FaultKind]string{
		block.FaultLost: "volume-writes-lost", block.FaultBacking: "volume-backing-changed", block.FaultHung: "volume-not-answering",
		block.FaultIO: "volume-io-errors", block.FaultSpace: "volume-no-space", "of another version": "volume-io-errors",
	} {
		r.plane.mu.Lock()
		r.plane.health[v.Id] = block.Health{Failed: 7, Fault: &block.Fault{Kind: kind, Reason: "what it is", Since: since}}
		r.plane.mu.Unlock()
		alerts := call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts
		if len(alerts) != 1 {
			t.Fatalf("%s: alerts %v", kind, alerts)
		}
		got := alerts[0]
		if got.Code != code || got.Subject != "volume/db1" || !got.Since.AsTime().Equal(since) || got.Severity != lintelv1.Severity_SEVERITY_CRITICAL ||
			!strings.Contains(got.Text, "what it is") || got.Hint == "" {
			t.Errorf("%s: alert %v", kind, got)
		}
		status := r.volume("db1").Status
		if status.State != lintelv1.VolumeState_VOLUME_STATE_DEGRADED || status.Reason != "what it is" ||
			status.DegradedSince.AsTime() != timestamppb.New(since).AsTime() || (status.UsedBytes == nil) != (kind == block.FaultHung) ||
			kind != block.FaultHung && status.GetFailedRequests() != 7 {
			t.Errorf("%s: status %v", kind, status)
		}
	}
	r.plane.mu.Lock()
	r.plane.health[v.Id] = block.Health{Failed: 7}
	r.plane.mu.Unlock()
	if alerts := call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts; len(alerts) != 0 {
		t.Errorf("alerts %v", alerts)
	}
	if got := r.volume("db1").Status; got.State != lintelv1.VolumeState_VOLUME_STATE_ONLINE || got.DegradedSince != nil || got.GetFailedRequests() != 7 {
		t.Errorf("status %v", got)
	}
}

// A volume has an alert for each thing that is wrong with it, but for two that say the same.
func TestAlertsOfOneVolume(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	call(r, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1"}})
	fault := func(kind block.FaultKind) *block.Fault {
		return &block.Fault{Kind: kind, Reason: "it is " + string(kind)}
	}
	for name, c := range map[string]struct {
		status agent.VolumeStatus
		want   []string
	}{
		"offline, and hangs":         {agent.VolumeStatus{Reason: "it is hung", Health: block.Health{Fault: fault(block.FaultHung)}}, []string{"volume-not-answering"}},
		"hangs, and lost before":     {agent.VolumeStatus{Online: true, Health: block.Health{Fault: fault(block.FaultHung)}, Before: fault(block.FaultLost)}, []string{"volume-not-answering", "volume-writes-lost"}},
		"offline for something else": {agent.VolumeStatus{Reason: "its space", Health: block.Health{Fault: fault(block.FaultIO)}}, []string{"volume-io-errors", "volume-offline"}},
		"offline":                    {agent.VolumeStatus{Reason: "it is gone"}, []string{"volume-offline"}},
	} {
		r.plane.mu.Lock()
		r.plane.status = map[string]agent.VolumeStatus{v.Id: c.status}
		r.plane.mu.Unlock()
		var got []string
		for _, a := range call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts {
			got = append(got, a.Code)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		warnings := call(r, r.volumes.ReopenVolume, &lintelv1.ReopenVolumeRequest{Name: "db1", DryRun: true}).Plan.Warnings
		if (len(warnings) == 1) != (c.status.Before != nil) {
			t.Errorf("%s: warnings %q", name, warnings)
		}
	}
}

// The target tells the access state in effect beside the administrator's choice.
func TestAccessInEffect(t *testing.T) {
	r := newRig(t)
	access := func() *lintelv1.PoolAccess {
		return call(r, r.target.GetTarget, &lintelv1.GetTargetRequest{}).Target.PortGroups[0].Pools[0]
	}
	if got := access(); got.Effective != lintelv1.AccessState_ACCESS_STATE_OPTIMIZED {
		t.Errorf("a pool that is not presented yet: %v", got)
	}
	r.plane.mu.Lock()
	r.plane.access = map[uint16]array.AccessState{1: array.Standby}
	r.plane.mu.Unlock()
	if got := access(); got.State != lintelv1.AccessState_ACCESS_STATE_OPTIMIZED || got.Effective != lintelv1.AccessState_ACCESS_STATE_STANDBY {
		t.Errorf("set by a host: %v", got)
	}
}

// What is left of a deleted volume is told until a start has removed it.
func TestDeletedVolumeLeftIsAnAlert(t *testing.T) {
	r := newRig(t)
	v := r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	inTheWay := filepath.Join(r.backing(v), "x")
	if err := os.Remove(r.backing(v)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	left := func() (subjects []string) {
		for _, a := range call(r, r.system.GetHealth, &lintelv1.GetHealthRequest{}).Alerts {
			if a.Code == "deleted-volume-left" {
				subjects = append(subjects, a.Subject)
			}
		}
		return subjects
	}
	if found := left(); found != nil {
		t.Errorf("before: %q", found)
	}
	call(r, r.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: "db1"})
	if found := left(); !slices.Equal(found, []string{"volume/" + v.Id}) {
		t.Errorf("after the deletion: %q", found)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if found := left(); found != nil {
		t.Errorf("after a start that could remove it: %q", found)
	}
	if _, err := os.Stat(r.backing(v)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the backing store is still there: %v", err)
	}
}
