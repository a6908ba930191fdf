package target

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	nvmehost "lintel.io/lintel/internal/initiator/nvme"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// inBubble runs a test with a fixture that has no portal and tries nothing again by itself, on a clock of its own.
func inBubble(t *testing.T, test func(t *testing.T, f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.doc.Portals = nil
		tgt, err := New(Config{Pool: f.tgt.cfg.Pool, Retry: 1000 * time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		f.tgt = tgt
		t.Cleanup(func() {
			if err := tgt.Close(context.Background()); err != nil {
				t.Error(err)
			}
			tgt.Wait()
		})
		test(t, f)
	})
}

// hang makes opening volumes wait until the returned function is called.
func (f *fixture) hang(list ...*array.Volume) (release func()) {
	c := make(chan struct{})
	f.pool.mu.Lock()
	defer f.pool.mu.Unlock()
	for _, v := range list {
		f.pool.hang[v.ID] = c
	}
	return sync.OnceFunc(func() {
		f.pool.mu.Lock()
		defer f.pool.mu.Unlock()
		for _, v := range list {
			delete(f.pool.hang, v.ID)
		}
		close(c)
	})
}

func (f *fixture) blocks(v *array.Volume) uint64 {
	f.tgt.mu.Lock()
	defer f.tgt.mu.Unlock()
	return f.tgt.volumes[v.ID].lu.Unit().Blocks()
}

// Volumes whose storage hangs while it is opened keep the others waiting for a while, all of them together; then they
// are told as not answering, opened once, and there when their storage answers.
func TestOpenOfHangingStorage(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture) {
		var log syncBuffer
		f.tgt.log = slog.New(slog.NewTextHandler(&log, nil))
		stuck, good, broken := f.addVolume(1, 1<<20, 0), f.addVolume(2, 1<<20, 1), f.addVolume(3, 1<<20, 2)
		f.pool.missing[broken.ID] = true
		release := f.hang(stuck, broken)
		defer release()
		start := time.Now()
		f.apply()
		if took := time.Since(start); took != f.tgt.cfg.LongPatience {
			t.Errorf("took %v", took)
		}
		for range 3 {
			f.tgt.retry()
			f.apply()
			all := f.tgt.Volumes(stuck.ID, good.ID, broken.ID)
			if !all[good.ID].Online {
				t.Errorf("the good one: %+v", all[good.ID])
			}
			for _, v := range []*array.Volume{stuck, broken} {
				s := all[v.ID]
				if s.Online || s.Health.Fault == nil || s.Health.Fault.Kind != block.FaultHung || !s.Health.Fault.Since.Equal(start) ||
					s.Reason != "its storage has not answered since "+start.UTC().Format(time.RFC3339) {
					t.Errorf("one that hangs: %+v", s)
				}
				if n := f.pool.openingOf(v.ID); n != 1 {
					t.Errorf("opened %d times", n)
				}
			}
		}
		later := f.addVolume(4, 1<<20, 3)
		bigger := *stuck
		bigger.Size = 2 << 20
		f.pd.Volumes[0] = &bigger
		f.apply()
		if !f.tgt.Volume(later.ID).Online {
			t.Error("a later one is not there")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := f.tgt.Reopen(ctx, stuck.ID); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the storage does not answer") {
			t.Errorf("reopen: %v", err)
		}
		if took := time.Since(start); took != f.tgt.cfg.LongPatience+30*time.Second {
			t.Errorf("all that took %v", took)
		}
		reopened := make(chan error)
		go func() { reopened <- f.tgt.Reopen(t.Context(), stuck.ID) }()
		synctest.Wait()
		release()
		if err := <-reopened; err != nil {
			t.Errorf("reopen: %v", err)
		}
		synctest.Wait()
		if s := f.tgt.Volume(stuck.ID); !s.Online || s.Health.Fault != nil || f.blocks(stuck) != 2<<20>>9 || f.pool.openingOf(stuck.ID) != 1 {
			t.Errorf("it answers, but: %+v, %d blocks", s, f.blocks(stuck))
		}
		if s := f.tgt.Volume(broken.ID); s.Online || s.Health.Fault != nil || s.Reason != "the backing store is not there" {
			t.Errorf("it answers, but: %+v", s)
		}
		if n := strings.Count(log.String(), `msg="volume is ready" volume=vol1`); n != 1 {
			t.Errorf("told %d times", n)
		}
		f.pool.missing[broken.ID] = false
		f.tgt.retry()
		synctest.Wait()
		if !f.tgt.Volume(broken.ID).Online {
			t.Error("it is not opened again")
		}
	})
}

