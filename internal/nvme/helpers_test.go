package nvme_test

import (
	"sync"

	"lintel.io/lintel/internal/block"
)

// failing is a device that can be made to fail, and to hold requests back.
type failing struct {
	block.Device
	mu         sync.Mutex
	kind       block.Kind
	bad        bool
	failWrites bool
	hold       bool // all
	holdWrite  bool // Writes
	held       []*block.Request
	ops        []block.Op
	flags      []block.Flags
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

// letOthers lets the requests go on that follow; those held back stay.
func (d *failing) letOthers() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold, d.holdWrite = false, false
}

// holdWrites keeps the Writes that follow.
func (d *failing) holdWrites() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holdWrite = true
}

// resume lets the requests held back go on.
func (d *failing) resume() {
	d.mu.Lock()
	held := d.held
	d.held, d.hold, d.holdWrite = nil, false, false
	d.mu.Unlock()
	for _, r := range held {
		d.Device.Submit(r)
	}
}

// count returns how many requests of a kind there were.
func (d *failing) count(op block.Op) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, o := range d.ops {
		if o == op {
			n++
		}
	}
	return n
}

// last returns the flags of the last request of a kind.
func (d *failing) last(op block.Op) block.Flags {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.ops) - 1; i >= 0; i-- {
		if d.ops[i] == op {
			return d.flags[i]
		}
	}
	return 0
}

func (d *failing) Submit(r *block.Request) {
	d.mu.Lock()
	d.ops, d.flags = append(d.ops, r.Op), append(d.flags, r.Flags)
	kind, bad := d.kind, d.bad
	if d.failWrites && r.Op == block.Write {
		kind, bad = block.KindMedium, true
	}
	if (d.hold || d.holdWrite && r.Op == block.Write) && !bad {
		d.held = append(d.held, r)
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	if bad {
		r.Err = &block.Error{Op: r.Op, Kind: kind, Off: r.Off}
		r.Done.RequestDone(r)
		return
	}
	d.Device.Submit(r)
}
