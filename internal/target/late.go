package target

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/ask"
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
	v.lasting.Store(nil)
	t.log.Warn("the storage of a volume was opened anew: what was not on stable storage may be lost", "volume", name)
	return nil
}

func (t *Target) specOf(v *volume) *array.Volume {
	t.mu.Lock()
	defer t.mu.Unlock()
	return v.spec
}

// openLate tries to open the device of a volume that was not there, or waits until that which is under way has ended.
func (t *Target) openLate(ctx context.Context, v *volume) error {
	q := t.startOpen(v)
	select {
	case <-q.Done():
		return q.Answer()
	case <-v.late.stopped:
		return ErrNoVolume
	case <-ctx.Done():
		return fmt.Errorf("the storage does not answer: %w", context.Cause(ctx))
	}
}

// startOpen opens the device of a volume that was not there, unless that is under way.
func (t *Target) startOpen(v *volume) *ask.Question[error] {
	return v.late.opening.Ask(func() error {
		spec := t.specOf(v)
		pool, err := t.cfg.Pool(v.pool.ID)
		switch {
		case !v.missing(): // any more
			return nil
		case v.late.isStopped():
			return ErrNoVolume
		case err != nil:
			v.late.absent(err)
			return err
		}
		device, err := pool.OpenVolume(spec)
		return t.arrived(v, opened{spec, device, err})
	})
}

// awaitOpen makes the device of a volume that was not there the one that q opens.
func (t *Target) awaitOpen(v *volume, q *ask.Question[opened]) {
	v.late.opening.AskSince(q.Since, func() error { return t.arrived(v, q.Answer()) })
}

// arrived gives a volume that was not there the device that was opened for it. It is part of the question
// v.late.opening, so that the volume is not closed before it has returned.
func (t *Target) arrived(v *volume, o opened) error {
	u := v.lu.Unit()
	if o.err == nil {
		if need := o.device.Info().BlockSize; need > int(u.BlockSize()) {
			t.discard(o)
			o.err = fmt.Errorf("block size %d: the device takes no less than %d", u.BlockSize(), need)
		}
	}
	if o.err != nil {
		v.late.absent(o.err)
		return o.err
	}
	t.mu.Lock() // whoever changes the specification, or removes the volume, looks whether the device is there
	stopped := v.late.isStopped()
	if !stopped {
		v.late.arrive(o.device)
	}
	t.mu.Unlock()
	if stopped {
		t.discard(o)
		return ErrNoVolume
	}
	u.SizeChanged()
	t.log.Info("volume is ready", "volume", o.spec.Name)
	for size := o.spec.Size; ; {
		now := t.specOf(v).Size
		if now == size {
			return nil
		}
		if err := u.Resize(now >> u.BlockShift()); err != nil { // it was changed meanwhile
			t.log.Error("a volume has not the size that it should have", "volume", o.spec.Name, "error", err)
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

	opening ask.Asker[error] // the real device
	stopped chan struct{}    // closed, with Target.mu held, when the volume is removed
}

var (
	_ block.Device   = (*late)(nil)
	_ block.Monitor  = (*late)(nil)
	_ block.Reopener = (*late)(nil)
)

func newLate(v *array.Volume, reason error) *late {
	l := &late{
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

func (l *late) isStopped() bool {
	select {
	case <-l.stopped:
		return true
	default:
		return false
	}
}

func (l *late) Close() error {
	if d := l.real.Load(); d != nil {
		return (*d).Close()
	}
	return nil
}