// The time that hangs of more volumes cost than are opened at once is that of looks.
func TestOpenOfManyHangingVolumes(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture) {
		for n := range 2*opensAtOnce + 1 {
			f.addVolume(1+n, 1<<20, uint16(n))
		}
		defer f.hang(f.pd.Volumes...)()
		good := f.addVolume(1000, 1<<20, 1000)
		f.doc.Mappings = nil
		start := time.Now()
		f.apply()
		if took, want := time.Since(start), 2*f.tgt.cfg.Patience+f.tgt.cfg.LongPatience; took != want {
			t.Errorf("took %v, want %v", took, want)
		}
		if !f.tgt.Volume(good.ID).Online {
			t.Error("the good one is not there")
		}
	})
}

// Where a volume that hangs is opened again by itself, that is told too.
func TestRetryOfHangingStorage(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture) {
		v := f.addVolume(1, 1<<20, 0)
		f.pool.missing[v.ID] = true
		f.apply()
		defer f.hang(v)()
		f.tgt.retry()
		synctest.Wait()
		if s := f.tgt.Volume(v.ID); s.Health.Fault != nil || s.Reason != "the backing store is not there" {
			t.Errorf("before it is known: %+v", s)
		}
		time.Sleep(f.tgt.cfg.Patience)
		if s := f.tgt.Volume(v.ID); s.Online || s.Health.Fault == nil || s.Health.Fault.Kind != block.FaultHung {
			t.Errorf("got %+v", s)
		}
	})
}

// coarse is a device with blocks of 4096 bytes.
type coarse struct{ block.Device }

func (c coarse) Info() block.Info {
	i := c.Device.Info()
	i.BlockSize = 4096
	return i
}

// A device that does not take the volume's blocks is refused, however late it comes.
func TestLateDeviceOfOtherBlockSize(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture) {
		var made *counted
		f.pool.wrap = func(d block.Device) block.Device {
			made = &counted{Device: coarse{d}, t: t}
			return made
		}
		v := f.addVolume(1, 1<<20, 0)
		release := f.hang(v)
		f.apply()
		release()
		synctest.Wait()
		if s := f.tgt.Volume(v.ID); s.Online || s.Reason != "block size 512: the device takes no less than 4096" || made.closed.Load() != 1 {
			t.Errorf("got %+v, closed %d times", s, made.closed.Load())
		}
	})
}

// counted is a device that is closed once, and not used after that.
type counted struct {
	block.Device
	t      *testing.T
	closed atomic.Int32
}

func (c *counted) use() {
	if c.closed.Load() != 0 {
		c.t.Error("used after it was closed")
	}
}

func (c *counted) Size() int64 {
	c.use()
	return c.Device.Size()
}

func (c *counted) Resize(size int64) error {
	c.use()
	return c.Device.Resize(size)
}

func (c *counted) Close() error {
	c.closed.Add(1)
	return c.Device.Close()
}

// count makes the pool note its devices.
func (f *fixture) count(t *testing.T) *[]*counted {
	made := new([]*counted)
	f.pool.wrap = func(d block.Device) block.Device {
		*made = append(*made, &counted{Device: d, t: t})
		return (*made)[len(*made)-1]
	}
	return made
}

// Neither the removal of a volume whose storage hangs while it is opened nor the end of the data plane waits for it;
// its device is closed when it is open.
func TestRemovalWhileOpening(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture) {
		made := f.count(t)
		release := f.hang(f.addVolume(1, 1<<20, 0), f.addVolume(2, 1<<20, 1))
		f.apply()
		reopened := make(chan error)
		go func() { reopened <- f.tgt.Reopen(t.Context(), f.pd.Volumes[1].ID) }()
		synctest.Wait()
		start := time.Now()
		f.pd.Volumes, f.doc.Mappings = f.pd.Volumes[:1], f.doc.Mappings[:1]
		f.apply()
		if err := <-reopened; !errors.Is(err, ErrNoVolume) {
			t.Errorf("reopen: %v", err)
		}
		if err := f.tgt.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		release()
		synctest.Wait()
		if len(*made) != 2 || (*made)[0].closed.Load() != 1 || (*made)[1].closed.Load() != 1 {
			t.Errorf("closed: %v", *made)
		}
	})
}

