// Package iscsi is the wire format of iSCSI (RFC 7143): typed views on the
// basic header segment of every PDU in both directions, additional header
// segments, padding, digests, and the text of login and text PDUs.
//
// It owns no connection and keeps no state. A view is a byte slice of
// HeaderSize bytes; its getters and setters name the fields as the RFC does.
// Fields with one name and different places in different PDUs have a getter
// each.
package iscsi
