package nvme

import (
	"math"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// The values of ATYPE (NVMe NVM 1.0 figure 47).
const (
	statusScan    = 0x10 // find potentially unrecoverable blocks, and return those known
	statusTracked = 0x11 // return those known
)

// runGetLBAStatus is Get LBA Status (NVMe NVM 1.0 §4.2.1). What is known to be
// unrecoverable is what a host has marked so; of others it shows when they are read.
func runGetLBAStatus(c *Controller, r *Request) {
	e := r.SQE
	ns := c.table.Load().get(e.NSID())
	if ns == nil {
		r.finish(c.noNamespace(e.NSID()))
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
	b := lbaStatus(ns.unit, e.SLBA(), uint64(e.CDW(13)&0xFFFF), min(r.length, maxStatusList))
	r.reply(b, 0)
}

const (
	statusHeader     = 8
	statusDescriptor = 16
	maxStatusList    = 64 << 10 // bytes, more than a unit keeps marks for
	cut              = 1        // CMPC: there are more descriptors than fit
	completed        = 2        // CMPC: the whole range was looked at
)

// lbaStatus returns a list of LBA status descriptors of at most limit bytes about count
// blocks, or about all from lba on where count is 0.
func lbaStatus(u *unit.Unit, lba, count uint64, limit int) []byte {
	blocks := u.Blocks()
	if count == 0 || count > blocks-lba {
		count = blocks - lba
	}
	b := make([]byte, statusHeader, limit+statusHeader)
	n := uint32(0)
	b[4] = completed
	for _, s := range u.Uncorrectable(lba, count) {
		s.Count = min(s.Count, math.MaxUint32) // what is left out is beyond 2 TiB of one range
		if len(b)+statusDescriptor > limit {
			b[4] = cut
			break
		}
		n++
		b = le.AppendUint64(b, s.LBA)
		b = le.AppendUint32(b, uint32(s.Count-1))
		b = append(b, 0, 0, 0, 0)
	}
	le.PutUint32(b, n)
	return b
}
