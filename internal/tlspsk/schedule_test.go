package tlspsk

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	p, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return p
}

// TestKeySchedule checks the key schedule with the values of RFC 8448 §3 (RFC 8446 §7.1, §7.3).
func TestKeySchedule(t *testing.T) {
	s := AES128GCM
	check := func(what string, got []byte, want string) {
		t.Helper()
		if !bytes.Equal(got, unhex(want)) {
			t.Errorf("%s is %x", what, got)
		}
	}
	early := s.earlySecret(make([]byte, 32))
	check("early secret", early, "33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a")
	check("derived", s.derive(early, "derived", s.sum(nil)), "6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba")
	hs := s.next(early, unhex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d"))
	check("handshake secret", hs, "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac")
	hellos := unhex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8")
	check("client's handshake secret", s.derive(hs, "c hs traffic", hellos), "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21")
	server := s.derive(hs, "s hs traffic", hellos)
	check("server's handshake secret", server, "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
	check("server's key", s.expandLabel(server, "key", nil, 16), "3fce516009c21727d0f2e4e86ee403bc")
	check("server's iv", s.expandLabel(server, "iv", nil, 12), "5d313eb2671276ee13000b30")
	master := s.next(hs, nil)
	check("master secret", master, "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919")
	all := unhex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13")
	check("client's secret", s.derive(master, "c ap traffic", all), "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
	check("server's secret", s.derive(master, "s ap traffic", all), "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
}

func TestExpandLabelLimits(t *testing.T) {
	if _, err := ExpandLabel(AES128GCM.new, nil, "x", make([]byte, 256), 32); err == nil {
		t.Error("a context of 256 bytes")
	}
	if _, err := ExpandLabel(AES128GCM.new, nil, strings.Repeat("x", 250), nil, 32); err == nil {
		t.Error("a label of 250 bytes")
	}
	if _, err := ExpandLabel(AES128GCM.new, nil, "x", nil, 256*32); err == nil {
		t.Error("more bytes than HKDF gives")
	}
}
