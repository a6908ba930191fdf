package cli

import (
	"fmt"
	"math/bits"
	"strconv"

	"lintel.io/lintel/internal/array"
)

// parseSize reads a size such as 10GiB, 1.5TB or 4096 (bytes).
func parseSize(s string) (uint64, error) {
	n, err := array.ParseSize(s)
	if err != nil {
		return 0, usage("%w", err)
	}
	return n, nil
}

// formatSize writes a size for people: in the largest binary unit that is not
// below 1, cut to one decimal.
func formatSize(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	i := (bits.Len64(n) - 1) / 10
	unit := uint64(1) << (10 * i)
	suffix := string(units[i-1]) + "iB"
	if n%unit == 0 {
		return fmt.Sprintf("%d %s", n/unit, suffix)
	}
	tenths := n/unit*10 + n%unit*10/unit
	return fmt.Sprintf("%d.%d %s", tenths/10, tenths%10, suffix)
}

// formatCount writes a number with thousands separated, for people.
func formatCount(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
