package block

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// bounceSize is the piece, in bytes, in which unaligned buffers are copied
	// and zeros are written.
	bounceSize = 1 << 20
	// fallocateSize is the piece, in bytes, in which space is given back or
	// zeroed: some file systems start anew after a signal.
	fallocateSize = 1 << 30
	// searchPiece is the piece, in bytes, in which a transfer that met a medium
	// error is repeated; the first piece that fails is repeated by blocks, of
	// minBlock at least. So a search waits for two more failures of the medium, not for one a block.
	searchPiece = 64 << 10
	minBlock    = 512
)

// A backing is an open file or block device with what the file and disk devices
// have in common: positional I/O on worker goroutines, flushes, deallocation, and
// the memory of a failed flush.
type backing struct {
	fd    int
	path  string
	info  Info
	size  atomic.Int64
	calls calls
	// piece is the longest write, in bytes, that is made with one call.
	piece int

	gate  gate
	queue queue
	// broken, once set, is why Flush and FUA fail until the device is opened
	// again. After fdatasync has failed, the kernel has dropped the dirty
	// pages or marked them clean, and the next fdatasync succeeds: nobody can
	// tell any more which acknowledged writes are on the medium.
	broken atomic.Pointer[verdict]
	// owed is what was wrong before the device was opened again, where no flush has
	// told it: the next one does.
	owed   atomic.Pointer[verdict]
	faults faults
	// check, where not nil, tells what is wrong with the backing file before
	// a flush vouches for it.
	check func() *Error
	// atEnd is the error of a read that met the end of the file too early.
	atEnd func(off int64) *Error

	flushLoop func() // made once: a method value allocates
	flushMu   sync.Mutex
	flushing  bool
	flushes   requestList // wait for an fdatasync that has not yet started

	mu       mutex // held by what uses fd outside of the gate: Extent, Used, Resize, Reopen, Close
	closeErr error
	id       unix.Stat_t   // of what fd has open: for the device and inode numbers
	claim    int           // descriptor that keeps others from opening the same, -1 where fd does
	opening  chan struct{} // capacity 1: filled while something of a Reopen is under way, and for good by Close
}

// A mutex is one whose Lock can be given up.
type mutex chan struct{}

func (m mutex) Lock()   { m <- struct{}{} }
func (m mutex) Unlock() { <-m }

func (m mutex) TryLock() bool {
	select {
	case m <- struct{}{}:
		return true
	default:
		return false
	}
}

// lockUntil returns false where done is closed before the lock is free.
func (m mutex) lockUntil(done <-chan struct{}) bool {
	select {
	case m <- struct{}{}:
		return true
	case <-done:
		return false
	}
}

func (b *backing) init(o *opened, path string, size int64) {
	b.fd, b.id, b.info, b.path, b.calls, b.piece = o.fd, o.id, o.info, path, kernel, math.MaxInt32
	b.mu, b.opening, b.claim = make(mutex, 1), make(chan struct{}, 1), -1
	b.size.Store(size)
	b.gate = newGate()
	b.queue.init(b.exec)
	b.flushLoop = b.flushAll
}

func (b *backing) Info() Info  { return b.info }
func (b *backing) Size() int64 { return b.size.Load() }

// admit lets a valid request in. Where it returns false the request is dealt
// with; otherwise it has to be finished.
func (b *backing) admit(r *Request) bool {
	switch b.gate.enter(r) {
	case held:
		return false
	case refused:
		complete(r, fail(r, KindGone, ErrClosed))
		return false
	}
	if err := Check(r, &b.info, b.size.Load()); err != nil {
		complete(r, err)
		b.gate.leave()
		return false
	}
	return true
}

func (b *backing) finish(r *Request, err error) {
	if err != nil {
		b.faults.note(err)
	}
	complete(r, err)
	b.gate.leave()
}

// exec runs a request on a worker.
func (b *backing) exec(r *Request) {
	var err error
	switch r.Op {
	case Read:
		err = b.read(r)
	case Write:
		err = b.write(r)
	default:
		err = b.deallocate(r)
	}
	b.finish(r, err)
}

func (b *backing) aligned(p []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))&uintptr(b.info.Align-1) == 0
}

func (b *backing) read(r *Request) error {
	if b.aligned(r.Data) {
		return b.readAll(r.Data, r.Off)
	}
	bounce := Get(min(len(r.Data), bounceSize))
	defer bounce.Put()
	for done := 0; done < len(r.Data); {
		p := bounce.Bytes(min(len(r.Data)-done, bounceSize))
		if err := b.readAll(p, r.Off+int64(done)); err != nil {
			return err
		}
		done += copy(r.Data[done:], p)
	}
	return nil
}

