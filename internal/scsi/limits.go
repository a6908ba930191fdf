package scsi

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
	// MaxAtomicBlocks is the MAXIMUM ATOMIC TRANSFER LENGTH, in blocks.
	MaxAtomicBlocks = 256
)
