package block

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// FileOptions say how OpenFile opens a volume file.
type FileOptions struct {
	// ReadOnly opens for reading alone; several may do so at once.
	ReadOnly bool
	// Size is the capacity in bytes, where the file may be longer: it is left as
	// it is. 0 stands for the size of the file.
	Size int64
}

// What the file device does follows from these figures, in microseconds a call
// (Linux 6.18, AMD EPYC guest, ext4 on virtio and tmpfs):
//
//	                                       ext4     tmpfs
//	a system call that does nothing        0.2      0.2
//	pread 4 KiB, cached                    0.45-0.8 0.35-0.75
//	preadv2 RWF_NOWAIT 4 KiB, cached       0.5-0.8  EOPNOTSUPP
//	pwrite 4 KiB, cached                   0.8-2.2  0.5-0.75
//	pwritev2 RWF_NOWAIT                    EOPNOTSUPP on both
//	pwrite 4 KiB + fdatasync               155      1.2
//	pwritev2 RWF_DSYNC 4 KiB               160      1.1
//	fdatasync with nothing dirty           50       0.1
//	O_DIRECT read or write 4 KiB           48       -
//	PUNCH_HOLE 1 MiB                       164      85
//	ZERO_RANGE 1 MiB                       840      EOPNOTSUPP
//	handing a request to a worker and back 0.4      0.4
//
// The range of ext4's pwrite is the size of the folio that it hits: each write looks
// at every block of the folio, and a folio is as large as the write that made
// it. Written in pieces of 1 MiB, a file then takes 2.2 us for a random write of
// 4 KiB, in pieces of 64 KiB 0.95 us, of 4 KiB 0.85 us; the first writing itself
// takes 176, 208 and 719 us a MiB. Hence writePiece.
const (
	// writePiece is the longest write in bytes that is made with one call.
	writePiece = 64 << 10
	// inlineWrite is the longest write in bytes that is tried on the caller's
	// goroutine where the file system cannot promise not to wait.
	inlineWrite = 64 << 10
	// verifyEvery is how often the backing file is looked at while written to.
	verifyEvery = int64(time.Second)
)

// A file device is a sparse regular file, used through the page cache.
//
// It looks after its file while writing: a file that was deleted, renamed or
// replaced fails changes and flushes with KindGone, for what they store would be
// lost with the descriptor, and works again once the file is back. One that was
// cut short fails with KindMedium, until opened again, whatever touches the lost
// part and all changes: they would make it grow again, with holes that read as
// zeros. Reads of what is left go on in both cases.
type file struct {
	backing
	now        func() int64 // nanoseconds of a monotonic clock
	noReadNow  atomic.Bool  // the file system has no RWF_NOWAIT reads
	noWriteNow atomic.Bool  // nor writes
	pacer      pacer

	verified atomic.Int64
	verifyFn func()                  // made once: a method value allocates
	wrong    atomic.Pointer[verdict] // what verify found, nil for nothing
}

var (
	_ Device   = (*file)(nil)
	_ Monitor  = (*file)(nil)
	_ Reopener = (*file)(nil)
)

// CreateFile makes a new sparse file of the given size in bytes for OpenFile, with
// mode 0600, and returns after it is on stable storage. It fails with
// fs.ErrExist where the path exists.
func CreateFile(path string, size int64) (err error) {
	if err := checkSize(size); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create volume file: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			err = fmt.Errorf("create volume file: %w", errors.Join(err, os.Remove(path)))
		}
	}()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// OpenFile opens a regular file as a device. It fails where the file is shorter than the
// device is to be. The file is locked (flock), so that a second open fails with ErrInUse.
func OpenFile(path string, opts FileOptions) (Device, error) {
	d, err := openFile(path, opts)
	if err != nil {
		return nil, fmt.Errorf("open volume file %s: %w", path, err)
	}
	return d, nil
}

func openFile(path string, opts FileOptions) (*file, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	o, err := openBackingFile(path, opts, nil)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	d := &file{now: func() int64 { return int64(time.Since(start)) }}
	d.init(o, path, cmp.Or(opts.Size, o.id.Size))
	// A process that was killed may have left what the storage has refused.
	if err := d.dropCache(o); err != nil {
		_ = unix.Close(o.fd)
		return nil, err
	}
	d.piece = writePiece
	d.verifyFn = func() { _ = d.verify() }
	d.check = d.verify
	d.atEnd = d.cutShort
	return d, nil
}

