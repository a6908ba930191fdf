package sbc

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
)

// runRead is READ(6), (10), (12) and (16) (SBC-3 §5.7 to §5.10).
func runRead(t *scsi.Task) {
	lba, count, field := decode(t.CDB)
	u := t.LU.Unit()
	if !inRange(u, lba, uint64(count)) {
		failRange(t, lba)
		return
	}
	shift := u.BlockShift()
	n := int64(count) << shift
	if n > scsi.MaxTransferBytes {
		t.FailField(false, field, -1)
		return
	}
	if n == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	dev := u.Device()
	r := &t.Req
	r.Flags, r.Off, r.Len, r.Data, r.Done = 0, int64(lba)<<shift, n, nil, t
	if field != 4 && t.CDB[1]&bitFUA != 0 && dev.Info().Volatile {
		// What the cache has and the medium has not goes there first.
		r.Op = block.Flush
		t.Step = readFlushed
		dev.Submit(r)
		return
	}
	takeRead(t)
}

func readFlushed(t *scsi.Task) {
	if t.Req.Err != nil {
		t.FailIO(t.Req.Err)
		return
	}
	takeRead(t)
}

// takeRead reads when no atomic write is under way in the range.
func takeRead(t *scsi.Task) {
	u := t.LU.Unit()
	if u.Ranges.BeginRead(t.Nexus.Lane()) {
		submitRead(t)
		return
	}
	shift := u.BlockShift()
	t.Step = readReady
	if u.Ranges.Shared(&t.Guard, uint64(t.Req.Off)>>shift, uint64(t.Req.Len)>>shift, t) {
		readReady(t)
	}
}

func readReady(t *scsi.Task) {
	if t.Cancelled() {
		release(t)
		stopped(t)
		return
	}
	submitRead(t)
}

func submitRead(t *scsi.Task) {
	dev := t.LU.Unit().Device()
	t.Req.Op = block.Read
	if !dev.Info().Lends {
		t.Req.Data = t.AllocIn(int(t.Req.Len))
	}
	t.Step = readDone
	dev.Submit(&t.Req)
}

func readDone(t *scsi.Task) {
	if t.Guard.Held() {
		release(t)
	} else {
		t.LU.Unit().Ranges.EndRead(t.Nexus.Lane())
	}
	if t.Req.Err != nil {
		t.DataIn = nil
		t.FailIO(t.Req.Err)
		return
	}
	t.DataIn = t.Req.Data
	t.Finish(scsi.StatusGood)
}
