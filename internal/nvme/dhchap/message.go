package dhchap

import (
	"crypto/hmac"
	"encoding/binary"
)

var le = binary.LittleEndian

// The message types: AUTH_TYPE and AUTH_ID (NVMe Base 2.0 §8.13.5.3).
const (
	typeCommon = 0
	typeChap   = 1

	idNegotiate = 0x00
	idChallenge = 0x01
	idReply     = 0x02
	idSuccess1  = 0x03
	idSuccess2  = 0x04
	idFailure2  = 0xF0 // of the host
	idFailure1  = 0xF1 // of the controller

	headerSize    = 16 // of messages with values behind it
	failureSize   = 8
	negotiateSize = 8
	protocolSize  = 64
	protocolChap  = 1 // AUTHID of a protocol descriptor
	maxList       = 30
	reasonFailed  = 1 // the reason code of every failure
)

func newMessage(size int, kind, id byte, transaction uint16) []byte {
	b := make([]byte, size)
	b[0], b[1] = kind, id
	le.PutUint16(b[4:], transaction)
	return b
}

func failure(id byte, transaction uint16, r Reason) []byte {
	b := newMessage(failureSize, typeCommon, id, transaction)
	b[6], b[7] = reasonFailed, byte(r)
	return b
}

// is reports whether b is a message of a type, with its whole fixed part.
func is(b []byte, kind, id byte, transaction uint16) bool {
	size := headerSize
	if kind == typeCommon {
		size = failureSize
	}
	return len(b) >= size && b[0] == kind && b[1] == id && le.Uint16(b[4:]) == transaction
}

// negotiation is a Negotiate message.
type negotiation struct {
	transaction uint16
	secure      byte // SC_C
	hashes      []Hash
	groups      []Group
}

func (n *negotiation) encode() []byte {
	b := newMessage(negotiateSize+protocolSize, typeCommon, idNegotiate, n.transaction)
	b[6], b[7] = n.secure, 1
	d := b[negotiateSize:]
	d[0], d[2], d[3] = protocolChap, byte(len(n.hashes)), byte(len(n.groups))
	for i, h := range n.hashes {
		d[4+i] = byte(h)
	}
	for i, g := range n.groups {
		d[4+maxList+i] = byte(g)
	}
	return b
}

// parseNegotiation reads a Negotiate message and the first descriptor of
// DH-HMAC-CHAP in it.
func parseNegotiation(b []byte) (n negotiation, err *Error) {
	if len(b) < negotiateSize || b[0] != typeCommon || b[1] != idNegotiate {
		return n, &Error{Reason: ReasonIncorrectMessage}
	}
	n.transaction, n.secure = le.Uint16(b[4:]), b[6]
	count := int(b[7])
	if len(b) < negotiateSize+count*protocolSize {
		return n, &Error{Reason: ReasonIncorrectPayload}
	}
	for i := range count {
		d := b[negotiateSize+i*protocolSize:][:protocolSize]
		if d[0] != protocolChap {
			continue
		}
		if d[2] > maxList || d[3] > maxList || d[2] == 0 || d[3] == 0 {
			return n, &Error{Reason: ReasonIncorrectPayload}
		}
		for _, h := range d[4:][:d[2]] {
			n.hashes = append(n.hashes, Hash(h))
		}
		for _, g := range d[4+maxList:][:d[3]] {
			n.groups = append(n.groups, Group(g))
		}
		return n, nil
	}
	return n, &Error{Reason: ReasonProtocol}
}

// values is a Challenge or Reply message.
type values struct {
	hash     Hash  // of a Challenge
	group    Group // of a Challenge
	valid    bool  // of a Reply: the challenge in it is meant
	sequence uint32
	response []byte // of a Reply
	cval     []byte
	public   []byte
}

func (v *values) encode(id byte, transaction uint16) []byte {
	b := newMessage(headerSize, typeChap, id, transaction)
	b[6] = byte(len(v.cval))
	if id == idChallenge {
		b[8], b[9] = byte(v.hash), byte(v.group)
	} else if v.valid {
		b[8] = 1
	}
	le.PutUint16(b[10:], uint16(len(v.public)))
	le.PutUint32(b[12:], v.sequence)
	b = append(b, v.response...)
	b = append(b, v.cval...)
	return append(b, v.public...)
}

// parseValues reads a Challenge or Reply with digests of n bytes; n is 0 for a
// Challenge, which names its hash.
func parseValues(b []byte, id byte, transaction uint16, n int) (v values, err *Error) {
	if !is(b, typeChap, id, transaction) {
		return v, &Error{Reason: ReasonIncorrectMessage}
	}
	if id == idChallenge {
		v.hash, v.group = Hash(b[8]), Group(b[9])
		n = v.hash.Size()
		if n == 0 {
			return v, &Error{Reason: ReasonHash}
		}
		if v.group != Null && v.group.bits() == 0 {
			return v, &Error{Reason: ReasonGroup}
		}
	} else {
		v.valid = b[8]&1 != 0
	}
	public := int(le.Uint16(b[10:]))
	v.sequence = le.Uint32(b[12:])
	rest := b[headerSize:]
	size := n + public
	if id == idReply {
		size += n
	}
	if int(b[6]) != n || len(rest) < size {
		return v, &Error{Reason: ReasonIncorrectPayload}
	}
	if id == idReply {
		v.response, rest = rest[:n], rest[n:]
	}
	v.cval, v.public = rest[:n], rest[n:n+public]
	return v, nil
}

// proof is what a response is computed from (NVMe Base 2.0 §8.13.5.4).
type proof struct {
	hash        Hash
	key         []byte // transformed
	secret      []byte // shared DH secret, nil with the null group
	challenge   []byte
	sequence    uint32
	transaction uint16
	secure      byte
	role        string // of who proves itself
	own, peer   string // NQNs
}

const (
	roleHost       = "HostHost"
	roleController = "Controller"
)

// response computes the value that proves the knowledge of the key.
func (p *proof) response() []byte {
	c := p.challenge
	if p.secret != nil {
		m := hmac.New(p.hash.new(), p.hash.sum(p.secret))
		m.Write(c)
		c = m.Sum(nil)
	}
	m := hmac.New(p.hash.new(), p.key)
	m.Write(c)
	var b [7]byte
	le.PutUint32(b[0:], p.sequence)
	le.PutUint16(b[4:], p.transaction)
	b[6] = p.secure
	m.Write(b[:])
	m.Write([]byte(p.role))
	m.Write([]byte(p.own))
	m.Write([]byte{0})
	m.Write([]byte(p.peer))
	return m.Sum(nil)
}
