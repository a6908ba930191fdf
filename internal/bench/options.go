package bench

import (
	"flag"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// AddFlags registers the options of a run on a flag set; each changes its
// field of c, whose present value is the default shown.
func (c *Config) AddFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Initiator, "initiator", c.Initiator, "initiator `name` (generated where empty)")
	fs.IntVar(&c.QueueDepth, "queue-depth", c.QueueDepth, "commands under way on each connection")
	fs.IntVar(&c.Connections, "connections", c.Connections, "number of TCP connections")
	fs.IntVar(&c.SessionConnections, "session-connections", c.SessionConnections, "connections in one session")
	fs.Var(byteSize[int]{&c.BlockSize}, "block-size", "`size` of each I/O, such as 4KiB")
	fs.IntVar(&c.ReadPercent, "read-percent", c.ReadPercent, "share of reads, 0 to 100")
	fs.BoolVar(&c.Random, "random", c.Random, "random instead of sequential offsets")
	fs.BoolVar(&c.Verify, "verify", c.Verify, "write a checksummed pattern and check it in every read")
	fs.Var(byteSize[int64]{&c.Offset}, "offset", "first byte used, a `size`")
	fs.Var(byteSize[int64]{&c.Span}, "span", "`size` of the part used (0 for all)")
	fs.DurationVar(&c.Duration, "duration", c.Duration, "measured `time`")
	fs.Int64Var(&c.Count, "count", c.Count, "end after so many I/Os (0 for no limit)")
	fs.DurationVar(&c.Ramp, "ramp", c.Ramp, "`time` under load before the measurement")
	fs.Uint64Var(&c.Seed, "seed", c.Seed, "makes offsets and pattern repeatable (0 for random)")
	fs.IntVar(&c.ServerPID, "server-pid", c.ServerPID, "measure the CPU time of this process of the same machine")
	fs.DurationVar(&c.LoginTimeout, "login-timeout", c.LoginTimeout, "`time` a login may take")
}

// DefaultConfig returns the configuration that a run without options has: 4 KiB
// random reads for 10 s on one connection at queue depth 32.
func DefaultConfig() Config {
	c, _ := Config{ReadPercent: 100, Random: true}.withDefaults()
	return c
}

// byteSize is a flag of bytes with an optional unit.
type byteSize[T int | int64] struct{ p *T }

var sizeUnits = []struct {
	suffix string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40},
	{"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"t", 1 << 40},
	{"B", 1}, {"", 1},
}

func (v byteSize[T]) Set(s string) error {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 {
			break
		}
		if n > math.MaxInt64/u.factor || int64(T(n*u.factor)) != n*u.factor {
			return fmt.Errorf("size %q is too large", s)
		}
		*v.p = T(n * u.factor)
		return nil
	}
	return fmt.Errorf("%q is not a size: want a number with an optional unit, such as 4KiB or 1MB", s)
}

// String writes the size with the largest binary unit that divides it.
func (v byteSize[T]) String() string {
	if v.p == nil || *v.p == 0 {
		return "0"
	}
	n := int64(*v.p)
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
