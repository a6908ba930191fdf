// Package conformance runs libiscsi's test suite (iscsi-test-cu) against a
// real array: single path and multipath, 512 and 4096 byte blocks, thin, thick
// and read-only. Every test of the suite is a subtest here; what the suite
// skips is skipped here with its reason, and only for the reasons listed in
// allowedSkips.
package conformance

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"lintel.io/lintel/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// variant is one volume and way to reach it.
type variant struct {
	name      string
	create    []string // flags of volume create
	readOnly  bool     // mapped read-only
	multipath bool
}

var variants = []variant{
	{name: "thin-512", create: []string{"--block-size", "512"}},
	{name: "thin-512-multipath", create: []string{"--block-size", "512"}, multipath: true},
	{name: "thick-512", create: []string{"--block-size", "512", "--thick"}},
	{name: "thin-4096", create: []string{"--block-size", "4096"}},
	{name: "thin-4096-multipath", create: []string{"--block-size", "4096"}, multipath: true},
	{name: "thick-4096-multipath", create: []string{"--block-size", "4096", "--thick"}, multipath: true},
	{name: "read-only-512", create: []string{"--block-size", "512"}, readOnly: true},
	{name: "read-only-4096", create: []string{"--block-size", "4096"}, readOnly: true},
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
	{regexp.MustCompile(`fully provisioned|does not have LBP|LBPU|LBPWS`), func(v variant) bool { return strings.HasPrefix(v.name, "thick") }},
	{regexp.MustCompile(`multipath|requires .*(2|two|multiple)`), func(v variant) bool { return !v.multipath }},
	// SPC-4 made the byte a reserved one; the test is for older standards.
	{regexp.MustCompile(`SPC-4\+`), func(variant) bool { return true }},
	// WSNZ is 0: a zero length stands for all blocks, so there is no refusal to test.
	{regexp.MustCompile(`LUN is too big`), func(variant) bool { return true }},
}

func TestLibiscsi(t *testing.T) {
	if testing.Short() {
		t.Skip("the conformance suite takes minutes; run it without -short")
	}
	harness.Need(t, "iscsi-test-cu", "libiscsi-bin")
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) { runVariant(t, v) })
	}
}

func runVariant(t *testing.T, v variant) {
	a := harness.Serve(t, 2)
	a.Run(append([]string{"volume", "create", "vol", "--size", "256MiB"}, v.create...)...)
	a.Run("host", "create", "any", "--iqn", "*")
	args := []string{"map", "vol", "any", "--lun", "1"}
	if v.readOnly {
		args = append(args, "--read-only")
	}
	a.Run(args...)

	cu := []string{"--dataloss", "--allow-sanitize", "--Verbose-scsi", "--test=ALL", a.URL(0, 1)}
	if v.readOnly {
		// All tests but those of the read-only family write.
		cu[3] = "--test=SCSI.ReadOnly"
	}
	if v.multipath {
		cu = append(cu, a.URL(1, 1))
	}
	out, err := exec.Command("iscsi-test-cu", cu...).CombinedOutput()
	results := parse(string(out))
	if len(results) == 0 {
		t.Fatalf("iscsi-test-cu ran no test: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "Run Summary") {
		t.Errorf("iscsi-test-cu did not finish: %v\n%s", err, tail(string(out), 4000))
	}
	for _, r := range results {
		t.Run(r.name, func(t *testing.T) {
			switch {
			case r.failed:
				t.Error(tail(r.output, 4000))
			case r.skipped != "" && !skipAllowed(v, r.skipped):
				t.Errorf("skipped for a reason that does not hold here: %s", r.skipped)
			case r.skipped != "":
				t.Skip(r.skipped)
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
	name    string
	failed  bool
	skipped string
	output  string
}

var (
	suiteLine = regexp.MustCompile(`^Suite: (\S+)`)
	testLine  = regexp.MustCompile(`^  Test: (\S+) \.\.\.(.*)`)
)

// parse reads CUnit's basic output: "Suite: S", "  Test: T ...", messages, and
// "passed" or "FAILED" at the end of the test's lines.
func parse(out string) []result {
	var results []result
	suite := ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if m := suiteLine.FindStringSubmatch(line); m != nil {
			suite = m[1]
			continue
		}
		rest := line
		if m := testLine.FindStringSubmatch(line); m != nil {
			results = append(results, result{name: suite + "." + m[1]})
			rest = m[2]
		}
		if strings.HasPrefix(line, "Run Summary") {
			break
		}
		if len(results) == 0 {
			continue
		}
		r := &results[len(results)-1]
		r.output += line + "\n"
		if _, reason, ok := strings.Cut(rest, "[SKIPPED]"); ok && r.skipped == "" {
			r.skipped = strings.TrimSpace(strings.TrimSuffix(reason, "passed"))
		}
		if strings.HasSuffix(rest, "FAILED") {
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
