package array

import (
	"errors"
	"fmt"
)

// Kind says what an error means to the one who asked. API codes and exit codes
// are made from it.
type Kind uint8

// The kinds of error.
const (
	KindInternal    Kind = iota // the array failed
	KindInvalid                 // a value is wrong
	KindNotFound                // no such object
	KindExists                  // the name, identity, LUN or address is taken
	KindBusy                    // the object's state does not allow it now
	KindConflict                // the object has changed since it was read
	KindUnavailable             // may pass: try again
)

func (k Kind) String() string {
	switch k {
	case KindInvalid:
		return "invalid"
	case KindNotFound:
		return "not found"
	case KindExists:
		return "exists"
	case KindBusy:
		return "busy"
	case KindConflict:
		return "conflict"
	case KindUnavailable:
		return "unavailable"
	}
	return "internal"
}

// Error is an error of a known kind.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error; the format works as in fmt.Errorf.
func Errorf(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost Error in err's tree, KindInternal
// where there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}
