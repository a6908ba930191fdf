package nvme

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// ioCommand is one command of the NVM command set.
type ioCommand struct {
	run     func(*Request)
	access  unit.Access // what reservations of others forbid (NVMe Base 2.0 figure 499)
	own     bool        // a reservation command, which decides by itself
	changes bool        // of the medium
}

// ioCommands is built once: its functions call others that read it.
var ioCommands [256]ioCommand

func init() {
	const read, write = unit.AccessRead, unit.AccessWrite
	for op, a := range map[uint8]ioCommand{
		wire.Flush:               {run: runFlush, access: write},
		wire.Write:               {run: runWrite, access: write, changes: true},
		wire.Read:                {run: runRead, access: read},
		wire.Compare:             {run: runCompare, access: read},
		wire.WriteUncorrectable:  {run: runWriteUncorrectable, access: write, changes: true},
		wire.WriteZeroes:         {run: runWriteZeroes, access: write, changes: true},
		wire.DatasetManagement:   {run: runDatasetManagement, access: write, changes: true},
		wire.Verify:              {run: runVerify, access: read},
		wire.Copy:                {run: runCopy, access: write, changes: true},
		wire.ReservationRegister: {run: runReservationRegister, own: true},
		wire.ReservationReport:   {run: runReservationReport, own: true},
		wire.ReservationAcquire:  {run: runReservationAcquire, own: true},
		wire.ReservationRelease:  {run: runReservationRelease, own: true},
	} {
		ioCommands[op] = a
	}
}

func isReservation(op uint8) bool { return ioCommands[op].own }

// runIO runs a command of the NVM command set.
func (r *Request) runIO(c *Controller) {
	a := &ioCommands[r.SQE.Opcode()]
	if a.run == nil {
		r.fail(wire.InvalidOpcode)
		return
	}
	if s := r.checkIO(a, c); s != 0 {
		r.finish(s)
		return
	}
	a.run(r)
}

// checkIO makes the checks that every command on a namespace undergoes.
func (r *Request) checkIO(a *ioCommand, c *Controller) wire.Status {
	ns := r.ns
	if ns == nil {
		return c.noNamespace(r.SQE.NSID())
	}
	u := ns.unit
	if state := ns.access(); state > unit.NonOptimized && (!a.own || state == unit.Offline || state == unit.Transitioning) {
		return inaccessible(state)
	}
	if s := u.Seal(); s != unit.Unsealed && !a.own {
		return sealed(s)
	}
	if !a.own && u.Reservations.Conflicts(c.initiator, a.access) {
		return wire.ReservationConflict.DNR()
	}
	if a.changes && ns.isReadOnly() {
		return wire.NamespaceWriteProtected.DNR()
	}
	return 0
}

// inaccessible returns the status of a command in an ANA state that forbids it (NVMe
// Base 2.0 §8.1.3): the host uses another path, or tries again.
func inaccessible(state unit.AccessState) wire.Status {
	switch state {
	case unit.Offline:
		return wire.PathPersistentLoss
	case unit.Transitioning:
		return wire.PathTransition
	}
	return wire.PathInaccessible
}

// sealed returns the status of a command on a namespace that a SCSI host sanitizes, or has failed
// to.
func sealed(s unit.Seal) wire.Status {
	if s == unit.SanitizeFailed {
		return wire.SanitizeFailed.DNR()
	}
	return wire.SanitizeInProgress
}

// Bits of dword 12 (NVMe NVM 1.0 §3.2). Limited Retry asks for less effort than is
// made anyway; protection fields are ignored, as no namespace has protection
// information.
const (
	forceUnitAccess = 1 << 30
	deallocate      = 1 << 25
	directiveType   = 15 << 20
)

// inRange reports whether the unit has all of the blocks.
func inRange(u *unit.Unit, lba, count uint64) bool {
	blocks := u.Blocks()
	return lba <= blocks && count <= blocks-lba
}

// extent returns the byte range of a command and checks it. data says that as many bytes
// are moved.
func (r *Request) extent(data bool) (off, length int64, s wire.Status) {
	u := r.ns.unit
	lba, count := r.SQE.SLBA(), uint64(r.SQE.NLB())
	if !inRange(u, lba, count) {
		return 0, 0, wire.LBAOutOfRange.DNR()
	}
	off, length = int64(lba)<<u.BlockShift(), int64(count)<<u.BlockShift()
	if data {
		switch {
		case length > MaxTransferBytes:
			return 0, 0, wire.InvalidField.DNR() // MDTS
		case length != int64(r.length), r.SQE.Opcode()&3 == directionOut && length != int64(len(r.DataOut)):
			return 0, 0, wire.SGLLengthInvalid.DNR()
		}
	}
	return off, length, 0
}

