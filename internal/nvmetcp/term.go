package nvmetcp

import (
	"io"
	"net"
	"time"

	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// mute stops the connection from saying anything more but what terminate says. It
// returns false where the connection has ended already. Only the reader calls it.
func (c *conn) mute(f *fault) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.flushing && !c.dead {
		c.outWait = true
		c.cond.Wait()
	}
	if c.dead {
		return false
	}
	c.dead, c.cause = true, f
	c.closing.Store(true)
	close(c.stop)
	c.cond.Broadcast()
	return true
}

// terminate tells the host what it did wrong, after what was to be sent
// before, and waits for it to close the connection (NVMe/TCP 1.0 §3.5). The
// output is the caller's alone after mute.
func (c *conn) terminate(f *fault) {
	m := f.message()
	copy(c.out.Room(len(m)), m)
	farewell(c.nc, c.out.Write, c.server.cfg.TermTimeout)
}

func (f *fault) message() []byte {
	return wire.AppendTerm(nil, &wire.C2HTermReq{Fault: f.Fault}, f.header)
}

// farewell writes the last words on a connection, gives the peer a while to read
// them, and closes it: to close it at once would throw them away where the peer
// is still sending.
func farewell(nc net.Conn, write func(net.Conn) error, wait time.Duration) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(wait))
	if write(nc) != nil {
		return
	}
	if h, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
	_, _ = io.Copy(io.Discard, nc)
}
