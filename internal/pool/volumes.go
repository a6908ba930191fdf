package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
)

// A change of a volume is made in an order that a crash cannot turn into a loss:
//
//	create  backing file, then the document: what a crash leaves is an empty file
//	        that no document names; recover removes it
//	grow    backing file, then the document: a file longer than its volume, without
//	        data there; recover cuts it
//	shrink  document (marked Truncate), then the file
//	delete  document (the id goes to Doomed), then the file, when no data plane has it

// volumePath returns the backing file of a volume.
func (p *Pool) volumePath(id string) string { return volumePath(p.dir, id) }

func volumePath(dir, id string) string { return filepath.Join(dir, volumesName, id) }

// CreateVolume makes the backing store of a volume that is not in the pool's document
// yet: for the kind file a sparse file, or an allocated one for a thick volume. The
// others need none. It returns after the store is durable.
func (p *Pool) CreateVolume(v *array.Volume) error {
	if v.Kind != array.VolumeFile {
		return nil
	}
	path := p.volumePath(v.ID)
	if err := block.CreateFile(path, int64(v.Size)); err != nil {
		return storeError(fmt.Errorf("volume %s: %w", v.Name, err))
	}
	if v.Thin {
		return nil
	}
	if err := reserve(path, int64(v.Size)); err != nil {
		return errors.Join(storeError(fmt.Errorf("volume %s: allocating %s: %w", v.Name, array.FormatSize(v.Size), err)), os.Remove(path))
	}
	return nil
}

// storeError gives the errors of a backing store their kinds.
func storeError(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return array.Errorf(array.KindBusy, "%w: free some space, or make it thin", err)
	case errors.Is(err, unix.EROFS):
		return array.Errorf(array.KindUnavailable, "%w: make the file system below writable again", err)
	case errors.Is(err, fs.ErrPermission):
		return array.Errorf(array.KindUnavailable, "%w: give the user that runs the array write access", err)
	case errors.Is(err, unix.EFBIG):
		return array.Errorf(array.KindInvalid, "%w: the file system below does not take files of that size", err)
	case errors.Is(err, fs.ErrExist):
		return array.Errorf(array.KindBusy, "%w: a file is in the way; lintel check tells more", err)
	}
	return err
}

// reserve allocates the blocks of a file. It does not try where they do not fit: until that
// failed, nobody else could write.
func reserve(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var file unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &file); err == nil {
		err = hasRoom(path, size-file.Blocks*512)
	}
	if err == nil {
		err = ignoringEINTR(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// CheckRoom returns why CreateVolume, AllocateVolume or GrowVolume would not give a volume that size,
// as far as that can be told without trying.
func (p *Pool) CheckRoom(v *array.Volume, size uint64) error {
	if v.Kind != array.VolumeFile {
		return nil
	}
	path := p.volumePath(v.ID)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); errors.Is(err, fs.ErrNotExist) {
		path, st.Blocks = filepath.Dir(path), 0
	}
	if err := writable(path); err != nil {
		return storeError(fmt.Errorf("volume %s: %w", v.Name, err))
	}
	if v.Thin {
		return nil
	}
	if err := hasRoom(path, int64(size)-st.Blocks*512); err != nil {
		return storeError(fmt.Errorf("volume %s: allocating %s: %w", v.Name, array.FormatSize(size), err))
	}
	return nil
}

// writable returns why this process cannot write to a file or directory.
func writable(path string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "write to", Path: path, Err: err}
	}
	return nil
}

// hasRoom returns ENOSPC where so many bytes do not fit into the file system of path.
func hasRoom(path string, size int64) error {
	var below unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Statfs(path, &below) }); err != nil {
		return err
	}
	if size > int64(below.Bavail)*below.Bsize {
		return unix.ENOSPC
	}
	return nil
}

// RemoveVolume removes the backing store of a volume that is not in the pool's document
// any more. It is idempotent.
func (p *Pool) RemoveVolume(id string) error {
	if slices.ContainsFunc(p.Document().Volumes, func(v *array.Volume) bool { return v.ID == id }) {
		return array.Errorf(array.KindBusy, "volume %s is still in the pool's document", id)
	}
	if err := os.Remove(p.volumePath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the backing file of a deleted volume: %w", err)
	}
	return syncDir(filepath.Join(p.dir, volumesName))
}

// AllocateVolume takes the space of a volume that becomes thick; what it holds stays. It may
// be open.
func (p *Pool) AllocateVolume(v *array.Volume) error {
	if v.Kind != array.VolumeFile {
		return nil
	}
	if err := reserve(p.volumePath(v.ID), int64(v.Size)); err != nil {
		return storeError(fmt.Errorf("volume %s: allocating %s: %w", v.Name, array.FormatSize(v.Size), err))
	}
	return nil
}

