package block

import (
	"errors"
	"sync/atomic"
)

// zeros is what a null device lends and what zeroing by writes writes. Nobody
// stores to it, so the kernel backs it with its one page of zeros.
var zeros [MaxBuffer]byte

var errLendSize = errors.New("more than the largest buffer asked for at once")

var nullInfo = Info{
	Kind:               "null",
	BlockSize:          1,
	PhysicalBlockSize:  4096,
	AtomicUnit:         AtomicUnlimited,
	Align:              1,
	Discard:            true,
	DiscardGranularity: 4096,
	Lends:              true,
	Sparse:             true,
	Inline:             true,
}

// A null device reads as zeros and swallows writes, for measurements.
type null struct {
	size   atomic.Int64
	closed atomic.Bool
}

var _ Device = (*null)(nil)

// NewNull returns a device of the given size in bytes, 0 to math.MaxInt64, that
// reads as zeros and forgets what is written. It occupies no space.
func NewNull(size int64) Device {
	d := &null{}
	d.size.Store(max(size, 0))
	return d
}

func (d *null) Info() Info  { return nullInfo }
func (d *null) Size() int64 { return d.size.Load() }

func (d *null) Submit(r *Request) {
	if d.closed.Load() {
		complete(r, fail(r, KindGone, ErrClosed))
		return
	}
	err := Check(r, &nullInfo, d.size.Load())
	if err == nil && r.Op == Read {
		switch {
		case r.Data != nil:
			clear(r.Data)
		case r.Len <= MaxBuffer:
			r.Data = zeros[:r.Len:r.Len]
		default:
			err = fail(r, KindRange, errLendSize)
		}
	}
	complete(r, err)
}

func (d *null) Extent(off, limit int64) (bool, int64, error) {
	if d.closed.Load() {
		return false, 0, &Error{Kind: KindGone, Off: off, Err: ErrClosed}
	}
	n, err := clipExtent(off, limit, d.size.Load())
	return false, n, err
}

func (d *null) Resize(size int64) error {
	if d.closed.Load() {
		return &Error{Kind: KindGone, Err: ErrClosed}
	}
	if err := checkSize(size); err != nil {
		return err
	}
	d.size.Store(size)
	return nil
}

func (d *null) Used() (int64, error) { return 0, nil }

func (d *null) Close() error {
	d.closed.Store(true)
	return nil
}
