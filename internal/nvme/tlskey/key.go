package tlskey

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// prefix begins the text form of a key (NVMe/TCP 1.0 §3.6.1.5).
const prefix = "NVMeTLSkey-1:"

// ErrKey says that a text is no key.
var ErrKey = errors.New("not a TLS key of NVMe/TCP")

// Hash is a hash function as keys and identities number it.
type Hash uint8

// The hashes.
const (
	None   Hash = 0 // a configured key is used as it is
	SHA256 Hash = 1
	SHA384 Hash = 2
)

// size returns the length in bytes of the keys that belong to a hash.
func (h Hash) size() int {
	if h == SHA384 {
		return 48
	}
	return 32
}

// Key is a configured key.
type Key struct {
	Hash   Hash   // with which it is bound to its host's NQN
	Secret []byte // 32 or 48 bytes; with a hash as many as the hash gives
}

// Parse reads the text form of a key, NVMeTLSkey-1:hh:base64: with the hash in two
// digits, and key and CRC-32 in base64. Its errors wrap ErrKey and do not show the text.
func Parse(text string) (Key, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !ok {
		return Key{}, fmt.Errorf("%w: it does not begin with %s", ErrKey, prefix)
	}
	id, rest, ok := strings.Cut(rest, ":")
	encoded, end, closed := strings.Cut(rest, ":")
	if !ok || !closed || end != "" || len(id) != 2 || id[0] != '0' || id[1] < '0' || id[1] > '2' {
		return Key{}, fmt.Errorf("%w: it does not have the form %shh:BASE64: with a hash from 00 to 02", ErrKey, prefix)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") { // which the decoder skips
		return Key{}, fmt.Errorf("%w: its third part is not base64", ErrKey)
	}
	k := Key{Hash: Hash(id[1] - '0')}
	n := len(b) - crc32.Size
	if n != 32 && n != 48 || k.Hash != None && n != k.Hash.size() {
		return Key{}, fmt.Errorf("%w: it has not the length that belongs to hash %s", ErrKey, id)
	}
	k.Secret = b[:n:n]
	if crc32.ChecksumIEEE(k.Secret) != binary.LittleEndian.Uint32(b[n:]) {
		return Key{}, fmt.Errorf("%w: its CRC is wrong, so it was mistyped or cut", ErrKey)
	}
	return k, nil
}

// Generate returns a fresh key for a hash; for None it has 32 bytes.
func Generate(h Hash) (Key, error) {
	if h > SHA384 {
		return Key{}, fmt.Errorf("hash %d: use 0, 1 or 2", h)
	}
	k := Key{Hash: h, Secret: make([]byte, h.size())}
	_, err := rand.Read(k.Secret)
	return k, err
}

// Text returns the text form, which Parse reads.
func (k Key) Text() string {
	b := binary.LittleEndian.AppendUint32(append([]byte(nil), k.Secret...), crc32.ChecksumIEEE(k.Secret))
	return fmt.Sprintf("%s%02d:%s:", prefix, k.Hash, base64.StdEncoding.EncodeToString(b))
}

// String hides the key.
func (k Key) String() string { return prefix + "hidden" }

// GoString hides the key.
func (k Key) GoString() string { return k.String() }
