package tlspsk

import (
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
)

// Key is a pre-shared key.
type Key struct {
	Suite  Suite // whose hash the key belongs to
	Secret []byte
}

// NamedKey is a key under the name that a client offers it.
type NamedKey struct {
	Identity string // up to 1024 bytes
	Key
}

// handshake is what both sides keep while they agree.
type handshake struct {
	*Conn
	transcript []byte // all messages so far
	suite      Suite
	compat     bool // ChangeCipherSpec was sent
}

func (h *handshake) sum() []byte { return h.suite.sum(h.transcript) }

// server reports whether this side is the server.
func (c *Conn) server() bool { return c.isServer }

// nextMessage takes a whole message off what has come; nil where there is none yet.
// It is valid until more is read.
func (c *Conn) nextMessage() ([]byte, error) {
	if len(c.message) < 4 {
		return nil, nil
	}
	n := int(c.message[1])<<16 | int(c.message[2])<<8 | int(c.message[3])
	if n > maxMessage-4 {
		return nil, faultf(alertIllegalParameter, "a handshake message of %d bytes", n)
	}
	if len(c.message) < 4+n {
		return nil, nil
	}
	m := c.message[:4+n]
	if c.message = c.message[4+n:]; len(c.message) == 0 {
		c.message = nil
	}
	return m, nil
}

// receiveMessage waits for a message of a type, which has to be the last of its
// record where the keys change after it.
func (h *handshake) receiveMessage(want byte, last bool) ([]byte, error) {
	for {
		m, err := h.nextMessage()
		if err != nil {
			return nil, err
		}
		if m != nil {
			if m[0] != want {
				return nil, faultf(alertUnexpectedMessage, "a handshake message of type %d instead of %d", m[0], want)
			}
			if last && len(h.message) > 0 {
				return nil, faultf(alertUnexpectedMessage, "more messages after one of type %d", want)
			}
			return m, nil
		}
		contentType, content, _, err := h.record(nil)
		if err != nil {
			return nil, err
		}
		if contentType != typeHandshake {
			return nil, faultf(alertUnexpectedMessage, "a record of type %d within the handshake", contentType)
		}
		h.message = append(h.message, content...)
	}
}

// send queues a message; flush sends what is queued.
func (h *handshake) send(m []byte) {
	h.transcript = append(h.transcript, m...)
	h.wmu.Lock()
	defer h.wmu.Unlock()
	for len(m) > 0 {
		n := min(len(m), maxPlain)
		h.appendLocked(typeHandshake, m[:n])
		m = m[n:]
	}
}

// sendCompat queues a ChangeCipherSpec for middleboxes, once, where the client
// has a session id to ask for it (RFC 8446 §D.4).
func (h *handshake) sendCompat(session []byte) {
	if len(session) == 0 || h.compat {
		return
	}
	h.compat = true
	h.wmu.Lock()
	defer h.wmu.Unlock()
	h.growLocked(overhead)
	h.buf = append(h.buf, typeChangeCipherSpec, 3, 3, 0, 1, 1)
}

func (h *handshake) flush() error {
	h.wmu.Lock()
	defer h.wmu.Unlock()
	return h.flushLocked()
}

// foldHello replaces the first ClientHello by its hash (RFC 8446 §4.4.1).
func (h *handshake) foldHello() {
	sum := h.sum()
	h.transcript = append([]byte{typeMessageHash, 0, 0, byte(len(sum))}, sum...)
}

// secrets are those of the key schedule after the ServerHello.
type secrets struct {
	handshake, client, server []byte
}

func (h *handshake) secrets(psk, dhe []byte) secrets {
	s := h.suite
	hs := s.next(s.earlySecret(psk), dhe)
	return secrets{hs, s.derive(hs, "c hs traffic", h.sum()), s.derive(hs, "s hs traffic", h.sum())}
}

// application returns the secrets after the server's Finished.
func (h *handshake) application(k secrets) (client, server []byte) {
	master := h.suite.next(k.handshake, nil)
	return h.suite.derive(master, "c ap traffic", h.sum()), h.suite.derive(master, "s ap traffic", h.sum())
}

func (h *handshake) setOut(secret []byte) {
	h.wmu.Lock()
	h.out.rekey(h.suite, secret)
	h.wmu.Unlock()
}

// receiveFinished checks the peer's Finished (RFC 8446 §4.4.4).
func (h *handshake) receiveFinished(base []byte) error {
	m, err := h.receiveMessage(typeFinished, true)
	if err != nil {
		return err
	}
	if !hmac.Equal(m[4:], h.suite.finished(base, h.sum())) {
		return faultf(alertDecryptError, "the peer's Finished is wrong")
	}
	h.transcript = append(h.transcript, m...)
	return nil
}

func (h *handshake) sendFinished(base []byte) {
	h.send(message(typeFinished, func(e *encoder) { e.bytes(h.suite.finished(base, h.sum())...) }))
}

// run does a handshake. Its time is that of the deadlines of nc, which it leaves open
// where it fails.
func run(nc net.Conn, isServer bool, f func(h *handshake) error) (*Conn, error) {
	c := newConn(nc)
	c.isServer = isServer
	c.rmu.Lock()
	defer c.rmu.Unlock()
	h := &handshake{Conn: c}
	if err := f(h); err != nil {
		c.failRead(err)
		if !errors.As(err, new(*fault)) {
			err = fmt.Errorf("TLS handshake: %w", err)
		}
		return nil, err
	}
	c.idle, c.skip = 0, 0
	c.done.Store(true)
	return c, nil
}

func random() []byte {
	p := make([]byte, 32)
	_, _ = rand.Read(p) // never fails
	return p
}
