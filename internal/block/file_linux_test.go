package block_test

import (
	"os"
	"path/filepath"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
)

func newFile(t testing.TB, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "volume")
	if err := block.CreateFile(path, 64<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

// opened returns the device or ends the test.
func opened(t testing.TB) func(block.Device, error) block.Device {
	return func(dev block.Device, err error) block.Device {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return dev
	}
}

func openFile(t testing.TB) block.Device {
	return opened(t)(block.OpenFile(newFile(t, t.TempDir()), block.FileOptions{}))
}

func TestFileConformance(t *testing.T)  { blocktest.Run(t, openFile) }
func TestFileNoAllocation(t *testing.T) { blocktest.NoAllocation(t, openFile) }
func BenchmarkFile(b *testing.B)        { blocktest.Benchmark(b, openFile) }

func TestFileConformanceWithoutHelpOfTheKernel(t *testing.T) {
	blocktest.Run(t, func(t testing.TB) block.Device {
		return opened(t)(block.NewTestFile(newFile(t, t.TempDir())))
	})
}

func TestFileConformanceWithNowaitWrites(t *testing.T) {
	blocktest.Run(t, func(t testing.TB) block.Device {
		return opened(t)(block.NewNowaitFile(newFile(t, t.TempDir())))
	})
}

// tmpfs, where there is one, differs from disk file systems in what it supports.
func TestFileConformanceInMemory(t *testing.T) {
	const memory = "/dev/shm"
	if st, err := os.Stat(memory); err != nil || !st.IsDir() {
		t.Logf("no %s: the test ran nothing", memory)
		return
	}
	open := func(t testing.TB) block.Device {
		dir, err := os.MkdirTemp(memory, "lintel")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return opened(t)(block.OpenFile(newFile(t, dir), block.FileOptions{}))
	}
	blocktest.Run(t, open)
	blocktest.NoAllocation(t, open)
}
