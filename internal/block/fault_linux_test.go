package block

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func newTestFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	if err := CreateFile(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	return path
}

// testFile returns a file device of 1 MiB with a clock that the test moves, and the
// path of its file.
func testFile(t *testing.T) (d *file, path string, clock *atomic.Int64) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "volume")
	if err := CreateFile(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	d, err := openFile(path, FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	clock = new(atomic.Int64)
	d.now = clock.Load
	t.Cleanup(func() { _ = d.Close() })
	return d, path, clock
}

func block4K(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }

func TestErrnoKinds(t *testing.T) {
	for errno, kind := range map[unix.Errno]Kind{
		unix.EIO: KindMedium, unix.ENODATA: KindMedium, unix.EUCLEAN: KindMedium,
		unix.ENOSPC: KindNoSpace, unix.EDQUOT: KindNoSpace, unix.EFBIG: KindNoSpace,
		unix.EROFS: KindReadOnly, unix.EBADF: KindReadOnly,
		unix.ENODEV: KindGone, unix.ENXIO: KindGone, unix.ESTALE: KindGone,
		unix.ETIMEDOUT: KindIO, unix.ENOMEM: KindIO,
	} {
		if got := kindOf(errno); got != kind {
			t.Errorf("%v is %s, want %s", errno, got, kind)
		}
	}
}

// badBlocks has the calls of a device fail for transfers that hit one of the blocks of
// 512 bytes, and counts the failures. Like the kernel's they tell nothing else.
func badBlocks(d *backing, failures *atomic.Int32, bad ...int64) {
	hit := func(p []byte, off int64) bool {
		for _, block := range bad {
			if off < block*512+512 && block*512 < off+int64(len(p)) {
				failures.Add(1)
				return true
			}
		}
		return false
	}
	d.calls.read = func(fd int, p []byte, off int64) (int, unix.Errno) {
		if hit(p, off) {
			return 0, unix.ENODATA
		}
		return readAt(fd, p, off)
	}
	d.calls.write = func(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
		if flags == unix.RWF_NOWAIT {
			return 0, unix.EAGAIN
		}
		if hit(p, off) {
			return 0, unix.EIO
		}
		return writeAt(fd, p, off, flags)
	}
}

func wantBad(t *testing.T, what string, err error, op Op, block int64) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != KindMedium || e.Op != op || e.Off != block*512 {
		t.Errorf("%s: %v does not name block %d", what, err, block)
	}
}

// A medium error names the first bad block, wherever in the request it lies.
func TestBadBlock(t *testing.T) {
	const first, second = 1111, 1112
	for _, alignment := range []int{0, 1} {
		dev, err := NewTestDisk(newTestFile(t), 512)
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		var failures atomic.Int32
		badBlocks(&dev.(*disk).backing, &failures, first, second)
		for _, c := range []struct{ block, blocks int64 }{
			{first, 1}, {first, 8}, {first - 3, 8}, {first - 7, 8}, {first - 1000, 2048}, {0, first + 1}, {0, 2048},
		} {
			data := Get(1<<20 + 512).Bytes(1<<20 + 512)[alignment:][:c.blocks*512]
			failures.Store(0)
			wantBad(t, "read", do(dev, Request{Op: Read, Off: c.block * 512, Data: data}), Read, first)
			if n := failures.Load(); n > 3 {
				t.Errorf("%d blocks: the medium has failed %d times", c.blocks, n)
			}
			wantBad(t, "write", do(dev, Request{Op: Write, Off: c.block * 512, Data: data}), Write, first)
		}
		want(t, "read before", do(dev, Request{Op: Read, Data: make([]byte, first*512)}))
		wantBad(t, "read behind", do(dev, Request{Op: Read, Off: second * 512, Data: make([]byte, 4096)}), Read, second)
		want(t, "flush", do(dev, Request{Op: Flush}))
		wantBad(t, "FUA", do(dev, Request{Op: Write, Flags: FUA, Off: 4096, Data: make([]byte, 1<<20)}), Write, first)
		var e *Error
		if err := do(dev, Request{Op: Flush}); !errors.As(err, &e) || e.Off >= 0 {
			t.Errorf("a flush that fails for a former write: %v", err)
		}
	}
}

