package array

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// Units of sizes, in bytes.
const (
	KiB = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
	PiB
)

// Sizes of volumes, in bytes.
const (
	MinVolumeSize = MiB
	MaxVolumeSize = 64 * TiB
	// FileExtent is the extent of a file pool.
	FileExtent = MiB
)

var sizeUnits = map[string]uint64{
	"": 1, "B": 1,
	"K": KiB, "M": MiB, "G": GiB, "T": TiB, "P": PiB,
	"KiB": KiB, "MiB": MiB, "GiB": GiB, "TiB": TiB, "PiB": PiB,
	"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "PB": 1e15,
}

// ParseSize returns the bytes that a size such as "10GiB", "1.5TB", "512M" or
// "4096" stands for: KiB, MiB, ... and bare K, M, G, T, P are powers of 1024,
// kB, MB, ... powers of 1000. A fraction has to give whole bytes. It fails with
// KindInvalid on anything else and on overflow of 64 bits.
func ParseSize(s string) (uint64, error) {
	bad := func(why string) (uint64, error) {
		return 0, Errorf(KindInvalid, "size %q: %s (write it like 10GiB or 500MB)", s, why)
	}
	text := strings.TrimSpace(s)
	end := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(text)
	}
	unit, ok := sizeUnits[strings.TrimSpace(text[end:])]
	if !ok {
		return bad("unknown unit")
	}
	whole, fraction, hasFraction := strings.Cut(text[:end], ".")
	if whole == "" || hasFraction && fraction == "" {
		return bad("not a number")
	}
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil {
		return bad("not a number of bytes below 16 EiB")
	}
	hi, total := bits.Mul64(n, unit)
	if hi != 0 {
		return bad("larger than 16 EiB")
	}
	fraction = strings.TrimRight(fraction, "0")
	if fraction == "" {
		return total, nil
	}
	if len(fraction) > 15 {
		return bad("too many digits after the point")
	}
	f, err := strconv.ParseUint(fraction, 10, 64)
	if err != nil {
		return bad("not a number")
	}
	scale := uint64(math.Pow10(len(fraction)))
	hi, lo := bits.Mul64(f, unit)
	part, rest := bits.Div64(hi, lo, scale) // f < scale, so the quotient is below unit
	if rest != 0 {
		return bad("not a whole number of bytes")
	}
	total, carry := bits.Add64(total, part, 0)
	if carry != 0 {
		return bad("larger than 16 EiB")
	}
	return total, nil
}

// FormatSize returns n exactly, in the largest binary unit that divides it.
func FormatSize(n uint64) string {
	for _, u := range []struct {
		name string
		size uint64
	}{{"PiB", PiB}, {"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}} {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dB", n)
}

// RoundUp returns n rounded up to a multiple of unit, and false on overflow.
func RoundUp(n, unit uint64) (uint64, bool) {
	if rest := n % unit; rest != 0 {
		up, carry := bits.Add64(n, unit-rest, 0)
		return up, carry == 0
	}
	return n, true
}
