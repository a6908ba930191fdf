package sendq

import (
	"net"
	"runtime"
	"syscall"
	"unsafe"
)

// maxVectors is the most pieces of one vectored write (IOV_MAX).
const maxVectors = 1024

// Output writes batches to a connection: to a socket with writev, without
// waiting where asked, to any other connection in its own way. It is not safe for concurrent use.
type Output struct {
	conn net.Conn
	raw  syscall.RawConn // nil where conn is no socket

	batch *Batch
	next  int // first segment that is not written
	skip  int // bytes of it that are

	vectors [maxVectors]syscall.Iovec
	n       int // vectors in use
	wait    bool
	wrote   int
	errno   syscall.Errno
	attempt func(fd uintptr) bool

	pieces net.Buffers // of a connection that is no socket
}

// NewOutput returns an output to a connection.
func NewOutput(conn net.Conn) *Output {
	o := &Output{conn: conn}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			o.raw = raw
		}
	}
	o.attempt = o.writev
	return o
}

// Begin readies a batch for Write.
func (o *Output) Begin(b *Batch) { o.batch, o.next, o.skip = b, 0, 0 }

// Write writes the rest of the batch, or as much as the socket takes when not
// allowed to wait. With wait it may return early, after some of it. n is what
// this call wrote, in bytes.
func (o *Output) Write(wait bool) (n int, done bool, err error) {
	if o.raw == nil {
		if !wait {
			return 0, len(o.batch.segs) == 0, nil
		}
		n, err := writePieces(o.conn, o.batch, &o.pieces)
		return n, err == nil, err
	}
	o.wait = wait
	for o.next < len(o.batch.segs) {
		o.vectorize()
		if err := o.raw.Write(o.attempt); err != nil {
			return n, false, err
		}
		if o.errno == syscall.EAGAIN {
			return n, false, nil
		}
		if o.errno != 0 {
			return n, false, o.errno
		}
		n += o.wrote
		o.advance(o.wrote)
		if wait {
			break
		}
	}
	return n, o.next == len(o.batch.segs), nil
}

func (o *Output) vectorize() {
	o.n = 0
	skip := o.skip
	for _, s := range o.batch.segs[o.next:] {
		if o.n == maxVectors {
			break
		}
		p := o.batch.bytes(s)[skip:]
		skip = 0
		o.vectors[o.n].Base = unsafe.SliceData(p)
		o.vectors[o.n].SetLen(len(p))
		o.n++
	}
}

func (o *Output) advance(n int) {
	for n > 0 {
		rest := len(o.batch.bytes(o.batch.segs[o.next])) - o.skip
		if n < rest {
			o.skip += n
			return
		}
		n -= rest
		o.next, o.skip = o.next+1, 0
	}
}

// writev is one attempt; its result says whether RawConn.Write shall return.
func (o *Output) writev(fd uintptr) bool {
	for {
		r, _, errno := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&o.vectors[0])), uintptr(o.n))
		if errno == syscall.EINTR {
			continue
		}
		o.wrote, o.errno = int(r), errno
		runtime.KeepAlive(o.batch)
		return errno != syscall.EAGAIN || !o.wait
	}
}
