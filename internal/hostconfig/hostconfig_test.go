package hostconfig

import (
	"net/netip"
	"strings"
	"testing"
)

// Each text says where it belongs, and has values for all that it leaves open.
func TestTexts(t *testing.T) {
	for _, f := range Files {
		text := f.Text()
		if !strings.Contains(text, f.Path) || strings.Contains(text, "{{") || strings.Contains(text, "<no value>") || !strings.HasSuffix(text, "\n") {
			t.Errorf("%s:\n%s", f.Kind, text)
		}
		if with := f.Text(netip.MustParseAddrPort("192.0.2.10:8009")); f.TakesPortals() != (with != text) {
			t.Errorf("%s with a portal:\n%s", f.Kind, with)
		}
	}
	if text := Multipath.Text(); !strings.Contains(text, `vendor "^LINTEL"`) || !strings.Contains(text, `product "^VIRTUAL-DISK"`) {
		t.Errorf("multipath:\n%s", text)
	}
}

func TestPortals(t *testing.T) {
	text := NVMeDiscovery.Text(netip.MustParseAddrPort("192.0.2.10:0"), netip.MustParseAddrPort("[2001:db8::1]:4420"))
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "--persistent --transport=tcp --traddr=192.0.2.10 --trsvcid=8009 ") ||
		!strings.HasPrefix(lines[1], "--persistent --transport=tcp --traddr=2001:db8::1 --trsvcid=4420 ") {
		t.Errorf("%q", lines)
	}
}
