package nvme_test

import (
	"bytes"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	"lintel.io/lintel/internal/unit"
)

// lazy is a device that does requests later, in any order.
type lazy struct{ block.Device }

func (d lazy) Submit(r *block.Request) {
	go func() {
		for range r.Off / 512 % 5 {
			runtime.Gosched()
		}
		d.Device.Submit(r)
	}()
}

// TestPreemptStress checks that nothing of a host that was preempted and aborted changes a block after the answer, while it
// writes through two controllers whose namespaces come and go (NVMe Base 2.0 §8.19.7).
func TestPreemptStress(t *testing.T) {
	b := New(t, Config{Device: func(_ int, size int64) block.Device { return lazy{block.NewMem(size)} }})
	owner := b.Attach("a").IO
	owner.Good(Register(1, 0, 0, 1))
	var over atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer over.Store(true)
	for range 2 {
		v := b.Attach("b")
		wg.Go(func() {
			for i := 0; !over.Load(); i++ {
				v.IO.Do(Register(1, 0, 0, 2))
				var calls []*Call
				for n := range uint64(4) {
					calls = append(calls, v.IO.Start(Write(1, n, fill(1024, 9), 512)))
				}
				if i%4 == 3 {
					v.Controller().SetNamespaces(nvme.Namespaces{})
					v.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}})
				}
				for _, c := range calls {
					c.Wait()
				}
			}
		})
	}
	const writeExclusive = 1
	mine := fill(5*512, 1)
	for done := 0; done < 100; {
		owner.Good(Acquire(1, 0, writeExclusive, 1, 0))
		if owner.Do(Acquire(1, 2, writeExclusive, 1, 2)).Status.OK() { // else it has not registered again
			owner.Good(Write(1, 0, mine, 512))
			for range 5 {
				if !bytes.Equal(owner.Good(Read(1, 0, 5, 512)).Data, mine) {
					t.Fatal("a host that was preempted has written")
				}
				runtime.Gosched()
			}
			done++
		}
		owner.Good(ReleaseReservation(1, 0, writeExclusive, 1))
		runtime.Gosched()
	}
}

// TestPreemptRemapped checks that Preempt and Abort waits for what a host asked for before its namespace went and came
// back (NVMe Base 2.0 §8.19.7).
func TestPreemptRemapped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &failing{Device: block.NewMem(1 << 20)}
		b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
		owner, victim := b.Attach("a"), b.Attach("b")
		owner.IO.Good(Register(1, 0, 0, 1))
		victim.IO.Good(Register(1, 0, 0, 2))
		dev.holdBack()
		late := victim.IO.Start(Write(1, 0, fill(512, 9), 512))
		victim.Controller().SetNamespaces(nvme.Namespaces{})
		victim.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}})
		preempt := owner.IO.Start(Acquire(1, 2, 1, 1, 2))
		synctest.Wait()
		if len(preempt.Done()) != 0 {
			t.Error("answered while a write can still reach the device")
		}
		dev.resume()
		if r := preempt.Wait(); !r.Status.OK() {
			t.Error(r.Status)
		}
		late.Wait()
		owner.Close()
		victim.Close()
	})
}

// stopper keeps whoever tells it an event of its unit, which nobody can watch meanwhile.
type stopper struct{ told, release chan struct{} }

func (s stopper) Initiator() unit.Initiator { return unit.Initiator{} }
func (s stopper) AbortTasks(done func())    { go done() }
func (s stopper) UnitEvent(unit.Event) {
	close(s.told)
	<-s.release
}

// TestNoCommandUnwatched checks that there are no commands on a namespace before Preempt and Abort could end them (NVMe
// Base 2.0 §8.19.7).
func TestNoCommandUnwatched(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	a.Controller().SetNamespaces(nvme.Namespaces{})
	s := stopper{make(chan struct{}), make(chan struct{})}
	b.Units[0].Attach(s)
	var wg sync.WaitGroup
	wg.Go(func() { b.Units[0].Notify(unit.EventReset, nil) })
	<-s.told
	wg.Go(func() { a.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}}) })
	for range 100 {
		if r := a.IO.Do(Read(1, 0, 1, 512)); r.Status.OK() {
			t.Error("a namespace that is not watched takes commands")
			break
		}
		runtime.Gosched()
	}
	close(s.release)
	wg.Wait()
	a.IO.Good(Read(1, 0, 1, 512))
	b.Units[0].Detach(s)
}
