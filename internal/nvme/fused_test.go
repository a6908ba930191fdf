package nvme_test

import (
	"bytes"
	"sync"
	"testing"

	"lintel.io/lintel/internal/block"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// pair returns the halves of a fused Compare and Write.
func pair(lba uint64, compare, write []byte) (Command, Command) {
	first, second := Compare(1, lba, compare, 512), Write(1, lba, write, 512)
	first.Fuse, second.Fuse = wire.FuseFirst, wire.FuseSecond
	return first, second
}

func (p pairRun) want(t *testing.T, a, b wire.Status) {
	t.Helper()
	if r := p.first.Wait(); r.Status != a {
		t.Errorf("first half: %s, want %s", r.Status, a)
	}
	if r := p.second.Wait(); r.Status != b {
		t.Errorf("second half: %s, want %s", r.Status, b)
	}
}

type pairRun struct{ first, second *Call }

// orders runs a pair with its data arriving in either order, and one half after the other.
func orders(io *Conn, first, second Command) []pairRun {
	var runs []pairRun
	runs = append(runs, pairRun{io.Start(first), io.Start(second)})
	a, b := io.Arrive(first), io.Arrive(second)
	io.Execute(b)
	io.Execute(a)
	return append(runs, pairRun{a, b})
}

// TestFused checks the fused Compare and Write (NVMe Base 2.0 §3.4.2, NVMe NVM 1.0 §2.1.3).
func TestFused(t *testing.T) {
	b := New(t, Config{})
	io := b.Attach("a").IO
	zero, one := fill(1024, 0), fill(1024, 1)
	first, second := pair(5, zero, one)
	for i := range 2 {
		io.Good(Write(1, 5, zero, 512))
		if i == 0 {
			pairRun{io.Start(first), io.Start(second)}.want(t, 0, 0)
		} else { // the data of the first half arrives last
			x, y := io.Arrive(first), io.Arrive(second)
			io.Execute(y)
			io.Execute(x)
			pairRun{x, y}.want(t, 0, 0)
		}
		if got := io.Good(Read(1, 5, 2, 512)).Data; !bytes.Equal(got, one) {
			t.Error("the pair has not written")
		}
	}
}

// TestFusedOutcomes checks both halves of failing pairs (NVMe Base 2.0 §3.4.2).
func TestFusedOutcomes(t *testing.T) {
	b := New(t, Config{})
	io := b.Attach("a").IO
	zero, one := fill(1024, 0), fill(1024, 1)
	failed, invalid := wire.AbortedFailedFused.DNR(), wire.InvalidField.DNR()
	change := func(c Command, f func(*Command)) Command { f(&c); return c }
	first, second := pair(5, one, zero)
	ok, okWrite := pair(5, zero, one)
	for _, c := range []struct {
		name          string
		first, second Command
		a, b          wire.Status
	}{
		{"miscompare", first, second, wire.CompareFailure.DNR(), failed},
		{"other blocks", ok, change(okWrite, func(c *Command) { c.CDW[0] = 6 }), invalid, invalid},
		{"other length", ok, change(okWrite, func(c *Command) { c.CDW[2] = 0 }), invalid, invalid},
		{"other namespace", ok, change(okWrite, func(c *Command) { c.NSID = 2 }), invalid, invalid},
		{"no namespace", change(ok, func(c *Command) { c.NSID = 9 }), change(okWrite, func(c *Command) { c.NSID = 9 }), wire.InvalidNamespace.DNR(), failed},
		{"reversed opcodes", change(ok, func(c *Command) { c.Opcode = wire.Write }), okWrite, invalid, invalid},
		{"out of range", change(ok, func(c *Command) { c.CDW[0] = 2047 }), change(okWrite, func(c *Command) { c.CDW[0] = 2047 }), wire.LBAOutOfRange.DNR(), failed},
		{"short compare", change(ok, func(c *Command) { c.Out = c.Out[:512] }), okWrite, wire.SGLLengthInvalid.DNR(), failed},
		{"short write", ok, change(okWrite, func(c *Command) { c.Out = c.Out[:512] }), failed, wire.SGLLengthInvalid.DNR()},
		{"refused compare", change(ok, func(c *Command) { c.Refuse = wire.DataTransferError }), okWrite, wire.DataTransferError, failed},
		{"refused write", ok, change(okWrite, func(c *Command) { c.Refuse = wire.DataTransferError }), failed, wire.DataTransferError},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range 2 {
				runs := orders(io, c.first, c.second)
				runs[i].want(t, c.a, c.b)
				runs[1-i].want(t, c.a, c.b)
			}
		})
	}
	if got := io.Good(Read(1, 5, 2, 512)).Data; !bytes.Equal(got, zero) {
		t.Error("a pair that failed has written")
	}

	large := fill(257*512, 0)
	first, second = pair(0, large, large)
	pairRun{io.Start(first), io.Start(second)}.want(t, invalid, failed)
}