// What fails once and then works has worked; also a file has the search made by a worker.
func TestPassingMediumError(t *testing.T) {
	d, _, _ := testFile(t)
	d.noReadNow.Store(true)
	data := bytes.Repeat(block4K(3), 64)
	want(t, "write", do(d, Request{Op: Write, Data: data}))
	var reads int
	d.calls.read = func(fd int, p []byte, off int64) (int, unix.Errno) {
		if reads++; reads <= 3 {
			return 0, unix.EIO
		}
		if !onWorker() {
			t.Error("the search waits on the caller's goroutine")
		}
		return readAt(fd, p, off)
	}
	got := make([]byte, len(data))
	want(t, "read", do(d, Request{Op: Read, Data: got}))
	if !bytes.Equal(got, data) {
		t.Error("the read in pieces is wrong")
	}
}

func TestWritesAndSpaceThatIsInterrupted(t *testing.T) {
	d, _, _ := testFile(t)
	d.noReadNow.Store(true)
	interrupted := map[string]bool{}
	once := func(what string) bool {
		was := interrupted[what]
		interrupted[what] = true
		return !was
	}
	d.calls = calls{
		read: func(fd int, p []byte, off int64) (int, unix.Errno) {
			if once("read") {
				return 0, unix.EINTR
			}
			return readAt(fd, p, off)
		},
		write: func(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
			if flags == unix.RWF_NOWAIT {
				return 0, unix.EOPNOTSUPP
			}
			if once("write") {
				return 0, unix.EINTR
			}
			return writeAt(fd, p[:min(len(p), 1000)], off, flags)
		},
		sync: func(fd int) unix.Errno {
			if once("sync") {
				return unix.EINTR
			}
			return fdatasync(fd)
		},
		allocate: func(fd int, mode uint32, off, n int64) unix.Errno {
			if once("allocate") {
				return unix.EINTR
			}
			return fallocate(fd, mode, off, n)
		},
	}
	want(t, "write", do(d, Request{Op: Write, Off: 100, Data: block4K(7)}))
	want(t, "flush", do(d, Request{Op: Flush}))
	want(t, "discard", do(d, Request{Op: Discard, Off: 1 << 19, Len: 4096}))
	got := make([]byte, 4096)
	want(t, "read", do(d, Request{Op: Read, Off: 100, Data: got}))
	if !bytes.Equal(got, block4K(7)) {
		t.Error("the write in pieces read back wrong")
	}
	for _, what := range []string{"read", "write", "sync", "allocate"} {
		if !interrupted[what] {
			t.Errorf("no %s was interrupted", what)
		}
	}
}

// A full file system fails writes for as long as it is full.
func TestFullFileSystem(t *testing.T) {
	d, _, _ := testFile(t)
	var full atomic.Bool
	full.Store(true)
	d.calls.write = func(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
		if full.Load() {
			return 0, unix.ENOSPC
		}
		return writeAt(fd, p, off, flags)
	}
	d.calls.allocate = func(fd int, mode uint32, off, n int64) unix.Errno {
		if full.Load() {
			return unix.ENOSPC
		}
		return fallocate(fd, mode, off, n)
	}
	for _, flags := range []Flags{0, FUA} {
		wantKind(t, "write", do(d, Request{Op: Write, Flags: flags, Data: block4K(1)}), KindNoSpace)
		wantKind(t, "zero", do(d, Request{Op: Zero, Flags: flags, Len: 4096}), KindNoSpace)
	}
	want(t, "flush of a full file system", do(d, Request{Op: Flush}))
	full.Store(false)
	want(t, "write", do(d, Request{Op: Write, Flags: FUA, Data: block4K(1)}))
	want(t, "zero", do(d, Request{Op: Zero, Flags: FUA, Len: 4096}))
}

// Zeroing by writes fails as writes do.
func TestZeroByWritesFails(t *testing.T) {
	d, _, _ := testFile(t)
	d.calls.allocate = func(int, uint32, int64, int64) unix.Errno { return unix.EOPNOTSUPP }
	d.calls.write = func(_ int, p []byte, off int64, _ uintptr) (int, unix.Errno) {
		if off > 0 {
			return 0, 0 // a write of nothing must not be tried for ever
		}
		return len(p), 0
	}
	wantKind(t, "zero", do(d, Request{Op: Zero, Off: 4096, Len: 4096}), KindMedium)
	d.calls.write = func(int, []byte, int64, uintptr) (int, unix.Errno) { return 0, unix.ENOSPC }
	wantKind(t, "zero", do(d, Request{Op: Zero, Off: 4096, Len: 4096}), KindNoSpace)
}

