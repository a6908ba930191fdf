package sbc

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// runWrite is WRITE(6), (10), (12) and (16) (SBC-3 §5.32 to §5.35).
func runWrite(t *scsi.Task) {
	lba, count, field := decode(t.CDB)
	if !checkWrite(t, lba, uint64(count), field) {
		return
	}
	data := sent(t, uint64(count))
	if len(data) == 0 {
		t.Finish(scsi.StatusGood)
		return
	}
	prepareWrite(t, lba, data, writeFlags(t, field != 4 && t.CDB[1]&bitFUA != 0))
	u := t.LU.Unit()
	t.Step = writeReady
	if u.Ranges.Shared(&t.Guard, lba, uint64(len(data))>>u.BlockShift(), t) {
		writeReady(t)
	}
}

// checkWrite checks what a CDB asks for, and ends the task where it may not be.
func checkWrite(t *scsi.Task, lba, count uint64, field int) bool {
	u := t.LU.Unit()
	if !inRange(u, lba, count) {
		failRange(t, lba)
		return false
	}
	if count<<u.BlockShift() > scsi.MaxTransferBytes {
		t.FailField(false, field, -1)
		return false
	}
	return true
}

func writeAtomicOut(t *scsi.Task) int { return dataOut(t, uint64(wire.Uint16(t.CDB[12:]))) }

// runWriteAtomic is WRITE ATOMIC(16) (SBC-4 §5.48): all of the blocks or none, also
// after a crash, and no other command sees or changes some of them meanwhile.
func runWriteAtomic(t *scsi.Task) {
	const address, field = 2, 12
	lba, count := wire.Uint64(t.CDB[address:]), uint64(wire.Uint16(t.CDB[field:]))
	if !checkWrite(t, lba, count, field) {
		return
	}
	u := t.LU.Unit()
	bytes := count << u.BlockShift()
	most, granularity := scsi.AtomicLimits(u)
	mask := uint64(max(granularity, 1) - 1)
	switch {
	case count > uint64(most), count&mask != 0:
		t.FailField(false, field, -1)
		return
	case count > 0 && lba&mask != 0:
		t.FailField(false, address, -1)
		return
	case uint64(len(t.DataOut)) < bytes:
		failLength(t)
		return
	case count == 0:
		t.Finish(scsi.StatusGood)
		return
	}
	prepareWrite(t, lba, t.DataOut[:bytes], block.Atomic|writeFlags(t, t.CDB[1]&bitFUA != 0))
	t.Step = writeReady
	if u.Ranges.Exclusive(&t.Guard, lba, count, t) {
		writeReady(t)
	}
}

// writeFlags returns what a change has to be done with: a write-through unit
// has it on stable storage before it answers.
func writeFlags(t *scsi.Task, fua bool) block.Flags {
	if fua || t.LU.WriteThrough() {
		return block.FUA
	}
	return 0
}

func prepareWrite(t *scsi.Task, lba uint64, data []byte, flags block.Flags) {
	r := &t.Req
	r.Op, r.Flags, r.Off, r.Data, r.Done = block.Write, flags, int64(lba)<<t.LU.Unit().BlockShift(), data, t
}

func writeReady(t *scsi.Task) {
	u := t.LU.Unit()
	if t.Cancelled() {
		release(t)
		stopped(t)
		return
	}
	t.Step = writeDone
	u.Device().Submit(&t.Req)
}

// release gives back the range of a task that holds one.
func release(t *scsi.Task) {
	if t.Guard.Held() {
		t.LU.Unit().Ranges.Release(&t.Guard)
	}
}

func writeDone(t *scsi.Task) {
	release(t)
	if t.Req.Err != nil {
		t.FailIO(t.Req.Err)
		return
	}
	t.Finish(scsi.StatusGood)
}
