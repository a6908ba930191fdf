package scsi_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// TestAwaitedUnit checks that a LUN whose unit is not there now is told as one that may come back, not as
// one that is gone (SPC-4 §6.6.2, §6.33, SAM-5 §7).
func TestAwaitedUnit(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 2})
	here := scsi.Mapping{LU: b.LUs[0]}
	n := b.NewNexus("a", 1, scsi.LUNMap{0: here, 3: {}, 300: {}})
	wantAttentions(t, n, 0, wire.PowerOnReset)
	reportLUNs := func() []uint16 {
		t.Helper()
		r := n.Do(0, []byte{wire.OpReportLUNs, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, nil)
		wantGood(t, r)
		var luns []uint16
		for list := r.In[8:]; len(list) > 0; list = list[8:] {
			lun, ok := wire.DecodeLUN(wire.Uint64(list))
			if !ok {
				t.Fatalf("LUN % X", list[:8])
			}
			luns = append(luns, lun)
		}
		return luns
	}
	if got := reportLUNs(); len(got) != 3 || got[0] != 0 || got[1] != 3 || got[2] != 300 {
		t.Errorf("REPORT LUNS tells %d", got)
	}
	for _, lun := range []uint16{3, 300} {
		for _, cdb := range [][]byte{testUnitReady, readCDB, writeCDB} {
			wantSense(t, n.Do(lun, cdb, make([]byte, 512)), wire.KeyNotReady, wire.BecomingReady)
		}
		r := n.Do(lun, []byte{wire.OpRequestSense, 0, 0, 0, 252, 0}, nil)
		wantGood(t, r)
		if s, err := wire.ParseSense(r.In); err != nil || s.Key != wire.KeyNotReady || s.Code != wire.BecomingReady {
			t.Errorf("REQUEST SENSE: %v, %v", s, err)
		}
		r = n.Do(lun, inquiryCDB(-1, 96), nil)
		wantGood(t, r)
		if r.In[0] != 0x20 {
			t.Errorf("peripheral %02Xh, want 20h: not connected now", r.In[0])
		}
		r = n.Do(lun, inquiryCDB(0, 96), nil)
		wantGood(t, r)
		if !bytes.Equal(r.In, []byte{0x20, 0, 0, 1, 0}) {
			t.Errorf("page 00h: % X", r.In)
		}
		if got := n.Manage(scsi.LogicalUnitReset, lun, 0); got != scsi.FunctionComplete {
			t.Errorf("LOGICAL UNIT RESET: %v", got)
		}
		if got := n.Manage(scsi.AbortTask, lun, 7); got != scsi.TaskDoesNotExist {
			t.Errorf("ABORT TASK: %v", got)
		}
	}
	if got := n.Manage(scsi.LogicalUnitReset, 4, 0); got != scsi.LUNDoesNotExist {
		t.Errorf("reset of a LUN that is not mapped: %v", got)
	}
	if got := n.LUNs(); len(got) != 1 {
		t.Errorf("LUNs that lead to a unit: %d", got)
	}

	// The same again is no change; a unit that has come is one.
	n.SetLUNs(scsi.LUNMap{0: here, 3: {}, 300: {}})
	wantGood(t, n.Do(0, testUnitReady, nil))
	n.SetLUNs(scsi.LUNMap{0: here, 3: {LU: b.LUs[1]}, 300: {}})
	wantAttentions(t, n, 0, wire.ReportedLUNsChanged)
	wantAttentions(t, n, 3, wire.PowerOnReset, wire.ReportedLUNsChanged)
	wantGood(t, n.Do(3, testUnitReady, nil))
	n.SetLUNs(scsi.LUNMap{0: here, 3: {LU: b.LUs[1]}})
	wantAttentions(t, n, 0, wire.ReportedLUNsChanged)
	wantSense(t, n.Do(300, testUnitReady, nil), wire.KeyIllegalRequest, wire.LogicalUnitNotSupported)
	n.Close()
}

// TestUnitGoesAway checks the commands under way on a unit that is not there any more but may come back
// (SPC-4 §6.33).
func TestUnitGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, parked := parking(t, 2)
		n := b.Nexus("a", 1)
		p := n.Start(1, scsi.AttrSimple, parkCDB, nil)
		n.SetLUNs(scsi.LUNMap{0: {LU: b.LUs[0]}, 1: {}})
		b.Target.RemoveUnit(b.LUs[1], func() {})
		(<-parked).Finish(scsi.StatusGood)
		wantSense(t, p.Wait(), wire.KeyNotReady, wire.BecomingReady)
	})
}
