package block_test

import (
	"fmt"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
)

func openDisk(t testing.TB, blockSize int) block.Device {
	t.Helper()
	dev, err := block.NewTestDisk(newFile(t), blockSize)
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
