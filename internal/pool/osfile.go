package pool

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// osFile is a File of the operating system.
type osFile struct{ *os.File }

var _ File = (*osFile)(nil)

// Datasync is fdatasync(2).
func (f *osFile) Datasync() error {
	return ignoringEINTR(func() error { return unix.Fdatasync(int(f.Fd())) })
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
