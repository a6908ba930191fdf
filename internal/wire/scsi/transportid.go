package scsi

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ProtocolISCSI is the protocol identifier of iSCSI (SPC-4 §7.6.1).
const ProtocolISCSI uint8 = 5

// iscsiISID separates an iSCSI name from the initiator session id in a
// TransportID of format 01b and in an initiator port name.
const iscsiISID = ",i,0x"

// ErrTransportID says that a TransportID is malformed or of another protocol.
var ErrTransportID = errors.New("invalid TransportID")

// ISCSITransportID returns the TransportID of an iSCSI initiator (SPC-4
// §7.6.4.6): of the port where name has the form "iqn...,i,0x<12 hex digits>",
// else of the device, which stands for all of its ports.
func ISCSITransportID(name string) []byte {
	id := padName(name, 0xFFFC)
	if len(id) < 20 {
		id = append(id, make([]byte, 20-len(id))...)
	}
	b := make([]byte, 4, 4+len(id))
	b[0] = ProtocolISCSI
	if strings.Contains(name, iscsiISID) {
		b[0] |= 0x40
	}
	PutUint16(b[2:], uint16(len(id)))
	return append(b, id...)
}

// TransportIDLength returns how long the TransportID at the start of b is, in
// bytes (SPC-4 §7.6.4): iSCSI's have a length, all others are 24 bytes.
func TransportIDLength(b []byte) (int, error) {
	if len(b) < 24 {
		return 0, fmt.Errorf("%w: %d bytes is too short", ErrTransportID, len(b))
	}
	n := 24
	if b[0]&0x0F == ProtocolISCSI {
		n = 4 + int(Uint16(b[2:]))
		if n < 24 || n%4 != 0 {
			return 0, fmt.Errorf("%w: additional length %d", ErrTransportID, n-4)
		}
	}
	if n > len(b) {
		return 0, fmt.Errorf("%w: %d of %d bytes", ErrTransportID, len(b), n)
	}
	return n, nil
}

// ParseISCSITransportID returns the name in the iSCSI TransportID at the start
// of b: the initiator port name where port, else the device name; and its length.
func ParseISCSITransportID(b []byte) (name string, port bool, n int, err error) {
	n, err = TransportIDLength(b)
	if err != nil {
		return "", false, 0, err
	}
	if b[0]&0x0F != ProtocolISCSI || b[0]&0x30 != 0 || b[0]>>6 > 1 {
		return "", false, 0, fmt.Errorf("%w: protocol and format %02Xh", ErrTransportID, b[0])
	}
	text, pad, ended := bytes.Cut(b[4:n], []byte{0})
	if !ended || len(text) == 0 || len(bytes.Trim(pad, "\x00")) != 0 {
		return "", false, 0, fmt.Errorf("%w: the name is not ended by NULs", ErrTransportID)
	}
	name, port = string(text), b[0]>>6 == 1
	device, isid, found := strings.Cut(name, iscsiISID)
	if found != port || device == "" || len(device) > 223 {
		return "", false, 0, fmt.Errorf("%w: name %q", ErrTransportID, name)
	}
	if port {
		if raw, err := hex.DecodeString(isid); err != nil || len(raw) != 6 {
			return "", false, 0, fmt.Errorf("%w: session id %q", ErrTransportID, isid)
		}
	}
	return name, port, n, nil
}
