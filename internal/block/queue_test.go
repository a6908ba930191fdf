package block

import (
	"testing"
	"testing/synctest"
)

func TestQueueBoundsWorkersAndKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		running := make(chan *Request, 1000)
		proceed := make(chan struct{})
		q.init(func(r *Request) {
			running <- r
			<-proceed
		})
		const n = 3 * maxWorkers
		for i := range n {
			q.push(&Request{Off: int64(i)})
		}
		synctest.Wait()
		if len(running) != maxWorkers {
			t.Fatalf("%d workers run, want %d", len(running), maxWorkers)
		}
		for range maxWorkers {
			if r := <-running; r.Off >= maxWorkers {
				t.Errorf("request %d overtook one before it", r.Off)
			}
		}
		// With one worker going on, the rest comes in order.
		for i := range int64(n - maxWorkers) {
			proceed <- struct{}{}
			if r := <-running; r.Off != maxWorkers+i {
				t.Fatalf("request %d came in place of %d", r.Off, maxWorkers+i)
			}
		}
		close(proceed)
		synctest.Wait()
		if q.workers != 0 || q.list.head != nil || q.list.tail != nil {
			t.Errorf("%d workers and %v remain", q.workers, q.list)
		}
		if left := sharedInUse.Load(); left != 0 {
			t.Errorf("%d shared workers remain", left)
		}
	})
}

// Where others use up the shared workers, each device still has one.
func TestQueueHasOneWorkerOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sharedInUse.Add(sharedWorkers)
		defer sharedInUse.Add(-sharedWorkers)
		var q queue
		running := 0
		proceed := make(chan struct{})
		q.init(func(*Request) {
			running++
			<-proceed
		})
		for range 3 {
			q.push(&Request{})
		}
		synctest.Wait()
		if running != 1 {
			t.Errorf("%d workers run, want 1", running)
		}
		close(proceed)
		synctest.Wait()
		if running != 3 || sharedInUse.Load() != sharedWorkers {
			t.Errorf("%d requests ran; %d shared workers in use", running, sharedInUse.Load())
		}
	})
}
