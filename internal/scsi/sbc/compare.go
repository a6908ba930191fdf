package sbc

import (
	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

func compareAndWriteOut(t *scsi.Task) int { return dataOut(t, 2*uint64(t.CDB[13])) }

// runCompareAndWrite is COMPARE AND WRITE (SBC-3 §5.2). The Data-Out holds the
// blocks to compare with, then those to write; both halves have to be there.
func runCompareAndWrite(t *scsi.Task) {
	const field = 13
	lba, count := wire.Uint64(t.CDB[2:]), uint64(t.CDB[field])
	if !checkWrite(t, lba, count, field) {
		return
	}
	u := t.LU.Unit()
	half := count << u.BlockShift()
	if !sentExactly(t, 2*half) {
		// So ends, too, who wants 256 blocks: the field has one byte.
		t.FailField(false, field, -1)
		return
	}
	if count == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	o := startOp(t, compareTake)
	o.pos, o.data, o.flags = int64(lba)<<u.BlockShift(), t.DataOut, writeFlags(t, t.CDB[1]&bitFUA != 0)
	o.run()
}

func compareTake(o *op) step { return o.exclusive(int64(len(o.data)/2), compareRead) }

func compareRead(o *op) step {
	if o.cancelled() {
		return o.good()
	}
	return o.read(int64(len(o.data)/2), compareWrite)
}

func compareWrite(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	half := len(o.data) / 2
	if at := difference(o.req.Data, o.data[:half]); at >= 0 {
		return o.miscompare(at)
	}
	if o.cancelled() {
		return o.good()
	}
	return o.write(o.data[half:], lastRequest)
}

// lastRequest ends an op after the request that it was for.
func lastRequest(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	return o.good()
}

// runORWrite is ORWRITE(16) (SBC-3 §5.5).
func runORWrite(t *scsi.Task) {
	lba, count, field := decode(t.CDB)
	if !checkWrite(t, lba, uint64(count), field) {
		return
	}
	data := sent(t, uint64(count))
	if len(data) == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	o := startOp(t, orTake)
	o.pos, o.data, o.flags = int64(lba)<<o.u.BlockShift(), data, writeFlags(t, t.CDB[1]&bitFUA != 0)
	o.run()
}

func orTake(o *op) step { return o.exclusive(int64(len(o.data)), orRead) }

func orRead(o *op) step {
	if o.cancelled() {
		return o.good()
	}
	return o.read(int64(len(o.data)), orWrite)
}

func orWrite(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	if o.cancelled() {
		return o.good()
	}
	buf := o.buffer(int64(len(o.data)))
	for i, b := range o.req.Data {
		buf[i] = b | o.data[i]
	}
	return o.write(buf, lastRequest)
}
