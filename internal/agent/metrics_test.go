package agent_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

func TestMetricNames(t *testing.T) {
	r := newRig(t)
	r.createVolume(&lintelv1.VolumeSpec{Name: "db1", SizeBytes: gib})
	call(r, r.hosts.CreateHost, &lintelv1.CreateHostRequest{Spec: &lintelv1.HostSpec{Name: "esx1"}})
	call(r, r.target.AddPortal, &lintelv1.AddPortalRequest{Spec: &lintelv1.PortalSpec{Address: "127.0.0.1"}})
	r.plane.sessions = []agent.Session{{ID: "1", Protocol: array.ISCSI}, {ID: "2", Protocol: array.NVMeTCP, Discovery: true}}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(r.agent.Collector()); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got = append(got, strings.ToLower(f.GetType().String())+" "+f.GetName()+"{"+strings.Join(labels, ",")+"}")
	}
	slices.Sort(got)
	text := strings.Join(got, "\n") + "\n"
	golden := filepath.Join("testdata", "metrics.golden")
	if *rewrite {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("the names of metrics are part of the interface (-want +got):\n%s", diff)
	}
}
