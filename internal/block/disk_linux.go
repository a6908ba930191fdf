package block

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DiskOptions say how OpenDisk opens a block device.
type DiskOptions struct {
	// ReadOnly opens for reading alone.
	ReadOnly bool
	// Identity is that of the disk (DiskIdentity), where it is known: another one is refused with
	// ErrOtherDisk.
	Identity string
}

// A disk device is a block device, used past the page cache (O_DIRECT).
type disk struct {
	backing
	// open opens what the device is made of, exclusively or beside the claim that it has.
	open func(exclusive bool) (*opened, error)
	// capacity asks a descriptor for the size in bytes.
	capacity func(fd int) (int64, error)
	// identity is that of the disk that was to be opened, or was opened first, empty where it does not tell.
	identity string
}

var (
	_ Device   = (*disk)(nil)
	_ Monitor  = (*disk)(nil)
	_ Reopener = (*disk)(nil)
)

// OpenDisk opens a block device exclusively (O_EXCL): it fails with ErrInUse while
// the device is mounted, part of an array or volume group, or open here. It
// never uses the page cache.
func OpenDisk(path string, opts DiskOptions) (Device, error) {
	d, err := newDisk(path, opts.Identity, diskCapacity, func(exclusive bool) (*opened, error) { return openBlockDevice(path, opts, exclusive) })
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	return d, nil
}

func openBlockDevice(path string, opts DiskOptions, exclusive bool) (_ *opened, err error) {
	flags := unix.O_DIRECT | unix.O_CLOEXEC | unix.O_RDWR
	if opts.ReadOnly {
		flags = unix.O_DIRECT | unix.O_CLOEXEC | unix.O_RDONLY
	}
	if exclusive {
		flags |= unix.O_EXCL
	}
	o := &opened{claimed: exclusive}
	if err := unix.Stat(path, &o.id); err != nil {
		return nil, err
	}
	if o.id.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, errors.New("not a block device")
	}
	o.fd, err = unix.Open(path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: %w", ErrInUse, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(o.fd)
		}
	}()
	// The device node may have changed since Stat.
	if err := unix.Fstat(o.fd, &o.id); err != nil {
		return nil, err
	}
	o.info = queueInfo("/sys", o.id.Rdev)
	o.disk = openSysBlock("/sys", o.id.Rdev).identities()
	o.info.ReadOnly = opts.ReadOnly
	if o.info.BlockSize, err = unix.IoctlGetInt(o.fd, unix.BLKSSZGET); err != nil {
		return nil, fmt.Errorf("logical block size: %w", err)
	}
	if o.info.PhysicalBlockSize, err = unix.IoctlGetInt(o.fd, unix.BLKPBSZGET); err != nil {
		return nil, fmt.Errorf("physical block size: %w", err)
	}
	return o, nil
}

// newDisk makes a device of what open returns, which is open with O_DIRECT. identity is as in DiskOptions.
func newDisk(path, identity string, capacity func(fd int) (int64, error), open func(exclusive bool) (*opened, error)) (*disk, error) {
	d := &disk{open: open, capacity: capacity}
	o, size, err := d.probe(true)
	if err != nil {
		return nil, err
	}
	if identity != "" && !slices.Contains(o.disk, identity) {
		return nil, errors.Join(fmt.Errorf("%w: now %q, before %q", ErrOtherDisk, best(o.disk), identity), unix.Close(o.fd))
	}
	d.init(o, path, size)
	d.identity = cmp.Or(identity, best(o.disk))
	d.atEnd = func(off int64) *Error {
		// The kernel sets the capacity of a removed disk to zero.
		return &Error{Op: Read, Kind: KindGone, Off: off, Err: fmt.Errorf("%s has shrunk or was removed", path)}
	}
	return d, nil
}

// probe opens what the device is made of and returns its size in bytes.
func (d *disk) probe(exclusive bool) (*opened, int64, error) {
	o, err := d.open(exclusive)
	if err != nil {
		return nil, 0, err
	}
	size, err := d.capacity(o.fd)
	if err != nil {
		return nil, 0, fmt.Errorf("capacity: %w", errors.Join(err, unix.Close(o.fd)))
	}
	o.info.Kind = "disk"
	o.info.Align = max(o.info.BlockSize, 512)
	o.info.PhysicalBlockSize = max(o.info.PhysicalBlockSize, o.info.BlockSize)
	o.info.DiscardGranularity = max(o.info.DiscardGranularity, o.info.PhysicalBlockSize)
	return o, size - size%int64(o.info.BlockSize), nil
}

// diskCapacity asks for the size of a block device in bytes.
func diskCapacity(fd int) (int64, error) {
	var size uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, errno
	}
	if size > math.MaxInt64 {
		return 0, unix.EOVERFLOW
	}
	return int64(size), nil
}

// queueInfo reads from sysfs what no ioctl tells.
func queueInfo(sysfs string, rdev uint64) Info {
	s := openSysBlock(sysfs, rdev)
	number := func(name string) int64 { return s.number("queue", name) }
	unit := s.aligned(number("atomic_write_unit_max_bytes"))
	if unit == 0 {
		unit = s.physical()
	}
	return Info{
		AtomicUnit: unit,
		// A discarded block has to read as zeros. BLKDISCARD does not promise
		// it; punching a hole does, which the kernel makes by writing zeros
		// with leave to deallocate.
		Discard:            number("discard_max_bytes") > 0 && number("write_zeroes_max_bytes") > 0,
		DiscardGranularity: int(number("discard_granularity")),
		Volatile:           s.attr("queue", "write_cache") != "write through",
		Rotational:         number("rotational") == 1,
	}
}

func (d *disk) Submit(r *Request) {
	if !d.admit(r) {
		return
	}
	if r.Op == Flush {
		d.flush(r)
		return
	}
	d.queue.push(r)
}

// Extent reports everything as allocated: a block device does not tell.
func (d *disk) Extent(off, limit int64) (bool, int64, error) {
	if d.gate.closed() {
		return false, 0, errClosed()
	}
	n, err := clipExtent(off, limit, d.size.Load())
	return true, n, err
}

// Resize makes the device as large as the disk below it has become, or smaller.
// It does not change that disk.
func (d *disk) Resize(size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate.closed() {
		return errClosed()
	}
	capacity, err := d.capacity(d.fd)
	if err != nil {
		return &Error{Kind: kindOf(errnoOf(err)), Err: err}
	}
	if size > capacity {
		return fmt.Errorf("%s has %d bytes; resize it first: %w", d.path, capacity, errors.ErrUnsupported)
	}
	if size%int64(d.info.BlockSize) != 0 {
		return &Error{Kind: KindRange, Off: size, Err: ErrUnaligned}
	}
	d.gate.pause(nil)
	d.size.Store(size)
	d.gate.resume(d.Submit)
	return nil
}

// Used returns the size: all of a disk belongs to its volume.
func (d *disk) Used() (int64, error) { return d.size.Load(), nil }
