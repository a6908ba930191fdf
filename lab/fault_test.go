package lab_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// TestDiskFaults checks what a host sees of an array whose disks fail, tear writes, are
// slow or full (SBC-3 §4.7, §4.18, SPC-4 §4.5).
func TestDiskFaults(t *testing.T) {
	s := onHead(t, lab.DiskSpec{Name: "raw", Size: 16 * lab.MiB, Guests: []string{"head1"}},
		lab.DiskSpec{Name: "torn", Size: 16 * lab.MiB, Guests: []string{"head1"}})
	host := s.host
	s.volume(t, "db1", "128MiB", 1)
	s.volume(t, "fs", "64MiB", 2, "--write-through")
	must(t, host.Login(within(t, time.Minute), s.array.Portals...))
	paths(t, host, 4)
	device := s.multipathOf(t, "db1")

	t.Run("a slow disk", func(t *testing.T) { slow(t, s) })
	t.Run("a torn write", func(t *testing.T) { tornWrite(t, s) })
	t.Run("a block of a disk cannot be read", func(t *testing.T) { mediumError(t, s) })
	t.Run("the file system below a thin volume is full", func(t *testing.T) { full(t, s, device) })
	t.Run("the metadata is torn", func(t *testing.T) { tornMetadata(t, s) })
	t.Run("the whole disk fails", func(t *testing.T) { diskFails(t, s) })
}

// slow delays every access to the disk below a volume that writes through.
func slow(t *testing.T, s *san) {
	device := s.multipathOf(t, "fs")
	load := startLoad(t, s.host, device)
	wrote(t, s.host, device, 10)
	must(t, s.disk.Delay(within(t, time.Minute), 200*time.Millisecond))
	contains(t, sh(t, s.array.Machine, "dmsetup table data"), " delay ")
	wrote(t, s.host, device, 20)
	must(t, s.disk.Heal(within(t, time.Minute)))
	paths(t, s.host, 4)
	load.end()
}

// addRaw makes a volume of a disk of the head and returns its device on the host; its
// paths are two more than the volumes of the array's files have.
func addRaw(t *testing.T, s *san, name, path string, lun int) string {
	t.Helper()
	s.volume(t, name, "16MiB", lun, "--kind", "disk", "--path", path)
	sh(t, s.host, "iscsiadm -m session --rescan >/dev/null")
	paths(t, s.host, 6)
	return s.multipathOf(t, name)
}

// removeRaw ends what addRaw made.
func removeRaw(t *testing.T, s *san, name, device string, lun int) {
	t.Helper()
	whenFree(t, s.host, "multipath -f %s", device)
	sh(t, s.host, "for d in /dev/disk/by-path/*-lun-%d; do echo 1 >/sys/block/$(basename $(readlink -f $d))/device/delete; done", lun)
	s.lintel(t, "unmap", name, "host1", "--yes")
	s.lintel(t, "volume", "delete", name, "--yes")
}

// tornWrite has a disk do the first part of a write only.
func tornWrite(t *testing.T, s *san) {
	const edge = 4099 // sectors of 512 bytes
	host, head := s.host, s.array.Machine
	faulty, err := head.FaultyDisk(within(t, time.Minute), "/dev/lab/torn", "torn")
	must(t, err)
	device := addRaw(t, s, "torn", faulty.Path(), 3)
	sh(t, host, `
		head -c 1M /dev/urandom >/tmp/old; head -c 1M /dev/urandom >/tmp/new
		dd if=/tmp/old of=%s bs=1M seek=2 oflag=direct status=none; dmesg -C`, device)

	must(t, faulty.FailSectors(within(t, time.Minute), edge, edge+999))
	contains(t, refused(t, host, "dd if=/tmp/new of=%s bs=64k seek=32 count=1 oflag=direct", device), "Remote I/O error")
	contains(t, sh(t, host, "dmesg"), "Sense Key : 0x4", "ASC=0xc ASCQ=0x2", "critical target error")
	paths(t, host, 6)
	must(t, faulty.Heal(within(t, time.Minute)))
	// What was written before the edge is there, what is behind it has not changed.
	sh(t, host, `
		dd if=%s bs=512 skip=4096 count=3 iflag=direct status=none | cmp - <(head -c 1536 /tmp/new)
		dd if=%[1]s bs=512 skip=4099 count=2045 iflag=direct status=none | cmp - <(tail -c +1537 /tmp/old)
		dd if=/tmp/new of=%[1]s bs=1M seek=2 oflag=direct status=none
		dd if=%[1]s bs=1M skip=2 count=1 iflag=direct status=none | cmp - /tmp/new; rm /tmp/old /tmp/new`, device)
	removeRaw(t, s, "torn", device, 3)
	whenFree(t, head, "dmsetup remove torn")
}

