package sbc

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

const (
	unmapHeader     = 8
	unmapDescriptor = 16

	// zeroChunk is how many bytes one step sets to zero at most: devices that
	// have no better way write them.
	zeroChunk = 16 << 20
)

func unmapOut(t *scsi.Task) int { return int(wire.Uint16(t.CDB[7:])) }

// runUnmap is UNMAP (SBC-3 §5.28). Everything is checked before anything is
// unmapped. Blocks that are unmapped read as zeros, also those that share their
// unit of allocation with others.
func runUnmap(t *scsi.Task) {
	length := int(wire.Uint16(t.CDB[7:]))
	if length == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	list := t.DataOut[:min(length, len(t.DataOut))]
	if len(list) < unmapHeader || len(list) < unmapHeader+int(wire.Uint16(list[2:])) {
		t.Fail(scsi.Sense{Key: wire.KeyIllegalRequest, Code: wire.ParameterListLengthError})
		return
	}
	// What is left over of a descriptor is ignored.
	list = list[unmapHeader:][:int(wire.Uint16(list[2:]))/unmapDescriptor*unmapDescriptor]
	if len(list)/unmapDescriptor > scsi.MaxUnmapDescriptors {
		t.FailField(true, 2, -1)
		return
	}
	u := t.LU.Unit()
	total := uint64(0)
	for at := 0; at < len(list); at += unmapDescriptor {
		lba, count := unmapRange(list[at:])
		if !inRange(u, lba, count) {
			failRange(t, lba)
			return
		}
		if total += count; total > scsi.MaxUnmapBlocks {
			t.FailField(true, unmapHeader+at+8, -1)
			return
		}
	}
	o := startOp(t, unmapNext)
	o.descriptors, o.flags = list, writeFlags(t, false)
	o.run()
}

func unmapRange(d []byte) (lba, count uint64) {
	return wire.Uint64(d), uint64(wire.Uint32(d[8:]))
}

// unmapNext takes the range of the next descriptor.
func unmapNext(o *op) step {
	o.release()
	for len(o.descriptors) > 0 {
		lba, count := unmapRange(o.descriptors)
		o.descriptors = o.descriptors[unmapDescriptor:]
		if count == 0 {
			continue
		}
		shift := o.u.BlockShift()
		o.pos = int64(lba) << shift
		o.end = o.pos + int64(count)<<shift
		return o.shared(o.end-o.pos, unmapChunk)
	}
	return o.good()
}

func unmapChunk(o *op) step {
	if o.cancelled() {
		return o.good()
	}
	if o.pos == o.end {
		o.next = unmapNext
		return again
	}
	return o.submit(block.Discard, nil, min(o.discardChunk(), o.end-o.pos), unmapDone)
}

func unmapDone(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	o.pos += o.req.Length()
	o.next = unmapChunk
	return again
}

// discardChunk returns how many bytes one step discards, so that it takes no
// long time also where discarding means to write zeros.
func (o *op) discardChunk() int64 {
	if o.u.Device().Info().Discard {
		return 1 << 30
	}
	return zeroChunk
}
