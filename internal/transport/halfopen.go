package transport

import (
	"container/list"
	"net"
	"net/netip"

	"lintel.io/lintel/internal/origin"
)

// HalfOpen are the connections that have not yet proved to be of use. Their
// number is bounded, in all and for each origin; a new one that finds no room
// takes the place of the oldest, so that a flood cannot lock others out. The
// caller serializes all calls.
type HalfOpen struct {
	order list.List                 // of *HalfOpenConn, oldest first
	from  map[netip.Addr]*list.List // by origin
}

// HalfOpenConn is one connection of a HalfOpen.
type HalfOpenConn struct {
	nc            net.Conn
	origin        netip.Addr
	all, ofOrigin *list.Element
}

// Add takes a connection from an address in and returns the one that has to be closed for
// it, if any.
func (h *HalfOpen) Add(nc net.Conn, addr netip.Addr, limit, perOrigin int) (added *HalfOpenConn, victim net.Conn) {
	from := origin.Of(addr)
	if h.from == nil {
		h.from = map[netip.Addr]*list.List{}
	}
	var old *HalfOpenConn
	if l := h.from[from]; l != nil && l.Len() >= perOrigin {
		old = l.Front().Value.(*HalfOpenConn)
	} else if h.order.Len() >= limit {
		old = h.order.Front().Value.(*HalfOpenConn)
	}
	if old != nil {
		h.Remove(old)
		victim = old.nc
	}
	l := h.from[from]
	if l == nil {
		l = list.New()
		h.from[from] = l
	}
	added = &HalfOpenConn{nc: nc, origin: from}
	added.all = h.order.PushBack(added)
	added.ofOrigin = l.PushBack(added)
	return added, victim
}

// Remove takes a connection out, if it is still in.
func (h *HalfOpen) Remove(c *HalfOpenConn) {
	if c.all == nil {
		return
	}
	h.order.Remove(c.all)
	c.all = nil
	l := h.from[c.origin]
	if l.Remove(c.ofOrigin); l.Len() == 0 {
		delete(h.from, c.origin)
	}
}

// Len returns how many connections are in.
func (h *HalfOpen) Len() int { return h.order.Len() }

// CloseAll closes all connections that are in.
func (h *HalfOpen) CloseAll() {
	for e := h.order.Front(); e != nil; e = e.Next() {
		e.Value.(*HalfOpenConn).nc.Close()
	}
}
