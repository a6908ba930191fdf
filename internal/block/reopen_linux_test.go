package block

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// reopen opens a device anew and returns how often it has said so.
func reopen(dev Device) (told int, err error) {
	err = dev.(Reopener).Reopen(context.Background(), func() { told++ })
	return told, err
}

func wantReopen(t *testing.T, dev Device) {
	t.Helper()
	if told, err := reopen(dev); err != nil || told != 1 {
		t.Errorf("reopen: told %d times, %v", told, err)
	}
}

// breakFlush has the device fail one flush.
func breakFlush(t *testing.T, dev Device, b *backing) {
	t.Helper()
	b.calls.sync = func(int) unix.Errno { return unix.EIO }
	wantKind(t, "flush", do(dev, Request{Op: Flush}), KindMedium)
	b.calls.sync = fdatasync
	wantKind(t, "second flush", do(dev, Request{Op: Flush}), KindMedium)
}

// devices are a file and a disk, with what they have in common and the path of what they are on.
func devices(t *testing.T, test func(t *testing.T, dev Device, b *backing, path string)) {
	t.Run("file", func(t *testing.T) {
		d, path, _ := testFile(t)
		test(t, d, &d.backing, path)
	})
	t.Run("disk", func(t *testing.T) {
		path := newTestFile(t)
		dev, err := NewTestDisk(path, 512)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dev.Close() })
		test(t, dev, &dev.(*disk).backing, path)
	})
}

// openable tells whether somebody else could open the file of a device.
func openable(t *testing.T, path string) bool {
	t.Helper()
	other, err := OpenFile(path, FileOptions{})
	if err != nil {
		if !errors.Is(err, ErrInUse) {
			t.Errorf("open by somebody else: %v", err)
		}
		return false
	}
	want(t, "close", other.Close())
	return true
}

// A device whose flush has failed works again once it is open anew, and is nobody else's at any time.
func TestReopenAfterAFailedFlush(t *testing.T) {
	devices(t, func(t *testing.T, dev Device, b *backing, path string) {
		want(t, "write", do(dev, Request{Op: Write, Data: Get(4096).Bytes(4096)}))
		for range 3 {
			breakFlush(t, dev, b)
			wantFault(t, "failed flush", dev, FaultLost)
			wantReopen(t, dev)
			if openable(t, path) {
				t.Error("somebody else can open it")
			}
			wantFault(t, "opened anew", dev, "")
			if n := HealthOf(dev).Failed; n != 0 {
				t.Errorf("%d failed requests", n)
			}
			want(t, "flush", do(dev, Request{Op: Flush}))
			want(t, "FUA", do(dev, Request{Op: Write, Flags: FUA, Data: Get(4096).Bytes(4096)}))
		}
		want(t, "close", dev.Close())
		if !openable(t, path) {
			t.Error("nobody can open it after it was closed")
		}
		if told, err := reopen(dev); KindOf(err) != KindGone || err == nil || told != 0 {
			t.Errorf("reopen of a closed device: %d, %v", told, err)
		}
	})
}

// What was written is still there, but no more in the page cache.
func TestReopenForgetsThePageCache(t *testing.T) {
	d, _, _ := testFile(t)
	var steps []string
	d.calls.sync = func(fd int) unix.Errno {
		steps = append(steps, "sync")
		return fdatasync(fd)
	}
	d.calls.forget = func(fd int) unix.Errno {
		steps = append(steps, "forget")
		if fd == d.fd {
			t.Error("the old descriptor is used")
		}
		return dropCache(fd)
	}
	data := bytes.Repeat(block4K(7), 64)
	want(t, "write", do(d, Request{Op: Write, Data: data}))
	got := make([]byte, len(data))
	_, before := readCached(d.fd, got, 0)
	wantReopen(t, d)
	if s := strings.Join(steps, " "); s != "sync sync sync forget" {
		t.Errorf("steps: %s", s)
	}
	var st unix.Statfs_t
	want(t, "statfs", unix.Fstatfs(d.fd, &st))
	if n, errno := readCached(d.fd, got, 0); before == 0 && st.Type != unix.TMPFS_MAGIC && errno != unix.EAGAIN {
		t.Errorf("%d bytes are still cached (%v)", n, errno)
	}
	want(t, "read", do(d, Request{Op: Read, Data: got}))
	if !bytes.Equal(got, data) {
		t.Error("what was written is lost")
	}
	d.calls.forget = func(int) unix.Errno { return unix.EIO }
	if told, err := reopen(d); told != 0 || !errors.Is(err, unix.EIO) {
		t.Errorf("a cache that cannot be dropped: %d, %v", told, err)
	}
	want(t, "flush", do(d, Request{Op: Flush}))
}

