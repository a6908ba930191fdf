package nvme_test

import (
	"sync"

	"lintel.io/lintel/internal/block"
)

// failing is a device that can be made to fail, and to hold requests back.
type failing struct {
	block.Device
	mu   sync.Mutex
	kind block.Kind
	bad  bool
	hold bool
	held []*block.Request
}

func (d *failing) fail(k block.Kind) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kind, d.bad = k, true
}

// holdBack keeps the requests that follow.
func (d *failing) holdBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = true
}

// resume lets the requests held back go on.
func (d *failing) resume() {
	d.mu.Lock()
	held := d.held
	d.held, d.hold = nil, false
	d.mu.Unlock()
	for _, r := range held {
		d.Device.Submit(r)
	}
}

// waiting returns how many requests are held back.
func (d *failing) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held)
}

func (d *failing) Submit(r *block.Request) {
	d.mu.Lock()
	if d.bad {
		kind := d.kind
		d.mu.Unlock()
		r.Err = &block.Error{Op: r.Op, Kind: kind, Off: r.Off}
		r.Done.RequestDone(r)
		return
	}
	if d.hold {
		d.held = append(d.held, r)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	d.Device.Submit(r)
}
