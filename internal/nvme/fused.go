package nvme

import wire "lintel.io/lintel/internal/wire/nvme"

// fusing is where a command stands that wants to be fused (NVMe Base 2.0 §3.4.2).
//
//	first half:   waiting --second arrives--> paired
//	                 +------another arrives--> missing
//	second half:  paired, or refused at once
type fusing uint8

const (
	fuseNone    fusing = iota
	fuseWaiting        // the first half has arrived, what follows it has not
	fusePaired
	fuseMissing // the other half did not follow, or has ended
)

// fuse looks at a command in its order of arrival: the halves of a pair follow each
// other directly.
func (q *Queue) fuse(r *Request) {
	q.ahead = r.SQE.Fuse() == wire.FuseFirst
	q.mu.Lock()
	first := q.first
	q.first = nil
	var orphan *Request
	switch r.SQE.Fuse() {
	case wire.FuseSecond:
		if first == nil {
			r.Refuse = wire.AbortedMissingFused.DNR()
			break
		}
		first.fused, r.fused = r, first
		first.fusing, r.fusing = fusePaired, fusePaired
		first = nil
	case wire.FuseFirst:
		if q.id == 0 {
			r.Refuse = wire.InvalidField.DNR()
			break
		}
		r.fusing = fuseWaiting
		q.first = r
	case wire.FuseNone:
	default:
		r.Refuse = wire.InvalidField.DNR()
	}
	if first != nil {
		first.fusing = fuseMissing
		if first.parked {
			first.parked = false
			orphan = first
		}
	}
	q.mu.Unlock()
	if orphan != nil {
		orphan.fail(wire.AbortedMissingFused)
	}
}

// executeFused runs a pair when both halves are complete. A half that is ahead is parked.
func (q *Queue) executeFused(r *Request) {
	q.mu.Lock()
	if r.isCancelled() { // before it could be parked
		other := q.leavePairLocked(r)
		q.mu.Unlock()
		r.finish(wire.AbortedSQDeletion)
		if other != nil {
			other.fail(wire.AbortedMissingFused)
		}
		return
	}
	other := r.fused
	switch {
	case r.fusing == fuseMissing:
		q.mu.Unlock()
		r.fail(wire.AbortedMissingFused)
		return
	case r.fusing == fuseWaiting, !other.parked:
		r.parked = true
		q.mu.Unlock()
		return
	}
	other.parked = false
	q.mu.Unlock()
	first, second := r, other
	if r.SQE.Fuse() == wire.FuseSecond {
		first, second = other, r
	}
	q.runPair(first, second)
}

// leavePairLocked takes a half that ends by itself out of its pair: the other one is missing it,
// whether it is yet to arrive, to be executed, or parked. Only the last is returned; the caller ends it.
func (q *Queue) leavePairLocked(r *Request) *Request {
	if q.first == r {
		q.first = nil
	}
	other := r.fused
	if other == nil {
		return nil
	}
	other.fused, r.fused = nil, nil
	other.fusing = fuseMissing
	if !other.parked {
		return nil
	}
	other.parked = false
	return other
}

// endPair ends both halves, the first one first.
func endPair(first, second *Request, a, b wire.Status) {
	first.finish(a)
	second.finish(b)
}

func (q *Queue) runPair(first, second *Request) {
	failed := wire.AbortedFailedFused.DNR()
	switch {
	case first.Refuse != 0:
		endPair(first, second, first.Refuse, failed)
		return
	case second.Refuse != 0:
		endPair(first, second, failed, second.Refuse)
		return
	}
	c := q.Controller()
	c.traffic.Store(true)
	a, b := first.SQE, second.SQE
	invalid := wire.InvalidField.DNR()
	if a.Opcode() != wire.Compare || b.Opcode() != wire.Write ||
		a.NSID() != b.NSID() || a.SLBA() != b.SLBA() || a.NLB() != b.NLB() {
		endPair(first, second, invalid, invalid)
		return
	}
	if s := q.admit(c); s != 0 {
		endPair(first, second, s, failed)
		return
	}
	if s := second.checkIO(&ioCommands[wire.Write], c); s != 0 {
		endPair(first, second, s, failed)
		return
	}
	runCompareAndWrite(first, second)
}
