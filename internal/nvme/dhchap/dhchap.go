// Package dhchap is the in-band authentication of NVMe over Fabrics, DH-HMAC-CHAP
// (NVMe Base 2.0 §8.13.5): secrets, messages, and both sides of the exchange
// as pure state machines. It owns no connection and no clock.
//
//	host                         controller
//	Negotiate ------------------>
//	          <------------------ Challenge
//	Reply ---------------------->
//	          <------------------ Success1
//	Success2 ------------------->            where the controller was asked to prove itself
//
// Either side ends the exchange by a Failure message instead.
package dhchap

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// Hash is a hash function identifier (NVMe Base 2.0 figure 433).
type Hash uint8

// The hash functions.
const (
	SHA256 Hash = 1
	SHA384 Hash = 2
	SHA512 Hash = 3
)

// Size returns the length of a digest in bytes, 0 for an unknown hash.
func (h Hash) Size() int {
	switch h {
	case SHA256:
		return sha256.Size
	case SHA384:
		return sha512.Size384
	case SHA512:
		return sha512.Size
	}
	return 0
}

func (h Hash) new() func() hash.Hash {
	switch h {
	case SHA384:
		return sha512.New384
	case SHA512:
		return sha512.New
	}
	return sha256.New
}

func (h Hash) sum(b []byte) []byte {
	d := h.new()()
	d.Write(b)
	return d.Sum(nil)
}

func (h Hash) String() string {
	if n := h.Size(); n != 0 {
		return fmt.Sprintf("SHA-%d", 8*n)
	}
	return fmt.Sprintf("hash %d", uint8(h))
}

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

func (g Group) String() string {
	if bits := g.bits(); bits != 0 {
		return fmt.Sprintf("ffdhe%d", bits)
	}
	if g == Null {
		return "null"
	}
	return fmt.Sprintf("group %d", uint8(g))
}

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

// Reason explains a failure (NVMe Base 2.0 figure 436).
type Reason uint8

// The explanations.
const (
	ReasonFailed           Reason = 1
	ReasonProtocol         Reason = 2 // the authentication protocol is not usable
	ReasonConcatenation    Reason = 3
	ReasonHash             Reason = 4
	ReasonGroup            Reason = 5
	ReasonIncorrectPayload Reason = 6
	ReasonIncorrectMessage Reason = 7
)

func (r Reason) String() string {
	switch r {
	case ReasonFailed:
		return "authentication failed"
	case ReasonProtocol:
		return "authentication protocol not usable"
	case ReasonConcatenation:
		return "secure channel concatenation mismatch"
	case ReasonHash:
		return "hash function not usable"
	case ReasonGroup:
		return "DH group not usable"
	case ReasonIncorrectPayload:
		return "incorrect payload"
	case ReasonIncorrectMessage:
		return "incorrect protocol message"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Error is why an exchange has failed.
type Error struct {
	Reason Reason
	Peer   bool // the other side said so
}

func (e *Error) Error() string {
	if e.Peer {
		return "DH-HMAC-CHAP: the peer says: " + e.Reason.String()
	}
	return "DH-HMAC-CHAP: " + e.Reason.String()
}
