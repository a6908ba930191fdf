package nvme

import (
	"lintel.io/lintel/internal/block"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// runWriteZeroes is Write Zeroes (NVMe NVM 1.0 §3.2.8). With DEAC the blocks of a
// thin unit are deallocated; they read as zeros then too.
func runWriteZeroes(r *Request) {
	off, length, s := r.extent(false)
	if s != 0 {
		r.finish(s)
		return
	}
	o := startOp(r, zeroTake)
	o.pos, o.end, o.flags, o.zero = off, off+length, r.writeFlags(), block.Zero
	if r.SQE.CDW(12)&deallocate != 0 && o.u.Attributes().Thin {
		o.zero = block.Discard
	}
	o.run()
}

func zeroTake(o *op) step { return o.shared(o.pos, o.end-o.pos, zeroNext) }

// zeroNext starts the change of the next chunk.
func zeroNext(o *op) step {
	if o.cancelled() {
		return o.stop()
	}
	if o.pos == o.end {
		o.release()
		if o.ranges != nil {
			o.next = deallocateNext
			return again
		}
		return o.finish(wire.Success)
	}
	size := int64(zeroChunk)
	if o.zero == block.Discard && o.u.Device().Info().Discard {
		size = 1 << 30
	}
	return o.submit(o.zero, nil, o.pos, min(size, o.end-o.pos), zeroDone)
}

func zeroDone(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	o.pos += o.req.Len
	o.next = zeroNext
	return again
}

const (
	managementRange     = 16
	attributeDeallocate = 1 << 2 // AD
)

// runDatasetManagement is Dataset Management (NVMe NVM 1.0 §3.2.3). All ranges are
// checked before any is deallocated. A unit that is not thin keeps what it has: the
// command is a hint.
func runDatasetManagement(r *Request) {
	count := int(r.SQE.CDW(10)&0xFF) + 1
	if len(r.DataOut) < count*managementRange {
		r.fail(wire.SGLLengthInvalid)
		return
	}
	// Hosts may send more than the ranges take: Linux always sends a page.
	ranges := r.DataOut[:count*managementRange]
	u := r.ns.unit
	for b := ranges; len(b) > 0; b = b[managementRange:] {
		if lba, n := managed(b); !inRange(u, lba, n) {
			r.fail(wire.LBAOutOfRange)
			return
		}
	}
	if r.SQE.CDW(11)&attributeDeallocate == 0 || !u.Attributes().Thin {
		r.finish(wire.Success)
		return
	}
	o := startOp(r, deallocateNext)
	o.ranges, o.zero, o.flags = ranges, block.Discard, r.cacheFlags()
	o.run()
}

func managed(b []byte) (lba, count uint64) {
	return le.Uint64(b[8:]), uint64(le.Uint32(b[4:]))
}

// deallocateNext takes the next range.
func deallocateNext(o *op) step {
	for len(o.ranges) > 0 {
		lba, count := managed(o.ranges)
		o.ranges = o.ranges[managementRange:]
		if count == 0 {
			continue
		}
		shift := o.u.BlockShift()
		o.pos = int64(lba) << shift
		o.end = o.pos + int64(count)<<shift
		return zeroTake(o)
	}
	return o.finish(wire.Success)
}
