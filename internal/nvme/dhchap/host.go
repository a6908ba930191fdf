package dhchap

import (
	"crypto/hmac"
	"crypto/rand"
	"slices"
)

// HostConfig describes the host's side of an exchange.
type HostConfig struct {
	HostNQN, SubNQN string
	HostKey         Secret
	// ControllerKey, where there is one, is what the controller has to prove to know.
	ControllerKey Secret
	Transaction   uint16 // T_ID, another for each exchange of a queue
	// Hashes and Groups are offered in order of preference; none given
	// offers all.
	Hashes []Hash
	Groups []Group
}

// Host is the host's side of one exchange. Its methods are not called
// concurrently: Start, then Receive with each message of the controller until Done
// or an error.
type Host struct {
	cfg      HostConfig
	replied  bool
	done     bool
	hash     Hash
	expected []byte // of Success1
}

// NewHost returns the host's side before the exchange.
func NewHost(c HostConfig) *Host {
	if len(c.Hashes) == 0 {
		c.Hashes = []Hash{SHA256, SHA384, SHA512}
	}
	if len(c.Groups) == 0 {
		c.Groups = []Group{Null, FFDHE2048, FFDHE3072, FFDHE4096, FFDHE6144, FFDHE8192}
	}
	return &Host{cfg: c}
}

// Start returns the first message to send.
func (h *Host) Start() []byte {
	n := negotiation{transaction: h.cfg.Transaction, hashes: h.cfg.Hashes, groups: h.cfg.Groups}
	return n.encode()
}

// Done reports whether both sides have proved what they had to.
func (h *Host) Done() bool { return h.done }

// Receive takes a message of the controller and returns the one to send next, nil for
// none. With an error it may be a failure message, which is to be sent still.
func (h *Host) Receive(b []byte) ([]byte, error) {
	if len(b) >= failureSize && b[0] == typeCommon && b[1] == idFailure1 {
		return nil, &Error{Reason: Reason(b[7]), Peer: true}
	}
	switch {
	case h.done:
		return h.fail(ReasonIncorrectMessage)
	case h.replied:
		return h.success(b)
	}
	return h.challenge(b)
}

func (h *Host) fail(r Reason) ([]byte, error) {
	h.done = false
	return failure(idFailure2, h.cfg.Transaction, r), &Error{Reason: r}
}

func (h *Host) challenge(b []byte) ([]byte, error) {
	v, perr := parseValues(b, idChallenge, h.cfg.Transaction, 0)
	if perr != nil {
		return h.fail(perr.Reason)
	}
	switch {
	case !slices.Contains(h.cfg.Hashes, v.hash):
		return h.fail(ReasonHash)
	case !slices.Contains(h.cfg.Groups, v.group):
		return h.fail(ReasonGroup)
	case v.group == Null && len(v.public) != 0:
		return h.fail(ReasonIncorrectPayload)
	}
	keys, err := newKeyPair(v.group)
	if err != nil {
		return h.fail(ReasonFailed)
	}
	h.hash = v.hash
	answer := values{cval: make([]byte, v.hash.Size())}
	var secret []byte
	if keys != nil {
		var ok bool
		if secret, ok = keys.shared(v.public); !ok {
			return h.fail(ReasonIncorrectPayload)
		}
		answer.public = keys.public
	}
	p := proof{
		hash: v.hash, key: h.cfg.HostKey.transformed(h.cfg.HostNQN), secret: secret, challenge: v.cval,
		sequence: v.sequence, transaction: h.cfg.Transaction,
		role: roleHost, own: h.cfg.HostNQN, peer: h.cfg.SubNQN,
	}
	answer.response = p.response()
	if !h.cfg.ControllerKey.Empty() {
		var s [4]byte
		if _, err := rand.Read(answer.cval); err != nil {
			return h.fail(ReasonFailed)
		}
		if _, err := rand.Read(s[:]); err != nil {
			return h.fail(ReasonFailed)
		}
		answer.valid, answer.sequence = true, le.Uint32(s[:])|1 // zero is reserved
		p.key, p.challenge, p.sequence = h.cfg.ControllerKey.transformed(h.cfg.SubNQN), answer.cval, answer.sequence
		p.role, p.own, p.peer = roleController, h.cfg.SubNQN, h.cfg.HostNQN
		h.expected = p.response()
	}
	h.replied = true
	return answer.encode(idReply, h.cfg.Transaction), nil
}

func (h *Host) success(b []byte) ([]byte, error) {
	if !is(b, typeChap, idSuccess1, h.cfg.Transaction) {
		return h.fail(ReasonIncorrectMessage)
	}
	if h.expected == nil {
		h.done = true
		return nil, nil
	}
	n := h.hash.Size()
	if int(b[6]) != n || len(b) < headerSize+n || b[8]&1 == 0 {
		return h.fail(ReasonIncorrectPayload)
	}
	if !hmac.Equal(h.expected, b[headerSize:][:n]) {
		return h.fail(ReasonFailed)
	}
	h.done = true
	return newMessage(headerSize, typeChap, idSuccess2, h.cfg.Transaction), nil
}
