// Package ask asks what may hang, such as storage that does not answer, without hanging
// itself: a question that is not answered is not asked again but shared, so that no more than
// one goroutine waits for it.
package ask

import (
	"sync"
	"time"
)

// An Asker asks one thing of one object. The zero value is ready. Its methods may be called concurrently.
type Asker[T any] struct {
	mu   sync.Mutex
	last *Question[T] // nil before the first
}

// A Question is asked once and answered once, or never.
type Question[T any] struct {
	// Since is when it was asked.
	Since time.Time

	done   chan struct{}
	answer T // valid when done is closed
}

// Ask starts f on a goroutine of its own, or returns the question that is still open.
func (a *Asker[T]) Ask(f func() T) *Question[T] { return a.AskSince(time.Now(), f) }

// AskSince is Ask where f waits for what was asked at since.
func (a *Asker[T]) AskSince(since time.Time, f func() T) *Question[T] {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil && !a.last.answered() {
		return a.last
	}
	q := &Question[T]{Since: since, done: make(chan struct{})}
	a.last = q
	go func() {
		q.answer = f()
		close(q.done)
	}()
	return q
}

// Open returns the question that is still open, nil for none.
func (a *Asker[T]) Open() *Question[T] {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil || a.last.answered() {
		return nil
	}
	return a.last
}

// Done returns a channel that is closed when the question is answered.
func (q *Question[T]) Done() <-chan struct{} { return q.done }

// Answer returns the answer, and waits for it however long that takes.
func (q *Question[T]) Answer() T {
	<-q.done
	return q.answer
}

func (q *Question[T]) answered() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// Wait returns the answer, or false where there is none yet when the question was asked patience ago.
func (q *Question[T]) Wait(patience time.Duration) (T, bool) {
	if !q.answered() {
		timer := time.NewTimer(patience - time.Since(q.Since))
		defer timer.Stop()
		select {
		case <-q.done:
		case <-timer.C:
			if !q.answered() {
				var none T
				return none, false
			}
		}
	}
	return q.answer, true
}
