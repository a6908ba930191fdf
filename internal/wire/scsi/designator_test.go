package scsi

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestDesignator checks designation descriptors (SPC-4 §7.8.6).
func TestDesignator(t *testing.T) {
	d := Designator{Type: DesignatorRelativePort, CodeSet: CodeBinary, Association: AssociationPort, Protocol: 5, ID: []byte{0, 0, 0, 1}}
	b := d.Append(nil)
	if want := []byte{0x51, 0x94, 0, 4, 0, 0, 0, 1}; !bytes.Equal(b, want) {
		t.Errorf("% X, want % X", b, want)
	}
	got, rest, err := ParseDesignator(append(b, 9))
	if err != nil || len(rest) != 1 || got.Protocol != 5 || got.Type != d.Type || !bytes.Equal(got.ID, d.ID) {
		t.Errorf("%+v, % X, %v", got, rest, err)
	}
	for _, bad := range [][]byte{nil, {1, 3, 0}, {1, 3, 0, 1}} {
		if _, _, err := ParseDesignator(bad); err == nil {
			t.Errorf("% X was taken", bad)
		}
	}
	long := Designator{Type: DesignatorT10, CodeSet: CodeASCII, Protocol: -1, ID: make([]byte, 300)}
	if b := long.Append(nil); len(b) != 256 {
		t.Errorf("%d bytes", len(b))
	}
}

// TestNameString checks SCSI name strings (SPC-4 §7.8.6.11).
func TestNameString(t *testing.T) {
	for in, want := range map[string]string{"": "\x00\x00\x00\x00", "abc": "abc\x00", "abcd": "abcd\x00\x00\x00\x00"} {
		if got := NameString(in); string(got) != want {
			t.Errorf("%q becomes %q", in, got)
		}
	}
	if got := NameString(strings.Repeat("x", 300)); len(got) != 252 || got[251] != 0 || got[250] != 'x' {
		t.Errorf("%d bytes", len(got))
	}
}

const portName = "iqn.2026-11.io.lintel:host,i,0x00023d000001"

// TestTransportID checks iSCSI TransportIDs (SPC-4 §7.6.4.6).
func TestTransportID(t *testing.T) {
	for _, name := range []string{portName, "iqn.2026-11.io.lintel:host", "iqn.a", strings.Repeat("n", 223)} {
		b := ISCSITransportID(name)
		if len(b)%4 != 0 || len(b) < 24 {
			t.Errorf("%q has %d bytes", name, len(b))
		}
		got, port, n, err := ParseISCSITransportID(append(b, 1, 2, 3))
		if err != nil || got != name || n != len(b) || port != (name == portName) {
			t.Errorf("%q becomes %q, port %v, %d bytes, %v", name, got, port, n, err)
		}
	}
	if n, err := TransportIDLength(make([]byte, 30)); n != 24 || err != nil {
		t.Errorf("a TransportID of Fibre Channel: %d, %v", n, err)
	}
	good := ISCSITransportID(portName)
	change := func(f func([]byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for name, bad := range map[string][]byte{
		"short":      good[:23],
		"cut":        good[:len(good)-1],
		"length":     change(func(b []byte) { b[3]++ }),
		"tiny":       change(func(b []byte) { b[3] = 4 }),
		"format":     change(func(b []byte) { b[0] |= 0x80 }),
		"other":      change(func(b []byte) { b[0] = 0 }),
		"not a port": change(func(b []byte) { b[0] &^= 0x40 }),
		"no name":    change(func(b []byte) { clear(b[4:]) }),
		"no end":     change(func(b []byte) { copy(b[len(b)-8:], "xxxxxxxx") }),
		"after end":  change(func(b []byte) { b[len(b)-1] = 'x' }),
		"no hex":     change(func(b []byte) { copy(b[4+31:], "zz") }),
	} {
		if got, _, _, err := ParseISCSITransportID(bad); !errors.Is(err, ErrTransportID) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func FuzzParseDesignator(f *testing.F) {
	f.Add([]byte{0x51, 0x94, 0, 4, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		for len(in) > 0 {
			d, rest, err := ParseDesignator(in)
			if err != nil {
				return
			}
			if len(d.ID) > 252 {
				return
			}
			again, left, err := ParseDesignator(d.Append(nil))
			if err != nil || len(left) != 0 || again.Type != d.Type || again.Protocol != d.Protocol || !bytes.Equal(again.ID, d.ID) {
				t.Errorf("%+v becomes %+v, %v", d, again, err)
			}
			in = rest
		}
	})
}

func FuzzParseTransportID(f *testing.F) {
	f.Add(ISCSITransportID(portName))
	f.Add(ISCSITransportID("iqn.a"))
	f.Fuzz(func(t *testing.T, in []byte) {
		name, port, n, err := ParseISCSITransportID(in)
		if err != nil {
			return
		}
		if n > len(in) {
			t.Fatalf("%d of %d bytes", n, len(in))
		}
		again, samePort, _, err := ParseISCSITransportID(ISCSITransportID(name))
		if err != nil || again != name || samePort != port {
			t.Errorf("%q becomes %q, %v", name, again, err)
		}
	})
}
