package block

import (
	"errors"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// NewTestDisk makes a disk device of a regular file opened with O_DIRECT: what
// it shares with a block device is all but the geometry. Its identity is in path.wwid, if that is there.
func NewTestDisk(path string, blockSize int) (Device, error) { return newTestDisk(path, "", blockSize) }

func newTestDisk(path, identity string, blockSize int) (Device, error) {
	open := func(exclusive bool) (_ *opened, err error) {
		o := &opened{claimed: exclusive, info: Info{BlockSize: blockSize, PhysicalBlockSize: 4096, Discard: true, Volatile: true}}
		if o.fd, err = unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0); err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		if err = unix.Fstat(o.fd, &o.id); err == nil && exclusive { // as O_EXCL of a block device
			err = lock(o.fd, false)
		}
		if err != nil {
			return nil, errors.Join(err, unix.Close(o.fd))
		}
		o.id.Rdev, o.disk = o.id.Ino, []string{"the disk", "its other name"}
		if id, err := os.ReadFile(path + ".wwid"); err == nil {
			o.disk = strings.Fields(string(id))
		}
		return o, nil
	}
	return newDisk(path, identity, func(fd int) (int64, error) {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return st.Size, err
	}, open)
}

// NewTestFile opens a file as on a file system that knows neither RWF_NOWAIT nor
// fallocate.
func NewTestFile(path string) (Device, error) {
	d, err := openFile(path, FileOptions{})
	if err != nil {
		return nil, err
	}
	d.noReadNow.Store(true)
	d.noWriteNow.Store(true)
	d.info.Discard = false
	d.calls.allocate = func(int, uint32, int64, int64) unix.Errno { return unix.EOPNOTSUPP }
	return d, nil
}

// NewNowaitFile opens a file as on a file system that takes buffered writes with
// RWF_NOWAIT, and refuses some.
func NewNowaitFile(path string) (Device, error) {
	d, err := openFile(path, FileOptions{})
	if err != nil {
		return nil, err
	}
	turn := 0
	var mu sync.Mutex
	d.calls.write = func(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
		if flags != unix.RWF_NOWAIT {
			return writeAt(fd, p, off, flags)
		}
		mu.Lock()
		turn++
		defer mu.Unlock()
		switch turn % 3 {
		case 0:
			return 0, unix.EAGAIN
		case 1:
			return writeAt(fd, p[:(len(p)+1)/2], off, 0)
		}
		return writeAt(fd, p, off, 0)
	}
	return d, nil
}
