package iscsi

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// The bounds of a login, so that a target cannot keep one for ever.
const (
	maxLoginRounds = 32
	maxLoginText   = 64 << 10 // bytes in one answer, over all its PDUs
	maxPairs       = 256
)

// loginExchange is the state of one login (RFC 7143 §6.3, §11.12).
type loginExchange struct {
	c       *Conn
	leading bool
	itt     uint32
	cmdSN   uint32
	tsih    uint16
	first   bool // no response has come yet
	stage   wire.Stage
}

// login takes the connection to the full feature phase. moved is the address
// that the target sent the initiator to, where that is why err is set.
func (c *Conn) login() (moved string, err error) {
	s := c.session
	s.mu.Lock()
	x := &loginExchange{c: c, leading: len(s.conns) == 0, cmdSN: s.cmdSN, first: true, tsih: s.params.TSIH}
	c.cid = s.nextCID
	s.nextCID++
	s.mu.Unlock()
	var r [4]byte
	if _, err := rand.Read(r[:]); err != nil {
		return "", fmt.Errorf("random task tag: %w", err)
	}
	x.itt = binary.BigEndian.Uint32(r[:]) &^ (1 << 31)
	c.params = defaultParameters(s.opts)
	if !x.leading {
		own := c.params
		c.params = s.params
		c.params.TargetMaxRecvDataSegmentLength = own.TargetMaxRecvDataSegmentLength
		c.params.HeaderDigest, c.params.DataDigest, c.params.Extra = false, false, nil
	}
	digests := c.params // they come into use after the login
	pairs := []wire.KeyValue{{Key: wire.KeyInitiatorName, Value: s.opts.Initiator}}
	if s.opts.Alias != "" {
		pairs = append(pairs, wire.KeyValue{Key: wire.KeyInitiatorAlias, Value: s.opts.Alias})
	}
	if s.discover {
		pairs = append(pairs, wire.KeyValue{Key: wire.KeySessionType, Value: "Discovery"})
	} else {
		pairs = append(pairs, wire.KeyValue{Key: wire.KeySessionType, Value: "Normal"})
	}
	if s.opts.Target != "" {
		pairs = append(pairs, wire.KeyValue{Key: wire.KeyTargetName, Value: s.opts.Target})
	}
	if s.opts.SkipSecurity {
		x.stage = wire.StageOperational
	} else {
		var answer []wire.KeyValue
		if answer, moved, err = x.security(pairs); err != nil {
			return moved, err
		}
		c.declare(answer)
		pairs = nil
	}
	if x.stage == wire.StageOperational {
		if moved, err = x.operational(pairs, &digests); err != nil {
			return moved, err
		}
	}
	c.params.HeaderDigest, c.params.DataDigest = digests.HeaderDigest, digests.DataDigest
	c.params.TSIH = x.tsih
	return "", nil
}

// security is the security negotiation stage (RFC 7143 §12).
func (x *loginExchange) security(pairs []wire.KeyValue) (answer []wire.KeyValue, moved string, err error) {
	x.stage = wire.StageSecurity
	credentials := x.c.session.opts.CHAP
	if credentials == nil {
		pairs = append(pairs, wire.KeyValue{Key: wire.KeyAuthMethod, Value: "None"})
		answer, moved, err = x.untilNext(pairs, wire.StageOperational)
		return answer, moved, err
	}
	pairs = append(pairs, wire.KeyValue{Key: wire.KeyAuthMethod, Value: "CHAP"})
	all, moved, err := x.round(pairs, false, wire.StageOperational)
	if err != nil {
		return nil, moved, err
	}
	if method, _ := lookup(all, wire.KeyAuthMethod); method != "CHAP" {
		return nil, "", protocolError("the target answered AuthMethod=%.40s to CHAP", method)
	}
	if x.stage != wire.StageSecurity {
		return nil, "", protocolError("the target ended the security stage before CHAP")
	}
	exchange := chapExchange{CHAP: credentials}
	answer, moved, err = x.round(exchange.offer(), false, wire.StageOperational)
	if err != nil {
		return nil, moved, err
	}
	if pairs, err = exchange.answer(answer); err != nil {
		return nil, "", err
	}
	all = append(all, answer...)
	answer, moved, err = x.untilNext(pairs, wire.StageOperational)
	if err != nil {
		return nil, moved, err
	}
	return append(all, answer...), "", exchange.check(answer)
}

// operational is the operational negotiation stage (RFC 7143 §6.3.2, §13).
func (x *loginExchange) operational(pairs []wire.KeyValue, result *Parameters) (moved string, err error) {
	n := negotiation{opts: &x.c.session.opts, p: &x.c.params, leading: x.leading, discover: x.c.session.discover}
	pairs = append(pairs, n.offer()...)
	for range maxLoginRounds {
		answer, moved, err := x.round(pairs, true, wire.StageFullFeature)
		if err != nil {
			return moved, err
		}
		if pairs, err = n.take(answer); err != nil {
			return "", err
		}
		if x.stage == wire.StageFullFeature {
			if len(pairs) > 0 {
				return "", protocolError("the target ended the login with a question: %s", pairs[0].Key)
			}
			result.HeaderDigest, result.DataDigest = n.headerDigest, n.dataDigest
			return "", nil
		}
	}
	return "", protocolError("the login does not end")
}

// untilNext sends pairs and empty requests until the target goes on to the next stage.
func (x *loginExchange) untilNext(pairs []wire.KeyValue, next wire.Stage) (all []wire.KeyValue, moved string, err error) {
	stage := x.stage
	for range maxLoginRounds {
		answer, moved, err := x.round(pairs, true, next)
		if err != nil {
			return nil, moved, err
		}
		all = append(all, answer...)
		if x.stage != stage {
			return all, "", nil
		}
		pairs = nil
	}
	return nil, "", protocolError("the login does not end")
}

