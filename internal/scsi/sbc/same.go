package sbc

import (
	"bytes"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
)

// Bits of byte 1 of WRITE SAME (SBC-3 §5.41, §5.42; NDOB: SBC-4 §5.58). ANCHOR
// is not evaluated, as no unit has anchored blocks; PBDATA and LBDATA are obsolete.
const (
	bitUnmap     = 0x08
	bitNoDataOut = 0x01
)

func noDataOut(cdb []byte) bool { return cdb[0]>>5 == 4 && cdb[1]&bitNoDataOut != 0 }

func writeSameOut(t *scsi.Task) int {
	if noDataOut(t.CDB) {
		return 0
	}
	return int(t.LU.Unit().BlockSize())
}

// runWriteSame is WRITE SAME(10) and (16) (SBC-3 §5.41, §5.42). A length of zero,
// which could stand for all blocks to the end, is refused as WSNZ says.
func runWriteSame(t *scsi.Task) {
	lba, number, field := decode(t.CDB)
	u := t.LU.Unit()
	count := uint64(number)
	if !inRange(u, lba, count) {
		failRange(t, lba)
		return
	}
	if count == 0 { // WSNZ
		t.FailField(false, field, -1)
		return
	}
	unmap := t.CDB[1]&bitUnmap != 0
	if unmap && !u.Attributes().Thin {
		t.FailField(false, 1, 3)
		return
	}
	if count > scsi.MaxWriteSameBlocks {
		t.FailField(false, field, -1)
		return
	}
	var data []byte
	if !noDataOut(t.CDB) {
		if !sentExactly(t, uint64(u.BlockSize())) {
			failLength(t)
			return
		}
		if !zero(t.DataOut) {
			data = t.DataOut
		}
	}
	shift := u.BlockShift()
	o := startOp(t, sameTake)
	o.pos, o.data, o.flags = int64(lba)<<shift, data, writeFlags(t, false)
	o.end = o.pos + int64(count)<<shift
	o.zero = block.Zero
	if unmap {
		o.zero = block.Discard // what reads as zeros afterwards may be unmapped (SBC-3 §4.7.3.4.3)
	}
	o.run()
}

func zero(data []byte) bool {
	for len(data) > len(zeros) {
		if !bytes.Equal(data[:len(zeros)], zeros[:]) {
			return false
		}
		data = data[len(zeros):]
	}
	return bytes.Equal(data, zeros[:len(data)])
}

var zeros [512]byte

func sameTake(o *op) step { return o.shared(o.end-o.pos, sameChunk) }

// sameChunk starts the change of the next chunk.
func sameChunk(o *op) step {
	if o.cancelled() || o.pos == o.end {
		return o.good()
	}
	if o.data == nil {
		return o.submit(o.zero, nil, min(zeroChunk, o.end-o.pos), sameDone)
	}
	n := o.left()
	if o.buf == nil {
		for b := o.buffer(n); len(b) > 0; b = b[len(o.data):] {
			copy(b, o.data)
		}
	}
	return o.submit(block.Write, o.buffer(n), n, sameDone)
}

func sameDone(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	o.pos += o.req.Length()
	o.next = sameChunk
	return again
}
