package nvme_test

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// volatileDevice has a write cache that a power failure empties.
type volatileDevice struct{ *failing }

func (d volatileDevice) Info() block.Info {
	i := d.failing.Info()
	i.Volatile = true
	return i
}

// TestReadFUA checks that Read with FUA returns what is on stable storage (NVMe NVM 1.0 §3.2.4).
func TestReadFUA(t *testing.T) {
	dev := volatileDevice{&failing{Device: block.NewMem(1 << 20)}}
	io := New(t, Config{Device: func(int, int64) block.Device { return dev }}).Attach("a").IO
	read := Read(1, 0, 1, 512)
	read.CDW[2] |= 1 << 30
	io.Good(read)
	if dev.count(block.Flush) != 1 || dev.count(block.Read) != 1 {
		t.Errorf("%d flushes, %d reads", dev.count(block.Flush), dev.count(block.Read))
	}
	dev.fail(block.KindIO)
	io.Fails(read, wire.InternalError)
}

// TestWaitForPair checks that reads and writes wait for a fused pair in their range, and that
// those which are aborted meanwhile do nothing (NVMe NVM 1.0 §2.1.3, NVMe Base 2.0 §5.1).
func TestWaitForPair(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a := b.Attach("a")
	commands := []Command{
		Read(1, 0, 4, 512), Write(1, 0, fill(2048, 9), 512), Compare(1, 0, fill(2048, 0), 512), Blocks(wire.Verify, 1, 0, 4),
		Blocks(wire.WriteZeroes, 1, 0, 4), management(4, [2]uint64{0, 4}), copyCommand(0, [2]uint64{2, 2}), copyCommand(2, [2]uint64{100, 2}),
	}
	for _, abort := range []bool{true, false} {
		dev.holdBack()
		first, second := pair(0, dev.content(t, 0, 1024), fill(1024, 1))
		p := pairRun{a.IO.Start(first), a.IO.Start(second)} // holds its range, reading
		var calls []*Call
		var aborts []*Call
		for _, cmd := range commands {
			c := a.IO.Start(cmd)
			calls = append(calls, c)
			if abort {
				cmd := Command{Opcode: wire.AdminAbort}
				cmd.CDW[0] = 1 | uint32(c.CID)<<16
				aborts = append(aborts, a.Admin.Start(cmd))
			}
		}
		writes := dev.count(block.Write) + dev.count(block.Zero) + dev.count(block.Discard)
		if !abort {
			dev.resume()
		}
		for i, c := range calls {
			if abort && i == len(calls)-2 { // copies, which read elsewhere
				dev.resume()
			}
			r := c.Wait()
			switch {
			case abort && r.Status != wire.AbortRequested:
				t.Errorf("aborted command %d ended with %s", i, r.Status)
			case !abort && !r.Status.OK() && r.Status != wire.CompareFailure.DNR():
				t.Errorf("command %d ended with %s", i, r.Status)
			}
		}
		p.want(t, 0, 0)
		for _, c := range aborts {
			if r := c.Wait(); !r.Status.OK() || r.Result[0] != 0 {
				t.Errorf("Abort: %s, %d", r.Status, r.Result[0])
			}
		}
		if n := dev.count(block.Write) + dev.count(block.Zero) + dev.count(block.Discard) - writes; abort && n != 1 {
			t.Errorf("%d changes, want that of the pair alone", n)
		}
	}
	// A pair that waits for another is ended by either half.
	for half := range 2 {
		dev.holdBack()
		first, second := pair(0, dev.content(t, 0, 1024), fill(1024, 1))
		p := pairRun{a.IO.Start(first), a.IO.Start(second)}
		q := pairRun{a.IO.Start(first), a.IO.Start(second)}
		cmd := Command{Opcode: wire.AdminAbort}
		cmd.CDW[0] = 1 | uint32([]*Call{q.first, q.second}[half].CID)<<16
		ab := a.Admin.Start(cmd)
		statuses := [2]wire.Status{wire.AbortRequested, wire.AbortedFailedFused.DNR()}
		if half == 1 {
			statuses = [2]wire.Status{wire.AbortRequested, wire.AbortRequested}
		}
		q.want(t, statuses[0], statuses[1])
		ab.Wait()
		dev.resume()
		p.want(t, 0, 0)
	}
	// A pair that is aborted while it reads does not write.
	dev.holdBack()
	first, second := pair(8, fill(1024, 0), fill(1024, 1))
	p := pairRun{a.IO.Start(first), a.IO.Start(second)}
	cmd := Command{Opcode: wire.AdminAbort}
	cmd.CDW[0] = 1 | uint32(p.second.CID)<<16
	ab := a.Admin.Start(cmd)
	dev.resume()
	p.want(t, wire.AbortRequested, wire.AbortRequested)
	ab.Wait()
	if got := dev.content(t, 8*512, 1024); !bytes.Equal(got, fill(1024, 0)) {
		t.Error("an aborted pair has written")
	}
}

