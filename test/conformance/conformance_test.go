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
	// The test sends up to 256 blocks whatever MAXIMUM ATOMIC TRANSFER LENGTH says;
	// the variants in memory have no lower limit.
	boundless = "WriteAtomic16.Simple"
)

var variants = []variant{
	{name: "thin-512", create: []string{"--block-size", "512", "--physical-exponent", "0"}, except: exactly(outrun, boundless)},
	{name: "thin-512-multipath", create: []string{"--block-size", "512", "--physical-exponent", "0"}, multipath: true, except: exactly(outrun, boundless)},
	{name: "thin-512e", create: []string{"--block-size", "512"}, except: exactly(outrun, boundless, mistaken)},
	{name: "thick-512", create: []string{"--block-size", "512", "--thick"}, thick: true, except: exactly(outrun, boundless)},
	{name: "thin-4096", create: []string{"--block-size", "4096"}, except: exactly(outrun, boundless)},
	{name: "thin-4096-multipath", create: []string{"--block-size", "4096"}, multipath: true, except: exactly(outrun, boundless)},
	{name: "thick-4096-multipath", create: []string{"--block-size", "4096", "--thick"}, thick: true, multipath: true, except: exactly(outrun, boundless)},
	{name: "memory-512", create: []string{"--block-size", "512", "--kind", "mem"}, tests: atomic},
	{name: "memory-4096", create: []string{"--block-size", "4096", "--kind", "mem"}, tests: atomic},
	// On a read-only unit the suite's other tests fail where they prepare data.
	{name: "read-only-512", create: []string{"--block-size", "512"}, readOnly: true, tests: reading},
	{name: "read-only-4096", create: []string{"--block-size", "4096"}, readOnly: true, tests: reading},
	{name: "slow-sanitize", create: []string{"--size", "64TiB", "--kind", "null"}, tests: exactly(outrun)},
}

// atomic matches the tests of WRITE ATOMIC, whose limits follow from the kind of volume.
var atomic = regexp.MustCompile(`^WriteAtomic16\.`)

// reading matches the tests that do not need to write.
var reading = regexp.MustCompile(`^(ReadOnly|Inquiry|Mandatory|ModeSense6|NoMedia|Prefetch1[06]|PrinReadKeys|PrinServiceactionRange|PrinReportCapabilities|Read6|Read10|Read12|Read16|ReadCapacity1[06]|ReadDefectData1[02]|ReportSupportedOpcodes|Reserve6|StartStopUnit|TestUnitReady)\.`)

func exactly(names ...string) *regexp.Regexp {
	for i, n := range names {
		names[i] = regexp.QuoteMeta(n)
	}
	return regexp.MustCompile("^(" + strings.Join(names, "|") + ")$")
}

// allowedSkips are the reasons for which the suite may leave a test, or a part
// of one, out, as it words them, each with the variants it is right for.
var allowedSkips = []struct {
	reason *regexp.Regexp
	right  func(variant) bool
}{
	// Fixed disks have no medium to remove.
	{regexp.MustCompile(`not removable`), always},
	// The test of write protection wants a read-only unit.
	{regexp.MustCompile(`not write-? ?protected`), func(v variant) bool { return !v.readOnly }},
	// A thick volume does not unmap.
	{regexp.MustCompile(`fully provisioned|does not have LBP|LBPU|LBPWS`), func(v variant) bool { return v.thick }},
	{regexp.MustCompile(`(?i)multipath unavailable`), func(v variant) bool { return !v.multipath }},
	// The test needs several logical blocks in a physical one: 512e has them.
	{regexp.MustCompile(`LBPPB < 2`), func(v variant) bool { return v.name != "thin-512e" }},
	// Where an atomic write is one block, and in memory, there is no alignment to violate.
	{regexp.MustCompile(`No (alignment|granularity) restrictions`), always},
	// Block erase deallocates, which a thick volume does not.
	{regexp.MustCompile(`(BLOCK_ERASE|UNMAP) is not implemented`), func(v variant) bool { return v.thick }},
	// WSNZ says that a length of zero is refused; UnmapUntilEnd checks the refusal.
	{regexp.MustCompile(`WRITESAME1[06] does not support 0-blocks`), always},
	// Volumes are not encrypted, so there is no key to change.
	{regexp.MustCompile(`CRYPTO_ERASE is not`), always},
	// SPC-4 made the byte a reserved one; the test is for older standards.
	{regexp.MustCompile(`SPC-4\+`), always},
}

