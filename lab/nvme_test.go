package lab_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/internal/hostconfig"
	"lintel.io/lintel/lab"
)

// nvmeName returns the NVMe name of a guest.
func nvmeName(m *lab.Machine) string { return "nqn.2026-11.io.lintel.lab:" + m.Name }

// systemctl stands in for systemd in a guest: it starts what nvme-cli's udev rule asks
// for, nvmf-connect@ARGUMENTS.service, as that unit does.
const systemctl = `#!/bin/sh
for unit; do
	case $unit in
	nvmf-connect@*.service)
		arguments=${unit#nvmf-connect@}
		setsid /usr/sbin/nvme connect-all --quiet ${arguments%.service} >/tmp/nvmf-connect.log 2>&1 </dev/null &
	esac
done
`

// nvmeSAN starts a lab whose array runs on a guest and serves NVMe/TCP on san-a. Both
// hosts are set up for NVMe, host2 is an iSCSI initiator too.
func nvmeSAN(t *testing.T) *san {
	t.Helper()
	t.Parallel()
	s := &san{Lab: lab.New(t, lab.Topology{
		Name:     "nvme",
		Networks: []string{"san-a", "san-b"},
		Guests:   []lab.GuestSpec{{Name: "head1", Role: "head"}, {Name: "host1", Role: "host"}, {Name: "host2", Role: "host"}},
		Disks:    []lab.DiskSpec{{Name: "data", Size: lab.GiB, Guests: []string{"head1"}}},
	})}
	s.host = s.Machine("host1")
	head, host2, ctx := s.Machine("head1"), s.Machine("host2"), within(t, 3*time.Minute)
	sh(t, head, "mkfs.ext4 -q /dev/lab/data; mkdir -p /data; mount /dev/lab/data /data")
	var err error
	s.array, err = head.Serve(ctx, "/data/array", []string{"san-a", "san-b"})
	must(t, err)
	s.showLog(t)
	s.lintel(t, "portal", "add", head.Address("san-a"), "--protocol", "nvme-tcp")
	s.lintel(t, "portal", "add", head.Address("san-a"), "--protocol", "nvme-discovery")
	s.lintel(t, "host", "create", "host1", "--nqn", nvmeName(s.host))
	s.lintel(t, "host", "create", "host2", "--iqn", host2.IQN(), "--nqn", nvmeName(host2))
	for _, h := range []*lab.Machine{s.host, host2} {
		sh(t, h, "mkdir -p /etc/nvme; echo %s >/etc/nvme/hostnqn; cat /proc/sys/kernel/random/uuid >/etc/nvme/hostid", nvmeName(h))
		must(t, h.WriteFile(ctx, "/usr/bin/systemctl", strings.NewReader(systemctl), 0o755))
		must(t, h.WriteFile(ctx, hostconfig.NVMe.Path, strings.NewReader(hostconfig.NVMe.Text()), 0o644))
		sh(t, h, "udevadm control --reload")
	}
	must(t, host2.StartInitiator(ctx))
	stop(t, host2, "multipathd") // the disks as such
	return s
}

var subsystemField = regexp.MustCompile(`(?m)^nqn +(\S+)$`)

// subsystem returns the name of the array's NVM subsystem.
func subsystem(t testing.TB, s *san) string {
	t.Helper()
	nqn := subsystemField.FindStringSubmatch(s.lintel(t, "target", "show"))
	if nqn == nil {
		t.Fatal("the target has no NQN")
	}
	return nqn[1]
}

// namespace waits for a namespace of the array on a host and returns its device.
func namespace(t testing.TB, m *lab.Machine, nsid int) string {
	t.Helper()
	return sh(t, m, `for i in $(seq 1200); do
		for d in /sys/block/nvme*n*; do
			case ${d##*/} in *c*) continue ;; esac
			[ -e $d/nsid ] && [ "$(cat $d/nsid)" = %d ] && [ -b /dev/${d##*/} ] && echo /dev/${d##*/} && exit 0
		done; sleep 0.05
	done; nvme list-subsys >&2; exit 1`, nsid)
}

