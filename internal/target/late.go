package target

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
)

// ErrNoVolume says that the data plane has no such volume.
var ErrNoVolume = errors.New("the data plane has no such volume")

// Reopen opens the storage of a volume anew while it is in use, so that it works again after a flush has
// failed; or, where it could not be opened so far, tries again. It returns what keeps it from that: errors.ErrUnsupported
// where the volume has no storage, and the error of ctx where the storage does not answer until that
// is done; the volume is then as it was. Every SCSI initiator is told DEVICE INTERNAL RESET; NVMe
// knows nothing by which to tell that a namespace may have lost what was written.
func (t *Target) Reopen(ctx context.Context, id string) error {
	t.mu.Lock()
	v, failed := t.volumes[id], t.failed[id]
	t.mu.Unlock()
	switch {
	case v == nil && failed != nil:
		return failed
	case v == nil:
		return ErrNoVolume
	case v.missing():
		return t.openLate(ctx, v)
	}
	name := t.specOf(v).Name
	if err := v.lu.Unit().Reopen(ctx); err != nil {
		t.log.Error("the storage of a volume could not be opened anew", "volume", name, "error", err)
		return err
	}
	t.log.Warn("the storage of a volume was opened anew: what was not on stable storage may be lost", "volume", name)
	return nil
}

func (t *Target) specOf(v *volume) *array.Volume {
	t.mu.Lock()
	defer t.mu.Unlock()
	return v.spec
}

// openLate tries to open the device of a volume that was not there.
func (t *Target) openLate(ctx context.Context, v *volume) error {
	hangs := func() error { return fmt.Errorf("the storage does not answer: %w", context.Cause(ctx)) }
	select {
	case v.late.opening <- struct{}{}:
	case <-v.late.stopped:
		return ErrNoVolume
	case <-ctx.Done():
		return hangs()
	}
	select {
	case err := <-t.startOpen(v):
		return err
	case <-ctx.Done():
		return hangs()
	}
}

// startOpen opens the device of a volume that was not there. The caller has filled v.late.opening, which
// is empty again when the returned channel gets the result.
func (t *Target) startOpen(v *volume) <-chan error {
	done := make(chan error, 1)
	go func() {
		var err error
		if v.late.missing() { // until now
			err = t.open(v)
		}
		<-v.late.opening
		done <- err
	}()
	return done
}

func (t *Target) open(v *volume) error {
	spec := t.specOf(v)
	pool, err := t.cfg.Pool(v.pool.ID)
	if err != nil {
		v.late.absent(err)
		return err
	}
	device, err := pool.OpenVolume(spec)
	if err != nil {
		v.late.absent(err)
		return err
	}
	t.mu.Lock() // whoever changes the specification looks whether the device is there
	v.late.arrive(device)
	t.mu.Unlock()
	u := v.lu.Unit()
	u.SizeChanged()
	t.log.Info("volume is ready", "volume", spec.Name)
	for size := spec.Size; ; {
		now := t.specOf(v).Size
		if now == size {
			return nil
		}
		if err := u.Resize(now >> u.BlockShift()); err != nil { // it was changed meanwhile
			t.log.Error("a volume has not the size that it should have", "volume", spec.Name, "error", err)
			return err
		}
		size = now
	}
}

// late is the device of a volume whose backing store could not be opened: it
// says so until the real device has arrived.
type late struct {
	size   int64
	info   block.Info
	reason atomic.Pointer[error]
	real   atomic.Pointer[block.Device]

	opening chan struct{} // capacity 1: filled while somebody opens the real device, and for good by stop
	stopped chan struct{} // closed by stop
}

var (
	_ block.Device   = (*late)(nil)
	_ block.Monitor  = (*late)(nil)
	_ block.Reopener = (*late)(nil)
)

func newLate(v *array.Volume, reason error) *late {
	l := &late{
		opening: make(chan struct{}, 1),
		stopped: make(chan struct{}),

		size: int64(v.Size),
		info: block.Info{Kind: string(v.Kind), BlockSize: 1, PhysicalBlockSize: int(v.BlockSize) << v.PhysicalExponent, Align: 4096, Discard: v.Thin, DiscardGranularity: 4096, Volatile: true},
	}
	l.reason.Store(&reason)
	return l
}

func (l *late) missing() bool         { return l.real.Load() == nil }
func (l *late) absent(err error)      { l.reason.Store(&err) }
func (l *late) arrive(d block.Device) { l.real.Store(&d) }
func (l *late) gone(op block.Op) error {
	return &block.Error{Op: op, Kind: block.KindGone, Err: *l.reason.Load()}
}

func (l *late) Info() block.Info {
	if d := l.real.Load(); d != nil {
		return (*d).Info()
	}
	return l.info
}

func (l *late) Size() int64 {
	if d := l.real.Load(); d != nil {
		return (*d).Size()
	}
	return l.size
}

func (l *late) Submit(r *block.Request) {
	if d := l.real.Load(); d != nil {
		(*d).Submit(r)
		return
	}
	r.Err = l.gone(r.Op)
	r.Done.RequestDone(r)
}

func (l *late) Extent(off, limit int64) (bool, int64, error) {
	if d := l.real.Load(); d != nil {
		return (*d).Extent(off, limit)
	}
	return false, 0, l.gone(block.Read)
}

func (l *late) Resize(size int64) error {
	if d := l.real.Load(); d != nil {
		return (*d).Resize(size)
	}
	return l.gone(block.Write)
}

func (l *late) Used() (int64, error) {
	if d := l.real.Load(); d != nil {
		return (*d).Used()
	}
	return 0, l.gone(block.Read)
}

// Health implements block.Monitor.
func (l *late) Health() block.Health {
	if d := l.real.Load(); d != nil {
		return block.HealthOf(*d)
	}
	return block.Health{}
}

// Reopen implements block.Reopener.
func (l *late) Reopen(ctx context.Context, opened func()) error {
	d := l.real.Load()
	if d == nil {
		return l.gone(block.Flush)
	}
	r, ok := (*d).(block.Reopener)
	if !ok {
		return fmt.Errorf("a device of kind %s: %w", (*d).Info().Kind, errors.ErrUnsupported)
	}
	return r.Reopen(ctx, opened)
}

// stop waits for whoever opens the real device, which nobody does any more then. It is called once, before
// the unit of the device is closed: that keeps whoever opens it waiting.
func (l *late) stop() {
	close(l.stopped)
	l.opening <- struct{}{}
}

func (l *late) Close() error {
	if d := l.real.Load(); d != nil {
		return (*d).Close()
	}
	return nil
}
