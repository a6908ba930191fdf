package pool

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// osFile is a File of the operating system.
type osFile struct {
	*os.File
	// readOnly says that it was opened for reading alone.
	readOnly bool
}

var _ File = (*osFile)(nil)

// Datasync is fdatasync(2). Where it fails the kernel may keep what it could not write, and call it
// written the next time: that is dropped, so that whoever opens the file next reads what is
// on the medium. Who only reads builds nothing on it, and may read from a file system that cannot
// bring anything to stable storage.
func (f *osFile) Datasync() error {
	if f.readOnly {
		return nil
	}
	err := ignoringEINTR(func() error { return unix.Fdatasync(int(f.Fd())) })
	if err != nil {
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	return err
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
