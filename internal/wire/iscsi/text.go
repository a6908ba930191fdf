package iscsi

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of text (RFC 7143 §6.1): lengths in bytes.
const (
	MaxKeyName   = 63
	MaxTextValue = 8192 // a list, or a large binary value
)

// The answers of a negotiation that are no value (RFC 7143 §6.2).
const (
	Rejected      = "Reject"
	Irrelevant    = "Irrelevant"
	NotUnderstood = "NotUnderstood"
)

// ErrText says that a text data segment is malformed.
var ErrText = errors.New("malformed text")

// KeyValue is one key=value pair.
type KeyValue struct {
	Key, Value string
}

// AppendText appends key=value and the terminating zero byte.
func AppendText(dst []byte, key, value string) []byte {
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, 0)
}

// ParseText splits the text of one exchange, joined over its PDUs, into at
// most limit pairs, in order. Errors wrap ErrText.
func ParseText(text []byte, limit int) ([]KeyValue, error) {
	var out []KeyValue
	for len(text) > 0 {
		if text[0] == 0 { // some initiators pad within the data segment
			text = text[1:]
			continue
		}
		pair, rest, ended := bytes.Cut(text, []byte{0})
		if !ended {
			return nil, fmt.Errorf("%w: the last pair does not end with a zero byte", ErrText)
		}
		key, value, found := bytes.Cut(pair, []byte{'='})
		switch {
		case !found:
			return nil, fmt.Errorf("%w: a pair has no equals sign", ErrText)
		case !validKey(key):
			return nil, fmt.Errorf("%w: %.80q is not a key name", ErrText, key)
		case len(value) > MaxTextValue:
			return nil, fmt.Errorf("%w: the value of %s has %d bytes, more than %d", ErrText, key, len(value), MaxTextValue)
		case len(out) == limit:
			return nil, fmt.Errorf("%w: more than %d pairs", ErrText, limit)
		}
		out = append(out, KeyValue{string(key), string(value)})
		text = rest
	}
	return out, nil
}

// validKey checks a key-name (RFC 7143 §6.1). Names begin with a capital but
// for iSCSIProtocolLevel, so any letter passes.
func validKey(k []byte) bool {
	if len(k) == 0 || len(k) > MaxKeyName || k[0]|0x20 < 'a' || k[0]|0x20 > 'z' {
		return false
	}
	for _, c := range k {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '.', c == '-', c == '+', c == '@', c == '_', c == '#', c == '/':
		default:
			return false
		}
	}
	return true
}

// ParseNumber reads a numerical-value: decimal, or hexadecimal after 0x (RFC 7143 §6.1).
func ParseNumber(s string) (uint64, error) {
	base := 10
	if rest, ok := cutPrefixFold(s, "0x"); ok {
		s, base = rest, 16
	}
	if s == "" || s[0] == '+' || s[0] == '-' || strings.Contains(s, "_") {
		return 0, fmt.Errorf("%w: %.40q is not a number", ErrText, s)
	}
	n, err := strconv.ParseUint(s, base, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %.40q is not a number", ErrText, s)
	}
	return n, nil
}

// ParseBool reads a boolean-value.
func ParseBool(s string) (bool, error) {
	switch s {
	case "Yes":
		return true, nil
	case "No":
		return false, nil
	}
	return false, fmt.Errorf("%w: %.40q is neither Yes nor No", ErrText, s)
}

// FormatBool returns a boolean-value.
func FormatBool(v bool) string {
	if v {
		return "Yes"
	}
	return "No"
}

// ParseBinary reads a binary-value: hexadecimal after 0x or base64 after 0b
// (RFC 7143 §6.1). limit is the largest length accepted, in bytes.
func ParseBinary(s string, limit int) ([]byte, error) {
	if rest, ok := cutPrefixFold(s, "0x"); ok {
		if len(rest) > 2*limit {
			return nil, fmt.Errorf("%w: binary value longer than %d bytes", ErrText, limit)
		}
		if len(rest)%2 == 1 {
			rest = "0" + rest
		}
		b, err := hex.DecodeString(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: bad hexadecimal value", ErrText)
		}
		return b, nil
	}
	if rest, ok := cutPrefixFold(s, "0b"); ok {
		rest = strings.TrimRight(rest, "=")
		if base64.RawStdEncoding.DecodedLen(len(rest)) > limit {
			return nil, fmt.Errorf("%w: binary value longer than %d bytes", ErrText, limit)
		}
		if strings.ContainsAny(rest, "\r\n") {
			return nil, fmt.Errorf("%w: bad base64 value", ErrText)
		}
		b, err := base64.RawStdEncoding.DecodeString(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: bad base64 value", ErrText)
		}
		return b, nil
	}
	return nil, fmt.Errorf("%w: a binary value begins with 0x or 0b", ErrText)
}

// FormatHex returns a binary-value in hexadecimal.
func FormatHex(b []byte) string { return "0x" + hex.EncodeToString(b) }

// FormatBase64 returns a binary-value in base64.
func FormatBase64(b []byte) string { return "0b" + base64.StdEncoding.EncodeToString(b) }

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}
