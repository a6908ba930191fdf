package tlspsk

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
)

// Client begins TLS on nc, within the deadlines of nc, which stays open where it
// fails. It offers the keys in order of preference.
func Client(nc net.Conn, keys []NamedKey) (*Conn, error) { return client(nc, keys, groups) }

// client is Client with the groups that it offers; it has a share of the first.
func client(nc net.Conn, keys []NamedKey, groups []Group) (*Conn, error) {
	if len(keys) == 0 {
		return nil, errors.New("TLS: there is no key to offer")
	}
	for _, k := range keys {
		if !k.Suite.known() || len(k.Identity) == 0 || len(k.Identity) > 1024 || len(keys) > maxIdentities {
			return nil, fmt.Errorf("TLS: cannot offer %d keys, one with an identity of %d bytes and %s", len(keys), len(k.Identity), k.Suite)
		}
	}
	return run(nc, false, func(h *handshake) error { return h.connect(keys, groups) })
}

// offer is what a client says in its ClientHello.
type offer struct {
	random  []byte
	keys    []NamedKey
	suites  []Suite
	groups  []Group
	cookie  []byte
	private *ecdh.PrivateKey
	group   Group // of private
}

func (o *offer) makeShare(g Group) (err error) {
	o.group = g
	if o.private, err = g.curve().GenerateKey(rand.Reader); err != nil {
		return fmt.Errorf("making a key share: %w", err)
	}
	return nil
}

// marshal returns the message; its binders cover what came before it too.
func (o *offer) marshal(transcript []byte) []byte {
	var binders int
	m := message(typeClientHello, func(e *encoder) {
		e.uint16(tls12)
		e.bytes(o.random...)
		e.uint8(0) // session id
		e.vector(2, func() {
			for _, s := range o.suites {
				e.uint16(int(s))
			}
		})
		e.bytes(1, 0) // no compression
		e.vector(2, func() { binders = o.extensions(e) })
	})
	at := len(m) - binders + 2
	for _, k := range o.keys {
		sum := k.Suite.sum(append(slices.Clip(transcript), m[:len(m)-binders]...))
		at += 1 + copy(m[at+1:], k.Suite.binder(k.Secret, sum))
	}
	return m
}

// extensions appends all, with room for the binders, whose size it returns.
func (o *offer) extensions(e *encoder) (binders int) {
	e.extension(extSupportedVersions, func() { e.vector(1, func() { e.uint16(tls13) }) })
	e.extension(extSupportedGroups, func() {
		e.vector(2, func() {
			for _, g := range o.groups {
				e.uint16(int(g))
			}
		})
	})
	e.extension(extKeyShare, func() {
		e.vector(2, func() {
			e.uint16(int(o.group))
			e.vector(2, func() { e.bytes(o.private.PublicKey().Bytes()...) })
		})
	})
	if o.cookie != nil {
		e.extension(extCookie, func() { e.vector(2, func() { e.bytes(o.cookie...) }) })
	}
	e.extension(extPSKModes, func() { e.bytes(1, modeDHE) })
	e.extension(extPreSharedKey, func() {
		e.vector(2, func() {
			for _, k := range o.keys {
				e.vector(2, func() { e.string(k.Identity) })
				e.zero(4)
			}
		})
		at := len(*e)
		e.vector(2, func() {
			for _, k := range o.keys {
				e.vector(1, func() { e.zero(k.Suite.hash().Size()) })
			}
		})
		binders = len(*e) - at
	})
	return binders
}

func (h *handshake) connect(keys []NamedKey, groups []Group) error {
	o := &offer{random: random(), keys: keys, groups: groups}
	for _, k := range keys {
		if !slices.Contains(o.suites, k.Suite) {
			o.suites = append(o.suites, k.Suite)
		}
	}
	if err := o.makeShare(groups[0]); err != nil {
		return err
	}
	h.send(o.marshal(nil))
	hello, m, err := h.receiveHello(o)
	if err != nil {
		return err
	}
	if hello.retry() {
		if err := h.again(o, hello, m); err != nil {
			return err
		}
		suite := hello.suite
		if hello, m, err = h.receiveHello(o); err != nil {
			return err
		}
		if hello.retry() || hello.suite != suite {
			return faultf(alertIllegalParameter, "the server does not keep to its HelloRetryRequest")
		}
	}
	return h.conclude(o, hello, m)
}