// After fdatasync has failed once nothing is vouched for until the device is
// opened again, whatever the next fdatasync says.
func TestFailedFlushIsRemembered(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC, unix.EROFS} {
		d, path, _ := testFile(t)
		want(t, "write", do(d, Request{Op: Write, Data: block4K(1)}))
		d.calls.sync = func(int) unix.Errno { return errno }
		wantKind(t, "flush", do(d, Request{Op: Flush}), KindMedium)
		d.calls.sync = fdatasync
		err := do(d, Request{Op: Flush})
		wantKind(t, "second flush", err, KindMedium)
		if !errors.Is(err, errno) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q tells neither the cause nor the file", err)
		}
		wantKind(t, "FUA", do(d, Request{Op: Write, Flags: FUA, Data: block4K(1)}), KindMedium)
		wantKind(t, "FUA zero", do(d, Request{Op: Zero, Flags: FUA, Len: 4096}), KindMedium)
		want(t, "plain write", do(d, Request{Op: Write, Data: block4K(1)}))
		want(t, "read", do(d, Request{Op: Read, Data: block4K(1)}))
		wantKind(t, "close", d.Close(), KindMedium)
		wantKind(t, "second close", d.Close(), KindMedium)
		again, err := OpenFile(path, FileOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want(t, "flush after opening again", do(again, Request{Op: Flush}))
		want(t, "close", again.Close())
	}
}

// What a failed flush has lost is in the page cache, which calls it clean: who opens the file after
// a restart must not read it, nor be told that it is flushed.
func TestCloseForgetsWhatWasLost(t *testing.T) {
	for _, lost := range []bool{false, true} {
		d, _, _ := testFile(t)
		var steps []string
		d.calls.sync = func(int) unix.Errno {
			steps = append(steps, "sync")
			if lost && len(steps) == 1 {
				return unix.EIO
			}
			return 0
		}
		d.calls.forget = func(fd int) unix.Errno {
			steps = append(steps, "forget")
			return dropCache(fd)
		}
		want(t, "write", do(d, Request{Op: Write, Data: block4K(1)}))
		if err := do(d, Request{Op: Flush}); (err != nil) != lost {
			t.Errorf("flush: %v", err)
		}
		if err := d.Close(); (err != nil) != lost {
			t.Errorf("close: %v", err)
		}
		wanted := "sync sync"
		if lost {
			wanted = "sync sync forget"
		}
		if got := strings.Join(steps, " "); got != wanted {
			t.Errorf("lost %v: %s, want %s", lost, got, wanted)
		}
	}
}

// A FUA write consumes the kernel's record of failed write-back, so that its
// failure is remembered like that of a flush.
func TestFailedFUAIsRemembered(t *testing.T) {
	for _, c := range []struct {
		name        string
		sync, plain unix.Errno
		kind, later Kind
		remembered  bool
	}{
		{"medium error", unix.EIO, 0, KindMedium, KindMedium, true},
		{"full in write-back", unix.ENOSPC, 0, KindMedium, KindMedium, true},
		{"full in writing", unix.ENOSPC, unix.ENOSPC, KindNoSpace, 0, false},
		{"read-only", unix.EROFS, unix.EROFS, KindReadOnly, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _, _ := testFile(t)
			d.calls.write = func(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
				switch {
				case flags == unix.RWF_DSYNC && c.sync != 0:
					return 0, c.sync
				case c.plain != 0:
					return 0, c.plain
				}
				return len(p), 0
			}
			wantKind(t, "FUA", do(d, Request{Op: Write, Flags: FUA, Data: block4K(1)}), c.kind)
			err := do(d, Request{Op: Flush})
			if c.remembered {
				wantKind(t, "flush", err, c.later)
			} else {
				want(t, "flush", err)
			}
		})
	}
}

// Flushes that wait for the same fdatasync share it; one that arrives while it
// runs waits for the next.
func TestFlushesShareOneSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &file{}
		d.init(&opened{fd: -1}, "volume", 1<<20)
		proceed := make(chan struct{})
		syncs := 0
		d.calls.sync = func(int) unix.Errno {
			syncs++
			<-proceed
			return 0
		}
		first := start(d, Request{Op: Flush})
		synctest.Wait()
		var late []*call
		for range 10 {
			late = append(late, start(d, Request{Op: Flush}))
		}
		proceed <- struct{}{}
		want(t, "flush", first.wait())
		synctest.Wait()
		if syncs != 2 || late[0].finished.Load() {
			t.Errorf("%d fdatasyncs started, want the second one to run", syncs)
		}
		proceed <- struct{}{}
		for _, c := range late {
			want(t, "flush", c.wait())
		}
		synctest.Wait()
		if syncs != 2 {
			t.Errorf("%d fdatasyncs for eleven flushes, want 2", syncs)
		}
	})
}