// TestPairBehindRead checks that a fused pair waits for the reads under way, so that they see all of
// it or nothing (NVMe NVM 1.0 §2.1.3).
func TestPairBehindRead(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	a := New(t, Config{Device: func(int, int64) block.Device { return dev }}).Attach("a")
	for _, cmd := range []Command{Read(1, 0, 4, 512), Compare(1, 0, fill(2048, 0), 512), Blocks(wire.Verify, 1, 0, 4), copyCommand(100, [2]uint64{0, 4})} {
		dev.holdBack()
		reads := dev.count(block.Read)
		read := a.IO.Start(cmd)
		first, second := pair(0, fill(1024, 0), fill(1024, 0))
		p := pairRun{a.IO.Start(first), a.IO.Start(second)}
		if n := dev.count(block.Read) - reads; n != 1 {
			t.Errorf("opcode %02Xh: %d reads before the first has ended", cmd.Opcode, n)
		}
		dev.resume()
		if r := read.Wait(); !r.Status.OK() {
			t.Errorf("opcode %02Xh: %s", cmd.Opcode, r.Status)
		}
		p.want(t, 0, 0)
	}
}

// content returns what the device has.
func (d *failing) content(t *testing.T, off int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	w := make(waiter, 1)
	d.Device.Submit(&block.Request{Op: block.Read, Off: off, Data: b, Done: w})
	if err := <-w; err != nil {
		t.Fatal(err)
	}
	return b
}

type waiter chan error

func (w waiter) RequestDone(r *block.Request) { w <- r.Err }

// TestStress runs commands of all kinds on several queues while namespaces come and go, units
// are resized, commands are aborted and associations end (NVMe Base 2.0 §3).
func TestStress(t *testing.T) {
	b := New(t, Config{Units: 2})
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		wg.Go(func() {
			for range 5 {
				a := b.Attach(name)
				ctrl := a.Controller()
				var inner sync.WaitGroup
				var queues []*Conn
				for q := range uint16(2) {
					io := a.Queue(q + 2)
					queues = append(queues, io)
					inner.Go(func() {
						for i := range 100 {
							nsid, lba := uint32(i%2+1), uint64(i%7)
							first, second := pair(lba, fill(512, 0), fill(512, byte(i)))
							first.NSID, second.NSID = nsid, nsid
							x, y := io.Start(first), io.Start(second)
							io.Do(Write(nsid, lba, fill(1024, byte(i)), 512))
							io.Do(Read(nsid, lba, 2, 512))
							io.Do(Register(nsid, uint32(i%3), 1, 1))
							io.Do(Acquire(nsid, uint32(i%3), uint32(i%6+1), 1, 1))
							io.Do(ReleaseReservation(nsid, uint32(i%2), uint32(i%6+1), 1))
							x.Wait()
							y.Wait()
						}
					})
				}
				inner.Go(func() {
					for i := range 30 {
						ctrl.SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[i%2]}, 2: {Unit: b.Units[0]}})
						a.Admin.Start(Command{Opcode: wire.AdminAsyncEvent})
						cmd := Command{Opcode: wire.AdminAbort}
						cmd.CDW[0] = 2 | uint32(i)<<16
						a.Admin.Do(cmd)
						a.Admin.Do(GetLogPage(wire.LogChangedNamespaces, 4096, 0))
						if i%10 == 0 {
							_ = b.Units[i%2].Resize(uint64(1000 + i))
						}
					}
				})
				inner.Wait()
				ctrl.Kill(errors.New("end"))
				a.Close()
				for _, q := range queues {
					q.Close()
				}
			}
		})
	}
	wg.Wait()
	for _, u := range b.Units {
		if u.Attached() != 0 || u.Ranges.Atomic() {
			t.Error("something is left")
		}
	}
	if n := len(b.Subsystem.Controllers()); n != 0 || b.Access.Opened() != 0 {
		t.Errorf("%d controllers are left", n)
	}
}

