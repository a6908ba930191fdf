package unit

// RangeWaiter is told when a range it waited for is its own.
type RangeWaiter interface {
	// RangeReady is called once, from the goroutine that released the range
	// in the way. It may submit I/O.
	RangeReady(*RangeGuard)
}

// RangeGuard is a hold on, or a wait for, a range of blocks. The zero value is
// ready for use; the caller owns it, embeds it in its task and reuses it.
type RangeGuard struct {
	first, count uint64
	exclusive    bool
	held         bool
	waiter       RangeWaiter
	prev, next   *RangeGuard
}

// Ranges orders I/O of one unit that overlaps. Ordinary writes hold their range
// shared among themselves; operations that must be atomic against every other
// write (COMPARE AND WRITE, ORWRITE, WRITE ATOMIC, the fused NVMe pair,
// SANITIZE) hold theirs alone. Waiters are served in order of arrival, so
// neither kind starves.
type Ranges struct{}

// Shared takes [first, first+count) for an ordinary write. It returns true
// where the range is held at once; otherwise w.RangeReady(g) is called later.
func (r *Ranges) Shared(g *RangeGuard, first, count uint64, w RangeWaiter) bool { return true }

// Exclusive takes [first, first+count) alone, like Shared.
func (r *Ranges) Exclusive(g *RangeGuard, first, count uint64, w RangeWaiter) bool { return true }

// Atomic reports whether any exclusive hold or wait exists; reads that must
// not see half of an atomic write take their range shared while it does.
func (r *Ranges) Atomic() bool { return false }

// Release gives the range of g back and starts whoever waited for it.
func (r *Ranges) Release(g *RangeGuard) {}
