package lab_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestSG3Utils checks what sg3_utils reads from a volume through Linux (SPC-4 §6.4, §6.6, §6.34, §6.35, §6.37, §7.8, SBC-3 §5.5, §5.7, §5.16, §5.28, §5.31).
func TestSG3Utils(t *testing.T) {
	s := loggedIn(t, "host1")
	host := s.host
	stop(t, host, "multipathd") // the disks as such
	d := s.lun(t, host, "sg", "64MiB", 0)
	naa := naaOf(t, s, "sg")

	t.Run("INQUIRY", func(t *testing.T) {
		out := sh(t, host, "sg_inq %s", d)
		contains(t, out, "Vendor identification: LINTEL", "Product identification: VIRTUAL-DISK", "PDT=0", "TPGS=3", "CmdQue=1", "3PC=1")
	})
	for _, of := range []struct {
		page, name string
		want       []string
	}{
		{"00", "sv", []string{"Unit serial number [sn]", "Device identification [di]", "Extended inquiry data [ei]", "Third party copy [tpc]", "Block limits (SBC) [bl]",
			"Block device characteristics (SBC) [bdc]", "Logical block provisioning (SBC) [lbpv]"}},
		{"80", "sn", []string{"Unit serial number: "}},
		{"83", "di", []string{"designator type: NAA,  code set: Binary\n      0x" + naa, "EUI-64 based", "vendor id: LINTEL", "Relative target port: 0x1", "Target port group: 0x1",
			"SCSI name string:\n      iqn.2026-11.io.lintel:", ",t,0x0001", "Target device that contains addressed lu"}},
		{"86", "ei", []string{"HEADSUP=1 ORDSUP=1 SIMPSUP=1", "V_SUP=1", "LUICLR=1", "Maximum supported sense data length=252"}},
		{"8f", "tpc", []string{"Extended copy(LID1)", "Populate token", "Write using token", "Receive ROD token information", "block -> block [0x2]", "CSCD: Identification Descriptor [0xe4]"}},
		{"b0", "bl", []string{"Write same non-zero (WSNZ): 1", "Maximum compare and write length: 255 blocks", "Maximum transfer length: 16384 blocks",
			"Maximum unmap LBA count: -1 [unbounded]", "Maximum unmap block descriptor count: 256", "Optimal unmap granularity: 8 blocks", "Maximum atomic transfer length: 8 blocks"}},
		{"b1", "bdc", []string{"Non-rotating medium", "Product type: Not specified"}},
		{"b2", "lbpv", []string{"Unmap command supported (LBPU): 1", "Write same (16) with unmap bit supported (LBPWS): 1", "Logical block provisioning read zeros (LBPRZ): 1", "Provisioning type: 2 (thin"}},
	} {
		t.Run("VPD page "+of.page, func(t *testing.T) {
			contains(t, sh(t, host, "sg_vpd --page=%s %s", of.name, d), of.want...)
			// The same page through another program, by its number.
			if got := sh(t, host, "sg_inq --raw --page=0x%s %s | od -An -tx1 -N2", of.page, d); got != "00 "+of.page {
				t.Errorf("page 0x%s begins with %q", of.page, got)
			}
		})
	}
	t.Run("READ CAPACITY", func(t *testing.T) {
		contains(t, sh(t, host, "sg_readcap --16 %s", d), "Number of logical blocks=131072", "lbpme=1", "Logical block length=512 bytes", "Logical blocks per physical block exponent=3")
	})
	t.Run("REPORT SUPPORTED OPERATION CODES", func(t *testing.T) {
		out := sh(t, host, "sg_opcodes %s", d)
		contains(t, out, "Compare and write", "Extended copy(LID1)", "Persistent reserve in, read full status", "Unmap", "Write same(16)", "Report target port groups", "Get LBA status(16)",
			"Sanitize, overwrite", "Populate token")
		contains(t, sh(t, host, "sg_opcodes --opcode=0x89 %s", d), "Command_name: Compare and write", "Command is supported", "Usage data: 89 1a ff ff ff ff ff ff ff ff 00 00 00 ff 1f 00")
		contains(t, sh(t, host, "sg_opcodes --opcode=0x04 %s || true", d), "Command is NOT supported") // FORMAT UNIT
		contains(t, sh(t, host, "sg_opcodes --tmf %s", d), "Abort task\n", "Abort task set", "Clear task set", "Logical unit reset", "Query task\n", "Query task set", "I_T nexus reset")
	})
	t.Run("REPORT TARGET PORT GROUPS", func(t *testing.T) {
		contains(t, sh(t, host, "sg_rtpg -d %s", d), "target port group id : 0x1 , Pref=0", "0x00 (active/optimized)",
			"T_SUP : 1, O_SUP : 1, LBD_SUP : 0, U_SUP : 1, S_SUP : 1, AN_SUP : 1, AO_SUP : 1", "target port count : 03", "Relative target port ids:")
		contains(t, sh(t, host, "sg_rtpg -d -e %s", d), "Implicit transition time: 0", "target port group id : 0x1")
	})
	t.Run("REPORT LUNS", func(t *testing.T) {
		contains(t, sh(t, host, "sg_luns %s", d), "Report luns", "0000000000000000")
	})
	t.Run("LOG SENSE", func(t *testing.T) {
		contains(t, sh(t, host, "sg_logs %s", d), "0x00        Supported log pages", "0x0c        Logical block provisioning", "0x0d        Temperature", "0x2f        Informational exceptions")
		contains(t, sh(t, host, "sg_logs --page=lbp %s", d), "Available LBA mapping threshold resource count:", "Scope: not dedicated to lu", "Used LBA mapping threshold resource count: 0\n", "Scope: dedicated to lu")
		contains(t, sh(t, host, "sg_logs --page=ie %s", d), "IE asc = 0x0, ascq = 0x0")
	})
	t.Run("MODE SENSE", func(t *testing.T) {
		contains(t, sh(t, host, "sg_modes -p 8 %s", d), "DpoFua=1", "00     88 12 04") // WCE=1
	})
	t.Run("UNMAP and GET LBA STATUS", func(t *testing.T) {
		sh(t, host, "dd if=/dev/urandom of=%s bs=1M count=2 oflag=direct status=none", d)
		// Descriptors of LBA, number of blocks and state: 0 is mapped, 1 deallocated.
		status := "sg_get_lba_status --maxlen=4096 --brief --lba=0 %s | grep ^0x | tr -s ' ' | cut -d' ' -f1-3 | paste -sd ';'"
		if got, want := sh(t, host, status, d), "0x0000000000000000 0x1000 0;0x0000000000001000 0x1f000 1"; got != want {
			t.Errorf("written: %s, want %s", got, want)
		}
		sh(t, host, "sg_unmap --force --lba=8 --num=2040 %s", d)
		if got, want := sh(t, host, status, d), "0x0000000000000000 0x8 0;0x0000000000000008 0x7f8 1;0x0000000000000800 0x800 0;0x0000000000001000 0x1f000 1"; got != want {
			t.Errorf("unmapped: %s, want %s", got, want)
		}
		sh(t, host, "sg_unmap --force --lba=0 --num=8 %s", d)
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
			sg_xcopy if=%[1]s of=%s bs=512 count=16384 2>&1 | grep -q '16384 blocks, 1 command'
			blockdev --flushbufs %[1]s; blockdev --flushbufs %[2]s # the copy is the array's: what the host has cached is old
			cmp -n 8388608 %[1]s %[2]s`, d, copyTo)
	})
	t.Run("COMPARE AND WRITE", func(t *testing.T) {
		sh(t, host, `dd if=/dev/zero of=%s bs=512 seek=5000 count=1 oflag=direct status=none
			{ head -c 512 /dev/zero; printf '%%-512s' new; } >/tmp/pair
			sg_compare_and_write --in=/tmp/pair --lba=5000 --num=1 --xferlen=1024 %[1]s`, d)
		contains(t, refused(t, host, "sg_compare_and_write --in=/tmp/pair --lba=5000 --num=1 --xferlen=1024 --verbose %s", d), "Miscompare")
		contains(t, sh(t, host, "dd if=%s bs=512 skip=5000 count=1 iflag=direct status=none", d), "new")
	})
	t.Run("SANITIZE", func(t *testing.T) {
		sanitize := s.lun(t, host, "sanitize", "16MiB", 2)
		for _, how := range []string{"--overwrite --zero --count=1", "--block"} {
			sh(t, host, "dd if=/dev/urandom of=%s bs=1M count=4 oflag=direct status=none; sg_sanitize %s --quick --wait %[1]s", sanitize, how)
			contains(t, sh(t, host, "sg_requests %s 2>&1", sanitize), "No Sense")
			if got := sh(t, host, "for i in $(seq 300); do sg_turs %s >/dev/null 2>&1 && break; sleep 0.1; done; dd if=%[1]s bs=1M count=4 iflag=direct status=none | tr -d '\\0' | wc -c", sanitize); got != "0" {
				t.Errorf("%s bytes are left after SANITIZE %s", got, how)
			}
		}
		contains(t, refused(t, host, "sg_sanitize --crypto --quick --wait %s 2>&1", sanitize), "Illegal request")
	})
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
