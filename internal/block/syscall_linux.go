package block

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawLimit is the longest transfer, in bytes, that is made without telling the
// scheduler: 256 KiB are copied from the page cache in some 30 us.
const rawLimit = 256 << 10

// readCached reads what the page cache has. It cannot wait, so for short reads
// it spares the scheduler's bookkeeping.
func readCached(fd int, p []byte, off int64) (int, unix.Errno) {
	iov := unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	if len(p) <= rawLimit {
		n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), 0, unix.RWF_NOWAIT)
		return int(n), errno
	}
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), 0, unix.RWF_NOWAIT)
	return int(n), errno
}

// calls are the system calls that may fail for a device's own reasons; tests put
// failures in their place.
type calls struct {
	read     func(fd int, p []byte, off int64) (int, unix.Errno)
	write    func(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno)
	sync     func(fd int) unix.Errno
	allocate func(fd int, mode uint32, off, n int64) unix.Errno
	forget   func(fd int) unix.Errno
}

var kernel = calls{readAt, writeAt, fdatasync, fallocate, dropCache}

func readAt(fd int, p []byte, off int64) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(off), 0, 0)
	return int(n), errno
}

// writeAt writes with the given RWF_ flags.
func writeAt(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
	if flags == 0 {
		n, _, errno := unix.Syscall6(unix.SYS_PWRITE64, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(off), 0, 0)
		return int(n), errno
	}
	iov := unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	n, _, errno := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), 0, flags)
	return int(n), errno
}

func fdatasync(fd int) unix.Errno { return errnoOf(unix.Fdatasync(fd)) }

func fallocate(fd int, mode uint32, off, n int64) unix.Errno {
	return errnoOf(unix.Fallocate(fd, mode, off, n))
}

// dropCache has the page cache forget the clean pages of a file.
func dropCache(fd int) unix.Errno { return errnoOf(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)) }

// errnoOf returns the errno in an error of package unix, 0 for nil.
func errnoOf(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return unix.EIO
	}
	return errno
}
