package lab_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// nvmeName returns the NVMe name of a guest.
func nvmeName(m *lab.Machine) string { return "nqn.2026-11.io.lintel.lab:" + m.Name }

// nvmeSAN starts a lab whose array runs on a guest and serves NVMe/TCP on san-a, with
// host1 as NVMe host and host2 as iSCSI initiator of the same array.
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
	head, host2, ctx := s.Machine("head1"), s.Machine("host2"), within(t, time.Minute)
	sh(t, head, "mkfs.ext4 -q /dev/lab/data; mkdir -p /data; mount /dev/lab/data /data")
	var err error
	s.array, err = head.Serve(ctx, "/data/array", []string{"san-a", "san-b"})
	must(t, err)
	s.showLog(t)
	s.lintel(t, "portal", "add", head.Address("san-a"), "--protocol", "nvme-tcp")
	s.lintel(t, "portal", "add", head.Address("san-a"), "--protocol", "nvme-discovery")
	s.lintel(t, "host", "create", "host1", "--nqn", nvmeName(s.host))
	s.lintel(t, "host", "create", "host2", "--iqn", host2.IQN())
	sh(t, s.host, "mkdir -p /etc/nvme; echo %s >/etc/nvme/hostnqn; cat /proc/sys/kernel/random/uuid >/etc/nvme/hostid", nvmeName(s.host))
	must(t, host2.StartInitiator(ctx))
	sh(t, host2, "pkill -x multipathd; sleep 0.2") // the disks as such
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
	return sh(t, m, `for i in $(seq 200); do
		for d in /sys/block/nvme*n*; do
			case ${d##*/} in *c*) continue ;; esac
			[ -e $d/nsid ] && [ "$(cat $d/nsid)" = %d ] && [ -b /dev/${d##*/} ] && echo /dev/${d##*/} && exit 0
		done; sleep 0.05
	done; nvme list-subsys >&2; exit 1`, nsid)
}

// controllerState waits until the controller behind a portal is in a state, and
// returns its device.
func controllerState(t testing.TB, m *lab.Machine, portal, state string) string {
	t.Helper()
	return sh(t, m, `for i in $(seq 600); do
		for c in /sys/class/nvme/nvme*; do
			[ -e $c/address ] && grep -q 'traddr=%s,' $c/address && [ "$(cat $c/state)" = %s ] && echo /dev/${c##*/} && exit 0
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
	connect := "nvme connect -t tcp -s 4420 -n " + nqn + " --keep-alive-tmo=2 --reconnect-delay=1 -a "
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
	step("connect", func(t *testing.T) {
		sh(t, host, "%s%s", connect, portals[0])
		controller = controllerState(t, host, portals[0], "live")
		device = namespace(t, host, 1)
		contains(t, sh(t, host, "nvme list"), device+" ", "LINTEL VIRTUAL-DISK")
		contains(t, sh(t, host, "nvme list-subsys"), "NQN="+nqn, "tcp traddr="+portals[0]+",trsvcid=4420")
		contains(t, s.lintel(t, "session", "list"), nvmeName(host), "nvme-tcp")
	})
	step("identify", func(t *testing.T) {
		contains(t, sh(t, host, "nvme id-ctrl %s", controller), "mn        : LINTEL VIRTUAL-DISK", "subnqn    : "+nqn, "cntrltype : 1", "ver       : 0x20000", "fuses     : 0x1")
		contains(t, sh(t, host, "nvme id-ns %s", device), "nsze    : 0x40000", "anagrpid: 1", "lbads:9  rp:0 (in use)", "nmic    : 0x1", "nvmcap  : 134217728")
		contains(t, sh(t, host, "nvme ns-descs %s", device), "eui64   : ", "nguid   : ", "uuid    : ", "csi     : 0")
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
		sh(t, host, `for i in $(seq 100); do [ "$(blockdev --getsize64 %s)" = 201326592 ] && exit 0; sleep 0.1; done; exit 1`, device)
		verify(t, s, device, "--offset=160m --size=16m --bs=64k")
	})
	step("a second portal is a second path", func(t *testing.T) {
		s.lintel(t, "portal", "add", portals[1], "--protocol", "nvme-tcp")
		sh(t, host, "%s%s; echo round-robin >$(grep -l -x %s /sys/class/nvme-subsystem/*/subsysnqn | xargs dirname)/iopolicy", connect, portals[1], nqn)
		for _, p := range portals {
			controllerState(t, host, p, "live")
		}
		out := sh(t, host, "nvme list-subsys %s", device)
		contains(t, out, "traddr="+portals[0]+",", "traddr="+portals[1]+",")
		if n := strings.Count(out, "live optimized"); n != 2 {
			t.Errorf("%d optimized paths, want 2:\n%s", n, out)
		}
		if n := sh(t, host, "ls /sys/block | grep -c '^nvme[0-9]*n[0-9]*$'"); n != "1" {
			t.Errorf("%s namespace heads, want 1", n)
		}
	})
	for i, network := range []string{"san-a", "san-b"} {
		step("a path is lost under load: "+network, func(t *testing.T) {
			l := startLoad(t, host, device)
			sh(t, host, `f=/sys/class/net/%s/statistics/tx_packets; n=$(cat $f)
				for i in $(seq 300); do [ $(cat $f) -gt $((n + 200)) ] && exit 0; sleep 0.1; done; echo "no I/O on this path" >&2; exit 1`, network)
			must(t, host.Cut(within(t, time.Minute), network, lab.Both))
			controllerState(t, host, portals[i], "connecting")
			time.Sleep(time.Second) // of I/O on the other path
			must(t, host.Heal(within(t, time.Minute), network))
			controllerState(t, host, portals[i], "live")
			l.end()
		})
	}
	step("reservations", func(t *testing.T) { nvmeReservations(t, host, device) })
	step("one volume, two protocols", func(t *testing.T) { twoProtocols(t, s) })
	step("DH-HMAC-CHAP", func(t *testing.T) { dhchap(t, s, nqn, portals[0]) })
}

// nvmeReservations goes through the life of a reservation (NVMe Base 2.0 §8.19).
func nvmeReservations(t *testing.T, host *lab.Machine, device string) {
	report := "nvme resv-report " + device + " --eds"
	contains(t, sh(t, host, "%s", report), "rtype     : 0", "regctl    : 0")
	sh(t, host, "nvme resv-register %s --nrkey=0x11 --rrega=0", device)
	refused(t, host, "nvme resv-acquire %s --crkey=0x12 --rtype=1 --racqa=0", device)
	sh(t, host, "nvme resv-acquire %s --crkey=0x11 --rtype=1 --racqa=0", device)
	// Both controllers of the host are its registrants.
	contains(t, sh(t, host, "%s", report), "rtype     : 1", "regctl    : 2", "rcsts      : 1", "rkey       : 11",
		"hostid     : "+strings.ReplaceAll(sh(t, host, "cat /etc/nvme/hostid"), "-", ""))
	sh(t, host, "nvme resv-release %s --crkey=0x11 --rtype=1 --rrela=0", device)
	contains(t, sh(t, host, "%s", report), "rtype     : 0", "regctl    : 2", "rcsts      : 0")
	sh(t, host, "nvme resv-register %s --crkey=0x11 --rrega=1", device)
	contains(t, sh(t, host, "%s", report), "regctl    : 0")
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

// dhchap checks that only the right key lets the host in (NVMe Base 2.0 §8.13.5).
func dhchap(t *testing.T, s *san, nqn, portal string) {
	host := s.host
	sh(t, host, "nvme disconnect-all")
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