// controllerState waits until the I/O controller behind a portal is in a state, and
// returns its device.
func controllerState(t testing.TB, m *lab.Machine, portal, state string) string {
	t.Helper()
	return sh(t, m, `for i in $(seq 600); do
		for c in /sys/class/nvme/nvme*; do
			[ -e $c/address ] && [ "$(cat $c/cntrltype)" = io ] && grep -q 'traddr=%s,' $c/address && [ "$(cat $c/state)" = %s ] && echo /dev/${c##*/} && exit 0
		done; sleep 0.1
	done; nvme list-subsys >&2; exit 1`, portal, state)
}

// shrinks checks that a script on the host gives back at least 24 MiB of the space
// that the volumes take.
func shrinks(t *testing.T, s *san, script string, args ...any) {
	t.Helper()
	before := totalUsed(t, s)
	sh(t, s.host, script, args...)
	if after := totalUsed(t, s); before-after < 24<<20 {
		t.Errorf("the volumes took %d bytes, and %d after it", before, after)
	}
}

// TestNVMe checks what a Linux host does over NVMe/TCP (NVMe Base 2.0 §5.16, §5.17, §7, §8.1, §8.3.4, §8.13, §8.19, NVMe NVM 1.0 §3.2, NVMe TCP 1.0 §3.3).
func TestNVMe(t *testing.T) {
	s := nvmeSAN(t)
	host, nqn := s.host, subsystem(t, s)
	portals := []string{s.array.Address("san-a"), s.array.Address("san-b")}
	s.volume(t, "n1", "128MiB", 0)
	step := func(name string, run func(t *testing.T)) {
		if !t.Run(name, run) {
			t.FailNow() // the next ones work with what it leaves
		}
	}
	var device, controller string

	step("discover", func(t *testing.T) {
		for _, port := range []string{"4420", "8009"} {
			out := sh(t, host, "nvme discover -t tcp -a %s -s %s", portals[0], port)
			contains(t, out, "Number of Records 3", "trsvcid: 8009", "subtype: current discovery subsystem", "subnqn:  "+nqn+":discovery\n",
				"subtype: nvme subsystem", "subnqn:  "+nqn+"\n", "traddr:  "+portals[0], "trsvcid: 4420", "sectype: none")
		}
	})
	step("connect-all as the autoconnect service runs it", func(t *testing.T) {
		must(t, host.WriteFile(within(t, time.Minute), hostconfig.NVMeDiscovery.Path,
			strings.NewReader(hostconfig.NVMeDiscovery.Text(netip.AddrPortFrom(netip.MustParseAddr(portals[0]), 8009))), 0o644))
		sh(t, host, "$(sed -n 's/^ExecStart=//p' /lib/systemd/system/nvmf-autoconnect.service)")
		controller = controllerState(t, host, portals[0], "live")
		device = namespace(t, host, 1)
		contains(t, sh(t, host, "nvme list"), device+" ", "LINTEL VIRTUAL-DISK")
		contains(t, sh(t, host, "nvme list-subsys"), "NQN="+nqn, "tcp traddr="+portals[0]+",trsvcid=4420")
		contains(t, s.lintel(t, "session", "list"), nvmeName(host), "nvme-tcp", "discovery")
		contains(t, sh(t, host, "cat /sys/class/nvme-subsystem/*/iopolicy | sort -u"), "round-robin")
	})
	step("identify", func(t *testing.T) {
		contains(t, sh(t, host, "nvme id-ctrl %s", controller), "mn        : LINTEL VIRTUAL-DISK", "subnqn    : "+nqn, "cntrltype : 1", "ver       : 0x20000", "fuses     : 0x1")
		contains(t, sh(t, host, "nvme id-ns %s", device), "nsze    : 0x40000", "anagrpid: 1", "lbads:9  rp:0 (in use)", "nmic    : 0x1", "nvmcap  : 134217728")
		contains(t, sh(t, host, "nvme ns-descs %s", device), "eui64   : ", "nguid   : ", "uuid    : ", "csi     : 0")
		contains(t, sh(t, host, "nvme ana-log %s", controller), "ngrps	:	1", "grpid	:	1", "state	:	optimized", "nsid	:	1")
		contains(t, sh(t, host, "nvme supported-log-pages %s", controller), "LID 0xc (Asymmetric Namespace Access)", "LID 0x80 (Reservation Notification)")
	})
	step("file system", func(t *testing.T) {
		sh(t, host, `
			mkfs.ext4 -q %s; mkdir -p /mnt/n1; mount %[1]s /mnt/n1; cd /mnt/n1
			fio --name=mixed --directory=. --size=16m --numjobs=2 --rw=randrw --bsrange=4k-256k --ioengine=libaio --iodepth=8 \
				--direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 >/tmp/fio.log 2>&1 || { cat /tmp/fio.log; exit 1; }
			sha256sum mixed.* >/tmp/sums; cd /; umount /mnt/n1; blockdev --flushbufs %[1]s; mount %[1]s /mnt/n1
			cd /mnt/n1; sha256sum -c --quiet /tmp/sums`, device)
	})
	step("fstrim", func(t *testing.T) {
		shrinks(t, s, "cd /mnt/n1; rm mixed.*; sync; fstrim -v .; cd /; umount /mnt/n1; e2fsck -fn %s >/dev/null 2>&1", device)
	})
	step("blkdiscard", func(t *testing.T) {
		sh(t, host, "dd if=/dev/urandom of=%s bs=1M count=32 oflag=direct status=none", device)
		shrinks(t, s, "blkdiscard %s", device)
		if got := sh(t, host, "dd if=%s bs=1M count=32 iflag=direct status=none | tr -d '\\0' | wc -c", device); got != "0" {
			t.Errorf("%s bytes that are not zero after blkdiscard", got)
		}
	})
	step("resize", func(t *testing.T) {
		s.lintel(t, "volume", "resize", "n1", "192MiB")
		sh(t, host, `for i in $(seq 600); do [ "$(blockdev --getsize64 %s)" = 201326592 ] && exit 0; sleep 0.1; done; exit 1`, device)
		verify(t, s, device, "--offset=160m --size=16m --bs=64k")
	})
	step("a second portal is a second path", func(t *testing.T) {
		// The discovery controller tells the host, which connects by itself.
		s.lintel(t, "portal", "add", portals[1], "--protocol", "nvme-tcp", "--port-group", "2")
		for _, p := range portals {
			controllerState(t, host, p, "live")
		}
		// A controller is live before its namespaces are paths.
		out := sh(t, host, `for i in $(seq 300); do
				nvme list-subsys %s >/tmp/paths; [ $(grep -c 'live optimized' /tmp/paths) = 2 ] && break; sleep 0.1
			done; cat /tmp/paths`, device)
		contains(t, out, "traddr="+portals[0]+",", "traddr="+portals[1]+",")
		if n := strings.Count(out, "live optimized"); n != 2 {
			t.Errorf("%d optimized paths, want 2:\n%s", n, out)
		}
		if n := sh(t, host, "ls /sys/block | grep -c '^nvme[0-9]*n[0-9]*$'"); n != "1" {
			t.Errorf("%s namespace heads, want 1", n)
		}
	})
	step("access states", func(t *testing.T) { anaStates(t, s, device, portals[1]) })
	for i, network := range []string{"san-a", "san-b"} {
		step("a path is lost under load: "+network, func(t *testing.T) {
			l := startLoad(t, host, device)
			carries(t, host, network)
			must(t, host.Cut(within(t, time.Minute), network, lab.Both))
			controllerState(t, host, portals[i], "connecting")
			time.Sleep(time.Second) // of I/O on the other path
			must(t, host.Heal(within(t, time.Minute), network))
			controllerState(t, host, portals[i], "live")
			l.end()
		})
	}
	step("reservations", func(t *testing.T) { nvmeReservations(t, s, device) })
	step("one volume, two protocols", func(t *testing.T) { twoProtocols(t, s) })
	step("a host moves from iSCSI to NVMe", func(t *testing.T) { moveToNVMe(t, s) })
	step("DH-HMAC-CHAP", func(t *testing.T) { dhchap(t, s, nqn, portals[0]) })
}

