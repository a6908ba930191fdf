package block

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fakeQueue makes a disk 8:0 with a partition 8:1 in a directory that stands for /sys.
func fakeQueue(t *testing.T, disk, partition map[string]string) (sysfs string) {
	t.Helper()
	sysfs = t.TempDir()
	dir := filepath.Join(sysfs, "dev/block/8:0")
	put := func(dir string, values map[string]string) {
		for name, value := range values {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(value+"\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(dir, map[string]string{"queue/rotational": "0"})
	put(dir, disk)
	part := filepath.Join(dir, "part")
	put(part, map[string]string{"start": "2048"})
	put(part, partition)
	if err := os.Symlink(part, filepath.Join(sysfs, "dev/block/8:1")); err != nil {
		t.Fatal(err)
	}
	return sysfs
}

func TestAtomicUnit(t *testing.T) {
	path := newTestFile(t)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		t.Fatal(err)
	}
	const physical, atomic = "queue/physical_block_size", "queue/atomic_write_unit_max_bytes"
	type attrs = map[string]string
	for _, c := range []struct {
		name            string
		disk, partition attrs
		whole, part     int // AtomicUnit of disk and partition
		file            int // of a file on the partition, before page and file system block are looked at
	}{
		{"nothing known", nil, nil, 0, 0, 0},
		{"nonsense", attrs{physical: "x", atomic: "-512"}, nil, 0, 0, 0},
		{"no power of two", attrs{physical: "520", atomic: "12288"}, nil, 0, 0, 0},
		{"an old kernel", attrs{physical: "512"}, nil, 512, 512, 512},
		{"a disk without atomic writes", attrs{physical: "4096", atomic: "0"}, nil, 4096, 4096, 4096},
		{"a disk with atomic writes", attrs{physical: "512", atomic: "65536"}, nil, 65536, 65536, 512},
		{"large physical blocks", attrs{physical: "65536", atomic: "0"}, nil, 65536, 65536, 65536},
		{"a partition from block 63", attrs{physical: "4096", atomic: "16384"}, attrs{"start": "63"}, 16384, 0, 0},
		{"a partition that halves units", attrs{physical: "4096", atomic: "16384"}, attrs{"start": "2056"}, 16384, 4096, 4096},
		{"a partition off the physical blocks", attrs{physical: "4096"}, attrs{"alignment_offset": "3584"}, 4096, 0, 0},
		{"a disk off its physical blocks", attrs{physical: "4096", "alignment_offset": "3584"}, nil, 0, 4096, 4096},
	} {
		sysfs := fakeQueue(t, c.disk, c.partition)
		if got := queueInfo(sysfs, unix.Mkdev(8, 0)).AtomicUnit; got != c.whole {
			t.Errorf("%s: disk %d, want %d", c.name, got, c.whole)
		}
		if got := queueInfo(sysfs, unix.Mkdev(8, 1)).AtomicUnit; got != c.part {
			t.Errorf("%s: partition %d, want %d", c.name, got, c.part)
		}
		want := min(c.file, os.Getpagesize(), int(fs.Bsize))
		if got := fileAtomicUnit(sysfs, fd, unix.Mkdev(8, 1)); got != want {
			t.Errorf("%s: file %d, want %d", c.name, got, want)
		}
	}
	if got := fileAtomicUnit("/sys", fd, unix.Mkdev(0, 1)); got != 0 {
		t.Errorf("a file system without a disk promises %d bytes", got)
	}
	for _, dev := range []Device{NewMem(1), NewNull(1)} {
		if info := dev.Info(); info.AtomicUnit != AtomicUnlimited {
			t.Errorf("%s: %d", info.Kind, info.AtomicUnit)
		}
	}
}

// TestAtomicOneCall checks that an atomic write is one call, with the flag that
// keeps the kernel from splitting it where it is longer than a physical block.
func TestAtomicOneCall(t *testing.T) {
	const unit = 64 << 10
	for _, c := range []struct {
		name        string
		size, shift int // bytes, and where the memory begins in a page
		flags       Flags
		err         unix.Errno
		want        uintptr
	}{
		{"physical block", 4096, 0, Atomic, 0, 0},
		{"physical block, FUA", 4096, 0, Atomic | FUA, 0, unix.RWF_DSYNC},
		{"unit", unit, 0, Atomic, 0, unix.RWF_ATOMIC},
		{"unit, FUA", unit, 0, Atomic | FUA, 0, unix.RWF_DSYNC | unix.RWF_ATOMIC},
		{"unit in odd memory", unit, 1, Atomic, 0, unix.RWF_ATOMIC},
		{"medium error", unit, 0, Atomic, unix.EIO, unix.RWF_ATOMIC},
		{"medium error in a physical block", 4096, 0, Atomic, unix.EIO, 0},
		{"logical block of more than the unit", 2 * unit, 0, Atomic, 0, 0},
	} {
		dev, err := NewTestDisk(newTestFile(t), 512)
		if err != nil {
			t.Fatal(err)
		}
		d := dev.(*disk)
		d.info.AtomicUnit = unit
		var calls []uintptr
		d.calls.write = func(fd int, p []byte, off int64, flags uintptr) (int, unix.Errno) {
			if len(p) != c.size || uintptr(unsafe.Pointer(&p[0]))%512 != 0 {
				t.Errorf("%s: a call writes %d bytes at %p", c.name, len(p), p)
			}
			calls = append(calls, flags)
			if c.err != 0 {
				return 0, c.err
			}
			return writeAt(fd, p, off, flags&^unix.RWF_ATOMIC)
		}
		buf := Get(c.size + 4096)
		p := buf.Bytes(c.size + 4096)[c.shift:][:c.size]
		copy(p, bytes.Repeat([]byte{7}, c.size))
		err = do(dev, Request{Op: Write, Flags: c.flags, Off: 2 * unit, Data: p})
		if len(calls) != 1 || calls[0] != c.want {
			t.Errorf("%s: calls with flags %x, want one with %x", c.name, calls, c.want)
		}
		var e *Error
		if c.err == 0 && err != nil || c.err != 0 && (!errors.As(err, &e) || e.Kind != KindMedium || e.Off != unknown) {
			t.Errorf("%s: %v", c.name, err)
		}
		buf.Put()
		if err := dev.Close(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
