package block

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestOpenReadsTheStorage checks that an opened file has nothing in the page cache: a process that was
// killed after a failed flush has left there what is not stored.
func TestOpenReadsTheStorage(t *testing.T) {
	const size = 1 << 20
	path := filepath.Join(t.TempDir(), "volume")
	f, err := os.Create(path)
	want(t, "create", err)
	defer f.Close()
	_, err = f.Write(make([]byte, size))
	want(t, "write", err)
	want(t, "sync", f.Sync())
	mapped, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	want(t, "map", err)
	defer unix.Munmap(mapped)
	cached := func() (n int) {
		t.Helper()
		pages := make([]byte, size/os.Getpagesize())
		_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), size, uintptr(unsafe.Pointer(&pages[0])))
		if errno != 0 {
			t.Fatal(errno)
		}
		for _, p := range pages {
			n += int(p & 1)
		}
		return n
	}
	fill := func() {
		t.Helper()
		_, err := f.ReadAt(make([]byte, size), 0)
		want(t, "read", err)
		if cached() == 0 {
			t.Fatal("what was read is not in the page cache")
		}
	}
	fill()
	want(t, "drop", errOf(dropCache(int(f.Fd()))))
	if cached() > 0 {
		t.Skip("the file system of the temporary folder has nothing but the page cache, or does not drop it (tmpfs): set TMPDIR to a folder on a disk")
	}
	fill()
	d, err := OpenFile(path, FileOptions{})
	want(t, "open", err)
	defer d.Close()
	if n := cached(); n > 0 {
		t.Errorf("%d pages are still in the page cache", n)
	}
}

func errOf(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
