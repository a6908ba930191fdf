// Package origin tells whom a network address counts for where something is limited for
// each address.
package origin

import "net/netip"

// subnetBits is the network of one site's link (RFC 4291 §2.5.4): whoever has one address of
// it has them all.
const subnetBits = 64

// Of returns the address that stands for all that the owner of an address has: an IPv4
// address itself, in IPv6 form too, a link-local one with its zone, and of any other IPv6
// address the first of its /64.
func Of(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if !a.Is6() || a.IsLinkLocalUnicast() {
		return a
	}
	subnet, err := a.Prefix(subnetBits)
	if err != nil {
		return a
	}
	return subnet.Addr()
}