// TestFusedMissing checks halves whose other half does not follow (NVMe Base 2.0 §3.4.2).
func TestFusedMissing(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	io := a.IO
	zero := fill(512, 0)
	first, second := pair(0, zero, zero)
	missing := wire.AbortedMissingFused.DNR()
	io.Fails(second, missing)

	c := io.Start(first)
	io.Good(Read(1, 0, 1, 512))
	if r := c.Wait(); r.Status != missing {
		t.Errorf("first half without a second: %s", r.Status)
	}
	c = io.Arrive(first)
	io.Good(Read(1, 0, 1, 512))
	io.Execute(c)
	if r := c.Wait(); r.Status != missing {
		t.Errorf("first half executed late: %s", r.Status)
	}
	c = io.Start(first)
	pairRun{io.Start(first), io.Start(second)}.want(t, 0, 0)
	if r := c.Wait(); r.Status != missing {
		t.Errorf("first half before another pair: %s", r.Status)
	}
	bad := first
	bad.Fuse = 3
	io.Fails(bad, wire.InvalidField.DNR())
	onAdmin := Identify(wire.CNSController, 0)
	onAdmin.Fuse = wire.FuseFirst
	a.Admin.Fails(onAdmin, wire.InvalidField.DNR())

	// A half that is aborted takes the other one along.
	c = io.Start(first)
	abort := Command{Opcode: wire.AdminAbort}
	abort.CDW[0] = 1 | uint32(c.CID)<<16
	if r := a.Admin.Good(abort); r.Result[0] != 0 || c.Wait().Status != wire.AbortRequested {
		t.Error("a waiting first half is not aborted")
	}
	io.Fails(second, missing)
	x, y := io.Arrive(first), io.Arrive(second)
	io.Execute(x)
	abort.CDW[0] = 1 | uint32(x.CID)<<16
	a.Admin.Good(abort)
	io.Execute(y)
	pairRun{x, y}.want(t, wire.AbortRequested, missing)
}

// TestFusedAtomic checks that no write comes between the halves of a pair (NVMe NVM 1.0 §2.1.3).
// A counter that many queues raise by fused pairs loses nothing.
func TestFusedAtomic(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	const workers, rounds = 4, 100
	var wg sync.WaitGroup
	for w := range workers {
		q := a.Queue(uint16(w + 2))
		wg.Go(func() {
			for done := 0; done < rounds; {
				old := q.Do(Read(1, 0, 1, 512)).Data
				next := bytes.Clone(old)
				for i := range next {
					if next[i]++; next[i] != 0 {
						break
					}
				}
				first, second := pair(0, old, next)
				x, y := q.Start(first), q.Start(second)
				x.Wait()
				if y.Wait().Status.OK() {
					done++
				}
			}
		})
	}
	wg.Wait()
	got := a.IO.Good(Read(1, 0, 1, 512)).Data
	if n := int(got[0]) | int(got[1])<<8; n != workers*rounds {
		t.Errorf("the counter is %d, want %d", n, workers*rounds)
	}
}

// TestFusedWriteError checks a pair whose write fails (NVMe Base 2.0 §3.4.2).
func TestFusedWriteError(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	io := b.Attach("a").IO
	dev.failWrites = true
	first, second := pair(0, fill(512, 0), fill(512, 1))
	pairRun{io.Start(first), io.Start(second)}.want(t, wire.AbortedFailedFused.DNR(), wire.WriteFault.DNR())
}

// TestFusedAbortedEarly checks that a half that is aborted before it waits for the other one takes that with it, and
// nothing of what comes later (NVMe Base 2.0 §3.4.2, §5.1).
func TestFusedAbortedEarly(t *testing.T) {
	io := New(t, Config{}).Attach("a").IO
	zero := fill(512, 0)
	first, second := pair(0, zero, zero)
	missing := wire.AbortedMissingFused.DNR()
	abort := func(c *Call) { io.Queue.ExecuteCancelled(&c.Request, wire.AbortRequested) }

	x := io.Arrive(first) // the second half has not arrived
	abort(x)
	pairRun{x, io.Start(second)}.want(t, wire.AbortRequested, missing)

	x = io.Start(first) // the first half is parked
	y := io.Arrive(second)
	abort(y)
	pairRun{x, y}.want(t, missing, wire.AbortRequested)

	x, y = io.Arrive(first), io.Arrive(second) // the second half is parked
	io.Execute(y)
	abort(x)
	pairRun{x, y}.want(t, wire.AbortRequested, missing)

	x, y = io.Arrive(first), io.Arrive(second) // neither is: the data of one is still on its way
	abort(y)
	io.Execute(x)
	pairRun{x, y}.want(t, missing, wire.AbortRequested)
	x, y = io.Arrive(first), io.Arrive(second)
	abort(x)
	io.Execute(y)
	pairRun{x, y}.want(t, wire.AbortRequested, missing)

	pairRun{io.Start(first), io.Start(second)}.want(t, 0, 0)
}

// TestFusedAbortedMeanwhile checks that a waiting first half may be aborted while the next command arrives (NVMe Base
// 2.0 §3.4.2, §5.1).
func TestFusedAbortedMeanwhile(t *testing.T) {
	a := New(t, Config{}).Attach("a")
	first, _ := pair(0, fill(512, 0), fill(512, 0))
	for range 50 {
		c := a.IO.Start(first)
		aborted := make(chan struct{})
		go func() {
			defer close(aborted)
			cmd := Command{Opcode: wire.AdminAbort}
			cmd.CDW[0] = 1 | uint32(c.CID)<<16
			a.Admin.Do(cmd)
		}()
		a.IO.Good(Read(1, 0, 1, 512))
		<-aborted
		if s := c.Wait().Status; s != wire.AbortRequested && s != wire.AbortedMissingFused.DNR() {
			t.Errorf("first half: %s", s)
		}
	}
}
