package iscsi_test

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lintel.io/lintel/internal/initiator/iscsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// TestLoginKeys checks the operational keys that a login offers and what their answers lead to (RFC 7143 §6.2, §13).
func TestLoginKeys(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.login(pairs("HeaderDigest", "CRC32C", "DataDigest", "None", "MaxConnections", "4", "InitialR2T", "Yes", "ImmediateData", "No",
			"MaxRecvDataSegmentLength", "0x10000", "MaxBurstLength", "4096", "FirstBurstLength", "2048", "DefaultTime2Wait", "3",
			"DefaultTime2Retain", "0", "MaxOutstandingR2T", "2", "DataPDUInOrder", "Yes", "DataSequenceInOrder", "No",
			"ErrorRecoveryLevel", "0", "X-com.example", "hello", "TargetAlias", "the alias")...)
		want := pairs("InitiatorName", iscsi.DefaultInitiatorName, "InitiatorAlias", "me", "SessionType", "Normal", "TargetName", "iqn.2026-11.io.lintel:t",
			"AuthMethod", "None", "MaxRecvDataSegmentLength", "65536", "HeaderDigest", "CRC32C,None", "DataDigest", "None",
			"MaxConnections", "16", "InitialR2T", "No", "ImmediateData", "Yes", "MaxBurstLength", "16776192",
			"FirstBurstLength", "262144", "DefaultTime2Wait", "2", "DefaultTime2Retain", "20", "MaxOutstandingR2T", "16",
			"DataPDUInOrder", "Yes", "DataSequenceInOrder", "No", "ErrorRecoveryLevel", "2", "X-com.example", "hi")
		if diff := cmp.Diff(want, p.loginKeys); diff != "" {
			p.must(errors.New(diff))
		}
		p.drain()
	})
	opts := d.options()
	op := iscsi.DefaultOperational()
	op.HeaderDigest, op.ErrorRecoveryLevel, op.DataSequenceInOrder = []string{"CRC32C", "None"}, 2, false
	op.MaxRecvDataSegmentLength = 65536
	opts.Operational, opts.Alias, opts.Extra = &op, "me", pairs("X-com.example", "hi")
	opts.ISID = wire.ISID{1, 2, 3, 4, 5, 6}
	s := d.session(opts)
	want := iscsi.Parameters{
		HeaderDigest: true, MaxConnections: 4, InitialR2T: true, MaxRecvDataSegmentLength: 65536, TargetMaxRecvDataSegmentLength: 65536,
		MaxBurstLength: 4096, FirstBurstLength: 2048, DefaultTime2Wait: 3, MaxOutstandingR2T: 2, DataPDUInOrder: true,
		PortalGroup: 1, TargetAlias: "the alias", ISID: opts.ISID, TSIH: 7, Extra: pairs("X-com.example", "hello"),
	}
	if diff := cmp.Diff(want, s.Parameters(), cmpopts.IgnoreFields(iscsi.Parameters{}, "Extra")); diff != "" {
		t.Error(diff)
	}
	if extra := s.Parameters().Extra; !slices.Contains(extra, want.Extra[0]) {
		t.Errorf("extra pairs %v", extra)
	}
}

// TestLoginTargetOffers checks that the target's own offers are answered (RFC 7143 §6.2).
func TestLoginTargetOffers(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.answerLogin(true, wire.LoginSuccess)
		p.answerLogin(false, wire.LoginSuccess) // takes the offer without answering it
		p.loginKeys = nil
		// Answers to the offer, then keys that were answered before, as offers of the target.
		all := pairs("InitialR2T", "Yes", "ImmediateData", "Yes", "MaxBurstLength", "8192", "HeaderDigest", "None", "DefaultTime2Wait", "9")
		p.answerLogin(false, wire.LoginSuccess, all...)
		p.answerLogin(false, wire.LoginSuccess, pairs("InitialR2T", "No", "ImmediateData", "No", "MaxBurstLength", "1024", "HeaderDigest", "CRC32C", "DefaultTime2Wait", "1")...)
		p.loginKeys = nil
		p.answerLogin(true, wire.LoginSuccess)
		want := pairs("InitialR2T", "No", "ImmediateData", "No", "MaxBurstLength", "1024", "HeaderDigest", "Reject", "DefaultTime2Wait", "2")
		if diff := cmp.Diff(want, p.loginKeys); diff != "" {
			p.must(errors.New(diff))
		}
		p.drain()
	})
	s := d.session(d.options())
	if got := s.Parameters(); got.InitialR2T || got.ImmediateData || got.MaxBurstLength != 1024 || got.DefaultTime2Wait != 2 {
		t.Errorf("%+v", got)
	}
}

