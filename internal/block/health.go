package block

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// FaultKind says what about the backing of a device has failed.
type FaultKind string

// The kinds of fault, the worst first.
const (
	FaultLost    FaultKind = "lost"    // a flush has failed: completed writes may be lost; until the device is opened again
	FaultBacking FaultKind = "backing" // the backing file is gone, replaced or cut short
	FaultHung    FaultKind = "hung"    // it does not answer; told by who asks
	FaultIO      FaultKind = "io"      // requests have failed
	FaultSpace   FaultKind = "space"   // the backing store was full
)

// Fault is what is wrong with the backing of a device. That requests have failed is
// a fault for a day after the last of them, and for five minutes where the cause may
// have passed by itself (KindNoSpace, KindGone).
type Fault struct {
	Kind   FaultKind
	Reason string    // what failed, in words
	Since  time.Time // when it was first seen
}

// Health is how the backing of a device does.
type Health struct {
	Failed uint64 // requests that it has failed since the device was opened
	Fault  *Fault // the worst that is wrong, nil for nothing
}

// Monitor is a Device whose backing may fail.
type Monitor interface {
	// Health returns how the backing does. It may block.
	Health() Health
}

// HealthOf returns how the backing of a device does; one that is no Monitor has nothing
// that fails.
func HealthOf(d Device) Health {
	if m, ok := d.(Monitor); ok {
		return m.Health()
	}
	return Health{}
}

// How long a failed request is told.
const (
	faultTold        = 24 * time.Hour
	passingFaultTold = 5 * time.Minute
)

// A verdict is an error that concerns more than one request.
type verdict struct {
	err   *Error
	since time.Time
	told  atomic.Bool // a flush has failed with it
}

// of returns the error of an operation that tells the verdict.
func (v *verdict) of(op Op) error {
	return &Error{Op: op, Kind: v.err.Kind, Off: v.err.Off, Err: v.err.Err}
}

func (v *verdict) fault(kind FaultKind) *Fault {
	return &Fault{Kind: kind, Reason: v.err.Err.Error(), Since: v.since}
}

// An episode is failed requests with less than told between two of them.
type episode struct {
	told        time.Duration
	since, last time.Time
	count       uint64
	err         error // the last one
}

// faults keeps what became of the requests that failed.
type faults struct {
	mu      sync.Mutex
	failed  uint64
	lasting episode
	passing episode
}

// note records a failed request.
func (f *faults) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed++
	e, told := &f.lasting, faultTold
	if kind := KindOf(err); kind == KindNoSpace || kind == KindGone {
		e, told = &f.passing, passingFaultTold
	}
	if now := time.Now(); !e.stands(now) {
		*e = episode{told: told, since: now}
	}
	e.last, e.err = time.Now(), err
	e.count++
}

// forget is for a device that was opened anew.
func (f *faults) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed, f.lasting, f.passing = 0, episode{}, episode{}
}

func (f *faults) health() Health {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := Health{Failed: f.failed}
	for _, e := range []*episode{&f.lasting, &f.passing} {
		if h.Fault == nil && e.stands(time.Now()) {
			h.Fault = e.fault()
		}
	}
	return h
}

func (e *episode) stands(now time.Time) bool {
	return e.count > 0 && now.Sub(e.last) < e.told
}

func (e *episode) fault() *Fault {
	kind := FaultIO
	if KindOf(e.err) == KindNoSpace {
		kind = FaultSpace
	}
	what := "a request failed"
	if e.count > 1 {
		what = fmt.Sprintf("%d requests failed, the last", e.count)
	}
	return &Fault{Kind: kind, Since: e.since, Reason: fmt.Sprintf("%s at %s: %v", what, e.last.UTC().Format(time.RFC3339), e.err)}
}
