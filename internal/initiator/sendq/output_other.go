//go:build !linux

package sendq

import "net"

// Output writes batches to a connection, and always waits for it. It is not
// safe for concurrent use.
type Output struct {
	conn  net.Conn
	batch *Batch
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
	pieces := make(net.Buffers, 0, len(o.batch.segs))
	for _, s := range o.batch.segs {
		pieces = append(pieces, o.batch.bytes(s))
	}
	written, err := pieces.WriteTo(o.conn)
	return int(written), err == nil, err
}
