package nvme

import (
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// adminCommand is one admin command.
type adminCommand struct {
	run       func(*Controller, *Request)
	discovery bool // discovery controllers have it too
	waits     bool // for something other than memory: it gets a goroutine
}

// adminCommands is built once: its functions call others that read it.
var adminCommands [256]adminCommand

func init() {
	for op, a := range map[uint8]adminCommand{
		wire.AdminGetLogPage:   {run: runGetLogPage, discovery: true},
		wire.AdminIdentify:     {run: runIdentify, discovery: true, waits: true},
		wire.AdminAbort:        {run: runAbort},
		wire.AdminSetFeatures:  {run: runSetFeatures, discovery: true, waits: true},
		wire.AdminGetFeatures:  {run: runGetFeatures, discovery: true},
		wire.AdminAsyncEvent:   {run: runAsyncEvent, discovery: true},
		wire.AdminKeepAlive:    {run: runKeepAlive, discovery: true},
		wire.AdminGetLBAStatus: {run: runGetLBAStatus},
	} {
		adminCommands[op] = a
	}
}

// runAdmin runs an admin command.
func (r *Request) runAdmin(c *Controller) {
	a := &adminCommands[r.SQE.Opcode()]
	if a.run == nil || c.info.Discovery && !a.discovery {
		r.fail(wire.InvalidOpcode)
		return
	}
	if a.waits {
		go a.run(c, r)
		return
	}
	a.run(c, r)
}

// runKeepAlive is Keep Alive (NVMe Base 2.0 §5.18): like any command it has told
// that the host is there.
func runKeepAlive(_ *Controller, r *Request) { r.finish(wire.Success) }

// runAsyncEvent is Asynchronous Event Request (NVMe Base 2.0 §5.2).
func runAsyncEvent(c *Controller, r *Request) {
	if !c.events.request(r) {
		r.fail(wire.TooManyAsyncEvents)
	}
}

// runAbort is Abort (NVMe Base 2.0 §5.1). It is answered when the command that it
// names has ended, so that this can change nothing any more; bit 0 of the result says that there
// was none.
func runAbort(c *Controller, r *Request) {
	id, cid := uint16(r.SQE.CDW(10)), uint16(r.SQE.CDW(10)>>16)
	c.mu.Lock()
	q := c.queues[id]
	c.mu.Unlock()
	if q == nil {
		r.fail(wire.InvalidField)
		return
	}
	n := 0
	d := unit.NewDrain(func() {
		if n == 0 {
			r.Result[0] = 1
		}
		r.finish(wire.Success)
	})
	n = q.cancel(wire.AbortRequested, d, func(o *Request) bool {
		// Abort commands would wait for each other.
		return o.SQE.CID() == cid && (id != 0 || o.SQE.Opcode() != wire.AdminAbort)
	})
	d.Release()
}
