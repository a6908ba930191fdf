package dhchap

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

const (
	hostNQN = "nqn.2026-11.io.lintel:host"
	subNQN  = "nqn.2026-11.io.lintel:array"
)

func key(n int, v byte) Secret { return Secret{Key: bytes.Repeat([]byte{v}, n)} }

func controllerConfig() ControllerConfig {
	n := uint32(0)
	return ControllerConfig{
		HostNQN: hostNQN, SubNQN: subNQN, HostKey: key(32, 1), ControllerKey: key(48, 2),
		Sequence: func() uint32 { n++; return n },
	}
}

func hostConfig() HostConfig {
	return HostConfig{HostNQN: hostNQN, SubNQN: subNQN, HostKey: key(32, 1), Transaction: 0x1234}
}

// exchange runs both sides against each other and returns the host's verdict. change may alter message n.
func exchange(c *Controller, h *Host, change func(n int, b []byte) []byte) error {
	n := 0
	pass := func(b []byte) []byte {
		n++
		if change != nil && b != nil {
			return change(n, bytes.Clone(b))
		}
		return b
	}
	for b := h.Start(); b != nil; {
		c.Receive(pass(b))
		if h.Done() {
			break
		}
		m := pass(c.Send())
		if m == nil {
			return errors.New("the controller is silent")
		}
		var err error
		if b, err = h.Receive(m); err != nil {
			if b != nil {
				c.Receive(b)
			}
			return err
		}
	}
	return nil
}

// TestExchange checks DH-HMAC-CHAP with each hash and group, one-sided and mutual (NVMe Base 2.0 §8.13.5).
func TestExchange(t *testing.T) {
	for hash := SHA256; hash <= SHA512; hash++ {
		for group := Null; group <= FFDHE8192; group++ {
			for _, mutual := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s %v", hash, group, mutual), func(t *testing.T) {
					hc := hostConfig()
					hc.Hashes, hc.Groups = []Hash{hash}, []Group{group}
					if mutual {
						hc.ControllerKey = key(48, 2)
					}
					c, h := NewController(controllerConfig()), NewHost(hc)
					for range 2 { // and again
						if err := exchange(c, h, nil); err != nil || !c.Authenticated() || !h.Done() || c.state == controllerFailed || c.Err() != nil {
							t.Fatal(err, c.Err())
						}
						h = NewHost(hc)
					}
				})
			}
		}
	}
}

// TestRefusals checks wrong secrets, and hosts that have nothing in common with the controller (NVMe Base 2.0 §8.13.5.5).
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*ControllerConfig, *HostConfig)
		want   Reason
		peer   bool
	}{
		{"wrong secret", func(_ *ControllerConfig, h *HostConfig) { h.HostKey = key(32, 9) }, ReasonFailed, true},
		{"wrong host", func(_ *ControllerConfig, h *HostConfig) { h.HostNQN += "x" }, ReasonFailed, true},
		{"wrong subsystem", func(_ *ControllerConfig, h *HostConfig) { h.SubNQN += "x" }, ReasonFailed, true},
		{"no secret", func(c *ControllerConfig, _ *HostConfig) { c.HostKey = Secret{} }, ReasonFailed, true},
		{"wrong secret of the controller", func(_ *ControllerConfig, h *HostConfig) { h.ControllerKey = key(48, 9) }, ReasonFailed, false},
		{"no secret of the controller", func(c *ControllerConfig, h *HostConfig) {
			c.ControllerKey, h.ControllerKey = Secret{}, key(48, 2)
		}, ReasonFailed, true},
		{"hash", func(c *ControllerConfig, h *HostConfig) { c.Hashes, h.Hashes = []Hash{SHA512}, []Hash{SHA256} }, ReasonHash, true},
		{"group", func(c *ControllerConfig, h *HostConfig) { c.Groups, h.Groups = []Group{FFDHE2048}, []Group{Null} }, ReasonGroup, true},
		{"transform", func(_ *ControllerConfig, h *HostConfig) { h.HostKey.Transform = SHA256 }, ReasonFailed, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cc, hc := controllerConfig(), hostConfig()
			hc.Groups = []Group{Null}
			c.change(&cc, &hc)
			ctrl, h := NewController(cc), NewHost(hc)
			err := exchange(ctrl, h, nil)
			var e *Error
			if !errors.As(err, &e) || e.Reason != c.want || e.Peer != c.peer || h.Done() {
				t.Errorf("the host says %v", err)
			}
			if ctrl.Authenticated() || ctrl.state != controllerFailed || ctrl.Err() == nil {
				t.Errorf("the controller says %v", ctrl.Err())
			}
			ctrl.Receive(NewHost(hostConfig()).Start())
			if ctrl.Send() != nil || ctrl.Authenticated() {
				t.Error("a failed controller begins again")
			}
		})
	}
}