// openBackingFile opens a file with all the checks of OpenFile. One that is locked is let pass where it
// is the one that held tells, which is nil for none.
func openBackingFile(path string, opts FileOptions, held *unix.Stat_t) (_ *opened, err error) {
	flags := unix.O_RDWR
	if opts.ReadOnly {
		flags = unix.O_RDONLY
	}
	fd, err := openPath(path, flags|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	o := &opened{fd: fd, claimed: true}
	if err := unix.Fstat(fd, &o.id); err != nil {
		return nil, err
	}
	if o.id.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("not a regular file")
	}
	if err := lock(fd, opts.ReadOnly); err != nil {
		if !errors.Is(err, ErrInUse) || held == nil || held.Dev != o.id.Dev || held.Ino != o.id.Ino {
			return nil, err
		}
		o.claimed = false
	}
	if size := cmp.Or(opts.Size, o.id.Size); o.id.Size < size {
		return nil, fmt.Errorf("it has %d bytes, not %d", o.id.Size, size)
	}
	unit := int(o.id.Blksize)
	if unit < 512 || unit > 64<<10 || bits.OnesCount(uint(unit)) != 1 {
		unit = 4096 // network file systems tell their transfer size
	}
	o.info = Info{
		Kind:              "file",
		BlockSize:         1,
		PhysicalBlockSize: unit,
		AtomicUnit:        fileAtomicUnit("/sys", fd, o.id.Dev),
		Align:             1,
		// Not tried again under a device that somebody may make larger meanwhile.
		Discard:            held == nil && !opts.ReadOnly && canPunch(fd, o.id.Size),
		DiscardGranularity: unit,
		Sparse:             true,
		Volatile:           true,
		ReadOnly:           opts.ReadOnly,
		Inline:             true,
	}
	return o, nil
}

// fileAtomicUnit returns the AtomicUnit of a file on the file system of device dev.
// The page cache writes a page at once, the file system keeps the blocks of a file
// apart, and the disk writes a physical block whole: the least of them counts.
func fileAtomicUnit(sysfs string, fd int, dev uint64) int {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || bits.OnesCount64(uint64(fs.Bsize)) != 1 {
		return 0
	}
	return min(openSysBlock(sysfs, dev).physical(), os.Getpagesize(), int(fs.Bsize))
}

func openPath(path string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC
	fd, err := unix.Open(path, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // only the owner may use O_NOATIME
		fd, err = unix.Open(path, flags, 0)
	}
	return fd, err
}

// lock takes a lock on a file: a shared one for reading.
func lock(fd int, shared bool) error {
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	err := unix.Flock(fd, how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrInUse
	}
	return err
}

// canPunch tries a hole beyond the end, where there is nothing to lose.
func canPunch(fd int, size int64) bool {
	const page = 4096
	at := (size + page - 1) &^ (page - 1)
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, page) == nil
}

func (d *file) Submit(r *Request) {
	if !d.admit(r) {
		return
	}
	var done bool
	var err error
	switch r.Op {
	case Flush:
		d.flush(r)
		return
	case Read:
		done, err = d.readNow(r)
	default:
		done, err = d.changeNow(r)
	}
	if done {
		d.finish(r, err)
		return
	}
	d.queue.push(r)
}

// readNow reads without waiting. It returns false where the workers have to.
func (d *file) readNow(r *Request) (bool, error) {
	if wrong := d.found(); wrong != nil && wrong.Kind == KindMedium && r.Off+int64(len(r.Data)) > wrong.Off {
		return true, &Error{Op: Read, Kind: KindMedium, Off: max(r.Off, wrong.Off), Err: wrong.Err}
	}
	if len(r.Data) == 0 {
		return true, nil
	}
	if !d.noReadNow.Load() {
		n, errno := readCached(d.fd, r.Data, r.Off)
		if errno == unix.EOPNOTSUPP || errno == unix.ENOSYS {
			d.noReadNow.Store(true)
		}
		return errno == 0 && n == len(r.Data), nil
	}
	start := d.now()
	if !d.pacer.inline(start) {
		return false, nil
	}
	d.pacer.begin(start)
	n, errno := d.calls.read(d.fd, r.Data, r.Off)
	d.pacer.note(start, d.now())
	return errno == 0 && n == len(r.Data), nil // what fails is searched for by a worker
}

// changeNow refuses changes of a file that is not there, and makes those that
// probably do not wait. It returns false for what the workers have to do.
func (d *file) changeNow(r *Request) (bool, error) {
	start := d.now()
	if since := d.verified.Load(); start-since >= verifyEvery && d.verified.CompareAndSwap(since, start) {
		go d.verifyFn()
	}
	if wrong := d.found(); wrong != nil {
		return true, fail(r, wrong.Kind, wrong.Err)
	}
	switch {
	case r.Length() == 0:
		return true, nil
	case r.Op != Write || r.Flags&FUA != 0:
		return false, nil
	case !d.noWriteNow.Load():
		n, errno := d.calls.write(d.fd, r.Data, r.Off, unix.RWF_NOWAIT)
		if errno == unix.EOPNOTSUPP || errno == unix.ENOSYS {
			d.noWriteNow.Store(true)
		}
		return errno == 0 && n == len(r.Data), nil
	case len(r.Data) > inlineWrite || !d.pacer.inline(start):
		return false, nil
	}
	d.pacer.begin(start)
	n, errno := d.calls.write(d.fd, r.Data, r.Off, 0)
	d.pacer.note(start, d.now())
	return errno == 0 && n == len(r.Data), nil
}

