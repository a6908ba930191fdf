package origin

import (
	"net/netip"
	"testing"
)

func TestOf(t *testing.T) {
	for _, test := range []struct{ a, b, want string }{
		{"192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"},
		{"192.0.2.2", "::ffff:c000:202", "192.0.2.2"},
		{"2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::"},
		{"2001:db8:0:2::1", "2001:db8:0:2::2", "2001:db8:0:2::"},
		{"fd00::1", "fd00::1:0:0:1%eth0", "fd00::"},
		{"fe80::1%eth0", "fe80::1%eth0", "fe80::1%eth0"},
		{"fe80::1%eth1", "fe80::1%eth1", "fe80::1%eth1"},
		{"fe80::2%eth0", "fe80::2%eth0", "fe80::2%eth0"},
		{"fe80::1", "fe80::1", "fe80::1"},
		{"::1", "::1", "::"},
	} {
		for _, from := range []string{test.a, test.b} {
			if got := Of(netip.MustParseAddr(from)); got != netip.MustParseAddr(test.want) {
				t.Errorf("%s counts for %s, want %s", from, got, test.want)
			}
		}
	}
	if got := Of(netip.Addr{}); got.IsValid() {
		t.Errorf("no address counts for %s", got)
	}
}