// GrowVolume makes the backing store of a volume larger, before the document says so. It
// may be open. UngrowVolume takes it back.
func (p *Pool) GrowVolume(v *array.Volume, size uint64) error {
	if v.Kind != array.VolumeFile {
		return nil
	}
	path := p.volumePath(v.ID)
	if v.Truncate { // or stale data would show up
		if err := cut(path, int64(v.Size)); err != nil {
			return err
		}
	}
	err := os.Truncate(path, int64(size))
	if err == nil && !v.Thin {
		err = reserve(path, int64(size))
	}
	if err == nil {
		err = syncFile(path)
	}
	if err != nil {
		return errors.Join(storeError(fmt.Errorf("volume %s: growing to %s: %w", v.Name, array.FormatSize(size), err)), p.UngrowVolume(v))
	}
	return nil
}

// UngrowVolume takes GrowVolume back.
func (p *Pool) UngrowVolume(v *array.Volume) error {
	if v.Kind != array.VolumeFile {
		return nil
	}
	return cut(p.volumePath(v.ID), int64(v.Size))
}

// IsCut reports whether nothing is left in the backing store of what lay behind the end of
// a volume that has shrunk.
func (p *Pool) IsCut(v *array.Volume) bool {
	if v.Kind != array.VolumeFile {
		return true
	}
	st, err := os.Lstat(p.volumePath(v.ID))
	return err == nil && st.Size() <= int64(v.Size)
}

// cut makes a file that is longer than size that long.
func cut(path string, size int64) error {
	st, err := os.Stat(path)
	if err != nil || st.Size() <= size {
		return err
	}
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	return syncFile(path)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// OpenVolume opens the device of a volume. A backing file that is missing, shorter
// than the volume, or longer with data beyond its end is refused: something else has
// changed it. What is cut off is what the document says is to go, and no more: the file
// of a volume that somebody makes larger meanwhile is longer.
func (d *Data) OpenVolume(v *array.Volume) (block.Device, error) {
	switch v.Kind {
	case array.VolumeNull:
		return block.NewNull(int64(v.Size)), nil
	case array.VolumeMem:
		return block.NewMem(int64(v.Size)), nil
	case array.VolumeDisk:
		return openDisk(v, block.OpenDisk)
	case array.VolumeFile:
	default:
		return nil, fmt.Errorf("volume %s has the unknown kind %q", v.Name, v.Kind)
	}
	path := volumePath(d.dir, v.ID)
	if _, err := fitBacking(path, v); err != nil {
		return nil, err
	}
	if v.Truncate {
		if err := cut(path, int64(v.Size)); err != nil {
			return nil, err
		}
	}
	return block.OpenFile(path, block.FileOptions{Size: int64(v.Size)})
}

// openDisk opens the device of a disk volume, for reading alone only where it does
// not take writes: whether initiators may write can change while it is open. Names such as
// /dev/sdb lead to other disks after a restart, of which hosts know nothing.
func openDisk(v *array.Volume, open func(string, block.DiskOptions) (block.Device, error)) (block.Device, error) {
	options := block.DiskOptions{Identity: v.Disk}
	d, err := open(v.Path, options)
	if v.ReadOnly && (errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)) {
		options.ReadOnly = true
		d, err = open(v.Path, options)
	}
	switch {
	case errors.Is(err, block.ErrOtherDisk):
		return nil, fmt.Errorf("%w; bring the disk of volume %s back under this path; or, if this one is to take its place, "+
			"delete the volume, which leaves the disk as it is, and create it again with the same identity", err, v.Name)
	case err != nil:
		return nil, err
	case d.Size() < int64(v.Size):
		return nil, errors.Join(fmt.Errorf("disk %s of volume %s has %d bytes instead of %d: the rest is lost, or it is another disk", v.Path, v.Name, d.Size(), v.Size), d.Close())
	}
	return d, nil
}

// fitBacking checks that a backing file has the size of its volume, or is longer where the document
// says that it is to be cut, or nothing is in what is longer. It returns the size of the file.
func fitBacking(path string, v *array.Volume) (int64, error) {
	st, err := os.Lstat(path)
	size := int64(v.Size)
	switch {
	case err != nil:
		return 0, fmt.Errorf("backing file of volume %s: %w", v.Name, err)
	case !st.Mode().IsRegular():
		return 0, fmt.Errorf("backing file %s of volume %s is not a regular file", path, v.Name)
	case st.Size() < size:
		return 0, fmt.Errorf("backing file %s of volume %s has %d bytes instead of %d: the rest is lost", path, v.Name, st.Size(), size)
	case st.Size() == size || v.Truncate:
		return st.Size(), nil
	}
	empty, err := emptyFrom(path, size)
	if err != nil {
		return 0, err
	}
	if !empty {
		return 0, fmt.Errorf("backing file %s of volume %s has %d bytes instead of %d, with data at the end: it was changed from outside", path, v.Name, st.Size(), size)
	}
	return st.Size(), nil
}

// emptyFrom reports whether a file has only holes from off on.
func emptyFrom(path string, off int64) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, err = unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return true, nil
	}
	return false, err
}

// ProbeDisk returns the capacity in bytes of a block device that can be used as a volume, and what
// tells it from others, empty where it does not.
func ProbeDisk(path string) (size uint64, identity string, err error) {
	d, err := block.OpenDisk(path, block.DiskOptions{ReadOnly: true})
	if err != nil {
		return 0, "", err
	}
	identity, err = block.DiskIdentity(path)
	return uint64(d.Size()), identity, errors.Join(err, d.Close())
}
