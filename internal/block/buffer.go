package block

import (
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
// is whatever the last user left.
func Get(n int) *Buffer {
	class := uint8(0)
	for 1<<(minBufferShift+int(class)) < n {
		class++
	}
	size := 1 << (minBufferShift + int(class))
	bufferBytes.Add(int64(size))
	if b, ok := bufferPools[class].Get().(*Buffer); ok {
		return b
	}
	raw := make([]byte, size+bufferAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (bufferAlign - 1))
	return &Buffer{mem: raw[skip : skip+size : skip+size], class: class}
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
