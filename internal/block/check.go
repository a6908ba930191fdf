package block

import "errors"

// The causes of errors that are found before the medium is touched.
var (
	// ErrClosed is the cause of a KindGone error after Close.
	ErrClosed = errors.New("device is closed")
	// ErrInUse is returned by OpenFile and OpenDisk while another process, or
	// this one, has the device open.
	ErrInUse = errors.New("in use by another open")
	// ErrOtherDisk is returned by OpenDisk where the path leads to another disk than was asked for, or to
	// one that does not tell which one it is.
	ErrOtherDisk = errors.New("it is another disk than before, or does not tell which one it is")
	// ErrUnaligned is the cause of a KindRange error for a request that is
	// not made of whole blocks of Info.BlockSize.
	ErrUnaligned = errors.New("not a multiple of the block size")

	errNoBuffer = errors.New("request without a buffer")
	errUnknown  = errors.New("unknown operation")
)

// Check validates a request against the facts of its device; nil says that it may
// run. Implementations of Device call it first.
func Check(r *Request, info *Info, size int64) error {
	if r.Op == Flush {
		return nil
	}
	if r.Op > Zero {
		return fail(r, KindIO, errUnknown)
	}
	n := r.Length()
	if r.Off < 0 || n < 0 || r.Off > size-n {
		return fail(r, KindRange, nil)
	}
	if r.Op != Read && info.ReadOnly {
		return fail(r, KindReadOnly, nil)
	}
	if info.BlockSize > 1 && (r.Off|n)&int64(info.BlockSize-1) != 0 {
		return fail(r, KindRange, ErrUnaligned)
	}
	if r.Data == nil && n > 0 && (r.Op == Write || r.Op == Read && !info.Lends) {
		return fail(r, KindIO, errNoBuffer)
	}
	return nil
}

func fail(r *Request, kind Kind, cause error) error {
	return &Error{Op: r.Op, Kind: kind, Off: r.Off, Err: cause}
}

func complete(r *Request, err error) {
	r.Err = err
	r.Done.RequestDone(r)
}

// clipExtent returns how much of [off, off+limit) lies inside of the device; an
// error where nothing does.
func clipExtent(off, limit, size int64) (int64, error) {
	if off < 0 || limit <= 0 || off >= size {
		return 0, &Error{Kind: KindRange, Off: off}
	}
	return min(limit, size-off), nil
}

func checkSize(size int64) error {
	if size < 0 {
		return &Error{Kind: KindRange, Off: size}
	}
	return nil
}
