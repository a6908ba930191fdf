package scsi_test

import (
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	wire "lintel.io/lintel/internal/wire/scsi"
)

var testUnitReady = []byte{wire.OpTestUnitReady, 0, 0, 0, 0, 0}

func wantGood(t *testing.T, r scsitest.Result) {
	t.Helper()
	if r.Status != scsi.StatusGood || r.Aborted {
		t.Fatalf("got %v, want GOOD", r)
	}
}

func wantSense(t *testing.T, r scsitest.Result, key uint8, code uint16) {
	t.Helper()
	if !r.Is(key, code) {
		t.Fatalf("got %v, want %v", r, wire.Sense{Key: key, Code: code})
	}
}

// TestPowerOnAttention checks unit attention after power on (SAM-5 §5.14, SPC-4 §5.12).
func TestPowerOnAttention(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.NewNexus("a", 1, b.LUNs())
	wantGood(t, n.Do(0, []byte{wire.OpInquiry, 0, 0, 0, 36, 0}, nil))
	wantSense(t, n.Do(0, testUnitReady, nil), wire.KeyUnitAttention, wire.PowerOnReset)
	wantGood(t, n.Do(0, testUnitReady, nil))
	n.Close()
	n = b.NewNexus("a", 1, b.LUNs())
	wantSense(t, n.Do(0, testUnitReady, nil), wire.KeyUnitAttention, wire.NexusLossOccurred)
	wantGood(t, n.Do(0, testUnitReady, nil))
}
