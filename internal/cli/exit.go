package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"connectrpc.com/connect"

	"lintel.io/lintel/internal/array"
)

// The exit codes of every lintel command. Scripts rely on them: a code never
// changes its meaning.
const (
	ExitOK          = 0 // done
	ExitError       = 1 // any failure without a code of its own
	ExitUsage       = 2 // wrong flags, arguments or values; nothing was done
	ExitNotFound    = 4 // the named object does not exist
	ExitConflict    = 5 // exists already, is in use, or was changed meanwhile
	ExitDenied      = 6 // the array, or the system, refuses permission
	ExitUnreachable = 7 // no array answers
	ExitDegraded    = 8 // works, but not as it should
)

// codeError is an error that knows its exit code.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string { return e.err.Error() }
func (e *codeError) Unwrap() error { return e.err }

// fail makes an error with an exit code.
func fail(code int, format string, args ...any) error {
	return &codeError{code, fmt.Errorf(format, args...)}
}

// usage makes an error about how the command was called.
func usage(format string, args ...any) error { return fail(ExitUsage, format, args...) }

// exitCode returns the exit code that err stands for.
func exitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[*codeError](err); ok {
		return e.code
	}
	if e, ok := errors.AsType[*connect.Error](err); ok {
		switch e.Code() {
		case connect.CodeInvalidArgument, connect.CodeOutOfRange:
			return ExitUsage
		case connect.CodeNotFound:
			return ExitNotFound
		case connect.CodeAlreadyExists, connect.CodeFailedPrecondition, connect.CodeAborted, connect.CodeResourceExhausted:
			return ExitConflict
		case connect.CodePermissionDenied, connect.CodeUnauthenticated:
			return ExitDenied
		case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
			if connect.IsWireError(err) {
				return ExitConflict // the array answers: it is busy
			}
			return ExitUnreachable
		}
	}
	switch array.KindOf(err) {
	case array.KindInvalid:
		return ExitUsage
	case array.KindNotFound:
		return ExitNotFound
	case array.KindExists, array.KindBusy, array.KindConflict, array.KindUnavailable:
		return ExitConflict
	}
	if errors.Is(err, fs.ErrPermission) {
		return ExitDenied
	}
	return ExitError
}

// message returns what the user reads about err: what the array said, without
// the API's code in front of it.
func message(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*connect.Error](err); ok {
		text = strings.Replace(text, e.Error(), e.Message(), 1)
	}
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	return text
}
