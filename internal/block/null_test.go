package block_test

import (
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
)

func openNull(testing.TB) block.Device { return block.NewNull(64 << 40) }

func TestNullConformance(t *testing.T)  { blocktest.Run(t, openNull) }
func TestNullNoAllocation(t *testing.T) { blocktest.NoAllocation(t, openNull) }
func BenchmarkNull(b *testing.B)        { blocktest.Benchmark(b, openNull) }
