package scsi

import (
	"bytes"
	"testing"
)

// TestFixedSense checks fixed format sense data (SPC-4 §4.5.3).
func TestFixedSense(t *testing.T) {
	s := Sense{Key: KeyMediumError, Code: UnrecoveredReadError, Information: 0x12345678, HasInfo: true, Specific: FieldPointer(false, 2, 5)}
	b := bytes.Repeat([]byte{0xEE}, 64)
	n := s.PutFixed(b)
	want := []byte{0xF0, 0, 3, 0x12, 0x34, 0x56, 0x78, 10, 0, 0, 0, 0, 0x11, 0, 0, 0xCD, 0, 2}
	if !bytes.Equal(b[:n], want) {
		t.Errorf("% X, want % X", b[:n], want)
	}
	if got, err := ParseSense(b[:n]); err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	s.Information = 1 << 32 // has no place
	n = s.PutFixed(b)
	if got, err := ParseSense(b[:n]); err != nil || got.HasInfo {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestDescriptorSense checks descriptor format sense data (SPC-4 §4.5.2).
func TestDescriptorSense(t *testing.T) {
	s := Sense{
		Key: KeyMiscompare, Code: MiscompareDuringVerify,
		Information: 1 << 40, HasInfo: true,
		CommandSpecific: 7, HasCommandSpecific: true,
		Specific: Progress(0x8000),
	}
	b := bytes.Repeat([]byte{0xEE}, 64)
	n := s.PutDescriptor(b)
	want := []byte{0x72, 0x0E, 0x1D, 0, 0, 0, 0, 32,
		0, 10, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0,
		1, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7,
		2, 6, 0, 0, 0x80, 0x80, 0, 0}
	if !bytes.Equal(b[:n], want) {
		t.Errorf("% X, want % X", b[:n], want)
	}
	if got, err := ParseSense(b[:n]); err != nil || got != s {
		t.Errorf("%+v, %v", got, err)
	}
	plain := Sense{Key: KeyUnitAttention, Code: PowerOnReset}
	if n := plain.PutDescriptor(b); n != 8 {
		t.Errorf("%d bytes", n)
	}
}

func TestParseSenseShort(t *testing.T) {
	for _, b := range [][]byte{nil, {0x70}, {0x71, 0, 0}, {0x00, 0, 0, 0}, {0x7F, 0, 0, 0, 0, 0, 0, 0}} {
		if s, err := ParseSense(b); err == nil {
			t.Errorf("% X gives %v", b, s)
		}
	}
	for _, b := range [][]byte{{0x70, 0, 6, 0}, {0x72, 6, 0x29, 0}, {0x72, 6, 0x29, 0, 0, 0, 0, 200, 0, 10, 0x80}} {
		if s, err := ParseSense(b); err != nil || s.Key != KeyUnitAttention {
			t.Errorf("% X gives %v, %v", b, s, err)
		}
	}
}

func TestNames(t *testing.T) {
	s := Sense{Key: KeyNotReady, Code: TargetPortStandby}
	if got := s.String(); got != "NOT READY, LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE (2/04/0B)" {
		t.Error(got)
	}
	for code, name := range ascNames {
		if CodeName(code) != name {
			t.Errorf("%04X is called %q", code, CodeName(code))
		}
	}
	if CodeName(0xFFFE) != "additional sense FF/FE" || KeyName(9) != "sense key 9h" || OpName(0xEE) != "operation code EEh" || OpName(OpRead10) != "READ(10)" {
		t.Error("names of unknown codes")
	}
	seen := map[string]bool{}
	for key := range uint8(16) {
		if seen[KeyName(key)] {
			t.Errorf("two keys are called %q", KeyName(key))
		}
		seen[KeyName(key)] = true
	}
}

func FuzzParseSense(f *testing.F) {
	var b [64]byte
	s := Sense{Key: 3, Code: 0x1100, Information: 9, HasInfo: true, Specific: Progress(1), CommandSpecific: 1, HasCommandSpecific: true}
	f.Add(bytes.Clone(b[:s.PutFixed(b[:])]))
	f.Add(bytes.Clone(b[:s.PutDescriptor(b[:])]))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := ParseSense(in)
		if err != nil {
			return
		}
		again, err := ParseSense(b[:s.PutDescriptor(b[:])])
		if err != nil || again != s {
			t.Errorf("%+v becomes %+v, %v", s, again, err)
		}
	})
}
