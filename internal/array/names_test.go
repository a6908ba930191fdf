package array

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "4096": 4096, "512B": 512, "10GiB": 10 << 30, "10 GiB": 10 << 30, "10G": 10 << 30, "10GB": 10e9, "1kB": 1000, "1K": 1024, "1KiB": 1024,
		"1.5TiB": 3 << 39, "1.5TB": 15e11, "0.5P": 1 << 49, "2.50MB": 25e5, "16383PiB": 16383 << 50, "18446744073709551615": math.MaxUint64,
		"15.5PiB": 31 << 49,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "G", "-1", "1e3", "1.GiB", ".5G", "1..5G", "1.2.3G", "16384PiB", "16EiB", "18446744073709551616", "0.3B", "0.0001KiB", "1kiB", "1KB", "1 0G", "1gib",
		"1.0000000000000001G", "0x10", "１G",
	} {
		if got, err := ParseSize(text); KindOf(err) != KindInvalid || err == nil {
			t.Errorf("ParseSize(%q) = %d, %v", text, got, err)
		}
	}
}

func TestSizesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64().Draw(t, "n")
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			t.Fatalf("%d is shown as %s and read as %d (%v)", n, FormatSize(n), got, err)
		}
		unit := rapid.Uint64Range(1, 1<<40).Draw(t, "unit")
		up, ok := RoundUp(n, unit)
		if ok && (up < n || up%unit != 0 || up-n >= unit) || !ok && n/unit < math.MaxUint64/unit {
			t.Fatalf("RoundUp(%d, %d) = %d, %v", n, unit, up, ok)
		}
	})
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5TiB")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSize(s); err == nil {
			if again, err := ParseSize(FormatSize(n)); err != nil || again != n {
				t.Fatalf("%q is %d, shown as %s", s, n, FormatSize(n))
			}
		}
	})
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"db1", "a-", "ab", "a" + strings.Repeat("b", 46)} {
		if err := CheckName("volume", name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "a", "1a", "-a", "Ab", "a_b", "a.b", "../a", "ä1", "ab\n", "a" + strings.Repeat("b", 47)} {
		if CheckName("volume", name) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

// TestNormalizeISCSIName checks iSCSI names (RFC 7143 §4.2.7.1, §4.2.7.4).
func TestNormalizeISCSIName(t *testing.T) {
	for name, want := range map[string]string{
		"iqn.2001-04.com.example:storage.disk2.sys1.xyz": "",
		"iqn.2001-04.com.Example":                        "iqn.2001-04.com.example",
		"iqn.1993-08.org.debian:01:abc_d":                "",
		"IQN.1991-05.COM.MICROSOFT:HOST1":                "iqn.1991-05.com.microsoft:host1",
		"eui.02004567A425678D":                           "eui.02004567a425678d",
		"naa.52004567BA64678D":                           "naa.52004567ba64678d",
		"naa.62004567BA64678D0123456789ABCDEF":           "naa.62004567ba64678d0123456789abcdef",
	} {
		if want == "" {
			want = name
		}
		if got, err := NormalizeISCSIName(name); err != nil || got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{
		"", "iqn", "iqn.", "iqn.2001-13.com.example", "iqn.2001-04", "iqn.2001-04.com.example:", "iqn.2001-04.com.example:a b", "iqn.2001-04.com.example:a,b",
		"iqn.2001-04.com.example:*", "eui.123", "naa.1", "naa.52004567BA64678D0", "nqn.2014-08.org.nvmexpress:uuid", "iqn.2001-04.com.example:" + strings.Repeat("a", 200),
		"iqn.2001-04.com.example:\x00", "iqn.2001-04.com.example:\xff",
	} {
		if got, err := NormalizeISCSIName(name); err == nil {
			t.Errorf("%q was accepted as %q", name, got)
		}
	}
}

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", "x", true}, {"", "", true}, {"", "x", false}, {"?", "", false}, {"?", "x", true},
		{"a*c", "abc", true}, {"a*c", "ac", true}, {"a*c", "acb", false}, {"a*b*c", "aXbYbZc", true}, {"*.org.*", "iqn.1993-08.org.debian", true},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"**a**", "bab", true}, {"*a?", "aab", true}, {"abc", "abcd", false},
		{strings.Repeat("*a", 50) + "b", strings.Repeat("a", 200), false},
	} {
		if got := MatchPattern(c.pattern, c.name); got != c.want {
			t.Errorf("MatchPattern(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
	for _, p := range []string{"*", "iqn.*", "*:host?", "IQN.2001-04.*"} {
		if _, err := NormalizePattern(p); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []string{"a b*", "*,", "x", strings.Repeat("*", 224)} {
		if _, err := NormalizePattern(p); err == nil {
			t.Errorf("%q was accepted", p)
		}
	}
}

// A pattern matches exactly what the recursive definition says.
func TestMatchPatternModel(t *testing.T) {
	var model func(p, n string) bool
	model = func(p, n string) bool {
		switch {
		case p == "":
			return n == ""
		case p[0] == '*':
			return model(p[1:], n) || n != "" && model(p, n[1:])
		case n == "" || p[0] != '?' && p[0] != n[0]:
			return false
		}
		return model(p[1:], n[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern")
		n := rapid.StringMatching(`[ab]{0,8}`).Draw(t, "name")
		if MatchPattern(p, n) != model(p, n) {
			t.Fatalf("MatchPattern(%q, %q) = %v", p, n, !model(p, n))
		}
	})
}

// TestIdentityForms checks NAA and EUI-64 designators (SPC-4 §7.8.6.5, §7.8.6.6).
func TestIdentityForms(t *testing.T) {
	for text, want := range map[string]string{
		"5001122334455667": "5001122334455667", "0x5001122334455667": "5001122334455667", "naa.6024C4E0123456789abcdef012345678": "6024c4e0123456789abcdef012345678",
		"50:01:12:23:34:45:56:67": "5001122334455667", "2001-1223-3445-5667": "2001122334455667", "3001122334455667": "3001122334455667",
	} {
		if got, err := NormalizeNAA(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1001122334455667", "500112233445566", "6001122334455667", "50011223344556670011223344556677", "500112233445566g", "zz"} {
		if _, err := NormalizeNAA(text); KindOf(err) != KindInvalid || err == nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"0011223344556677", "eui.0011223344556677", "001122334455667788990011", strings.Repeat("ab", 16)} {
		if _, err := NormalizeEUI64(text); err != nil {
			t.Error(err)
		}
	}
	if _, err := NormalizeEUI64("00112233"); err == nil {
		t.Error("a short EUI-64 was accepted")
	}
}

// TestNamespaceIdentity checks that what NVMe hosts know a volume by is made of its
// identity alone, and never becomes another (NVMe NVM 1.0 §4.1.5.1, RFC 9562 §5.8).
func TestNamespaceIdentity(t *testing.T) {
	const naa = "6024c4e0123456789abcdef012345678"
	for _, c := range []struct{ eui, nguid, uuid string }{
		{"024c4e0123456789", "d224544197cd4c19024c4e0123456789", "dbc1a2b6-1d47-829f-9d9c-ca846b654973"},
		{"00112233445566770011223344556677", "00112233445566770011223344556677", "2bcf8ccc-5371-8ebf-873c-45dc8d7434ed"},
		{"001122334455667700112233", "", "753fee9c-2688-8d38-803b-ea09476c9971"},
		{"", "", "23006bf7-6fed-8eaf-b375-668dc35fe6e2"},
	} {
		v := &Volume{Object: Object{ID: "p1-1"}, Name: "a", NAA: naa, EUI64: c.eui}
		if v.NGUID() != c.nguid || v.UUID() != c.uuid {
			t.Errorf("eui64_id %q: NGUID %q, UUID %q", c.eui, v.NGUID(), v.UUID())
		}
		w := &Volume{Object: Object{ID: "p2-7", Rev: 9}, Name: "b", NAA: naa, EUI64: c.eui, Size: 1 << 20}
		if w.NGUID() != v.NGUID() || w.UUID() != v.UUID() {
			t.Errorf("eui64_id %q: another volume that takes the identity over has NGUID %q, UUID %q", c.eui, w.NGUID(), w.UUID())
		}
	}
}

func TestParseNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "192.0.2.7/24": "192.0.2.0/24", "2001:db8::5/32": "2001:db8::/32", "::1": "::1/128", "::ffff:192.0.2.1": "192.0.2.1/32",
	} {
		if got, err := ParseNetwork(text); err != nil || got.String() != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "host", "192.0.2.0/33", "fe80::1%eth0", "::ffff:192.0.2.0/120"} {
		if _, err := ParseNetwork(text); KindOf(err) != KindInvalid || err == nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if a, err := ParsePortalAddress("[::1]"); err != nil || a != netip.MustParseAddr("::1") {
		t.Errorf("got %v, %v", a, err)
	}
	for _, text := range []string{"", "localhost", "224.0.0.1"} {
		if _, err := ParsePortalAddress(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
