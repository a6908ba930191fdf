package nvme

import (
	"errors"
	"sync/atomic"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// MaxTransferBytes is how much data an I/O command moves at most, in bytes (MDTS).
const MaxTransferBytes = 1 << 20

// maxAdminBytes is how much data a host sends with one admin or Fabrics command.
const maxAdminBytes = 8192

// Request is one command from a transport. The transport owns the struct and
// reuses it: it fills the first part, calls Queue.DataOutLength, gets the data,
// calls Queue.Execute, and gets the request back through Owner.RequestDone, after
// which it sends the completion and calls Release.
type Request struct {
	// Set by the transport.

	SQE     wire.SQE // 64 bytes of the transport's, valid until RequestDone
	DataOut []byte   // complete: as many bytes as DataOutLength said, or none where Refuse is set
	Owner   Owner
	// Refuse, where the transport sets it after DataOutLength, is the status
	// with which the command has to end: its data could not be moved. Execute
	// ends it so. DataOutLength clears it, or sets it where the command is wrong.
	Refuse wire.Status

	// Set by the controller.

	Status wire.Status
	Result [2]uint32 // dwords 0 and 1 of the completion
	// DataIn is the data for the host, never longer than the SGL of the
	// command says. It may lie in memory that is shared and must not be written.
	DataIn []byte

	// For the commands.

	queue *Queue
	ns    *namespace
	req   block.Request   // the request under way for this command
	guard unit.RangeGuard // the range it holds or waits for
	step  func(*Request)  // what to do when req has completed or guard is ready

	in        *block.Buffer
	lba       uint64        // of the Error Information log: the first block that had the error
	length    int           // of the data of the command, in bytes, as its SGL says
	cancelled atomic.Uint32 // a wire.Status

	// Guarded by Queue.mu.
	stamp      unit.Stamp
	prev, next *Request      // the queue's list of commands under way
	drains     []*unit.Drain // who waits for this command to end
	parking    uint64        // number of the wait, where it waits for an event
	parked     bool          // waits for an event or for its fused half: who clears it, ends or runs it
	fused      *Request      // the other half of a fused pair
	fusing     fusing
}

// Owner receives finished requests.
type Owner interface {
	// RequestDone is called exactly once for each executed request, from
	// inside Execute or later from another goroutine. It must not block.
	RequestDone(*Request)
}

var (
	_ block.Completer  = (*Request)(nil)
	_ unit.RangeWaiter = (*Request)(nil)
)

// RequestDone continues the command; it makes Request a block.Completer.
func (r *Request) RequestDone(*block.Request) { r.step(r) }

// RangeReady continues the command; it makes Request a unit.RangeWaiter.
func (r *Request) RangeReady(*unit.RangeGuard) { r.step(r) }

// Release gives the request's data back to its pools and readies it for reuse.
func (r *Request) Release() {
	if r.in != nil {
		r.in.Put()
		r.in = nil
	}
	r.DataIn, r.DataOut = nil, nil
	r.queue, r.ns, r.step, r.fused = nil, nil, nil, nil
	r.req.Data = nil
}

// Cancelled reports whether the command gives up to wait for a range.
func (r *Request) Cancelled() bool { return r.isCancelled() }

// isCancelled reports whether the command has to end without another change of the
// medium. It then ends with any status: finish knows the right one.
func (r *Request) isCancelled() bool { return r.cancelled.Load() != 0 }

// fenceLocked has what comes from now on to the blocks that the command is changing wait for it: the
// host may ask anew for what it takes for lost, and the device must not do the older of the two last.
// The command is in the list of its queue, whose mu is held.
func (r *Request) fenceLocked() {
	if r.ns != nil && ioCommands[r.SQE.Opcode()].changes {
		r.ns.unit.Ranges.Fence(&r.guard)
	}
}

// allocIn sets DataIn to n bytes, at most block.MaxBuffer, of arbitrary content.
func (r *Request) allocIn(n int) []byte {
	if r.in != nil {
		r.in.Put()
	}
	r.in = block.Get(n)
	r.DataIn = r.in.Bytes(n)
	return r.DataIn
}

// reply ends the command with success and data, of which the host gets as much from
// offset on as its SGL says, with zeros behind the end.
func (r *Request) reply(data []byte, offset uint64) {
	b := r.allocIn(r.length)
	n := 0
	if offset < uint64(len(data)) {
		n = copy(b, data[offset:])
	}
	clear(b[n:])
	r.finish(wire.Success)
}

// finish ends the command.
func (r *Request) finish(s wire.Status) {
	q := r.queue
	if c := wire.Status(r.cancelled.Load()); c != 0 {
		s = c
	}
	r.Status = s
	q.mu.Lock()
	if r.fused != nil {
		r.fused.fused, r.fused = nil, nil
	}
	q.unlinkLocked(r)
	q.counts.add(r)
	// A command cancelled from here on has had its effect: that it ends is all that is waited for.
	drains := r.drains
	r.drains = nil
	ctrl := q.ctrl
	q.mu.Unlock()
	if !s.OK() {
		r.DataIn = nil
		if ctrl != nil {
			ctrl.logError(r)
		}
	}
	r.Owner.RequestDone(r)
	for _, d := range drains {
		d.Release()
	}
}

// fail ends the command with a status and Do Not Retry.
func (r *Request) fail(s wire.Status) { r.finish(s.DNR()) }

// failIO ends the command with the status that a device error stands for.
func (r *Request) failIO(err error) { r.finish(r.ioStatus(err)) }

// ioStatus returns the status of a device error of the command, and keeps the first bad block
// for the Error Information log.
func (r *Request) ioStatus(err error) wire.Status {
	var e *block.Error
	if errors.As(err, &e) && e.Kind == block.KindMedium && e.Off >= 0 {
		r.lba = uint64(e.Off) >> r.ns.unit.BlockShift()
	}
	return r.queue.ctrl.ioStatus(err)
}

// commandRetryDelay1 selects CRDT1 in the Command Retry Delay field.
const commandRetryDelay1 wire.Status = 1 << 11

// ioStatus returns the status of a device error (NVMe Base 2.0 §3.3.3.2.1). Do Not Retry
// is set where the same command would fail again; for what may come back, hosts that
// know of retry delays are given one.
func (c *Controller) ioStatus(err error) wire.Status {
	switch block.KindOf(err) {
	case block.KindMedium:
		var e *block.Error
		if errors.As(err, &e) && e.Op != block.Read {
			return wire.WriteFault.DNR()
		}
		return wire.UnrecoveredRead.DNR()
	case block.KindNoSpace:
		return wire.CapacityExceeded
	case block.KindReadOnly:
		return wire.NamespaceWriteProtected.DNR()
	case block.KindRange:
		return wire.LBAOutOfRange.DNR()
	case block.KindGone:
		if c.retryDelay.Load() {
			return wire.NamespaceNotReady | commandRetryDelay1
		}
		return wire.NamespaceNotReady
	}
	return wire.InternalError
}
