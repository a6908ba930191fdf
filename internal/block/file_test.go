package block_test

import (
	"path/filepath"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
)

func newFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	if err := block.CreateFile(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

func openFile(t testing.TB) block.Device {
	t.Helper()
	dev, err := block.OpenFile(newFile(t), block.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func TestFileConformance(t *testing.T)  { blocktest.Run(t, openFile) }
func TestFileNoAllocation(t *testing.T) { blocktest.NoAllocation(t, openFile) }
func BenchmarkFile(b *testing.B)        { blocktest.Benchmark(b, openFile) }
