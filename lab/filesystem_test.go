package lab_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// loggedIn is hostSide with host1 known to the array and logged in over one network.
func loggedIn(t *testing.T, hosts ...string) *san {
	s := hostSide(t, hosts...)
	for _, h := range hosts {
		s.lintel(t, "host", "create", h, "--iqn", s.Machine(h).IQN())
		must(t, s.Machine(h).Login(within(t, time.Minute), s.array.Address("san-a")))
	}
	return s
}

// lun makes a volume, maps it to a host and returns its disk there.
func (s *san) lun(t *testing.T, host *lab.Machine, name, size string, lun int, args ...string) string {
	t.Helper()
	s.lintel(t, append([]string{"volume", "create", name, "--size", size}, args...)...)
	s.lintel(t, "map", name, host.Name, "--lun", strconv.Itoa(lun))
	return s.rescan(t, host, lun)
}

// rescan looks for new units and returns the disk of one.
func (s *san) rescan(t *testing.T, host *lab.Machine, lun int) string {
	t.Helper()
	sh(t, host, "iscsiadm -m session --rescan >/dev/null; multipath -F >/dev/null 2>&1 || true")
	return disk(t, host, s.array.Address("san-a"), lun)
}

// TestFileSystems checks file systems of a real host on a volume: discard, resizing and read-only mappings (SBC-3 §5.28, §5.16, SPC-4 §7.5.8).
func TestFileSystems(t *testing.T) {
	s := loggedIn(t, "host1")
	host := s.host
	stop(t, host, "multipathd") // the disks as such
	for lun, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			d := s.lun(t, host, "fs-"+fs, "320MiB", lun)
			sh(t, host, `
				echo 'label: gpt
				start=1MiB, type=linux' | sfdisk -q %s
				udevadm settle -t 60
				mkfs.%s -q %[1]s1
				mkdir -p /mnt/%[2]s; mount %[1]s1 /mnt/%[2]s
				cd /mnt/%[2]s
				fio --name=mixed --directory=. --size=24m --numjobs=2 --rw=randrw --bsrange=4k-256k --ioengine=libaio --iodepth=8 \
					--direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 >/tmp/fio.log 2>&1 || { cat /tmp/fio.log; exit 1; }
				sha256sum mixed.* >/tmp/%[2]s.sums
				cd /; umount /mnt/%[2]s; blockdev --flushbufs %[1]s; mount %[1]s1 /mnt/%[2]s
				cd /mnt/%[2]s; sha256sum -c --quiet /tmp/%[2]s.sums`, d, fs)
		})
		t.Run(fs+" gives space back", func(t *testing.T) {
			before := totalUsed(t, s)
			sh(t, host, "cd /mnt/%s; dd if=/dev/urandom of=big bs=1M count=64 conv=fsync status=none", fs)
			full := totalUsed(t, s)
			if full-before < 60<<20 {
				t.Errorf("64 MiB of random data took %d bytes", full-before)
			}
			out := sh(t, host, "cd /mnt/%s; rm big; sync; fstrim -v .; cd /; umount /mnt/%[1]s", fs)
			contains(t, out, "trimmed")
			if after := totalUsed(t, s); full-after < 60<<20 {
				t.Errorf("fstrim gave back %d of %d bytes", full-after, full-before)
			}
		})
	}
	t.Run("resize", func(t *testing.T) {
		d := s.lun(t, host, "grow", "64MiB", 5)
		size := func() string { return sh(t, host, "blockdev --getsize64 %s", d) }
		if got := size(); got != "67108864" {
			t.Fatalf("size %s", got)
		}
		sh(t, host, "mkfs.ext4 -q %s; mkdir -p /mnt/grow; mount %[1]s /mnt/grow", d)
		s.lintel(t, "volume", "resize", "grow", "--size", "128MiB")
		sh(t, host, "iscsiadm -m session --rescan >/dev/null")
		if got := size(); got != "134217728" {
			t.Errorf("size after rescan %s", got)
		}
		sh(t, host, "resize2fs %s 2>&1; [ $(df --output=size -m /mnt/grow | tail -1) -gt 100 ]; umount /mnt/grow; e2fsck -fn %[1]s 2>&1", d)
	})
	t.Run("read-only mapping", func(t *testing.T) {
		d := s.lun(t, host, "ro", "64MiB", 6)
		sh(t, host, "mkfs.ext4 -q %s", d)
		s.lintel(t, "unmap", "ro", "host1", "--yes")
		sh(t, host, "echo 1 >/sys/block/%s/device/delete", strings.TrimPrefix(d, "/dev/"))
		s.lintel(t, "map", "ro", "host1", "--lun", "6", "--read-only")
		d = s.rescan(t, host, 6)
		if got := sh(t, host, "blockdev --getro %s", d); got != "1" {
			t.Errorf("the host takes the unit for writable")
		}
		refused(t, host, "mkfs.ext4 -q -F %s", d)
		contains(t, refused(t, host, `sg=/dev/$(ls /sys/block/%s/device/scsi_generic)
			head -c 512 /dev/zero | sg_raw -s 512 $sg 2a 00 00 00 00 00 00 00 01 00 2>&1`, strings.TrimPrefix(d, "/dev/")), "Data Protect", "Write protected") // WRITE(10)
		sh(t, host, "mkdir -p /mnt/ro; mount -o ro,noload %s /mnt/ro; umount /mnt/ro", d)
	})
}

// totalUsed returns the bytes that all files of the array take.
func totalUsed(t *testing.T, s *san) int64 {
	t.Helper()
	n, err := strconv.ParseInt(sh(t, s.array.Machine, "du -s --block-size=1 %s | cut -f1", s.array.Dir), 10, 64)
	must(t, err)
	return n
}
