package tlskey

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

const (
	host      = "nqn.psk-test-host"
	subsystem = "nqn.psk-test-subsys"
)

var (
	secret32 = mustHex("5512dbb6737d0106f65975b773dfb011ffc344bcf442e2dd6d8bc4870b5d5b03")
	secret48 = append(secret32[:32:32], secret32[16:]...)
)

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// TestText checks the interchange form of keys with those that nvme-cli makes (NVMe/TCP 1.0 §3.6.1.5).
func TestText(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Key
	}{
		{"NVMeTLSkey-1:00:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:", Key{None, secret32}},
		{"NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:", Key{SHA256, secret32}},
		{"NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==:", Key{SHA384, secret48}},
	} {
		k, err := Parse(tc.text + "\n")
		if err != nil || k.Hash != tc.want.Hash || !bytes.Equal(k.Secret, tc.want.Secret) {
			t.Errorf("%s: %v, %v", tc.text, k, err)
		}
		if k.Text() != tc.text {
			t.Errorf("%s becomes %s", tc.text, k.Text())
		}
		if s := fmt.Sprintf("%v %+v %#v", k, k, k); strings.Contains(s, "VRLb") || strings.Contains(s, "5512") || strings.Contains(s, "85") {
			t.Errorf("the key is shown: %s", s)
		}
	}
	good := "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:"
	for _, bad := range []string{
		"", "DHHC-1:00:x:", "NVMeTLSkey-2" + good[12:], strings.Replace(good, ":01:", ":02:", 1), strings.Replace(good, ":01:", ":03:", 1),
		strings.Replace(good, ":01:", ":1:", 1), strings.Replace(good, "VRL", "VRM", 1), good[:len(good)-1], good + "x", strings.Replace(good, "AQb2", "A\nQb2", 1),
		strings.Replace(good, "VRLb", "", 1), strings.Replace(good, "VRLb", "****", 1), "NVMeTLSkey-1:01",
	} {
		if _, err := Parse(bad); !errors.Is(err, ErrKey) || bad != "" && strings.Contains(err.Error(), "N9AQ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestGenerate(t *testing.T) {
	for h := None; h <= SHA384; h++ {
		k, err := Generate(h)
		if err != nil || len(k.Secret) != h.size() {
			t.Fatal(k, err)
		}
		if again, err := Parse(k.Text()); err != nil || !bytes.Equal(again.Secret, k.Secret) || again.Hash != h {
			t.Fatal(again, err)
		}
	}
	if _, err := Generate(3); err == nil {
		t.Error("a key for hash 3")
	}
}

// TestIdentity checks identities with those that libnvme makes, before its version 1.15 and
// since (NVMe/TCP 1.0 §3.6.1.3).
func TestIdentity(t *testing.T) {
	for _, tc := range []struct {
		key    Key
		want   string
		legacy bool
	}{
		{Key{SHA256, secret32}, "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys iSbjiStwJ/1TrTvDlt2fjFmzvsytOJelidNnA+X5lEU=", false},
		{Key{SHA384, secret48}, "NVMe1R02 nqn.psk-test-host nqn.psk-test-subsys QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a", false},
		{Key{SHA256, secret32}, "NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys 66GuqV08TsAGII39teWUfwQwizjv06Jy8jOcX3NAAzM=", true},
		{Key{SHA384, secret48}, "NVMe1R02 nqn.psk-test-host nqn.psk-test-subsys RsKmYJ3nAn1ApjjMloJFbAkLPivONDAX/xW327YBUsn2eGShXSjCZvBaOxscLqmz", true},
	} {
		id, err := ParseIdentity(tc.want)
		if err != nil || id.String() != tc.want {
			t.Fatal(id, err)
		}
		retained, err := tc.key.retained(host, tc.legacy)
		if err != nil {
			t.Fatal(err)
		}
		if got := digest(id.Hash, retained, host, subsystem); got != id.Digest {
			t.Errorf("digest %s instead of %s", got, id.Digest)
		}
		keys := tc.key.Keys(id)
		if len(keys) != 1 || len(keys[0].Secret) != id.Hash.size() || keys[0].Suite != id.Hash.suite() {
			t.Errorf("%d keys for %s", len(keys), tc.want)
		}
		offers, err := tc.key.Offers(host, subsystem)
		if err != nil || len(offers) != 2 || !tc.legacy && (offers[0].Identity != tc.want || !bytes.Equal(offers[0].Secret, keys[0].Secret)) {
			t.Errorf("offers %v, %v", offers, err)
		}
	}
}

// TestKeysOfIdentities checks which keys an identity may mean (NVMe/TCP 1.0 §3.6.1.3, §3.6.1.4).
func TestKeysOfIdentities(t *testing.T) {
	plain := Key{None, secret32}
	offers, err := plain.Offers(host, subsystem)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offers {
		id, err := ParseIdentity(o.Identity)
		if err != nil {
			t.Fatal(err)
		}
		keys := plain.Keys(id) // of libnvme before and since
		if len(keys) != 2 || !bytes.Equal(keys[0].Secret, o.Secret) || bytes.Equal(keys[0].Secret, keys[1].Secret) {
			t.Errorf("%s: %d keys", o.Identity, len(keys))
		}
		if bytes.Equal(o.Secret, secret32) {
			t.Error("the key of TLS is the configured one")
		}
		id.HostNQN = "nqn.other"
		if other := plain.Keys(id); len(other) > 0 && bytes.Equal(other[0].Secret, o.Secret) {
			t.Error("another host has the same key")
		}
	}
	other := Key{SHA256, secret48[16:48]}
	id, _ := ParseIdentity(offers[0].Identity)
	if keys := other.Keys(id); keys != nil {
		t.Error("a digest of another key is taken")
	}
	long := strings.Repeat("n", 220)
	if offers, err := plain.Offers(long, long); err != nil || len(offers) != 1 || offers[0].Identity[:8] != "NVMe1R01" {
		t.Errorf("long names: %d offers, %v", len(offers), err)
	}
	for _, bad := range []string{
		"", "x", "NVMe0R01", "NVMe0R01 a", "NVMe0R01 a b c", "NVMe1R01 a b", "NVMe1R01 a b ", "NVMe2R01 a b c", "NVMe0R00 a b", "NVMe0R03 a b",
		"NVMe0G01 a b", "NVMe1G01 a b c", "NVMe0R01  b", "nvme0R01 a b", "NVMe0R011 a b", "NVMe0R0\xff a b",
	} {
		if id, err := ParseIdentity(bad); !errors.Is(err, ErrIdentity) {
			t.Errorf("%q is %v, %v", bad, id, err)
		}
	}
}

// TestForeignKeys exchanges keys with nvme-cli (NVMe/TCP 1.0 §3.6.1.5).
func TestForeignKeys(t *testing.T) {
	path, err := exec.LookPath("nvme")
	if err != nil {
		t.Skip("nvme is not installed, so it is not known whether we understand its keys: test/deps.sh installs it")
	}
	for h := SHA256; h <= SHA384; h++ {
		out, err := exec.CommandContext(t.Context(), path, "gen-tls-key", fmt.Sprintf("--hmac=%d", h)).Output()
		if err != nil {
			t.Fatal(err)
		}
		if k, err := Parse(string(out)); err != nil || k.Hash != h {
			t.Errorf("the key of nvme-cli: %v", err)
		}
		k, err := Generate(h)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), path, "check-tls-key", "--key="+k.Text()).CombinedOutput(); err != nil {
			t.Errorf("nvme-cli does not like our key: %v: %s", err, out)
		}
	}
}

// FuzzParse checks that a key that is read is written the same.
func FuzzParse(f *testing.F) {
	f.Add("NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:")
	f.Add("NVMeTLSkey-1:00::")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := Parse(text); err == nil && k.Text() != strings.TrimSpace(text) {
			t.Fatalf("%q becomes %q", text, k.Text())
		}
	})
}

// FuzzParseIdentity checks that an identity that is read is written the same, and that any
// key can be derived for it.
func FuzzParseIdentity(f *testing.F) {
	f.Add("NVMe0R01 nqn.host nqn.subsystem")
	f.Add("NVMe1R02 nqn.host nqn.subsystem QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseIdentity(text)
		if err != nil {
			return
		}
		if id.String() != text {
			t.Fatalf("%q becomes %q", text, id)
		}
		Key{SHA256, secret32}.Keys(id)
	})
}
