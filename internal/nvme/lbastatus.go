package nvme

import (
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// The values of ATYPE (NVMe NVM 1.0 figure 47).
const (
	statusScan    = 0x10 // find potentially unrecoverable blocks, and return those known
	statusTracked = 0x11 // return those known
)

// runGetLBAStatus is Get LBA Status (NVMe NVM 1.0 §4.2.1). No block is known to be
// potentially unrecoverable: whether one is shows when it is read. So the list is
// complete, and empty.
func runGetLBAStatus(c *Controller, r *Request) {
	e := r.SQE
	ns := c.table.Load().get(e.NSID())
	if ns == nil {
		r.fail(wire.InvalidNamespace)
		return
	}
	if state := ns.access(); state > unit.NonOptimized {
		r.finish(inaccessible(state))
		return
	}
	if kind := e.CDW(13) >> 24; kind != statusScan && kind != statusTracked {
		r.fail(wire.InvalidField)
		return
	}
	if (uint64(e.CDW(12))+1)*4 != uint64(r.length) {
		r.fail(wire.SGLLengthInvalid)
		return
	}
	if !inRange(ns.unit, e.SLBA(), max(1, uint64(e.CDW(13)&0xFFFF))) {
		r.fail(wire.LBAOutOfRange)
		return
	}
	var b [8]byte
	b[4] = completed
	r.reply(b[:], 0)
}

// completed is the CMPC value that says that the whole range was looked at.
const completed = 1
