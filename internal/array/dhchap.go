package array

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// DHCHAPHash is the hash with which a DH-HMAC-CHAP key is bound to the NQN of
// its owner before use. The numbers are those of NVMe Base 2.0 §8.13.5.8.
type DHCHAPHash uint8

// The hashes.
const (
	DHCHAPNone   DHCHAPHash = 0 // the key is used as it is
	DHCHAPSHA256 DHCHAPHash = 1
	DHCHAPSHA384 DHCHAPHash = 2
	DHCHAPSHA512 DHCHAPHash = 3
)

// size returns the length in bytes of the keys that belong to a hash.
func (h DHCHAPHash) size() int {
	switch h {
	case DHCHAPSHA384:
		return 48
	case DHCHAPSHA512:
		return 64
	}
	return 32
}

// DHCHAPKey is a key of in-band authentication over NVMe. Its text form is
// DHHC-1:hh:base64: with the hash in two digits, and key and CRC-32 in base64
// (NVMe Base 2.0 §8.13.5.8).
type DHCHAPKey struct {
	Hash DHCHAPHash
	Key  []byte // 32, 48 or 64 bytes; with a hash as many as the hash gives
}

// ParseDHCHAPKey reads the text form of a key. Its error, of KindInvalid, shows
// nothing of the key.
func ParseDHCHAPKey(text string) (DHCHAPKey, error) {
	fail := func(why string) (DHCHAPKey, error) {
		return DHCHAPKey{}, Errorf(KindInvalid, "the DH-HMAC-CHAP key is wrong, %s: lintel host dhchap-key and nvme gen-dhchap-key make good ones", why)
	}
	rest, ok := strings.CutPrefix(text, "DHHC-1:")
	if !ok || len(rest) < 4 || rest[2] != ':' || rest[len(rest)-1] != ':' {
		return fail("it does not have the form DHHC-1:hh:BASE64:")
	}
	if rest[0] != '0' || rest[1] < '0' || rest[1] > '3' {
		return fail("its hash is not 00 (none), 01 (SHA-256), 02 (SHA-384) or 03 (SHA-512)")
	}
	k := DHCHAPKey{Hash: DHCHAPHash(rest[1] - '0')}
	if strings.ContainsAny(rest, "\r\n") {
		return fail("it has a line break")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(rest[3 : len(rest)-1])
	if err != nil {
		return fail("its third part is not base64")
	}
	n := len(raw) - crc32.Size
	if n != 32 && n != 48 && n != 64 || k.Hash != DHCHAPNone && n != k.Hash.size() {
		return fail("it has not the length that belongs to its hash")
	}
	k.Key = raw[:n]
	if binary.LittleEndian.Uint32(raw[n:]) != crc32.ChecksumIEEE(k.Key) {
		return fail("its CRC is wrong, so it was mistyped or cut")
	}
	return k, nil
}

// NewDHCHAPKey returns a fresh key for a hash.
func NewDHCHAPKey(random io.Reader, hash DHCHAPHash) (DHCHAPKey, error) {
	k := DHCHAPKey{Hash: hash, Key: make([]byte, hash.size())}
	if _, err := io.ReadFull(random, k.Key); err != nil {
		return DHCHAPKey{}, fmt.Errorf("reading random bytes: %w", err)
	}
	return k, nil
}

// Text returns the text form.
func (k DHCHAPKey) Text() string {
	raw := binary.LittleEndian.AppendUint32(append([]byte(nil), k.Key...), crc32.ChecksumIEEE(k.Key))
	return fmt.Sprintf("DHHC-1:%02d:%s:", k.Hash, base64.StdEncoding.EncodeToString(raw))
}

// String hides the key from logs.
func (k DHCHAPKey) String() string { return "DH-HMAC-CHAP key" }

// validateDHCHAP checks the keys of a host.
func (h *Host) validateDHCHAP(fail func(string, ...any) error) error {
	if h.DHCHAPKey == "" {
		if h.DHCHAPCtrlKey != "" {
			return fail("dhchap_ctrl_key needs dhchap_key")
		}
		return nil
	}
	if _, err := ParseDHCHAPKey(h.DHCHAPKey); err != nil {
		return fail("dhchap_key: %w", err)
	}
	if h.DHCHAPCtrlKey == "" {
		return nil
	}
	if _, err := ParseDHCHAPKey(h.DHCHAPCtrlKey); err != nil {
		return fail("dhchap_ctrl_key: %w", err)
	}
	if h.DHCHAPKey == h.DHCHAPCtrlKey {
		return fail("dhchap_ctrl_key has to differ from dhchap_key")
	}
	return nil
}
