package target

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	nvmehost "lintel.io/lintel/internal/initiator/nvme"
)

// reopener is a device whose storage can be opened anew: it fails with fail, or hangs until ctx is done.
type reopener struct {
	block.Device
	fail  error
	hangs bool
	asked chan struct{}
}

func (r *reopener) Reopen(ctx context.Context, opened func()) error {
	if r.hangs {
		r.asked <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	if r.fail == nil {
		opened()
	}
	return r.fail
}

// wantUnitAttentions checks which conditions a session is told on a LUN before it is ready.
func wantUnitAttentions(t *testing.T, who string, s *initiator.Session, lun uint64, want ...uint16) {
	t.Helper()
	for _, code := range append(want, 0) {
		r, err := s.Do(context.Background(), lun, make([]byte, 6), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		key, got := uint8(0), uint16(0)
		if r.Status != 0 {
			key, got = initiator.SenseCode(r.Sense)
		}
		if got != code || code != 0 && key != 6 {
			t.Errorf("%s: sense %x/%04x, want unit attention %04x", who, key, got, code)
		}
	}
}

// TestReopenTellsInitiators checks that every I_T nexus of a volume that was opened anew is told DEVICE
// INTERNAL RESET once, and of no other volume (SPC-4 §4.5.6, SAM-5 §5.14.1).
func TestReopenTellsInitiators(t *testing.T) {
	f := newFixture(t)
	var made []*reopener
	f.pool.wrap = func(d block.Device) block.Device {
		made = append(made, &reopener{Device: d})
		return made[len(made)-1]
	}
	v := f.addVolume(1, 1<<20, 0)
	f.apply() // those of one Apply are opened in any order
	f.addVolume(2, 1<<20, 1)
	late := f.addVolume(3, 1<<20, 2)
	f.pool.missing[late.ID] = true
	f.withNVMe()
	f.apply()
	f.pool.mu.Lock()
	f.pool.missing[late.ID] = false
	f.pool.mu.Unlock()
	for !f.tgt.Volume(late.ID).Online {
		time.Sleep(5 * time.Millisecond)
	}
	ctx := context.Background()
	sessions := map[string]*initiator.Session{"a": f.mustLogin(initiator.Options{Initiator: "iqn.2026-11.io.lintel:a"}), "b": f.mustLogin(initiator.Options{Initiator: "iqn.2026-11.io.lintel:b"})}
	for _, s := range sessions {
		for lun := range uint64(3) {
			if err := s.Ready(ctx, lun<<48); err != nil {
				t.Fatal(err)
			}
		}
	}
	events := make(chan uint32, 1)
	c := f.mustConnect(nvmehost.Options{IOQueues: 1, OnEvent: func(e uint32) { events <- e }})
	made[0].fail = errors.New("it still fails")
	if err := f.tgt.Reopen(ctx, v.ID); !errors.Is(err, made[0].fail) {
		t.Errorf("got %v", err)
	}
	for who, s := range sessions {
		wantUnitAttentions(t, who, s, 0)
	}
	made[0].fail = nil
	if err := errors.Join(f.tgt.Reopen(ctx, v.ID), f.tgt.Reopen(ctx, late.ID)); err != nil {
		t.Error(err)
	}
	for who, s := range sessions {
		wantUnitAttentions(t, who, s, 0<<48, 0x2904)
		wantUnitAttentions(t, who, s, 1<<48)
		wantUnitAttentions(t, who, s, 2<<48, 0x2904)
	}
	if err := c.Queues()[0].Read(ctx, 1, 0, 512, make([]byte, 512)); err != nil {
		t.Errorf("read over NVMe: %v", err)
	}
	select {
	case e := <-events:
		t.Errorf("event %#x", e)
	default:
	}
}

func TestReopenWhatCannotBe(t *testing.T) {
	f := newFixture(t)
	v := f.addVolume(1, 1<<20, 0)
	f.apply()
	ctx := context.Background()
	if err := f.tgt.Reopen(ctx, v.ID); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "kind mem") {
		t.Errorf("memory: %v", err)
	}
	if err := f.tgt.Reopen(ctx, "nothing"); !errors.Is(err, ErrNoVolume) {
		t.Errorf("no volume: %v", err)
	}
}

// Storage that hangs while it is opened anew keeps no change waiting, and one that takes the volume
// away is safe.
func TestReopenOfHangingStorage(t *testing.T) {
	f := newFixture(t)
	hung := &reopener{hangs: true, asked: make(chan struct{})}
	f.pool.wrap = func(d block.Device) block.Device {
		hung.Device = d
		return hung
	}
	v := f.addVolume(1, 1<<20, 0)
	f.apply()
	f.pool.wrap = nil
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- f.tgt.Reopen(ctx, v.ID) }()
	<-hung.asked
	bigger := *v
	bigger.Size = 2 << 20
	f.pd.Volumes[0] = &bigger
	f.addVolume(2, 1<<20, 1)
	f.apply()
	f.pd.Volumes, f.doc.Mappings = f.pd.Volumes[1:], f.doc.Mappings[1:]
	f.apply()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := f.tgt.Reopen(context.Background(), v.ID); !errors.Is(err, ErrNoVolume) {
		t.Errorf("a volume that is gone: %v", err)
	}
}