// writeFlags returns what a change has to be done with: a write-through unit,
// or a host that has switched the cache off, has it on stable storage before the answer.
func (r *Request) writeFlags() block.Flags {
	if r.SQE.CDW(12)&forceUnitAccess != 0 {
		return block.FUA
	}
	return r.cacheFlags()
}

func (r *Request) cacheFlags() block.Flags {
	if r.ns.unit.Attributes().WriteThrough || r.queue.ctrl.writeThrough.Load() {
		return block.FUA
	}
	return 0
}

// runFlush is Flush (NVMe Base 2.0 §7.1). Devices flush as a whole.
func runFlush(r *Request) {
	r.req.Op, r.req.Flags, r.req.Data, r.req.Done = block.Flush, 0, nil, r
	r.step = requestDone
	r.ns.unit.Device().Submit(&r.req)
}

// requestDone ends a command after the request that it was for.
func requestDone(r *Request) {
	if r.req.Err != nil {
		r.failIO(r.req.Err)
		return
	}
	r.finish(wire.Success)
}

// flushUnit flushes a unit's device and waits for it.
func flushUnit(u *unit.Unit) error {
	w := make(flushWait, 1)
	u.Device().Submit(&block.Request{Op: block.Flush, Done: w})
	return <-w
}

type flushWait chan error

func (w flushWait) RequestDone(r *block.Request) { w <- r.Err }

// runRead is Read (NVMe NVM 1.0 §3.2.4).
func runRead(r *Request) {
	off, length, s := r.extent(true)
	if s != 0 {
		r.finish(s)
		return
	}
	u := r.ns.unit
	dev := u.Device()
	q := &r.req
	q.Flags, q.Off, q.Len, q.Data, q.Done = 0, off, length, nil, r
	if r.SQE.CDW(12)&forceUnitAccess != 0 && dev.Info().Volatile {
		// What the cache has and the medium has not goes there first.
		q.Op = block.Flush
		r.step = readFlushed
		dev.Submit(q)
		return
	}
	r.takeRead()
}

func readFlushed(r *Request) {
	if r.req.Err != nil {
		r.failIO(r.req.Err)
		return
	}
	r.takeRead()
}

// takeRead reads when no atomic write is under way in the range.
func (r *Request) takeRead() {
	u := r.ns.unit
	if u.Ranges.BeginRead(r.queue.lane) {
		r.submitRead()
		return
	}
	shift := u.BlockShift()
	r.step = readReady
	if u.Ranges.Shared(&r.guard, uint64(r.req.Off)>>shift, uint64(r.req.Len)>>shift, r) {
		readReady(r)
	}
}

func readReady(r *Request) {
	if r.isCancelled() {
		r.release()
		r.finish(wire.AbortRequested)
		return
	}
	r.submitRead()
}

func (r *Request) submitRead() {
	dev := r.ns.unit.Device()
	r.req.Op = block.Read
	if !dev.Info().Lends {
		r.req.Data = r.allocIn(int(r.req.Len))
	}
	r.step = readDone
	dev.Submit(&r.req)
}

// release gives back the range of a command that holds one.
func (r *Request) release() {
	if r.guard.Held() {
		r.ns.unit.Ranges.Release(&r.guard)
	}
}

func readDone(r *Request) {
	if r.guard.Held() {
		r.release()
	} else {
		r.ns.unit.Ranges.EndRead(r.queue.lane)
	}
	if r.req.Err != nil {
		r.failIO(r.req.Err)
		return
	}
	r.DataIn = r.req.Data
	r.finish(wire.Success)
}

// runWrite is Write (NVMe NVM 1.0 §3.2.6).
func runWrite(r *Request) {
	off, length, s := r.extent(true)
	if s == 0 && r.SQE.CDW(12)&directiveType != 0 {
		s = wire.InvalidField.DNR()
	}
	if s != 0 {
		r.finish(s)
		return
	}
	u := r.ns.unit
	q := &r.req
	q.Op, q.Flags, q.Off, q.Data, q.Done = block.Write, r.writeFlags(), off, r.DataOut, r
	r.step = writeReady
	shift := u.BlockShift()
	if u.Ranges.Shared(&r.guard, uint64(off)>>shift, uint64(length)>>shift, r) {
		writeReady(r)
	}
}

func writeReady(r *Request) {
	if r.isCancelled() {
		r.release()
		r.finish(wire.AbortRequested)
		return
	}
	r.step = writeDone
	r.ns.unit.Device().Submit(&r.req)
}

func writeDone(r *Request) {
	r.release()
	requestDone(r)
}
