package block

import (
	"sync/atomic"
	"time"
)

const (
	// slowCall is how long a call into the page cache may take, in nanoseconds. A
	// longer one has waited for the disk, was throttled for too many dirty pages,
	// or just lost the processor to somebody else.
	slowCall = int64(time.Millisecond)
	// stuckCall is longer than anybody loses the processor.
	stuckCall = int64(20 * time.Millisecond)
	// slowWithin is how many calls lie between two slow ones at most, where the
	// storage is the cause.
	slowWithin = 64
	// slowFor is how long after that all calls go to the workers.
	slowFor = int64(100 * time.Millisecond)
)

// A pacer decides whether calls that might wait are made on the caller's goroutine.
// They are, while they have been fast and those under way come back; slow storage has to
// stall workers, not connections, and storage that hangs no more of them than were there already.
type pacer struct {
	begun    atomic.Uint32
	calls    atomic.Uint32 // that have ended
	moved    atomic.Int64  // when the last call ended, or the first of those under way began
	lastSlow atomic.Uint32 // the number of the last slow call
	until    atomic.Int64  // when the workers' turn ends
}

// inline tells whether a call at the given time may be made.
func (p *pacer) inline(now int64) bool {
	return now >= p.until.Load() && (p.begun.Load() == p.calls.Load() || now-p.moved.Load() <= slowCall)
}

// begin is told of a call before it is made.
func (p *pacer) begin(start int64) {
	if p.begun.Add(1)-1 == p.calls.Load() {
		p.moved.Store(start)
	}
}

// note learns from a call that was made.
func (p *pacer) note(start, end int64) {
	p.moved.Store(end)
	call := p.calls.Add(1)
	if end-start <= slowCall {
		return
	}
	if last := p.lastSlow.Swap(call); call-last <= slowWithin || end-start >= stuckCall {
		p.until.Store(end + slowFor)
	}
}
