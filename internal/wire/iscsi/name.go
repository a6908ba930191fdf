package iscsi

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// MaxName is the longest iSCSI name in bytes (RFC 7143 §4.2.7.1).
const MaxName = 223

// ErrName says that a text is no iSCSI name.
var ErrName = errors.New("not an iSCSI name")

var nameForm = regexp.MustCompile(`^(iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9.-]+(:.+)?|eui\.[0-9a-f]{16}|naa\.([0-9a-f]{16}|[0-9a-f]{32}))$`)

// NormalizeName returns the form of an iSCSI name in which names are compared byte by byte:
// lower case, of eui. and naa. names too (RFC 7143 §4.2.7.2, RFC 3722). Letters beyond ASCII
// are expected as Unicode's normalization form KC has them. An error wraps ErrName: the name
// is none of iqn., eui. and naa., has a character that NameRune refuses, or is too long.
func NormalizeName(name string) (string, error) {
	if len(name) > MaxName {
		return "", fmt.Errorf("%w: it has %d bytes, more than %d", ErrName, len(name), MaxName)
	}
	lower := strings.ToLower(name)
	if i := strings.IndexFunc(lower, func(r rune) bool { return !NameRune(r) }); i >= 0 {
		return "", fmt.Errorf("%w: %q has a forbidden character", ErrName, name)
	}
	if len(lower) > MaxName || !nameForm.MatchString(lower) {
		return "", fmt.Errorf("%w: %q is none of iqn.YYYY-MM.domain[:text], eui. with 16 and naa. with 16 or 32 hexadecimal digits", ErrName, name)
	}
	return lower, nil
}

// NameRune reports whether an iSCSI name in normal form may have a character (RFC 7143
// §4.2.7.2, RFC 3722 §6.2): of ASCII lower-case letters, digits, dash, dot, colon, and
// underscore, which initiators use; beyond it what is printed, but no full stop and no
// character that stands for an unknown one.
func NameRune(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.', r == ':', r == '_':
		return true
	case r <= unicode.MaxASCII, r == '\u3002', r == unicode.ReplacementChar:
		return false
	}
	return unicode.IsPrint(r)
}
