package iscsi

import (
	"crypto/md5" //nolint:gosec // CHAP_A 5 is what most targets speak
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // CHAP_A 6 is registered for CHAP
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

var chapHashes = []struct {
	algorithm int
	new       func() hash.Hash
}{
	{wire.CHAPSHA3256, func() hash.Hash { return sha3.New256() }},
	{wire.CHAPSHA256, sha256.New},
	{wire.CHAPSHA1, sha1.New},
	{wire.CHAPMD5, md5.New},
}

func chapHash(algorithm int) func() hash.Hash {
	for _, h := range chapHashes {
		if h.algorithm == algorithm {
			return h.new
		}
	}
	return nil
}

// chapResponse is the response value of RFC 1994 §4.1.
func chapResponse(new func() hash.Hash, id byte, secret string, challenge []byte) []byte {
	h := new()
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

func (a *CHAP) algorithms() []int {
	if len(a.Algorithms) > 0 {
		return a.Algorithms
	}
	var all []int
	for _, h := range chapHashes {
		all = append(all, h.algorithm)
	}
	return all
}

// maxChallenge is the longest CHAP_C accepted, in bytes (RFC 7143 §12.1.3).
const maxChallenge = 1024

// chapExchange is one authentication under way (RFC 7143 §12.1.3).
type chapExchange struct {
	*CHAP
	new       func() hash.Hash
	id        byte
	challenge []byte // sent to the target, nil for one-way
}

func (x *chapExchange) offer() []wire.KeyValue {
	var list []string
	for _, a := range x.algorithms() {
		list = append(list, strconv.Itoa(a))
	}
	return []wire.KeyValue{{Key: wire.KeyCHAPAlgorithm, Value: strings.Join(list, ",")}}
}

// answer replies to the target's CHAP_A, CHAP_I and CHAP_C.
func (x *chapExchange) answer(in []wire.KeyValue) ([]wire.KeyValue, error) {
	algorithm, err := number(in, wire.KeyCHAPAlgorithm, 255)
	if err != nil {
		return nil, err
	}
	if x.new = chapHash(algorithm); x.new == nil || !slices.Contains(x.algorithms(), algorithm) {
		return nil, protocolError("the target chose CHAP algorithm %d, which was not offered", algorithm)
	}
	id, err := number(in, wire.KeyCHAPIdentifier, 255)
	if err != nil {
		return nil, err
	}
	text, ok := lookup(in, wire.KeyCHAPChallenge)
	if !ok {
		return nil, protocolError("the target sent no CHAP_C")
	}
	challenge, err := wire.ParseBinary(text, maxChallenge)
	if err != nil {
		return nil, protocolError("CHAP_C: %v", err)
	}
	out := []wire.KeyValue{
		{Key: wire.KeyCHAPName, Value: x.User},
		{Key: wire.KeyCHAPResponse, Value: wire.FormatHex(chapResponse(x.new, byte(id), x.Secret, challenge))},
	}
	if x.TargetSecret == "" {
		return out, nil
	}
	random := make([]byte, 1+x.new().Size())
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("CHAP challenge: %w", err)
	}
	x.id, x.challenge = random[0], random[1:]
	return append(out,
		wire.KeyValue{Key: wire.KeyCHAPIdentifier, Value: strconv.Itoa(int(x.id))},
		wire.KeyValue{Key: wire.KeyCHAPChallenge, Value: wire.FormatHex(x.challenge)},
	), nil
}

// check verifies the target's CHAP_N and CHAP_R, where they were asked for.
func (x *chapExchange) check(in []wire.KeyValue) error {
	if x.challenge == nil {
		return nil
	}
	name, _ := lookup(in, wire.KeyCHAPName)
	text, ok := lookup(in, wire.KeyCHAPResponse)
	if !ok {
		return fmt.Errorf("%w: it sent no CHAP_R", ErrAuthentication)
	}
	got, err := wire.ParseBinary(text, maxChallenge)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAuthentication, err)
	}
	want := chapResponse(x.new, x.id, x.TargetSecret, x.challenge)
	if subtle.ConstantTimeCompare(got, want) != 1 || x.TargetUser != "" && name != x.TargetUser {
		return fmt.Errorf("%w: wrong CHAP name or response", ErrAuthentication)
	}
	return nil
}

func lookup(pairs []wire.KeyValue, key string) (string, bool) {
	for _, p := range pairs {
		if p.Key == key {
			return p.Value, true
		}
	}
	return "", false
}

func number(pairs []wire.KeyValue, key string, limit uint64) (int, error) {
	text, ok := lookup(pairs, key)
	if !ok {
		return 0, protocolError("the target sent no %s", key)
	}
	n, err := wire.ParseNumber(text)
	if err != nil || n > limit {
		return 0, protocolError("%s=%.40s is not a number up to %d", key, text, limit)
	}
	return int(n), nil
}
