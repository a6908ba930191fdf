package lab_test

import (
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// TestHeadFaults checks what a host sees while the head in front of it fails (SPC-4 §4.5, SBC-3 §4.7, §4.18).
func TestHeadFaults(t *testing.T) {
	topology := lab.Single()
	topology.Disks = append(topology.Disks, lab.DiskSpec{Name: "raw", Size: 64 * lab.MiB, Guests: []string{"head1"}})
	l := lab.New(t, topology)
	s := &san{Lab: l, host: l.Machine("host1")}
	head, host := l.Machine("head1"), s.host
	sh(t, head, "mkfs.ext4 -q /dev/lab/data; mkdir -p /data; mount /dev/lab/data /data")
	ctx := within(t, 10*time.Minute)
	var err error
	s.array, err = head.Serve(ctx, "/data/array", topology.Networks)
	must(t, err)
	s.showLog(t)
	s.lintel(t, "host", "create", "host1", "--iqn", host.IQN())

	faulty, err := head.FaultyDisk(ctx, "/dev/lab/raw", "raw")
	must(t, err)
	s.volume(t, "db", "128MiB", 1, "--write-through")
	s.volume(t, "raw", "64MiB", 2, "--kind", "disk", "--path", faulty.Path())
	must(t, host.StartInitiator(ctx))
	must(t, host.Login(ctx, s.array.Portals...))
	device := mapOf(t, s, "db")
	raw := mapOf(t, s, "raw")
	pathsOf := func(n int) { t.Helper(); awaitPaths(t, host, device, n) }

	t.Run("the head is frozen for 20 s", func(t *testing.T) {
		l := startLoad(t, host, device)
		time.Sleep(time.Second)
		must(t, head.Freeze(ctx))
		time.Sleep(20 * time.Second)
		must(t, head.Thaw(ctx))
		pathsOf(2)
		if longest := l.end(); longest < 15*time.Second {
			t.Errorf("the longest I/O took %s while the head stood still for 20 s", longest)
		}
	})
	t.Run("the head loses power and comes back", func(t *testing.T) {
		l := startLoad(t, host, device)
		time.Sleep(2 * time.Second)
		must(t, head.Reset(ctx))
		sh(t, head, "mkdir -p /data; mount /dev/lab/data /data")
		faulty, err = head.FaultyDisk(ctx, "/dev/lab/raw", "raw")
		must(t, err)
		must(t, s.array.Up(ctx))
		pathsOf(2)
		l.end()
	})
	t.Run("the host boots while the target is down", func(t *testing.T) {
		must(t, s.array.Stop(ctx))
		must(t, host.Reset(ctx))
		must(t, host.StartInitiator(ctx))
		portal := s.array.Address("san-a")
		refused(t, host, "timeout 3 iscsiadm -m discovery -t sendtargets -p %s", portal)
		must(t, s.array.Up(ctx))
		must(t, host.Login(ctx, s.array.Portals...))
		device, raw = mapOf(t, s, "db"), mapOf(t, s, "raw")
		verify(t, s, device, "--size=8m --bs=64k")
	})
	t.Run("an unreadable sector", func(t *testing.T) {
		sh(t, host, "dd if=/dev/urandom of=%s bs=1M count=4 oflag=direct status=none", raw)
		must(t, faulty.FailSectors(ctx, 2048, 2055))
		sh(t, host, "dd if=%s of=/dev/null bs=4k count=256 iflag=direct status=none", raw)
		contains(t, refused(t, host, "dd if=%s of=/dev/null bs=4k skip=256 count=1 iflag=direct", raw), "No data available")
		contains(t, refused(t, host, "sg_raw -r 4096 %s 28 00 00 00 08 00 00 00 08 00 2>&1", raw), "Medium Error", "Unrecovered read error") // READ(10)
		sh(t, host, "dd if=%s of=/dev/null bs=4k skip=257 count=16 iflag=direct status=none; sg_turs %[1]s", raw)
		must(t, faulty.Heal(ctx))
		sh(t, host, "dd if=%s of=/dev/null bs=4k skip=256 count=1 iflag=direct status=none", raw)
	})
	t.Run("a slow disk", func(t *testing.T) {
		must(t, faulty.Delay(ctx, 200*time.Millisecond))
		sh(t, host, "[ -b %s ]; fio --name=slow --filename=%[1]s --size=1m --rw=randwrite --bs=64k --direct=1 --verify=crc32c --verify_fatal=1 >/tmp/fio.log || { cat /tmp/fio.log; exit 1; }", raw)
		must(t, faulty.Heal(ctx))
	})
}

// mapOf waits for the multipath device of a volume with both its paths.
func mapOf(t testing.TB, s *san, volume string) string {
	t.Helper()
	naa := naaOf(t, s, volume)
	device := sh(t, s.host, `iscsiadm -m session --rescan >/dev/null; for i in $(seq 400); do
		m=$(multipathd show maps raw format '%%n %%w' | awk '$2 == "3%s" { print $1 }')
		[ -b "/dev/mapper/$m" ] && echo /dev/mapper/$m && exit 0; sleep 0.05; done; multipath -ll; exit 1`, naa)
	awaitPaths(t, s.host, device, 2)
	return device
}

// awaitPaths waits until a multipath device has n usable paths.
func awaitPaths(t testing.TB, host *lab.Machine, device string, n int) {
	t.Helper()
	name := strings.TrimPrefix(device, "/dev/mapper/")
	sh(t, host, `for i in $(seq 900); do
		[ $(multipathd show paths raw format '%%m %%t %%T' | grep -c '^%s *active ready') = %d ] && exit 0; sleep 0.1; done
		multipath -ll; exit 1`, name, n)
}
