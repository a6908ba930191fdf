package scsi_test

import (
	"errors"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// TestOperationCodes checks unknown operation codes and service actions (SPC-4 §4.3.4.1).
func TestOperationCodes(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1)
	for _, op := range []byte{0x01, 0xC1, 0xFF, wire.OpFormatUnit} {
		wantSense(t, n.Do(0, []byte{op, 0, 0, 0, 0, 0}, nil), wire.KeyIllegalRequest, wire.InvalidOperationCode)
	}
	r := n.Do(0, []byte{wire.OpMaintenanceIn, 0x1F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil)
	wantSense(t, r, wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	if r.Sense.Specific != [3]byte{0xCC, 0, 1} {
		t.Errorf("field pointer % X", r.Sense.Specific)
	}
}

// TestReservedBits checks reserved CDB bits, control byte and field pointers (SPC-4 §4.5.2.4.2, SAM-5 §5.2).
func TestReservedBits(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1)
	long := make([]byte, 32)
	long[0] = wire.OpVariableLength
	wantStatus(t, n.Do(0, long, nil), scsi.StatusConditionMet)
	long[20] = 0x10
	for _, c := range []struct {
		cdb  []byte
		want [3]byte
	}{
		{[]byte{wire.OpTestUnitReady, 0, 0, 0, 0, 0x04}, [3]byte{0xCA, 0, 5}}, // NACA
		{[]byte{wire.OpTestUnitReady, 0x80, 0, 0, 0, 0}, [3]byte{0xCF, 0, 1}},
		{[]byte{wire.OpReportLUNs, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0}, [3]byte{0xC8, 0, 10}},
		{long, [3]byte{0xCC, 0, 20}},
	} {
		r := n.Do(0, c.cdb, nil)
		wantSense(t, r, wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
		if r.Sense.Specific != c.want {
			t.Errorf("% X: field pointer % X, want % X", c.cdb, r.Sense.Specific, c.want)
		}
	}
	wantSense(t, n.Do(0, long[:16], nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
}

// TestShortCDB checks that a CDB cut by the transport is refused, not read past its end.
func TestShortCDB(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1)
	for length := range 10 {
		done := make(chan scsi.Status, 1)
		task := &scsi.Task{CDB: readCDB[:length], Owner: ownerFunc(func(t *scsi.Task) { done <- t.Status })}
		if n.DataOutLength(task) != 0 {
			t.Errorf("%d bytes of CDB ask for data", length)
		}
		n.Execute(task)
		if s := <-done; s != scsi.StatusCheckCondition {
			t.Errorf("%d bytes of CDB end with status %02Xh", length, s)
		}
	}
	done := make(chan scsi.Status, 1)
	task := &scsi.Task{CDB: readCDB, Owner: ownerFunc(func(t *scsi.Task) { done <- t.Status })}
	n.Execute(task)
	if s := <-done; s != scsi.StatusGood {
		t.Errorf("a CDB of its own length ends with status %02Xh", s)
	}
}

type ownerFunc func(*scsi.Task)

func (f ownerFunc) TaskDone(t *scsi.Task) { f(t) }

// TestACAAttribute checks the ACA task attribute without NormACA (SAM-5 §8.6.5, §5.9).
func TestACAAttribute(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1)
	wantSense(t, n.Start(0, scsi.AttrACA, testUnitReady, nil).Wait(), wire.KeyIllegalRequest, wire.InvalidMessage)
}

// TestDataOutLength checks which commands take Data-Out (SAM-5 §5.4.3).
func TestDataOutLength(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1)
	for _, c := range []struct {
		lun  uint16
		cdb  []byte
		want int
	}{
		{0, writeCDB, 512},
		{0, readCDB, 0},
		{5, writeCDB, 0},
		{0, []byte{wire.OpWrite10, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0}, 0}, // past MaxTransferBytes
		{0, []byte{0xEE, 0, 0, 0, 0, 0}, 0},
		{0, []byte{wire.OpModeSelect10, 0x10, 0, 0, 0, 0, 0, 1, 2, 0}, 258},
	} {
		if got := n.DataOutLength(&scsi.Task{LUN: wire.EncodeLUN(c.lun), CDB: c.cdb}); got != c.want {
			t.Errorf("% X takes %d bytes, want %d", c.cdb, got, c.want)
		}
	}
}

// TestReadOnly checks write protection of units and mappings (SBC-3 §4.12).
func TestReadOnly(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 2, Families: testCommands(nil), Attributes: func(i int, a *unit.Attributes) { a.ReadOnly = i == 1 }})
	n := b.Nexus("a", 1)
	wantGood(t, n.Do(0, writeCDB, nil))
	wantSense(t, n.Do(1, writeCDB, nil), wire.KeyDataProtect, wire.WriteProtected)
	wantGood(t, n.Do(1, readCDB, nil))
	m := b.LUNs()
	m[0] = scsi.Mapping{LU: b.LUs[0], ReadOnly: true}
	n.SetLUNs(m)
	wantSense(t, n.Do(0, testUnitReady, nil), wire.KeyUnitAttention, wire.ModeParametersChanged)
	wantSense(t, n.Do(0, writeCDB, nil), wire.KeyDataProtect, wire.WriteProtected)
	if r := n.Do(0, modeSense6(0, 8, 0), nil); r.In[2]&0x80 == 0 {
		t.Error("WP is not set for a read-only mapping")
	}
	if m, ok := n.Lookup(0); !ok || !m.ReadOnly {
		t.Error("the mapping is not read-only")
	}
}

