package unit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/block"
)

// ErrUncorrectableLimit says that a unit has as many ranges of uncorrectable blocks as
// it keeps.
var ErrUncorrectableLimit = errors.New("no more ranges of blocks can be marked uncorrectable: write to those that are")

var errMarked = errors.New("an initiator has marked the block uncorrectable")

const (
	// maxUncorrectable is up to how many ranges of uncorrectable blocks a unit marks;
	// writes may split them into maxSplit, which are as many as fit into a setting: what
	// is written has to become readable.
	maxUncorrectable     = 256
	maxSplit             = (MaxSetting - 1) / spanSize
	spanSize             = 16
	settingUncorrectable = "uncorrectable"
	// uncorrectableFormat is the first byte of the setting.
	uncorrectableFormat = 1
)

// span is a range of bytes.
type span struct{ off, end int64 }

// uncorrectable is the device of a unit of which an initiator has marked blocks as
// uncorrectable: they cannot be read until they are written again.
type uncorrectable struct {
	block.Device
	save  func([]byte) error
	spans atomic.Pointer[[]span] // sorted, none next to another, never changed once published

	mu sync.Mutex // serialises changes
}

// loadUncorrectable finds the marks that the unit's store has kept.
func (u *Unit) loadUncorrectable() error {
	blob, err := u.LoadSetting(settingUncorrectable)
	if err != nil || len(blob) == 0 {
		return err
	}
	list, err := decodeSpans(blob)
	if err != nil || len(list) == 0 {
		return err
	}
	d := u.marking()
	d.spans.Store(&list)
	return d.clear(u.dev.Size(), math.MaxInt64) // power may have failed while it shrank
}

// marking returns the device that keeps the marks, from the first time on that one is made.
func (u *Unit) marking() *uncorrectable {
	d := &uncorrectable{Device: u.dev, save: func(b []byte) error { return u.SaveSetting(settingUncorrectable, b) }}
	d.spans.Store(new([]span))
	u.marked.CompareAndSwap(nil, d)
	return u.marked.Load()
}

// MarkUncorrectable makes blocks unreadable until they are written, also after a restart. The
// caller holds their range exclusively. It blocks, and fails with ErrUncorrectableLimit where there are
// too many ranges of such blocks.
func (u *Unit) MarkUncorrectable(lba, count uint64) error {
	d := u.marking()
	return d.change(maxUncorrectable, func(list []span) []span {
		s := span{int64(lba) << u.shift, int64(lba+count) << u.shift}
		list = without(list, s)
		i, _ := slices.BinarySearchFunc(list, s, func(a, b span) int { return int(min(1, max(-1, a.off-b.off))) })
		list = slices.Insert(list, i, s)
		if i+1 < len(list) && list[i+1].off == s.end {
			list[i].end = list[i+1].end
			list = slices.Delete(list, i+1, i+2)
		}
		if i > 0 && list[i-1].end == s.off {
			list[i-1].end = list[i].end
			list = slices.Delete(list, i, i+1)
		}
		return list
	})
}

// BlockRange is a range of logical blocks.
type BlockRange struct{ LBA, Count uint64 }

// Uncorrectable lists the blocks of a range that are marked uncorrectable.
func (u *Unit) Uncorrectable(lba, count uint64) []BlockRange {
	d := u.marked.Load()
	if d == nil {
		return nil
	}
	from, to := int64(lba)<<u.shift, int64(lba+count)<<u.shift
	var ranges []BlockRange
	for _, s := range *d.spans.Load() {
		if off, end := max(s.off, from), min(s.end, to); off < end {
			ranges = append(ranges, BlockRange{uint64(off) >> u.shift, uint64(end-off) >> u.shift})
		}
	}
	return ranges
}

// Submit starts a request unless it would read a marked block.
func (d *uncorrectable) Submit(r *block.Request) {
	at := int64(-1)
	if list := *d.spans.Load(); len(list) > 0 && r.Op != block.Flush {
		at = first(list, r.Off, r.Off+r.Length())
	}
	switch {
	case at < 0:
	case r.Op == block.Read:
		r.Err = &block.Error{Op: r.Op, Kind: block.KindMedium, Off: at, Err: errMarked}
		r.Done.RequestDone(r)
		return
	default:
		// A mark must not go before what replaces the block is there to stay.
		r.Done, r.Flags = &mending{device: d, done: r.Done, flags: r.Flags}, r.Flags|block.FUA
	}
	d.Device.Submit(r)
}