// eventually moves the clock, so that changes have the file looked at, until the
// result of one is as wanted.
func eventually(t *testing.T, d *file, clock *atomic.Int64, wanted func(error) bool) {
	t.Helper()
	for !wanted(do(d, Request{Op: Zero, Len: 512})) {
		clock.Add(verifyEvery)
		time.Sleep(time.Millisecond)
	}
}

func TestFileThatVanishes(t *testing.T) {
	for name, vanish := range map[string]func(t *testing.T, path string){
		"deleted": func(t *testing.T, path string) { want(t, "remove", os.Remove(path)) },
		"renamed": func(t *testing.T, path string) { want(t, "rename", os.Rename(path, path+".old")) },
		"replaced": func(t *testing.T, path string) {
			want(t, "rename", os.Rename(path, path+".old"))
			want(t, "create", os.WriteFile(path, make([]byte, 1<<20), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, path, clock := testFile(t)
			want(t, "write", do(d, Request{Op: Write, Data: block4K(1)}))
			vanish(t, path)
			err := do(d, Request{Op: Flush})
			wantKind(t, "flush", err, KindGone)
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%q does not name the file", err)
			}
			wantKind(t, "write", do(d, Request{Op: Write, Data: block4K(2)}), KindGone)
			wantKind(t, "discard", do(d, Request{Op: Discard, Len: 4096}), KindGone)
			wantKind(t, "resize", d.Resize(2<<20), KindGone)
			got := make([]byte, 4096)
			want(t, "read", do(d, Request{Op: Read, Data: got}))
			if !bytes.Equal(got, block4K(1)) {
				t.Error("what is left does not read back")
			}
			if name == "deleted" {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%v is not fs.ErrNotExist", err)
				}
				return
			}
			want(t, "rename back", os.Rename(path+".old", path))
			eventually(t, d, clock, func(err error) bool { return err == nil })
			want(t, "write after the file came back", do(d, Request{Op: Write, Flags: FUA, Data: block4K(2)}))
			want(t, "flush", do(d, Request{Op: Flush}))
		})
	}
}

// Changes notice a lost file without a flush, from time to time.
func TestWritesNoticeALostFile(t *testing.T) {
	d, path, clock := testFile(t)
	want(t, "remove", os.Remove(path))
	want(t, "write before the next look", do(d, Request{Op: Write, Data: block4K(1)}))
	eventually(t, d, clock, func(err error) bool { return err != nil })
	wantKind(t, "write", do(d, Request{Op: Write, Data: block4K(1)}), KindGone)
}

// A file that was cut reads as an error, never as zeros, beyond its end; also
// after it has grown again.
func TestFileThatShrinks(t *testing.T) {
	d, path, clock := testFile(t)
	p := bytes.Repeat(block4K(5), 256)
	want(t, "write", do(d, Request{Op: Write, Data: p}))
	want(t, "truncate", os.Truncate(path, 10000))
	for range 2 {
		wantKind(t, "read across the end", do(d, Request{Op: Read, Off: 8192, Data: make([]byte, 4096)}), KindMedium)
		wantKind(t, "read beyond the end", do(d, Request{Op: Read, Off: 1<<20 - 4096, Data: make([]byte, 4096)}), KindMedium)
		want(t, "read of what is left", do(d, Request{Op: Read, Off: 4096, Data: make([]byte, 4096)}))
		wantKind(t, "write", do(d, Request{Op: Write, Off: 1<<20 - 4096, Data: block4K(1)}), KindMedium)
		wantKind(t, "flush", do(d, Request{Op: Flush}), KindMedium)
		wantKind(t, "FUA", do(d, Request{Op: Write, Flags: FUA, Data: block4K(1)}), KindMedium)
		wantKind(t, "resize", d.Resize(1<<20), KindMedium)
		want(t, "truncate", os.Truncate(path, 1<<20))
		clock.Add(verifyEvery)
	}
	wantKind(t, "close", d.Close(), KindMedium)
}

