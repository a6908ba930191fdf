package nvme

import wire "lintel.io/lintel/internal/wire/nvme"

// Computing holds a value for each host that the controller computes for.
var Computing = computing

// ExecuteCancelled executes half of a fused pair that is cancelled as soon as it is under way.
func (q *Queue) ExecuteCancelled(r *Request, s wire.Status) {
	r.queue = q
	q.mu.Lock()
	q.linkLocked(r)
	r.cancelled.Store(uint32(s))
	q.mu.Unlock()
	q.executeFused(r)
}
