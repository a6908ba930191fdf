package dhchap

import (
	"crypto/hmac"
	"crypto/rand"
	"slices"
)

// ControllerConfig describes the controller's side of exchanges.
type ControllerConfig struct {
	HostNQN, SubNQN string
	HostKey         Secret // that the host has to prove to know
	ControllerKey   Secret // that the controller proves to know where it is asked to
	// Hashes and Groups are what is allowed, in order of preference; none
	// given allows all, the strongest hash and the smallest of the DH groups first.
	Hashes []Hash
	Groups []Group
	// Sequence returns a number that is never zero and never used twice with
	// the same host.
	Sequence func() uint32
}

// Controller is the controller's side of the exchanges on one queue. Its methods are
// not called concurrently.
//
//	idle --Negotiate--> challenging --Challenge sent--> replying --Reply-->
//	proving --Success1 sent--> confirming --Success2--> idle
//	                       \-- one-sided ------------> idle
//	any --error--> failing --Failure1 sent--> failed
type Controller struct {
	cfg      ControllerConfig
	state    controllerState
	n        negotiation
	hash     Hash
	keys     *keyPair
	cval     []byte
	sequence uint32
	next     []byte // the message to send
	mutual   bool
	ok       bool // one exchange has succeeded
	err      *Error
}

type controllerState uint8

const (
	controllerIdle controllerState = iota
	controllerChallenging
	controllerReplying
	controllerProving
	controllerConfirming
	controllerFailing
	controllerFailed
)

// NewController returns the controller's side before any exchange.
func NewController(c ControllerConfig) *Controller {
	if len(c.Hashes) == 0 {
		c.Hashes = []Hash{SHA512, SHA384, SHA256}
	}
	if len(c.Groups) == 0 {
		c.Groups = []Group{FFDHE2048, FFDHE3072, FFDHE4096, FFDHE6144, FFDHE8192, Null}
	}
	return &Controller{cfg: c}
}

// Authenticated reports whether the host has proved itself, and no exchange has failed since.
func (c *Controller) Authenticated() bool { return c.ok && c.err == nil }

// Err returns why the exchange has failed, nil while it has not. The connection has
// to end once the failure message, if there is one to send, is sent.
func (c *Controller) Err() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

func (c *Controller) fail(r Reason) {
	c.err = &Error{Reason: r}
	c.next = failure(idFailure1, c.n.transaction, r)
	c.state = controllerFailing
	c.keys, c.cval = nil, nil
}

// Receive takes a message of the host. What is wrong with it is what the next
// message to send tells.
func (c *Controller) Receive(b []byte) {
	if c.state == controllerFailed || c.state == controllerFailing {
		return
	}
	if len(b) >= failureSize && b[0] == typeCommon && b[1] == idFailure2 {
		c.err = &Error{Reason: Reason(b[7]), Peer: true}
		c.state, c.next = controllerFailed, nil
		return
	}
	switch c.state {
	case controllerIdle:
		c.negotiate(b)
	case controllerReplying:
		c.reply(b)
	case controllerConfirming:
		if !is(b, typeChap, idSuccess2, c.n.transaction) {
			c.fail(ReasonIncorrectMessage)
			return
		}
		c.state, c.ok = controllerIdle, true
	default:
		c.fail(ReasonIncorrectMessage)
	}
}

// Send returns the next message for the host, nil where it is the host's turn.
func (c *Controller) Send() []byte {
	b := c.next
	if b == nil {
		return nil
	}
	c.next = nil
	switch c.state {
	case controllerChallenging:
		c.state = controllerReplying
	case controllerProving:
		if c.mutual {
			c.state = controllerConfirming
		} else {
			c.state, c.ok = controllerIdle, true
		}
	case controllerFailing:
		c.state = controllerFailed
	}
	return b
}

func (c *Controller) negotiate(b []byte) {
	n, err := parseNegotiation(b)
	c.n = n
	if err != nil {
		c.fail(err.Reason)
		return
	}
	if n.secure != 0 {
		c.fail(ReasonConcatenation)
		return
	}
	hash := slices.IndexFunc(c.cfg.Hashes, func(h Hash) bool { return slices.Contains(n.hashes, h) })
	group := slices.IndexFunc(c.cfg.Groups, func(g Group) bool { return slices.Contains(n.groups, g) })
	switch {
	case hash < 0:
		c.fail(ReasonHash)
		return
	case group < 0:
		c.fail(ReasonGroup)
		return
	}
	c.hash = c.cfg.Hashes[hash]
	g := c.cfg.Groups[group]
	keys, kerr := newKeyPair(g)
	c.cval = make([]byte, c.hash.Size())
	if _, rerr := rand.Read(c.cval); rerr != nil || kerr != nil {
		c.fail(ReasonFailed)
		return
	}
	c.keys, c.sequence = keys, c.cfg.Sequence()
	v := values{hash: c.hash, group: g, sequence: c.sequence, cval: c.cval}
	if keys != nil {
		v.public = keys.public
	}
	c.next, c.state = v.encode(idChallenge, n.transaction), controllerChallenging
}

func (c *Controller) reply(b []byte) {
	v, err := parseValues(b, idReply, c.n.transaction, c.hash.Size())
	if err != nil {
		c.fail(err.Reason)
		return
	}
	var secret []byte
	if c.keys != nil {
		var ok bool
		if secret, ok = c.keys.shared(v.public); !ok {
			c.fail(ReasonIncorrectPayload)
			return
		}
	} else if len(v.public) != 0 {
		c.fail(ReasonIncorrectPayload)
		return
	}
	p := proof{
		hash: c.hash, key: c.cfg.HostKey.transformed(c.cfg.HostNQN), secret: secret, challenge: c.cval,
		sequence: c.sequence, transaction: c.n.transaction, secure: c.n.secure,
		role: roleHost, own: c.cfg.HostNQN, peer: c.cfg.SubNQN,
	}
	if c.cfg.HostKey.Empty() || !hmac.Equal(p.response(), v.response) {
		c.fail(ReasonFailed)
		return
	}
	c.mutual = v.valid
	success := newMessage(headerSize, typeChap, idSuccess1, c.n.transaction)
	success[6] = byte(c.hash.Size())
	if v.valid {
		// A challenge that is our own sent back would prove nothing.
		if c.cfg.ControllerKey.Empty() || hmac.Equal(v.cval, c.cval) {
			c.fail(ReasonFailed)
			return
		}
		p.key, p.challenge, p.sequence = c.cfg.ControllerKey.transformed(c.cfg.SubNQN), v.cval, v.sequence
		p.role, p.own, p.peer = roleController, c.cfg.SubNQN, c.cfg.HostNQN
		success[8] = 1
		success = append(success, p.response()...)
	}
	c.keys, c.cval = nil, nil
	c.next, c.state = success, controllerProving
}