// carries waits until a network has carried I/O of a host; the kernel counts no I/O of
// a multipath namespace.
func carries(t *testing.T, host *lab.Machine, network string) {
	t.Helper()
	sh(t, host, `f=/sys/class/net/%s/statistics/tx_packets; n=$(cat $f)
		for i in $(seq 300); do [ $(cat $f) -gt $((n + 200)) ] && exit 0; sleep 0.1; done; echo "no I/O on this path" >&2; exit 1`, network)
}

// anaStates goes through the ANA states of the second portal under load (NVMe Base 2.0
// §8.1): the host uses the other path, and no error reaches the application.
func anaStates(t *testing.T, s *san, device, portal string) {
	shows := func(state string) {
		t.Helper()
		sh(t, s.host, `for i in $(seq 300); do
				nvme list-subsys %s | grep 'traddr=%s,' | grep -q 'live %s *$' && exit 0; sleep 0.1
			done; nvme list-subsys %[1]s >&2; exit 1`, device, portal, state)
	}
	l := startLoad(t, s.host, device)
	for _, of := range []struct{ state, ana string }{
		{"non-optimized", "non-optimized"}, {"standby", "inaccessible"}, {"unavailable", "inaccessible"}, {"transitioning", "change"}, {"offline", "persistent-loss"}, {"optimized", "optimized"},
	} {
		s.lintel(t, "target", "set-state", "default", of.state, "--port-group", "2", "--yes")
		shows(of.ana)
		carries(t, s.host, "san-a")
	}
	l.end()
}