// readAll fills p. A medium error tells the first bad block.
func (b *backing) readAll(p []byte, off int64) error {
	for piece := len(p); len(p) > 0; {
		n, errno := b.calls.read(b.fd, p[:min(len(p), piece)], off)
		switch {
		case errno == unix.EINTR:
			continue
		case kindOf(errno) == KindMedium && min(len(p), piece) > b.block():
			piece = b.narrow(min(len(p), piece))
			continue
		case errno != 0:
			return &Error{Op: Read, Kind: kindOf(errno), Off: off, Err: errno}
		case n == 0:
			return b.atEnd(off)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// block returns the size of what the medium loses at once, as far as it matters.
func (b *backing) block() int { return max(b.info.BlockSize, minBlock) }

// narrow returns the piece in which to repeat a transfer of n bytes, of which the
// medium has failed some.
func (b *backing) narrow(n int) int {
	if n > searchPiece {
		return searchPiece
	}
	return b.block()
}

func (b *backing) write(r *Request) error {
	if r.Flags&FUA != 0 {
		if err := b.vouch(r.Op); err != nil {
			return err
		}
	}
	if b.aligned(r.Data) {
		return b.writeAll(r, r.Data, r.Off)
	}
	bounce := Get(min(len(r.Data), bounceSize))
	defer bounce.Put()
	for done := 0; done < len(r.Data); {
		p := bounce.Bytes(min(len(r.Data)-done, bounceSize))
		copy(p, r.Data[done:])
		if err := b.writeAll(r, p, r.Off+int64(done)); err != nil {
			return err
		}
		done += len(p)
	}
	return nil
}

func (b *backing) writeAll(r *Request, p []byte, off int64) error {
	var flags uintptr
	if r.Flags&FUA != 0 {
		flags = unix.RWF_DSYNC
	}
	if r.Flags&Atomic != 0 {
		flags |= writeOnce
		if len(p) > b.info.PhysicalBlockSize && len(p) <= b.info.AtomicUnit { // the kernel has to be told to keep it together
			flags |= unix.RWF_ATOMIC
		}
	}
	n, errno := b.writeFull(p, off, flags)
	if errno == 0 {
		return nil
	}
	if r.Flags&FUA != 0 {
		// RWF_DSYNC consumes the kernel's record of failed write-back, of
		// this write and of earlier ones, so its failure counts like that
		// of a flush. Only a refused write is harmless; a second, plain attempt
		// shows which of both it was, and which block is bad.
		kind, bad := kindOf(errno), int64(unknown)
		if kind == KindNoSpace || kind == KindMedium {
			done, again := b.writeFull(p[n:], off+int64(n), flags&^unix.RWF_DSYNC)
			switch {
			case again != 0 && kind == KindNoSpace:
				errno, kind = again, kindOf(again)
			case again != 0:
				bad = b.firstBad(flags, p, off+int64(n+done))
			default:
				kind = KindMedium
			}
		}
		if kind != KindNoSpace && kind != KindReadOnly {
			return b.fails(r.Op, bad, errno)
		}
	}
	return &Error{Op: r.Op, Kind: kindOf(errno), Off: b.firstBad(flags, p, off+int64(n)), Err: errno}
}

// firstBad returns off, at which a write of p has stopped, if it is the first bad
// block: one that is made at once stops at its beginning whatever block is bad.
func (b *backing) firstBad(flags uintptr, p []byte, off int64) int64 {
	if flags&writeOnce != 0 && len(p) > b.block() {
		return unknown
	}
	return off
}

// writeOnce, beside the RWF_ flags, has writeFull make one call of all it is given.
const writeOnce = 1 << 31

// writeFull writes all of p, or returns how much it wrote and why no more: after a
// medium error of a plain write that is up to the first bad block. One that has
// to reach the medium is not repeated: that could succeed for the wrong reason. Nor
// is one that is atomic, for a part of it could succeed.
func (b *backing) writeFull(p []byte, off int64, flags uintptr) (int, unix.Errno) {
	piece := b.piece
	if flags != 0 {
		piece = len(p) // each piece would wait for the medium, or be torn
	}
	for done := 0; ; {
		size := min(len(p)-done, piece)
		n, errno := b.calls.write(b.fd, p[done:done+size], off+int64(done), flags&^writeOnce)
		switch {
		case errno == unix.EINTR:
			continue
		case flags == 0 && kindOf(errno) == KindMedium && size > b.block():
			piece = b.narrow(size)
			continue
		case errno != 0:
			return done, errno
		}
		if done += n; done >= len(p) {
			return done, 0
		}
		if n == 0 {
			return done, unix.EIO
		}
	}
}

// deallocate runs a Discard or Zero.
func (b *backing) deallocate(r *Request) error {
	if r.Flags&FUA != 0 {
		if err := b.vouch(r.Op); err != nil {
			return err
		}
	}
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if r.Op == Discard && b.info.Discard {
		mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	}
	off, end := r.Off, r.Off+r.Len
	for off < end {
		n := min(end-off, fallocateSize)
		errno := b.calls.allocate(b.fd, mode, off, n)
		if errno == unix.EINTR {
			continue
		}
		bad := int64(unknown)
		if errno == unix.EOPNOTSUPP || errno == unix.EINVAL {
			bad, errno = b.writeZeros(off, n)
		}
		if errno != 0 {
			return &Error{Op: r.Op, Kind: kindOf(errno), Off: bad, Err: errno}
		}
		off += n
	}
	if r.Flags&FUA != 0 {
		return b.sync(r.Op)
	}
	return nil
}

// writeZeros returns the first byte that it could not write, and why.
func (b *backing) writeZeros(off, n int64) (int64, unix.Errno) {
	buf := Get(int(min(n, bounceSize)))
	defer buf.Put()
	p := buf.Bytes(int(min(n, bounceSize)))
	clear(p)
	for n > 0 {
		part := min(n, int64(len(p)))
		if done, errno := b.writeFull(p[:part], off, 0); errno != 0 {
			return off + int64(done), errno
		}
		off, n = off+part, n-part
	}
	return off, 0
}

// flush has r wait for an fdatasync that starts after now. All that wait
// for the same one share it.
func (b *backing) flush(r *Request) {
	b.flushMu.Lock()
	b.flushes.push(r)
	start := !b.flushing
	b.flushing = true
	b.flushMu.Unlock()
	if start {
		go b.flushLoop()
	}
}

func (b *backing) flushAll() {
	for {
		b.flushMu.Lock()
		batch := b.flushes
		b.flushes = requestList{}
		if batch.head == nil {
			b.flushing = false
			b.flushMu.Unlock()
			return
		}
		b.flushMu.Unlock()
		err := b.flushOnce()
		for r := batch.pop(); r != nil; r = batch.pop() {
			b.finish(r, err)
		}
	}
}

// flushOnce is sync for those who wait for a flush. One of them is told of each loss.
func (b *backing) flushOnce() error {
	err := b.sync(Flush)
	owed := b.owed.Swap(nil)
	if err == nil && owed != nil {
		return owed.of(Flush)
	}
	if broken := b.broken.Load(); err != nil && broken != nil {
		broken.told.Store(true)
	}
	return err
}

// sync makes completed writes stable.
func (b *backing) sync(op Op) error {
	if err := b.vouch(op); err != nil {
		return err
	}
	if b.info.ReadOnly {
		return nil
	}
	if errno := b.datasync(b.fd); errno != 0 {
		return b.fails(op, unknown, errno)
	}
	return nil
}

func (b *backing) datasync(fd int) unix.Errno {
	errno := unix.EINTR
	for errno == unix.EINTR {
		errno = b.calls.sync(fd)
	}
	return errno
}

// vouch returns why nothing can be promised about stable storage, or nil.
func (b *backing) vouch(op Op) error {
	var err *Error
	if broken := b.broken.Load(); broken != nil {
		err = broken.err
	} else if b.check != nil {
		err = b.check()
	}
	if err == nil {
		return nil
	}
	return &Error{Op: op, Kind: err.Kind, Off: err.Off, Err: err.Err}
}

// fails records that what was written may be lost, and returns the error of the
// operation that tells so; off is the first bad byte, where that is known.
func (b *backing) fails(op Op, off int64, errno unix.Errno) error {
	kind := kindOf(errno)
	if kind == KindNoSpace || kind == KindReadOnly {
		kind = KindMedium // neither passes by itself, unlike these
	}
	b.broken.CompareAndSwap(nil, &verdict{since: time.Now(), err: &Error{
		Kind: kind,
		Off:  unknown,
		Err:  fmt.Errorf("%s: writes may be lost since the last good flush; check the storage and open the device again: %w", b.path, errno),
	}})
	err := b.broken.Load().err
	return &Error{Op: op, Kind: err.Kind, Off: off, Err: err.Err}
}

// Health returns how the file or disk does.
func (b *backing) Health() Health {
	h := b.faults.health()
	if broken := b.broken.Load(); broken != nil {
		h.Fault = broken.fault(FaultLost)
	}
	return h
}

func (b *backing) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gate.closed() {
		return b.closeErr
	}
	b.gate.close()
	b.opening <- struct{}{} // for good: what a Reopen has left under way uses fd
	err := b.sync(Flush)
	if b.broken.Load() != nil {
		// As a Reopen does: or who opens it next, after a restart, would read what was lost as if
		// it were stored, and flush it with success, for the page cache has it and calls it clean.
		_ = b.datasync(b.fd)
		_ = b.calls.forget(b.fd)
	}
	if errno := errnoOf(unix.Close(b.fd)); err == nil && errno != 0 {
		err = &Error{Op: Flush, Kind: kindOf(errno), Err: errno}
	}
	if b.claim >= 0 {
		_ = unix.Close(b.claim)
	}
	b.closeErr = err
	return err
}

// errClosed is what the methods that take no request return after Close.
func errClosed() error { return &Error{Kind: KindGone, Err: ErrClosed} }
