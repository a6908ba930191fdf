package nvme

import (
	wire "lintel.io/lintel/internal/wire/nvme"
)

// adminCommand is one admin command.
type adminCommand struct {
	run       func(*Controller, *Request)
	discovery bool // discovery controllers have it too
	waits     bool // for something other than memory: it gets a goroutine
	effects   uint32
}

// The bits of the effects log (NVMe Base 2.0 figure 211), among them the scope of a command.
const (
	effectSupported  uint32 = 1 << 0
	effectContent    uint32 = 1 << 1 // logical block content change
	effectCapability uint32 = 1 << 2 // namespace capability change
	scopeNamespace   uint32 = 1 << 20
	scopeController  uint32 = 1 << 21
)

// adminCommands is built once: its functions call others that read it.
var adminCommands [256]adminCommand

func init() {
	for op, a := range map[uint8]adminCommand{
		wire.AdminGetLogPage:   {run: runGetLogPage, discovery: true, effects: scopeController},
		wire.AdminIdentify:     {run: runIdentify, discovery: true, effects: scopeController},
		wire.AdminAbort:        {run: runAbort, effects: scopeController},
		wire.AdminSetFeatures:  {run: runSetFeatures, discovery: true, waits: true, effects: scopeController},
		wire.AdminGetFeatures:  {run: runGetFeatures, discovery: true, effects: scopeController},
		wire.AdminAsyncEvent:   {run: runAsyncEvent, discovery: true, effects: scopeController},
		wire.AdminKeepAlive:    {run: runKeepAlive, discovery: true, effects: scopeController},
		wire.AdminGetLBAStatus: {run: runGetLBAStatus, effects: scopeNamespace},
	} {
		a.effects |= effectSupported
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
	d := newDrain(func() {
		if n == 0 {
			r.Result[0] = 1
		}
		r.finish(wire.Success)
	})
	n = q.cancel(wire.AbortRequested, d, func(o *Request) bool {
		// Abort commands would wait for each other.
		return o.SQE.CID() == cid && (id != 0 || o.SQE.Opcode() != wire.AdminAbort)
	})
	d.release()
}