// What somebody appended does not come to light by growing.
func TestResizeOfAnAppendedFile(t *testing.T) {
	d, path, _ := testFile(t)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(block4K(9)); err != nil {
		t.Fatal(err)
	}
	want(t, "close", f.Close())
	want(t, "resize", d.Resize(2<<20))
	got := make([]byte, 4096)
	want(t, "read", do(d, Request{Op: Read, Off: 1 << 20, Data: got}))
	if !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("foreign bytes in the grown part")
	}
}

// Space that was reserved behind the end is there after growing into it.
func TestResizeKeepsReservedSpace(t *testing.T) {
	d, path, _ := testFile(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 8<<20); err != nil {
		t.Fatal(err)
	}
	want(t, "resize", d.Resize(8<<20))
	if used, err := d.Used(); err != nil || used < 8<<20 {
		t.Errorf("%d bytes are used after growing into 8 MiB of reserved space (%v)", used, err)
	}
	got := bytes.Repeat([]byte{1}, 4096)
	want(t, "read", do(d, Request{Op: Read, Off: 8<<20 - 4096, Data: got}))
	if !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("reserved space does not read as zeros")
	}
}

// A device may be smaller than its file, not larger.
func TestOpenFileOfSize(t *testing.T) {
	d, path, _ := testFile(t)
	want(t, "close", d.Close())
	small, err := OpenFile(path, FileOptions{Size: 512 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if small.Size() != 512<<10 {
		t.Errorf("the size is %d", small.Size())
	}
	wantKind(t, "read behind the end", do(small, Request{Op: Read, Off: 512 << 10, Data: make([]byte, 512)}), KindRange)
	want(t, "close", small.Close())
	if st, err := os.Stat(path); err != nil || st.Size() != 1<<20 {
		t.Errorf("the file has changed: %v, %v", st, err)
	}
	if _, err := OpenFile(path, FileOptions{Size: 1<<20 + 1}); err == nil {
		t.Error("a device larger than its file was opened")
	}
}

func TestOpenFileRefusals(t *testing.T) {
	d, path, _ := testFile(t)
	if err := CreateFile(path, 1<<20); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create over a file: %v", err)
	}
	if err := CreateFile(path+"2", -1); err == nil {
		t.Error("a file of a negative size was made")
	}
	if err := CreateFile(filepath.Join(path, "x"), 1); err == nil {
		t.Error("a file was made inside of a file")
	}
	for _, readOnly := range []bool{false, true} {
		if _, err := OpenFile(path, FileOptions{ReadOnly: readOnly}); !errors.Is(err, ErrInUse) {
			t.Errorf("second open (read-only %v): %v", readOnly, err)
		}
	}
	if _, err := OpenFile(path+"2", FileOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of a missing file: %v", err)
	}
	if _, err := OpenFile("/dev/null", FileOptions{}); err == nil {
		t.Error("/dev/null was opened as a file")
	}
	want(t, "close", d.Close())
	if _, err := d.Used(); KindOf(err) != KindGone {
		t.Errorf("Used of a closed device: %v", err)
	}

	// Several may read, nobody may change.
	for range 2 {
		r, err := OpenFile(path, FileOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if info := r.Info(); !info.ReadOnly || info.Discard {
			t.Errorf("unexpected facts: %+v", info)
		}
		for _, op := range []Op{Write, Discard, Zero} {
			wantKind(t, op.String(), do(r, Request{Op: op, Data: block4K(1), Len: 4096}), KindReadOnly)
		}
		want(t, "read", do(r, Request{Op: Read, Data: block4K(1)}))
		want(t, "flush", do(r, Request{Op: Flush}))
		wantKind(t, "resize", r.Resize(1<<21), KindReadOnly)
	}
	if _, err := OpenFile(path, FileOptions{}); !errors.Is(err, ErrInUse) {
		t.Errorf("open for writing under readers: %v", err)
	}
}

// A volume in a directory that the process cannot write, or of another
// file system's making, is reported as the kernel says.
func TestResizeFails(t *testing.T) {
	d, _, _ := testFile(t)
	wantKind(t, "resize beyond what a file system takes", d.Resize(1<<62), KindNoSpace)
	if d.Size() != 1<<20 {
		t.Errorf("the size is %d after a failed resize", d.Size())
	}
	want(t, "write", do(d, Request{Op: Write, Off: 1<<20 - 4096, Data: block4K(1)}))
}
