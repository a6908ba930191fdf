package nvme

import (
	"bytes"

	"lintel.io/lintel/internal/block"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// runCompare is Compare (NVMe NVM 1.0 §3.2.1).
func runCompare(r *Request) {
	off, length, s := r.extent(true)
	if s != 0 {
		r.finish(s)
		return
	}
	o := startOp(r, scanChunk)
	o.start, o.pos, o.end, o.data = off, off, off+length, r.DataOut
	o.run()
}

// runVerify is Verify (NVMe NVM 1.0 §3.2.5): the blocks can be read.
func runVerify(r *Request) {
	off, length, s := r.extent(false)
	if s != 0 {
		r.finish(s)
		return
	}
	o := startOp(r, scanChunk)
	o.pos, o.end = off, off+length
	o.run()
}

// scanChunk starts to read the next chunk.
func scanChunk(o *op) step {
	if o.cancelled() {
		return o.stop()
	}
	if o.pos == o.end {
		return o.finish(wire.Success)
	}
	return o.beginRead(o.left(), scanRead)
}

func scanRead(o *op) step {
	if o.cancelled() {
		return o.stop()
	}
	return o.read(o.left(), scanDone)
}

func scanDone(o *op) step {
	o.release()
	if o.req.Err != nil {
		return o.failIO()
	}
	if o.data != nil {
		from := o.pos - o.start
		if !bytes.Equal(o.req.Data, o.data[from:from+int64(len(o.req.Data))]) {
			return o.finish(wire.CompareFailure.DNR())
		}
	}
	o.pos += int64(len(o.req.Data))
	o.next = scanChunk
	return again
}

// runCompareAndWrite is the fused pair of Compare and Write (NVMe NVM 1.0 §2.1.3): no
// other write comes between the two, and no read sees half of it. Both have been checked
// to be about the same blocks.
func runCompareAndWrite(first, second *Request) {
	failed := wire.AbortedFailedFused.DNR()
	if first.ns != second.ns { // it was taken away between the two
		endPair(first, second, wire.InvalidNamespace.DNR(), failed)
		return
	}
	off, length, s := first.extent(true)
	if s == 0 && first.SQE.NLB() > maxFusedBlocks {
		s = wire.InvalidField.DNR()
	}
	if s != 0 {
		endPair(first, second, s, failed)
		return
	}
	if _, _, s = second.extent(true); s == 0 && second.SQE.CDW(12)&directiveType != 0 {
		s = wire.InvalidField.DNR()
	}
	if s != 0 {
		endPair(first, second, failed, s)
		return
	}
	o := startOp(first, fusedTake)
	o.pair, o.pos, o.end, o.flags = second, off, off+length, second.writeFlags()
	o.run()
}

func fusedTake(o *op) step { return o.exclusive(o.pos, o.end-o.pos, fusedRead) }

func fusedRead(o *op) step {
	if o.cancelled() {
		return o.stop()
	}
	return o.read(o.end-o.pos, fusedWrite)
}

func fusedWrite(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	if !bytes.Equal(o.req.Data, o.r.DataOut) {
		return o.finish(wire.CompareFailure.DNR())
	}
	if o.cancelled() {
		return o.stop()
	}
	return o.submit(block.Write, o.pair.DataOut, o.pos, 0, fusedDone)
}

// fusedDone ends a pair whose compare has succeeded.
func fusedDone(o *op) step {
	if o.req.Err == nil {
		return o.finish(wire.Success)
	}
	second := o.pair
	s := second.ioStatus(o.req.Err)
	o.pair = nil
	o.finish(wire.AbortedFailedFused.DNR())
	second.finish(s)
	return ended
}
