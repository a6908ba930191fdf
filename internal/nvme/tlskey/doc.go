// Package tlskey makes the keys of TLS from the keys that administrators configure for
// NVMe/TCP (NVMe/TCP 1.0 §3.6.1): their text form, the retained key, the identity under
// which a host offers a key, and the pre-shared key of TLS itself.
package tlskey
