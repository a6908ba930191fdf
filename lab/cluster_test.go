package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// cluster is two hosts that share all volumes of an array.
type cluster struct {
	*san
	hosts [2]*lab.Machine
	next  int // LUN
}

// newCluster starts a lab with such hosts.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{san: loggedIn(t, "host1", "host2")}
	for i, name := range []string{"host1", "host2"} {
		c.hosts[i] = c.Machine(name)
		stop(t, c.hosts[i], "multipathd") // the disks as such
	}
	return c
}

// share makes a volume and returns its disk on each host.
func (c *cluster) share(t *testing.T, name, size string) (disks [2]string) {
	t.Helper()
	lun := c.next
	c.next++
	c.lintel(t, "volume", "create", name, "--size", size)
	for _, h := range c.hosts {
		c.lintel(t, "map", name, h.Name, "--lun", fmt.Sprint(lun))
	}
	for i, h := range c.hosts {
		disks[i] = c.rescan(t, h, lun)
	}
	return disks
}

// TestTwoHosts checks what one host does with a volume that the other uses: COMPARE AND
// WRITE and reservations (SPC-4 §5.13, §6.15, §6.16, SBC-3 §5.2).
func TestTwoHosts(t *testing.T) {
	c := newCluster(t)
	t.Run("one winner in every race", func(t *testing.T) { races(t, c) })
	t.Run("reservation actions", func(t *testing.T) { reservationActions(t, c) })
	t.Run("reservation types", func(t *testing.T) { reservationTypes(t, c) })
	t.Run("a moved reservation", func(t *testing.T) { moveReservation(t, c) })
}

// TestCluster checks that what a host holds by the cluster locks of LVM and sanlock, and
// its mirror of two volumes, goes to another host when it dies (SBC-3 §5.2, SPC-4 §4.5).
func TestCluster(t *testing.T) {
	c := newCluster(t)
	// What the first host holds when it dies.
	volumeGroup := c.share(t, "vg", "64MiB")
	legs := [][2]string{c.share(t, "leg-a", "32MiB"), c.share(t, "leg-b", "32MiB")}
	locks := c.share(t, "locks", "16MiB")
	steps := []struct {
		name  string
		check func(t *testing.T)
	}{
		{"sanlock refuses the other host", func(t *testing.T) { acquireLock(t, c, locks) }},
		{"LVM refuses the other host", func(t *testing.T) { ownVolumeGroup(t, c, volumeGroup) }},
		{"md loses a leg and gets it back", func(t *testing.T) { mirror(t, c, legs) }},
		{"the first host dies", func(t *testing.T) { must(t, c.hosts[0].PowerOff(within(t, time.Minute))) }},
		{"LVM goes to the other host", func(t *testing.T) { takeVolumeGroup(t, c) }},
		{"md goes to the other host", func(t *testing.T) { takeMirror(t, c, legs) }},
		{"sanlock goes to the other host", func(t *testing.T) { takeLock(t, c, locks) }},
	}
	for _, s := range steps {
		if !t.Run(s.name, s.check) {
			return
		}
	}
}

// races lets both hosts replace the same content of a block at the same time.
func races(t *testing.T, c *cluster) {
	disks := c.share(t, "race", "16MiB")
	const block = "printf '%%-512s' "
	sh(t, c.hosts[0], block+"round-0 | dd of=%s bs=512 seek=7 oflag=direct status=none", disks[0])
	winner, wins := "round-0", [2]int{}
	for round := range 15 {
		var out [2]string
		var wg sync.WaitGroup
		for i, h := range c.hosts {
			wg.Go(func() {
				out[i], _ = h.Sh(within(t, time.Minute), fmt.Sprintf(
					"{ "+block+"%s; "+block+"%s; } >/tmp/cas; rc=0; sg_compare_and_write --in=/tmp/cas --lba=7 --num=1 --xferlen=1024 %s >/dev/null 2>&1 || rc=$?; echo $rc",
					winner, fmt.Sprintf("round-%d-%s", round+1, h.Name), disks[i]))
			})
		}
		wg.Wait()
		won := slices.Index(out[:], "0")
		const miscompare = "14"
		if won < 0 || out[1-won] != miscompare {
			t.Fatalf("round %d: exit codes %q, want one 0 and one %s", round+1, out, miscompare)
		}
		winner = fmt.Sprintf("round-%d-%s", round+1, c.hosts[won].Name)
		wins[won]++
		if got := sh(t, c.hosts[1-won], "dd if=%s bs=512 skip=7 count=1 iflag=direct status=none", disks[1-won]); got != winner {
			t.Fatalf("the block holds %q after %s has won", got, winner)
		}
	}
	t.Logf("host1 won %d, host2 %d rounds", wins[0], wins[1])
}

