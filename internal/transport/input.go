package transport

import "net"

const (
	// firstSize is how much the first reads may bring: many connections are idle.
	firstSize = 16 << 10
	// receiveSize is how much one read may bring where there is more.
	receiveSize = 256<<10 + 1024
)

// Input holds what has been read from a connection and not yet handled.
type Input struct {
	buf  []byte
	r, w int
	size int // what buf is to have
}

// Bytes returns what is there. It is valid until the next Fill.
func (in *Input) Bytes() []byte { return in.buf[in.r:in.w] }

// Take says that the first n bytes have been handled.
func (in *Input) Take(n int) { in.r += n }

// Fill reads more, once, and makes sure that a PDU of need bytes fits.
func (in *Input) Fill(nc net.Conn, need int) (int, error) {
	in.makeRoom(need)
	n, err := nc.Read(in.buf[in.w:])
	if in.w += n; in.w == len(in.buf) {
		in.size = receiveSize // there may be more
	}
	return n, err
}

// makeRoom readies the buffer for a PDU of need bytes that begins at r.
func (in *Input) makeRoom(need int) {
	in.size = max(in.size, firstSize)
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	if size := max(need, in.size); len(in.buf) < size || len(in.buf) > size && in.w == 0 {
		buf := make([]byte, size)
		in.w = copy(buf, in.buf[in.r:in.w])
		in.r, in.buf = 0, buf
	}
	if in.r > 0 && len(in.buf)-in.r < max(need, len(in.buf)/2) {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
}
