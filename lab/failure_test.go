package lab_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// onHead starts a lab whose array runs on a guest, with a file system on a disk of
// that guest below it. The host is logged in over both networks.
func onHead(t *testing.T, disks ...lab.DiskSpec) *san {
	t.Helper()
	s := &san{Lab: lab.New(t, lab.Topology{
		Name:     "failure",
		Networks: []string{"san-a", "san-b"},
		Guests:   []lab.GuestSpec{{Name: "head1", Role: "head"}, {Name: "host1", Role: "host"}},
		Disks:    append([]lab.DiskSpec{{Name: "data", Size: 512 * lab.MiB, Guests: []string{"head1"}}}, disks...),
	})}
	s.host = s.Machine("host1")
	head, ctx := s.Machine("head1"), within(t, time.Minute)
	must(t, s.host.StartInitiator(ctx))
	sh(t, head, "mkfs.ext4 -q /dev/lab/data; mkdir -p /data; mount /dev/lab/data /data")
	var err error
	s.array, err = head.Serve(ctx, "/data/array", []string{"san-a", "san-b"})
	must(t, err)
	s.showLog(t)
	s.lintel(t, "host", "create", "host1", "--iqn", s.host.IQN())
	return s
}

var naaField = regexp.MustCompile(`"naa_id": *"(?:0x)?([0-9a-f]{32})"`)

// multipathOf waits for the host's multipath device of a volume and returns it.
func (s *san) multipathOf(t *testing.T, volume string) string {
	t.Helper()
	naa := naaField.FindStringSubmatch(s.lintel(t, "volume", "show", volume, "-o", "json"))
	if naa == nil {
		t.Fatalf("volume %s has no NAA identifier", volume)
	}
	return sh(t, s.host, `for i in $(seq 1000); do
		d=/dev/disk/by-id/dm-uuid-mpath-3%s
		[ -b "$d" ] && readlink -f "$d" && exit 0
		sleep 0.05
	done; multipath -ll >&2; exit 1`, naa[1])
}

// TestFailures checks what a host sees of a head whose process, machine, links,
// portals and disks fail under verified load (SPC-4 §4.5, SBC-3 §4.18, RFC 7143 §6.3.5).
func TestFailures(t *testing.T) {
	t.Parallel() // it waits for most of its time, with a link that is cut
	s := alone(func() *san {
		return onHead(t, lab.DiskSpec{Name: "raw", Size: 16 * lab.MiB, Guests: []string{"head1"}})
	})
	host, head := s.host, s.array.Machine
	s.volume(t, "db1", "128MiB", 1)
	must(t, host.Login(within(t, time.Minute), s.array.Portals...))
	paths(t, host, 2)
	device := s.multipathOf(t, "db1")
	// under runs what fails under load and then waits for all paths.
	under := func(name string, failure func(t *testing.T)) {
		passed := t.Run(name, func(t *testing.T) {
			load := startLoad(t, host, device)
			written(t, host, device)
			failure(t)
			paths(t, host, 2)
			written(t, host, device)
			load.end()
		})
		if !passed {
			t.FailNow() // its load may go on
		}
	}

	under("the process is killed three times", func(t *testing.T) {
		for range 3 {
			must(t, s.array.Kill(within(t, time.Minute)))
			must(t, s.array.Up(within(t, time.Minute)))
			paths(t, host, 2)
			written(t, host, device)
		}
	})
	under("both links of the head are cut for 1 s", func(t *testing.T) {
		for _, n := range []string{"san-a", "san-b"} {
			must(t, head.Cut(within(t, time.Minute), n, lab.Both))
		}
		time.Sleep(time.Second)
		for _, n := range []string{"san-a", "san-b"} {
			must(t, head.Heal(within(t, time.Minute), n))
		}
	})
	under("a link of the head is cut for 60 s", func(t *testing.T) {
		must(t, head.Cut(within(t, time.Minute), "san-a", lab.Both))
		time.Sleep(60 * time.Second)
		paths(t, host, 1)
		must(t, head.Heal(within(t, time.Minute), "san-a"))
	})
	under("a block of a disk cannot be read", func(t *testing.T) { mediumError(t, s) })
	t.Run("the file system below a thin volume is full", func(t *testing.T) { full(t, s, device) })
}

