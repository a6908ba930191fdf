package nvmetcp

import (
	"net"
	"time"

	"lintel.io/lintel/internal/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// discard is a connection that takes everything.
type discard struct{ net.Conn }

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
func (discard) SetDeadline(time.Time) error { return nil }

// transportOnly returns a connection without sockets and goroutines, whose caller is the reader.
func transportOnly(h *harness) *conn {
	c := newConn(h.server, discard{})
	c.queue = h.newQueue(nvme.QueueConfig{})
	c.recv = wire.Receiver{Align: 4}
	c.send = wire.Sender{Align: 4}
	c.r2ts, c.depth, c.busy, c.flow = 1, 64, true, false
	return c
}
