package block

import (
	"sync/atomic"
	"testing"
)

// A call is a request that a test waits for.
type call struct {
	Request
	finished atomic.Bool
	done     chan struct{}
}

func (c *call) RequestDone(*Request) {
	if c.finished.Swap(true) {
		panic("finished twice")
	}
	close(c.done)
}

// start submits a request.
func start(dev Device, r Request) *call {
	c := &call{Request: r, done: make(chan struct{})}
	c.Done = c
	dev.Submit(&c.Request)
	return c
}

func (c *call) wait() error {
	<-c.done
	return c.Err
}

func do(dev Device, r Request) error {
	return start(dev, r).wait()
}

func wantKind(t *testing.T, what string, err error, kind Kind) {
	t.Helper()
	if err == nil || KindOf(err) != kind {
		t.Errorf("%s: got %v, want %s", what, err, kind)
	}
}

func want(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}
