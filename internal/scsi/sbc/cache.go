package sbc

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
)

// runSynchronizeCache is SYNCHRONIZE CACHE(10) and (16) (SBC-3 §5.26, §5.27).
// Devices flush as a whole, which includes the range. With IMMED the answer does
// not wait: what fails then is still in the cache, and the next flush reports it.
func runSynchronizeCache(t *scsi.Task) {
	lba, count, _ := decode(t.CDB)
	u := t.LU.Unit()
	if !inRange(u, lba, uint64(count)) {
		failRange(t, lba)
		return
	}
	if t.CDB[1]&bitImmed != 0 {
		startOp(t, flush).runDetached(scsi.StatusGood)
		return
	}
	t.Req.Op, t.Req.Flags, t.Req.Data, t.Req.Done = block.Flush, 0, nil, t
	t.Step = flushDone
	u.Device().Submit(&t.Req)
}

func flushDone(t *scsi.Task) {
	if t.Req.Err != nil {
		t.FailIO(t.Req.Err)
		return
	}
	t.Finish(scsi.StatusGood)
}

func flush(o *op) step { return o.submit(block.Flush, nil, 0, lastRequest) }

// runPreFetch is PRE-FETCH(10) and (16) (SBC-3 §5.5, §5.6). No blocks stand for
// all blocks to the end. CONDITION MET says that all blocks are in the cache: they
// are where the medium is memory, and where there is a cache once they were read.
// More than one transfer does not fit.
func runPreFetch(t *scsi.Task) {
	lba, number, _ := decode(t.CDB)
	u := t.LU.Unit()
	count := uint64(number)
	if !inRange(u, lba, count) {
		failRange(t, lba)
		return
	}
	if count == 0 {
		count = u.Blocks() - lba
	}
	shift := u.BlockShift()
	limit := uint64(scsi.MaxTransferBytes) >> shift
	o := startOp(t, fetchChunk)
	o.pos, o.status = int64(lba)<<shift, scsi.StatusConditionMet
	if count > limit {
		count, o.status = limit, scsi.StatusGood
	}
	o.end = o.pos + int64(count)<<shift
	switch info := u.Device().Info(); {
	case !info.Volatile && info.Inline:
		o.pos = o.end
	case !info.Volatile:
		o.pos, o.status = o.end, scsi.StatusGood
	}
	if t.CDB[1]&bitImmed != 0 {
		o.runDetached(o.status)
		return
	}
	o.run()
}

func fetchChunk(o *op) step {
	if o.cancelled() || o.pos == o.end {
		return o.finish(o.status)
	}
	return o.read(o.left(), fetchDone)
}

func fetchDone(o *op) step {
	if o.req.Err != nil {
		return o.failIO()
	}
	o.pos += int64(len(o.req.Data))
	o.next = fetchChunk
	return again
}
