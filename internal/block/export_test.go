package block

import (
	"os"

	"golang.org/x/sys/unix"
)

// NewTestDisk makes a disk device of a regular file opened with O_DIRECT: what
// it shares with a block device is all but the geometry.
func NewTestDisk(path string, blockSize int) (Device, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	info := Info{BlockSize: blockSize, PhysicalBlockSize: 4096, Discard: true, Volatile: true}
	return newDisk(fd, path, info, func(fd int) (int64, error) {
		var st unix.Stat_t
		err := unix.Fstat(fd, &st)
		return st.Size, err
	})
}
