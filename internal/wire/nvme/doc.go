// Package nvme holds the formats of NVMe (Base 2.0, NVM command set 1.0, NVMe
// over Fabrics): queue entries as typed views on byte slices, status and command
// codes, and the data structures of Identify, log pages, features, reservations,
// discovery and DH-HMAC-CHAP messages. All numbers are little endian.
package nvme

import "encoding/binary"

var le = binary.LittleEndian
