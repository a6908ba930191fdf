package lab_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// TestSG3Utils checks what sg3_utils reads from a volume through Linux (SPC-4 §6.4, §6.6, §6.37, §7.8, SBC-3 §5.16, §5.7).
func TestSG3Utils(t *testing.T) {
	s := loggedIn(t, "host1", "host2")
	host, host2 := s.host, s.Machine("host2")
	for _, h := range []*lab.Machine{host, host2} {
		sh(t, h, "pkill -x multipathd; sleep 0.2") // the disks as such
	}
	d := s.lun(t, host, "sg", "64MiB", 0)
	s.lintel(t, "map", "sg", "host2", "--lun", "0")
	d2 := s.rescan(t, host2, 0)
	naa := naaOf(t, s, "sg")

	t.Run("INQUIRY", func(t *testing.T) {
		out := sh(t, host, "sg_inq %s", d)
		contains(t, out, "Vendor identification: LINTEL", "Product identification: VIRTUAL-DISK", "PDT=0", "TPGS=3", "CmdQue=1", "3PC=1")
		contains(t, sh(t, host, "sg_vpd -p di %s", d), "designator type: NAA", "0x"+naa, "Relative target port: 0x", "Target port group: 0x", "SCSI name string:", "iqn.2026-11.io.lintel:")
		contains(t, sh(t, host, "sg_vpd -p sv %s", d), "Device identification [di]", "Block limits (SBC) [bl]", "Logical block provisioning (SBC) [lbpv]")
		contains(t, sh(t, host, "sg_vpd -p lbpv %s", d), "Unmap command supported (LBPU): 1", "Provisioning type: 2 (thin")
		contains(t, sh(t, host, "sg_vpd -p bl %s", d), "Maximum compare and write length:", "Maximum unmap LBA count:")
		if one, two := sh(t, host, "sg_vpd -p sn %s", d), sh(t, host2, "sg_vpd -p sn %s", d2); one != two {
			t.Errorf("serial numbers differ between hosts: %s, %s", one, two)
		}
	})
	t.Run("READ CAPACITY", func(t *testing.T) {
		contains(t, sh(t, host, "sg_readcap --16 %s", d), "Number of logical blocks=131072", "lbpme=1", "Logical block length=512 bytes", "Logical blocks per physical block exponent=3")
	})
	t.Run("REPORT SUPPORTED OPERATION CODES", func(t *testing.T) {
		out := sh(t, host, "sg_opcodes %s", d)
		contains(t, out, "Compare and write", "Extended copy", "Persistent reserve in, read full status", "Unmap", "Write same(16)", "Report target port groups", "Get LBA status")
	})
	t.Run("REPORT TARGET PORT GROUPS", func(t *testing.T) {
		contains(t, sh(t, host, "sg_rtpg -d %s", d), "active/optimized", "Relative target port ids:")
	})
	t.Run("REPORT LUNS", func(t *testing.T) {
		contains(t, sh(t, host, "sg_luns %s", d), "Report luns", "0000000000000000")
	})
	t.Run("LOG SENSE", func(t *testing.T) {
		contains(t, sh(t, host, "sg_logs %s", d), "0x00        Supported log pages")
	})
	t.Run("MODE SENSE", func(t *testing.T) {
		contains(t, sh(t, host, "sg_modes -p 8 %s", d), "DpoFua=1", "00     88 12 04") // WCE=1
	})
	t.Run("UNMAP and GET LBA STATUS", func(t *testing.T) {
		sh(t, host, "dd if=/dev/urandom of=%s bs=1M count=2 oflag=direct status=none", d)
		contains(t, sh(t, host, "sg_get_lba_status --lba=0 %s", d), "mapped")
		sh(t, host, "sg_unmap --force --lba=0 --num=2048 %s", d)
		contains(t, sh(t, host, "sg_get_lba_status --lba=0 %s", d), "deallocated")
		if got := sh(t, host, "dd if=%s bs=1M count=1 iflag=direct status=none | tr -d '\\0' | wc -c", d); got != "0" {
			t.Errorf("%s bytes that are not zero after UNMAP", got)
		}
	})
	t.Run("WRITE SAME", func(t *testing.T) {
		sh(t, host, "printf 'lintel%%.0s' $(seq 200) | head -c 512 >/tmp/block; sg_write_same --in=/tmp/block --lba=100 --num=50 --xferlen=512 %s", d)
		sh(t, host, "dd if=%s bs=512 skip=149 count=1 iflag=direct status=none | cmp - /tmp/block", d)
		refused(t, host, "dd if=%s bs=512 skip=150 count=1 iflag=direct status=none | cmp - /tmp/block", d)
	})
	t.Run("EXTENDED COPY", func(t *testing.T) {
		copyTo := s.lun(t, host, "copy", "64MiB", 1)
		sh(t, host, `dd if=/dev/urandom of=%s bs=1M count=8 oflag=direct status=none
			sg_xcopy if=%[1]s of=%s bs=512 count=16384 >/tmp/xcopy.log 2>&1 || { cat /tmp/xcopy.log; exit 1; }
			cmp -n 8388608 %[1]s %[2]s`, d, copyTo)
	})
	t.Run("SANITIZE", func(t *testing.T) {
		sanitize := s.lun(t, host, "sanitize", "16MiB", 2)
		sh(t, host, "dd if=/dev/urandom of=%s bs=1M count=4 oflag=direct status=none; sg_sanitize --overwrite --zero --count=1 --quick --wait %[1]s", sanitize)
		if got := sh(t, host, "for i in $(seq 100); do sg_turs %s >/dev/null 2>&1 && break; sleep 0.1; done; dd if=%[1]s bs=1M count=4 iflag=direct status=none | tr -d '\\0' | wc -c", sanitize); got != "0" {
			t.Errorf("%s bytes are left after SANITIZE", got)
		}
	})
	t.Run("COMPARE AND WRITE from two hosts", func(t *testing.T) { compareAndWrite(t, host, d, host2, d2) })
	t.Run("PERSISTENT RESERVE from two hosts", func(t *testing.T) { persistentReservations(t, s, host, d, host2, d2) })
}

