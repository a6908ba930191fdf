package tlspsk

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
)

// Server answers a client's handshake on nc, within the deadlines of nc, which
// stays open where it fails. The keys that an identity may stand for come from lookup,
// none where it is unknown; the client decides among them by having one. Nothing of the
// identity is proved when lookup is called.
func Server(nc net.Conn, lookup func(identity string) []Key) (*Conn, error) {
	return server(nc, lookup, groups)
}

// server is Server with the groups that it takes.
func server(nc net.Conn, lookup func(string) []Key, groups []Group) (*Conn, error) {
	return run(nc, true, func(h *handshake) error { return h.serve(lookup, groups) })
}

// choice is what a server takes of a ClientHello.
type choice struct {
	index      int // of the key
	identity   string
	candidates []Key // of one suite
	group      Group
	share      []byte // nil where the client has to send one
}

func (h *handshake) serve(lookup func(string) []Key, groups []Group) error {
	m, err := h.receiveMessage(typeClientHello, true)
	if err != nil {
		return err
	}
	hello, err := parseClientHello(m)
	if err != nil {
		return err
	}
	ch, err := choose(hello, lookup, groups)
	if err != nil {
		return err
	}
	h.suite = ch.candidates[0].Suite
	if hello.early {
		h.skip = maxEarly
	}
	if ch.share == nil {
		h.transcript = append(h.transcript, m...)
		if m, hello, err = h.retry(hello, &ch); err != nil {
			return err
		}
	}
	psk, err := h.checkBinder(m, hello, ch)
	if err != nil {
		return err
	}
	h.transcript = append(h.transcript, m...)
	private, err := ch.group.curve().GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making a key share: %w", err)
	}
	dhe, err := shared(private, ch.share)
	if err != nil {
		return err
	}
	h.send((&serverHello{
		random: random(), session: hello.session, suite: h.suite,
		share: keyShare{ch.group, private.PublicKey().Bytes()}, key: ch.index,
	}).marshal())
	h.sendCompat(hello.session)
	k := h.secrets(psk, dhe)
	h.setOut(k.server)
	h.in.rekey(h.suite, k.client)
	h.send(message(typeEncryptedExtensions, func(e *encoder) { e.uint16(0) }))
	h.sendFinished(k.server)
	client, server := h.application(k)
	h.setOut(server)
	if err := h.flush(); err != nil {
		return err
	}
	if err := h.receiveFinished(k.client); err != nil {
		return err
	}
	h.in.rekey(h.suite, client)
	h.identity, h.Conn.suite = ch.identity, h.suite
	return nil
}

// choose takes the first key that is known and whose suite the client has, and the
// first group of ours for which it sent a share, or else of which it knows.
func choose(hello *clientHello, lookup func(string) []Key, groups []Group) (choice, error) {
	var c choice
	for i, offered := range hello.keys[:min(len(hello.keys), maxIdentities)] {
		keys := lookup(string(offered.identity))
		if len(keys) == 0 {
			continue
		}
		if len(keys) > maxIdentities || !slices.Contains(hello.suites, uint16(keys[0].Suite)) {
			continue
		}
		c.index, c.identity = i, string(offered.identity)
		c.candidates = slices.DeleteFunc(slices.Clone(keys), func(k Key) bool { return k.Suite != keys[0].Suite })
		break
	}
	if c.candidates == nil {
		// The same alert as for a wrong key, as RFC 8446 §6.2 allows, so that nobody can try out names.
		return c, &fault{alertDecryptError, fmt.Errorf("%w: %.300q", ErrUnknownIdentity, hello.keys[0].identity)}
	}
	for _, g := range groups {
		for _, s := range hello.shares {
			if s.group == g && slices.Contains(hello.groups, uint16(g)) {
				c.group, c.share = g, s.key
				return c, nil
			}
		}
	}
	for _, g := range groups {
		if slices.Contains(hello.groups, uint16(g)) {
			c.group = g
			return c, nil
		}
	}
	return c, faultf(alertHandshakeFailure, "the client has none of the groups x25519, secp256r1 and secp384r1")
}

// retry asks for a share of the chosen group and receives the second ClientHello
// (RFC 8446 §4.1.2, §4.1.4).
func (h *handshake) retry(first *clientHello, ch *choice) ([]byte, *clientHello, error) {
	h.foldHello()
	h.send((&serverHello{random: retryRandom[:], session: first.session, suite: h.suite, share: keyShare{group: ch.group}, key: -1}).marshal())
	h.sendCompat(first.session)
	if err := h.flush(); err != nil {
		return nil, nil, err
	}
	m, err := h.receiveMessage(typeClientHello, true)
	if err != nil {
		return nil, nil, err
	}
	hello, err := parseClientHello(m)
	if err != nil {
		return nil, nil, err
	}
	same := bytes.Equal(hello.random, first.random) && bytes.Equal(hello.session, first.session) &&
		slices.Equal(hello.suites, first.suites) && slices.Equal(hello.groups, first.groups)
	if !same || hello.early || len(hello.shares) != 1 || hello.shares[0].group != ch.group {
		return nil, nil, faultf(alertIllegalParameter, "the second ClientHello is not what was asked for")
	}
	ch.share = hello.shares[0].key
	// Keys of another hash may be left out now.
	ch.index = slices.IndexFunc(hello.keys, func(k offeredKey) bool { return string(k.identity) == ch.identity })
	if ch.index < 0 {
		return nil, nil, faultf(alertIllegalParameter, "the second ClientHello leaves the chosen key out")
	}
	return m, hello, nil
}

// checkBinder returns the candidate that the client has (RFC 8446 §4.2.11.2).
func (h *handshake) checkBinder(m []byte, hello *clientHello, ch choice) ([]byte, error) {
	sum := h.suite.sum(append(slices.Clip(h.transcript), m[:hello.truncated]...))
	for _, k := range ch.candidates {
		if hmac.Equal(hello.keys[ch.index].binder, h.suite.binder(k.Secret, sum)) {
			return k.Secret, nil
		}
	}
	return nil, &fault{alertDecryptError, fmt.Errorf("%w: %.300q", ErrWrongKey, ch.identity)}
}
