package array

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestTLSKeyOfHost checks which TLS keys a host may have (NVMe/TCP 1.0 §3.6.1.5), and that
// no plan shows one.
func TestTLSKeyOfHost(t *testing.T) {
	const known = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:"
	if err := checkTLSKey(known); err != nil {
		t.Error(err)
	}
	for _, text := range []string{
		"", "NVMeTLSkey-1", " " + known, known + "\n", known + "x", strings.ToLower(known), strings.Replace(known, ":01:", ":02:", 1),
		strings.Replace(known, "VRLb", "VRLc", 1), strings.Replace(known, "VRLb", "VR\nLb", 1),
	} {
		if err := checkTLSKey(text); KindOf(err) != KindInvalid || err == nil || strings.Contains(err.Error(), "N9AQ") {
			t.Errorf("%q: %v", text, err)
		}
	}
	s, env := newState(t)
	s, h, plan, err := s.CreateHost(env, Host{Name: "db", NQNs: []string{"nqn.2014-08.com.example:db"}, TLSKey: known + "\n"})
	if err != nil || h.TLSKey != known {
		t.Fatal(h, err)
	}
	s, _, next, err := s.UpdateHost("db", "", func(h *Host) { h.TLSKey = "" })
	if err != nil || !slices.Contains(next.Steps, "set tls_key of host db") {
		t.Error(next, err)
	}
	for _, text := range slices.Concat(plan.Steps, plan.Warnings, next.Steps, next.Warnings) {
		if strings.Contains(text, "N9AQ") {
			t.Errorf("a plan shows the key: %s", text)
		}
	}
	if _, _, _, err = s.UpdateHost("db", "", func(h *Host) { h.TLSKey = "x" }); KindOf(err) != KindInvalid {
		t.Error(err)
	}
	if _, _, plan, _ = s.CreateHost(env, Host{Name: "old", Initiators: []string{"iqn.2014-08.com.example:old"}, TLSKey: known}); len(plan.Warnings) != 1 {
		t.Errorf("a TLS key without NQN: %q", plan.Warnings)
	}
}

// TestTLSOfPortal checks which portals may require TLS, and what is said of it.
func TestTLSOfPortal(t *testing.T) {
	s, env := newState(t)
	at := netip.MustParseAddr("192.0.2.10")
	if _, _, _, err := s.AddPortal(env, Portal{Address: at, TLS: true}); KindOf(err) != KindInvalid {
		t.Errorf("iSCSI with TLS: %v", err)
	}
	_, p, plan, err := s.AddPortal(env, Portal{Address: at, Protocol: NVMeTCP, TLS: true})
	if err != nil || !p.TLS || !strings.HasSuffix(plan.Steps[len(plan.Steps)-1], ", with TLS") || len(plan.Warnings) != 1 || !strings.Contains(plan.Warnings[0], "no host has a TLS key") {
		t.Errorf("%q, %v", plan, err)
	}
	_, _, plan, err = s.AddPortal(env, Portal{Address: at, Protocol: NVMeTCP})
	if err != nil || len(plan.Warnings) != 1 || !strings.Contains(plan.Warnings[0], "not encrypted") {
		t.Errorf("%q, %v", plan, err)
	}
}
