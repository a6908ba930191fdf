package iscsi

import (
	"errors"
	"io"
	"strconv"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// maxLoginKeys is how many pairs one exchange of login or text may have, and how many
// different keys all exchanges of a login.
const maxLoginKeys = 128

// login is the target's side of the login phase of one connection: requests
// in, answers out, no socket (RFC 7143 §6.3).
//
//	security negotiation ──> operational negotiation ──> full feature phase
//	          └──────────────────────────────────────────────┘
//
// The initiator chooses where to begin and when to go on; the target agrees
// as soon as authentication, where it is demanded, has succeeded.
type login struct {
	cfg  *Config
	rand io.Reader
	peer Peer // Initiator is filled in by the first request

	first  wire.BHS // header of the first request, copied
	stage  wire.Stage
	text   []byte // collected over requests with the C bit
	seen   map[string]bool
	params params

	target     string
	alias      string // InitiatorAlias
	discovery  bool
	grant      Grant
	authorized bool // names are known and Authorize has agreed
	method     string
	chap       *chap
	greeted    bool // TargetPortalGroupTag and alias have been sent
	declared   bool // our MaxRecvDataSegmentLength has been sent
}

func newLogin(cfg *Config, rand io.Reader, peer Peer) *login {
	return &login{cfg: cfg, rand: rand, peer: peer, seen: map[string]bool{}, params: defaultParams()}
}

// leading reports whether the connection begins a session.
func (l *login) leading() bool { return l.first.TSIH() == 0 }

// user returns the name that the initiator has proved, empty without CHAP.
func (l *login) user() string {
	if l.chap != nil && l.chap.done {
		return l.grant.CHAP.Name
	}
	return ""
}

// loginReply is the answer to one login request.
type loginReply struct {
	transit  bool
	csg, nsg wire.Stage
	text     []byte
}

// finished reports whether full feature phase begins with this answer.
func (r loginReply) finished() bool { return r.transit && r.nsg == wire.StageFullFeature }

// step handles one login request. An error is a *Refusal, and ends the
// connection after it has been told.
func (l *login) step(b wire.BHS, data []byte) (loginReply, error) {
	if l.first == nil {
		if err := l.begin(b); err != nil {
			return loginReply{}, err
		}
	} else if err := l.same(b); err != nil {
		return loginReply{}, err
	}
	csg, nsg := b.CSG(), b.NSG()
	switch {
	case csg != l.stage:
		return loginReply{}, Refuse(wire.LoginInitiatorError, "request of %s during %s", csg, l.stage)
	case b.Final() && (b.Continue() || nsg <= csg || nsg == 2):
		return loginReply{}, Refuse(wire.LoginInitiatorError, "impossible transition from %s to %s", csg, nsg)
	case len(l.text)+len(data) > l.cfg.MaxLoginText:
		return loginReply{}, Refuse(wire.LoginInitiatorError, "login text is longer than %d bytes", l.cfg.MaxLoginText)
	}
	l.text = append(l.text, data...)
	reply := loginReply{csg: csg}
	if b.Continue() {
		return reply, nil
	}
	pairs, err := wire.ParseText(l.text, maxLoginKeys)
	l.text = nil
	if err != nil {
		return reply, Refuse(wire.LoginInitiatorError, "%v", err)
	}
	answers, err := l.negotiate(pairs)
	if err != nil {
		return reply, err
	}
	for _, kv := range answers {
		reply.text = wire.AppendText(reply.text, kv.Key, kv.Value)
	}
	if len(reply.text) > wire.DefaultMaxRecvDataSegment {
		return reply, Refuse(wire.LoginInitiatorError, "the initiator sent more keys than an answer can hold")
	}
	switch {
	case !b.Final():
	case l.mayLeaveSecurity():
		reply.transit, reply.nsg = true, nsg
		l.stage = nsg
	case l.chap == nil:
		return reply, l.unauthenticated()
	}
	return reply, nil
}

// begin checks the first request of a connection.
func (l *login) begin(b wire.BHS) error {
	l.first = append(wire.BHS(nil), b[:wire.HeaderSize]...)
	l.stage = b.CSG()
	switch {
	case b.VersionMin() > 0:
		return Refuse(wire.LoginUnsupportedVersion, "the initiator needs version %d at least, this is version 0", b.VersionMin())
	case l.stage != wire.StageSecurity && l.stage != wire.StageOperational:
		return Refuse(wire.LoginInvalidRequest, "login begins in %s", l.stage)
	}
	return nil
}

// same checks that a further request belongs to the login under way (RFC 7143 §11.12).
func (l *login) same(b wire.BHS) error {
	f := l.first
	if b.ISID() != f.ISID() || b.TSIH() != f.TSIH() || b.CID() != f.CID() {
		return Refuse(wire.LoginInvalidRequest, "ISID, TSIH or CID changed during login")
	}
	return nil
}

// mayLeaveSecurity reports whether the initiator is authenticated as far as demanded.
func (l *login) mayLeaveSecurity() bool {
	if l.chap != nil {
		return l.chap.done
	}
	return l.grant.CHAP.Secret == ""
}

func (l *login) unauthenticated() error {
	return Refuse(wire.LoginAuthFailure, "%s has to authenticate with CHAP", l.peer.Initiator)
}

// negotiate handles the pairs of one exchange.
func (l *login) negotiate(pairs []wire.KeyValue) ([]wire.KeyValue, error) {
	var rest []wire.KeyValue
	for _, kv := range pairs {
		if l.seen[kv.Key] && l.stage != wire.StageSecurity {
			return nil, Refuse(wire.LoginInitiatorError, "key %s is negotiated twice", kv.Key)
		}
		if l.seen[kv.Key] = true; len(l.seen) > maxLoginKeys {
			return nil, Refuse(wire.LoginInitiatorError, "more than %d keys", maxLoginKeys)
		}
		known, err := l.declare(kv)
		if err != nil {
			return nil, err
		}
		if !known {
			rest = append(rest, kv)
		}
	}
	if err := l.authorize(); err != nil {
		return nil, err
	}
	var out []wire.KeyValue
	if !l.greeted {
		l.greeted = true
		if !l.discovery {
			out = append(out, wire.KeyValue{Key: wire.KeyTargetPortalGroupTag, Value: strconv.Itoa(int(l.peer.Group))})
			if l.grant.Alias != "" {
				out = append(out, wire.KeyValue{Key: wire.KeyTargetAlias, Value: l.grant.Alias})
			}
		}
	}
	if l.stage == wire.StageSecurity {
		more, err := l.security(rest)
		return append(out, more...), err
	}
	if !l.mayLeaveSecurity() {
		return nil, l.unauthenticated()
	}
	for _, kv := range rest {
		if answer := l.params.operational(l.cfg, kv, l.leading(), l.discovery, false); answer != "" {
			out = append(out, wire.KeyValue{Key: kv.Key, Value: answer})
		}
	}
	if !l.declared {
		l.declared = true
		l.params.maxRecv = l.cfg.MaxRecvDataSegment
		out = append(out, wire.KeyValue{Key: wire.KeyMaxRecvDataSegmentLength, Value: strconv.Itoa(l.params.maxRecv)})
	}
	return out, nil
}

// declare takes note of what the initiator says about itself and the target
// it wants; known is false for every other key.
func (l *login) declare(kv wire.KeyValue) (known bool, err error) {
	switch kv.Key {
	case wire.KeyInitiatorName, wire.KeyTargetName, wire.KeySessionType:
		if l.authorized {
			return true, Refuse(wire.LoginInitiatorError, "%s comes after the first exchange", kv.Key)
		}
	case wire.KeyInitiatorAlias:
		if len(kv.Value) > 255 {
			return true, Refuse(wire.LoginInitiatorError, "InitiatorAlias is longer than 255 bytes")
		}
		l.alias = kv.Value
		return true, nil
	}
	switch kv.Key {
	case wire.KeyInitiatorName:
		if l.peer.Initiator, err = wire.NormalizeName(kv.Value); err != nil {
			return true, Refuse(wire.LoginInitiatorError, "InitiatorName: %v", err)
		}
	case wire.KeyTargetName:
		if l.target, err = wire.NormalizeName(kv.Value); err != nil {
			return true, Refuse(wire.LoginNotFound, "TargetName: %v", err)
		}
	case wire.KeySessionType:
		switch kv.Value {
		case "Normal":
		case "Discovery":
			l.discovery = true
		default:
			return true, Refuse(wire.LoginSessionType, "session type %.40q", kv.Value)
		}
	default:
		return false, nil
	}
	return true, nil
}

// authorize asks for access once the names are known, which the first
// exchange has to tell (RFC 7143 §6.3.1).
func (l *login) authorize() error {
	if l.authorized {
		return nil
	}
	switch {
	case l.peer.Initiator == "":
		return Refuse(wire.LoginMissingParameter, "the first login request has no InitiatorName")
	case l.target == "" && !l.discovery:
		return Refuse(wire.LoginMissingParameter, "the first login request has no TargetName")
	case l.discovery:
		l.target = ""
	}
	grant, err := l.cfg.Access.Authorize(LoginRequest{Peer: l.peer, Target: l.target, Discovery: l.discovery})
	if err != nil {
		return asRefusal(err)
	}
	l.grant, l.authorized = grant, true
	return nil
}

// security handles the keys of the security negotiation stage (RFC 7143 §12).
func (l *login) security(pairs []wire.KeyValue) ([]wire.KeyValue, error) {
	var out []wire.KeyValue
	keys := map[string]string{}
	for _, kv := range pairs {
		switch kv.Key {
		case wire.KeyAuthMethod:
			if l.method != "" {
				return nil, Refuse(wire.LoginInitiatorError, "AuthMethod is negotiated twice")
			}
			if err := l.selectMethod(kv.Value); err != nil {
				return nil, err
			}
			out = append(out, wire.KeyValue{Key: kv.Key, Value: l.method})
		case wire.KeyCHAPAlgorithm, wire.KeyCHAPIdentifier, wire.KeyCHAPChallenge, wire.KeyCHAPName, wire.KeyCHAPResponse:
			if _, twice := keys[kv.Key]; twice || l.chap == nil {
				return nil, Refuse(wire.LoginInitiatorError, "%s is out of place", kv.Key)
			}
			keys[kv.Key] = kv.Value
		default:
			answer := wire.NotUnderstood
			if _, operational := keyRules[kv.Key]; operational {
				answer = wire.Rejected
			}
			out = append(out, wire.KeyValue{Key: kv.Key, Value: answer})
		}
	}
	if len(keys) == 0 {
		return out, nil
	}
	more, err := l.chap.step(keys)
	return append(out, more...), err
}

func (l *login) selectMethod(offer string) error {
	if l.grant.CHAP.Secret == "" {
		if l.method = firstOf(offer, "None"); l.method == wire.Rejected {
			return Refuse(wire.LoginAuthFailure, "the initiator demands %.80q, but no CHAP secret is set for it", offer)
		}
		return nil
	}
	if l.method = firstOf(offer, "CHAP"); l.method == wire.Rejected {
		return Refuse(wire.LoginAuthFailure, "CHAP is demanded, the initiator offers %.80q", offer)
	}
	l.chap = &chap{initiator: l.grant.CHAP, target: l.grant.Mutual, algorithms: l.grant.Algorithms, rand: l.rand}
	return nil
}

// asRefusal makes a refusal of any error.
func asRefusal(err error) *Refusal {
	var r *Refusal
	if !errors.As(err, &r) {
		r = &Refusal{Status: wire.LoginTargetError, Reason: err.Error()}
	}
	return r
}
