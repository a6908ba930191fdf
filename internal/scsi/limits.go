package scsi

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
)

// The limits that the Block Limits VPD page reports (SBC-3 §6.6.4) and the block
// commands keep.
const (
	// MaxTransferBytes is the most data that one command takes or gives, in
	// bytes. It does not exceed block.MaxBuffer.
	MaxTransferBytes = 8 << 20
	// OptimalTransferBytes is the OPTIMAL TRANSFER LENGTH, in bytes.
	OptimalTransferBytes = 1 << 20
	// MaxCompareBlocks is the MAXIMUM COMPARE AND WRITE LENGTH, in blocks.
	MaxCompareBlocks = 255
	// MaxWriteSameBlocks is the MAXIMUM WRITE SAME LENGTH, in blocks.
	MaxWriteSameBlocks = 32768
	// MaxUnmapBlocks is the MAXIMUM UNMAP LBA COUNT: no limit.
	MaxUnmapBlocks = 1<<32 - 1
	// MaxUnmapDescriptors is the MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
	MaxUnmapDescriptors = 256
	// MaxAtomicBlocks is the largest MAXIMUM ATOMIC TRANSFER LENGTH, in blocks.
	MaxAtomicBlocks = 256
)

// AtomicLimits returns what WRITE ATOMIC keeps to (SBC-4 §6.6.4), in blocks: the MAXIMUM
// ATOMIC TRANSFER LENGTH, and the one value of ATOMIC ALIGNMENT and ATOMIC TRANSFER
// LENGTH GRANULARITY, 0 for no restriction. Below the length that
// the device writes all or nothing there is none to choose: hosts align a
// shorter write to its own length only, and it could lie across two units.
func AtomicLimits(u *unit.Unit) (most, granularity uint32) {
	n := u.Device().Info().AtomicUnit
	if n == block.AtomicUnlimited {
		return MaxAtomicBlocks, 0
	}
	most = uint32(min(max(n>>u.BlockShift(), 1), MaxAtomicBlocks))
	return most, most
}