// The keys of the hosts and the types of a persistent reservation (SPC-4 §5.13.1).
var keys = [2]string{"0x1111", "0x2222"}

const (
	writeExclusive   = 1
	exclusiveAccess  = 3
	writeRegistrants = 5
	accessRegistrant = 6
	writeAll         = 7
	accessAll        = 8
)

// reservationTypes has one host reserve with each type and looks at what the other may
// do, unregistered and registered (SPC-4 table 65).
func reservationTypes(t *testing.T, c *cluster) {
	disks := c.share(t, "reserved", "16MiB")
	allowed := func(i int, read bool) bool {
		command := "dd if=%s of=/dev/null bs=4k skip=%d count=1 iflag=direct"
		if !read {
			command = "dd if=/dev/zero of=%s bs=4k seek=%d count=1 oflag=direct"
		}
		out := sh(t, c.hosts[i], command+" 2>&1 || true", disks[i], 16+i)
		switch {
		case strings.Contains(out, "Invalid exchange"): // RESERVATION CONFLICT
			return false
		case strings.Contains(out, "1+0 records out"):
			return true
		}
		t.Fatalf("%s: neither done nor refused: %s", c.hosts[i].Name, out)
		return false
	}
	for _, of := range []struct {
		kind                  int
		strangerReads, writes bool // what one who is not registered, and one who is, may do
	}{
		{writeExclusive, true, false}, {exclusiveAccess, false, false},
		{writeRegistrants, true, true}, {accessRegistrant, false, true},
		{writeAll, true, true}, {accessAll, false, true},
	} {
		sh(t, c.hosts[0], "sg_persist --out --register --param-sark=%s %s; sg_persist --out --reserve --param-rk=%[1]s --prout-type=%[3]d %[2]s", keys[0], disks[0], of.kind)
		if !allowed(0, true) || !allowed(0, false) {
			t.Errorf("type %d: the holder is refused", of.kind)
		}
		if r, w := allowed(1, true), allowed(1, false); r != of.strangerReads || w {
			t.Errorf("type %d: one who is not registered may read: %t, write: %t", of.kind, r, w)
		}
		sh(t, c.hosts[1], "sg_persist --out --register --param-sark=%s %s", keys[1], disks[1])
		if r, w := allowed(1, true), allowed(1, false); r != (of.strangerReads || of.writes) || w != of.writes {
			t.Errorf("type %d: one who is registered may read: %t, write: %t", of.kind, r, w)
		}
		contains(t, sh(t, c.hosts[1], "sg_persist --in --read-full-status %s", disks[1]), c.hosts[0].IQN(), c.hosts[1].IQN(), "Reservation holder")
		// The other takes the reservation away, together with the registration.
		sh(t, c.hosts[1], "sg_persist --out --preempt-abort --param-rk=%s --param-sark=%s --prout-type=%d %s", keys[1], preempted(of.kind), of.kind, disks[1])
		if !allowed(1, false) || allowed(0, false) {
			t.Errorf("type %d: PREEMPT AND ABORT did not take the reservation away", of.kind)
		}
		contains(t, sh(t, c.hosts[1], "sg_persist --in --read-keys %s", disks[1]), "1 registered reservation key")
		sh(t, c.hosts[1], "sg_persist --out --clear --param-rk=%s %s", keys[1], disks[1])
		if !allowed(0, false) {
			t.Errorf("type %d: CLEAR left the reservation", of.kind)
		}
	}
}

// preempted is the key of the holder to preempt; zero stands for all registrants
// where all of them hold the reservation (SPC-4 §5.13.11.2.6).
func preempted(kind int) string {
	if kind == writeAll || kind == accessAll {
		return "0x0"
	}
	return keys[0]
}

