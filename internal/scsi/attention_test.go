package scsi_test

import (
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// attentions reads all unit attentions that wait on a LUN.
func attentions(t *testing.T, n *scsitest.Nexus, lun uint16) []uint16 {
	t.Helper()
	var list []uint16
	for {
		r := n.Do(lun, testUnitReady, nil)
		if r.Status == scsi.StatusGood {
			return list
		}
		if r.Sense.Key != wire.KeyUnitAttention || len(list) > 20 {
			t.Fatalf("got %v after %04X", r, list)
		}
		list = append(list, r.Sense.Code)
	}
}

func wantAttentions(t *testing.T, n *scsitest.Nexus, lun uint16, want ...uint16) {
	t.Helper()
	got := attentions(t, n, lun)
	if len(got) != len(want) {
		t.Fatalf("unit attentions %04X, want %04X", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("unit attentions %04X, want %04X", got, want)
		}
	}
}

// TestPowerOnAttention checks unit attention after power on and nexus loss (SAM-5 §5.14, §6.3.4).
func TestPowerOnAttention(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 2})
	n := b.NewNexus("a", 1, b.LUNs())
	wantGood(t, n.Do(0, inquiryCDB(-1, 36), nil))
	wantAttentions(t, n, 0, wire.PowerOnReset)
	wantAttentions(t, n, 1, wire.PowerOnReset)
	n.Close()
	n = b.NewNexus("a", 1, b.LUNs())
	wantAttentions(t, n, 0, wire.NexusLossOccurred)
	wantAttentions(t, b.NewNexus("a", 2, b.LUNs()), 0, wire.PowerOnReset)
}

// TestUnitEvents checks unit attentions of the unit's events (SAM-5 §5.14.1, SPC-4 §5.12).
func TestUnitEvents(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n, other := b.Nexus("a", 1), b.Nexus("b", 1)
	for _, c := range []struct {
		event unit.Event
		want  uint16
	}{
		{unit.EventCapacity, 0x2A09},
		{unit.EventModeParameters, 0x2A01},
		{unit.EventInquiry, 0x3F03},
		{unit.EventReservationsPreempted, 0x2A03},
		{unit.EventReservationsReleased, 0x2A04},
		{unit.EventRegistrationsPreempted, 0x2A05},
		{unit.EventAccessState, 0x2A06},
		{unit.EventThinThreshold, 0x3807},
		{unit.EventReset, 0x2903},
	} {
		b.Units[0].Notify(c.event, nil)
		b.Units[0].Notify(c.event, nil)
		wantAttentions(t, n, 0, c.want)
		wantAttentions(t, other, 0, c.want)
	}
}

// TestAttentionPrecedence checks the order of unit attentions (SAM-5 §5.14.1).
func TestAttentionPrecedence(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.Nexus("a", 1)
	u := b.Units[0]
	u.Notify(unit.EventCapacity, nil)
	u.Notify(unit.EventModeParameters, nil)
	u.Notify(unit.EventInquiry, nil)
	u.Notify(unit.EventReset, nil)
	wantAttentions(t, n, 0, wire.BusDeviceResetOccurred, wire.CapacityChanged, wire.InquiryDataChanged)

	fresh := b.NewNexus("b", 1, b.LUNs())
	u.Notify(unit.EventReset, nil) // power on says it all
	wantAttentions(t, fresh, 0, wire.PowerOnReset)

	fresh.Close()
	fresh = b.NewNexus("b", 1, b.LUNs())
	u.Notify(unit.EventReset, nil) // outranks the loss of the nexus
	wantAttentions(t, fresh, 0, wire.BusDeviceResetOccurred)

	u.Notify(unit.EventModeParameters, nil)
	u.Notify(unit.EventReset, nil)
	u.Notify(unit.EventModeParameters, nil) // an internal reset restores none
	u.Notify(unit.EventInternalReset, nil)
	u.Notify(unit.EventReset, nil)
	u.Notify(unit.EventInternalReset, nil)
	wantAttentions(t, fresh, 0, wire.DeviceInternalReset, wire.ModeParametersChanged)
}

// TestRequestSense checks REQUEST SENSE (SPC-4 §6.39).
func TestRequestSense(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.NewNexus("a", 1, b.LUNs())
	sense := func(lun uint16, desc byte, allocation byte) (wire.Sense, []byte) {
		t.Helper()
		r := n.Do(lun, []byte{wire.OpRequestSense, desc, 0, 0, allocation, 0}, nil)
		wantGood(t, r)
		s, err := wire.ParseSense(r.In)
		if err != nil {
			t.Fatal(err)
		}
		return s, r.In
	}
	if s, raw := sense(0, 0, 252); s.Key != wire.KeyUnitAttention || s.Code != wire.PowerOnReset || raw[0] != 0x70 || len(raw) != 18 {
		t.Errorf("pending unit attention: %v, % X", s, raw)
	}
	if s, raw := sense(0, 1, 252); s != (wire.Sense{}) || raw[0] != 0x72 || len(raw) != 8 {
		t.Errorf("nothing pending: %v, % X", s, raw)
	}
	if s, _ := sense(3, 0, 18); s.Key != wire.KeyIllegalRequest || s.Code != wire.LogicalUnitNotSupported {
		t.Errorf("no unit: %v", s)
	}
	if _, raw := sense(0, 0, 4); len(raw) != 4 {
		t.Errorf("allocation length 4 gives %d bytes", len(raw))
	}
	n.Do(0, []byte{wire.OpStartStopUnit, 0, 0, 0, 0, 0}, nil)
	if s, _ := sense(0, 0, 252); s.Key != wire.KeyNotReady || s.Code != wire.InitializingCommandRequired {
		t.Errorf("stopped: %v", s)
	}
}

// TestReportedLUNsChanged checks REPORTED LUNS DATA HAS CHANGED (SAM-5 §5.14.1, SPC-4 §6.33).
func TestReportedLUNsChanged(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 3})
	n := b.NewNexus("a", 1, scsi.LUNMap{0: {LU: b.LUs[0]}, 1: {LU: b.LUs[1]}})
	n.Do(0, testUnitReady, nil)
	n.Do(1, testUnitReady, nil)
	n.SetLUNs(scsi.LUNMap{0: {LU: b.LUs[0]}, 1: {LU: b.LUs[1]}})
	wantAttentions(t, n, 0)
	n.SetLUNs(scsi.LUNMap{0: {LU: b.LUs[0]}, 1: {LU: b.LUs[1]}, 2: {LU: b.LUs[2]}})
	wantAttentions(t, n, 0, wire.ReportedLUNsChanged)
	wantAttentions(t, n, 2, wire.PowerOnReset, wire.ReportedLUNsChanged)
	n.Do(0, reportLUNsCDB(0, 256), nil)
	wantAttentions(t, n, 1)
	n.SetLUNs(scsi.LUNMap{0: {LU: b.LUs[0]}, 1: {LU: b.LUs[2]}}) // another unit
	wantAttentions(t, n, 1, wire.PowerOnReset, wire.ReportedLUNsChanged)
	if b.Units[1].Attached() != 0 || b.Units[2].Attached() != 1 {
		t.Errorf("watchers: %d and %d", b.Units[1].Attached(), b.Units[2].Attached())
	}
}
