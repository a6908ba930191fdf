package tlspsk

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
)

// Suite is a cipher suite (RFC 8446 §B.4). A pre-shared key belongs to one,
// because it belongs to a hash.
type Suite uint16

// The cipher suites that NVMe/TCP names.
const (
	AES128GCM Suite = 0x1301 // TLS_AES_128_GCM_SHA256
	AES256GCM Suite = 0x1302 // TLS_AES_256_GCM_SHA384
)

// String returns the name of the suite.
func (s Suite) String() string {
	switch s {
	case AES128GCM:
		return "TLS_AES_128_GCM_SHA256"
	case AES256GCM:
		return "TLS_AES_256_GCM_SHA384"
	}
	return fmt.Sprintf("cipher suite %#04x", uint16(s))
}

func (s Suite) known() bool { return s == AES128GCM || s == AES256GCM }

func (s Suite) hash() crypto.Hash {
	if s == AES256GCM {
		return crypto.SHA384
	}
	return crypto.SHA256
}

func (s Suite) new() hash.Hash { return s.hash().New() }

func (s Suite) sum(p []byte) []byte {
	h := s.new()
	h.Write(p)
	return h.Sum(nil)
}

func (s Suite) keySize() int {
	if s == AES256GCM {
		return 32
	}
	return 16
}

// expandLabel is HKDF-Expand-Label (RFC 8446 §7.1).
func (s Suite) expandLabel(secret []byte, label string, context []byte, n int) []byte {
	out, err := ExpandLabel(s.new, secret, label, context, n)
	if err != nil {
		panic(err) // the lengths are ours
	}
	return out
}

// ExpandLabel is HKDF-Expand-Label (RFC 8446 §7.1), which other protocols than
// TLS use too. It fails where label or context are longer than 249 and 255 bytes, or
// n is more than 255 times the size of the hash.
func ExpandLabel(h func() hash.Hash, secret []byte, label string, context []byte, n int) ([]byte, error) {
	const prefix = "tls13 "
	if len(label) > 255-len(prefix) || len(context) > 255 {
		return nil, fmt.Errorf("HKDF-Expand-Label of a label of %d and a context of %d bytes: 249 and 255 are the most", len(label), len(context))
	}
	info := make([]byte, 0, 2+1+len(prefix)+len(label)+1+len(context))
	info = binary.BigEndian.AppendUint16(info, uint16(n))
	info = append(info, byte(len(prefix)+len(label)))
	info = append(info, prefix...)
	info = append(info, label...)
	info = append(info, byte(len(context)))
	info = append(info, context...)
	return hkdf.Expand(h, secret, string(info), n)
}

func (s Suite) extract(salt, secret []byte) []byte {
	out, err := hkdf.Extract(s.new, secret, salt)
	if err != nil {
		panic(err) // only for hashes that are not allowed
	}
	return out
}

// derive is Derive-Secret of a transcript hash (RFC 8446 §7.1).
func (s Suite) derive(secret []byte, label string, transcript []byte) []byte {
	return s.expandLabel(secret, label, transcript, s.hash().Size())
}

// earlySecret begins the key schedule (RFC 8446 §7.1).
func (s Suite) earlySecret(psk []byte) []byte { return s.extract(nil, psk) }

// next takes the key schedule from one secret to the next.
func (s Suite) next(secret, input []byte) []byte {
	if input == nil {
		input = make([]byte, s.hash().Size())
	}
	return s.extract(s.derive(secret, "derived", s.sum(nil)), input)
}

// finished is the MAC of a transcript hash with the key of a base secret (RFC 8446 §4.4.4).
func (s Suite) finished(base, transcript []byte) []byte {
	m := hmac.New(s.new, s.derive(base, "finished", nil))
	m.Write(transcript)
	return m.Sum(nil)
}

// binder proves an external key over a transcript hash (RFC 8446 §4.2.11.2).
func (s Suite) binder(psk, transcript []byte) []byte {
	return s.finished(s.derive(s.earlySecret(psk), "ext binder", s.sum(nil)), transcript)
}

// protection returns cipher and nonce mask of a traffic secret (RFC 8446 §7.3).
func (s Suite) protection(secret []byte) (cipher.AEAD, []byte) {
	block, err := aes.NewCipher(s.expandLabel(secret, "key", nil, s.keySize()))
	if err != nil {
		panic(err) // the length is right
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead, s.expandLabel(secret, "iv", nil, aead.NonceSize())
}

// Group is a named group (RFC 8446 §4.2.7).
type Group uint16

// The groups, elliptic curves all.
const (
	P256   Group = 0x0017 // secp256r1
	P384   Group = 0x0018 // secp384r1
	X25519 Group = 0x001d // x25519
)

// groups is the order in which a server likes them.
var groups = []Group{X25519, P256, P384}

// curve returns nil for groups that are not known.
func (g Group) curve() ecdh.Curve {
	switch g {
	case X25519:
		return ecdh.X25519()
	case P256:
		return ecdh.P256()
	case P384:
		return ecdh.P384()
	}
	return nil
}

// shared returns the secret that a private key shares with the peer's public key.
func shared(private *ecdh.PrivateKey, peer []byte) ([]byte, error) {
	public, err := private.Curve().NewPublicKey(peer)
	if err != nil {
		return nil, &fault{alertIllegalParameter, fmt.Errorf("the peer's key share: %w", err)}
	}
	secret, err := private.ECDH(public)
	if err != nil {
		return nil, &fault{alertIllegalParameter, fmt.Errorf("the peer's key share: %w", err)}
	}
	return secret, nil
}