// Requests that arrive meanwhile are answered afterwards; a flush that vouches for what may be
// lost is not.
func TestRequestsDuringReopen(t *testing.T) {
	devices(t, func(t *testing.T, dev Device, b *backing, _ string) {
		for _, broken := range []bool{true, false} {
			if broken {
				breakFlush(t, dev, b)
			}
			asked, proceed := make(chan int), make(chan struct{})
			fd := b.fd
			b.calls.sync = func(new int) unix.Errno {
				if new == fd {
					return fdatasync(new)
				}
				asked <- new
				<-proceed
				return fdatasync(new)
			}
			done := make(chan struct{})
			var calls []*call
			go func() {
				defer close(done)
				if err := dev.(Reopener).Reopen(context.Background(), func() {
					for i, c := range calls {
						if c.finished.Load() {
							t.Errorf("request %d was answered before", i)
						}
					}
				}); err != nil {
					t.Error(err)
				}
			}()
			<-asked // requests still go on
			want(t, "write", do(dev, Request{Op: Write, Data: Get(512).Bytes(512)}))
			proceed <- struct{}{}
			fd = <-asked // now they wait, and then the new descriptor is the one
			calls = []*call{
				start(dev, Request{Op: Write, Data: Get(512).Bytes(512)}),
				start(dev, Request{Op: Flush}),
				start(dev, Request{Op: Read, Data: Get(512).Bytes(512)}),
				start(dev, Request{Op: Zero, Flags: FUA, Len: 512}),
			}
			proceed <- struct{}{}
			<-done
			for i, c := range calls {
				if err := c.wait(); broken && i == 1 {
					wantKind(t, "flush of what may be lost", err, KindMedium)
				} else {
					want(t, c.Op.String(), err)
				}
			}
			b.calls.sync = fdatasync
			want(t, "flush", do(dev, Request{Op: Flush}))
		}
	})
}

// A failed write-back that only the descriptor that was open tells, as somebody else's flush has been
// told it before, is not forgotten.
func TestReopenAfterAFailedWriteBack(t *testing.T) {
	devices(t, func(t *testing.T, dev Device, b *backing, _ string) {
		old := b.fd
		var held *call
		b.calls.sync = func(fd int) unix.Errno {
			if fd == old && held == nil {
				held = start(dev, Request{Op: Flush})
				return unix.EIO
			}
			return fdatasync(fd)
		}
		wantReopen(t, dev)
		if held == nil {
			t.Fatal("the old descriptor was not asked")
		}
		wantKind(t, "flush of what may be lost", held.wait(), KindMedium)
		want(t, "flush", do(dev, Request{Op: Flush}))
	})
}

// A loss that no flush has told before is told by the first one afterwards, and no more.
func TestReopenOwesALoss(t *testing.T) {
	devices(t, func(t *testing.T, dev Device, b *backing, _ string) {
		old := b.fd
		b.calls.sync = func(fd int) unix.Errno {
			if fd == old {
				return unix.EIO
			}
			return fdatasync(fd)
		}
		wantReopen(t, dev)
		wantFault(t, "opened anew", dev, "")
		wantReopen(t, dev)
		want(t, "write", do(dev, Request{Op: Write, Data: Get(512).Bytes(512)}))
		wantKind(t, "flush of what may be lost", do(dev, Request{Op: Flush}), KindMedium)
		want(t, "flush", do(dev, Request{Op: Flush}))
	})
}

// Close waits for what a Reopen has left under way: it uses the descriptor, whose number is another's then.
func TestCloseWaitsForReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, _ := testFile(t)
		hung, answer := false, make(chan struct{})
		d.calls.sync = func(fd int) unix.Errno {
			if !hung {
				hung = true
				<-answer
			}
			return fdatasync(fd)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			synctest.Wait()
			cancel()
		}()
		if err := d.Reopen(ctx, func() { t.Error("opened") }); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		closed := make(chan error, 1)
		go func() { closed <- d.Close() }()
		synctest.Wait()
		if len(closed) > 0 {
			t.Error("closed while the descriptor is used")
		}
		close(answer)
		want(t, "close", <-closed)
		want(t, "close again", d.Close())
	})
}

