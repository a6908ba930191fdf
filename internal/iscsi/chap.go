package iscsi

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// maxChallenge is the longest CHAP challenge in bytes (RFC 7143 §12.1.3).
const maxChallenge = 1024

// chapHash returns the hash of a CHAP algorithm, nil for an unknown one.
func chapHash(alg uint64) hash.Hash {
	switch alg {
	case wire.CHAPMD5:
		return md5.New()
	case wire.CHAPSHA1:
		return sha1.New()
	case wire.CHAPSHA256:
		return sha256.New()
	case wire.CHAPSHA3256:
		return sha3.New256()
	}
	return nil
}

// chapResponse computes the response to a challenge (RFC 1994 §4.1).
func chapResponse(alg uint64, id byte, secret string, challenge []byte) []byte {
	h := chapHash(alg)
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// chap is the target's side of one CHAP exchange (RFC 7143 §12.1.3). Its
// states: waiting for CHAP_A, waiting for the response, done.
type chap struct {
	initiator, target Credential
	algorithms        []int // allowed, none for all
	rand              io.Reader

	alg       uint64
	id        byte
	challenge []byte
	done      bool
}

// step takes the CHAP keys of one login request and returns those of the
// answer. Every error is an authentication failure.
func (c *chap) step(keys map[string]string) ([]wire.KeyValue, error) {
	switch {
	case c.done:
		return nil, Refuse(wire.LoginAuthFailure, "CHAP goes on after it has succeeded")
	case c.challenge == nil:
		return c.begin(keys)
	}
	return c.verify(keys)
}

func (c *chap) begin(keys map[string]string) ([]wire.KeyValue, error) {
	list, ok := keys[wire.KeyCHAPAlgorithm]
	if !ok {
		return nil, Refuse(wire.LoginAuthFailure, "CHAP does not begin with CHAP_A")
	}
	for v := range strings.SplitSeq(list, ",") { // the initiator's order counts
		if n, err := wire.ParseNumber(v); err == nil && chapHash(n) != nil && c.allows(int(n)) {
			c.alg = n
			break
		}
	}
	if c.alg == 0 {
		return nil, Refuse(wire.LoginAuthFailure, "no CHAP algorithm in common: the initiator offers %.40q", list)
	}
	random := make([]byte, 1+chapHash(c.alg).Size())
	if _, err := io.ReadFull(c.rand, random); err != nil {
		return nil, Refuse(wire.LoginTargetError, "no random numbers: %v", err)
	}
	c.id, c.challenge = random[0], random[1:]
	return []wire.KeyValue{
		{Key: wire.KeyCHAPAlgorithm, Value: strconv.FormatUint(c.alg, 10)},
		{Key: wire.KeyCHAPIdentifier, Value: strconv.Itoa(int(c.id))},
		{Key: wire.KeyCHAPChallenge, Value: wire.FormatHex(c.challenge)},
	}, nil
}

func (c *chap) allows(alg int) bool {
	return len(c.algorithms) == 0 || slices.Contains(c.algorithms, alg)
}

func (c *chap) verify(keys map[string]string) ([]wire.KeyValue, error) {
	name, hasName := keys[wire.KeyCHAPName]
	value, hasResponse := keys[wire.KeyCHAPResponse]
	if !hasName || !hasResponse {
		return nil, Refuse(wire.LoginAuthFailure, "CHAP_N or CHAP_R is missing")
	}
	want := chapResponse(c.alg, c.id, c.initiator.Secret, c.challenge)
	got, err := wire.ParseBinary(value, len(want))
	sameName := subtle.ConstantTimeCompare([]byte(name), []byte(c.initiator.Name))
	if err != nil || sameName&subtle.ConstantTimeCompare(got, want) != 1 {
		return nil, Refuse(wire.LoginAuthFailure, "wrong CHAP name or secret for %.223q", name)
	}
	c.done = true
	id, hasID := keys[wire.KeyCHAPIdentifier]
	challenge, hasChallenge := keys[wire.KeyCHAPChallenge]
	if !hasID && !hasChallenge {
		return nil, nil
	}
	return c.prove(id, challenge)
}

// prove answers the initiator's own challenge.
func (c *chap) prove(id, value string) ([]wire.KeyValue, error) {
	n, err := wire.ParseNumber(id)
	if err != nil || n > 255 {
		return nil, Refuse(wire.LoginAuthFailure, "CHAP_I %.40q is not a byte", id)
	}
	challenge, err := wire.ParseBinary(value, maxChallenge)
	switch {
	case err != nil || len(challenge) == 0:
		return nil, Refuse(wire.LoginAuthFailure, "CHAP_C is not a binary value of 1 to %d bytes", maxChallenge)
	case bytes.Equal(challenge, c.challenge):
		return nil, Refuse(wire.LoginAuthFailure, "the initiator reflects the target's challenge")
	case c.target.Secret == "":
		return nil, Refuse(wire.LoginAuthFailure, "the initiator asks for mutual CHAP, but the target has no secret for it")
	}
	return []wire.KeyValue{
		{Key: wire.KeyCHAPName, Value: c.target.Name},
		{Key: wire.KeyCHAPResponse, Value: wire.FormatHex(chapResponse(c.alg, byte(n), c.target.Secret, challenge))},
	}, nil
}
