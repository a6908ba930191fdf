package array

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Lengths of identity attributes, in bytes (SPC-4 §6.4.2, §7.8.5, §7.8.15).
const (
	maxT10ID    = 228
	maxSerial   = 252
	maxVendor   = 8
	maxProduct  = 16
	maxRevision = 4
	maxComment  = 255
)

var hexNoise = strings.NewReplacer("-", "", ":", "", ".", "", " ", "")

// normalizeHex drops a prefix and separators and returns lower-case hex digits,
// or "" where s has anything else.
func normalizeHex(s, prefix string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	s = strings.TrimPrefix(s, prefix)
	s = strings.TrimPrefix(s, "0x")
	s = hexNoise.Replace(s)
	if _, err := hex.DecodeString(s); err != nil {
		return ""
	}
	return s
}

// NormalizeNAA returns an NAA identifier as 16 or 32 lower-case hex digits:
// types 2, 3 and 5 have 8 bytes, type 6 has 16 (SPC-4 §7.8.6.6). It takes the
// prefixes 0x and naa. and separators, and fails with KindInvalid.
func NormalizeNAA(s string) (string, error) {
	h := normalizeHex(s, "naa.")
	if len(h) == 16 && strings.ContainsRune("235", rune(h[0])) || len(h) == 32 && h[0] == '6' {
		return h, nil
	}
	return "", Errorf(KindInvalid, "naa_id %q: give 16 hex digits starting with 2, 3 or 5, or 32 starting with 6", s)
}

// NormalizeEUI64 returns an EUI-64 based identifier as 16, 24 or 32 lower-case hex
// digits (SPC-4 §7.8.6.5), or a KindInvalid error.
func NormalizeEUI64(s string) (string, error) {
	h := normalizeHex(s, "eui.")
	if len(h) == 16 || len(h) == 24 || len(h) == 32 {
		return h, nil
	}
	return "", Errorf(KindInvalid, "eui64_id %q: give 16, 24 or 32 hex digits", s)
}

// NormalizeNAAPrefix returns a 24-bit prefix as 6 lower-case hex digits, or a
// KindInvalid error.
func NormalizeNAAPrefix(s string) (string, error) {
	h := normalizeHex(s, "")
	if len(h) != 6 {
		return "", Errorf(KindInvalid, "naa_prefix %q: give 6 hex digits", s)
	}
	return h, nil
}

// NGUID returns the namespace globally unique identifier by which NVMe hosts know
// the volume, as 32 hex digits, or "" where its eui64_id has 12 bytes or is
// missing. An NGUID is an EUI-64 behind 8 bytes that extend it (NVMe NVM 1.0
// §4.1.5.1), as an EUI-64 based designator of 16 bytes is (SPC-4 §7.8.6.5.4). So it
// is an eui64_id of 16 bytes as it stands; one of 8 bytes is extended by a hash of
// the naa_id, so that the first 8 bytes alone are unique too.
func (v *Volume) NGUID() string {
	switch len(v.EUI64) {
	case 32:
		return v.EUI64
	case 16:
		sum := sha256.Sum256([]byte("nguid\x00" + v.NAA))
		return hex.EncodeToString(sum[:8]) + v.EUI64
	}
	return ""
}

// UUID returns the UUID by which NVMe hosts know the volume, in its text form. It is
// of version 8 (RFC 9562 §5.8): a hash of naa_id and eui64_id, so that it stays
// as long as they do, and a volume that takes over from another takes this over too.
func (v *Volume) UUID() string {
	sum := sha256.Sum256([]byte("uuid\x00" + v.NAA + "\x00" + v.EUI64))
	u := sum[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// checkText returns a KindInvalid error unless s is printable ASCII of at most
// limit bytes, without white space at its ends (fields are padded with it).
func checkText(field, s string, limit int) error {
	ok := len(s) <= limit && s == strings.TrimSpace(s)
	for i := 0; i < len(s) && ok; i++ {
		ok = s[i] >= 0x20 && s[i] <= 0x7e
	}
	if !ok {
		return Errorf(KindInvalid, "%s %q: use at most %d printable ASCII characters, no space first or last", field, s, limit)
	}
	return nil
}

func checkComment(s string) error {
	if len(s) > maxComment || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\uFFFD' }) {
		return Errorf(KindInvalid, "comment: use at most %d bytes of text without control characters", maxComment)
	}
	return nil
}

// randomHex returns digits random hex digits.
func randomHex(random io.Reader, digits int) (string, error) {
	b := make([]byte, (digits+1)/2)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", fmt.Errorf("reading random bytes: %w", err)
	}
	return hex.EncodeToString(b)[:digits], nil
}

// naaKey is what two volumes must not share: the first 8 bytes of the
// identifier, which is all that some initiators compare.
func naaKey(naa string) string { return naa[:16] }
