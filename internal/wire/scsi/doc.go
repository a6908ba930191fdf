// Package scsi holds what is on the wire of SCSI: operation codes, additional
// sense codes, sense data, designators, LUNs, TransportIDs and the CDB fields
// that target and initiator share. It is pure: bytes in, values out.
package scsi