// mediumError makes a volume of a disk with one bad block and checks that the host is
// told which one it is, and that all else works.
func mediumError(t *testing.T, s *san) {
	const bad = 4999
	host, head := s.host, s.array.Machine
	sh(t, head, `
		dmsetup create raw --table "0 $(blockdev --getsz /dev/lab/raw) dust /dev/lab/raw 0 512"
		dmsetup message raw 0 addbadblock %d
		udevadm settle -t 60`, bad)
	device := addRaw(t, s, "raw", "/dev/mapper/raw", 3)
	verify(t, s, device, "--size=16m --bs=64k")
	sh(t, host, "dd if=%s of=/tmp/before bs=1M iflag=direct status=none; dmesg -C", device)

	sh(t, head, "dmsetup message raw 0 enable")
	contains(t, refused(t, host, "dd if=%s of=/dev/null bs=512 skip=%d count=1 iflag=direct", device, bad), "No data available")
	contains(t, sh(t, host, "dmesg"), "Sense Key : 0x3", "ASC=0x11 ASCQ=0x0", "critical medium error", fmt.Sprintf("sector %d ", bad))
	path := disk(t, host, s.array.Address("san-a"), 3)
	for _, read := range []struct{ lba, blocks int }{{bad, 1}, {bad, 8}, {bad - 3, 8}, {bad - 1000, 2048}} {
		out := refused(t, host, "sg_raw -r %d %s 88 00 00 00 00 00 %s %s 00 00",
			512*read.blocks, path, bytesOf(read.lba), bytesOf(read.blocks))
		contains(t, out, "Medium Error", "Unrecovered read error", fmt.Sprintf("[%d]", bad)) // INFORMATION
	}
	// Everything before and after is there, and no path has failed.
	sh(t, host, `
		dd if=%s bs=64k count=$((512 * %d)) iflag=direct,count_bytes status=none | cmp -n $((512 * %[2]d)) - /tmp/before
		dd if=%[1]s bs=64k skip=$((512 * %[3]d)) iflag=direct,skip_bytes status=none | cmp - <(tail -c +$((512 * %[3]d + 1)) /tmp/before)`, device, bad, bad+1)
	paths(t, host, 6)
	// A disk heals a bad block when it is written.
	sh(t, host, `
		dd if=/tmp/before of=%s bs=512 skip=%d seek=%[2]d count=1 oflag=direct conv=notrunc status=none
		cmp -n 16M %[1]s /tmp/before`, device, bad)

	sh(t, host, "rm /tmp/before")
	removeRaw(t, s, "raw", device, 3)
	whenFree(t, head, "dmsetup remove raw")
}

// bytesOf writes a number as the four bytes of a CDB.
func bytesOf(n int) string {
	return fmt.Sprintf("%02x %02x %02x %02x", n>>24&255, n>>16&255, n>>8&255, n&255)
}

// full fills the file system that a volume is in, and makes space again.
func full(t *testing.T, s *san, device string) {
	host, head := s.host, s.array.Machine
	sh(t, host, "dd if=/dev/urandom of=/tmp/kept bs=1M count=4 status=none; dd if=/tmp/kept of=%s bs=1M oflag=direct status=none; dmesg -C; blkdiscard -o 64M -l 64M %[1]s", device)
	sh(t, head, `
		sync /data
		free=$(df --output=avail -k /data | tail -1)
		fallocate -l $((free - 4096))K /data/filler`)

	out := refused(t, host, "dd if=/dev/urandom of=%s bs=1M seek=64 count=32 oflag=direct", device)
	contains(t, out, "No space left on device")
	contains(t, sh(t, host, "dmesg"), "Sense Key : 0x7", "ASC=0x27 ASCQ=0x7", "critical space allocation error")
	path := disk(t, host, s.array.Address("san-a"), 1)
	contains(t, refused(t, host, "head -c 1M /dev/urandom | sg_raw -s 1048576 %s 8a 00 00 00 00 00 %s %s 00 00", path, bytesOf(100<<11), bytesOf(2048)),
		"Data Protect", "Space allocation failed write protect")
	// What is there can be read and overwritten, and no path has failed.
	sh(t, host, "cmp -n 4M %s /tmp/kept; dd if=/tmp/kept of=%[1]s bs=1M oflag=direct conv=notrunc status=none; cmp -n 4M %[1]s /tmp/kept", device)
	paths(t, host, 4)

	sh(t, head, "rm /data/filler; sync")
	verify(t, s, device, "--offset=64m --size=32m --bs=64k")
	sh(t, host, "cmp -n 4M %s /tmp/kept", device)
	s.lintel(t, "volume", "set", "db1", "--comment", "settings can be changed again")
	// Nothing of it depends on the running process.
	must(t, s.array.Kill(within(t, time.Minute)))
	must(t, s.array.Up(within(t, time.Minute)))
	paths(t, host, 4)
	sh(t, host, "cmp -n 4M %s /tmp/kept", device)
}

