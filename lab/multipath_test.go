package lab_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// load is a fio job with verification that runs on a host while things happen.
type load struct {
	t     testing.TB
	host  *lab.Machine
	ended bool
}

// startLoad starts random verified writes and reads to a device, which go on until
// they are ended; every read is checked. It returns when the first one is about to begin.
func startLoad(t testing.TB, host *lab.Machine, device string, options ...string) *load {
	t.Helper()
	ctx := within(t, time.Minute)
	_, err := host.Run(ctx, "test", "-b", device)
	must(t, err)
	sh(t, host, "rm -f /tmp/load.json /tmp/load.begun")
	must(t, host.Start(ctx, "fio", append([]string{"fio", "--name=load", "--filename=" + device, "--size=24m", "--rw=randrw", "--bs=4k",
		"--direct=1", "--ioengine=libaio", "--iodepth=8", "--rate_iops=400", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64",
		"--time_based", "--runtime=600", "--output=/tmp/load.json", "--output-format=json", "--exec_prerun=touch /tmp/load.begun"}, options...)...))
	// Before that a signal would kill it instead of ending it in good order.
	sh(t, host, "for i in $(seq 600); do [ -e /tmp/load.begun ] && exit 0; sleep 0.1; done; echo 'fio does not begin' >&2; exit 1")
	l := &load{t: t, host: host}
	t.Cleanup(l.kill)
	return l
}

// kill leaves no load of a failed test to the next one.
func (l *load) kill() {
	if l.ended {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.host.Signal(ctx, "fio", 9); err != nil {
		return
	}
	_, _ = l.host.Wait(ctx, "fio")
}

// end ends the load in good order and checks that no I/O failed.
func (l *load) end() {
	l.t.Helper()
	ctx := within(l.t, 3*time.Minute)
	must(l.t, l.host.Signal(ctx, "fio", 2))
	state, err := l.host.Wait(ctx, "fio")
	must(l.t, err)
	l.ended = true
	log, _ := l.host.ReadFile(ctx, state.Log)
	// The signal reaches fio and its worker; fio may die of it once its report is whole.
	out := sh(l.t, l.host, `sed -n '/^{/,$p' /tmp/load.json | tee /tmp/report | tr -d ' ",' | awk -F: '
		/^error:/ { e = $2 } /^total_ios:/ { n += $2 } /^max:/ { if ($2 > m) m = $2 } END { print e, n, m }'
		tail -1 /tmp/report | grep -qx '}' || { echo "the report is cut"; cat /tmp/report; }`)
	if state.Code != 0 && state.Code != 128 && state.Code != -2 {
		l.t.Fatalf("fio ended with %d: %s\n%.3000s", state.Code, log, out)
	}
	fields := strings.Fields(out)
	if len(fields) != 3 || fields[0] != "0" || fields[1] == "0" {
		l.t.Fatalf("fio's errors, operations and longest: %s: %s", out, log)
	}
	took, err := time.ParseDuration(fields[2] + "ns")
	must(l.t, err)
	l.t.Logf("fio: %s operations, the longest took %s", fields[1], took.Round(time.Millisecond))
}

// paths waits until the host has a multipath device with n usable paths.
func paths(t testing.TB, host *lab.Machine, n int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	device, err := host.Multipath(ctx, n)
	must(t, err)
	return device
}

// TestMultipath checks two portals under dm-multipath with access states and path faults under verified load (SPC-4 §5.15, §6.37, RFC 7143 §6.3.5).
func TestMultipath(t *testing.T) {
	s := hostSide(t, "host1")
	host := s.host
	s.lintel(t, "portal", "remove", s.array.Portals[1], "--yes")
	s.lintel(t, "portal", "add", s.array.Portals[1], "--port-group", "2")
	s.lintel(t, "host", "create", "host1", "--iqn", host.IQN())
	s.volume(t, "m1", "128MiB", 1)
	must(t, host.Login(within(t, time.Minute), s.array.Portals...))
	device := paths(t, host, 2)
	var disks [2]string
	for i, network := range []string{"san-a", "san-b"} {
		disks[i] = strings.TrimPrefix(disk(t, host, s.array.Address(network), 1), "/dev/")
	}

	t.Run("the map is what the array says", func(t *testing.T) {
		out := sh(t, host, "multipath -ll")
		contains(t, out, "LINTEL,VIRTUAL-DISK", "hwhandler='1 alua'", "policy='service-time 0'", "prio=50 status=active", "queue_if_no_path")
		contains(t, out, "(3"+naaOf(t, s, "m1")+")")
	})
	t.Run("access states", func(t *testing.T) { accessStates(t, s, device, disks) })
	t.Run("a link cut for 1 s", func(t *testing.T) {
		l := startLoad(t, host, device)
		written(t, host, device)
		must(t, host.Cut(within(t, time.Minute), "san-a", lab.Both))
		time.Sleep(time.Second)
		must(t, host.Heal(within(t, time.Minute), "san-a"))
		time.Sleep(2 * time.Second)
		paths(t, host, 2)
		l.end()
	})
	for _, direction := range []lab.Direction{lab.Both, lab.In} {
		t.Run("a link cut until its path has failed: "+string(direction), func(t *testing.T) {
			l := startLoad(t, host, device)
			written(t, host, device)
			// The host has to use the worse path, and may not declare it good.
			s.lintel(t, "target", "set-state", "default", "non-optimized", "--port-group", "1")
			must(t, host.Cut(within(t, time.Minute), "san-b", direction))
			paths(t, host, 1)
			written(t, host, device)
			contains(t, sh(t, host, "sg_rtpg -d /dev/%s | grep -A1 'group id : 0x1 '", disks[0]), "0x01 (active/non optimized)")
			s.lintel(t, "target", "set-state", "default", "optimized", "--port-group", "1")
			must(t, host.Heal(within(t, time.Minute), "san-b"))
			paths(t, host, 2)
			l.end()
		})
	}
	t.Run("a disturbed link", func(t *testing.T) {
		l := startLoad(t, host, device)
		must(t, host.Disturb(within(t, time.Minute), "san-a", "delay 5ms 2ms loss 2% reorder 5%"))
		written(t, host, device)
		time.Sleep(2 * time.Second)
		must(t, host.Disturb(within(t, time.Minute), "san-a", ""))
		l.end()
	})
	t.Run("the array is killed and comes back", func(t *testing.T) {
		l := startLoad(t, host, device)
		written(t, host, device)
		must(t, s.array.Kill(within(t, time.Minute)))
		time.Sleep(2 * time.Second)
		must(t, s.array.Up(within(t, time.Minute)))
		paths(t, host, 2)
		l.end()
	})
	t.Run("the array stops and comes back", func(t *testing.T) {
		l := startLoad(t, host, device)
		written(t, host, device)
		must(t, s.array.Stop(within(t, time.Minute)))
		must(t, s.array.Up(within(t, time.Minute)))
		paths(t, host, 2)
		l.end()
	})
	t.Run("a portal goes and comes back", func(t *testing.T) {
		l := startLoad(t, host, device)
		written(t, host, device)
		s.lintel(t, "portal", "remove", s.array.Portals[0], "--yes")
		paths(t, host, 1)
		s.lintel(t, "portal", "add", s.array.Portals[0])
		paths(t, host, 2)
		l.end()
	})
}
