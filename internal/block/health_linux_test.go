package block

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// wantFault checks the fault that a device tells; no kind stands for none.
func wantFault(t *testing.T, what string, d Device, kind FaultKind, texts ...string) Fault {
	t.Helper()
	f := HealthOf(d).Fault
	switch {
	case f == nil && kind == "":
		return Fault{}
	case f == nil:
		t.Errorf("%s: no fault, want %s", what, kind)
		return Fault{}
	case f.Kind != kind:
		t.Errorf("%s: fault %s (%s), want %q", what, f.Kind, f.Reason, kind)
	}
	for _, text := range texts {
		if !strings.Contains(f.Reason, text) {
			t.Errorf("%s: %q does not tell %q", what, f.Reason, text)
		}
	}
	return *f
}

// Requests that fail are told for a while after the last of them, the ones that pass by
// themselves shortly, and never in place of worse ones.
func TestHealthTellsFailedRequests(t *testing.T) {
	d, _, _ := testFile(t)
	d.noWriteNow.Store(true)
	synctest.Test(t, func(t *testing.T) {
		d.faults = faults{}
		wantFault(t, "new", d, "")
		errno := unix.ENOSPC
		write := func() error { return d.write(&Request{Op: Write, Data: block4K(1)}) }
		d.calls.write = func(int, []byte, int64, uintptr) (int, unix.Errno) { return 0, errno }
		start := time.Now()
		d.faults.note(write())
		time.Sleep(time.Minute)
		d.faults.note(write())
		if f := wantFault(t, "full", d, FaultSpace, "2 requests failed, the last at ", "byte 0: no space"); !f.Since.Equal(start) {
			t.Errorf("since %v, want %v", f.Since, start)
		}
		errno = unix.EIO
		d.faults.note(write())
		wantFault(t, "bad block", d, FaultIO, "a request failed at ", "medium error")
		time.Sleep(passingFaultTold)
		errno = unix.ENOSPC
		d.faults.note(write())
		wantFault(t, "full again", d, FaultIO)
		time.Sleep(faultTold - passingFaultTold - 1)
		wantFault(t, "a day later", d, FaultIO)
		time.Sleep(time.Nanosecond)
		wantFault(t, "after a day", d, "")
		start = time.Now()
		d.faults.note(write())
		if f := wantFault(t, "full once more", d, FaultSpace, "a request failed at "); !f.Since.Equal(start) {
			t.Errorf("since %v, want %v", f.Since, start)
		}
		if got := HealthOf(d).Failed; got != 5 {
			t.Errorf("%d failed requests, want 5", got)
		}
	})
}

// What a device answers with an error it also tells, but for what it has never tried.
func TestHealthCountsRequests(t *testing.T) {
	d, _, _ := testFile(t)
	wantKind(t, "beyond the end", do(d, Request{Op: Read, Off: 1 << 20, Data: block4K(0)}), KindRange)
	wantFault(t, "a request that is wrong", d, "")
	d.calls.write = func(int, []byte, int64, uintptr) (int, unix.Errno) { return 0, unix.EROFS }
	d.noWriteNow.Store(true)
	wantKind(t, "write", do(d, Request{Op: Write, Data: block4K(0)}), KindReadOnly)
	wantFault(t, "read-only file system", d, FaultIO, "write at byte 0: read-only")
	d.calls.sync = func(int) unix.Errno { return unix.EIO }
	wantKind(t, "flush", do(d, Request{Op: Flush}), KindMedium)
	wantKind(t, "second flush", do(d, Request{Op: Flush}), KindMedium)
	wantFault(t, "failed flush", d, FaultLost, d.path, "writes may be lost")
	if got := HealthOf(d).Failed; got != 3 {
		t.Errorf("%d failed requests, want 3", got)
	}
}

// A file that has gone is told also where nobody writes to it, until it is back; one that was
// cut for good.
func TestHealthLooksAtTheFile(t *testing.T) {
	d, path, _ := testFile(t)
	want(t, "rename", os.Rename(path, path+".away"))
	first := wantFault(t, "renamed", d, FaultBacking, "was renamed")
	if again := wantFault(t, "still renamed", d, FaultBacking); !again.Since.Equal(first.Since) {
		t.Errorf("since %v, then since %v", first.Since, again.Since)
	}
	want(t, "rename back", os.Rename(path+".away", path))
	wantFault(t, "back", d, "")
	want(t, "truncate", os.Truncate(path, 4096))
	wantFault(t, "cut", d, FaultBacking, "was cut from")
	want(t, "truncate", os.Truncate(path, 1<<20))
	wantFault(t, "longer again", d, FaultBacking, "was cut from")
}

func TestHealthOfMemory(t *testing.T) {
	d := NewMem(4096)
	defer d.Close()
	if h := HealthOf(d); h != (Health{}) {
		t.Errorf("got %v", h)
	}
}
