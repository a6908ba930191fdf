package sendq

import "net"

// vectorWriter is a connection that has a way of its own to write several
// buffers as one, such as one with TLS.
type vectorWriter interface {
	WriteBuffers(vec net.Buffers) error // leaves vec as it is
}

// writePieces writes a whole batch to a connection that is no socket. It returns
// how many bytes it wrote; vec is for its use.
func writePieces(conn net.Conn, b *Batch, vec *net.Buffers) (int, error) {
	w, ok := conn.(vectorWriter)
	if !ok {
		n := 0
		for _, s := range b.segs {
			written, err := conn.Write(b.bytes(s))
			if n += written; err != nil {
				return n, err
			}
		}
		return n, nil
	}
	for _, s := range b.segs {
		*vec = append(*vec, b.bytes(s))
	}
	err := w.WriteBuffers(*vec)
	clear(*vec)
	*vec = (*vec)[:0]
	if err != nil {
		return 0, err
	}
	return b.size, nil
}
