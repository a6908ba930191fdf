//go:build !linux

package sendq

import "net"

// Output writes batches to a connection, and always waits for it. It is not
// safe for concurrent use.
type Output struct {
	conn   net.Conn
	batch  *Batch
	pieces net.Buffers
}

// NewOutput returns an output to a connection.
func NewOutput(conn net.Conn) *Output { return &Output{conn: conn} }

// Begin readies a batch for Write.
func (o *Output) Begin(b *Batch) { o.batch = b }

// Write writes the whole batch where it may wait, and nothing otherwise.
func (o *Output) Write(wait bool) (n int, done bool, err error) {
	if !wait {
		return 0, len(o.batch.segs) == 0, nil
	}
	n, err = writePieces(o.conn, o.batch, &o.pieces)
	return n, err == nil, err
}
