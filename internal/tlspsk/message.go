package tlspsk

import (
	"bytes"
	"encoding/binary"
)

// Handshake message types (RFC 8446 §4).
const (
	typeClientHello         = 1
	typeServerHello         = 2
	typeNewSessionTicket    = 4
	typeEncryptedExtensions = 8
	typeFinished            = 20
	typeKeyUpdate           = 24
	typeMessageHash         = 254
)

// Extensions (RFC 8446 §4.2).
const (
	extSupportedGroups   = 10
	extPreSharedKey      = 41
	extEarlyData         = 42
	extSupportedVersions = 43
	extCookie            = 44
	extPSKModes          = 45
	extKeyShare          = 51
)

const (
	tls12 = 0x0303 // what TLS 1.3 says of itself
	tls13 = 0x0304

	modeDHE = 1

	maxMessage    = 32 << 10 // bytes of a handshake message
	maxIdentities = 16       // that a server looks up
)

// retryRandom makes a ServerHello a HelloRetryRequest (RFC 8446 §4.1.3).
var retryRandom = [32]byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}

// decoder takes values off the front of a message; bad is set where there are
// not enough bytes.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || n > len(d.rest) {
		d.bad, d.rest = true, nil
		return nil
	}
	p := d.rest[:n:n]
	d.rest = d.rest[n:]
	return p
}

func (d *decoder) uint(n int) int {
	v := 0
	for _, b := range d.bytes(n) {
		v = v<<8 | int(b)
	}
	return v
}

// vector takes a vector whose length is in n bytes.
func (d *decoder) vector(n int) *decoder {
	p := d.bytes(d.uint(n))
	return &decoder{rest: p, bad: d.bad}
}

// done reports whether everything was taken.
func (d *decoder) done() bool { return !d.bad && len(d.rest) == 0 }

// uint16s takes the rest as numbers.
func (d *decoder) uint16s() []uint16 {
	var list []uint16
	for !d.bad && len(d.rest) > 0 {
		list = append(list, uint16(d.uint(2)))
	}
	return list
}

// encoder builds a message.
type encoder []byte

func (e *encoder) uint8(v int)     { *e = append(*e, byte(v)) }
func (e *encoder) uint16(v int)    { *e = binary.BigEndian.AppendUint16(*e, uint16(v)) }
func (e *encoder) bytes(p ...byte) { *e = append(*e, p...) }
func (e *encoder) string(s string) { *e = append(*e, s...) }
func (e *encoder) zero(n int)      { *e = append(*e, make([]byte, n)...) }
func (e *encoder) extension(t int, body func()) {
	e.uint16(t)
	e.vector(2, body)
}

// vector puts what body appends behind its length in n bytes.
func (e *encoder) vector(n int, body func()) {
	at := len(*e)
	e.zero(n)
	body()
	size := len(*e) - at - n
	for i := n - 1; i >= 0; i-- {
		(*e)[at+i] = byte(size)
		size >>= 8
	}
}

// message returns a handshake message.
func message(t int, body func(e *encoder)) []byte {
	var e encoder
	e.uint8(t)
	e.vector(3, func() { body(&e) })
	return e
}

type keyShare struct {
	group Group
	key   []byte
}

type offeredKey struct {
	identity []byte
	binder   []byte
}

// clientHello is what a server wants to know of a ClientHello (RFC 8446 §4.1.2).
// Its slices are parts of the message.
type clientHello struct {
	random     []byte
	session    []byte
	suites     []uint16
	groups     []uint16
	shares     []keyShare
	keys       []offeredKey
	dhe, early bool
	truncated  int // bytes of the message before the binders
}

// extensions calls f with each; what f leaves over is an error.
func extensions(d *decoder, f func(t int, d *decoder) error) error {
	seen := map[int]bool{}
	list := d.vector(2)
	for len(list.rest) > 0 {
		t := list.uint(2)
		body := list.vector(2)
		if list.bad {
			break
		}
		if seen[t] {
			return faultf(alertIllegalParameter, "extension %d twice", t)
		}
		seen[t] = true
		if err := f(t, body); err != nil {
			return err
		}
		if !body.done() {
			return faultf(alertDecodeError, "extension %d is malformed", t)
		}
	}
	if list.bad || !d.done() {
		return faultf(alertDecodeError, "malformed extensions")
	}
	return nil
}

