package block

import (
	"sync"
	"sync/atomic"
)

// A gate counts the requests inside a device, so that Close and Resize can wait
// for them. Entering costs one atomic addition.
type gate struct {
	state atomic.Int64  // the count, and the two flags in the top bits
	zero  chan struct{} // capacity 1: a hint that the count of a shut gate fell to zero

	mu   sync.Mutex // guards changes of the flags, and held
	held requestList
}

const (
	gatePaused = 1 << 61
	gateClosed = 1 << 62
	gateShut   = gatePaused | gateClosed
	gateCount  = gatePaused - 1
)

// entry is what became of a request at the gate.
type entry uint8

const (
	entered entry = iota
	held          // kept until resume returns it
	refused       // the device is closed
)

func newGate() gate { return gate{zero: make(chan struct{}, 1)} }

// enter counts r in. Each entered request leaves once.
func (g *gate) enter(r *Request) entry {
	if g.state.Add(1) < gatePaused {
		return entered
	}
	return g.enterShut(r)
}

func (g *gate) enterShut(r *Request) entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch s := g.state.Load(); {
	case s&gateClosed != 0:
		g.leave()
		return refused
	case s&gatePaused != 0:
		g.held.push(r)
		g.leave()
		return held
	}
	return entered // the gate opened in between, and the addition counts
}

// leave counts a request out.
func (g *gate) leave() {
	if s := g.state.Add(-1); s >= gatePaused && s&gateCount == 0 {
		select {
		case g.zero <- struct{}{}:
		default:
		}
	}
}

// pause holds new requests back and waits for those inside. Where done is closed before they
// have left it returns false; the gate is to be resumed all the same. Calls of pause,
// resume and close must not overlap.
func (g *gate) pause(done <-chan struct{}) bool { return g.shut(gatePaused, done) }

// close refuses new requests for good and waits for those inside.
func (g *gate) close() { g.shut(gateClosed, nil) }

func (g *gate) shut(flag int64, done <-chan struct{}) bool {
	g.mu.Lock()
	g.state.Or(flag)
	g.mu.Unlock()
	for g.state.Load()&gateCount != 0 {
		select {
		case <-g.zero:
		case <-done:
			return false
		}
	}
	return true
}

// resume opens a paused gate and submits what was held.
func (g *gate) resume(submit func(*Request)) {
	g.mu.Lock()
	g.state.And(^int64(gatePaused))
	list := g.held
	g.held = requestList{}
	g.mu.Unlock()
	for r := list.pop(); r != nil; r = list.pop() {
		submit(r)
	}
}

func (g *gate) closed() bool { return g.state.Load()&gateClosed != 0 }