// naaOf returns the NAA identifier of a volume as sg_vpd prints it, without 0x.
func naaOf(t testing.TB, s *san, volume string) string {
	t.Helper()
	var v struct {
		Spec struct {
			NAA string `json:"naa_id"`
		} `json:"spec"`
	}
	must(t, json.Unmarshal([]byte(s.lintel(t, "volume", "show", volume, "-o", "json")), &v))
	if !strings.HasPrefix(v.Spec.NAA, "6024c4e") {
		t.Fatalf("volume %s has the NAA identifier %q", volume, v.Spec.NAA)
	}
	return v.Spec.NAA
}

// compareAndWrite lets two hosts count in one block by COMPARE AND WRITE alone: each
// adds one only to the value that it has just read. No increment may be lost.
func compareAndWrite(t *testing.T, host *lab.Machine, d string, host2 *lab.Machine, d2 string) {
	const rounds = 12
	sh(t, host, "dd if=/dev/zero of=%s bs=512 seek=5000 count=1 oflag=direct status=none", d)
	script := `
		done=0; lost=0
		while [ $done -lt %d ]; do
			dd if=%s bs=512 skip=5000 count=1 iflag=direct status=none >/tmp/old
			n=$(head -c 4 /tmp/old | od -An -tu4 | tr -d ' ')
			m=$((n + 1))
			printf "$(printf '\\x%%02x\\x%%02x\\x%%02x\\x%%02x' $((m & 255)) $((m >> 8 & 255)) $((m >> 16 & 255)) $((m >> 24)))" >/tmp/new
			head -c 508 /dev/zero >>/tmp/new
			cat /tmp/old /tmp/new >/tmp/both
			rc=0; sg_compare_and_write --in=/tmp/both --lba=5000 --num=1 --xferlen=1024 %[2]s >/dev/null 2>&1 || rc=$?
			case $rc in
			0) done=$((done + 1)) ;;
			14) lost=$((lost + 1)) ;;
			*) echo "exit code $rc"; exit 1 ;;
			esac
		done
		echo $lost`
	type result struct {
		out string
		err error
	}
	results := make(chan result, 2)
	for m, dev := range map[*lab.Machine]string{host: d, host2: d2} {
		go func() {
			out, err := m.Sh(within(t, 2*time.Minute), fmt.Sprintf(script, rounds, dev))
			results <- result{out, err}
		}()
	}
	for range 2 {
		r := <-results
		if r.err != nil {
			t.Fatalf("%v: %s", r.err, r.out)
		}
		t.Logf("%s races were lost", r.out)
	}
	value := sh(t, host, "dd if=%s bs=512 skip=5000 count=1 iflag=direct status=none | head -c 4 | od -An -tu4 | tr -d ' '", d)
	if value != fmt.Sprint(2*rounds) {
		t.Errorf("the counter is %s after %d increments", value, 2*rounds)
	}
}