// TestLoginContinued checks text that takes several PDUs, in both directions (RFC 7143 §6.2, C bit).
func TestLoginContinued(t *testing.T) {
	long := strings.Repeat("x", 8000)
	d := newTarget(t, func(p *peer) {
		p.answerLogin(true, wire.LoginSuccess)
		h, one := p.expect(wire.OpLogin)
		if !h.Continue() || h.Final() || len(one) != 8192 {
			p.must(fmt.Errorf("first part of %d bytes, flags %#x", len(one), h.Flags()))
		}
		p.send(&wire.LoginResponse{ISID: p.isid, ITT: h.ITT(), Numbers: p.numbers(), CSG: h.CSG()}, nil)
		h, two := p.expect(wire.OpLogin)
		keys, err := wire.ParseText(append(one, two...), 100)
		p.must(err)
		if h.Continue() || !slices.Contains(keys, wire.KeyValue{Key: "X-b", Value: long}) {
			p.must(errors.New("the parts do not make the text"))
		}
		text := wire.AppendText(nil, "X-answer", long)
		p.send(&wire.LoginResponse{Continue: true, ISID: p.isid, ITT: h.ITT(), Numbers: p.numbers(), CSG: h.CSG()}, text[:3000])
		h, rest := p.expect(wire.OpLogin)
		if len(rest) > 0 || h.Final() {
			p.must(errors.New("want an empty request"))
		}
		p.send(&wire.LoginResponse{Transit: true, NSG: wire.StageFullFeature, TSIH: 7, ISID: p.isid, ITT: h.ITT(), Numbers: p.numbers(), CSG: h.CSG()}, text[3000:])
		p.drain()
	})
	opts := d.options()
	opts.Extra = pairs("X-a", long, "X-b", long)
	s := d.session(opts)
	if want := (wire.KeyValue{Key: "X-answer", Value: long}); !slices.Contains(s.Parameters().Extra, want) {
		t.Error("the answer was not put together")
	}
}

// TestLoginMoved checks that a target that has moved is followed (RFC 7143 §11.13.5).
func TestLoginMoved(t *testing.T) {
	moved := func(p *peer) {
		p.answerLogin(true, wire.LoginMovedTemporarily, pairs("TargetAddress", "[2001:db8::1]:3261,1")...)
	}
	d := newTarget(t, moved, func(p *peer) { p.login(); p.drain() })
	s := d.session(d.options())
	if got := s.Connections()[0].Address(); got != "[2001:db8::1]:3261" {
		t.Errorf("connected to %s", got)
	}
	d = newTarget(t, moved, moved, moved, moved)
	if _, err := iscsi.Dial(d.context(), "a:1", d.options()); err == nil {
		t.Error("followed for ever")
	}
	d = newTarget(t, func(p *peer) { p.answerLogin(true, wire.LoginMovedPermanently) })
	var refused *iscsi.LoginError
	if _, err := iscsi.Dial(d.context(), "a:1", d.options()); !errors.As(err, &refused) || refused.Status != wire.LoginMovedPermanently {
		t.Errorf("got %v", err)
	}
}

