// Package sendq collects what an initiator sends, headers in its own memory and
// data where it lies, and writes it to a socket with one vectored system call.
package sendq

// small is the size up to which data is copied next to its header instead of
// getting a segment of its own, in bytes.
const small = 512

// segment is a piece of the stream: lent data, or n bytes of the batch's own
// memory at off.
type segment struct {
	data   []byte
	off, n int
}

// Batch is a run of bytes that are sent together. The zero value is empty.
type Batch struct {
	own  []byte // may move while the batch grows
	segs []segment
	size int
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	clear(b.segs)
	b.own, b.segs, b.size = b.own[:0], b.segs[:0], 0
}

// Size returns the number of bytes in the batch.
func (b *Batch) Size() int { return b.size }

// Grow appends n bytes of the batch's own memory and returns them to be filled
// before the next call of a method; they hold whatever was there.
func (b *Batch) Grow(n int) []byte {
	at := len(b.own)
	if cap(b.own)-at < n {
		b.own = append(b.own, make([]byte, n)...)
	} else {
		b.own = b.own[:at+n]
	}
	if n == 0 {
		return nil
	}
	b.size += n
	if i := len(b.segs) - 1; i >= 0 && b.segs[i].data == nil {
		b.segs[i].n += n
	} else {
		b.segs = append(b.segs, segment{off: at, n: n})
	}
	return b.own[at:]
}

// Append appends data, which is copied where it is small; otherwise it must not
// change until the batch is written.
func (b *Batch) Append(p []byte) {
	if len(p) <= small {
		copy(b.Grow(len(p)), p)
		return
	}
	b.segs = append(b.segs, segment{data: p})
	b.size += len(p)
}

// bytes returns the memory of a segment.
func (b *Batch) bytes(s segment) []byte {
	if s.data != nil {
		return s.data
	}
	return b.own[s.off : s.off+s.n]
}