// persistentReservations goes through registration, reservation, conflict, preemption
// and persistence over a restart of the target.
func persistentReservations(t *testing.T, s *san, host *lab.Machine, d string, host2 *lab.Machine, d2 string) {
	key := func(k string) string { return "0x" + hex.EncodeToString([]byte(k)) }
	one, two := key("host-one"), key("host-two")
	sh(t, host, "sg_persist --out --register --param-sark=%s --param-aptpl %s", one, d)
	sh(t, host2, "sg_persist --out --register --param-sark=%s --param-aptpl %s", two, d2)
	contains(t, sh(t, host, "sg_persist --in --read-keys %s", d), "2 registered reservation keys", strings.TrimPrefix(one, "0x"), strings.TrimPrefix(two, "0x"))
	contains(t, sh(t, host, "sg_persist --in --report-capabilities %s", d), "Persist Through Power Loss Capable(PTPL_C): 1", "Write Exclusive, registrants only: 1")

	sh(t, host, "sg_persist --out --reserve --param-rk=%s --prout-type=1 %s", one, d) // write exclusive
	contains(t, sh(t, host2, "sg_persist --in --read-reservation %s", d2), "Write Exclusive", strings.TrimPrefix(one, "0x"))
	contains(t, refused(t, host2, "sg_persist --out --reserve --param-rk=%s --prout-type=3 %s", two, d2), "Reservation conflict")
	sh(t, host2, "dd if=%s of=/dev/null bs=512 count=1 iflag=direct status=none", d2)
	refused(t, host2, "dd if=/dev/zero of=%s bs=512 seek=6000 count=1 oflag=direct status=none", d2)
	sh(t, host, "dd if=/dev/zero of=%s bs=512 seek=6000 count=1 oflag=direct status=none", d)

	// Registrations and the reservation survive the target's sudden death (APTPL).
	must(t, s.array.Kill(within(t, time.Minute)))
	must(t, s.array.Up(within(t, time.Minute)))
	for _, m := range []*lab.Machine{host, host2} {
		sh(t, m, "for i in $(seq 300); do iscsiadm -m session -P 1 | grep -q 'iSCSI Session State: LOGGED_IN' && exit 0; sleep 0.1; done; exit 1")
	}
	sh(t, host2, "for i in $(seq 20); do sg_turs %s >/dev/null 2>&1 && break; sleep 0.1; done; true", d2)
	contains(t, sh(t, host2, "sg_persist --in --read-full-status %s", d2), host.IQN(), host2.IQN(), "Reservation holder", "Write Exclusive")
	refused(t, host2, "dd if=/dev/zero of=%s bs=512 seek=6000 count=1 oflag=direct status=none", d2)

	sh(t, host2, "sg_persist --out --preempt --param-rk=%s --param-sark=%s --prout-type=5 %s", two, one, d2)
	contains(t, sh(t, host2, "sg_persist --in --read-reservation %s", d2), "Write Exclusive, registrants only", strings.TrimPrefix(two, "0x"))
	contains(t, sh(t, host2, "sg_persist --in --read-keys %s", d2), "1 registered reservation key")
	contains(t, refused(t, host, "sg_turs %s >/dev/null 2>&1 || true; dd if=/dev/zero of=%[1]s bs=512 seek=6000 count=1 oflag=direct status=none", d), "dd:")
	sh(t, host2, "sg_persist --out --release --param-rk=%s --prout-type=5 %s", two, d2)
	sh(t, host2, "sg_persist --out --clear --param-rk=%s %s", two, d2)
	contains(t, sh(t, host, "sg_turs %s >/dev/null 2>&1 || true; sg_persist --in --read-keys %[1]s", d), "there are NO registered reservation keys")
}
