package lab_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// onHead starts a lab whose array runs on a guest, with a file system on a faulty disk
// of that guest below it. The array knows the host.
func onHead(t *testing.T, disks ...lab.DiskSpec) *san {
	t.Helper()
	t.Parallel()
	s := &san{Lab: lab.New(t, lab.Topology{
		Name:     "failure",
		Networks: []string{"san-a", "san-b"},
		Guests:   []lab.GuestSpec{{Name: "head1", Role: "head"}, {Name: "host1", Role: "host"}},
		Disks:    append([]lab.DiskSpec{{Name: "data", Size: 512 * lab.MiB, Guests: []string{"head1"}}}, disks...),
	})}
	s.host = s.Machine("host1")
	head, ctx := s.Machine("head1"), within(t, 3*time.Minute)
	must(t, s.host.StartInitiator(ctx))
	var err error
	s.disk, err = head.FaultyDisk(ctx, "/dev/lab/data", "data")
	must(t, err)
	sh(t, head, "mkfs.ext4 -q %s; mkdir -p /data; mount %[1]s /data", s.disk.Path())
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

// TestFailures checks what a host sees of a head whose processes and links fail under
// verified load (SPC-4 §4.5, RFC 7143 §6.3.5).
func TestFailures(t *testing.T) {
	s := onHead(t)
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

	under("the array is killed three times", func(t *testing.T) {
		for range 3 {
			must(t, s.array.Kill(within(t, time.Minute)))
			must(t, s.array.Up(within(t, time.Minute)))
			paths(t, host, 2)
			written(t, host, device)
		}
	})
	under("the target is killed and comes back", func(t *testing.T) {
		must(t, s.array.Kill(within(t, time.Minute), lab.Target))
		contains(t, s.lintel(t, "portal", "list"), "not served")
		must(t, s.array.Up(within(t, time.Minute), lab.Target))
		paths(t, host, 2)
		s.lintel(t, "volume", "set", "db1", "--comment", "the agent has found the new target")
	})
	under("the agent is killed and comes back", func(t *testing.T) {
		before := undisturbed(t, s)
		must(t, s.array.Kill(within(t, time.Minute), lab.Agent))
		written(t, host, device)
		must(t, s.array.Up(within(t, time.Minute), lab.Agent))
		s.lintel(t, "volume", "set", "db1", "--comment", "the new agent has found the target")
		written(t, host, device)
		if after := undisturbed(t, s); after != before {
			t.Errorf("the host's failed paths and the target's sessions were\n%s\nand are now\n%s", before, after)
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
}

// undisturbed returns what stays as it is while no path fails: how often one did on the
// host, and which sessions the target has since when.
func undisturbed(t *testing.T, s *san) string {
	t.Helper()
	text := sh(t, s.host, `multipathd show maps raw format "%%n: %%0 failures"`)
	for _, line := range strings.Split(s.lintel(t, "session", "list"), "\n") {
		if fields := strings.Fields(line); len(fields) > 0 {
			text += "\n" + fields[0] + " " + fields[len(fields)-1]
		}
	}
	return text
}

// TestHeadFaults checks what a host sees of a head that stands still, loses its power or
// is not there yet (SPC-4 §4.5, RFC 7143 §6.3.5).
func TestHeadFaults(t *testing.T) {
	s := onHead(t)
	head, host := s.array.Machine, s.host
	s.volume(t, "db1", "128MiB", 1, "--write-through")
	must(t, host.Login(within(t, time.Minute), s.array.Portals...))
	paths(t, host, 2)
	device := s.multipathOf(t, "db1")

	t.Run("the head is frozen for 20 s", func(t *testing.T) {
		l := startLoad(t, host, device)
		written(t, host, device)
		must(t, head.Freeze(within(t, time.Minute)))
		time.Sleep(15 * time.Second)
		stands(t, host, device)
		must(t, head.Thaw(within(t, time.Minute)))
		paths(t, host, 2)
		written(t, host, device)
		l.end()
	})
	t.Run("the head loses power and comes back", func(t *testing.T) {
		l := startLoad(t, host, device)
		written(t, host, device)
		must(t, head.Reset(within(t, 3*time.Minute)))
		sh(t, head, "mkdir -p /data; mount /dev/lab/data /data")
		must(t, s.array.Up(within(t, time.Minute)))
		paths(t, host, 2)
		l.end()
	})
	t.Run("the host boots while the target is down", func(t *testing.T) {
		must(t, s.array.Stop(within(t, time.Minute)))
		must(t, host.Reset(within(t, 3*time.Minute)))
		must(t, host.StartInitiator(within(t, time.Minute)))
		refused(t, host, "timeout 3 iscsiadm -m discovery -t sendtargets -p %s", s.array.Address("san-a"))
		must(t, s.array.Up(within(t, time.Minute)))
		must(t, host.Login(within(t, time.Minute), s.array.Portals...))
		paths(t, host, 2)
		verify(t, s, s.multipathOf(t, "db1"), "--size=8m --bs=64k")
	})
}

// written waits until the load on a device has done another 100 writes.
func written(t *testing.T, host *lab.Machine, device string) {
	t.Helper()
	wrote(t, host, device, 100)
}

// stands waits until for five seconds no write of the load on a device is completed.
func stands(t *testing.T, host *lab.Machine, device string) {
	t.Helper()
	sh(t, host, `
		writes() { awk '{ print $5 }' /sys/block/$(basename $(readlink -f %s))/stat; }
		for i in $(seq 6); do before=$(writes); sleep 5; after=$(writes); [ $after = $before ] && exit 0; done
		echo "$after writes were completed, $before before" >&2; exit 1`, device)
}

// wrote waits until the load on a device has done another n writes.
func wrote(t *testing.T, host *lab.Machine, device string, n int) {
	t.Helper()
	sh(t, host, `
		writes() { awk '{ print $5 }' /sys/block/$(basename $(readlink -f %s))/stat; }
		end=$(($(writes) + %d))
		for i in $(seq 600); do [ $(writes) -ge $end ] && exit 0; sleep 0.1; done; exit 1`, device, n)
}
