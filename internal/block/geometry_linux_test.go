package block

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestQueueInfo(t *testing.T) {
	sysfs := t.TempDir()
	attrs := func(dir string, values map[string]string) {
		for name, value := range values {
			path := filepath.Join(sysfs, "dev/block", dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	attrs("8:0", map[string]string{
		"queue/rotational": "1", "queue/write_cache": "write back", "queue/discard_max_bytes": "0",
		"queue/write_zeroes_max_bytes": "4096", "queue/discard_granularity": "0",
		"queue/physical_block_size": "4096", "queue/atomic_write_unit_max_bytes": "0", "alignment_offset": "0",
	})
	attrs("8:1", map[string]string{
		"queue/rotational": "0", "queue/write_cache": "write through", "queue/discard_max_bytes": "1048576",
		"queue/write_zeroes_max_bytes": "1048576", "queue/discard_granularity": "65536",
		"queue/physical_block_size": "4096", "queue/atomic_write_unit_max_bytes": "16384",
	})
	attrs("8:1/partition", map[string]string{"start": "2048"})
	for _, c := range []struct {
		name string
		rdev uint64
		want Info
	}{
		{"spinning", unix.Mkdev(8, 0), Info{AtomicUnit: 4096, Volatile: true, Rotational: true}},
		{"flash", unix.Mkdev(8, 1), Info{AtomicUnit: 16384, Discard: true, DiscardGranularity: 65536}},
		{"unknown", unix.Mkdev(9, 9), Info{Volatile: true}},
	} {
		if got := queueInfo(sysfs, c.rdev); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	// In sysfs a partition's directory lies in its disk's.
	part := filepath.Join(sysfs, "dev/block/8:1/flash1")
	if err := os.MkdirAll(part, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(part, filepath.Join(sysfs, "dev/block/8:2")); err != nil {
		t.Fatal(err)
	}
	attrs("8:1", map[string]string{"wwid": "naa.5000c500a1b2c3d4"})
	attrs("8:2", map[string]string{"partition": "1"})
	whole, partition := best(openSysBlock(sysfs, unix.Mkdev(8, 1)).identities()), best(openSysBlock(sysfs, unix.Mkdev(8, 2)).identities())
	if !strings.Contains(whole, "naa.5000c500a1b2c3d4") || !strings.Contains(partition, "naa.5000c500a1b2c3d4") || whole == partition {
		t.Errorf("identities %q of a disk and %q of its partition", whole, partition)
	}
	if ids := openSysBlock(sysfs, unix.Mkdev(8, 0)).identities(); len(ids) != 0 {
		t.Errorf("identities %q of a disk that does not tell", ids)
	}
	attrs("8:1", map[string]string{"serial": "47\x0011\xff", "wwid": ""})
	if id := best(openSysBlock(sysfs, unix.Mkdev(8, 1)).identities()); id != "serial 47?11?" {
		t.Errorf("identity %q of a disk that tells its serial number", id)
	}
	if got := queueInfo(sysfs, unix.Mkdev(8, 2)); !got.Discard || got.DiscardGranularity != 65536 {
		t.Errorf("a partition does not get its disk's facts: %+v", got)
	}
}

func TestDiskCapacityOfAFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if _, err := diskCapacity(fd); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("capacity of a regular file: %v", err)
	}
	dup := func(bool) (*opened, error) {
		fd, err := unix.Dup(fd)
		return &opened{fd: fd, info: Info{BlockSize: 512}}, err
	}
	if _, err := newDisk("x", "", diskCapacity, dup); err == nil {
		t.Error("a disk without a capacity was opened")
	}
}
