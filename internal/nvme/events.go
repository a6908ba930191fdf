package nvme

import (
	"slices"
	"sync"

	wire "lintel.io/lintel/internal/wire/nvme"
)

const (
	maxAsyncEvents = 4  // AERL + 1
	maxNotices     = 64 // reservation notifications that wait to be read
	maxChanged     = 1024
)

// events are the asynchronous events of a controller (NVMe Base 2.0 §5.2). An event
// of which the host has been told is not told again before it has read the log page
// of it.
//
//	idle --raise--> pending --a request is there--> told --log page read--> idle
//	                            told --raise--> told, pending
type events struct {
	mu       sync.Mutex // leaf
	requests []parking  // Asynchronous Event Requests that wait
	enabled  uint32     // Asynchronous Event Configuration
	pending  []uint32
	told     map[uint32]bool
	changed  map[uint32]bool // namespaces, for the log
	many     bool            // more than the log can name
	notices  []notice
	number   uint64 // of the last notice
}

// parking is a request that was made to wait. The request may have ended since and
// its memory be another command's: the number tells.
type parking struct {
	queue  *Queue
	r      *Request
	number uint64
}

// notice is a reservation notification (NVMe Base 2.0 §5.16.1.24).
type notice struct {
	number uint64
	kind   uint8
	nsid   uint32
}

// The types of reservation notifications, which are the bits of the mask too.
const (
	notifyRegistrationPreempted = 1
	notifyReservationReleased   = 2
	notifyReservationPreempted  = 3
)

func (e *events) init() {
	e.told, e.changed = make(map[uint32]bool), make(map[uint32]bool)
}

// needs returns the bit of the configuration that lets an event through, 0 for none.
func needs(event uint32) uint32 {
	switch event {
	case wire.EventNamespaceChanged:
		return wire.NotifyNamespace
	case wire.EventANAChanged:
		return wire.NotifyANA
	case wire.EventDiscoveryChanged:
		return wire.NotifyDiscovery
	}
	return 0
}

// raise tells the host of an event as soon as it can be told.
func (e *events) raise(event uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.raiseLocked(event)
}

func (e *events) raiseLocked(event uint32) {
	if bit := needs(event); bit != 0 && e.enabled&bit == 0 {
		return
	}
	if !slices.Contains(e.pending, event) {
		e.pending = append(e.pending, event)
	}
	e.deliverLocked()
}

// deliverLocked ends requests with the events that may be told. It leaves that to
// another goroutine: who raises an event may hold locks.
func (e *events) deliverLocked() {
	for i := 0; i < len(e.pending) && len(e.requests) > 0; {
		event := e.pending[i]
		if e.told[event] {
			i++
			continue
		}
		p := e.requests[0]
		e.requests = slices.Delete(e.requests, 0, 1)
		if !p.take() {
			continue // it was aborted
		}
		r := p.r
		e.pending = slices.Delete(e.pending, i, i+1)
		e.told[event] = true
		r.Result[0] = event
		go r.finish(wire.Success)
	}
}

// request takes an Asynchronous Event Request; false where there are too many.
func (e *events) request(r *Request) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.requests = slices.DeleteFunc(e.requests, parking.over)
	if len(e.requests) >= maxAsyncEvents {
		return false
	}
	p, ok := r.queue.park(r)
	if !ok {
		return false
	}
	e.requests = append(e.requests, p)
	e.deliverLocked()
	return true
}

// read says that the host has read the log page of an event.
func (e *events) read(event uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readLocked(event)
}

func (e *events) readLocked(event uint32) {
	delete(e.told, event)
	e.pending = slices.DeleteFunc(e.pending, func(p uint32) bool { return p == event })
}

func (e *events) setEnabled(bits uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.enabled = bits
	e.pending = slices.DeleteFunc(e.pending, func(p uint32) bool { return needs(p) != 0 && bits&needs(p) == 0 })
}

func (e *events) getEnabled() uint32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.enabled
}

// namespaceChanged notes a namespace for the Changed Namespace List.
func (e *events) namespaceChanged(nsid uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.changed) < maxChanged {
		e.changed[nsid] = true
	} else if !e.changed[nsid] {
		e.many = true
	}
	e.raiseLocked(wire.EventNamespaceChanged)
}

// takeChanged returns the changed namespaces in order, and forgets them unless they
// are retained. all says that there are more than can be named.
func (e *events) takeChanged(retain bool) (list []uint32, all bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for nsid := range e.changed {
		list = append(list, nsid)
	}
	slices.Sort(list)
	all = e.many
	if !retain {
		clear(e.changed)
		e.many = false
		e.readLocked(wire.EventNamespaceChanged)
	}
	return list, all
}

// notify queues a reservation notification.
func (e *events) notify(kind uint8, nsid uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.number++
	if e.number == 0 {
		e.number++
	}
	if len(e.notices) == maxNotices {
		e.notices = slices.Delete(e.notices, 0, 1) // the host sees the gap in the numbers
	}
	e.notices = append(e.notices, notice{e.number, kind, nsid})
	e.raiseLocked(wire.EventReservation)
}

// takeNotice returns the oldest reservation notification, and how many follow it.
func (e *events) takeNotice(retain bool) (n notice, more int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.notices) > 0 {
		n, more = e.notices[0], len(e.notices)-1
	}
	if !retain {
		if len(e.notices) > 0 {
			e.notices = slices.Delete(e.notices, 0, 1)
		}
		e.readLocked(wire.EventReservation)
		if len(e.notices) > 0 {
			e.raiseLocked(wire.EventReservation)
		}
	}
	return n, more
}

// reset forgets everything, as a controller reset does; the requests end.
func (e *events) reset() {
	e.mu.Lock()
	requests := e.requests
	e.requests, e.pending, e.notices, e.enabled, e.many = nil, nil, nil, 0, false
	clear(e.told)
	clear(e.changed)
	e.mu.Unlock()
	for _, p := range requests {
		if p.take() {
			p.r.finish(wire.AbortRequested)
		}
	}
}

// park makes r wait; false where it was cancelled.
func (q *Queue) park(r *Request) (parking, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.isCancelled() {
		return parking{}, false
	}
	q.parkings++
	r.parked, r.parking = true, q.parkings
	return parking{queue: q, r: r, number: q.parkings}, true
}

// take takes the request over, to end it; false where another has.
func (p parking) take() bool {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	if !p.r.parked || p.r.parking != p.number {
		return false
	}
	p.r.parked = false
	return true
}

// over reports whether the request waits no more.
func (p parking) over() bool {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	return !p.r.parked || p.r.parking != p.number
}
