package iscsi

import (
	"container/list"
	"net"
	"net/netip"
)

// pendingLogins are the connections that have not finished their login. Their
// number is bounded, in all and for each address; a new one that finds no
// room takes the place of the oldest, so that a flood of half-open
// connections cannot lock others out.
type pendingLogins struct {
	order list.List // of *pendingLogin, oldest first
	from  map[netip.Addr]*list.List
}

type pendingLogin struct {
	nc          net.Conn
	addr        netip.Addr
	all, ofAddr *list.Element
}

// add takes a connection in and returns the one that has to be closed for it, if any.
func (p *pendingLogins) add(nc net.Conn, addr netip.Addr, limit, perAddr int) (added *pendingLogin, victim net.Conn) {
	if p.from == nil {
		p.from = map[netip.Addr]*list.List{}
	}
	var old *pendingLogin
	if l := p.from[addr]; l != nil && l.Len() >= perAddr {
		old = l.Front().Value.(*pendingLogin)
	} else if p.order.Len() >= limit {
		old = p.order.Front().Value.(*pendingLogin)
	}
	if old != nil {
		p.remove(old)
		victim = old.nc
	}
	l := p.from[addr]
	if l == nil {
		l = list.New()
		p.from[addr] = l
	}
	added = &pendingLogin{nc: nc, addr: addr}
	added.all = p.order.PushBack(added)
	added.ofAddr = l.PushBack(added)
	return added, victim
}

// remove takes a connection out, if it is still in.
func (p *pendingLogins) remove(x *pendingLogin) {
	if x.all == nil {
		return
	}
	p.order.Remove(x.all)
	x.all = nil
	l := p.from[x.addr]
	if l.Remove(x.ofAddr); l.Len() == 0 {
		delete(p.from, x.addr)
	}
}

func (p *pendingLogins) closeAll() {
	for e := p.order.Front(); e != nil; e = e.Next() {
		e.Value.(*pendingLogin).nc.Close()
	}
}
