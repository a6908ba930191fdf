package sbc

import (
	"fmt"
	"math"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// TestAbort checks that an aborted command changes nothing after the response of ABORT TASK (SAM-5 §7.2).
func TestAbort(t *testing.T) {
	const blocks = 64 << 11
	for _, c := range []struct {
		name string
		cdb  []byte
		out  int // blocks
		hold block.Op
		busy bool // somebody else has the range
	}{
		{"WRITE behind another", cdb(wire.OpWrite10, 0, 8), 8, block.Read, true},
		{"WRITE ATOMIC behind another", atomicCDB(0, 8), 8, block.Read, true},
		{"READ behind another", cdb(wire.OpRead10, 0, 8), 0, block.Read, true},
		{"COMPARE AND WRITE behind another", compareCDB(0, 4), 8, block.Read, true},
		{"COMPARE AND WRITE", compareCDB(0, 4), 8, block.Read, false},
		{"ORWRITE behind another", cdb(wire.OpORWrite16, 0, 8), 8, block.Read, true},
		{"ORWRITE", cdb(wire.OpORWrite16, 0, 8), 8, block.Read, false},
		{"WRITE SAME behind another", cdb(wire.OpWriteSame16, 0, 8192), 1, block.Read, true},
		{"WRITE SAME", cdb(wire.OpWriteSame16, 0, 8192), 1, block.Write, false},
		{"WRITE AND VERIFY behind another", flags(cdb(wire.OpWriteVerify16, 0, 8), 2), 8, block.Read, true},
		{"WRITE AND VERIFY", flags(cdb(wire.OpWriteVerify16, 0, 8), 2), 8, block.Write, false},
		{"VERIFY behind another", cdb(wire.OpVerify16, 0, 8192), 0, block.Read, true},
		{"VERIFY", cdb(wire.OpVerify16, 0, 8192), 0, block.Read, false},
		{"PRE-FETCH", cdb(wire.OpPreFetch16, 0, 8192), 0, block.Read, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := blocktest.NewFaulty(block.NewMem(blocks * 512))
			r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, nil)
			other := r.connect("other", false)
			var first *call
			if c.busy {
				f.Hold(block.Read)
				first = r.start(other, compareCDB(2, 1), r.fill(2, 0))
				f.WaitHeld(1)
			} else {
				f.Hold(c.hold)
			}
			out := r.fill(c.out, 'x')
			if len(c.cdb) > 13 && c.cdb[0] == wire.OpCompareAndWrite {
				clear(out[:len(out)/2])
			}
			task := r.start(r.nexus, c.cdb, out)
			f.WaitHeld(1)
			done := make(chan scsi.Response, 1)
			r.nexus.Manage(scsi.AbortTask, 0, task.Tag, func(resp scsi.Response) { done <- resp })
			requests := f.Count(block.Read) + f.Count(block.Write)
			if !c.busy { // else it ends at once
				f.Release()
			}
			if res := task.wait(); !res.aborted {
				t.Fatalf("the task was not aborted: status %02Xh, %v", res.status, res.sense)
			}
			if resp := <-done; resp != scsi.FunctionComplete {
				t.Fatalf("response %d", resp)
			}
			if first != nil {
				f.Release()
				if res := first.wait(); res.status != scsi.StatusGood {
					t.Fatalf("%v", res.sense)
				}
				requests++ // its write
			}
			if n := f.Count(block.Read) + f.Count(block.Write); n != requests {
				t.Fatalf("%d requests after the task was aborted", n-requests)
			}
			// The ranges are free again.
			r.good(atomicCDB(0, 1), r.fill(1, 1))
			if !r.u.Ranges.Atomic() {
				r.good(cdb(wire.OpWrite10, 0, 8), r.fill(8, 1))
			}
		})
	}
}

