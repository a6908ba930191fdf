package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/test/harness"
)

// apart starts an array in two processes with a volume that any initiator may write.
func apart(t *testing.T) (a *harness.Apart, iqn string) {
	t.Helper()
	a = harness.ServeApart(t, 1)
	a.Run("volume", "create", "data", "--size", fmt.Sprint(crashBlocks*crashBlock), "--block-size", "4096")
	a.Run("host", "create", "any", "--iqn", "*")
	a.Run("map", "data", "any", "--lun", fmt.Sprint(lun))
	return a, targetName(t, a.Array)
}

// progress waits until the writers have had some more writes acknowledged.
func progress(t *testing.T, l *ledger) {
	t.Helper()
	before := l.acknowledged()
	for end := time.Now().Add(time.Minute); l.acknowledged() < before+200; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the writers stand still")
		}
	}
}

// TestKilledAgentLeavesIOAlone kills the agent with SIGKILL again and again while an initiator
// writes and an administrator changes things. The initiator sees nothing of it, and
// each agent that follows manages on.
func TestKilledAgentLeavesIOAlone(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	a, iqn := apart(t)
	a.Run("host", "create", "other", "--iqn", "iqn.2026-11.io.example:other") // or the writers had unit attentions
	pid := a.Target.Pid()
	l := newLedger()
	s := dial(t, a.Array, iqn)
	ctx, cancel := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer cancel()
	writeOn(ctx, &writers, s, l, 0, 0)
	for round := range rounds {
		stop := make(chan struct{})
		var admin sync.WaitGroup
		admin.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("v%d-%d", round, i)
				_, _ = a.Try("volume", "create", name, "--size", "1MiB") // any of them may be cut off
				_, _ = a.Try("map", name, "other")
				_, _ = a.Try("unmap", name, "other", "--yes")
				_, _ = a.Try("volume", "delete", name, "--yes")
			}
		})
		time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
		a.Agent.Kill()
		close(stop)
		admin.Wait()
		progress(t, l)
		a.Agent.Start()
		name := fmt.Sprintf("kept%d", round)
		a.Run("volume", "create", name, "--size", "1MiB")
		if got := a.Run("volume", "show", name); !strings.Contains(got, "online") {
			t.Errorf("round %d: a volume made after the crash is not served:\n%s", round, got)
		}
		if got := a.Run("session", "list", "-o", "json"); strings.Count(got, `"isid"`) != 1 {
			t.Errorf("round %d: the session is not there any more: %s", round, got)
		}
		progress(t, l)
	}
	cancel()
	writers.Wait()
	s.Close()
	s = dial(t, a.Array, iqn)
	settleAll(t, s, l, rounds)
	s.Close()
	if a.Target.Pid() != pid {
		t.Error("the target is another process")
	}
	a.Agent.Stop()
	a.Target.Stop()
	if out, err := harness.Command(a.Bin, "check", a.Dir); err != nil {
		t.Errorf("the directory is not whole: %v\n%s", err, out)
	}
	a.Target.Start()
	a.Agent.Start()
}

// TestKilledTargetComesBackAlone kills the target with SIGKILL again and again while an initiator
// writes. Started again it serves on, with or without an agent: every acknowledged
// write and every registration with APTPL is there.
func TestKilledTargetComesBackAlone(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	a, iqn := apart(t)
	l := newLedger()
	settings := map[string]bool{}
	var generation uint64
	for round := range rounds {
		managed := round%2 == 1
		if !managed {
			a.Agent.Stop()
		}
		s := dial(t, a.Array, iqn)
		key := uint64(0x2000 + round)
		registerKey(t, s, key)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		writeOn(ctx, &wg, s, l, round, generation)
		stop := make(chan struct{})
		if managed {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("h%d-%d", round, i)
					_, err := a.Try("host", "create", name, "--iqn", "iqn.2026-11.io.example:"+name)
					settings[name] = err == nil
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
		a.Target.Kill()
		close(stop)
		cancel()
		s.Close()
		wg.Wait()
		generation += 1 << 20

		a.Target.Start()
		s = dial(t, a.Array, iqn)
		checkKey(t, s, key)
		settleAll(t, s, l, round)
		s.Close()
		if !managed {
			a.Agent.Start()
		}
		hosts := a.Run("host", "list")
		for name, want := range settings { // what was refused was refused before it was written
			if got := containsWord(hosts, name); got != want {
				t.Fatalf("round %d: host %s: present %v, acknowledged %v", round, name, got, want)
			}
		}
		a.Run("volume", "resize", "data", fmt.Sprint(crashBlocks*crashBlock+(round+1)<<20))
	}
}
