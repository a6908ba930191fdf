package serve

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/internal/agent"
)

// An array whose reservations are damaged is not served without its volumes, and says how to go on.
func TestDamagedReservationsAreRefused(t *testing.T) {
	config := Config{Common: Common{DataDir: t.TempDir()}, Portals: []string{free(t)}, Demo: true}
	_, stop := start(t, config)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(config.DataDir, "pools", agent.DefaultPool, "metadata")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const table = 33 << 20 // of 8 MiB
	damaged := bytes.Clone(whole)
	for i := range 8 << 20 {
		damaged[table+i] ^= 0xff
	}
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of an array that comes up
	defer cancel()
	err = Run(ctx, config, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "neither slot of the reservation table can be used") || !strings.Contains(err.Error(), "dd if=/dev/zero of="+path) {
		t.Fatalf("got %v", err)
	}

	// A data plane that runs already, and is given such a pool, tells why nothing works.
	manager, err := agent.Open(agent.Options{DataDir: config.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	data, err := newDataPlane(config.DataDir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer data.close()
	state := manager.State()
	p := state.Pools[0]
	status := func() *agent.Status {
		t.Helper()
		s, err := data.Status(t.Context(), agent.AllVolumes)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if err := data.Apply(context.Background(), state); err == nil {
		t.Error("the damage was not told")
	}
	for what, reason := range map[string]string{"pool": status().Pools[p.ID].Reason, "volume": status().Volumes[p.Volumes[0].ID].Reason} {
		if !strings.Contains(reason, "neither slot of the reservation table") {
			t.Errorf("%s: %q", what, reason)
		}
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := data.Apply(context.Background(), state); err != nil {
		t.Error(err)
	}
	if s := status(); s.Pools[p.ID].Reason != "" || !s.Volumes[p.Volumes[0].ID].Online {
		t.Errorf("after it was mended: %+v", s)
	}
}