// written waits until the load on a device has done another 100 writes.
func written(t *testing.T, host *lab.Machine, device string) {
	t.Helper()
	sh(t, host, `
		writes() { awk '{ print $5 }' /sys/block/$(basename $(readlink -f %s))/stat; }
		end=$(($(writes) + 100))
		for i in $(seq 600); do [ $(writes) -ge $end ] && exit 0; sleep 0.1; done; exit 1`, device)
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
	s.volume(t, "raw", "16MiB", 2, "--kind", "disk", "--path", "/dev/mapper/raw")
	sh(t, host, "iscsiadm -m session --rescan >/dev/null")
	paths(t, host, 4)
	device := s.multipathOf(t, "raw")
	verify(t, s, device, "--size=16m --bs=64k")
	sh(t, host, "dd if=%s of=/tmp/before bs=1M iflag=direct status=none; dmesg -C", device)

	sh(t, head, "dmsetup message raw 0 enable")
	contains(t, refused(t, host, "dd if=%s of=/dev/null bs=512 skip=%d count=1 iflag=direct", device, bad), "No data available")
	contains(t, sh(t, host, "dmesg"), "Sense Key : 0x3", "ASC=0x11 ASCQ=0x0", "critical medium error", fmt.Sprintf("sector %d ", bad))
	path := disk(t, host, s.array.Address("san-a"), 2)
	for _, read := range []struct{ lba, blocks int }{{bad, 1}, {bad, 8}, {bad - 3, 8}, {bad - 1000, 2048}} {
		out := refused(t, host, "sg_raw -r %d %s 88 00 00 00 00 00 %s %s 00 00",
			512*read.blocks, path, bytesOf(read.lba), bytesOf(read.blocks))
		contains(t, out, "Medium Error", "Unrecovered read error", fmt.Sprintf("[%d]", bad)) // INFORMATION
	}
	// Everything before and after is there, and no path has failed.
	sh(t, host, `
		dd if=%s bs=64k count=$((512 * %d)) iflag=direct,count_bytes status=none | cmp -n $((512 * %[2]d)) - /tmp/before
		dd if=%[1]s bs=64k skip=$((512 * %[3]d)) iflag=direct,skip_bytes status=none | cmp - <(tail -c +$((512 * %[3]d + 1)) /tmp/before)`, device, bad, bad+1)
	paths(t, host, 4)
	// A disk heals a bad block when it is written.
	sh(t, host, `
		dd if=/tmp/before of=%s bs=512 skip=%d seek=%[2]d count=1 oflag=direct conv=notrunc status=none
		cmp -n 16M %[1]s /tmp/before`, device, bad)

	sh(t, host, "multipath -f %s; for d in /dev/disk/by-path/*-lun-2; do echo 1 >/sys/block/$(basename $(readlink -f $d))/device/delete; done; rm /tmp/before", device)
	s.lintel(t, "unmap", "raw", "host1", "--yes")
	s.lintel(t, "volume", "delete", "raw", "--yes")
	sh(t, head, "dmsetup remove raw")
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
	paths(t, host, 2)

	sh(t, head, "rm /data/filler; sync")
	verify(t, s, device, "--offset=64m --size=32m --bs=64k")
	sh(t, host, "cmp -n 4M %s /tmp/kept", device)
	s.lintel(t, "volume", "set", "db1", "--comment", "settings can be changed again")
	// Nothing of it depends on the running process.
	must(t, s.array.Kill(within(t, time.Minute)))
	must(t, s.array.Up(within(t, time.Minute)))
	paths(t, host, 2)
	sh(t, host, "cmp -n 4M %s /tmp/kept", device)
}
