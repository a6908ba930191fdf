package dhchap

import (
	"math/big"
	"strings"
	"testing"
)

// TestPrimes checks the DH groups (NVMe Base 2.0 §8.13.5.2). The primes that are computed are
// safe ones, and begin and end as RFC 7919 prints them.
func TestPrimes(t *testing.T) {
	// All of them begin with the bits of e; the ends are those of RFC 7919 §A.1 to §A.5.
	ends := map[Group]string{
		FFDHE2048: "886B423861285C97FFFFFFFFFFFFFFFF",
		FFDHE3072: "25E41D2B66C62E37FFFFFFFFFFFFFFFF",
		FFDHE4096: "C68A007E5E655F6AFFFFFFFFFFFFFFFF",
		FFDHE6144: "A41D570D7938DAD4A40E329CD0E40E65FFFFFFFFFFFFFFFF",
		FFDHE8192: "D68C8BB7C5C6424CFFFFFFFFFFFFFFFF",
	}
	for g := FFDHE2048; g <= FFDHE8192; g++ {
		p := groups[g].prime()
		text := strings.ToUpper(p.Text(16))
		if uint(p.BitLen()) != g.bits() || !strings.HasPrefix(text, "FFFFFFFFFFFFFFFFADF85458A2BB4A9AAFDC5620273D3CF1") {
			t.Errorf("%s: the prime begins with %.48s", g, text)
		}
		if !strings.HasSuffix(text, ends[g]) {
			t.Errorf("%s: the prime ends with %s, want %s", g, text[len(text)-48:], ends[g])
		}
		if g <= FFDHE3072 {
			q := new(big.Int).Rsh(p, 1)
			if !p.ProbablyPrime(1) || !q.ProbablyPrime(1) {
				t.Errorf("%s: no safe prime", g)
			}
		}
	}
}