// nvmeReservations goes through the life of a reservation of two hosts (NVMe Base 2.0 §8.19).
func nvmeReservations(t *testing.T, s *san, d1 string) {
	one, two := s.host, s.Machine("host2")
	s.lintel(t, "map", "n1", "host2", "--nsid", "1")
	sh(t, two, "nvme connect-all -t tcp -a %s -s 8009", s.array.Address("san-a"))
	controllerState(t, two, s.array.Address("san-b"), "live")
	d2 := namespace(t, two, 1)
	report := "nvme resv-report %s --eds"
	id := func(m *lab.Machine) string {
		return "hostid     : " + strings.ReplaceAll(sh(t, m, "cat /etc/nvme/hostid"), "-", "")
	}
	write := "dd if=/dev/zero of=%s bs=4k count=1 oflag=direct conv=notrunc status=none"
	read := "dd if=%s of=/dev/null bs=4k count=1 iflag=direct status=none"

	contains(t, sh(t, one, report, d1), "rtype     : 0", "regctl    : 0")
	sh(t, one, "nvme resv-register %s --nrkey=0x11 --rrega=0", d1)
	contains(t, refused(t, one, "nvme resv-acquire %s --crkey=0x12 --rtype=1 --racqa=0 2>&1", d1), "Reservation Conflict")
	sh(t, one, "nvme resv-acquire %s --crkey=0x11 --rtype=1 --racqa=0", d1)
	// Both controllers of the host are its registrants.
	contains(t, sh(t, two, report, d2), "rtype     : 1", "regctl    : 2", "rcsts      : 1", "rkey       : 11", id(one))
	refused(t, two, write, d2)
	sh(t, two, read, d2)
	sh(t, one, write, d1)
	contains(t, refused(t, two, "nvme resv-acquire %s --crkey=0x22 --rtype=1 --racqa=0 2>&1", d2), "Reservation Conflict") // it is not registered
	sh(t, two, "nvme resv-register %s --nrkey=0x22 --rrega=0", d2)
	contains(t, sh(t, one, report, d1), "regctl    : 4", "rkey       : 11", "rkey       : 22", id(one), id(two))
	contains(t, refused(t, two, "nvme resv-acquire %s --crkey=0x22 --rtype=1 --racqa=0 2>&1", d2), "Reservation Conflict")
	refused(t, two, write, d2)

	// Preempt and Abort takes the reservation, and the first host's registration.
	sh(t, two, "nvme resv-acquire %s --crkey=0x22 --prkey=0x11 --rtype=2 --racqa=2", d2)
	contains(t, sh(t, one, report, d1), "rtype     : 2", "regctl    : 2", "rkey       : 22", id(two))
	refused(t, one, write, d1)
	refused(t, one, read, d1)
	sh(t, two, write, d2)
	// A new key, release, and the end of all registrations.
	sh(t, two, "nvme resv-register %s --crkey=0x22 --nrkey=0x23 --rrega=2; nvme resv-release %[1]s --crkey=0x23 --rtype=2 --rrela=0", d2)
	contains(t, sh(t, one, report, d1), "rtype     : 0", "regctl    : 2", "rcsts      : 0", "rkey       : 23")
	sh(t, one, write, d1)
	sh(t, one, "nvme resv-register %s --nrkey=0x11 --rrega=0; nvme resv-release %[1]s --crkey=0x11 --rrela=1", d1) // clear
	contains(t, sh(t, two, report, d2), "rtype     : 0", "regctl    : 0")
	sh(t, two, "nvme disconnect-all")
	s.lintel(t, "unmap", "n1", "host2", "--yes")
}

