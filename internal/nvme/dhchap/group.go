package dhchap

import (
	"crypto/rand"
	"math/big"
	"sync"
)

// groups have the size in bits and the X of the primes of RFC 7919 §A:
// p = 2^b - 2^(b-64) + (floor(2^(b-130) * e) + X) * 2^64 - 1.
var groups = [...]struct {
	bits  uint
	prime func() *big.Int
}{
	FFDHE2048: {2048, safePrime(2048, 560316)},
	FFDHE3072: {3072, safePrime(3072, 2625351)},
	FFDHE4096: {4096, safePrime(4096, 5736041)},
	FFDHE6144: {6144, safePrime(6144, 15705020)},
	FFDHE8192: {8192, safePrime(8192, 10965728)},
}

// bits returns the size of the group's prime, 0 for the null group and unknown ones.
func (g Group) bits() uint {
	if int(g) >= len(groups) {
		return 0
	}
	return groups[g].bits
}

// size returns the length of a public value in bytes, 0 for the null group.
func (g Group) size() int { return int(g.bits() / 8) }

// safePrime returns a function that computes a prime at its first call.
func safePrime(b uint, x int64) func() *big.Int {
	return sync.OnceValue(func() *big.Int {
		one := big.NewInt(1)
		// e as a fixed point number with guard bits: the sum of 1/k!.
		const guard = 64
		term := new(big.Int).Lsh(one, b-130+guard)
		e := new(big.Int)
		for k := int64(1); term.Sign() > 0; k++ {
			e.Add(e, term)
			term.Quo(term, big.NewInt(k))
		}
		e.Rsh(e, guard)
		e.Add(e, big.NewInt(x))
		p := new(big.Int).Lsh(one, b)
		p.Sub(p, new(big.Int).Lsh(one, b-64))
		p.Add(p, e.Lsh(e, 64))
		return p.Sub(p, one)
	})
}

// exponentBytes is the size of private exponents: twice the strength of the largest
// group and more (RFC 7919 §5.2).
const exponentBytes = 64

// keyPair is an ephemeral key of one exchange.
type keyPair struct {
	group   Group
	private *big.Int
	public  []byte
}

// newKeyPair makes a key pair; nil for the null group.
func newKeyPair(g Group) (*keyPair, error) {
	if g == Null {
		return nil, nil
	}
	var b [exponentBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] |= 0x80
	return keyFrom(g, b[:]), nil
}

func keyFrom(g Group, private []byte) *keyPair {
	x := new(big.Int).SetBytes(private)
	y := new(big.Int).Exp(big.NewInt(2), x, groups[g].prime())
	return &keyPair{g, x, y.FillBytes(make([]byte, g.size()))}
}

// shared returns the shared secret with a peer's public value, as long as the
// prime; false where the value is none (RFC 7919 §5.1).
func (k *keyPair) shared(peer []byte) ([]byte, bool) {
	p := groups[k.group].prime()
	y := new(big.Int).SetBytes(peer)
	one := big.NewInt(1)
	if len(peer) != k.group.size() || y.Cmp(one) <= 0 || y.Cmp(new(big.Int).Sub(p, one)) >= 0 {
		return nil, false
	}
	return y.Exp(y, k.private, p).FillBytes(make([]byte, k.group.size())), true
}
