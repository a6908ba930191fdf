package bench

import (
	"math/bits"
	"time"
)

const (
	subBits = 6  // 64 buckets an octave: at most 1.6 % too high
	topBits = 40 // the largest value told apart is 2^40 ns, some 18 minutes
	octaves = topBits - subBits
	buckets = (octaves + 1) << subBits
)

// Histogram counts latencies in log-linear buckets: exact below 64 ns, within
// 1.6 % above, up to 18 minutes. It allocates nothing. The zero value is
// empty and ready; it is not safe for concurrent use.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	sum    uint64
	min    uint64
	max    uint64
}

func bucketOf(ns uint64) int {
	if ns < 1<<subBits {
		return int(ns)
	}
	if ns >= 1<<topBits {
		return buckets - 1
	}
	shift := bits.Len64(ns) - subBits - 1
	return shift<<subBits + int(ns>>shift)
}

// upperBound returns the largest value that bucketOf puts into bucket i.
func upperBound(i int) uint64 {
	if i < 2<<subBits {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i&(1<<subBits-1)+1<<subBits)+1)<<shift - 1
}

// Record adds one latency; a negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	ns := uint64(max(d, 0))
	h.counts[bucketOf(ns)]++
	if h.n == 0 || ns < h.min {
		h.min = ns
	}
	h.max = max(h.max, ns)
	h.n++
	h.sum += ns
}

// Add adds the content of another histogram.
func (h *Histogram) Add(o *Histogram) {
	if o.n == 0 {
		return
	}
	for i, c := range o.counts {
		h.counts[i] += c
	}
	if h.n == 0 || o.min < h.min {
		h.min = o.min
	}
	h.max = max(h.max, o.max)
	h.n += o.n
	h.sum += o.sum
}

// Reset empties the histogram.
func (h *Histogram) Reset() { *h = Histogram{} }

// Count returns how many latencies were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Mean returns the arithmetic mean, 0 where nothing was recorded.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return time.Duration(h.sum / h.n)
}

// Min returns the smallest latency, exactly.
func (h *Histogram) Min() time.Duration { return time.Duration(h.min) }

// Max returns the largest latency, exactly.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max) }

// Quantile returns a latency that a share q (0 to 1) of the recorded ones does
// not exceed, to the resolution of the buckets; 0 where nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q*float64(h.n) + 0.5)
	rank = min(max(rank, 1), h.n)
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return time.Duration(min(max(upperBound(i), h.min), h.max))
		}
	}
	return time.Duration(h.max)
}
