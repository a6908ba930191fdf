package block

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// opened is a file or block device that was found in order.
type opened struct {
	fd      int
	id      unix.Stat_t
	disk    []string // identities of a block device, the best first, none where it does not tell
	info    Info
	claimed bool // fd itself keeps others from opening the same
}

// Reopen implements Reopener.
func (d *file) Reopen(ctx context.Context, done func()) error {
	err := d.reopen(ctx, reopening{
		open: func(_ int, held unix.Stat_t) (*opened, error) {
			return openBackingFile(d.path, FileOptions{ReadOnly: d.info.ReadOnly, Size: d.size.Load()}, &held)
		},
		cached: true,
		forget: func() { d.wrong.Store(nil) },
		submit: d.Submit,
		opened: done,
	})
	if err != nil {
		return fmt.Errorf("open volume file %s anew: %w", d.path, err)
	}
	return nil
}

// Reopen implements Reopener.
func (d *disk) Reopen(ctx context.Context, done func()) error {
	err := d.reopen(ctx, reopening{
		open: func(fd int, held unix.Stat_t) (*opened, error) {
			o, size, err := d.probe(true)
			if errors.Is(err, ErrInUse) {
				// By this device itself, unless it has gone and another one has taken
				// over its number: it has then no capacity any more.
				if was, gone := d.capacity(fd); was > 0 && gone == nil {
					o, size, err = d.probe(false)
				}
				if err == nil && o.id.Rdev != held.Rdev {
					err = errors.Join(ErrInUse, unix.Close(o.fd))
				}
			}
			if err == nil && o.claimed && !slices.Contains(o.disk, d.identity) {
				// The path of a disk that has gone may lead to another one that hosts know nothing of.
				err = errors.Join(ErrOtherDisk, unix.Close(o.fd))
			}
			if err == nil && size < d.size.Load() {
				err = errors.Join(fmt.Errorf("it has %d bytes, not %d", size, d.size.Load()), unix.Close(o.fd))
			}
			return o, err
		},
		forget: func() {},
		submit: d.Submit,
		opened: done,
	})
	if err != nil {
		return fmt.Errorf("open disk %s anew: %w", d.path, err)
	}
	return nil
}

// A reopening is what the kinds of device do differently.
type reopening struct {
	open   func(fd int, held unix.Stat_t) (*opened, error) // these are open already
	cached bool                                            // the page cache is used
	forget func()
	submit func(*Request)
	opened func()
}

func (b *backing) reopen(ctx context.Context, r reopening) error {
	if !b.mu.lockUntil(ctx.Done()) {
		return hangs(ctx)
	}
	defer b.mu.Unlock()
	if b.gate.closed() {
		return errClosed()
	}
	fd, held := b.fd, b.id
	var o *opened
	release := func() { // where nothing comes of it
		if o != nil {
			_ = unix.Close(o.fd)
		}
	}
	err := b.bounded(ctx, release, func() (err error) {
		if o, err = r.open(fd, held); err != nil {
			o = nil
			return err
		}
		if err := b.info.fits(&o.info); err != nil {
			return err
		}
		// Most of what is to be flushed is flushed while requests still go on.
		if err := b.flushNew(o); err != nil && b.broken.Load() == nil {
			return err
		} // else it may be the kernel's record of what has failed in the meantime
		return nil
	})
	if err != nil {
		return err
	}
	if !b.gate.pause(ctx.Done()) {
		b.gate.resume(r.submit)
		go release()
		return hangs(ctx)
	}
	err = b.bounded(ctx, release, func() error {
		if !o.claimed {
			b.flushOld()
		}
		if err := b.flushNew(o); err != nil {
			return err
		}
		if r.cached {
			return b.dropCache(o)
		}
		return nil
	})
	if err != nil {
		b.gate.resume(r.submit)
		return err
	}
	lost := b.vouch(Flush)
	if lost == nil && o.claimed && !b.info.ReadOnly {
		lost = &Error{Op: Flush, Kind: KindMedium, Off: unknown, Err: fmt.Errorf("%s was replaced: writes may be lost since the last good flush", b.path)}
	}
	b.take(o)
	if broken := b.broken.Swap(nil); broken != nil && !broken.told.Load() {
		b.owed.Store(broken)
	}
	b.faults.forget()
	r.forget()
	r.opened()
	b.gate.resume(func(held *Request) {
		if lost != nil && held.Op == Flush {
			b.owed.Store(nil)
			complete(held, lost)
			return
		}
		r.submit(held)
	})
	return nil
}