// twoProtocols has one host reserve a volume over NVMe and another over iSCSI: either
// sees the other's reservation and is kept out by it (NVMe Base 2.0 §8.19, SPC-4 §5.13).
func twoProtocols(t *testing.T, s *san) {
	one, two := s.host, s.Machine("host2")
	s.volume(t, "both", "32MiB", 1)
	s.lintel(t, "map", "both", "host2", "--lun", "1")
	d1 := namespace(t, one, 2)
	must(t, two.Login(within(t, time.Minute), s.array.Address("san-a")))
	d2 := disk(t, two, s.array.Address("san-a"), 1)
	write := "dd if=/dev/urandom of=%s bs=4k count=4 oflag=direct conv=notrunc status=none"
	read := "dd if=%s of=/dev/null bs=4k count=4 iflag=direct status=none"
	sum := "dd if=%s bs=4k count=4 iflag=direct status=none | sha256sum"

	sh(t, one, write, d1)
	if a, b := sh(t, one, sum, d1), sh(t, two, sum, d2); a != b {
		t.Fatalf("over NVMe it reads %s, over iSCSI %s", a, b)
	}
	t.Run("reserved over iSCSI", func(t *testing.T) {
		sh(t, two, "sg_persist -n --out --register --param-sark=0x22 %s; sg_persist -n --out --reserve --param-rk=0x22 --prout-type=1 %[1]s", d2)
		contains(t, sh(t, one, "nvme resv-report %s --eds", d1), "rtype     : 1", "rkey       : 22", "rcsts      : 1")
		refused(t, one, write, d1)
		sh(t, one, read, d1)
		sh(t, two, write, d2)
		sh(t, two, "sg_persist -n --out --release --param-rk=0x22 --prout-type=1 %s; sg_persist -n --out --register --param-rk=0x22 %[1]s", d2)
		sh(t, one, write, d1)
	})
	t.Run("reserved over NVMe", func(t *testing.T) {
		sh(t, one, "nvme resv-register %s --nrkey=0x11 --rrega=0; nvme resv-acquire %[1]s --crkey=0x11 --rtype=2 --racqa=0", d1)
		contains(t, sh(t, two, "sg_persist -n --in --read-reservation %s", d2), "Key=0x11", "Exclusive Access")
		refused(t, two, write, d2)
		refused(t, two, read, d2)
		sh(t, one, write, d1)
		sh(t, one, "nvme resv-release %s --crkey=0x11 --rtype=2 --rrela=0; nvme resv-register %[1]s --crkey=0x11 --rrega=1", d1)
		sh(t, two, write, d2)
	})
	if a, b := sh(t, one, sum, d1), sh(t, two, sum, d2); a != b {
		t.Errorf("over NVMe it reads %s, over iSCSI %s", a, b)
	}
	must(t, two.Logout(within(t, time.Minute)))
}

