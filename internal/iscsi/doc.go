// Package iscsi is the target side of iSCSI (RFC 7143): login, sessions and
// connections. PDUs come in from sockets; SCSI commands go out to an I_T nexus.
package iscsi