// moveReservation hands a reservation to the other host, and restarts the target.
func moveReservation(t *testing.T, c *cluster) {
	disks := c.share(t, "moved", "16MiB")
	sh(t, c.hosts[0], "sg_persist --out --register --param-aptpl --param-sark=%s %s; sg_persist --out --reserve --param-rk=%[1]s --prout-type=%[3]d %[2]s", keys[0], disks[0], exclusiveAccess)
	// The other host's transport id (SPC-4 §7.6.4.6), with its session as the target saw it.
	sh(t, c.hosts[1], "sg_persist --out --register --param-aptpl --param-sark=%s %s", keys[1], disks[1])
	status := sh(t, c.hosts[1], "sg_persist --in --read-full-status %s", disks[1])
	contains(t, status, c.hosts[1].IQN(), "Relative port address: 0x1")
	id := sh(t, c.hosts[0], `sg_persist --in --read-full-status %s | sed -n 's/.*TransportID.*//; s/.*\(%s,i,0x[0-9a-f]*\).*/\1/p' | head -1`, disks[0], c.hosts[1].IQN())
	sh(t, c.hosts[1], "sg_persist --out --register --param-rk=%s --param-sark=0 --param-aptpl %s", keys[1], disks[1])
	sh(t, c.hosts[0], "sg_persist --out --register-move --param-aptpl --unreg --param-rk=%s --param-sark=%s --relative-target-port=1 --transport-id=%s %s",
		keys[0], keys[1], id, disks[0])
	moved := func() {
		t.Helper()
		contains(t, sh(t, c.hosts[1], "sg_persist --in --read-reservation %s", disks[1]), strings.TrimPrefix(keys[1], "0x"), "Exclusive Access")
		contains(t, sh(t, c.hosts[1], "sg_persist --in --read-keys %s", disks[1]), "1 registered reservation key")
		sh(t, c.hosts[1], "dd if=/dev/zero of=%s bs=4k count=1 oflag=direct status=none", disks[1])
		contains(t, refused(t, c.hosts[0], "dd if=%s of=/dev/null bs=4k count=1 iflag=direct", disks[0]), "Invalid exchange")
	}
	moved()
	must(t, c.array.Kill(within(t, time.Minute)))
	must(t, c.array.Up(within(t, time.Minute)))
	for i, h := range c.hosts {
		sh(t, h, "for i in $(seq 300); do iscsiadm -m session -P 1 | grep -q 'iSCSI Session State: LOGGED_IN' && sg_inq %s >/dev/null && exit 0; sleep 0.1; done; exit 1", disks[i])
	}
	moved()
	sh(t, c.hosts[1], "sg_persist --out --clear --param-rk=%s %s", keys[1], disks[1])
}

const (
	lockspace = "lab"
	resource  = lockspace + ":res:%s:1048576"
)

// acquireLock has the first host hold a lock on the disk; the other is told that its
// owner lives.
func acquireLock(t *testing.T, c *cluster, disks [2]string) {
	both := func(script string) {
		t.Helper()
		var errs [2]error
		var wg sync.WaitGroup
		for i, h := range c.hosts {
			wg.Go(func() {
				_, errs[i] = h.Sh(within(t, time.Minute), fmt.Sprintf("name=%s id=%d disk=%s\n%s", h.Name, i+1, disks[i], script))
			})
		}
		wg.Wait()
		for _, err := range errs {
			must(t, err)
		}
	}
	both(`cd /; sanlock daemon -w 0 -l 0 -U root -G root -e $name
		for i in $(seq 300); do sanlock client status >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1`)
	sh(t, c.hosts[0], "sanlock client init -s "+lockspace+":0:%s:0 -o 2; sanlock client init -r "+resource, disks[0], disks[0])
	both("sanlock client add_lockspace -s " + lockspace + ":$id:$disk:0 -o 2")
	// What one host has let go the other one takes.
	for i, h := range c.hosts {
		sh(t, h, "sanlock client command -r "+resource+" -c /bin/true", disks[i])
	}
	// The command begins when the lock is held.
	must(t, c.hosts[0].WriteFile(within(t, time.Minute), "/tmp/hold", strings.NewReader("touch /run/held\nexec sleep 1000\n"), 0o644))
	must(t, c.hosts[0].Start(within(t, time.Minute), "holder", "sanlock", "client", "command", "-r", fmt.Sprintf(resource, disks[0]), "-c", "/bin/sh", "/tmp/hold"))
	sh(t, c.hosts[0], "for i in $(seq 300); do [ -e /run/held ] && exit 0; sleep 0.1; done; sanlock client log_dump; exit 1")
	const ownerLives = "acquire done -243"
	contains(t, refused(t, c.hosts[1], "sanlock client command -r "+resource+" -c /bin/true", disks[1]), ownerLives)
}

// takeLock waits until the lease of the first host, which is dead, has run out and 60 s
// more, in which a watchdog would have reset it.
func takeLock(t *testing.T, c *cluster, disks [2]string) {
	start := time.Now()
	_, err := c.hosts[1].Sh(within(t, 3*time.Minute), fmt.Sprintf(`for i in $(seq 150); do
			sanlock client command -r `+resource+` -c /bin/echo taken 2>&1 | grep -q taken && exit 0
			sleep 1
		done; sanlock client log_dump | tail -20; exit 1`, disks[1]))
	must(t, err)
	t.Logf("it took another %s", time.Since(start).Round(time.Second))
}

