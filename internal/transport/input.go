package transport

import "net"

// receiveSize is how much one read may bring.
const receiveSize = 256<<10 + 1024

// Input holds what has been read from a connection and not yet handled.
type Input struct {
	buf  []byte
	r, w int
}

// Bytes returns what is there. It is valid until the next Fill.
func (in *Input) Bytes() []byte { return in.buf[in.r:in.w] }

// Take says that the first n bytes have been handled.
func (in *Input) Take(n int) { in.r += n }

// Fill reads more, once, and makes sure that a PDU of need bytes fits.
func (in *Input) Fill(nc net.Conn, need int) (int, error) {
	in.makeRoom(need)
	n, err := nc.Read(in.buf[in.w:])
	in.w += n
	return n, err
}

// makeRoom readies the buffer for a PDU of need bytes that begins at r.
func (in *Input) makeRoom(need int) {
	if in.buf == nil {
		in.buf = make([]byte, receiveSize)
	}
	if in.r == in.w {
		in.r, in.w = 0, 0
		if len(in.buf) > receiveSize && need <= receiveSize {
			in.buf = make([]byte, receiveSize)
		}
	}
	if in.r > 0 && len(in.buf)-in.r < max(need, receiveSize/2) {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	if need > len(in.buf) {
		buf := make([]byte, need)
		in.w = copy(buf, in.buf[in.r:in.w])
		in.r, in.buf = 0, buf
	}
}