// TestBadMessages checks that truncated, replayed and altered messages are refused (NVMe Base 2.0 §8.13.5.3).
func TestBadMessages(t *testing.T) {
	hc := hostConfig()
	hc.ControllerKey, hc.Groups = key(48, 2), []Group{FFDHE2048}
	var messages [6][]byte
	cc := controllerConfig()
	if err := exchange(NewController(cc), NewHost(hc), func(n int, b []byte) []byte { messages[n] = b; return b }); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 5; n++ {
		lengths := []int{0, 1, 7, 8, 15, 16, len(messages[n]) - 1}
		for _, l := range lengths {
			if l >= len(messages[n]) {
				continue
			}
			c, h := NewController(cc), NewHost(hc)
			err := exchange(c, h, func(i int, b []byte) []byte {
				if i == n {
					return b[:l]
				}
				return b
			})
			if err == nil && c.Authenticated() {
				t.Errorf("message %d of %d bytes is taken", n, l)
			}
		}
		for _, at := range []int{0, 1, 4, 6, 8, 9, 10, 12, 16, 50, 100, 200} {
			if at >= len(messages[n]) || n == 1 && at != 0 && at != 1 && at != 6 || n == 5 && at > 4 ||
				n == 3 && at == 9 || n == 4 && at > 8 && at < 16 || n == 4 && at >= 16+64 {
				continue // a list of offers, or reserved
			}
			c, h := NewController(cc), NewHost(hc)
			err := exchange(c, h, func(i int, b []byte) []byte {
				if i == n {
					b[at] ^= 0x41
				}
				return b
			})
			if err == nil && c.Authenticated() {
				t.Errorf("message %d altered at byte %d is taken", n, at)
			}
		}
		c, h := NewController(cc), NewHost(hc)
		err := exchange(c, h, func(i int, b []byte) []byte {
			if i == n && n > 1 {
				return messages[n]
			}
			return b
		})
		if n > 1 && n < 5 && err == nil && c.Authenticated() {
			t.Errorf("message %d is taken a second time", n)
		}
	}
	// A host that sends the controller's challenge back wants its response.
	c := NewController(cc)
	hc.Groups = []Group{Null}
	h := NewHost(hc)
	c.Receive(h.Start())
	challenge := c.Send()
	reply, err := h.Receive(challenge)
	if err != nil {
		t.Fatal(err)
	}
	n := int(challenge[6])
	copy(reply[16+n:], challenge[16:16+n])
	c.Receive(reply)
	c.Send()
	if c.Err() == nil {
		t.Error("a reflected challenge is answered")
	}
	// Messages out of order.
	c = NewController(cc)
	c.Receive(h.Start())
	c.Receive(h.Start())
	if c.Err() == nil {
		t.Error("two Negotiate messages in a row")
	}
	secure := NewHost(hc).Start()
	secure[6] = 1
	c = NewController(cc)
	c.Receive(secure)
	if b := c.Send(); b[7] != byte(ReasonConcatenation) {
		t.Errorf("secure channel: % X", b)
	}
	other := NewHost(hc).Start()
	other[8] = 2
	c = NewController(cc)
	c.Receive(other)
	if b := c.Send(); b[7] != byte(ReasonProtocol) || c.state != controllerFailed {
		t.Errorf("another protocol: % X", b)
	}
}

// TestPublicValues checks that public values outside of the group are refused (RFC 7919 §5.1).
func TestPublicValues(t *testing.T) {
	k, err := newKeyPair(FFDHE2048)
	if err != nil {
		t.Fatal(err)
	}
	p := groups[FFDHE2048].prime()
	for name, y := range map[string]*big.Int{
		"0": big.NewInt(0), "1": big.NewInt(1), "p-1": new(big.Int).Sub(p, big.NewInt(1)), "p": p,
	} {
		if _, ok := k.shared(y.FillBytes(make([]byte, 256))); ok {
			t.Errorf("%s is taken", name)
		}
	}
	if _, ok := k.shared(make([]byte, 255)); ok {
		t.Error("a short value is taken")
	}
}

