// Package dhchap is the in-band authentication of NVMe over Fabrics, DH-HMAC-CHAP
// (NVMe Base 2.0 §8.13.5): secrets, messages, and both sides of the exchange
// as pure state machines. It owns no connection and no clock.
package dhchap

// Hash is a hash function identifier (NVMe Base 2.0 figure 433).
type Hash uint8

// The hash functions.
const (
	SHA256 Hash = 1
	SHA384 Hash = 2
	SHA512 Hash = 3
)

// Group is a Diffie-Hellman group identifier (NVMe Base 2.0 figure 434).
type Group uint8

// The groups; those with a number are of RFC 7919.
const (
	Null      Group = 0
	FFDHE2048 Group = 1
	FFDHE3072 Group = 2
	FFDHE4096 Group = 3
	FFDHE6144 Group = 4
	FFDHE8192 Group = 5
)

// Secret is a DH-HMAC-CHAP key. The zero value is no key.
type Secret struct {
	// Key is the key material, 32, 48 or 64 bytes.
	Key []byte
	// Transform is the hash with which the key is bound to the NQN of its
	// owner before use; 0 for none.
	Transform Hash
}

// Empty reports whether there is no key.
func (s Secret) Empty() bool { return len(s.Key) == 0 }
