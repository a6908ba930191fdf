// Package conformance runs libiscsi's test suite (iscsi-test-cu) against a
// real array: single path and multipath, 512 and 4096 byte blocks, thin, thick
// and read-only. Every test of the suite is a subtest here; what the suite
// skips is skipped here with its reason, and only for the reasons listed in
// allowedSkips.
package conformance

import (
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// variant is one volume and way to reach it.
type variant struct {
	name      string
	create    []string // flags of volume create
	readOnly  bool     // mapped read-only
	thick     bool
	multipath bool
	tests     *regexp.Regexp // which tests run, nil for all
	except    *regexp.Regexp // which of them do not
}

// Tests that cannot hold on the plain variants, each with the variant that
// runs it where there is one.
var (
	// The test expects the overwrite to take longer than four seconds; the
	// variant "slow-sanitize" has a volume large enough for that.
	outrun = "Sanitize.Reset"
	// With several logical blocks per physical block the test asks for the status
	// of one address and expects another one's in the first descriptor, against
	// SBC-3 §5.6.2; it holds where the two sizes are the same.
	mistaken = "GetLBAStatus.UnmapSingle"
)

var variants = []variant{
	{name: "thin-512", create: []string{"--block-size", "512", "--physical-exponent", "0"}, except: exactly(outrun)},
	{name: "thin-512-multipath", create: []string{"--block-size", "512", "--physical-exponent", "0"}, multipath: true, except: exactly(outrun)},
	{name: "thin-512e", create: []string{"--block-size", "512"}, except: exactly(outrun, mistaken)},
	{name: "thick-512", create: []string{"--block-size", "512", "--thick"}, thick: true, except: exactly(outrun)},
	{name: "thin-4096", create: []string{"--block-size", "4096"}, except: exactly(outrun)},
	{name: "thin-4096-multipath", create: []string{"--block-size", "4096"}, multipath: true, except: exactly(outrun)},
	{name: "thick-4096-multipath", create: []string{"--block-size", "4096", "--thick"}, thick: true, multipath: true, except: exactly(outrun)},
	// On a read-only unit the suite's other tests fail where they prepare data.
	{name: "read-only-512", create: []string{"--block-size", "512"}, readOnly: true, tests: reading},
	{name: "read-only-4096", create: []string{"--block-size", "4096"}, readOnly: true, tests: reading},
	{name: "slow-sanitize", create: []string{"--size", "64TiB", "--kind", "null"}, tests: exactly(outrun)},
}

// reading matches the tests that do not need to write.
var reading = regexp.MustCompile(`^(ReadOnly|Inquiry|Mandatory|ModeSense6|NoMedia|Prefetch1[06]|PrinReadKeys|PrinServiceactionRange|PrinReportCapabilities|Read6|Read10|Read12|Read16|ReadCapacity1[06]|ReadDefectData1[02]|ReportSupportedOpcodes|Reserve6|StartStopUnit|TestUnitReady|iSCSITMF)\.`)

func exactly(names ...string) *regexp.Regexp {
	for i, n := range names {
		names[i] = regexp.QuoteMeta(n)
	}
	return regexp.MustCompile("^(" + strings.Join(names, "|") + ")$")
}

// allowedSkips are the reasons for which a test of the suite may be left out,
// as the suite words them, each with the variants it is right for.
var allowedSkips = []struct {
	reason *regexp.Regexp
	right  func(variant) bool
}{
	// Fixed disks have no medium to remove.
	{regexp.MustCompile(`not removable`), func(variant) bool { return true }},
	// The tests for write protection want a read-only unit, all others a writable one.
	{regexp.MustCompile(`not write-? ?protected`), func(v variant) bool { return !v.readOnly }},
	{regexp.MustCompile(`fully provisioned|does not have LBP|LBPU|LBPWS`), func(v variant) bool { return v.thick }},
	{regexp.MustCompile(`multipath|requires .*(2|two|multiple)`), func(v variant) bool { return !v.multipath }},
	// SPC-4 made the byte a reserved one; the test is for older standards.
	{regexp.MustCompile(`SPC-4\+`), func(variant) bool { return true }},
	// WSNZ is 0: a zero length stands for all blocks, so there is no refusal to test.
	{regexp.MustCompile(`LUN is too big`), func(variant) bool { return true }},
}

// suite lists the tests of the installed suite as FAMILY.TEST.
func suite(t *testing.T) []string {
	t.Helper()
	out, err := harness.Command("iscsi-test-cu", "--list")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for f := range strings.FieldsSeq(out) {
		if name, ok := strings.CutPrefix(f, "ALL."); ok && strings.Contains(name, ".") {
			names = append(names, name)
		}
	}
	if len(names) < 200 {
		t.Fatalf("the suite lists only %d tests:\n%s", len(names), out)
	}
	return names
}

func TestLibiscsi(t *testing.T) {
	if testing.Short() {
		t.Skip("the conformance suite takes minutes; run it without -short")
	}
	harness.Need(t, "iscsi-test-cu", "libiscsi-bin")
	all := suite(t)
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			a := harness.Serve(t, 2)
			// A size given again in create counts.
			a.Run(append([]string{"volume", "create", "vol", "--size", "256MiB"}, v.create...)...)
			a.Run("host", "create", "any", "--iqn", "*")
			args := []string{"map", "vol", "any", "--lun", "1"}
			if v.readOnly {
				args = append(args, "--read-only")
			}
			a.Run(args...)
			urls := []string{a.URL(0, 1)}
			if v.multipath {
				urls = append(urls, a.URL(1, 1))
			}
			ran := 0
			for _, name := range all {
				if v.tests != nil && !v.tests.MatchString(name) || v.except != nil && v.except.MatchString(name) {
					continue
				}
				ran++
				t.Run(name, func(t *testing.T) { runTest(t, v, name, urls) })
			}
			if ran == 0 {
				t.Error("the variant runs no test")
			}
		})
	}
}

// testTime bounds one test of the suite.
const testTime = 5 * time.Minute

func runTest(t *testing.T, v variant, name string, urls []string) {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	args := append([]string{"--dataloss", "--allow-sanitize", "--Verbose-scsi", "--test=ALL." + name}, urls...)
	out, err := exec.CommandContext(ctx, "iscsi-test-cu", args...).CombinedOutput()
	text := string(out)
	if err != nil {
		t.Fatalf("iscsi-test-cu: %v\n%s", err, tail(text, 4000))
	}
	if m := counts.FindStringSubmatch(text); m == nil || m[1] != "1" {
		t.Fatalf("iscsi-test-cu did not run the test:\n%s", tail(text, 4000))
	} else if m[2] != "0" {
		t.Fatal(tail(text, 4000))
	}
	for line := range strings.Lines(text) {
		_, reason, ok := strings.Cut(line, "[SKIPPED]")
		if !ok {
			continue
		}
		reason = strings.TrimSpace(reason)
		if !skipAllowed(v, reason) {
			t.Errorf("skipped for a reason that does not hold here: %s", reason)
		}
		t.Skip(reason)
	}
}

// counts matches the suite's summary: tests total, run, passed, failed.
var counts = regexp.MustCompile(`(?m)^ +tests +\d+ +(\d+) +\d+ +(\d+) `)

func skipAllowed(v variant, reason string) bool {
	for _, s := range allowedSkips {
		if s.reason.MatchString(reason) && s.right(v) {
			return true
		}
	}
	return false
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "..." + s[len(s)-n:]
}
