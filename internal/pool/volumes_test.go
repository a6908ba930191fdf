package pool

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
)

func (f *fixture) open(v *array.Volume) error {
	f.t.Helper()
	d, err := f.data.OpenVolume(v)
	if err != nil {
		return err
	}
	if d.Size() != int64(v.Size) {
		f.t.Errorf("device of %s has %d bytes, want %d", v.Name, d.Size(), v.Size)
	}
	return d.Close()
}

func (f *fixture) size(v *array.Volume) int64 {
	f.t.Helper()
	st, err := os.Stat(f.pool.volumePath(v.ID))
	if err != nil {
		f.t.Fatal(err)
	}
	return st.Size()
}

func write(t *testing.T, path string, off int64) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteAt([]byte("data"), off)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestVolumeKinds(t *testing.T) {
	f := newFixture(t)
	for _, v := range []array.Volume{
		{Name: "f1", Kind: array.VolumeFile, Size: array.GiB, Thin: true},
		{Name: "f2", Kind: array.VolumeFile, Size: array.MiB},
		{Name: "n1", Kind: array.VolumeNull, Size: array.TiB},
		{Name: "m1", Kind: array.VolumeMem, Size: array.GiB},
	} {
		if err := f.open(f.create(v)); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
	for _, v := range []*array.Volume{
		{Name: "d1", Kind: array.VolumeDisk, Path: "/dev/lintel-none", ReadOnly: true},
		{Name: "x1", Kind: "tape"},
	} {
		if err := f.open(v); err == nil {
			t.Errorf("%s was opened", v.Name)
		}
	}
	if _, _, err := ProbeDisk("/dev/null"); err == nil {
		t.Error("/dev/null was taken for a disk")
	}
	f.close()
	if r, err := Check(f.dir); err != nil || r.Fatal() || r.Volumes != 4 || r.Pools != 1 || r.Array != "san" {
		t.Errorf("check: %+v, %v", r, err)
	}
}

func TestBackingThatSomethingElseChanged(t *testing.T) {
	f := newFixture(t)
	v := f.create(array.Volume{Name: "db1", Kind: array.VolumeFile, Size: 4 * array.MiB, Thin: true})
	path := f.pool.volumePath(v.ID)
	check := func(problems int) {
		t.Helper()
		f.close()
		before, _ := os.Stat(path)
		r, err := Check(f.dir)
		if after, _ := os.Stat(path); before != nil && after.Size() != before.Size() {
			t.Error("the check has changed the file")
		}
		if err != nil || len(r.Problems) != problems+1 { // and the head's copy, which is not there
			t.Errorf("check: %v, %v", r, err)
		}
		f.reopen()
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.open(v); err == nil {
		t.Error("a shorter file was opened")
	}
	check(1)
	if err := os.Truncate(path, 8<<20); err != nil {
		t.Fatal(err)
	}
	check(0)
	if err := os.Truncate(path, 8<<20); err != nil {
		t.Fatal(err)
	}
	write(t, path, 6<<20)
	if err := f.open(v); err == nil {
		t.Error("a longer file with data was opened")
	}
	check(1)
	if err := os.Truncate(path, 5<<20); err != nil { // a hole at the end: an interrupted grow
		t.Fatal(err)
	}
	// The data plane cannot know whether it was interrupted or is under way.
	if err := f.open(v); err != nil || f.size(v) != 5<<20 {
		t.Errorf("while it may be growing: %v, %d bytes", err, f.size(v))
	}
	f.reopen()
	f.problems("cut off what an interrupted growth")
	if err := f.open(v); err != nil || f.size(v) != 4<<20 {
		t.Errorf("after an interrupted grow: %v, %d bytes", err, f.size(v))
	}
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := f.open(v); err == nil {
		t.Error("a directory was opened")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := f.open(v); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	check(1)
}

// A file that cannot be cut after an interrupted growth keeps no array from starting.
func TestGrowthThatCannotBeUndone(t *testing.T) {
	f := newFixture(t)
	v := f.create(array.Volume{Name: "db1", Kind: array.VolumeFile, Size: 4 * array.MiB, Thin: true})
	path := f.pool.volumePath(v.ID)
	if err := os.Truncate(path, 5<<20); err != nil {
		t.Fatal(err)
	}
	protect := func(flags int, mode fs.FileMode) {
		t.Helper()
		if os.Geteuid() != 0 {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			return
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if err := unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
			t.Fatal(err)
		}
	}
	const appendOnly = 0x20 // FS_APPEND_FL of linux/fs.h
	protect(appendOnly, 0o400)
	defer protect(0, 0o600)
	f.reopen()
	f.problems("could not be cut off: truncate")
}

func TestGrowAndShrink(t *testing.T) {
	f := newFixture(t)
	v := f.create(array.Volume{Name: "db1", Kind: array.VolumeFile, Size: 4 * array.MiB})
	if err := f.pool.GrowVolume(v, 8<<20); err != nil || f.size(v) != 8<<20 {
		t.Fatalf("grow: %v, %d bytes", err, f.size(v))
	}
	if err := f.pool.UngrowVolume(v); err != nil || f.size(v) != 4<<20 {
		t.Fatalf("ungrow: %v, %d bytes", err, f.size(v))
	}
	if err := f.pool.GrowVolume(v, 15<<40); array.KindOf(err) != array.KindBusy || f.size(v) != 4<<20 {
		t.Fatalf("thick beyond the file system: %v, %d bytes", err, f.size(v))
	}
	write(t, f.pool.volumePath(v.ID), 3<<20)
	state, _, _, err := f.state.ResizeVolume("db1", "", 2<<20, true)
	f.commit(state, err)
	// A crash here: the document is smaller, the file is not.
	f.reopen()
	small := f.state.Pools[0].Volumes[0]
	if err := f.pool.GrowVolume(small, 4<<20); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(f.pool.volumePath(v.ID)); err != nil || !allZero(b[2<<20:]) {
		t.Errorf("data from before the shrink shows up again (%v)", err)
	}
	if err := f.pool.UngrowVolume(small); err != nil {
		t.Fatal(err)
	}
	if err := f.open(small); err != nil || f.size(v) != 2<<20 {
		t.Errorf("open: %v, %d bytes", err, f.size(v))
	}
}

// A deleted volume's file stays until it is removed by name: a data plane may have it open.
func TestDeleteIsFinishedLater(t *testing.T) {
	f := newFixture(t)
	v := f.create(array.Volume{Name: "db1", Kind: array.VolumeFile, Size: 4 * array.MiB, Thin: true})
	if err := f.data.SaveReservations(unit.ID(v.ID), []byte("keys")); err != nil {
		t.Fatal(err)
	}
	write(t, f.pool.volumePath(v.ID), 0)
	if err := f.pool.RemoveVolume(v.ID); array.KindOf(err) != array.KindBusy {
		t.Errorf("a volume that exists was removed: %v", err)
	}
	state, _, _, err := f.state.DeleteVolume("db1", "", false)
	f.commit(state, err)
	// A crash here: the file is still there.
	f.reopen()
	f.problems()
	if _, err := os.Stat(f.pool.volumePath(v.ID)); err != nil || !slices.Equal(f.pool.Document().Doomed, []string{v.ID}) {
		t.Errorf("the file was removed: %v, doomed %v", err, f.pool.Document().Doomed)
	}
	if err := f.pool.RemoveVolume(v.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.pool.volumePath(v.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if err := f.data.SaveReservations("foreign", []byte("keys")); err != nil {
		t.Fatal(err)
	}
	if err := f.data.Forget(f.pool.Document()); err != nil {
		t.Fatal(err)
	}
	if b, _ := f.data.LoadReservations(unit.ID(v.ID)); b != nil {
		t.Errorf("left: %q", b)
	}
	if b, _ := f.data.LoadReservations("foreign"); b == nil {
		t.Error("what no deleted volume has kept is gone")
	}
	f.reopen()
	f.problems()
	if err := f.pool.RemoveVolume(v.ID); err != nil {
		t.Errorf("not idempotent: %v", err)
	}
}

// A disk volume is opened on the disk of which it was made, and on no smaller one.
func TestOpenDiskVolume(t *testing.T) {
	v := &array.Volume{Name: "raw1", Kind: array.VolumeDisk, Path: "/dev/sdb", Disk: "wwid naa.5000c500a1b2c3d4", Size: 4 * array.MiB, ReadOnly: true}
	var asked []block.DiskOptions
	opens := func(size int64, errs ...error) func(string, block.DiskOptions) (block.Device, error) {
		asked = nil
		return func(path string, o block.DiskOptions) (block.Device, error) {
			asked = append(asked, o)
			if path != v.Path {
				t.Errorf("%s was opened", path)
			}
			if n := len(asked); n <= len(errs) {
				return nil, errs[n-1]
			}
			return block.NewMem(size), nil
		}
	}
	for _, size := range []int64{4 * array.MiB, 8 * array.MiB} {
		if d, err := openDisk(v, opens(size)); err != nil || d.Size() != size || !slices.Equal(asked, []block.DiskOptions{{Identity: v.Disk}}) {
			t.Errorf("a disk of %d bytes: %+v, %v", size, asked, err)
		}
	}
	if _, err := openDisk(v, opens(4*array.MiB, unix.EROFS)); err != nil || !slices.Equal(asked, []block.DiskOptions{{Identity: v.Disk}, {Identity: v.Disk, ReadOnly: true}}) {
		t.Errorf("a disk that is read-only: %+v, %v", asked, err)
	}
	if _, err := openDisk(v, opens(4*array.MiB-512)); err == nil || !strings.Contains(err.Error(), "the rest is lost") {
		t.Errorf("a smaller disk: %v", err)
	}
	if _, err := openDisk(v, opens(4*array.MiB, block.ErrOtherDisk)); !errors.Is(err, block.ErrOtherDisk) || !strings.Contains(err.Error(), "bring the disk of volume raw1 back") {
		t.Errorf("another disk: %v", err)
	}
}
