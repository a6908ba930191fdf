// Package block defines block devices: what a volume's bytes are kept on.
//
// A device is addressed in bytes, knows nothing of hosts, protocols or
// identities, and completes requests by callback. The implementations are
// null, mem, file and disk; package blocktest holds the one conformance
// suite that all of them pass.
package block

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// Op is what a Request asks of a Device.
type Op uint8

// The operations of a Device.
const (
	Read    Op = iota // fill Data from Off
	Write             // store Data at Off
	Flush             // make every completed write stable
	Discard           // deallocate [Off, Off+Len): it reads as zeros afterwards
	Zero              // make [Off, Off+Len) read as zeros and keep it allocated where the device can
)

func (op Op) String() string {
	switch op {
	case Read:
		return "read"
	case Write:
		return "write"
	case Flush:
		return "flush"
	case Discard:
		return "discard"
	case Zero:
		return "zero"
	}
	return fmt.Sprintf("op(%d)", uint8(op))
}

// Flags qualify a Request.
type Flags uint8

const (
	// FUA asks that what a Write, Zero or Discard changed is on stable storage
	// before the request completes.
	FUA Flags = 1 << iota
	// Atomic asks that a crash leaves all of a Write or nothing of it. The
	// Write has to keep to Info.AtomicUnit.
	Atomic
)

// Completer receives a finished request.
type Completer interface {
	// RequestDone is called exactly once for every submitted request, either
	// from inside Submit, on the caller's goroutine, or later from a goroutine
	// of the device. It must not block. The request and its Data belong to the
	// completer again when it is called.
	RequestDone(*Request)
}

// Request is one I/O. The caller owns the struct and reuses it; from Submit
// until RequestDone it and Data belong to the device.
type Request struct {
	Op    Op
	Flags Flags
	// Off is the first byte, a multiple of Info.BlockSize.
	Off int64
	// Len is the number of bytes of a Discard or Zero, a multiple of
	// Info.BlockSize. Reads and writes take len(Data). A Read whose Data is nil
	// is allowed only where Info.Lends says so, and then Len counts: the device
	// sets Data to memory of its own, which the caller only reads.
	Len int64
	// Data is the buffer of a Read or Write: a multiple of Info.BlockSize long
	// and best aligned to Info.Align (Get returns such buffers).
	Data []byte
	// Done is told when the request has finished; Err is then set.
	Done Completer
	// Err is nil, or an *Error. After an error the range may be partly written.
	Err error

	next *Request // a device's queue may link a request that it holds
}

// Length returns the number of bytes the request covers.
func (r *Request) Length() int64 {
	if r.Data != nil {
		return int64(len(r.Data))
	}
	return r.Len
}

// Info says what a device can do. It does not change while the device is open,
// except by Resize, which concerns Size alone.
type Info struct {
	Kind string // "null", "mem", "file" or "disk"
	// BlockSize is the smallest addressable unit in bytes: 1 for devices that
	// take any byte, the logical block size of a disk opened with O_DIRECT.
	BlockSize int
	// PhysicalBlockSize is the unit, in bytes, that is written without a
	// read-modify-write; a power of two.
	PhysicalBlockSize int
	// AtomicUnit is how many bytes, aligned to as many, a Write with Atomic
	// changes all or not at all, also where the process is killed or power fails:
	// a power of two. It is 0 where that is not known, and AtomicUnlimited where a crash
	// leaves nothing that could be torn.
	AtomicUnit int
	// Align is the memory alignment that Data should have, 1 for none. Other
	// memory costs a copy.
	Align int
	// Discard says that Discard really deallocates; where false, Discard
	// writes zeros (and costs as much).
	Discard bool
	// DiscardGranularity is the unit, in bytes, in which space is given back.
	DiscardGranularity int
	// Sparse says that Extent and Used tell what is really allocated; where
	// false, all counts as allocated.
	Sparse bool
	// Volatile says that a completed Write may be lost by a power failure
	// until a Flush (or FUA).
	Volatile bool
	// Lends says that a Read with nil Data, of at most MaxBuffer bytes, is
	// answered from the device's own immutable memory.
	Lends bool
	// ReadOnly says that every change fails with KindReadOnly.
	ReadOnly bool
	// Rotational is true for spinning media.
	Rotational bool
	// Inline says that requests usually complete inside Submit.
	Inline bool
}

// AtomicUnlimited is the Info.AtomicUnit of a device that does not survive a
// crash, so that all its writes are atomic and need no alignment.
const AtomicUnlimited = math.MaxInt

// Device is a block device. All methods may be called concurrently; requests
// that overlap are ordered only by the caller waiting for the first.
type Device interface {
	Info() Info
	// Size returns the capacity in bytes.
	Size() int64
	// Submit starts a request. It may run to completion on the caller's
	// goroutine where that takes no waiting; it never waits for the medium.
	// Errors come through the request: Submit itself does not fail. After
	// Close every request fails with KindGone. Once the medium has failed a
	// Flush or FUA, all further ones fail until the device is opened again: which
	// of the completed writes were lost is unknown.
	Submit(*Request)
	// Extent reports whether the bytes at off are allocated and how many
	// bytes from off on (at least 1, at most limit) share that state; those
	// behind them may share it too. It may block.
	Extent(off, limit int64) (allocated bool, n int64, err error)
	// Resize changes the capacity in bytes; errors.ErrUnsupported where the
	// device cannot. It may block. Growing reads as zeros,
	// but for a disk, which holds what it held.
	Resize(size int64) error
	// Used returns how many bytes of backing space the device occupies.
	Used() (int64, error)
	// Close waits for the requests under way, flushes, and releases the
	// device. It is idempotent.
	Close() error
}

// Reopener is a Device whose storage can be opened anew while it is in use.
type Reopener interface {
	// Reopen opens again what the device was opened by, with the same checks, has it
	// flushed, and lets it take the place of what was open: what was wrong before is then
	// forgotten, and reads return what the storage has. Requests that arrive meanwhile wait, and go
	// on afterwards; but a Flush among them fails where completed writes may have been lost, or else the next
	// one where the storage has failed to keep them and no Flush has told so yet. opened is called
	// before any of them goes on. An error leaves the device as it was, apart from what
	// a flush that has failed on the way says of it. Where the storage does not answer until ctx is done, the error
	// is that of ctx.
	Reopen(ctx context.Context, opened func()) error
}

// Kind is the cause of an I/O error, as far as initiators are told apart.
type Kind uint8

// The kinds of error.
const (
	KindIO       Kind = iota // unknown failure of the device
	KindMedium               // the medium cannot store or return these blocks
	KindNoSpace              // the backing store is full; may pass
	KindReadOnly             // the device does not take writes
	KindGone                 // the device has vanished or is closed; may come back
	KindRange                // outside of the device
)

func (k Kind) String() string {
	switch k {
	case KindMedium:
		return "medium error"
	case KindNoSpace:
		return "no space"
	case KindReadOnly:
		return "read-only"
	case KindGone:
		return "device gone"
	case KindRange:
		return "out of range"
	}
	return "I/O error"
}

// unknown is the Off of an error of which nobody knows what it has hit.
const unknown = -1

// Error is the failure of a request.
type Error struct {
	Op   Op
	Kind Kind
	Off  int64 // first byte affected (of a KindMedium error the first that is bad), -1 where that is not known
	Err  error // the cause, may be nil
}

func (e *Error) Error() string {
	s := e.Op.String()
	if e.Off >= 0 {
		s += fmt.Sprintf(" at byte %d", e.Off)
	}
	s += ": " + e.Kind.String()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of an error returned by a device.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindIO
}
