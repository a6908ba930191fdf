package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"lintel.io/lintel/internal/array"
)

// span is a part of a metadata area. Whoever writes a part has it locked, and nobody writes
// another's: the documents and the table may belong to two processes.
type span struct{ off, len int64 }

var (
	configSpan = span{configOffset, 2 * configSize}
	tableSpan  = span{tableOffset, 2 * tableSize}
	wholeSpan  = span{0, areaSize}
)

// openLocked opens a metadata file and locks a part of it: against everybody else where it is
// opened for writing, against writers where it is not. The lock goes with the file.
func openLocked(path string, flags int, part span) (*osFile, error) {
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %s: %w", path, noMetadata, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("opening pool metadata: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: part.off, Len: part.len}
	if flags&os.O_RDWR != 0 {
		lock.Type = unix.F_WRLCK
	}
	err = ignoringEINTR(func() error { return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock) })
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, errors.Join(array.Errorf(array.KindBusy, "%s is in use by another process: stop that one first", path), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return &osFile{File: f, readOnly: flags&os.O_RDWR == 0}, nil
}
