package block

import (
	"sync"
	"sync/atomic"
)

const (
	// maxWorkers bounds the goroutines of one device that wait for the medium.
	maxWorkers = 64
	// sharedWorkers bounds them over all devices; each device may have one
	// worker beyond it, so that a stuck device cannot starve the others. Each
	// waiting goroutine holds a thread, and a Go process dies at 10,000.
	sharedWorkers = 1024
)

var sharedInUse atomic.Int32

// A requestList is a first-in-first-out list linked through the requests.
type requestList struct{ head, tail *Request }

func (l *requestList) push(r *Request) {
	r.next = nil
	if l.tail == nil {
		l.head = r
	} else {
		l.tail.next = r
	}
	l.tail = r
}

// pop returns nil when the list is empty.
func (l *requestList) pop() *Request {
	r := l.head
	if r == nil {
		return nil
	}
	if l.head = r.next; l.head == nil {
		l.tail = nil
	}
	r.next = nil
	return r
}

// A queue runs requests on worker goroutines, in the order of their arrival. A
// worker is started for a request while the limits allow, and ends when the
// queue is empty: the runtime keeps ended goroutines and idle threads at hand, so
// starting one costs no more than waking one.
type queue struct {
	run  func(*Request)
	loop func() // q.work, made once: a method value allocates

	mu      sync.Mutex
	list    requestList
	workers int
}

func (q *queue) init(run func(*Request)) {
	q.run = run
	q.loop = q.work
}

func (q *queue) push(r *Request) {
	q.mu.Lock()
	q.list.push(r)
	start := q.workers == 0 || q.workers < maxWorkers && takeShared()
	if start {
		q.workers++
	}
	q.mu.Unlock()
	if start {
		go q.loop()
	}
}

func (q *queue) work() {
	for {
		q.mu.Lock()
		r := q.list.pop()
		if r == nil {
			q.workers--
			shared := q.workers > 0
			q.mu.Unlock()
			if shared {
				sharedInUse.Add(-1)
			}
			return
		}
		q.mu.Unlock()
		q.run(r)
	}
}

func takeShared() bool {
	if sharedInUse.Add(1) <= sharedWorkers {
		return true
	}
	sharedInUse.Add(-1)
	return false
}