// Whatever goes wrong, the device stays as it was.
func TestReopenThatFails(t *testing.T) {
	devices(t, func(t *testing.T, dev Device, b *backing, path string) {
		fails := func(what, text string, is error) {
			t.Helper()
			fault := HealthOf(dev).Fault
			fd, claim := b.fd, b.claim
			told, err := reopen(dev)
			if told != 0 || err == nil || !strings.Contains(err.Error(), text) || is != nil && !errors.Is(err, is) {
				t.Errorf("%s: told %d times, %v", what, told, err)
			}
			if b.fd != fd || b.claim != claim {
				t.Errorf("%s: other descriptors", what)
			}
			if now := HealthOf(dev).Fault; fault != nil && (now == nil || *now != *fault) {
				t.Errorf("%s: fault %v, was %v", what, now, fault)
			}
			want(t, "read", do(dev, Request{Op: Read, Data: Get(512).Bytes(512)}))
		}
		want(t, "rename", os.Rename(path, path+".away"))
		fails("a healthy device", "no such file", fs.ErrNotExist)
		want(t, "rename", os.Rename(path+".away", path))
		want(t, "flush", do(dev, Request{Op: Flush}))

		breakFlush(t, dev, b)
		b.calls.sync = func(int) unix.Errno { return unix.EIO }
		fails("storage that still fails", "flush: input/output error", unix.EIO)
		b.calls.sync = fdatasync
		want(t, "write", os.WriteFile(path+".short", make([]byte, 4096), 0o600))
		want(t, "rename", os.Rename(path, path+".away"))
		want(t, "rename", os.Rename(path+".short", path))
		fails("a file that is too short", "it has 4096 bytes, not ", nil)
		want(t, "rename", os.Rename(path+".away", path))
		info := b.info
		b.info.PhysicalBlockSize *= 2
		fails("another kind of storage", "restart the array", nil)
		b.info = info
		wantKind(t, "flush", do(dev, Request{Op: Flush}), KindMedium)
		wantReopen(t, dev)

		b.calls.sync = func(int) unix.Errno { return unix.EIO }
		fails("a flush that fails", "flush: input/output error", unix.EIO)
		b.calls.sync = fdatasync
		wantKind(t, "the next flush", do(dev, Request{Op: Flush}), KindMedium)
		wantFault(t, "a flush that fails", dev, FaultLost)
		wantReopen(t, dev)
	})
}

// A file that was replaced, as by one restored from a backup, takes the place of the first, which is
// free then.
func TestReopenOfAReplacedFile(t *testing.T) {
	devices(t, func(t *testing.T, dev Device, b *backing, path string) {
		wantReopen(t, dev)
		want(t, "rename", os.Rename(path, path+".old"))
		want(t, "create", os.WriteFile(path, bytes.Repeat(block4K(9), 512), 0o600))
		wantReopen(t, dev)
		if b.claim >= 0 {
			t.Error("the old file is still held")
		}
		if openable(t, path) {
			t.Error("somebody else can open the new file")
		}
		for !openable(t, path+".old") { // closing it is nobody's business
		}
		got := Get(4096).Bytes(4096)
		want(t, "read", do(dev, Request{Op: Read, Data: got}))
		if !bytes.Equal(got, block4K(9)) {
			t.Error("the old file is read")
		}
		want(t, "FUA", do(dev, Request{Op: Write, Flags: FUA, Data: got}))
		wantFault(t, "replaced", dev, "")
	})
}

// A file that was cut and restored in its place is taken.
func TestReopenOfACutFile(t *testing.T) {
	d, path, _ := testFile(t)
	want(t, "truncate", os.Truncate(path, 4096))
	wantKind(t, "flush", do(d, Request{Op: Flush}), KindMedium)
	if _, err := reopen(d); err == nil {
		t.Error("a file that is too short was taken")
	}
	want(t, "truncate", os.Truncate(path, 1<<20))
	wantKind(t, "flush", do(d, Request{Op: Flush}), KindMedium)
	wantReopen(t, d)
	want(t, "flush", do(d, Request{Op: Flush}))
	want(t, "read", do(d, Request{Op: Read, Off: 1<<20 - 512, Data: make([]byte, 512)}))
}

