package iscsi

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestNormalizeName checks iSCSI names and their normal form (RFC 7143 §4.2.7, RFC 3722 §3, §6).
func TestNormalizeName(t *testing.T) {
	longest := "iqn.2026-11.io.lintel:" + strings.Repeat("x", MaxName-len("iqn.2026-11.io.lintel:"))
	for name, want := range map[string]string{
		"iqn.1993-08.org.debian:01:abc_d":           "",
		"iqn.2026-11.io.lintel":                     "",
		longest:                                     "",
		"IQN.1991-05.Com.Microsoft:HOST1":           "iqn.1991-05.com.microsoft:host1",
		"eui.02004567A425678D":                      "eui.02004567a425678d",
		"EUI.02004567a425678d":                      "eui.02004567a425678d",
		"naa.52004567BA64678D":                      "naa.52004567ba64678d",
		"naa.62004567BA64678D0123456789ABCDEF":      "naa.62004567ba64678d0123456789abcdef",
		"iqn.2026-11.io.lintel:Speicher-GRÜN":       "iqn.2026-11.io.lintel:speicher-grün",
		"iqn.2026-11.io.lintel:\u65E5\u672C":        "",
		"iqn.2026-11.io.lintel:\u0395\u03A3\u0391x": "iqn.2026-11.io.lintel:\u03B5\u03C3\u03B1x",
	} {
		if want == "" {
			want = name
		}
		if got, err := NormalizeName(name); err != nil || got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{
		"", "x", "iqn", "iqn.", "iqn.199-08.org", "iqn.1993x08.org", "iqn.1993-0a.org", "iqn.2001-13.com.example", "iqn.2001-04", "iqn.1993-08xorg",
		"iqn.2001-04.com.example:", "foo.bar", "nqn.2014-08.org.nvmexpress:uuid", longest + "x",
		"eui.0123", "eui.0123456789abcdez", "naa.6", "naa.52004567BA64678D0",
		"iqn.2026-11.io.\u0436:a", // a domain name is ASCII
	} {
		if got, err := NormalizeName(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for _, bad := range []string{
		" ", "!", "\"", "#", "$", "%", "&", "'", "(", ")", "*", "+", ",", "/", ";", "<", "=", ">", "?", "@", "[", "\\", "]", "^", "`", "{", "|", "}", "~",
		"\x00", "\n", "\x7f", "\u0085", "\u00A0", "\u200B", "\u202E", "\u3000", "\u3002", "\uE000", "\uFEFF", "\uFFFD", "\uFFFE", "\U000E0001", "\xff", "\xc3",
	} {
		if got, err := NormalizeName("iqn.2001-04.com.example:a" + bad + "b"); !errors.Is(err, ErrName) {
			t.Errorf("a name with %q is %q, %v", bad, got, err)
		}
	}
}

func FuzzNormalizeName(f *testing.F) {
	f.Add("IQN.1991-05.com.microsoft:Host")
	f.Add("eui.02004567A425678D")
	f.Add("iqn.2026-11.io.lintel:\u0130\u212A\xff")
	f.Fuzz(func(t *testing.T, name string) {
		got, err := NormalizeName(name)
		if err != nil {
			return
		}
		if again, err := NormalizeName(got); err != nil || again != got {
			t.Fatalf("%q becomes %q and that %q, %v", name, got, again, err)
		}
		if upper, err := NormalizeName(strings.ToUpper(got)); !isASCII(got) {
			return
		} else if err != nil || upper != got {
			t.Fatalf("%q in upper case is %q, %v", got, upper, err)
		}
		if len(got) > MaxName || !utf8.ValidString(got) {
			t.Fatalf("%q is a name", got)
		}
	})
}

func isASCII(s string) bool { return len(s) == utf8.RuneCountInString(s) }
