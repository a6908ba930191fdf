package sbc

// zeroChunk is how many bytes one step sets to zero at most: devices that have no
// better way write them.
const zeroChunk = 16 << 20

const (
	maxWriteSameBlocks  = 32768
	maxUnmapDescriptors = 256
	maxUnmapBlocks      = 1<<32 - 1
)
