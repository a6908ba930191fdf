package iscsi

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// counting is a source of random bytes that counts.
type counting byte

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		*c++
		p[i] = byte(*c)
	}
	return len(p), nil
}

// TestLogin checks the login phase by transcripts (RFC 7143 §6, §12.1, §13, RFC 7144 §7.1).
//
// Commands: "new" begins a connection, with the arguments chap=NAME/SECRET,
// mutual=NAME/SECRET, algorithms=(5,7), refuse=STATUS, and those of the target's configuration;
// "login" sends a request with the keys in its input, with csg, nsg, and the flags t and c;
// "respond" sends CHAP_N and CHAP_R for the last challenge, and with id and challenge asks
// the target to prove itself.
func TestLogin(t *testing.T) {
	datadriven.Walk(t, "testdata/login", func(t *testing.T, path string) {
		var s script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				return s.begin(t, d)
			case "login":
				return s.request(d, text(strings.FieldsFunc(d.Input, func(r rune) bool { return r == '\n' })...))
			case "raw":
				b, err := strconv.Unquote(strings.TrimSpace(d.Input))
				if err != nil {
					t.Fatal(err)
				}
				return s.request(d, []byte(b))
			case "respond":
				return s.respond(t, d)
			}
			t.Fatalf("no command %q", d.Cmd)
			return ""
		})
	})
}

// script runs one transcript.
type script struct {
	login     *login
	array     *array
	alg       uint64
	id        byte
	challenge []byte
}

func credential(s string) Credential {
	name, secret, _ := strings.Cut(s, "/")
	return Credential{Name: name, Secret: secret}
}

func (s *script) begin(t *testing.T, d *datadriven.TestData) string {
	s.array = newArray()
	cfg := Config{Access: s.array}
	for _, a := range d.CmdArgs {
		v := ""
		if len(a.Vals) > 0 {
			v = a.Vals[0]
		}
		switch a.Key {
		case "chap":
			s.array.grant.CHAP = credential(v)
		case "mutual":
			s.array.grant.Mutual = credential(v)
		case "alias":
			s.array.grant.Alias = v
		case "algorithms":
			for _, v := range a.Vals {
				n, err := strconv.Atoi(v)
				if err != nil {
					t.Fatal(err)
				}
				s.array.grant.Algorithms = append(s.array.grant.Algorithms, n)
			}
		case "refuse":
			n, err := strconv.ParseUint(v, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			s.array.refuse = Refuse(wire.LoginStatus(n), "the array says so")
		case "fail":
			s.array.refuse = errors.New("the array is broken")
		case "nodigests":
			cfg.RefuseDigests = true
		case "initialr2t":
			cfg.RequireInitialR2T = true
		case "noimmediate":
			cfg.RefuseImmediateData = true
		default:
			t.Fatalf("no argument %q", a.Key)
		}
	}
	cfg = cfg.withDefaults()
	s.login = newLogin(&cfg, new(counting), Peer{
		Remote: netip.MustParseAddrPort("192.0.2.1:40000"), Local: netip.MustParseAddrPort("192.0.2.2:3260"), Group: 7,
	})
	return ""
}

func (s *script) request(d *datadriven.TestData, text []byte) string {
	f := wire.Login{
		CSG: s.login.stage, NSG: wire.StageFullFeature, ISID: wire.RandomISID(1, 2), ITT: 5, CmdSN: 9,
		Transit: d.HasArg("t"), Continue: d.HasArg("c"),
	}
	for _, a := range d.CmdArgs {
		if len(a.Vals) == 0 {
			continue
		}
		n, _ := strconv.Atoi(a.Vals[0])
		switch a.Key {
		case "csg":
			f.CSG = wire.Stage(n)
		case "nsg":
			f.NSG = wire.Stage(n)
		case "min":
			f.VersionMin, f.VersionMax = uint8(n), uint8(n)
		case "tsih":
			f.TSIH = uint16(n)
		case "cid":
			f.CID = uint16(n)
		}
	}
	b := make(wire.BHS, wire.HeaderSize)
	f.Put(b)
	reply, err := s.login.step(b, text)
	if err != nil {
		var r *Refusal
		if !errors.As(err, &r) {
			return fmt.Sprintf("%T: %v\n", err, err)
		}
		return fmt.Sprintf("%04x %v\n", uint16(r.Status), err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "csg=%d", reply.csg)
	if reply.transit {
		fmt.Fprintf(&out, " t nsg=%d", reply.nsg)
	}
	if u := s.login.user(); u != "" {
		fmt.Fprintf(&out, " user=%s", u)
	}
	out.WriteByte('\n')
	pairs, err := wire.ParseText(reply.text, 1000)
	if err != nil {
		return err.Error()
	}
	for _, kv := range pairs {
		fmt.Fprintf(&out, "%s=%s\n", kv.Key, kv.Value)
		switch kv.Key {
		case wire.KeyCHAPAlgorithm:
			s.alg, _ = wire.ParseNumber(kv.Value)
		case wire.KeyCHAPIdentifier:
			n, _ := wire.ParseNumber(kv.Value)
			s.id = byte(n)
		case wire.KeyCHAPChallenge:
			s.challenge, _ = wire.ParseBinary(kv.Value, 1024)
		}
	}
	if reply.finished() {
		p := s.login.params
		fmt.Fprintf(&out, "in force: %s digests %v %v, send %d, receive %d\n", s.login.peer.Initiator, p.headerDigest, p.dataDigest, p.maxSend, p.maxRecv)
		fmt.Fprintf(&out, "%+v\n", p.Negotiated)
	}
	return out.String()
}

func (s *script) respond(t *testing.T, d *datadriven.TestData) string {
	var name, secret, id, challenge string
	d.MaybeScanArgs(t, "name", &name)
	d.MaybeScanArgs(t, "secret", &secret)
	r := chapResponse(s.alg, s.id, secret, s.challenge)
	value := wire.FormatHex(r)
	if d.HasArg("base64") {
		value = wire.FormatBase64(r)
	}
	if d.HasArg("long") {
		value += "00"
	}
	keys := []string{"CHAP_N=" + name, "CHAP_R=" + value}
	if d.MaybeScanArgs(t, "id", &id) {
		keys = append(keys, "CHAP_I="+id)
	}
	if d.MaybeScanArgs(t, "challenge", &challenge) {
		if challenge == "reflected" {
			challenge = wire.FormatBase64(s.challenge)
		}
		keys = append(keys, "CHAP_C="+challenge)
	}
	return s.request(d, text(keys...))
}