// TestLoginBadTarget checks answers that no target may give.
func TestLoginBadTarget(t *testing.T) {
	response := func(change func(*wire.LoginResponse)) func(*peer) {
		return func(p *peer) {
			h, _ := p.expect(wire.OpLogin)
			f := &wire.LoginResponse{Transit: true, NSG: wire.StageOperational, ISID: h.ISID(), ITT: h.ITT(), Numbers: p.numbers()}
			change(f)
			p.send(f, nil)
			p.drain()
		}
	}
	operational := func(kv ...string) func(*peer) {
		return func(p *peer) { p.login(pairs(kv...)...); p.drain() }
	}
	for name, script := range map[string]func(*peer){
		"stage":          response(func(f *wire.LoginResponse) { f.CSG = wire.StageOperational }),
		"next stage":     response(func(f *wire.LoginResponse) { f.NSG = wire.StageFullFeature }),
		"same stage":     response(func(f *wire.LoginResponse) { f.NSG = wire.StageSecurity }),
		"tag":            response(func(f *wire.LoginResponse) { f.ITT++ }),
		"no TSIH":        func(p *peer) { p.tsih = 0; p.login(); p.drain() },
		"number":         operational("MaxBurstLength", "12a"),
		"too large":      operational("MaxBurstLength", "16776193"),
		"too small":      operational("FirstBurstLength", "511"),
		"smaller wait":   operational("DefaultTime2Wait", "1"),
		"boolean":        operational("InitialR2T", "yes"),
		"wrong boolean":  operational("DataPDUInOrder", "No"),
		"digest":         operational("HeaderDigest", "CRC32C"),
		"reject":         operational("ImmediateData", "Reject"),
		"segment length": operational("MaxRecvDataSegmentLength", "100"),
		"group":          operational("TargetPortalGroupTag", "x"),
		"question":       operational("InitialR2T", "No", "InitialR2T", "No"),
		"not text": func(p *peer) {
			p.answerLogin(true, wire.LoginSuccess)
			h, _ := p.expect(wire.OpLogin)
			p.send(&wire.LoginResponse{Transit: true, CSG: 1, NSG: 3, TSIH: 1, ISID: h.ISID(), ITT: h.ITT(), Numbers: p.numbers()}, []byte("no zero at the end"))
			p.drain()
		},
		"sequence": func(p *peer) {
			p.answerLogin(true, wire.LoginSuccess)
			p.statSN++
			p.answerLogin(true, wire.LoginSuccess)
			p.drain()
		},
		"endless": func(p *peer) { p.answerLogin(true, wire.LoginSuccess); p.endless(false) },
		"continued for ever": func(p *peer) {
			p.answerLogin(true, wire.LoginSuccess)
			p.endless(true)
		},
		"other PDU": func(p *peer) {
			p.expect(wire.OpLogin)
			p.send(&wire.NOPIn{ITT: wire.NoTag, TTT: wire.NoTag, Numbers: p.now()}, nil)
			p.drain()
		},
		"long": func(p *peer) {
			h, _ := p.expect(wire.OpLogin)
			b := p.pdu(&wire.LoginResponse{ITT: h.ITT()}, nil)
			wire.BHS(b).SetDataLength(wire.MaxDataSegment)
			p.write(b)
			p.drain()
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t, script)
			s, err := iscsi.Dial(d.context(), "target:3260", d.options())
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, iscsi.ErrProtocol) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// endless answers login requests without ever ending the login.
func (p *peer) endless(more bool) {
	defer func() { _ = recover() }() // the initiator hangs up
	for {
		h, _ := p.expect(wire.OpLogin)
		var text []byte
		if more {
			text = wire.AppendText(nil, "X-a", strings.Repeat("x", 8000))
		}
		p.send(&wire.LoginResponse{Continue: more, ISID: h.ISID(), ITT: h.ITT(), Numbers: p.numbers(), CSG: h.CSG()}, text)
	}
}

// TestLoginRefused checks that the status of a refused login is told, and that a login ends with its context.
func TestLoginRefused(t *testing.T) {
	d := newTarget(t, func(p *peer) { p.answerLogin(false, wire.LoginNotFound) })
	var refused *iscsi.LoginError
	if _, err := iscsi.Dial(d.context(), "a:1", d.options()); !errors.As(err, &refused) || refused.Status != wire.LoginNotFound {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d = newTarget(t, func(p *peer) { p.expect(wire.OpLogin); cancel(); p.drain() })
	if _, err := iscsi.Dial(ctx, "a:1", d.options()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	d = newTarget(t, func(p *peer) { p.expect(wire.OpLogin) })
	if _, err := iscsi.Dial(d.context(), "a:1", d.options()); err == nil {
		t.Error("logged in to a closed connection")
	}
	d = newTarget(t)
	if _, err := iscsi.Dial(d.context(), "a:1", d.options()); err == nil {
		t.Error("logged in without a connection")
	}
	if _, err := iscsi.Dial(d.context(), "a:1", iscsi.Options{}); err == nil {
		t.Error("logged in without a target name")
	}
	for _, change := range []func(*iscsi.Operational){
		func(o *iscsi.Operational) { o.MaxBurstLength = 511 },
		func(o *iscsi.Operational) { o.MaxRecvDataSegmentLength = 1 << 24 },
		func(o *iscsi.Operational) { o.FirstBurstLength = o.MaxBurstLength + 1 },
	} {
		opts, op := d.options(), iscsi.DefaultOperational()
		change(&op)
		opts.Operational = &op
		if _, err := iscsi.Dial(d.context(), "a:1", opts); err == nil {
			t.Errorf("offered %+v", op)
		}
	}
}

// TestSkipSecurity checks a login that begins in the operational stage (RFC 7143 §6.3).
func TestSkipSecurity(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		if h := p.answerLogin(true, wire.LoginSuccess); h.CSG() != wire.StageOperational || p.loginKeys[0].Key != wire.KeyInitiatorName {
			p.must(fmt.Errorf("%v, %v", h.CSG(), p.loginKeys))
		}
		p.drain()
	})
	opts := d.options()
	opts.SkipSecurity = true
	d.session(opts)
}

// TestCHAP checks one-way and mutual authentication with every algorithm (RFC 7143 §12.1).
func TestCHAP(t *testing.T) {
	hashes := map[string]func() hash.Hash{
		"5": md5.New, "6": sha1.New, "7": sha256.New, "8": func() hash.Hash { return sha3.New256() },
	}
	sum := func(algorithm string, id byte, secret string, challenge []byte) string {
		h := hashes[algorithm]()
		h.Write([]byte{id})
		h.Write([]byte(secret))
		h.Write(challenge)
		return wire.FormatBase64(h.Sum(nil))
	}
	for algorithm := range hashes {
		for _, secret := range []string{"", "target secret", "wrong"} {
			t.Run(algorithm+secret, func(t *testing.T) {
				d := newTarget(t, func(p *peer) {
					p.answerLogin(false, wire.LoginSuccess, pairs("AuthMethod", "CHAP", "TargetPortalGroupTag", "3")...)
					challenge := pattern(16)
					p.answerLogin(false, wire.LoginSuccess, pairs("CHAP_A", algorithm, "CHAP_I", "42", "CHAP_C", wire.FormatBase64(challenge))...)
					if p.loginKeys[len(p.loginKeys)-1] != (wire.KeyValue{Key: "CHAP_A", Value: "8,7,6,5"}) {
						p.must(fmt.Errorf("offered %v", p.loginKeys))
					}
					p.loginKeys = nil
					h, data := p.expect(wire.OpLogin)
					keys, err := wire.ParseText(data, 10)
					p.must(err)
					value := map[string]string{}
					for _, kv := range keys {
						value[kv.Key] = kv.Value
					}
					got, err := wire.ParseBinary(value["CHAP_R"], 64)
					p.must(err)
					if want := sum(algorithm, 42, "my secret", challenge); value["CHAP_N"] != "me" || wire.FormatBase64(got) != want {
						p.must(fmt.Errorf("answered %v", keys))
					}
					var answer []byte
					if value["CHAP_C"] != "" {
						id, err := wire.ParseNumber(value["CHAP_I"])
						p.must(err)
						theirs, err := wire.ParseBinary(value["CHAP_C"], 64)
						p.must(err)
						answer = wire.AppendText(answer, "CHAP_N", "target")
						answer = wire.AppendText(answer, "CHAP_R", sum(algorithm, byte(id), "target secret", theirs))
					}
					p.send(&wire.LoginResponse{Transit: true, NSG: h.NSG(), ISID: p.isid, ITT: h.ITT(), Numbers: p.numbers()}, answer)
					if secret != "wrong" {
						p.answerLogin(true, wire.LoginSuccess)
					}
					p.drain()
				})
				opts := d.options()
				opts.CHAP = &iscsi.CHAP{User: "me", Secret: "my secret", TargetSecret: secret}
				if secret != "" {
					opts.CHAP.TargetUser = "target"
				}
				s, err := iscsi.Dial(d.context(), "a:1", opts)
				if secret == "wrong" {
					if !errors.Is(err, iscsi.ErrAuthentication) {
						t.Errorf("got %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if s.Parameters().PortalGroup != 3 {
					t.Error("the portal group of the security stage is lost")
				}
				s.Close()
			})
		}
	}
}

// TestCHAPBadTarget checks CHAP answers that are refused (RFC 7143 §12.1.3).
func TestCHAPBadTarget(t *testing.T) {
	for name, answer := range map[string][]wire.KeyValue{
		"algorithm":     pairs("CHAP_A", "6", "CHAP_I", "1", "CHAP_C", "0x00"),
		"no algorithm":  pairs("CHAP_I", "1", "CHAP_C", "0x00"),
		"identifier":    pairs("CHAP_A", "5", "CHAP_I", "256", "CHAP_C", "0x00"),
		"no challenge":  pairs("CHAP_A", "5", "CHAP_I", "1"),
		"bad challenge": pairs("CHAP_A", "5", "CHAP_I", "1", "CHAP_C", "00"),
		"no method":     nil,
		"other method":  nil,
		"early":         nil,
	} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t, func(p *peer) {
				switch name {
				case "no method":
					p.answerLogin(false, wire.LoginSuccess)
				case "other method":
					p.answerLogin(false, wire.LoginSuccess, pairs("AuthMethod", "None")...)
				case "early":
					h, _ := p.expect(wire.OpLogin)
					p.send(&wire.LoginResponse{Transit: true, NSG: wire.StageOperational, ITT: h.ITT(), Numbers: p.numbers()}, wire.AppendText(nil, "AuthMethod", "CHAP"))
				default:
					p.answerLogin(false, wire.LoginSuccess, pairs("AuthMethod", "CHAP")...)
					p.answerLogin(false, wire.LoginSuccess, answer...)
				}
				p.drain()
			})
			opts := d.options()
			opts.CHAP = &iscsi.CHAP{User: "me", Secret: "s", Algorithms: []int{5}}
			if _, err := iscsi.Dial(d.context(), "a:1", opts); !errors.Is(err, iscsi.ErrProtocol) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestDiscover checks SendTargets in a discovery session, over several text PDUs (RFC 7143 appendix C).
func TestDiscover(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		p.login()
		if !slices.Contains(p.loginKeys, wire.KeyValue{Key: "SessionType", Value: "Discovery"}) ||
			slices.ContainsFunc(p.loginKeys, func(kv wire.KeyValue) bool { return kv.Key == "TargetName" || kv.Key == "InitialR2T" }) {
			p.must(fmt.Errorf("keys %v", p.loginKeys))
		}
		h, data := p.expect(wire.OpText)
		if string(data) != "SendTargets=All\x00" || h.TTT() != wire.NoTag {
			p.must(fmt.Errorf("asked %q", data))
		}
		answer := []byte("TargetName=iqn.a\x00TargetAddress=10.0.0.1:3260,1\x00TargetAddress=[::1],2\x00TargetName=iqn.b\x00TargetAddress=host\x00")
		p.send(&wire.TextResponse{Continue: true, ITT: h.ITT(), TTT: 99, LUN: 5, Numbers: p.numbers()}, answer[:30])
		h, data = p.expect(wire.OpText)
		if len(data) > 0 || h.TTT() != 99 || h.LUN() != 5 {
			p.must(fmt.Errorf("continued with %q, TTT %d", data, h.TTT()))
		}
		p.send(&wire.TextResponse{Final: true, ITT: h.ITT(), TTT: wire.NoTag, Numbers: p.numbers()}, answer[30:])
		h, _ = p.expect(wire.OpLogout)
		p.send(&wire.LogoutResponse{ITT: h.ITT(), Numbers: p.numbers()}, nil)
	})
	got, err := iscsi.Discover(d.context(), "a:1", d.options())
	want := []iscsi.Record{
		{Name: "iqn.a", Portals: []iscsi.Portal{{Address: "10.0.0.1:3260", Group: 1}, {Address: "[::1]:3260", Group: 2}}},
		{Name: "iqn.b", Portals: []iscsi.Portal{{Address: "host:3260"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	d = newTarget(t, func(p *peer) {
		p.login()
		h, _ := p.expect(wire.OpText)
		p.send(&wire.TextResponse{Final: true, ITT: h.ITT(), TTT: wire.NoTag, Numbers: p.numbers()}, []byte("TargetAddress=a,1\x00"))
		p.drain()
	})
	if _, err := iscsi.Discover(d.context(), "a:1", d.options()); !errors.Is(err, iscsi.ErrProtocol) {
		t.Errorf("got %v", err)
	}
}
