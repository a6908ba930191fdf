package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/initiator/iscsi"
	"lintel.io/lintel/test/harness"
)

// ledger keeps, of every block, which generations may be read back after the
// process was killed: the newest one acknowledged, or one that was sent after it
// and not answered. (A power failure may take unflushed writes too; that is tested
// on the devices, where it can be staged.)
type ledger struct {
	mu    sync.Mutex
	count int // of acknowledged writes
	acked []uint64
	open  []map[uint64]struct{} // sent since
}

const (
	crashBlock  = 4096
	crashBlocks = 2048
	lun         = 1
)

func newLedger() *ledger {
	l := &ledger{acked: make([]uint64, crashBlocks), open: make([]map[uint64]struct{}, crashBlocks)}
	for i := range l.open {
		l.open[i] = map[uint64]struct{}{}
	}
	return l
}

func (l *ledger) sent(block, gen uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[block][gen] = struct{}{}
}

func (l *ledger) done(block, gen uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	l.acked[block] = gen
	clear(l.open[block])
}

// acknowledged returns the number of writes that were acknowledged.
func (l *ledger) acknowledged() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// settle takes over what was read after a crash as the new truth.
func (l *ledger) settle(block, gen uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, written := l.open[block][gen]
	if gen != l.acked[block] && !written {
		return fmt.Errorf("block %d: generation %d is there; %d was acknowledged", block, gen, l.acked[block])
	}
	l.acked[block] = gen
	clear(l.open[block])
	return nil
}

// pattern fills p so that every 8 bytes tell the block and generation.
func pattern(p []byte, block, gen uint64) {
	if gen == 0 {
		clear(p)
		return
	}
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], gen<<24|block)
	}
}

// readGeneration checks that a block is whole and returns its generation.
func readGeneration(p []byte, block uint64) (uint64, error) {
	first := binary.LittleEndian.Uint64(p)
	for i := 8; i < len(p); i += 8 {
		if v := binary.LittleEndian.Uint64(p[i:]); v != first {
			return 0, fmt.Errorf("block %d is torn at byte %d: %#x and %#x", block, i, first, v)
		}
	}
	if first != 0 && first&(1<<24-1) != block {
		return 0, fmt.Errorf("block %d holds data of block %d", block, first&(1<<24-1))
	}
	return first >> 24, nil
}

func dial(t *testing.T, a *harness.Array, iqn string) *iscsi.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := iscsi.Dial(ctx, a.Portals[0], iscsi.Options{Target: iqn})
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	if err := s.Ready(ctx, iscsi.LUN(lun)); err != nil {
		t.Fatalf("TEST UNIT READY: %v", err)
	}
	return s
}

// TestKillLosesNothing kills the array with SIGKILL again and again while
// an initiator writes and flushes and an administrator changes settings. Every
// acknowledged write, every acknowledged setting and every registration with
// APTPL has to be there afterwards.
func TestKillLosesNothing(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 3
	}
	if s := os.Getenv("LINTEL_CRASH_ROUNDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		rounds = n
	}
	a := harness.Serve(t, 1)
	a.Run("volume", "create", "data", "--size", fmt.Sprint(crashBlocks*crashBlock), "--block-size", "4096")
	a.Run("host", "create", "any", "--iqn", "*")
	a.Run("map", "data", "any", "--lun", fmt.Sprint(lun))
	iqn := targetName(t, a)

	l := newLedger()
	settings := map[string]bool{} // name of a host -> it must exist (or must not)
	var generation uint64
	for round := range rounds {
		var wg sync.WaitGroup
		stop := make(chan struct{})
		ctx, cancel := context.WithCancel(context.Background())
		key := uint64(0x1000 + round)
		s := dial(t, a, iqn)
		registerKey(t, s, key)
		writeOn(ctx, &wg, s, l, round, generation)
		var settingsMu sync.Mutex
		unknown := map[string]bool{} // changes whose answer the kill cut off
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("h%d-%d", round, i)
				_, err := a.Try("host", "create", name, "--iqn", "iqn.2026-11.io.example:"+name)
				settingsMu.Lock()
				if err == nil {
					settings[name] = true
				} else {
					unknown[name] = true
				}
				settingsMu.Unlock()
				if i%3 == 2 && err == nil {
					if _, err := a.Try("host", "delete", name, "--yes"); err == nil {
						settings[name] = false
					} else {
						delete(settings, name)
					}
				}
			}
		})
		time.Sleep(time.Duration(100+rand.IntN(300)) * time.Millisecond)
		a.Kill()
		close(stop)
		cancel()
		s.Close()
		wg.Wait()
		generation += 1 << 20

		a.Start()
		s = dial(t, a, iqn)
		checkKey(t, s, key)
		settleAll(t, s, l, round)
		s.Close()
		hosts := a.Run("host", "list")
		for name, want := range settings {
			if got := containsWord(hosts, name); got != want {
				t.Fatalf("round %d: host %s: present %v, acknowledged %v", round, name, got, want)
			}
		}
		for name := range unknown { // either outcome is right; it holds from now on
			settings[name] = containsWord(hosts, name)
		}
	}
	if generation == 0 || len(settings) < rounds {
		t.Errorf("only %d settings were changed in %d rounds", len(settings), rounds)
	}
}

