package iscsi

import (
	"errors"
	"fmt"

	wire "lintel.io/lintel/internal/wire/iscsi"
	"lintel.io/lintel/internal/wire/scsi"
)

var (
	// ErrClosed says that the session was closed or logged out from this side.
	ErrClosed = errors.New("iSCSI session is closed")
	// ErrAborted says that a command was ended by task management.
	ErrAborted = errors.New("command aborted by task management")
	// ErrProtocol says that the target broke the protocol; the session has ended.
	ErrProtocol = errors.New("iSCSI protocol error")
	// ErrDigest says that a PDU arrived with a wrong digest; the session has ended.
	ErrDigest = errors.New("iSCSI digest error")
	// ErrAuthentication says that the target failed to prove its identity.
	ErrAuthentication = errors.New("target authentication failed")
	// ErrCommand says that a command cannot be expressed in iSCSI.
	ErrCommand = errors.New("invalid command")
)

// LoginError is a login that the target refused.
type LoginError struct {
	Status wire.LoginStatus
}

func (e *LoginError) Error() string {
	return fmt.Sprintf("login refused: %v (%#04x)", e.Status, uint16(e.Status))
}

// RejectError is a PDU that the target rejected (RFC 7143 §11.17).
type RejectError struct {
	Reason wire.Reason
	Opcode wire.Opcode // of the rejected PDU
}

func (e *RejectError) Error() string {
	return fmt.Sprintf("target rejected %v with reason %#02x", e.Opcode, uint8(e.Reason))
}

// ResponseError is a SCSI Response that says that the command was not
// delivered to the logical unit (RFC 7143 §11.4.3).
type ResponseError struct {
	Response uint8
}

func (e *ResponseError) Error() string {
	return fmt.Sprintf("target failure: iSCSI response %#02x", e.Response)
}

// StatusError is a command that ended with a SCSI status other than GOOD.
type StatusError struct {
	Status uint8
	Sense  []byte
}

// statusNames are the statuses for people (SAM-5 §5.3.1).
var statusNames = map[uint8]string{
	0x02: "CHECK CONDITION",
	0x04: "CONDITION MET",
	0x08: "BUSY",
	0x18: "RESERVATION CONFLICT",
	0x28: "TASK SET FULL",
	0x30: "ACA ACTIVE",
	0x40: "TASK ABORTED",
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("SCSI status %#02x", e.Status)
	if name := statusNames[e.Status]; name != "" {
		text += " " + name
	}
	if sense, err := scsi.ParseSense(e.Sense); err == nil {
		text += ": " + sense.String()
	}
	return text
}

// SenseCode returns the sense key and the additional sense code with its
// qualifier (in the low byte) of sense data in fixed or descriptor format;
// zeros where there is none (SPC-4 §4.5).
func SenseCode(sense []byte) (key uint8, code uint16) {
	if len(sense) < 4 {
		return 0, 0
	}
	switch sense[0] & 0x7f {
	case 0x70, 0x71:
		key = sense[2] & 0xf
		if len(sense) >= 14 {
			code = uint16(sense[12])<<8 | uint16(sense[13])
		}
	case 0x72, 0x73:
		key, code = sense[1]&0xf, uint16(sense[2])<<8|uint16(sense[3])
	}
	return key, code
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}