// moveToNVMe takes a host with a file system on a volume from iSCSI to NVMe: nothing
// is copied, and the volume has the identity that it had.
func moveToNVMe(t *testing.T, s *san) {
	host := s.Machine("host2")
	s.lintel(t, "volume", "create", "moved", "--size", "64MiB")
	s.lintel(t, "map", "moved", "host2", "--lun", "4", "--nsid", "5")
	must(t, host.Login(within(t, time.Minute), s.array.Address("san-a")))
	d := disk(t, host, s.array.Address("san-a"), 4)
	sum := sh(t, host, `
		mkfs.ext4 -q %s; mkdir -p /mnt/moved; mount %[1]s /mnt/moved
		dd if=/dev/urandom of=/mnt/moved/file bs=1M count=8 status=none; sha256sum </mnt/moved/file; umount /mnt/moved`, d)
	eui := sh(t, host, "sg_vpd --page=di %s | grep -A1 EUI-64 | grep -o '0x[0-9a-f]*' | cut -c3-", d)
	must(t, host.Logout(within(t, time.Minute)))

	sh(t, host, "nvme connect-all -t tcp -a %s -s 8009", s.array.Address("san-a"))
	d = namespace(t, host, 5)
	contains(t, sh(t, host, "nvme id-ns %s", d), "eui64   : "+eui)
	if got := sh(t, host, "mount %s /mnt/moved; sha256sum </mnt/moved/file; touch /mnt/moved/new; umount /mnt/moved", d); got != sum {
		t.Errorf("the file has the sum %s over NVMe, %s over iSCSI", got, sum)
	}
	sh(t, host, "nvme disconnect-all")
}

// dhchap checks that only the right key lets the host in (NVMe Base 2.0 §8.13.5).
func dhchap(t *testing.T, s *san, nqn, portal string) {
	host := s.host
	sh(t, host, "rm /usr/bin/systemctl; nvme disconnect-all")
	var keys [3]string
	for i := range keys {
		keys[i] = sh(t, host, "nvme gen-dhchap-key --hmac=%d -n %s", i+1, nvmeName(host))
	}
	s.lintel(t, "host", "set", "host1", "--dhchap-key", keys[0])
	connect := fmt.Sprintf("nvme connect -t tcp -a %s -s 4420 -n %s", portal, nqn)
	refused(t, host, "%s", connect)
	refused(t, host, "%s -S %s", connect, keys[1])
	sh(t, host, "dmesg -C; %s -S %s", connect, keys[0])
	contains(t, sh(t, host, "dmesg"), "authenticated with hash hmac(", "qid 0: authenticated")
	verify(t, s, namespace(t, host, 1), "--size=8m --bs=64k")
	sh(t, host, "nvme disconnect-all")

	// The other direction: the host asks the array for its key as well.
	s.lintel(t, "host", "set", "host1", "--dhchap-ctrl-key", keys[2])
	refused(t, host, "%s -S %s -C %s", connect, keys[0], keys[1])
	sh(t, host, "%s -S %s -C %s", connect, keys[0], keys[2])
	controllerState(t, host, portal, "live")
	sh(t, host, "nvme disconnect-all")
}