// writeOn has several writers write and flush until ctx is done or the session ends, each on blocks
// of its own, with generations from base on.
func writeOn(ctx context.Context, wg *sync.WaitGroup, s *iscsi.Session, l *ledger, round int, base uint64) {
	const writers = 4
	for w := range uint64(writers) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(round), w))
			span := uint64(crashBlocks / writers)
			from := w * span
			buf := make([]byte, crashBlock)
			for gen := base + 1; ; gen++ {
				block := from + rng.Uint64N(span)
				pattern(buf, block, gen)
				l.sent(block, gen)
				if s.Write(ctx, iscsi.LUN(lun), block, crashBlock, buf) != nil {
					return
				}
				l.done(block, gen)
				if rng.IntN(16) == 0 && s.Flush(ctx, iscsi.LUN(lun)) != nil {
					return
				}
			}
		})
	}
}

// settleAll reads every block and demands what was acknowledged, or sent since.
func settleAll(t *testing.T, s *iscsi.Session, l *ledger, round int) {
	t.Helper()
	buf := make([]byte, crashBlock)
	for block := range uint64(crashBlocks) {
		if err := s.Read(context.Background(), iscsi.LUN(lun), block, crashBlock, buf); err != nil {
			t.Fatalf("round %d: reading block %d: %v", round, block, err)
		}
		gen, err := readGeneration(buf, block)
		if err == nil {
			err = l.settle(block, gen)
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

func containsWord(text, word string) bool {
	for f := range strings.FieldsSeq(text) {
		if f == word {
			return true
		}
	}
	return false
}

// registerKey registers and reserves with PERSISTENT RESERVE OUT, APTPL set.
func registerKey(t *testing.T, s *iscsi.Session, key uint64) {
	t.Helper()
	param := make([]byte, 24)
	binary.BigEndian.PutUint64(param[8:], key)
	param[20] = 1 // APTPL
	cdb := []byte{0x5f, 0x06, 0, 0, 0, 0, 0, 0, 24, 0}
	r, err := s.Do(context.Background(), iscsi.LUN(lun), cdb, param, 0)
	if err != nil || r.Status != 0 {
		t.Fatalf("REGISTER AND IGNORE EXISTING KEY: %v, status %#x", err, r.Status)
	}
}

// checkKey demands that the registration survived.
func checkKey(t *testing.T, s *iscsi.Session, key uint64) {
	t.Helper()
	cdb := []byte{0x5e, 0x00, 0, 0, 0, 0, 0, 0x10, 0, 0}
	r, err := s.Do(context.Background(), iscsi.LUN(lun), cdb, nil, 4096)
	if err != nil || r.Status != 0 || len(r.Data) < 8 {
		t.Fatalf("READ KEYS: %v, status %#x", err, r.Status)
	}
	for i := 8; i+8 <= len(r.Data); i += 8 {
		if binary.BigEndian.Uint64(r.Data[i:]) == key {
			return
		}
	}
	t.Fatalf("the registration with key %#x is lost: %x", key, r.Data)
}

// targetName reads the target's IQN from the management side.
func targetName(t *testing.T, a *harness.Array) string {
	t.Helper()
	for f := range strings.FieldsFuncSeq(a.Run("target", "show", "-o", "json"), func(r rune) bool { return r == '"' }) {
		if strings.HasPrefix(f, "iqn.") {
			return f
		}
	}
	t.Fatal("target show names no IQN")
	return ""
}