// TestSanitizeStates checks commands during and after a sanitize operation (SBC-3 §4.11.3).
func TestSanitizeStates(t *testing.T) {
	b, _ := parking(t, 1)
	n, lu := b.Nexus("a", 1), b.LUs[0]
	if !lu.StartSanitize() || lu.StartSanitize() {
		t.Fatal("the operation starts not once")
	}
	lu.SetSanitizeProgress(0x1234)
	for _, cdb := range [][]byte{testUnitReady, readCDB, writeCDB, {wire.OpStartStopUnit, 1, 0, 0, 0x12, 0}} {
		r := n.Do(0, cdb, nil)
		wantSense(t, r, wire.KeyNotReady, wire.SanitizeInProgress)
		if r.Sense.Specific != [3]byte{0x80, 0x12, 0x34} {
			t.Errorf("progress % X", r.Sense.Specific)
		}
	}
	wantGood(t, n.Do(0, inquiryCDB(-1, 96), nil))
	r := n.Do(0, []byte{wire.OpRequestSense, 0, 0, 0, 252, 0}, nil)
	wantGood(t, r)
	if s, err := wire.ParseSense(r.In); err != nil || s.Code != wire.SanitizeInProgress {
		t.Errorf("REQUEST SENSE reports %v", s)
	}
	lu.SetSanitizeState(scsi.SanitizeFailed)
	wantSense(t, n.Do(0, readCDB, nil), wire.KeyMediumError, wire.SanitizeFailed)
	lu.SetSanitizeState(scsi.SanitizeIdle)
	wantGood(t, n.Do(0, readCDB, nil))
	if s, p := lu.SanitizeState(); s != scsi.SanitizeIdle || p != 0x1234 {
		t.Errorf("state %d, progress %04Xh", s, p)
	}
}