func always(variant) bool { return true }

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
			for _, tests := range batches(all, v) {
				ran += len(tests)
				runTests(t, v, tests, urls)
			}
			if ran == 0 {
				t.Error("the variant runs no test")
			}
		})
	}
}

// batches splits the tests of a variant into runs of the suite's program: one a
// family, because some tests build on what the family's earlier ones left in the
// program; test by test where the variant leaves some of the family out.
func batches(all []string, v variant) [][]string {
	var list [][]string
	whole := map[string]bool{}
	for _, name := range all {
		family, _, _ := strings.Cut(name, ".")
		if _, seen := whole[family]; !seen {
			whole[family] = true
		}
		if !v.runs(name) {
			whole[family] = false
		}
	}
	for _, name := range all {
		family, _, _ := strings.Cut(name, ".")
		last := len(list) - 1
		switch {
		case !v.runs(name):
		case whole[family] && last >= 0 && strings.HasPrefix(list[last][0], family+"."):
			list[last] = append(list[last], name)
		default:
			list = append(list, []string{name})
		}
	}
	return list
}

func (v variant) runs(name string) bool {
	return (v.tests == nil || v.tests.MatchString(name)) && (v.except == nil || !v.except.MatchString(name))
}

// batchTime bounds one run of the suite's program.
const batchTime = 5 * time.Minute

func runTests(t *testing.T, v variant, names, urls []string) {
	ctx, cancel := context.WithTimeout(context.Background(), batchTime)
	defer cancel()
	which := names[0]
	if len(names) > 1 {
		which, _, _ = strings.Cut(which, ".")
	}
	args := append([]string{"--dataloss", "--allow-sanitize", "--Verbose-scsi", "--test=ALL." + which}, urls...)
	out, err := exec.CommandContext(ctx, "iscsi-test-cu", args...).CombinedOutput()
	text := string(out)
	results := parse(text)
	finished := strings.Contains(text, "Run Summary")
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			r, ok := results[name]
			switch {
			case !ok || !finished:
				t.Fatalf("iscsi-test-cu did not run the test to its end: %v\n%s", err, tail(text, 4000))
			case r.failed:
				t.Fatal(tail(r.output, 4000))
			}
			for _, reason := range r.skips {
				if !skipAllowed(v, reason) {
					t.Errorf("skipped for a reason that does not hold here: %s", reason)
				}
			}
			switch {
			case len(r.skips) > 0 && !r.worked:
				t.Skip(r.skips[0])
			case len(r.skips) > 0:
				t.Logf("in part: %s", r.skips[0])
			}
		})
	}
}

func skipAllowed(v variant, reason string) bool {
	for _, s := range allowedSkips {
		if s.reason.MatchString(reason) && s.right(v) {
			return true
		}
	}
	return false
}

type result struct {
	failed bool
	skips  []string
	worked bool // it sent commands after a skip message, or before one: only a part was left out
	output string
}

var (
	suiteLine = regexp.MustCompile(`^Suite: (\S+)`)
	testLine  = regexp.MustCompile(`^  Test: (\S+) \.\.\.`)
	sentLine  = regexp.MustCompile(`^    Send (SANITIZE|WRITE|READ1)`)
)

// parse reads CUnit's output: "Suite: S", "  Test: T ...", messages, and
// "passed" or "FAILED" at the end of a line.
func parse(out string) map[string]*result {
	results := map[string]*result{}
	suite := ""
	var r *result
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if m := suiteLine.FindStringSubmatch(line); m != nil {
			suite, r = m[1], nil
			continue
		}
		if m := testLine.FindStringSubmatch(line); m != nil {
			r = &result{}
			results[suite+"."+m[1]] = r
		}
		if strings.HasPrefix(line, "Run Summary") {
			break
		}
		if r == nil {
			continue
		}
		r.output += line + "\n"
		if _, reason, ok := strings.Cut(line, "[SKIPPED]"); ok {
			r.skips = append(r.skips, strings.TrimSpace(reason))
		}
		if sentLine.MatchString(line) {
			r.worked = true
		}
		if strings.HasSuffix(line, "FAILED") {
			r.failed = true
		}
	}
	return results
}

func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return "..." + s[len(s)-n:]
}
