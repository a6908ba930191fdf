package lab_test

import (
	"strings"
	"testing"
	"time"
)

// TestSharedStorage checks what clusters of hosts build on volumes: LVM and md that move from host to host, and sanlock's leases (SBC-3 §4.1, §5.3).
func TestSharedStorage(t *testing.T) {
	s := loggedIn(t, "host1", "host2")
	one, two := s.host, s.Machine("host2")
	for _, m := range []string{"host1", "host2"} {
		// The disks as such, and no array that udev assembles.
		sh(t, s.Machine(m), "pkill -x multipathd; echo 'AUTO -all' >>/etc/mdadm/mdadm.conf; sleep 0.2")
	}
	var disks [2][3]string
	for lun, name := range []string{"vg", "leg", "lock"} {
		disks[0][lun] = s.lun(t, one, name, "64MiB", lun)
		s.lintel(t, "map", name, "host2", "--lun", string(rune('0'+lun)))
	}
	for lun := range disks[1] {
		disks[1][lun] = s.rescan(t, two, lun)
	}

	t.Run("a volume group moves", func(t *testing.T) {
		sh(t, one, `
			vgcreate -qq data %s >/dev/null; lvcreate -qq -y -n lv -l 80%%FREE data >/dev/null
			mkfs.ext4 -q -F /dev/data/lv
			mkdir -p /mnt/lv; mount /dev/data/lv /mnt/lv; dd if=/dev/urandom of=/mnt/lv/file bs=1M count=8 status=none
			sha256sum </mnt/lv/file >/lab-sum; umount /mnt/lv; vgchange -qq -an data`, disks[0][0])
		sum := sh(t, one, "cat /lab-sum")
		got := sh(t, two, `
			pvscan -qq --cache >/dev/null 2>&1 || true; vgchange -qq -ay data; udevadm settle
			mkdir -p /mnt/lv; mount /dev/data/lv /mnt/lv; sha256sum </mnt/lv/file; umount /mnt/lv; vgchange -qq -an data`)
		if got != sum {
			t.Errorf("host2 reads %s, host1 wrote %s", got, sum)
		}
	})
	t.Run("md over volumes", func(t *testing.T) {
		second := s.lun(t, one, "leg2", "64MiB", 3)
		s.lintel(t, "map", "leg2", "host2", "--lun", "3")
		secondOnTwo := s.rescan(t, two, 3)
		sh(t, one, `
			mdadm --create /dev/md0 --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal %s %s
			mkfs.ext4 -q /dev/md0; mkdir -p /mnt/md; mount /dev/md0 /mnt/md
			dd if=/dev/urandom of=/mnt/md/first bs=1M count=4 conv=fsync status=none
			mdadm --quiet /dev/md0 --fail %[1]s --remove %[1]s
			dd if=/dev/urandom of=/mnt/md/second bs=1M count=4 conv=fsync status=none
			mdadm --quiet /dev/md0 --re-add %[1]s; mdadm --wait /dev/md0 || true
			[ "$(cat /sys/block/md0/md/degraded)" = 0 ]
			cat /mnt/md/first /mnt/md/second | sha256sum >/lab-sum; umount /mnt/md
			echo check >/sys/block/md0/md/sync_action; mdadm --wait /dev/md0 || true
			[ "$(cat /sys/block/md0/md/mismatch_cnt)" = 0 ]; mdadm --stop --quiet /dev/md0`, disks[0][1], second)
		got := sh(t, two, `
			mdadm --assemble --quiet /dev/md0 %s %s; mkdir -p /mnt/md; mount /dev/md0 /mnt/md
			cat /mnt/md/first /mnt/md/second | sha256sum; umount /mnt/md; mdadm --stop --quiet /dev/md0`, disks[1][1], secondOnTwo)
		if sum := sh(t, one, "cat /lab-sum"); got != sum {
			t.Errorf("host2 reads %s, host1 wrote %s", got, sum)
		}
	})
	t.Run("sanlock", func(t *testing.T) {
		lock1, lock2 := disks[0][2], disks[1][2]
		sh(t, one, "sanlock direct init -s lab:0:%s:0 -o 1; sanlock direct init -r lab:lease:%[1]s:1048576", lock1)
		joined := make(chan string, 2)
		for i, m := range []string{"host1", "host2"} {
			go func() {
				lock := disks[i][2]
				out, err := s.Machine(m).Sh(within(t, 2*time.Minute), strings.NewReplacer("ID", string(rune('1'+i)), "DISK", lock).Replace(
					"sanlock daemon -w 0 -U root -G root; sleep 0.5; sanlock client add_lockspace -s lab:ID:DISK:0 -o 1; sanlock client status"))
				if err != nil {
					out = err.Error()
				}
				joined <- out
			}()
		}
		for range 2 {
			contains(t, <-joined, "s lab:")
		}
		must(t, one.Start(within(t, time.Minute), "holder", "sanlock", "client", "command", "-r", "lab:lease:"+lock1+":1048576", "-c", "/bin/sleep", "600"))
		sh(t, one, "for i in $(seq 200); do pgrep -f '^/bin/sleep 600' >/dev/null && exit 0; sleep 0.1; done; sanlock client status; exit 1") // it has the lease
		refused(t, two, "sanlock client command -r lab:lease:%s:1048576 -c /bin/true", lock2)
		must(t, one.Signal(within(t, time.Minute), "holder", 15))
		sh(t, one, "for i in $(seq 100); do sanlock client status | grep -q '^r lab:lease' || exit 0; sleep 0.1; done; exit 1")
		sh(t, two, "sanlock client command -r lab:lease:%s:1048576 -c /bin/true", lock2)
	})
}
