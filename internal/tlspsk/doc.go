// Package tlspsk is TLS 1.3 (RFC 8446) whose peers know each other by external
// pre-shared keys and nothing else: no certificates, no tickets, no early data,
// and always with an ephemeral Diffie-Hellman exchange (psk_dhe_ke). This is the
// TLS of NVMe/TCP; the standard library's has no external keys.
package tlspsk