// A volume that was not there can be opened at once; storage that hangs then is asked once, keeps
// nobody waiting, and what has changed meanwhile is made good.
func TestReopenOfLateVolume(t *testing.T) {
	f := newFixture(t)
	v, gone := f.addVolume(1, 1<<20, 0), f.addVolume(2, 1<<20, 1)
	f.pool.missing[v.ID], f.pool.missing[gone.ID] = true, true
	f.apply()
	ctx := context.Background()
	if err := f.tgt.Reopen(ctx, v.ID); err == nil || !strings.Contains(err.Error(), "the backing store is not there") {
		t.Errorf("got %v", err)
	}
	f.pool.mu.Lock()
	f.pool.missing = map[string]bool{}
	hang := make(chan struct{})
	f.pool.opening, f.pool.hang = map[string]int{}, map[string]chan struct{}{v.ID: hang, gone.ID: hang}
	f.pool.mu.Unlock()
	waits, cancel := context.WithCancel(ctx)
	done := make(chan error)
	for range 2 {
		go func() { done <- f.tgt.Reopen(waits, v.ID) }()
	}
	for f.pool.openingOf(v.ID) == 0 || f.pool.openingOf(gone.ID) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	for range 2 {
		if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the storage does not answer") {
			t.Errorf("got %v", err)
		}
	}
	bigger := *v
	bigger.Size = 2 << 20
	f.pd.Volumes[0] = &bigger
	f.apply()
	f.pd.Volumes, f.doc.Mappings = f.pd.Volumes[:1], f.doc.Mappings[:1]
	removed := make(chan struct{})
	go func() {
		f.apply()
		close(removed)
	}()
	for f.tgt.known(gone.ID) {
		time.Sleep(time.Millisecond)
	}
	if n := f.pool.openingOf(v.ID); n != 1 {
		t.Errorf("opened %d times while it hangs", n)
	}
	close(hang)
	<-removed
	for !f.tgt.Volume(v.ID).Online {
		time.Sleep(5 * time.Millisecond)
	}
	if err := f.tgt.Reopen(ctx, v.ID); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("memory: %v", err)
	}
	f.tgt.mu.Lock()
	u := f.tgt.volumes[v.ID].lu.Unit()
	f.tgt.mu.Unlock()
	for u.Blocks() != 2<<20>>9 || u.Device().Size() != 2<<20 {
		time.Sleep(time.Millisecond)
	}
}

func (t *Target) known(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.volumes[id] != nil
}