// take puts what was opened in the place of what is open. Where that is the same, the first
// descriptor is kept for its lock: a lock cannot be handed on without a moment in which
// anybody may take it.
func (b *backing) take(o *opened) {
	old := b.fd
	b.fd, b.id = o.fd, o.id
	var unused []int
	switch {
	case o.claimed && b.claim >= 0:
		unused, b.claim = []int{old, b.claim}, -1
	case o.claimed || b.claim >= 0:
		unused = []int{old}
	default:
		b.claim = old
	}
	if len(unused) == 0 {
		return
	}
	go func() { // storage that has gone may keep it waiting
		for _, fd := range unused {
			_ = unix.Close(fd)
		}
	}()
}

// bounded calls f, which uses storage that may hang, and release where it fails. Where ctx is
// done before f is, f goes on by itself; the next call of bounded waits for its end.
func (b *backing) bounded(ctx context.Context, release func(), f func() error) error {
	select {
	case b.opening <- struct{}{}:
	case <-ctx.Done():
		go release()
		return hangs(ctx)
	}
	done := make(chan error)
	go func() {
		err := f()
		if err != nil {
			release()
		}
		<-b.opening
		select {
		case done <- err:
		case <-ctx.Done():
			if err == nil {
				release()
			}
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return hangs(ctx)
	}
}

func hangs(ctx context.Context) error {
	return fmt.Errorf("the storage does not answer: %w", context.Cause(ctx))
}

// flushNew makes stable what was written through the descriptor that is open, if it is to the same storage.
func (b *backing) flushNew(o *opened) error {
	if b.info.ReadOnly {
		return nil
	}
	errno := b.datasync(o.fd)
	if errno == 0 {
		return nil
	}
	if !o.claimed {
		_ = b.fails(Flush, unknown, errno) // it counts, whoever has made it
	}
	return fmt.Errorf("flush: %w", errno)
}

// flushOld asks the descriptor that is open, while nothing else uses it, whether a write-back has
// failed since its last flush: a new one does not tell what somebody else's flush was told before
// it was opened.
func (b *backing) flushOld() {
	if b.info.ReadOnly || b.broken.Load() != nil {
		return
	}
	if errno := b.datasync(b.fd); errno != 0 {
		_ = b.fails(Flush, unknown, errno)
	}
}

// dropCache has the page cache forget what is clean of a file: after an fdatasync, all of it. Pages whose write-back
// has failed are clean for the kernel. Most file systems (ext4, XFS) keep them and what they hold, so that
// they read as if they were stored until memory gets short; others (Btrfs) throw them away. Dropped, all
// read as what the storage has.
func (b *backing) dropCache(o *opened) error {
	if errno := b.calls.forget(o.fd); errno != 0 {
		return fmt.Errorf("drop the page cache: %w", errno)
	}
	return nil
}

// fits returns why storage with other facts cannot take the place of the one with these,
// which users of the device go by.
func (i *Info) fits(other *Info) error {
	if other.BlockSize != i.BlockSize || other.PhysicalBlockSize != i.PhysicalBlockSize || other.Align != i.Align ||
		other.AtomicUnit < i.AtomicUnit || other.Volatile && !i.Volatile {
		return errors.New("it is storage of another kind than before (block sizes, write cache or atomic writes): restart the array to use it")
	}
	return nil
}
