package lab_test

import (
	"fmt"
	"strings"
	"testing"

	"lintel.io/lintel/lab"
)

// accessStates goes through the access states of the second portal's target port group
// under load. The host learns of each by itself: from a unit attention, and by looking.
func accessStates(t *testing.T, s *san, device string, disks [2]string) {
	set := func(group int, state string) {
		t.Helper()
		s.lintel(t, "target", "set-state", "default", state, "--port-group", fmt.Sprint(group), "--yes")
	}
	l := startLoad(t, s.host, device)
	written(t, s.host, device)
	for _, of := range []struct{ state, rtpg, kernel, path, prio string }{
		{"non-optimized", "0x01 (active/non optimized)", "active/non-optimized", "active ready", "10"},
		{"standby", "0x02 (standby)", "standby", "active ghost", "1"},
		{"unavailable", "0x03 (unavailable)", "unavailable", "failed faulty", "0"},
		{"offline", "0x0e (offline)", "offline", "failed faulty", "0"},
		{"transitioning", "0x0f (transitioning between states)", "transitioning", "failed faulty", "0"},
	} {
		set(2, of.state)
		// The better group is active, the other one stands by with its priority.
		grouped(t, s.host, "prio=50 status=active", disks[0]+" active ready", "prio="+of.prio+" status=enabled", disks[1]+" "+of.path)
		kernelState(t, s.host, disks[1], of.kernel)
		contains(t, sh(t, s.host, "sg_rtpg -d %s | tr -s ' ' | grep -A1 'group id : 0x2 '", "/dev/"+disks[0]), of.rtpg)
		before := requests(t, s.host, disks[1])
		written(t, s.host, device)
		if after := requests(t, s.host, disks[1]); after != before {
			t.Errorf("%s: the path got I/O: %s requests before, %s after", of.state, before, after)
		}
	}
	set(2, "optimized")
	grouped(t, s.host, "prio=50 status=active", disks[0]+" active ready", disks[1]+" active ready")

	// The better group becomes the worse one.
	set(1, "non-optimized")
	grouped(t, s.host, "prio=50 status=active", disks[1]+" active ready", "prio=10 status=enabled", disks[0]+" active ready")
	before := requests(t, s.host, disks[0])
	written(t, s.host, device)
	if after := requests(t, s.host, disks[0]); after != before {
		t.Errorf("I/O goes on over the worse path: %s requests before, %s after", before, after)
	}
	// No path is usable for a while: I/O waits. The host's kernel does not ask for the
	// state of a path that it has heard of from a refused command, so that is not looked at.
	for group := 1; group <= 2; group++ {
		set(group, "transitioning")
	}
	stands(t, s.host, device)
	for group := 1; group <= 2; group++ {
		set(group, "optimized")
	}
	grouped(t, s.host, "prio=50 status=active", disks[0]+" active ready", disks[1]+" active ready")
	written(t, s.host, device)
	l.end()
}

// grouped waits until the host's multipath map has these groups and paths, in this
// order, and no other group.
func grouped(t *testing.T, host *lab.Machine, want ...string) {
	t.Helper()
	text := strings.Join(want, ";")
	sh(t, host, `want='%s'
		for i in $(seq 300); do
			have=$(multipath -ll | sed -n -e 's/.*\(prio=[0-9]* status=[a-z]*\).*/\1/p' -e 's/.* \(sd[a-z]*\) *[0-9:]* *\([a-z]*\) *\([a-z]*\) .*/\1 \2 \3/p' | paste -sd ';')
			# The paths of one group are in no order.
			[ "$(tr ';' '\n' <<<"$have" | sort)" = "$(tr ';' '\n' <<<"$want" | sort)" ] && exit 0
			sleep 0.1
		done; multipath -ll >&2; exit 1`, text)
}

// kernelState waits until the kernel's ALUA handler knows the state of a path.
func kernelState(t *testing.T, host *lab.Machine, disk, state string) {
	t.Helper()
	sh(t, host, "f=/sys/block/%s/device/access_state; for i in $(seq 300); do [ \"$(cat $f)\" = %s ] && exit 0; sleep 0.1; done; cat $f >&2; exit 1", disk, state)
}

// requests returns how many reads and writes a disk, which gets no more of them, has done
// when none is under way; those of checkers are none.
func requests(t *testing.T, host *lab.Machine, disk string) string {
	t.Helper()
	return sh(t, host, `cd /sys/block/%s
		for i in $(seq 300); do [ "$(awk '{ print $1 + $2 }' inflight)" = 0 ] && break; sleep 0.1; done
		awk '{ print $1 + $5 }' stat`, disk)
}