// Extent has marked blocks count as allocated, so that nobody takes them for zeros
// without reading them.
func (d *uncorrectable) Extent(off, limit int64) (allocated bool, n int64, err error) {
	for _, s := range *d.spans.Load() {
		switch {
		case s.off <= off && off < s.end:
			return true, min(limit, s.end-off), nil
		case off < s.off:
			return d.Device.Extent(off, min(limit, s.off-off))
		}
	}
	return d.Device.Extent(off, limit)
}

// first returns the first marked byte in [off, end), -1 where there is none.
func first(list []span, off, end int64) int64 {
	for _, s := range list {
		if s.off < end && off < s.end {
			return max(s.off, off)
		}
	}
	return -1
}

// mending takes the marks off what a request has written, before its owner is told.
type mending struct {
	device *uncorrectable
	done   block.Completer
	flags  block.Flags // as the owner set them
}

// RequestDone is told that the request has finished.
func (m *mending) RequestDone(r *block.Request) {
	r.Done, r.Flags = m.done, m.flags
	if r.Err != nil {
		m.done.RequestDone(r)
		return
	}
	go func() { // the marks are on stable storage, which takes time
		if err := m.device.clear(r.Off, r.Off+r.Length()); err != nil {
			r.Err = &block.Error{Op: r.Op, Kind: block.KindIO, Off: r.Off, Err: err}
		}
		m.done.RequestDone(r)
	}()
}

func (d *uncorrectable) clear(off, end int64) error {
	return d.change(maxSplit, func(list []span) []span { return without(list, span{off, end}) })
}

// without returns the spans outside of one.
func without(list []span, gone span) []span {
	out := make([]span, 0, len(list)+1)
	for _, s := range list {
		if left := (span{s.off, min(s.end, gone.off)}); left.off < left.end {
			out = append(out, left)
		}
		if right := (span{max(s.off, gone.end), s.end}); right.off < right.end {
			out = append(out, right)
		}
	}
	return out
}

// change saves other marks, at most limit where there are more than before, and then
// makes them count.
func (d *uncorrectable) change(limit int, edit func([]span) []span) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := *d.spans.Load()
	list := edit(old)
	if slices.Equal(list, old) {
		return nil
	}
	if len(list) > limit && len(list) > len(old) {
		return ErrUncorrectableLimit
	}
	if err := d.save(encodeSpans(list)); err != nil {
		return fmt.Errorf("marks of uncorrectable blocks: %w", err)
	}
	d.spans.Store(&list)
	return nil
}

// Resize changes the capacity; blocks that go take their marks along.
func (d *uncorrectable) Resize(size int64) error {
	if err := d.Device.Resize(size); err != nil {
		return err
	}
	return d.clear(size, math.MaxInt64)
}

// encodeSpans returns the setting for a list, nil for an empty one.
func encodeSpans(list []span) []byte {
	if len(list) == 0 {
		return nil
	}
	b := []byte{uncorrectableFormat}
	for _, s := range list {
		b = binary.BigEndian.AppendUint64(b, uint64(s.off))
		b = binary.BigEndian.AppendUint64(b, uint64(s.end))
	}
	return b
}

func decodeSpans(b []byte) ([]span, error) {
	if b[0] != uncorrectableFormat {
		return nil, fmt.Errorf("marks of uncorrectable blocks: format %d is unknown: use the version that wrote it", b[0])
	}
	var list []span
	last := int64(-1)
	for b = b[1:]; len(b) >= spanSize; b = b[spanSize:] {
		s := span{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}
		if s.off <= last || s.end <= s.off {
			return nil, errors.New("marks of uncorrectable blocks: damaged")
		}
		list, last = append(list, s), s.end
	}
	if len(b) != 0 {
		return nil, errors.New("marks of uncorrectable blocks: cut")
	}
	return list, nil
}
