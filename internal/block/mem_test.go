package block_test

import (
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
)

// The size is neither whole chunks nor one table of them.
const memSize = 300<<20 + 12345*512

func openMem(testing.TB) block.Device { return block.NewMem(memSize) }

func TestMemConformance(t *testing.T)  { blocktest.Run(t, openMem) }
func TestMemNoAllocation(t *testing.T) { blocktest.NoAllocation(t, openMem) }
func BenchmarkMem(b *testing.B)        { blocktest.Benchmark(b, openMem) }
