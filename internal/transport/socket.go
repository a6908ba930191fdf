package transport

import (
	"net"
	"net/netip"
	"time"
)

// Tune sets a new connection up: no delay, keep-alive probes that find a dead
// peer within a minute, and buffers of the given bytes where not 0.
func Tune(nc net.Conn, buffer int) {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	// A socket that refuses one of these still works.
	_ = t.SetNoDelay(true)
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3})
	if buffer > 0 {
		_ = t.SetReadBuffer(buffer)
		_ = t.SetWriteBuffer(buffer)
	}
}

// AddrPort returns the address of a TCP endpoint, the zero one for others.
func AddrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
