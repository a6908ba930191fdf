package lab_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lintel.io/lintel/lab"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(childVariable); name != "" {
		holdLab(name)
	}
	if len(os.Args) > 2 && os.Args[1] == "lab" && os.Args[2] == "keep" {
		// A lab whose program is the test binary: see TestStartThatFailsLeavesNothing.
		if err := lab.Keep(context.Background(), os.Args[3], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", fmt.Sprint(labsAtOnce())); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// labsAtOnce is how many labs the tests have at a time: they wait more than they
// work, for leases and timeouts, and three guests of 512 MiB are the most of one lab.
func labsAtOnce() int {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 1
	}
	memory := int(info.Totalram * uint64(info.Unit) >> 20)
	return max(1, min(2*runtime.NumCPU(), memory/2048))
}

// san is what the tests of one lab work with.
type san struct {
	*lab.Lab
	array *lab.Array
	host  *lab.Machine
	disk  *lab.FaultyDisk // below the array's file system, of onHead
}

// within returns a context that ends after d.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// sh runs a script on a machine and ends the test when it fails.
func sh(t testing.TB, m *lab.Machine, script string, args ...any) string {
	t.Helper()
	out, err := m.Sh(within(t, 2*time.Minute), fmt.Sprintf(script, args...))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// whenFree runs a command that needs a device which nobody has open, again and again
// until it succeeds: udev opens a device to look into it after somebody has written to it.
func whenFree(t testing.TB, m *lab.Machine, command string, args ...any) {
	t.Helper()
	sh(t, m, `for i in $(seq 300); do out=$(%s 2>&1) && exit 0; sleep 0.1; done; echo "$out" >&2; exit 1`, fmt.Sprintf(command, args...))
}

// stop ends all processes of a program and waits until they are gone.
func stop(t testing.TB, m *lab.Machine, program string) {
	t.Helper()
	sh(t, m, "pkill -x %s; for i in $(seq 300); do pgrep -x %[1]s >/dev/null || exit 0; sleep 0.1; done; echo 'it does not end' >&2; exit 1", program)
}

// refused runs a script that has to fail and returns all that it printed.
func refused(t testing.TB, m *lab.Machine, script string, args ...any) string {
	t.Helper()
	script = fmt.Sprintf(script, args...)
	r, err := m.Run(within(t, time.Minute), "bash", "-euo", "pipefail", "-c", script)
	if err == nil {
		t.Fatalf("%s: %s succeeded, want it refused: %s", m.Name, script, r.Stdout)
	}
	if r.TimedOut {
		t.Fatal(err)
	}
	return r.Stdout + r.Stderr
}

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contains ends the test unless text has all of the words.
func contains(t testing.TB, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Fatalf("no %q in:\n%s", w, text)
		}
	}
}

// lintel runs a command of the array's command line.
func (s *san) lintel(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.array.Lintel(within(t, time.Minute), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// hostSide starts a lab whose array runs on the host side, the quickest one there is,
// with the given guests as initiators.
func hostSide(t *testing.T, hosts ...string) *san {
	t.Parallel()
	topology := lab.Topology{Name: "host-side", Networks: []string{"san-a", "san-b"}}
	for _, h := range hosts {
		topology.Guests = append(topology.Guests, lab.GuestSpec{Name: h, Role: "host"})
	}
	s := &san{Lab: lab.New(t, topology)}
	s.host = s.Machine(hosts[0])
	ctx := within(t, 3*time.Minute)
	var err error
	s.array, err = s.Machine(lab.HostSide).Serve(ctx, t.TempDir()+"/array", topology.Networks)
	must(t, err)
	s.showLog(t)
	s.lintel(t, "portal", "add", s.Machine(lab.HostSide).Address6("san-a"))
	for _, h := range hosts {
		must(t, s.Machine(h).StartInitiator(ctx))
	}
	return s
}

// showLog prints what the array has logged when the test fails.
func (s *san) showLog(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := s.array.ServeLog(context.Background())
			t.Logf("the array's log:\n%s", text)
		}
	})
}

// volume makes a volume that host1 sees as LUN lun, and forgets it with the test.
func (s *san) volume(t *testing.T, name, size string, lun int, args ...string) {
	t.Helper()
	s.lintel(t, append([]string{"volume", "create", name, "--size", size}, args...)...)
	s.lintel(t, "map", name, s.host.Name, "--lun", fmt.Sprint(lun))
}

// disk waits for the only SCSI disk of a LUN on the host that is no part of a
// multipath device's making and returns its path by session.
func disk(t testing.TB, m *lab.Machine, portal string, lun int) string {
	t.Helper()
	return sh(t, m, `for i in $(seq 1200); do
		for d in /dev/disk/by-path/ip-%s:3260-iscsi-*-lun-%d; do
			[ -b "$d" ] && readlink -f "$d" && exit 0
		done; sleep 0.05
	done; echo "no disk" >&2; ls /dev/disk/by-path >&2; exit 1`, portal, lun)
}