// TestResponse checks the response against one computed step by step (NVMe Base 2.0 §8.13.5.4).
func TestResponse(t *testing.T) {
	mac := func(key []byte, parts ...string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(strings.Join(parts, "")))
		return m.Sum(nil)
	}
	s := Secret{Key: bytes.Repeat([]byte{7}, 32), Transform: SHA256}
	k := mac(s.Key, hostNQN, "NVMe-over-Fabrics")
	challenge, shared := strings.Repeat("c", 32), []byte("shared secret")
	hashed := sha256.Sum256(shared)
	augmented := string(mac(hashed[:], challenge))
	want := mac(k, augmented, "\x04\x03\x02\x01", "\x06\x05", "\x00", "HostHost", hostNQN, "\x00", subNQN)
	p := proof{
		hash: SHA256, key: s.transformed(hostNQN), secret: shared, challenge: []byte(challenge),
		sequence: 0x01020304, transaction: 0x0506, role: roleHost, own: hostNQN, peer: subNQN,
	}
	if got := p.response(); !bytes.Equal(got, want) {
		t.Errorf("% X, want % X", got, want)
	}
	// Of the controller, by another implementation.
	s = Secret{Key: bytes.Repeat([]byte{7}, 48), Transform: SHA384}
	p = proof{
		hash: SHA384, key: s.transformed(subNQN), secret: shared, challenge: bytes.Repeat([]byte("c"), 48),
		sequence: 0x01020304, transaction: 0x0506, role: roleController, own: subNQN, peer: hostNQN,
	}
	if got := hex.EncodeToString(p.response()); got != "d5bbfcb374ac8316bdcfdb589b071274a7d39a85d4b7c35833027332fdeb2aee88c7eba64bf52b52beeceefd2fb41352" {
		t.Error(got)
	}
}

// TestSecret checks the text form of secrets (NVMe Base 2.0 §8.13.5.8).
func TestSecret(t *testing.T) {
	// Computed independently: base64 of 00h to 1Fh and their CRC-32.
	const known = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:"
	s, err := ParseSecret(known)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(s.Key) != "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" || s.Transform != 0 {
		t.Errorf("%x %d", s.Key, s.Transform)
	}
	if s.Text() != known {
		t.Errorf("%s", s.Text())
	}
	for hash := Hash(0); hash <= SHA512; hash++ {
		s, err := GenerateSecret(hash)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ParseSecret(" " + s.Text() + "\n")
		if err != nil || !bytes.Equal(r.Key, s.Key) || r.Transform != hash {
			t.Errorf("%d: %v", hash, err)
		}
		if text := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(text, hex.EncodeToString(s.Key[:4])) || strings.Contains(text, fmt.Sprint(s.Key[0], " ")) {
			t.Errorf("the key is printed: %s", text)
		}
	}
	if _, err := GenerateSecret(4); err == nil {
		t.Error("hash 4")
	}
	for _, bad := range []string{
		"", "secret", "DHHC-1:", "DHHC-1:00", "DHHC-1:00:", known[:len(known)-1], known + "x", "DHHC-1:04" + known[9:], "DHHC-1:02" + known[9:],
		"DHHC-1:00:AAAA:", "DHHC-1:00:!!!!:", strings.Replace(known, "AAEC", "AAED", 1), "dhhc-1" + known[6:],
	} {
		if _, err := ParseSecret(bad); !errors.Is(err, ErrSecret) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzController gives the controller messages of a hostile host.
func FuzzController(f *testing.F) {
	hc := hostConfig()
	hc.Groups = []Group{Null}
	_ = exchange(NewController(controllerConfig()), NewHost(hc), func(_ int, b []byte) []byte { f.Add(b, b); return b })
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c := NewController(controllerConfig())
		c.cfg.Groups = []Group{Null}
		c.Receive(a)
		c.Send()
		c.Receive(b)
		c.Send()
		if c.Authenticated() {
			t.Error("authenticated without the secret")
		}
	})
}

// FuzzHost gives the host messages of a hostile controller.
func FuzzHost(f *testing.F) {
	hc := hostConfig()
	hc.ControllerKey, hc.Groups = key(48, 2), []Group{Null}
	_ = exchange(NewController(controllerConfig()), NewHost(hc), func(_ int, b []byte) []byte { f.Add(b, b); return b })
	f.Fuzz(func(t *testing.T, a, b []byte) {
		h := NewHost(hc)
		if _, err := h.Receive(a); err == nil {
			_, _ = h.Receive(b)
		}
		if h.Done() {
			t.Error("the controller has proved itself without the secret")
		}
	})
}

// FuzzParseSecret checks that what is parsed is printed as it was.
func FuzzParseSecret(f *testing.F) {
	f.Add("DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSecret(text); err == nil && s.Text() != strings.TrimSpace(text) {
			t.Errorf("%q became %q", text, s.Text())
		}
	})
}

// TestNames checks what people read (NVMe Base 2.0 §8.13.5.2).
func TestNames(t *testing.T) {
	for v, want := range map[fmt.Stringer]string{
		SHA384: "SHA-384", Hash(9): "hash 9", Null: "null", FFDHE6144: "ffdhe6144", Group(9): "group 9", Reason(99): "reason 99",
	} {
		if v.String() != want {
			t.Errorf("%q, want %q", v.String(), want)
		}
	}
	for r := ReasonFailed; r <= ReasonIncorrectMessage; r++ {
		if strings.HasPrefix(r.String(), "reason") || !strings.Contains((&Error{Reason: r, Peer: true}).Error(), "peer") {
			t.Errorf("%d has no name", r)
		}
	}
}