// found returns what verify has found last.
func (d *file) found() *Error {
	if wrong := d.wrong.Load(); wrong != nil {
		return wrong.err
	}
	return nil
}

// verify looks whether the file is still what was opened.
func (d *file) verify() *Error {
	if !d.mu.TryLock() { // Resize changes it, Close ends it, Extent is not worth waiting for
		return d.found()
	}
	defer d.mu.Unlock()
	if d.gate.closed() {
		return d.found()
	}
	return d.verifyLocked()
}

func (d *file) verifyLocked() *Error {
	before := d.wrong.Load()
	if before != nil && before.err.Kind == KindMedium { // what was cut off does not come back
		return before.err
	}
	wrong := d.inspect()
	switch {
	case wrong == nil:
		d.wrong.Store(nil)
	case before == nil:
		d.wrong.Store(&verdict{err: wrong, since: time.Now()})
	default:
		d.wrong.Store(&verdict{err: wrong, since: before.since})
	}
	return wrong
}

// Health returns how the file does, after a look at it.
func (d *file) Health() Health {
	_ = d.verify()
	h := d.backing.Health()
	if wrong := d.wrong.Load(); wrong != nil && (h.Fault == nil || h.Fault.Kind != FaultLost) {
		h.Fault = wrong.fault(FaultBacking)
	}
	return h
}

func (d *file) inspect() *Error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return &Error{Kind: kindOf(errnoOf(err)), Err: err}
	}
	if size := d.size.Load(); st.Size < size {
		return &Error{Kind: KindMedium, Off: st.Size, Err: fmt.Errorf("%s was cut from %d to %d bytes by somebody else; restore it and open the device again", d.path, size, st.Size)}
	}
	if st.Nlink == 0 {
		return &Error{Kind: KindGone, Err: fmt.Errorf("%s was deleted: %w", d.path, fs.ErrNotExist)}
	}
	if err := unix.Stat(d.path, &st); err != nil {
		return &Error{Kind: KindGone, Err: fmt.Errorf("%s was renamed, or its directory: %w", d.path, err)}
	}
	if st.Dev != d.id.Dev || st.Ino != d.id.Ino {
		return &Error{Kind: KindGone, Err: fmt.Errorf("%s was replaced by another file", d.path)}
	}
	return nil
}

func (d *file) cutShort(off int64) *Error {
	wrong := d.verify()
	if wrong == nil || wrong.Kind != KindMedium {
		wrong = &Error{Err: fmt.Errorf("%s ended before its size", d.path)}
	}
	return &Error{Op: Read, Kind: KindMedium, Off: off, Err: wrong.Err}
}

func (d *file) Extent(off, limit int64) (bool, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate.closed() {
		return false, 0, errClosed()
	}
	limit, err := clipExtent(off, limit, d.size.Load())
	if err != nil {
		return false, 0, err
	}
	data, err := unix.Seek(d.fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return false, limit, nil // a hole to the end
	}
	if err == nil && data > off {
		return false, min(limit, data-off), nil
	}
	hole := data
	if err == nil {
		hole, err = unix.Seek(d.fd, off, unix.SEEK_HOLE)
	}
	if err != nil {
		return false, 0, &Error{Kind: kindOf(errnoOf(err)), Off: off, Err: err}
	}
	if hole == off { // discarded between the two calls
		return false, min(limit, int64(d.info.DiscardGranularity)), nil
	}
	return true, min(limit, hole-off), nil
}

func (d *file) Resize(size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate.closed() {
		return errClosed()
	}
	if d.info.ReadOnly {
		return &Error{Kind: KindReadOnly}
	}
	if wrong := d.verifyLocked(); wrong != nil {
		return wrong
	}
	d.gate.pause(nil)
	defer d.gate.resume(d.Submit)
	lengths := []int64{size}
	if old := d.size.Load(); size > old && !d.emptyFrom(old) {
		// What somebody has appended is dropped first, so that growing reads as zeros.
		// Space that was reserved there stays.
		lengths = []int64{old, size}
	}
	for _, length := range lengths {
		if err := unix.Ftruncate(d.fd, length); err != nil {
			return &Error{Kind: kindOf(errnoOf(err)), Off: length, Err: err}
		}
		d.size.Store(length)
	}
	return d.sync(Flush)
}

// emptyFrom reports whether the file is known to have no data from off on.
func (d *file) emptyFrom(off int64) bool {
	_, err := unix.Seek(d.fd, off, unix.SEEK_DATA)
	return errors.Is(err, unix.ENXIO)
}

func (d *file) Used() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate.closed() {
		return 0, errClosed()
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return 0, &Error{Kind: kindOf(errnoOf(err)), Err: err}
	}
	return st.Blocks * 512, nil
}
