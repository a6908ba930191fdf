package nvme

import (
	"lintel.io/lintel/internal/block"
	wire "lintel.io/lintel/internal/wire/nvme"
)

const copyRange = 32

// runCopy is Copy with source ranges of format 0 (NVMe NVM 1.0 §3.2.2). Everything
// is checked before anything is copied. Ranges are copied in their order, a chunk at
// a time: only one range of blocks is held at once, so that two copies cannot wait for each other.
func runCopy(r *Request) {
	e, u := r.SQE, r.ns.unit
	shift := u.BlockShift()
	count := int(e.CDW(12)&0xFF) + 1
	switch {
	case e.CDW(12)>>8&15 != 0 || e.CDW(12)&directiveType != 0:
		r.fail(wire.InvalidField)
		return
	case count > maxCopyRanges:
		r.fail(wire.CommandSizeLimitExceeded)
		return
	case len(r.DataOut) < count*copyRange:
		r.fail(wire.SGLLengthInvalid)
		return
	}
	ranges := r.DataOut[:count*copyRange] // hosts may send more than the ranges take
	total := uint64(0)
	for b := ranges; len(b) > 0; b = b[copyRange:] {
		lba, n := copied(b)
		if n > maxCopyRange(u) {
			r.fail(wire.CommandSizeLimitExceeded)
			return
		}
		if !inRange(u, lba, n) {
			r.fail(wire.LBAOutOfRange)
			return
		}
		total += n
	}
	switch {
	case total > maxCopyBytes>>shift:
		r.fail(wire.CommandSizeLimitExceeded)
		return
	case !inRange(u, e.SLBA(), total):
		r.fail(wire.LBAOutOfRange)
		return
	case u.Reservations.Conflicts(r.queue.ctrl.initiator, ioCommands[wire.Read].access):
		r.fail(wire.ReservationConflict)
		return
	}
	o := startOp(r, copyChunk)
	o.ranges, o.to, o.flags = ranges, int64(e.SLBA())<<shift, r.writeFlags()
	o.run()
}

func copied(b []byte) (lba, count uint64) {
	return le.Uint64(b[8:]), uint64(le.Uint16(b[16:])) + 1
}

func copyChunk(o *op) step {
	if o.cancelled() {
		return o.stop()
	}
	if o.pos == o.end {
		if len(o.ranges) == 0 {
			return o.finish(wire.Success)
		}
		lba, n := copied(o.ranges)
		o.ranges = o.ranges[copyRange:]
		shift := o.u.BlockShift()
		o.pos = int64(lba) << shift
		o.end = o.pos + int64(n)<<shift
	}
	return o.beginRead(o.left(), copyRead)
}

func copyRead(o *op) step {
	if o.cancelled() {
		return o.stop()
	}
	return o.read(o.left(), copyTake)
}

func copyTake(o *op) step {
	o.release()
	if o.req.Err != nil {
		return o.failIO()
	}
	return o.shared(o.to, int64(len(o.req.Data)), copyWrite)
}

func copyWrite(o *op) step {
	if o.cancelled() {
		return o.stop()
	}
	return o.submit(block.Write, o.req.Data, o.to, 0, copyDone)
}

func copyDone(o *op) step {
	o.release()
	if o.req.Err != nil {
		return o.failIO()
	}
	n := int64(len(o.req.Data))
	o.pos += n
	o.to += n
	o.next = copyChunk
	return again
}