// tornMetadata lets the disk do the first part only of what the array writes about a
// change: the change is refused, and what was before counts.
func tornMetadata(t *testing.T, s *san) {
	const header = 4096 // of a slot, which a torn write leaves with an old payload
	head := s.array.Machine
	// Of two changes, one is written to slot A, which is at 1 MiB.
	payload := sectorOf(t, s, s.array.Dir+"/pools/default/metadata", 1<<20+header)
	must(t, s.disk.FailSectors(within(t, time.Minute), payload, payload+7))
	comment, err := "", error(nil)
	for _, next := range []string{"first", "second"} {
		if _, err = s.array.Lintel(within(t, time.Minute), "volume", "set", "fs", "--comment", next); err != nil {
			break
		}
		comment = next
	}
	if err == nil {
		t.Fatal("a change that could not be written was taken")
	}
	contains(t, err.Error(), "stable storage", "repair the storage below")
	contains(t, s.lintel(t, "volume", "show", "fs", "-o", "json"), comment)

	// The power fails as well.
	must(t, head.Reset(within(t, 3*time.Minute)))
	remount(t, s)
	contains(t, refused(t, head, "lintel check %s", s.array.Dir), "slot A: the checksum is wrong", "can be served")
	must(t, s.array.Up(within(t, time.Minute)))
	contains(t, s.lintel(t, "volume", "show", "fs", "-o", "json"), comment)
	s.lintel(t, "volume", "set", "fs", "--comment", "third")
	s.lintel(t, "volume", "set", "fs", "--comment", "fourth")
	paths(t, s.host, 4)
}

// sectorOf returns the sector of the array's disk that holds a byte of a file.
func sectorOf(t *testing.T, s *san, file string, offset int64) int64 {
	t.Helper()
	inode := strings.TrimPrefix(file, "/data")
	block := sh(t, s.array.Machine, "debugfs -R 'bmap %s %d' %s 2>/dev/null", inode, offset/4096, s.disk.Path())
	n, err := strconv.ParseInt(block, 10, 64)
	must(t, err)
	return n*8 + offset%4096/512
}

// remount brings the array's file system back after its disk was healed or its head
// was started anew.
func remount(t *testing.T, s *san) {
	t.Helper()
	head := s.array.Machine
	if _, err := head.Run(within(t, time.Minute), "test", "-b", s.disk.Path()); err != nil {
		s.disk, err = head.FaultyDisk(within(t, time.Minute), "/dev/lab/data", "data")
		must(t, err)
	}
	sh(t, head, "mkdir -p /data; e2fsck -p %s >&2 || [ $? = 1 ]; mount %[1]s /data", s.disk.Path())
}

// diskFails takes away the disk below all volumes and puts it back.
func diskFails(t *testing.T, s *san) {
	host, head, device := s.host, s.array.Machine, s.multipathOf(t, "fs")
	sh(t, host, `
		mkfs.ext4 -q -F %s; mkdir -p /mnt/fs; mount -o errors=remount-ro %[1]s /mnt/fs
		head -c 4M /dev/urandom >/mnt/fs/kept; sha256sum /mnt/fs/kept >/tmp/kept.sum; sync; dmesg -C`, device)
	must(t, s.disk.Fail(within(t, time.Minute)))
	refused(t, host, "dd if=/dev/zero of=/mnt/fs/lost bs=64k count=16 conv=fsync status=none")
	// The unit has failed, and no path to it.
	contains(t, sh(t, host, "dmesg"), "Sense Key : 0x4", "ASC=0xc ASCQ=0x2", "critical target error")
	paths(t, host, 4)

	must(t, s.array.Stop(within(t, time.Minute)))
	sh(t, head, "umount /data")
	must(t, s.disk.Heal(within(t, time.Minute)))
	remount(t, s)
	must(t, s.array.Up(within(t, time.Minute)))
	paths(t, host, 4)
	sh(t, host, `
		umount /mnt/fs; e2fsck -p %s >&2 || [ $? = 1 ]
		mount %[1]s /mnt/fs; sha256sum -c --quiet /tmp/kept.sum
		dd if=/dev/zero of=/mnt/fs/new bs=64k count=16 conv=fsync status=none; umount /mnt/fs`, device)
}
