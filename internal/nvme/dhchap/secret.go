package dhchap

import (
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// prefix begins the text form of a secret (NVMe Base 2.0 §8.13.5.8).
const prefix = "DHHC-1:"

// ErrSecret says that a text is no secret.
var ErrSecret = errors.New("not a DH-HMAC-CHAP secret")

// ParseSecret reads a secret in its text form, "DHHC-1:", the transform hash (00 for
// none) in two hexadecimal digits, and the base64 form of key and CRC-32 between
// colons. Its errors wrap ErrSecret and do not show the text.
func ParseSecret(text string) (Secret, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !ok {
		return Secret{}, fmt.Errorf("%w: it does not begin with %s", ErrSecret, prefix)
	}
	id, rest, ok := strings.Cut(rest, ":")
	encoded, end, closed := strings.Cut(rest, ":")
	if !ok || !closed || end != "" || len(id) != 2 || id[0] != '0' || id[1] < '0' || id[1] > '3' {
		return Secret{}, fmt.Errorf("%w: it does not have the form %shh:BASE64: with a hash from 00 to 03", ErrSecret, prefix)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") { // which the decoder skips
		return Secret{}, fmt.Errorf("%w: its third part is not base64", ErrSecret)
	}
	s := Secret{Transform: Hash(id[1] - '0')}
	switch n := len(b) - crc32.Size; n {
	case 32, 48, 64:
		s.Key = b[:n:n]
	default:
		return Secret{}, fmt.Errorf("%w: its key has not 32, 48 or 64 bytes", ErrSecret)
	}
	if s.Transform != 0 && s.Transform.Size() != len(s.Key) {
		return Secret{}, fmt.Errorf("%w: a key of %d bytes does not belong to hash %02d", ErrSecret, len(s.Key), s.Transform)
	}
	if crc32.ChecksumIEEE(s.Key) != binary.LittleEndian.Uint32(b[len(s.Key):]) {
		return Secret{}, fmt.Errorf("%w: its CRC is wrong, so it was mistyped or cut", ErrSecret)
	}
	return s, nil
}

// GenerateSecret returns a new secret with as many random bytes as its transform hash
// has, 32 for none.
func GenerateSecret(transform Hash) (Secret, error) {
	if transform > SHA512 {
		return Secret{}, fmt.Errorf("hash %d: use 0 to 3", transform)
	}
	n := 32
	if transform != 0 {
		n = transform.Size()
	}
	s := Secret{Key: make([]byte, n), Transform: transform}
	_, err := rand.Read(s.Key)
	return s, err
}

// Text returns the text form, which ParseSecret reads.
func (s Secret) Text() string {
	b := binary.LittleEndian.AppendUint32(append([]byte(nil), s.Key...), crc32.ChecksumIEEE(s.Key))
	return fmt.Sprintf("%s%02d:%s:", prefix, s.Transform, base64.StdEncoding.EncodeToString(b))
}

// String hides the key.
func (s Secret) String() string { return "DHHC-1:hidden" }

// GoString hides the key.
func (s Secret) GoString() string { return s.String() }

// transformed returns the key as its owner uses it (NVMe Base 2.0 §8.13.5.7).
func (s Secret) transformed(nqn string) []byte {
	if s.Transform == 0 {
		return s.Key
	}
	m := hmac.New(s.Transform.new(), s.Key)
	m.Write([]byte(nqn))
	m.Write([]byte("NVMe-over-Fabrics"))
	return m.Sum(nil)
}
