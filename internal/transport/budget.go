package transport

import "sync"

// Budget bounds the memory of all commands whose data is on its way in.
// Commands that find no room wait in line; a connection at its own limit does
// not hold up those behind it. Its methods may be called concurrently.
type Budget struct {
	mu    sync.Mutex
	free  int64
	share int64 // of one connection
	line  []*Claim
}

// Share is what the claims of one connection hold together.
type Share struct{ held int64 } // guarded by Budget.mu

// Claim is what one command holds of a budget, or waits for.
type Claim struct {
	Share *Share
	// Waiter is told when a claim that waited in line is granted.
	Waiter Waiter

	want, held int64 // held is the owner's but while the claim is in line
}

// Waiter gets a claim that waited.
type Waiter interface {
	// Granted is called without any lock of the budget, by whoever has made room.
	Granted()
}

// NewBudget returns a budget of total bytes, share of them for one connection. One
// claim of a connection may always be as large as the total.
func NewBudget(total, share int64) *Budget { return &Budget{free: total, share: share} }

// Free returns how many bytes nobody holds.
func (b *Budget) Free() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free
}

// Take takes n bytes for a claim, at once or not at all; line says to wait in
// line where there is no room.
func (b *Budget) Take(c *Claim, n int64, line bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.want = n
	if b.fits(c) && !b.blocked() {
		b.grant(c)
		return true
	}
	if line {
		b.line = append(b.line, c)
	}
	return false
}

func (b *Budget) fits(c *Claim) bool {
	return b.free >= c.want && (c.Share.held == 0 || c.Share.held+c.want <= b.share)
}

// blocked reports whether a claim in line waits for the common budget: it keeps
// its place. Those that wait for others of their own connection hold nobody up.
func (b *Budget) blocked() bool {
	for _, w := range b.line {
		if b.free < w.want {
			return true
		}
	}
	return false
}

func (b *Budget) grant(c *Claim) {
	b.free -= c.want
	c.Share.held += c.want
	c.held = c.want
}

// Holds reports whether the claim holds anything. Only its owner asks.
func (c *Claim) Holds() bool { return c.held != 0 }

// Release gives back what a claim holds and starts those who waited for it.
func (b *Budget) Release(c *Claim) {
	if c.held == 0 {
		return
	}
	b.mu.Lock()
	b.free += c.held
	c.Share.held -= c.held
	c.held = 0
	var ready []*Claim
	rest := b.line[:0]
	blocked := false // the first that waits for the common budget keeps its place
	for _, w := range b.line {
		if blocked || !b.fits(w) {
			blocked = blocked || b.free < w.want
			rest = append(rest, w)
		} else {
			b.grant(w)
			ready = append(ready, w)
		}
	}
	clear(b.line[len(rest):])
	b.line = rest
	b.mu.Unlock()
	for _, w := range ready {
		w.Waiter.Granted()
	}
}

// Leave takes a claim out of the line, and reports whether it stood there.
// Where it did not, it has been granted or is being.
func (b *Budget) Leave(c *Claim) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.line {
		if w == c {
			b.line = append(b.line[:i], b.line[i+1:]...)
			return true
		}
	}
	return false
}