// A volume that cannot be added is not opened again while it hangs, and closed when nobody wants it.
func TestHangingVolumeThatCannotBeAdded(t *testing.T) {
	for name, wanted := range map[string]bool{"wanted": true, "removed": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, f *fixture) {
				made := f.count(t)
				v := f.addVolume(1, 1<<20, 0)
				f.pool.save("r"+v.ID, []byte("no reservations"))
				release := f.hang(v)
				for range 3 {
					if err := f.tryApply(); err == nil || !strings.Contains(err.Error(), "volume vol1: ") {
						t.Errorf("got %v", err)
					}
				}
				if n := f.pool.openingOf(v.ID); n != 1 {
					t.Errorf("opened %d times", n)
				}
				f.pool.save("r"+v.ID, nil)
				if !wanted {
					f.pd.Volumes, f.doc.Mappings = nil, nil
					f.apply()
				}
				release()
				synctest.Wait()
				if wanted {
					bigger := *v
					bigger.Size = 2 << 20
					f.pd.Volumes[0] = &bigger
					f.apply()
					if !f.tgt.Volume(v.ID).Online || f.pool.openingOf(v.ID) != 1 || f.blocks(v) != 2<<20>>9 {
						t.Errorf("%+v, opened %d times, %d blocks", f.tgt.Volume(v.ID), f.pool.openingOf(v.ID), f.blocks(v))
					}
				}
				if len(*made) != 1 || ((*made)[0].closed.Load() == 0) != wanted {
					t.Errorf("closed: %v", *made)
				}
			})
		})
	}
}

// However a volume that arrives meets its removal, its device is closed once and not used after that.
func TestArrivalMeetsRemoval(t *testing.T) {
	f := newFixture(t)
	f.tgt.cfg.LongPatience = time.Millisecond
	made := f.count(t)
	for range 50 {
		v := f.addVolume(1, 1<<20, 0)
		release := f.hang(v)
		f.apply()
		bigger := *v
		bigger.Size = 2 << 20
		f.pd.Volumes[0] = &bigger
		for f.tryApply() != nil { // on a busy machine
		}
		go release()
		f.pd.Volumes, f.doc.Mappings = nil, nil
		f.apply()
	}
	all := func() bool {
		f.pool.mu.Lock()
		defer f.pool.mu.Unlock()
		for _, d := range *made {
			if d.closed.Load() == 0 {
				return false
			}
		}
		return len(*made) == 50
	}
	for !all() {
		time.Sleep(time.Millisecond)
	}
	for _, d := range *made {
		if n := d.closed.Load(); n != 1 {
			t.Errorf("closed %d times", n)
		}
	}
}

// Hosts are told that a volume whose storage hangs while it is opened is not ready, and then see it without logging in
// again.
func TestHangingOpenIsNotReady(t *testing.T) {
	f := newFixture(t)
	f.addVolume(1, 1<<20, 0)
	f.tgt.cfg.LongPatience = time.Millisecond
	stuck := f.addVolume(2, 1<<20, 5)
	release := f.hang(stuck)
	t.Cleanup(release)
	f.withNVMe()
	f.apply()
	s := f.mustLogin(initiator.Options{})
	ctx := context.Background()
	lun := wire.EncodeLUN(5)
	buf := make([]byte, 512)
	if r, err := s.Do(ctx, lun, make([]byte, 6), nil, 0); err != nil || r.Status == 0 { // 29/00
		t.Errorf("TEST UNIT READY: %+v, %v", r, err)
	}
	c := f.mustConnect(nvmehost.Options{IOQueues: 1}).Queues()[0]
	notReady(t, s.Read(ctx, lun, 0, 512, buf), c.Read(ctx, 6, 0, 512, buf))
	release()
	for !f.tgt.Volume(stuck.ID).Online {
		time.Sleep(time.Millisecond)
	}
	if err := s.Ready(ctx, lun); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Read(ctx, lun, 0, 512, buf), c.Read(ctx, 6, 0, 512, buf)); err != nil {
		t.Errorf("it answers, but: %v", err)
	}
}