// Several open for reading, and anew as well.
func TestReopenForReading(t *testing.T) {
	path := newTestFile(t)
	dev, err := OpenFile(path, FileOptions{ReadOnly: true, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	wantReopen(t, dev)
	wantReopen(t, dev)
	want(t, "flush", do(dev, Request{Op: Flush}))
	if dev.Size() != 1<<20 || openable(t, path) {
		t.Error("it is not what it was")
	}
}

// Storage that hangs is told when the caller waits no more, and the device is as before.
func TestReopenOfHangingStorage(t *testing.T) {
	devices(t, func(t *testing.T, dev Device, b *backing, path string) {
		breakFlush(t, dev, b)
		hung, proceed := make(chan struct{}), make(chan struct{})
		wait := func(what string, check func()) {
			t.Helper()
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() {
				done <- dev.(Reopener).Reopen(ctx, func() { t.Errorf("%s: opened", what) })
			}()
			if check != nil {
				check()
			}
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the storage does not answer") {
				t.Errorf("%s: %v", what, err)
			}
			wantKind(t, what+": flush", do(dev, Request{Op: Flush}), KindMedium)
			wantFault(t, what, dev, FaultLost)
		}
		var once atomic.Bool
		b.calls.write = func(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
			if flags != unix.RWF_NOWAIT && once.CompareAndSwap(false, true) {
				close(hung)
				<-proceed
			}
			return writeAt(fd, p, off, flags)
		}
		write := start(dev, Request{Op: Write, Flags: 0, Data: Get(128 << 10).Bytes(128 << 10)})
		<-hung
		wait("a request under way", func() {
			for b.gate.state.Load()&gatePaused == 0 {
			}
			if write.finished.Load() {
				t.Error("the write does not hang")
			}
		})
		want(t, "read beside it", do(dev, Request{Op: Read, Off: 512 << 10, Data: Get(512).Bytes(512)}))
		close(proceed)
		want(t, "write", write.wait())

		asked, answer := make(chan struct{}), make(chan unix.Errno)
		b.calls.sync = func(int) unix.Errno {
			asked <- struct{}{}
			return <-answer
		}
		wait("the first flush", func() { <-asked })
		wait("a second attempt", nil) // waits for the first
		answer <- 0
		wait("the second flush", func() {
			<-asked
			answer <- 0
			<-asked
		})
		held := start(dev, Request{Op: Read, Data: Get(512).Bytes(512)})
		want(t, "read", held.wait())
		answer <- unix.EIO
		b.mu.Lock()
		wait("a busy device", nil)
		b.mu.Unlock()
		for len(b.opening) > 0 {
		}
		b.calls.sync = fdatasync
		wantReopen(t, dev)
		want(t, "flush", do(dev, Request{Op: Flush}))
		if openable(t, path) {
			t.Error("somebody else can open it")
		}
	})
}

// A healthy device may be opened anew while it is closed, resized and used.
func TestReopenBesideOthers(t *testing.T) {
	d, _, _ := testFile(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range int64(50) {
			_ = d.Resize(1<<20 + i%2<<16)
			_, _ = d.Used()
			_, _, _ = d.Extent(0, 1<<20)
			_ = d.Health()
		}
	}()
	go func() {
		for range 50 {
			if _, err := reopen(d); err != nil && KindOf(err) != KindGone {
				t.Error(err)
			}
		}
	}()
	for range 50 {
		wantReopen(t, d)
		want(t, "write", do(d, Request{Op: Write, Data: block4K(1)}))
	}
	<-done
	want(t, "close", d.Close())
}

// Another disk, to which the path leads now, is not taken for the one that hosts know.
func TestReopenOfAnotherDisk(t *testing.T) {
	path := newTestFile(t)
	dev, err := NewTestDisk(path, 512)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	data := Get(4096).Bytes(4096)
	copy(data, block4K(7))
	want(t, "write", do(dev, Request{Op: Write, Data: data}))
	want(t, "rename", os.Rename(path, path+".old"))
	want(t, "create", os.WriteFile(path, bytes.Repeat(block4K(9), 512), 0o600))
	for _, id := range []string{"another-disk", ""} {
		want(t, "identity", os.WriteFile(path+".wwid", []byte(id), 0o600))
		if _, err := reopen(dev); err == nil || !strings.Contains(err.Error(), "another disk") {
			t.Errorf("reopen of %q: %v", id, err)
		}
		want(t, "read", do(dev, Request{Op: Read, Data: data}))
		if !bytes.Equal(data, block4K(7)) {
			t.Fatal("another disk is read")
		}
	}
	want(t, "identity", os.Remove(path+".wwid"))
	wantReopen(t, dev)
}

// A path that leads to another disk after a restart is refused.
func TestOpenOfAnotherDisk(t *testing.T) {
	path := newTestFile(t)
	for _, c := range []struct {
		identity, is string
		ok           bool
	}{
		{"", "a", true}, // of a time when it was not kept, or when it did not tell
		{"a", "a", true},
		{"a", "b a", true}, // it tells more than before
		{"a", "b", false},
		{"a", "", false},
	} {
		want(t, "identity", os.WriteFile(path+".wwid", []byte(c.is), 0o600))
		dev, err := newTestDisk(path, c.identity, 512)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrOtherDisk) {
			t.Errorf("open of %q as %q: %v", c.is, c.identity, err)
		}
		if err == nil {
			want(t, "close", dev.Close())
		}
	}
	if _, err := DiskIdentity(path + ".none"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("identity of a missing disk: %v", err)
	}
	if id, err := DiskIdentity(path); id != "" || err != nil {
		t.Errorf("identity %q of what is no disk: %v", id, err)
	}
}