// parseClientHello reads a whole message.
func parseClientHello(m []byte) (*clientHello, error) {
	d := &decoder{rest: m[4:]}
	h := &clientHello{}
	version := d.uint(2)
	h.random = d.bytes(32)
	h.session = d.vector(1).rest
	suites := d.vector(2)
	h.suites = suites.uint16s()
	compression := d.vector(1).rest
	if d.bad || suites.bad || len(h.session) > 32 || len(compression) == 0 {
		return nil, faultf(alertDecodeError, "malformed ClientHello")
	}
	if version < tls12 || len(d.rest) == 0 {
		return nil, faultf(alertProtocolVersion, "the client does not know TLS 1.3")
	}
	versions, modes, last := false, false, 0
	err := extensions(d, func(t int, d *decoder) error {
		last = t
		switch t {
		case extSupportedVersions:
			for _, v := range d.vector(1).uint16s() {
				versions = versions || v == tls13
			}
		case extSupportedGroups:
			h.groups = d.vector(2).uint16s()
		case extPSKModes:
			modes = true
			h.dhe = bytes.IndexByte(d.vector(1).rest, modeDHE) >= 0
		case extKeyShare:
			return h.parseShares(d)
		case extPreSharedKey:
			return h.parseKeys(d, len(m))
		case extEarlyData:
			h.early = true
		default:
			d.rest = nil
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !versions:
		return nil, faultf(alertProtocolVersion, "the client does not know TLS 1.3")
	case len(compression) != 1 || compression[0] != 0:
		return nil, faultf(alertIllegalParameter, "the client wants compression")
	case h.keys == nil:
		return nil, faultf(alertMissingExtension, "the client offers no pre-shared key")
	case last != extPreSharedKey:
		return nil, faultf(alertIllegalParameter, "the pre_shared_key extension is not the last one")
	case !modes || h.groups == nil:
		return nil, faultf(alertMissingExtension, "the client does not say its key exchange modes and groups")
	case !h.dhe:
		return nil, faultf(alertHandshakeFailure, "the client does not offer psk_dhe_ke")
	}
	return h, nil
}

func (h *clientHello) parseShares(d *decoder) error {
	list := d.vector(2)
	for len(list.rest) > 0 {
		s := keyShare{Group(list.uint(2)), list.vector(2).rest}
		if list.bad || len(s.key) == 0 {
			return faultf(alertDecodeError, "malformed key share")
		}
		for _, other := range h.shares {
			if other.group == s.group {
				return faultf(alertIllegalParameter, "two key shares of a group")
			}
		}
		h.shares = append(h.shares, s)
		if len(h.shares) > 64 {
			return faultf(alertIllegalParameter, "too many key shares")
		}
	}
	return nil
}

// parseKeys reads the pre_shared_key extension, whose end is that of a message of
// total bytes.
func (h *clientHello) parseKeys(d *decoder, total int) error {
	identities := d.vector(2)
	h.truncated = total - len(d.rest)
	binders := d.vector(2)
	for len(identities.rest) > 0 {
		k := offeredKey{identity: identities.vector(2).rest}
		identities.uint(4) // obfuscated age, for tickets
		k.binder = binders.vector(1).rest
		if identities.bad || binders.bad || len(k.identity) == 0 || len(k.binder) < 32 {
			return faultf(alertIllegalParameter, "malformed pre-shared keys")
		}
		h.keys = append(h.keys, k)
	}
	if !binders.done() || !d.done() || len(h.keys) == 0 {
		return faultf(alertIllegalParameter, "pre-shared keys and binders do not match")
	}
	return nil
}

// serverHello is a ServerHello or HelloRetryRequest (RFC 8446 §4.1.3, §4.1.4).
type serverHello struct {
	random  []byte
	session []byte
	suite   Suite
	share   keyShare // without key in a HelloRetryRequest
	cookie  []byte
	key     int // -1 where none is selected
}

func (h *serverHello) retry() bool { return bytes.Equal(h.random, retryRandom[:]) }

func (h *serverHello) marshal() []byte {
	return message(typeServerHello, func(e *encoder) {
		e.uint16(tls12)
		e.bytes(h.random...)
		e.vector(1, func() { e.bytes(h.session...) })
		e.uint16(int(h.suite))
		e.uint8(0)
		e.vector(2, func() {
			e.extension(extSupportedVersions, func() { e.uint16(tls13) })
			e.extension(extKeyShare, func() {
				e.uint16(int(h.share.group))
				if !h.retry() {
					e.vector(2, func() { e.bytes(h.share.key...) })
				}
			})
			if h.cookie != nil {
				e.extension(extCookie, func() { e.vector(2, func() { e.bytes(h.cookie...) }) })
			}
			if h.key >= 0 {
				e.extension(extPreSharedKey, func() { e.uint16(h.key) })
			}
		})
	})
}

// parseServerHello reads a whole message.
func parseServerHello(m []byte) (*serverHello, error) {
	d := &decoder{rest: m[4:]}
	h := &serverHello{key: -1}
	version := d.uint(2)
	h.random = d.bytes(32)
	h.session = d.vector(1).rest
	h.suite = Suite(d.uint(2))
	compression := d.uint(1)
	if d.bad || compression != 0 {
		return nil, faultf(alertDecodeError, "malformed ServerHello")
	}
	if version != tls12 || len(d.rest) == 0 {
		return nil, faultf(alertProtocolVersion, "the server does not know TLS 1.3")
	}
	is13 := false
	err := extensions(d, func(t int, d *decoder) error {
		switch {
		case t == extSupportedVersions:
			is13 = d.uint(2) == tls13
		case t == extKeyShare:
			h.share.group = Group(d.uint(2))
			if !h.retry() {
				h.share.key = d.vector(2).rest
			}
		case t == extCookie && h.retry():
			h.cookie = d.vector(2).rest
		case t == extPreSharedKey && !h.retry():
			h.key = d.uint(2)
		default:
			return faultf(alertUnsupportedExt, "extension %d in the ServerHello", t)
		}
		return nil
	})
	if err == nil && !is13 {
		err = faultf(alertProtocolVersion, "the server does not know TLS 1.3")
	}
	return h, err
}