// ownVolumeGroup makes a volume group that belongs to the first host by its system id.
func ownVolumeGroup(t *testing.T, c *cluster, disks [2]string) {
	for i, h := range c.hosts {
		sh(t, h, `sed -i 's/^\(\s*\)# *system_id_source = .*/\1system_id_source = "uname"/' /etc/lvm/lvm.conf; lvm systemid | grep -q %s; [ -b %s ]`, h.Name, disks[i])
	}
	sh(t, c.hosts[0], `
		vgcreate -qq vg %s; lvcreate -qq -Zn -Wn -n data -L 32M vg; udevadm settle -t 60
		dd if=/dev/urandom of=/dev/vg/data bs=1M count=32 oflag=direct status=none`, disks[0])
	for _, command := range []string{"vgchange -ay vg", "lvcreate -n other -L 4M vg", "vgremove -f vg"} {
		contains(t, refused(t, c.hosts[1], "%s", command), "Cannot access VG vg with system ID host1")
	}
	c.sum(t, "lv", c.hosts[0], "/dev/vg/data")
}

// takeVolumeGroup makes the volume group the second host's.
func takeVolumeGroup(t *testing.T, c *cluster) {
	sh(t, c.hosts[1], `
		vgchange -qq -y --config 'local/extra_system_ids=["host1"]' --systemid host2 vg
		vgchange -qq -ay vg; udevadm settle -t 60; [ -b /dev/vg/data ]`)
	c.same(t, "lv", c.hosts[1], "/dev/vg/data")
	whenFree(t, c.hosts[1], "vgchange -qq -an vg")
	sh(t, c.hosts[1], "vgremove -qq -f vg")
}

// sum keeps the checksum of what a device holds on the host side.
func (c *cluster) sum(t *testing.T, name string, h *lab.Machine, device string) {
	t.Helper()
	sum := sh(t, h, "dd if=%s bs=1M iflag=direct status=none | sha256sum", device)
	sh(t, c.array.Machine, "echo '%s' >%s/../%s.sum", sum, c.array.Dir, name)
}

// same checks that a device holds what sum has seen.
func (c *cluster) same(t *testing.T, name string, h *lab.Machine, device string) {
	t.Helper()
	want := sh(t, c.array.Machine, "cat %s/../%s.sum", c.array.Dir, name)
	if got := sh(t, h, "dd if=%s bs=1M iflag=direct status=none | sha256sum", device); got != want {
		t.Errorf("%s on %s has another content than on the first host", device, h.Name)
	}
}

// mirror makes a mirror of two volumes and takes one of them away under load.
func mirror(t *testing.T, c *cluster, legs [][2]string) {
	h := c.hosts[0]
	sh(t, h, `
		mdadm --create /dev/md0 --run --quiet --homehost=any --metadata=1.2 --bitmap=internal --level=1 --raid-devices=2 %s %s 2>&1
		mdadm --wait /dev/md0 || true; grep -q '\[UU\]' /proc/mdstat`, legs[0][0], legs[1][0])
	load := startLoad(t, h, "/dev/md0", "--size=8m")
	written(t, h, "/dev/md0")
	lun := fmt.Sprint(c.next - 2)
	c.lintel(t, "unmap", "leg-b", h.Name, "--yes")
	sh(t, h, `for i in $(seq 300); do grep -q '\[U_\]' /proc/mdstat && exit 0; sleep 0.1; done; cat /proc/mdstat; exit 1`)
	c.lintel(t, "map", "leg-b", h.Name, "--lun", lun)
	// md lets go of a leg that has failed when what was under way on it is over.
	whenFree(t, h, "mdadm --quiet /dev/md0 --remove %s; sg_turs %[1]s && mdadm --quiet /dev/md0 --re-add %[1]s", legs[1][0])
	sh(t, h, `
		for i in $(seq 600); do grep -q '\[UU\]' /proc/mdstat && exit 0; sleep 0.1; done; cat /proc/mdstat; exit 1`)
	load.end()
	whenFree(t, h, "echo check >/sys/block/md0/md/sync_action")
	sh(t, h, `
		mdadm --wait /dev/md0 || true
		[ "$(cat /sys/block/md0/md/mismatch_cnt)" = 0 ]`)
	c.sum(t, "md", h, "/dev/md0")
}

// takeMirror assembles the mirror on the second host.
func takeMirror(t *testing.T, c *cluster, legs [][2]string) {
	sh(t, c.hosts[1], "mdadm --assemble --quiet --run /dev/md0 %s %s; grep -q 'active raid1' /proc/mdstat", legs[0][1], legs[1][1])
	c.same(t, "md", c.hosts[1], "/dev/md0")
	whenFree(t, c.hosts[1], "mdadm --stop --quiet /dev/md0")
}
