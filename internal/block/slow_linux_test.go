package block

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onWorker tells whether it is called from a worker's goroutine.
func onWorker() bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "(*queue).work") {
			return true
		}
		if !more {
			return false
		}
	}
}

// After a slow write the next go to the workers, for a while.
func TestSlowWritesLeaveTheCaller(t *testing.T) {
	d, _, clock := testFile(t)
	d.noWriteNow.Store(true)
	took := int64(0)
	inline := false
	d.calls.write = func(_ int, p []byte, _ int64, _ uintptr) (int, unix.Errno) {
		clock.Add(took)
		inline = !onWorker()
		return len(p), 0
	}
	write := func(n int) bool {
		t.Helper()
		want(t, "write", do(d, Request{Op: Write, Data: make([]byte, n)}))
		return inline
	}
	if !write(4096) || !write(inlineWrite) {
		t.Error("a fast file gets no inline writes")
	}
	if write(inlineWrite + 1) {
		t.Error("a long write ran inline")
	}
	took = stuckCall
	if !write(4096) {
		t.Error("nobody could know that this write would be slow")
	}
	took = 0
	if write(4096) {
		t.Error("a write after a slow one ran inline")
	}
	clock.Add(slowFor)
	if !write(4096) {
		t.Error("writes did not come back")
	}
}

// Without RWF_NOWAIT reads are paced in the same way.
func TestSlowReadsLeaveTheCaller(t *testing.T) {
	d, _, clock := testFile(t)
	d.noReadNow.Store(true)
	inline := false
	d.calls.read = func(_ int, p []byte, _ int64) (int, unix.Errno) {
		clock.Add(stuckCall)
		inline = !onWorker()
		return len(p), 0
	}
	for i, inlineWanted := range []bool{true, false} {
		want(t, "read", do(d, Request{Op: Read, Data: make([]byte, 512)}))
		if inline != inlineWanted {
			t.Errorf("read %d ran inline: %v", i, inline)
		}
	}
}

// Storage that hangs stalls the callers that are in it already, and no more of them.
func TestHangingCallsLeaveTheCaller(t *testing.T) {
	for _, op := range []Op{Read, Write} {
		d, _, clock := testFile(t)
		d.noReadNow.Store(true)
		d.noWriteNow.Store(true)
		proceed, entered := make(chan struct{}), make(chan struct{}, 2)
		hang := func(p []byte) (int, unix.Errno) {
			entered <- struct{}{}
			<-proceed
			return len(p), 0
		}
		d.calls.read = func(_ int, p []byte, _ int64) (int, unix.Errno) { return hang(p) }
		d.calls.write = func(_ int, p []byte, _ int64, _ uintptr) (int, unix.Errno) { return hang(p) }
		first := make(chan *call)
		go func() { first <- start(d, Request{Op: op, Data: block4K(1)}) }()
		<-entered
		clock.Add(slowCall + 1)
		second := make(chan *call)
		go func() { second <- start(d, Request{Op: op, Data: block4K(1)}) }()
		<-entered
		submitted := <-second // while it hangs: a worker waits for it
		close(proceed)
		want(t, op.String(), submitted.wait())
		want(t, op.String(), (<-first).wait())
	}
}
