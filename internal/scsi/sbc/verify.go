package sbc

import (
	"bytes"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
)

// The BYTCHK field (SBC-3 §5.29, §5.36).
const (
	bitsByteCheck = 0x06
	checkMedium   = 0 // the blocks can be read
	checkData     = 1 // they are what the Data-Out is
	checkAlike    = 3 // each is what the one block of Data-Out is
)

func byteCheck(cdb []byte) byte { return cdb[1] & bitsByteCheck >> 1 }

func verifyOut(t *scsi.Task) int {
	_, count, _ := decode(t.CDB)
	switch byteCheck(t.CDB) {
	case checkData:
		return dataOut(t, uint64(count))
	case checkAlike:
		return dataOut(t, uint64(min(count, 1)))
	}
	return 0
}

// runVerify is VERIFY(10), (12) and (16) (SBC-3 §5.29 to §5.31). INFORMATION of
// a miscompare is the offset of the first byte that differs in the range.
func runVerify(t *scsi.Task) {
	lba, count, field := decode(t.CDB)
	u := t.LU.Unit()
	if !inRange(u, lba, uint64(count)) {
		failRange(t, lba)
		return
	}
	shift := u.BlockShift()
	length := int64(count) << shift
	var data []byte
	check := byteCheck(t.CDB)
	switch check {
	case checkMedium:
	case checkData:
		if length > scsi.MaxTransferBytes {
			t.FailField(false, field, -1)
			return
		}
		if data = sent(t, uint64(count)); int64(len(data)) < min(length, int64(len(t.DataOut))) {
			failLength(t) // a part of a block cannot be said to match
			return
		}
		length = int64(len(data))
	case checkAlike:
		if length == 0 {
			break
		}
		if len(t.DataOut) < 1<<shift {
			failLength(t)
			return
		}
		data = t.DataOut[:1<<shift]
	default:
		t.FailField(false, 1, 2)
		return
	}
	if length == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	o := startOp(t, verifyChunk)
	o.pos, o.end = int64(lba)<<shift, int64(lba)<<shift+length
	o.start, o.data, o.alike = o.pos, data, check == checkAlike
	o.run()
}

// verifyChunk starts the comparison of the next chunk.
func verifyChunk(o *op) step {
	if o.cancelled() || o.pos == o.end {
		return o.good()
	}
	return o.beginRead(o.left(), verifyRead)
}

func verifyRead(o *op) step {
	if o.cancelled() {
		return o.good()
	}
	return o.read(o.left(), verifyCompare)
}

func verifyCompare(o *op) step {
	o.release()
	if o.req.Err != nil {
		return o.failIO()
	}
	if at := o.differs(o.req.Data); at >= 0 {
		return o.miscompare(o.pos - o.start + at)
	}
	o.pos += int64(len(o.req.Data))
	o.next = verifyChunk
	return again
}

// left returns the size of the next chunk.
func (o *op) left() int64 { return min(chunk, o.end-o.pos) }

// differs compares what was read at pos with the op's data and returns the offset
// of the first difference, -1 for none.
func (o *op) differs(got []byte) int64 {
	switch {
	case o.data == nil:
		return -1
	case !o.alike:
		from := o.pos - o.start
		return difference(got, o.data[from:from+int64(len(got))])
	}
	for off := 0; off < len(got); off += len(o.data) {
		if at := difference(got[off:off+len(o.data)], o.data); at >= 0 {
			return int64(off) + at
		}
	}
	return -1
}

// difference returns the offset of the first byte in which a and b, of equal
// length, differ; -1 for none.
func difference(a, b []byte) int64 {
	if bytes.Equal(a, b) {
		return -1
	}
	// The pieces before the one that differs are compared at full speed.
	const piece = 512
	off := 0
	for len(a)-off > piece && bytes.Equal(a[off:off+piece], b[off:off+piece]) {
		off += piece
	}
	for a[off] == b[off] {
		off++
	}
	return int64(off)
}

func (o *op) miscompare(offset int64) step {
	if t := o.close(); t != nil {
		failMiscompare(t, offset)
	}
	return ended
}

// runWriteVerify is WRITE AND VERIFY(10), (12) and (16) (SBC-3 §5.36 to §5.38).
// No other write comes between the two halves.
func runWriteVerify(t *scsi.Task) {
	lba, count, field := decode(t.CDB)
	if check := byteCheck(t.CDB); check > checkData {
		t.FailField(false, 1, 2)
		return
	}
	if !checkWrite(t, lba, uint64(count), field) {
		return
	}
	data := sent(t, uint64(count))
	if len(data) == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	o := startOp(t, nil)
	o.pos = int64(lba) << o.u.BlockShift()
	o.start, o.end, o.data = o.pos, o.pos+int64(len(data)), data
	o.flags = block.FUA // verified is what the medium has
	o.next = writeVerifyTake
	o.run()
}

func writeVerifyTake(o *op) step {
	return o.exclusive(int64(len(o.data)), writeVerifyWrite)
}

func writeVerifyWrite(o *op) step {
	if o.cancelled() {
		return o.good()
	}
	return o.write(o.data, writeVerifyRead)
}

func writeVerifyRead(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	if byteCheck(o.t.CDB) == checkMedium {
		o.data = nil
	}
	return writeVerifyChunk(o)
}

func writeVerifyChunk(o *op) step {
	if o.cancelled() || o.pos == o.end {
		return o.good()
	}
	return o.read(o.left(), writeVerifyCompare)
}

func writeVerifyCompare(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	if at := o.differs(o.req.Data); at >= 0 {
		return o.miscompare(o.pos - o.start + at)
	}
	o.pos += int64(len(o.req.Data))
	o.next = writeVerifyChunk
	return again
}
