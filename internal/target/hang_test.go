package target

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
)

// hanging is a device whose backing answers nothing until released.
type hanging struct {
	block.Device
	asked   chan struct{} // gets one for each look at it
	release chan struct{}
	looks   atomic.Int32
	closed  atomic.Bool
}

func newHanging(d block.Device) *hanging {
	return &hanging{Device: d, asked: make(chan struct{}, 1), release: make(chan struct{})}
}

func (h *hanging) wait() {
	h.looks.Add(1)
	select {
	case h.asked <- struct{}{}:
	default:
	}
	<-h.release
}

func (h *hanging) Health() block.Health {
	h.wait()
	return block.Health{}
}

func (h *hanging) Used() (int64, error) {
	h.wait()
	return 5, nil
}

func (h *hanging) Close() error {
	<-h.release
	h.closed.Store(true)
	return h.Device.Close()
}

// A volume whose storage hangs is told as that, after a while; others are told, and looked at, as if it
// were not there.
func TestStatusOfHangingStorage(t *testing.T) {
	f := newFixture(t)
	f.tgt.cfg.Patience = 50 * time.Millisecond
	var log syncBuffer
	f.tgt.log = slog.New(slog.NewTextHandler(&log, nil))
	fault := &block.Fault{Kind: block.FaultIO, Reason: "broken"}
	f.pool.wrap = func(d block.Device) block.Device { return &failing{d, block.Health{Fault: fault}} }
	bad := f.addVolume(1, 1<<20, 0)
	f.apply()
	hung := newHanging(block.NewMem(1 << 20))
	release := func() {
		select {
		case <-hung.release:
		default:
			close(hung.release)
		}
	}
	t.Cleanup(release)
	f.pool.wrap = func(block.Device) block.Device { return hung }
	stuck := f.addVolume(2, 1<<20, 1)
	f.apply()
	f.pool.wrap = nil
	good := f.addVolume(3, 1<<20, 2)
	f.apply()
	start := time.Now()
	for range 5 {
		all := f.tgt.Volumes(stuck.ID, good.ID, bad.ID, "none")
		if s := all[stuck.ID]; !s.Online || s.Health.Fault == nil || s.Health.Fault.Kind != block.FaultHung || s.Health.Fault.Since.After(time.Now()) ||
			!strings.Contains(s.Health.Fault.Reason, "has not answered since ") {
			t.Errorf("the one that hangs: %+v", s)
		}
		if s := all[good.ID]; !s.Online || s.Health.Fault != nil {
			t.Errorf("the good one: %+v", s)
		}
		if s := all[bad.ID]; !s.Online || s.Health.Fault != fault {
			t.Errorf("the bad one: %+v", s)
		}
		if s := all["none"]; s != (VolumeStatus{}) {
			t.Errorf("none: %+v", s)
		}
	}
	t.Log("five looks took", time.Since(start))
	if n := hung.looks.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	for !strings.Contains(log.String(), "volume=vol2 fault=hung") || !strings.Contains(log.String(), "volume=vol1 fault=io") {
		time.Sleep(5 * time.Millisecond)
	}
	release()
	for s := f.tgt.Volume(stuck.ID); s.Health.Fault != nil || s.UsedBytes != 5; s = f.tgt.Volume(stuck.ID) {
		time.Sleep(5 * time.Millisecond)
	}
	for !strings.Contains(log.String(), `msg="the storage of a volume fails no more" volume=vol2`) {
		time.Sleep(5 * time.Millisecond)
	}
}

// Storage that hangs keeps neither a change nor the end of the data plane waiting, and no other
// volume from being closed.
func TestCloseOfHangingStorage(t *testing.T) {
	f := newFixture(t)
	f.tgt.cfg.Patience = 50 * time.Millisecond
	var made []*hanging
	f.pool.wrap = func(d block.Device) block.Device {
		made = append(made, newHanging(d))
		return made[len(made)-1]
	}
	for n := range 3 {
		f.addVolume(1+n, 1<<20, uint16(n))
		f.apply() // one after the other, for those of one Apply are opened in any order
	}
	close(made[1].release)
	t.Cleanup(func() {
		close(made[0].release)
		close(made[2].release)
	})
	<-made[2].asked
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f.pd.Volumes, f.doc.Mappings = f.pd.Volumes[:2], f.doc.Mappings[:2]
	if err := f.applyWithin(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "volume vol3: commands are still under way, or its storage does not answer") {
		t.Errorf("a volume that is taken away: %v", err)
	}
	if err := f.tgt.Close(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "volume vol1: ") || strings.Contains(err.Error(), "volume vol2: ") {
		t.Errorf("close: %v", err)
	}
	f.tgt.Wait()
	if !made[1].closed.Load() {
		t.Error("the volume that answers is not closed")
	}
}

// slowResize is a device whose Resize waits until released.
type slowResize struct {
	block.Device
	asked   atomic.Int32
	release chan struct{}
}

func (s *slowResize) Resize(size int64) error {
	s.asked.Add(1)
	<-s.release
	return s.Device.Resize(size)
}

// A volume whose storage hangs while its size changes keeps no other change waiting; the change is told
// as missing until it is made.
func TestResizeOfHangingStorage(t *testing.T) {
	f := newFixture(t)
	f.tgt.cfg.Patience, f.tgt.cfg.LongPatience = 10*time.Millisecond, 50*time.Millisecond
	slow := &slowResize{release: make(chan struct{})}
	f.pool.wrap = func(d block.Device) block.Device {
		slow.Device = d
		return slow
	}
	v := f.addVolume(1, 1<<20, 0)
	f.apply()
	f.pool.wrap = nil
	resize := func(size uint64) {
		bigger := *v
		bigger.Size = size
		f.pd.Volumes[0] = &bigger
	}
	resize(2 << 20)
	other := f.addVolume(2, 1<<20, 1)
	for range 3 {
		if err := f.tryApply(); err == nil || !strings.Contains(err.Error(), "volume vol1: its storage has not answered since ") {
			t.Errorf("got %v", err)
		}
		for !f.tgt.Volume(other.ID).Online { // on a busy machine
			time.Sleep(time.Millisecond)
		}
	}
	if n := slow.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	resize(3 << 20)
	if err := f.tryApply(); err == nil {
		t.Error("a second change is told as made")
	}
	close(slow.release)
	f.tgt.mu.Lock()
	u := f.tgt.volumes[v.ID].lu.Unit()
	f.tgt.mu.Unlock()
	for u.Blocks() != 2<<20>>9 {
		time.Sleep(time.Millisecond)
	}
	for f.tryApply() != nil { // on a busy machine
	}
	if u.Blocks() != 3<<20>>9 {
		t.Errorf("%d blocks", u.Blocks())
	}
}