// TestResetBehindHold checks that LOGICAL UNIT RESET, ABORT TASK SET and CLEAR TASK SET end the commands that wait for an operation on the whole unit, and I_T NEXUS RESET too (SAM-5 §7).
func TestResetBehindHold(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, nil)
	for _, function := range []scsi.Function{scsi.AbortTaskSet, scsi.ClearTaskSet, scsi.LogicalUnitReset, scsi.ITNexusReset} {
		var hold unit.RangeGuard // as SANITIZE does
		r.u.Ranges.Exclusive(&hold, 0, math.MaxUint64, nil)
		n := r.connect(fmt.Sprint("reset", function), false)
		calls := []*call{
			r.start(n, cdb(wire.OpRead10, 0, 8), nil),
			r.start(n, cdb(wire.OpWrite10, 0, 8), r.fill(8, 1)),
			r.start(n, atomicCDB(0, 8), r.fill(8, 1)),
			r.start(n, compareCDB(0, 1), r.fill(2, 0)),
			r.start(n, cdb(wire.OpVerify10, 0, 8), nil),
			r.start(n, cdb(wire.OpWriteSame16, 0, 8), r.fill(1, 1)),
		}
		done := make(chan scsi.Response, 1)
		n.Manage(function, 0, 0, func(resp scsi.Response) { done <- resp })
		for _, c := range calls {
			if res := c.wait(); !res.aborted {
				t.Errorf("% X was not aborted: status %02Xh, %v", c.CDB, res.status, res.sense)
			}
		}
		if resp := <-done; resp != scsi.FunctionComplete {
			t.Fatalf("response %d", resp)
		}
		r.u.Ranges.Release(&hold)
		if f.Count(block.Read)+f.Count(block.Write)+f.Count(block.Zero) != 0 || r.u.Ranges.Atomic() {
			t.Fatal("an aborted command has reached the device, or is still waiting")
		}
	}
}

// TestLongCommand checks that a long command lets go of the goroutine that started it (SAM-5 §7.2).
func TestLongCommand(t *testing.T) {
	r := newRig(t, block.NewMem(64<<40), unit.Attributes{BlockSize: 512, Thin: true}, nil)
	task := r.start(r.nexus, cdb(wire.OpVerify16, 0, 1<<32-1), nil)
	done := make(chan scsi.Response, 1)
	r.nexus.Manage(scsi.AbortTask, 0, task.Tag, func(resp scsi.Response) { done <- resp })
	if res := task.wait(); !res.aborted {
		t.Fatalf("the task was not aborted: status %02Xh, %v", res.status, res.sense)
	}
	<-done
}

// TestReadBehindAtomic checks that reads wait for an atomic write (SBC-4 §4.29).
func TestReadBehindAtomic(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	f.Hold(block.Write)
	write := r.start(r.nexus, atomicCDB(0, 8), r.fill(8, 'a'))
	f.WaitHeld(1)
	read := r.start(r.nexus, cdb(wire.OpRead10, 4, 8), nil)
	verify := r.start(r.nexus, flags(cdb(wire.OpVerify10, 0, 8), 2), r.fill(8, 'a'))
	if n := f.Count(block.Read); n != 0 {
		t.Fatalf("%d reads have passed the atomic write", n)
	}
	r.good(cdb(wire.OpRead10, 8, 8), nil)
	f.Release()
	for _, c := range []*call{write, read, verify} {
		if res := c.wait(); res.status != scsi.StatusGood {
			t.Errorf("% X: %v", c.CDB, res.sense)
		}
	}
}

// TestAtomicBehindRead checks that an atomic write waits for the reads under way (SBC-4 §4.29).
func TestAtomicBehindRead(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512}, nil)
	for _, first := range [][]byte{cdb(wire.OpRead10, 4, 8), flags(cdb(wire.OpRead10, 4, 8), bitFUA), cdb(wire.OpVerify10, 4, 8)} {
		f.Hold(block.Read)
		read := r.start(r.nexus, first, nil)
		f.WaitHeld(1)
		writes := f.Count(block.Write)
		write := r.start(r.nexus, atomicCDB(0, 8), r.fill(8, 'a'))
		late := r.start(r.nexus, cdb(wire.OpRead10, 7, 8), nil)
		r.good(cdb(wire.OpWrite10, 100, 8), r.fill(8, 'b'))
		if f.Count(block.Write) != writes+1 || f.Held() != 1 {
			t.Fatalf("% X: the atomic write has not waited, or nobody for it", first)
		}
		f.Release()
		for _, c := range []*call{read, write, late} {
			if res := c.wait(); res.status != scsi.StatusGood {
				t.Errorf("% X: %v", c.CDB, res.sense)
			}
		}
	}
}
