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
	info := dev.Info()
	r := &t.Req
	r.Flags, r.Off, r.Len, r.Data, r.Done = 0, int64(lba)<<shift, n, nil, t
	if field != 4 && t.CDB[1]&bitFUA != 0 && info.Volatile {
		// What the cache has and the medium has not goes there first.
		r.Op = block.Flush
		t.Step = readFlushed
		dev.Submit(r)
		return
	}
	if u.Ranges.Atomic() {
		t.Step = readReady
		if u.Ranges.Shared(&t.Guard, lba, uint64(count), t) {
			readReady(t)
		}
		return
	}
	r.Op = block.Read
	if !info.Lends {
		r.Data = t.AllocIn(int(n))
	}
	t.Step = readDone
	dev.Submit(r)
}

func readFlushed(t *scsi.Task) {
	if t.Req.Err != nil {
		t.FailIO(t.Req.Err)
		return
	}
	u := t.LU.Unit()
	shift := u.BlockShift()
	t.Step = readReady
	if u.Ranges.Shared(&t.Guard, uint64(t.Req.Off)>>shift, uint64(t.Req.Len)>>shift, t) {
		readReady(t)
	}
}

func readReady(t *scsi.Task) {
	u := t.LU.Unit()
	if t.Cancelled() {
		u.Ranges.Release(&t.Guard)
		stopped(t)
		return
	}
	t.Req.Op = block.Read
	if !u.Device().Info().Lends {
		t.Req.Data = t.AllocIn(int(t.Req.Len))
	}
	t.Step = readDone
	u.Device().Submit(&t.Req)
}

func readDone(t *scsi.Task) {
	if t.Guard.Held() {
		t.LU.Unit().Ranges.Release(&t.Guard)
	}
	if t.Req.Err != nil {
		t.DataIn = nil
		t.FailIO(t.Req.Err)
		return
	}
	t.DataIn = t.Req.Data
	t.Finish(scsi.StatusGood)
}
