package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/lab"
)

// pair is a lab of two guests with a disk that both have and one that one has.
func pair() lab.Topology {
	return lab.Topology{
		Name:     "pair",
		Networks: []string{"san-a"},
		Guests:   []lab.GuestSpec{{Name: "one", Memory: 256 * lab.MiB}, {Name: "two", Memory: 256 * lab.MiB}},
		Disks: []lab.DiskSpec{
			{Name: "own", Size: 16 * lab.MiB, Guests: []string{"one"}},
			{Name: "both", Size: 16 * lab.MiB, Guests: []string{"one", "two"}},
		},
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	l := lab.New(t, pair())
	one, two := l.Machine("one"), l.Machine("two")
	ctx := within(t, 5*time.Minute)

	t.Run("commands", func(t *testing.T) {
		r, err := one.RunInput(ctx, []byte("in"), "sh", "-c", "cat; echo err >&2; exit 3")
		if e, ok := errors.AsType[*lab.RunError](err); !ok || r.Stdout != "in" || r.Stderr != "err\n" || e.Result.Code != 3 {
			t.Errorf("result %+v, error %v", r, err)
		}
		short, cancel := context.WithTimeout(ctx, 6*time.Second)
		defer cancel()
		r, err = one.Run(short, "sh", "-c", "echo before; sleep 100")
		if err == nil || !r.TimedOut || r.Stdout != "before\n" {
			t.Errorf("a command over its time: %+v, %v", r, err)
		}
		sh(t, one, "for i in $(seq 300); do pgrep -x sleep >/dev/null || exit 0; sleep 0.1; done; echo 'it left a process' >&2; exit 1")
		contains(t, sh(t, one, "hostname; lintel version"), "one\n", "lintel ")
	})
	t.Run("files", func(t *testing.T) {
		text := strings.Repeat("0123456789abcdef", 1<<16)
		must(t, one.WriteFile(ctx, "/root/new/file", strings.NewReader(text), 0o640))
		got, err := one.ReadFile(ctx, "/root/new/file")
		must(t, err)
		if string(got) != text || sh(t, one, "stat -c %%a /root/new/file") != "640" {
			t.Errorf("%d bytes came back of %d", len(got), len(text))
		}
		if _, err := one.ReadFile(ctx, "/no/such"); err == nil {
			t.Error("read a file that is not there")
		}
	})
	t.Run("disks", func(t *testing.T) {
		sh(t, one, "echo shared data | dd of=/dev/lab/both oflag=direct conv=sync bs=4k status=none")
		contains(t, sh(t, two, "dd if=/dev/lab/both iflag=direct bs=4k count=1 status=none | head -1"), "shared data")
		refused(t, two, "test -b /dev/lab/own")
		path, err := two.AddDisk(ctx, "late", 8*lab.MiB)
		must(t, err)
		if got := sh(t, two, "blockdev --getsize64 %s; readlink -f /dev/lab/late", path); got != fmt.Sprint(8<<20, "\n", path) {
			t.Errorf("the disk that was added: %s", got)
		}
		must(t, two.RemoveDisk(ctx, "late"))
		refused(t, two, "dd if=%s of=/dev/null bs=4k count=1", path)
	})
	t.Run("links", func(t *testing.T) {
		pings := func(from *lab.Machine, address string) bool {
			_, err := from.Run(ctx, "ping", "-c", "1", "-W", "1", address)
			return err == nil
		}
		reaches := func(from *lab.Machine, address string) bool {
			for range 30 {
				if pings(from, address) {
					return true
				}
			}
			return false
		}
		a, six := two.Address("san-a"), two.Address6("san-a")
		if !reaches(one, a) || !reaches(one, six) {
			t.Fatal("the guests do not reach each other")
		}
		// arrives reports whether a frame of a ping from one guest reaches the other in time.
		arrives := func(from, to *lab.Machine, seconds string) bool {
			mac := sh(t, from, "cat /sys/class/net/san-a/address")
			seen, cancel := context.WithCancel(ctx)
			var pinging sync.WaitGroup
			defer pinging.Wait()
			defer cancel()
			pinging.Go(func() {
				_, _ = from.Run(seen, "ping", "-w", seconds, "-i", "0.3", to.Address("san-a")) // no answer is expected
			})
			_, err := to.Run(ctx, "timeout", seconds, "tcpdump", "-Z", "root", "-c", "1", "-i", "san-a", "ether src "+mac)
			return err == nil
		}
		for _, direction := range []lab.Direction{lab.Both, lab.In, lab.Out} {
			must(t, two.Cut(ctx, "san-a", direction))
			if pings(one, a) || pings(one, six) {
				t.Errorf("%s is cut, and the answer comes", direction)
			}
			for _, way := range []struct {
				from, to *lab.Machine
				open     bool
			}{{one, two, direction == lab.Out}, {two, one, direction == lab.In}} {
				seconds := "3"
				if way.open {
					seconds = "60"
				}
				if arrives(way.from, way.to, seconds) != way.open {
					t.Errorf("%s is cut: frames from %s arrive at %s: %t", direction, way.from.Name, way.to.Name, !way.open)
				}
			}
			must(t, two.Heal(ctx, "san-a"))
			if !reaches(one, a) || !reaches(one, six) {
				t.Errorf("%s is healed, and no answer comes", direction)
			}
		}
		must(t, two.Disturb(ctx, "san-a", "delay 300ms"))
		sh(t, one, "ping -c 2 -W 10 %s | awk -F'[ /]' '/^rtt/ { exit !($7 >= 300) }'", a) // the least time
		must(t, two.Disturb(ctx, "san-a", ""))
		if err := two.Cut(ctx, lab.Management, lab.Both); err == nil {
			t.Error("the management network was cut")
		}
	})
	t.Run("freeze and thaw", func(t *testing.T) {
		must(t, two.Freeze(ctx))
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if _, err := two.Run(short, "true"); err == nil {
			t.Error("a frozen guest answers")
		}
		must(t, two.Thaw(ctx))
		sh(t, two, "true")
		must(t, two.CheckTick(ctx))
	})
	t.Run("clock", func(t *testing.T) {
		must(t, two.SetClock(ctx, -48*time.Hour))
		if sh(t, two, "date +%%d") == sh(t, one, "date +%%d") {
			t.Error("the clock did not move")
		}
	})
	t.Run("power", func(t *testing.T) {
		sh(t, two, "echo kept >/root/kept; sync; echo lost >/root/lost")
		must(t, two.PowerOff(ctx))
		if _, err := two.Run(within(t, 5*time.Second), "true"); err == nil {
			t.Error("a guest without power answers")
		}
		must(t, two.PowerOn(ctx))
		contains(t, sh(t, two, "cat /root/kept"), "kept")
		// As a fence agent does it, from the other guest.
		contains(t, sh(t, one, "lintel lab power list; lintel lab power status two; lintel lab power off two; lintel lab power status two"), "one two", "on", "ok", "off")
		sh(t, one, "lintel lab power on two")
		sh(t, two, "true")
		refused(t, one, "lintel lab power off three")
	})
	t.Run("another lab beside it", func(t *testing.T) {
		other := lab.New(t, lab.Topology{Name: "pair", Guests: []lab.GuestSpec{{Name: "one", Memory: 256 * lab.MiB}}})
		if other.Name() == l.Name() {
			t.Error("two labs have one name")
		}
		sh(t, other.Machine("one"), "echo other >/root/mark")
		refused(t, one, "test -e /root/mark")
	})
}

func TestStartThatFailsLeavesNothing(t *testing.T) {
	if os.Getenv(lab.TestVariable) == "" {
		t.Skipf("starts a lab of guests: set %s=1 (make lab-test)", lab.TestVariable)
	}
	t.Parallel()
	images, err := lab.BuildImages(within(t, 20*time.Minute), func(string) {})
	must(t, err)
	images.Root = "/dev/null"
	program, err := os.Executable()
	must(t, err)
	broken := pair()
	broken.Name = fmt.Sprintf("broken-%d", os.Getpid())
	_, err = lab.Start(within(t, time.Minute), broken, lab.Options{Program: program, Images: images})
	if err == nil {
		t.Fatal("a lab without a root file system started")
	}
	nothingLeft(t, broken.Name)
}
