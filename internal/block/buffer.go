package block

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Buffers are pooled in powers of two from 4 KiB to MaxBuffer and aligned to
// 4096 bytes, so that they serve O_DIRECT.
const (
	minBufferShift = 12
	maxBufferShift = 24
	// MaxBuffer is the largest buffer that Get returns, in bytes.
	MaxBuffer   = 1 << maxBufferShift
	bufferAlign = 4096
)

// Buffer is a pooled, aligned piece of memory.
type Buffer struct {
	mem   []byte // whole class size
	class uint8
}

var (
	bufferPools [maxBufferShift - minBufferShift + 1]sync.Pool
	bufferBytes atomic.Int64
)

// Get returns a buffer of at least n bytes; n is at most MaxBuffer. Its content
// is whatever the last user left. It never waits: who takes buffers for a peer
// bounds how many the peer can have.
func Get(n int) *Buffer {
	class := uint8(max(bits.Len(uint(max(n, 1)-1))-minBufferShift, 0))
	size := 1 << (minBufferShift + class)
	bufferBytes.Add(int64(size))
	if b, ok := bufferPools[class].Get().(*Buffer); ok {
		return b
	}
	return &Buffer{mem: alignedMemory(size), class: class}
}

// alignedMemory returns n bytes, a power of two of at least a page. The allocator
// aligns such sizes by itself, as it is now made; should that change, room is
// left to do it here.
func alignedMemory(n int) []byte {
	p := make([]byte, n)
	if skip(p) == 0 {
		return p
	}
	p = make([]byte, n+bufferAlign)
	return p[skip(p):][:n:n]
}

// skip returns how far the first aligned byte is.
func skip(p []byte) int {
	return int(-uintptr(unsafe.Pointer(unsafe.SliceData(p))) & (bufferAlign - 1))
}

// Bytes returns the first n bytes of the buffer.
func (b *Buffer) Bytes(n int) []byte { return b.mem[:n] }

// Put gives the buffer back. Nobody may use it afterwards.
func (b *Buffer) Put() {
	bufferBytes.Add(-int64(len(b.mem)))
	bufferPools[b.class].Put(b)
}

// BuffersInUse returns how many bytes of buffers are out.
func BuffersInUse() int64 { return bufferBytes.Load() }
