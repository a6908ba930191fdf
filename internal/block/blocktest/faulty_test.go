package blocktest_test

import (
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
)

func TestFaultyConformance(t *testing.T) {
	blocktest.Run(t, func(testing.TB) block.Device {
		return blocktest.NewFaulty(block.NewMem(blocktest.MinSize))
	})
}