// conclude does the rest of the handshake after the ServerHello.
func (h *handshake) conclude(o *offer, hello *serverHello, m []byte) error {
	h.suite = hello.suite
	switch {
	case hello.key < 0:
		return faultf(alertHandshakeFailure, "the server takes no pre-shared key")
	case hello.key >= len(o.keys) || o.keys[hello.key].Suite != h.suite:
		return faultf(alertIllegalParameter, "the server takes a key that does not belong to %s", h.suite)
	case hello.share.group != o.group || len(hello.share.key) == 0:
		return faultf(alertIllegalParameter, "the server has no key share of group %#x", uint16(o.group))
	}
	h.transcript = append(h.transcript, m...)
	dhe, err := shared(o.private, hello.share.key)
	if err != nil {
		return err
	}
	k := h.secrets(o.keys[hello.key].Secret, dhe)
	h.in.rekey(h.suite, k.server)
	h.setOut(k.client)
	if err := h.receiveExtensions(); err != nil {
		return err
	}
	if err := h.receiveFinished(k.server); err != nil {
		return err
	}
	client, server := h.application(k)
	h.in.rekey(h.suite, server)
	h.sendFinished(k.client)
	h.setOut(client)
	h.identity, h.Conn.suite = o.keys[hello.key].Identity, h.suite
	return h.flush()
}

// receiveHello sends what is queued and waits for a ServerHello that fits the offer.
func (h *handshake) receiveHello(o *offer) (*serverHello, []byte, error) {
	if err := h.flush(); err != nil {
		return nil, nil, err
	}
	m, err := h.receiveMessage(typeServerHello, true)
	if err != nil {
		return nil, nil, err
	}
	hello, err := parseServerHello(m)
	if err != nil {
		return nil, nil, err
	}
	if len(hello.session) != 0 || !slices.ContainsFunc(o.keys, func(k NamedKey) bool { return k.Suite == hello.suite }) {
		return nil, nil, faultf(alertIllegalParameter, "the server answers with session or cipher suite of somebody else")
	}
	return hello, m, nil
}

// again sends the second ClientHello (RFC 8446 §4.1.2).
func (h *handshake) again(o *offer, retry *serverHello, m []byte) error {
	h.suite = retry.suite
	h.foldHello()
	h.transcript = append(h.transcript, m...)
	g := retry.share.group
	if g != 0 && (g == o.group || !slices.Contains(o.groups, g)) || g == 0 && retry.cookie == nil {
		return faultf(alertIllegalParameter, "a HelloRetryRequest for group %#x", uint16(g))
	}
	if g != 0 {
		if err := o.makeShare(g); err != nil {
			return err
		}
	}
	o.cookie = retry.cookie
	o.keys = slices.DeleteFunc(slices.Clone(o.keys), func(k NamedKey) bool { return k.Suite != h.suite })
	h.send(o.marshal(h.transcript))
	return nil
}

// receiveExtensions checks EncryptedExtensions: nothing was asked for that may be answered,
// but for the groups that the server likes (RFC 8446 §4.2.7).
func (h *handshake) receiveExtensions() error {
	m, err := h.receiveMessage(typeEncryptedExtensions, false)
	if err != nil {
		return err
	}
	h.transcript = append(h.transcript, m...)
	return extensions(&decoder{rest: m[4:]}, func(t int, d *decoder) error {
		if t != extSupportedGroups {
			return faultf(alertUnsupportedExt, "extension %d in EncryptedExtensions", t)
		}
		d.rest = nil
		return nil
	})
}