// round sends text, in as many PDUs as it needs, and receives the answer.
func (x *loginExchange) round(pairs []wire.KeyValue, transit bool, next wire.Stage) (answer []wire.KeyValue, moved string, err error) {
	var text []byte
	for _, p := range pairs {
		text = wire.AppendText(text, p.Key, p.Value)
	}
	for len(text) > wire.DefaultMaxRecvDataSegment {
		if err := x.send(text[:wire.DefaultMaxRecvDataSegment], true, false, next); err != nil {
			return nil, "", err
		}
		text = text[wire.DefaultMaxRecvDataSegment:]
		if h, _, err := x.receive(); err != nil || h.Final() || h.Continue() {
			return nil, "", protocolError("bad answer to a part of a login request (%w)", orProtocol(err))
		}
	}
	if err := x.send(text, false, transit, next); err != nil {
		return nil, "", err
	}
	var got []byte
	for {
		h, data, err := x.receive()
		if err != nil {
			return nil, "", err
		}
		got = append(got, data...)
		if len(got) > maxLoginText {
			return nil, "", protocolError("a login answer of more than %d bytes", maxLoginText)
		}
		if h.Continue() {
			if err := x.send(nil, false, false, next); err != nil {
				return nil, "", err
			}
			continue
		}
		if answer, err = wire.ParseText(got, maxPairs); err != nil {
			return nil, "", protocolError("%w", err)
		}
		if status := h.LoginStatus(); status != wire.LoginSuccess {
			return nil, redirect(status, answer), &LoginError{Status: status}
		}
		return answer, "", x.advance(h, transit, next)
	}
}

func orProtocol(err error) error {
	if err == nil {
		return ErrProtocol
	}
	return err
}

// advance goes to the next stage where the target agreed to (RFC 7143 §11.13.3).
func (x *loginExchange) advance(h wire.BHS, transit bool, next wire.Stage) error {
	if h.CSG() != x.stage {
		return protocolError("a login answer of the %v in the %v", h.CSG(), x.stage)
	}
	if !h.Final() {
		return nil
	}
	if !transit || h.NSG() > next || h.NSG() <= x.stage || h.NSG() == 2 {
		return protocolError("the target went from the %v to the %v unasked", x.stage, h.NSG())
	}
	if x.stage = h.NSG(); x.stage == wire.StageFullFeature {
		if h.TSIH() == 0 || x.tsih != 0 && h.TSIH() != x.tsih {
			return protocolError("the login ended with TSIH %d", h.TSIH())
		}
		x.tsih = h.TSIH()
	}
	return nil
}

func (x *loginExchange) send(text []byte, more, transit bool, next wire.Stage) error {
	f := wire.Login{
		Transit: transit, Continue: more, CSG: x.stage, NSG: next, ISID: x.c.session.opts.ISID,
		TSIH: x.tsih, ITT: x.itt, CID: x.c.cid, CmdSN: x.cmdSN, ExpStatSN: x.c.expStatSN,
	}
	_, err := x.c.conn.Write(wire.AppendPDU(nil, &f, text))
	return err
}

func (x *loginExchange) receive() (wire.BHS, []byte, error) {
	c := x.c
	h, data, err := c.readPDU()
	if err != nil {
		return nil, nil, err
	}
	if h.Opcode() != wire.OpLoginResponse || h.ITT() != x.itt {
		return nil, nil, protocolError("%v in answer to a login request", h.Opcode())
	}
	if x.first {
		c.expStatSN, x.first = h.StatSN(), false
	}
	if h.LoginStatus() == wire.LoginSuccess {
		if h.StatSN() != c.expStatSN {
			return nil, nil, protocolError("a login answer with StatSN %d where %d is next", h.StatSN(), c.expStatSN)
		}
		c.expStatSN++
		c.session.mu.Lock()
		c.session.window(h)
		c.session.mu.Unlock()
	}
	return h, data, nil
}

// readPDU waits for one whole PDU without digests. What it returns is valid
// until the next read.
func (c *Conn) readPDU() (wire.BHS, []byte, error) {
	need := wire.HeaderSize
	for {
		if p := c.buf[c.r:c.w]; len(p) >= need {
			h := wire.BHS(p)
			if h.DataLength() > max(wire.DefaultMaxRecvDataSegment, c.params.MaxRecvDataSegmentLength) {
				return nil, nil, protocolError("a login answer of %d bytes", h.DataLength())
			}
			l := h.Layout(false, false)
			if len(p) >= l.Size {
				c.r += l.Size
				return h, p[l.Data : l.Data+h.DataLength()], nil
			}
			need = l.Size
		}
		c.reserve(need)
		if err := c.read(); errors.Is(err, io.EOF) {
			return nil, nil, io.ErrUnexpectedEOF
		} else if err != nil {
			return nil, nil, err
		}
	}
}

// redirect returns the address of a target that has moved (RFC 7143 §11.13.5).
func redirect(status wire.LoginStatus, answer []wire.KeyValue) string {
	if status.Class() != 1 {
		return ""
	}
	value, _ := lookup(answer, wire.KeyTargetAddress)
	address, _ := splitAddress(value)
	return address
}

// splitAddress takes a TargetAddress apart: host[:port][,group] (RFC 7143 §13.8).
func splitAddress(value string) (address string, group uint16) {
	address, tag, found := strings.Cut(value, ",")
	if found {
		if n, err := wire.ParseNumber(tag); err == nil && n <= 65535 {
			group = uint16(n)
		}
	}
	if address == "" {
		return "", group
	}
	if host, port, err := net.SplitHostPort(address); err == nil {
		return net.JoinHostPort(host, port), group
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), fmt.Sprint(wire.Port)), group
}
