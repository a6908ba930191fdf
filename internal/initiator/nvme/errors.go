package nvme

import (
	"errors"
	"fmt"

	wire "lintel.io/lintel/internal/wire/nvme"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

var (
	// ErrClosed says that the queue or controller was closed from this side.
	ErrClosed = errors.New("NVMe association is closed")
	// ErrProtocol says that the target broke the protocol; the queue has ended.
	ErrProtocol = errors.New("NVMe/TCP protocol error")
	// ErrDigest says that a PDU arrived with a wrong digest; the queue has ended.
	ErrDigest = errors.New("NVMe/TCP digest error")
	// ErrKeepAlive says that the target did not answer a Keep Alive in time.
	ErrKeepAlive = errors.New("keep alive not answered")
	// ErrAuthentication says that one side could not prove its identity to the other.
	ErrAuthentication = errors.New("authentication failed")
	// ErrCommand says that a command cannot be expressed in NVMe/TCP.
	ErrCommand = errors.New("invalid command")
)

// StatusError is a command that ended with a status other than success.
type StatusError struct {
	Status wire.Status
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("NVMe status %#05x: %v", uint16(e.Status), e.Status)
}

// StatusOf returns the code of the status in an error, 0 where there is none.
func StatusOf(err error) wire.Status {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.Status.Code()
	}
	return wire.Success
}

// TerminatedError is a connection that the target ended with a termination
// request (NVMe/TCP 1.0 §3.6.2.5).
type TerminatedError struct {
	Status pdu.Status
	Info   uint32
}

func (e *TerminatedError) Error() string {
	return fmt.Sprintf("terminated by the target: %v (information %#x)", e.Status, e.Info)
}

// fault is an error of the target that it is told of in a termination request
// (NVMe/TCP 1.0 §3.5).
type fault struct {
	pdu.Fault
	header []byte // of the PDU in error
	err    error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// broken is the fault of the PDU that begins with p.
func broken(f pdu.Fault, p pdu.PDU, format string, args ...any) error {
	n := min(len(p), max(p.Type().HeaderSize(), pdu.CommonSize))
	err := protocolError("%v: "+format, append([]any{p.Type()}, args...)...)
	return &fault{Fault: f, header: append([]byte(nil), p[:n]...), err: err}
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}
