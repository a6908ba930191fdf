package transport

import "net"

// Batch is what goes out with one vectored write. Headers lie in an arena,
// data stays where it is; parts that touch each other in the arena share one
// vector entry. T is what has to be told when the write is over.
type Batch[T any] struct {
	// PDUs counts what is in the batch, for the caller.
	PDUs uint64

	vec   net.Buffers // what to write, in order
	store net.Buffers // vec's full backing array, for reuse
	arena []byte
	bytes int
	open  bool // the last entry of vec ends at the end of arena
	done  []*T
}

const arenaSize = 8 << 10

// Room returns n bytes of the arena, appended to the output. Their content is
// arbitrary. They stay where they are until Reset.
func (b *Batch[T]) Room(n int) []byte {
	if len(b.arena)+n > cap(b.arena) {
		b.arena = make([]byte, 0, max(2*cap(b.arena), arenaSize, n)) // what vec refers to stays alive
		b.open = false
	}
	at := len(b.arena)
	b.arena = b.arena[:at+n]
	if b.open {
		last := &b.vec[len(b.vec)-1]
		*last = (*last)[:len(*last)+n]
	} else {
		b.vec = append(b.vec, b.arena[at:at+n])
		b.open = true
	}
	b.bytes += n
	return b.arena[at : at+n : at+n]
}

// Data appends bytes that stay where they are, and must until Reset.
func (b *Batch[T]) Data(p []byte) {
	if len(p) == 0 {
		return
	}
	b.vec = append(b.vec, p)
	b.open = false
	b.bytes += len(p)
}

// Finish remembers t until Reset: it is done with when the batch has been written.
func (b *Batch[T]) Finish(t *T) { b.done = append(b.done, t) }

// Finished returns what Finish was called with, in order. The slice is the
// batch's.
func (b *Batch[T]) Finished() []*T { return b.done }

// Len returns how many bytes are in the batch.
func (b *Batch[T]) Len() int { return b.bytes }

// Empty reports whether there is nothing to write.
func (b *Batch[T]) Empty() bool { return len(b.vec) == 0 }

// Reset readies the batch for reuse, without memory that grew past what is
// usual.
func (b *Batch[T]) Reset() {
	const maxVec, maxArena = 4096, 256 << 10
	clear(b.store)
	b.vec = b.store[:0]
	if cap(b.store) > maxVec {
		b.vec = nil
	}
	b.arena = b.arena[:0]
	if cap(b.arena) > maxArena {
		b.arena = nil
	}
	clear(b.done)
	b.done = b.done[:0]
	b.bytes, b.open, b.PDUs = 0, false, 0
	b.store = nil
}

// vectorWriter is a connection that has a way of its own to write several
// buffers as one, such as one with TLS.
type vectorWriter interface {
	WriteBuffers(vec net.Buffers) error // leaves vec as it is
}

// Write sends everything.
func (b *Batch[T]) Write(nc net.Conn) error {
	b.store = b.vec
	if w, ok := nc.(vectorWriter); ok {
		return w.WriteBuffers(b.vec)
	}
	if len(b.vec) == 1 {
		_, err := nc.Write(b.vec[0])
		return err
	}
	_, err := b.vec.WriteTo(nc)
	return err
}
