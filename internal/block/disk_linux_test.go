package block_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
)

func openDisk(t testing.TB, blockSize int) block.Device {
	t.Helper()
	dev, err := block.NewTestDisk(newFile(t, t.TempDir()), blockSize)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func openDisk512(t testing.TB) block.Device { return openDisk(t, 512) }

func TestDiskConformance(t *testing.T) {
	for _, blockSize := range []int{512, 4096} {
		t.Run(fmt.Sprint(blockSize), func(t *testing.T) {
			blocktest.Run(t, func(t testing.TB) block.Device { return openDisk(t, blockSize) })
		})
	}
}

func TestDiskNoAllocation(t *testing.T) { blocktest.NoAllocation(t, openDisk512) }
func BenchmarkDisk(b *testing.B)        { blocktest.Benchmark(b, openDisk512) }

func TestDiskSmallerThanItsVolume(t *testing.T) {
	path := newFile(t, t.TempDir())
	dev := opened(t)(block.NewTestDisk(path, 512))
	defer dev.Close()
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	err := blocktest.Do(dev, &block.Request{Op: block.Read, Off: 1 << 20, Data: make([]byte, 512)})
	if block.KindOf(err) != block.KindGone {
		t.Errorf("read beyond the end: %v", err)
	}
	if err := dev.Resize(2 << 20); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("resize beyond the disk: %v", err)
	}
	if err := dev.Resize(1<<20 - 1); block.KindOf(err) != block.KindRange || err == nil {
		t.Errorf("resize to part of a block: %v", err)
	}
}

func TestOpenDiskRefusals(t *testing.T) {
	path := newFile(t, t.TempDir())
	if _, err := block.OpenDisk(path, block.DiskOptions{}); err == nil {
		t.Error("a regular file was opened as a disk")
	}
	if _, err := block.OpenDisk(path+"2", block.DiskOptions{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of a missing disk: %v", err)
	}
}
