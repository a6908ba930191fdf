package serve

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/pool"
	"lintel.io/lintel/internal/target"
)

// A data plane that is closed opens nothing again, whoever gives it the configuration once more.
func TestClosedDataPlaneTakesNothing(t *testing.T) {
	dir := t.TempDir()
	manager, err := agent.Open(agent.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	data, err := newDataPlane(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.Start(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	if err := data.close(); err != nil {
		t.Fatal(err)
	}
	if err := data.Apply(t.Context(), manager.State()); !errors.Is(err, target.ErrClosed) {
		t.Errorf("got %v", err)
	}
	next, err := pool.OpenData(filepath.Join(dir, pool.PoolsDir, agent.DefaultPool))
	if err != nil {
		t.Fatal("the next one cannot have the pool: ", err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
}