// TestReservedUnit checks RESERVATION CONFLICT (SPC-4 §5.13, SPC-2 §5.5.1).
func TestReservedUnit(t *testing.T) {
	b, _ := parking(t, 1)
	holder, n := b.Nexus("a", 1), b.Nexus("b", 1)
	if err := b.Units[0].Reservations.ReserveUnit(holder.Initiator()); err != nil {
		t.Fatal(err)
	}
	for _, cdb := range [][]byte{testUnitReady, readCDB, writeCDB, modeSense6(0, 8, 0), {wire.OpStartStopUnit, 0, 0, 0, 1, 0}} {
		wantStatus(t, n.Do(0, cdb, nil), scsi.StatusReservationConflict)
		wantGood(t, holder.Do(0, cdb, nil))
	}
	for _, cdb := range [][]byte{inquiryCDB(-1, 96), reportLUNsCDB(0, 256), {wire.OpRequestSense, 0, 0, 0, 18, 0}} {
		wantGood(t, n.Do(0, cdb, nil))
	}
	holder.Close()
	wantGood(t, n.Do(0, readCDB, nil))
}

// TestIOSense checks the sense data of device errors (SBC-3 §4.18, SPC-4 §4.5.6).
func TestIOSense(t *testing.T) {
	b, parked := parking(t, 1)
	n := b.Nexus("a", 1)
	for _, c := range []struct {
		err  error
		want wire.Sense
	}{
		{&block.Error{Op: block.Read, Kind: block.KindMedium, Off: 4096}, wire.Sense{Key: 3, Code: 0x1100, Information: 8, HasInfo: true}},
		{&block.Error{Op: block.Flush, Kind: block.KindMedium, Off: -1}, wire.Sense{Key: 4, Code: 0x0C02}},
		{&block.Error{Op: block.Write, Kind: block.KindMedium, Off: 512}, wire.Sense{Key: 4, Code: 0x0C02, Information: 1, HasInfo: true}},
		{&block.Error{Kind: block.KindNoSpace}, wire.Sense{Key: 7, Code: 0x2707}},
		{&block.Error{Kind: block.KindReadOnly}, wire.Sense{Key: 7, Code: 0x2700}},
		{&block.Error{Kind: block.KindGone}, wire.Sense{Key: 2, Code: 0x0401}},
		{&block.Error{Kind: block.KindRange}, wire.Sense{Key: 4, Code: 0x4400}},
		{errors.New("other"), wire.Sense{Key: 4, Code: 0x4400}},
	} {
		p := n.Start(0, scsi.AttrSimple, parkCDB, nil)
		(<-parked).FailIO(c.err)
		if r := p.Wait(); r.Sense != c.want {
			t.Errorf("%v: %+v, want %+v", c.err, r.Sense, c.want)
		}
	}
}

// TestStats checks that commands are counted, also of nexuses that are gone.
func TestStats(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1) // its first TEST UNIT READY is an error
	n.Do(0, readCDB, nil)
	n.Do(0, writeCDB, make([]byte, 512))
	n.Do(0, testUnitReady, nil)
	want := unit.Stats{Reads: 1, ReadBytes: 512, Writes: 1, WriteBytes: 512, Others: 1, Errors: 1}
	check := func(what string, got unit.Stats) {
		t.Helper()
		if got.ReadTime <= 0 || got.WriteTime <= 0 {
			t.Errorf("%s: reads took %v, writes %v", what, got.ReadTime, got.WriteTime)
		}
		if got.ReadTime, got.WriteTime = 0, 0; got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	check("nexus", n.Stats())
	n.Close()
	check("unit", b.LUs[0].Stats())
}

func BenchmarkExecute(b *testing.B) {
	bench := scsitest.New(b, scsitest.Config{Families: [][]scsi.Command{{{
		Name: "READ", Op: wire.OpRead10, ServiceAction: -1, Access: unit.AccessRead,
		Usage: []byte{wire.OpRead10, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0},
		Run:   func(t *scsi.Task) { t.Finish(scsi.StatusGood) },
	}}}})
	n := bench.Nexus("a", 1)
	task := &scsi.Task{CDB: append(append([]byte{}, readCDB...), make([]byte, 6)...), Owner: ownerFunc(func(*scsi.Task) {})}
	b.ReportAllocs()
	for b.Loop() {
		n.Execute(task)
		task.Release()
	}
}
