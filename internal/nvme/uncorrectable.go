package nvme

import (
	"errors"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// runWriteUncorrectable is Write Uncorrectable (NVMe NVM 1.0 §3.2.7): no host can read
// the blocks over either protocol until they are written.
func runWriteUncorrectable(r *Request) {
	off, length, s := r.extent(false)
	if s == 0 && r.SQE.CDW(12)&directiveType != 0 {
		s = wire.InvalidField.DNR()
	}
	if s != 0 {
		r.finish(s)
		return
	}
	o := startOp(r, func(o *op) step { return o.exclusive(o.pos, o.end-o.pos, markUncorrectable) })
	o.pos, o.end = off, off+length
	o.run()
}

func markUncorrectable(o *op) step {
	if o.cancelled() {
		return o.stop()
	}
	o.next = uncorrectableMarked
	go func() {
		o.req.Err = o.u.MarkUncorrectable(o.r.SQE.SLBA(), uint64(o.r.SQE.NLB()))
		o.turn.Resume(o)
	}()
	return waiting
}

func uncorrectableMarked(o *op) step {
	switch err := o.req.Err; {
	case err == nil:
		return o.finish(wire.Success)
	case errors.Is(err, unit.ErrUncorrectableLimit):
		return o.finish(wire.CapacityExceeded.DNR())
	}
	return o.finish(wire.InternalError)
}