// TestNoAllocation checks that Read and Write allocate nothing.
func TestNoAllocation(t *testing.T) {
	b := New(t, Config{})
	io := b.Attach("a").IO
	for name, cmd := range map[string]Command{"read": Read(1, 0, 8, 512), "write": Write(1, 0, fill(4096, 1), 512)} {
		r := newReused(cmd)
		if n := testing.AllocsPerRun(100, func() { r.run(io.Queue) }); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// reused is a request that is run again and again, as transports do.
type reused struct {
	nvme.Request
	out []byte
	bad bool
}

func newReused(cmd Command) *reused {
	r := &reused{out: cmd.Out}
	e := make(wire.SQE, wire.SQESize)
	e.SetOpcode(cmd.Opcode)
	e.SetNSID(cmd.NSID)
	for i, v := range cmd.CDW {
		e.SetCDW(10+i, v)
	}
	e.SetSGL(0, uint32(max(len(cmd.Out), cmd.In)), wire.SGLTransport)
	r.SQE, r.Owner = e, r
	return r
}

func (r *reused) RequestDone(*nvme.Request) {
	r.bad = r.bad || !r.Status.OK()
	r.Release()
}

func (r *reused) run(q *nvme.Queue) {
	q.DataOutLength(&r.Request)
	r.DataOut = r.out
	q.Execute(&r.Request)
}

func BenchmarkRead(b *testing.B)  { benchmark(b, Read(1, 0, 8, 512)) }
func BenchmarkWrite(b *testing.B) { benchmark(b, Write(1, 0, fill(4096, 1), 512)) }

// benchmark measures a command on a null device: what the controller costs.
func benchmark(b *testing.B, cmd Command) {
	bench := New(b, Config{Device: func(_ int, size int64) block.Device { return block.NewNull(size) }})
	io := bench.Attach("a").IO
	r := newReused(cmd)
	b.ReportAllocs()
	for b.Loop() {
		r.run(io.Queue)
	}
	if r.bad {
		b.Error("a command failed")
	}
}

// FuzzCommand gives a controller commands of a hostile host.
func FuzzCommand(f *testing.F) {
	seed := func(cmd Command) {
		e := newReused(cmd)
		f.Add(cmd.Opcode&1 == 0, []byte(e.SQE), cmd.Out)
	}
	seed(Read(1, 0, 8, 512))
	seed(Write(1, 0, fill(512, 1), 512))
	seed(Identify(wire.CNSController, 0))
	seed(management(4, [2]uint64{0, 4}))
	seed(copyCommand(8, [2]uint64{0, 4}))
	seed(Register(1, 0, 0, 1))
	seed(Report(1, 64))
	seed(GetLogPage(wire.LogANA, 64, 0))
	seed(SetFeature(wire.FeatureHostBehavior, 0, 0))
	seed(Connect{Host: NewHost("a")}.Command())
	f.Fuzz(func(t *testing.T, admin bool, entry, out []byte) {
		b := New(t, Config{})
		a := b.Attach("a")
		q := a.IO
		if admin {
			q = a.Admin
		}
		cmd := Command{Out: make([]byte, nvme.MaxTransferBytes), Change: func(e wire.SQE) {
			cid := e.CID()
			copy(e, entry)
			e.SetCID(cid)
		}}
		copy(cmd.Out, out)
		c := q.Start(cmd)
		if c.SQE.Opcode() == wire.AdminAsyncEvent && admin || c.SQE.Fuse() == wire.FuseFirst {
			a.Close()
		}
		r := c.Wait()
		if _, n, _ := c.SQE.SGL(); len(r.Data) > int(n) {
			t.Errorf("%d bytes for an SGL of %d", len(r.Data), n)
		}
	})
}
