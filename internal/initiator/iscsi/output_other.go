//go:build !linux

package iscsi

import "net"

// output writes batches to a connection, always from the writer goroutine.
type output struct {
	conn  net.Conn
	batch *batch
}

func newOutput(conn net.Conn) output { return output{conn: conn} }

// begin readies a batch for write.
func (o *output) begin(b *batch) { o.batch = b }

// write writes the whole batch where it may wait, and nothing otherwise.
func (o *output) write(wait bool) (n int, done bool, err error) {
	if !wait {
		return 0, false, nil
	}
	pieces := make(net.Buffers, 0, len(o.batch.segs))
	for _, s := range o.batch.segs {
		pieces = append(pieces, o.batch.bytes(s))
	}
	written, err := pieces.WriteTo(o.conn)
	return int(written), err == nil, err
}
