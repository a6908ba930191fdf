package tlspsk

import (
	"errors"
	"fmt"
)

// Alert is an alert description (RFC 8446 §6). As an error it is what the peer
// ended the connection with.
type Alert uint8

// The alerts that are sent, and those that end nothing or are likely from a peer.
const (
	alertCloseNotify        Alert = 0
	alertUnexpectedMessage  Alert = 10
	alertBadRecordMAC       Alert = 20
	alertRecordOverflow     Alert = 22
	alertHandshakeFailure   Alert = 40
	alertIllegalParameter   Alert = 47
	alertDecodeError        Alert = 50
	alertDecryptError       Alert = 51
	alertProtocolVersion    Alert = 70
	alertInsufficientSec    Alert = 71
	alertInternalError      Alert = 80
	alertUserCanceled       Alert = 90
	alertMissingExtension   Alert = 109
	alertUnsupportedExt     Alert = 110
	alertUnknownPSKIdentity Alert = 115
)

var alertNames = map[Alert]string{
	alertCloseNotify:        "close_notify",
	alertUnexpectedMessage:  "unexpected_message",
	alertBadRecordMAC:       "bad_record_mac",
	alertRecordOverflow:     "record_overflow",
	alertHandshakeFailure:   "handshake_failure",
	alertIllegalParameter:   "illegal_parameter",
	alertDecodeError:        "decode_error",
	alertDecryptError:       "decrypt_error",
	alertProtocolVersion:    "protocol_version",
	alertInsufficientSec:    "insufficient_security",
	alertInternalError:      "internal_error",
	alertUserCanceled:       "user_canceled",
	alertMissingExtension:   "missing_extension",
	alertUnsupportedExt:     "unsupported_extension",
	alertUnknownPSKIdentity: "unknown_psk_identity",
}

// String returns the alert's name in the standard.
func (a Alert) String() string {
	if s, ok := alertNames[a]; ok {
		return s
	}
	return fmt.Sprintf("alert %d", uint8(a))
}

// Error says that the peer sent the alert.
func (a Alert) Error() string { return "the peer ended TLS with " + a.String() }

// Why a handshake fails, besides errors of the connection and faults of the peer.
var (
	// ErrUnknownIdentity says that no key belongs to an identity that the client named.
	ErrUnknownIdentity = errors.New("no key belongs to the client's TLS identity")
	// ErrWrongKey says that the client has another key for its identity than the server.
	ErrWrongKey = errors.New("the client's key is another than the one of its TLS identity")
	// ErrNotTLS says that the first bytes are not those of a TLS record.
	ErrNotTLS = errors.New("the peer does not speak TLS")
)

// fault is an error that the peer is told of with an alert.
type fault struct {
	alert Alert
	err   error
}

func (f *fault) Error() string { return "TLS: " + f.err.Error() }

// Unwrap returns the error without the alert.
func (f *fault) Unwrap() error { return f.err }

func faultf(a Alert, format string, args ...any) error {
	return &fault{a, fmt.Errorf(format, args...)}
}
