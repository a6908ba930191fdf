package scsi_test

import (
	"bytes"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

func opcodesCDB(options, op byte, action uint16, allocation uint32) []byte {
	cdb := make([]byte, 12)
	cdb[0], cdb[1], cdb[2], cdb[3] = wire.OpMaintenanceIn, wire.ActionSupportedOps, options, op
	wire.PutUint16(cdb[4:], action)
	wire.PutUint32(cdb[6:], allocation)
	return cdb
}

// TestReportAllOpcodes checks REPORT SUPPORTED OPERATION CODES, all commands (SPC-4 §6.35.2).
func TestReportAllOpcodes(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1)
	for _, timeouts := range []byte{0, 0x80} {
		r := n.Do(0, opcodesCDB(timeouts, 0, 0, 65535), nil)
		wantGood(t, r)
		if int(wire.Uint32(r.In)) != len(r.In)-4 {
			t.Fatalf("length %d of %d bytes", wire.Uint32(r.In), len(r.In))
		}
		last, count := -1, 0
		for d := r.In[4:]; len(d) > 0; count++ {
			code := int(d[0])<<16 | int(wire.Uint16(d[2:]))
			if code <= last {
				t.Errorf("%06X follows %06X", code, last)
			}
			last = code
			if d[5]&1 == 0 && wire.Uint16(d[2:]) != 0 {
				t.Errorf("operation code %02Xh has a service action without SERVACTV", d[0])
			}
			option := byte(1)
			if d[5]&1 != 0 {
				option = 2
			}
			one := n.Do(0, opcodesCDB(timeouts|option, d[0], wire.Uint16(d[2:]), 65535), nil)
			wantGood(t, one)
			size := int(wire.Uint16(one.In[2:]))
			if one.In[1]&0x07 != 3 || size != int(wire.Uint16(d[6:])) || one.In[4] != d[0] {
				t.Errorf("operation code %02Xh: % X", d[0], one.In)
			}
			wantSense(t, n.Do(0, opcodesCDB(3-option, d[0], wire.Uint16(d[2:]), 65535), nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
			either := n.Do(0, opcodesCDB(timeouts|3, d[0], wire.Uint16(d[2:]), 65535), nil)
			if !bytes.Equal(either.In, one.In) {
				t.Errorf("reporting option 3 gives % X", either.In)
			}
			if timeouts == 0 {
				d = d[8:]
				continue
			}
			if d[5]&2 == 0 || wire.Uint16(d[8:]) != 10 || one.In[1]&0x80 == 0 || len(one.In) != 4+size+12 {
				t.Errorf("operation code %02Xh has no timeouts", d[0])
			}
			d = d[20:]
		}
		if count < 20 {
			t.Errorf("%d commands", count)
		}
	}
}

// TestReportOneOpcode checks REPORT SUPPORTED OPERATION CODES, unsupported commands (SPC-4 §6.35.3).
func TestReportOneOpcode(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1)
	for _, cdb := range [][]byte{
		opcodesCDB(1, 0xEE, 0, 255), opcodesCDB(2, 0xEE, 3, 255), opcodesCDB(3, 0xEE, 3, 255),
		opcodesCDB(2, wire.OpMaintenanceIn, 0x1F, 255), opcodesCDB(3, wire.OpMaintenanceIn, 0x101, 255),
		opcodesCDB(3, wire.OpInquiry, 1, 255), opcodesCDB(1, 0xC1, 0, 255),
	} {
		r := n.Do(0, cdb, nil)
		wantGood(t, r)
		if !bytes.Equal(r.In, []byte{0, 1, 0, 0}) {
			t.Errorf("% X: % X", cdb, r.In)
		}
	}
	wantSense(t, n.Do(0, opcodesCDB(4, 0, 0, 255), nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	usage := n.Do(0, opcodesCDB(2, wire.OpMaintenanceIn, uint16(wire.ActionTargetGroups), 255), nil)
	if usage.In[5] != 0xE0|wire.ActionTargetGroups {
		t.Errorf("usage data % X", usage.In[4:])
	}
}

// TestReportFunctions checks REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 §6.36).
func TestReportFunctions(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{}).Nexus("a", 1)
	cdb := []byte{wire.OpMaintenanceIn, wire.ActionSupportedTMFs, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0}
	r := n.Do(0, cdb, nil)
	wantGood(t, r)
	if !bytes.Equal(r.In, []byte{0xDE, 0x03, 0, 0}) {
		t.Errorf("functions % X", r.In)
	}
	cdb[2] = 0x80
	if r := n.Do(0, cdb, nil); len(r.In) != 16 || r.In[3] != 12 {
		t.Errorf("extended data % X", r.In)
	}
	cdb[9] = 3
	wantSense(t, n.Do(0, cdb, nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
}

func portGroupsCDB(format byte) []byte {
	return []byte{wire.OpMaintenanceIn, format<<5 | wire.ActionTargetGroups, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}
}

// TestReportPortGroups checks REPORT TARGET PORT GROUPS (SPC-4 §6.37).
func TestReportPortGroups(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.Nexus("a", 1)
	b.Group.SetState(2, unit.Standby)
	b.Group.SetPreferred(1)
	attentions(t, n, 0)
	groups := []byte{
		0x80, 0xCF, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1,
		0x02, 0xCF, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2,
	}
	r := n.Do(0, portGroupsCDB(0), nil)
	wantGood(t, r)
	if want := append([]byte{0, 0, 0, 24}, groups...); !bytes.Equal(r.In, want) {
		t.Errorf("% X", r.In)
	}
	r = n.Do(0, portGroupsCDB(1), nil)
	wantGood(t, r)
	if want := append([]byte{0, 0, 0, 28, 0x10, 0, 0, 0}, groups...); !bytes.Equal(r.In, want) {
		t.Errorf("extended header: % X", r.In)
	}
	wantSense(t, n.Do(0, portGroupsCDB(2), nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
}

func setPortGroups(n *scsitest.Nexus, descriptors ...byte) scsitest.Result {
	list := append([]byte{0, 0, 0, 0}, descriptors...)
	cdb := make([]byte, 12)
	cdb[0], cdb[1] = wire.OpMaintenanceOut, wire.ActionTargetGroups
	wire.PutUint32(cdb[6:], uint32(len(list)))
	return n.Do(0, cdb, list)
}

// TestSetPortGroups checks SET TARGET PORT GROUPS (SPC-4 §6.45, §5.15.2.7).
func TestSetPortGroups(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n, other := b.Nexus("a", 1), b.Nexus("b", 2)
	for _, s := range []unit.AccessState{unit.NonOptimized, unit.Standby, unit.Unavailable, unit.Optimized} {
		wantGood(t, setPortGroups(n, byte(s), 0, 0, 1, byte(s), 0, 0, 2))
		if b.Group.State(1) != s || b.Group.State(2) != s {
			t.Errorf("states %v and %v, want %v", b.Group.State(1), b.Group.State(2), s)
		}
	}
	wantAttentions(t, n, 0)
	wantAttentions(t, other, 0, wire.AsymmetricAccessChanged)
	wantGood(t, n.Do(0, []byte{wire.OpMaintenanceOut, wire.ActionTargetGroups, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil))
	for _, c := range []struct {
		list []byte
		at   byte
	}{
		{[]byte{0x0E, 0, 0, 1}, 4},
		{[]byte{0x0F, 0, 0, 1}, 4},
		{[]byte{0x04, 0, 0, 1}, 4},
		{[]byte{0, 0, 0, 9}, 6},
		{[]byte{0, 0, 0, 1, 1, 0, 0, 1}, 10},
	} {
		r := setPortGroups(n, c.list...)
		wantSense(t, r, wire.KeyIllegalRequest, wire.InvalidFieldInParameterList)
		if r.Sense.Specific[2] != c.at {
			t.Errorf("% X: field pointer % X", c.list, r.Sense.Specific)
		}
	}
	wantSense(t, setPortGroups(n, 0, 0), wire.KeyIllegalRequest, wire.ParameterListLengthError)

	b.Group.SetState(2, unit.NonOptimized) // the administrator's choice
	wantAttentions(t, n, 0, wire.AsymmetricAccessChanged)
	wantSense(t, setPortGroups(n, 2, 0, 0, 1, 0, 0, 0, 2), wire.KeyHardwareError, wire.SetTargetPortGroupsFailed)
	if b.Group.State(1) != unit.Optimized || b.Group.State(2) != unit.NonOptimized {
		t.Errorf("states %v and %v after a refused change", b.Group.State(1), b.Group.State(2))
	}
	wantGood(t, setPortGroups(n, 2, 0, 0, 1, 1, 0, 0, 2))
}

// TestAccessStates checks commands in each asymmetric access state (SPC-4 §5.15.2.4).
func TestAccessStates(t *testing.T) {
	b, _ := parking(t, 1)
	n := b.Nexus("a", 1)
	modes := modeSense6(0, 8, 0)
	groups := portGroupsCDB(0)
	set := []byte{wire.OpMaintenanceOut, wire.ActionTargetGroups, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		state unit.AccessState
		code  uint16
		good  [][]byte
		bad   [][]byte
	}{
		{unit.NonOptimized, 0, [][]byte{testUnitReady, readCDB, modes, groups, set}, nil},
		{unit.Standby, wire.TargetPortStandby, [][]byte{modes, groups, set}, [][]byte{testUnitReady, readCDB}},
		{unit.Unavailable, wire.TargetPortUnavailable, [][]byte{groups, set}, [][]byte{testUnitReady, readCDB, modes}},
		{unit.Offline, wire.NotReadyOffline, [][]byte{groups, set}, [][]byte{testUnitReady, readCDB, modes}},
		{unit.Transitioning, wire.AsymmetricAccessTransition, [][]byte{groups}, [][]byte{testUnitReady, readCDB, modes, set}},
	} {
		b.Group.SetState(1, c.state)
		n.Do(0, []byte{wire.OpRequestSense, 0, 0, 0, 18, 0}, nil) // takes the attention
		for _, cdb := range append(c.good, inquiryCDB(-1, 96), reportLUNsCDB(0, 64)) {
			if r := n.Do(0, cdb, nil); r.Status != scsi.StatusGood {
				t.Errorf("%v: % X ends with %v", c.state, cdb, r)
			}
		}
		for _, cdb := range c.bad {
			wantSense(t, n.Do(0, cdb, nil), wire.KeyNotReady, c.code)
		}
	}
}

// TestStartStop checks START STOP UNIT (SBC-3 §5.24).
func TestStartStop(t *testing.T) {
	var dev *blocktest.Faulty
	b := scsitest.New(t, scsitest.Config{Families: testCommands(nil), Device: func(_ int, size int64) block.Device {
		dev = blocktest.NewFaulty(block.NewMem(size))
		return dev
	}})
	n := b.Nexus("a", 1)
	startStop := func(modifier, flags byte) scsitest.Result {
		return n.Do(0, []byte{wire.OpStartStopUnit, 0, 0, modifier, flags, 0}, nil)
	}
	wantGood(t, startStop(0, 0))
	if dev.Count(block.Flush) != 1 || !b.LUs[0].Stopped() {
		t.Errorf("%d flushes, stopped %v", dev.Count(block.Flush), b.LUs[0].Stopped())
	}
	for _, cdb := range [][]byte{testUnitReady, readCDB, writeCDB} {
		wantSense(t, n.Do(0, cdb, nil), wire.KeyNotReady, wire.InitializingCommandRequired)
	}
	wantGood(t, n.Do(0, modeSense6(0, 8, 0), nil))
	wantGood(t, startStop(0, 1))
	wantGood(t, n.Do(0, readCDB, nil))
	wantGood(t, startStop(0, 4)) // NO_FLUSH
	if dev.Count(block.Flush) != 1 {
		t.Errorf("%d flushes", dev.Count(block.Flush))
	}
	wantResponse(t, n.Manage(scsi.LogicalUnitReset, 0, 0), scsi.FunctionComplete)
	wantAttentions(t, n, 0, wire.BusDeviceResetOccurred)
	for _, condition := range []byte{0x10, 0x20, 0x30, 0x70} {
		wantGood(t, startStop(0, condition))
		wantGood(t, n.Do(0, testUnitReady, nil))
	}
	for _, c := range [][2]byte{{0, 0xA0}, {0, 0xB1}, {1, 0x20}, {0, 2}, {0, 3}, {0, 8}} {
		wantSense(t, startStop(c[0], c[1]), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	}
	defer dev.Inject(blocktest.Fault{Ops: []block.Op{block.Flush}, Kind: block.KindGone})()
	wantSense(t, startStop(0, 0), wire.KeyNotReady, wire.BecomingReady)
	wantGood(t, n.Do(0, testUnitReady, nil))
}

// TestPreventAllow checks PREVENT ALLOW MEDIUM REMOVAL (SPC-4 §6.13).
func TestPreventAllow(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n, other := b.Nexus("a", 1), b.Nexus("b", 1)
	prevent := func(n *scsitest.Nexus, p byte) scsitest.Result {
		return n.Do(0, []byte{wire.OpPreventAllow, 0, 0, 0, p, 0}, nil)
	}
	wantGood(t, prevent(n, 1))
	wantGood(t, prevent(n, 0))
	wantSense(t, prevent(n, 2), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	r := &b.Units[0].Reservations
	registerKey(t, r, n, 1)
	if err := r.Reserve(n.Initiator(), 1, 1); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, prevent(other, 1), scsi.StatusReservationConflict)
	wantGood(t, prevent(other, 0))
	wantGood(t, prevent(n, 1))
}

// TestDiagnostics checks SEND DIAGNOSTIC and RECEIVE DIAGNOSTIC RESULTS (SPC-4 §6.42, §6.24).
func TestDiagnostics(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{}).Nexus("a", 1)
	wantGood(t, n.Do(0, []byte{wire.OpSendDiagnostic, 0x04, 0, 0, 0, 0}, nil))
	r := n.Do(0, []byte{wire.OpReceiveDiagnostic, 1, 0, 0, 64, 0}, nil)
	wantGood(t, r)
	if !bytes.Equal(r.In, []byte{0, 0, 0, 1, 0}) {
		t.Errorf("diagnostic pages % X", r.In)
	}
	for _, cdb := range [][]byte{
		{wire.OpSendDiagnostic, 0x24, 0, 0, 0, 0}, // background self-test
		{wire.OpSendDiagnostic, 0x10, 0, 0, 4, 0},
		{wire.OpReceiveDiagnostic, 0, 0, 0, 64, 0},
		{wire.OpReceiveDiagnostic, 1, 0x3F, 0, 64, 0},
	} {
		wantSense(t, n.Do(0, cdb, nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	}
}

func logCDB(page, subpage byte, pointer uint16) []byte {
	return []byte{wire.OpLogSense, 0, 0x40 | page, subpage, 0, byte(pointer >> 8), byte(pointer), 1, 0, 0}
}

// TestLogSense checks LOG SENSE (SPC-4 §6.7, §7.3, SBC-3 §6.4.5).
func TestLogSense(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 2, Blocks: 8192,
		Attributes: func(i int, a *unit.Attributes) { a.Thin = i == 0 },
	})
	n := b.Nexus("a", 1)
	blocktest.Write(t, b.Units[0].Device(), 0, make([]byte, 3<<20))
	for _, c := range []struct {
		lun  uint16
		cdb  []byte
		want []byte
	}{
		{0, logCDB(0, 0, 0), []byte{0x80, 0, 0, 4, 0x00, 0x0C, 0x0D, 0x2F}},
		{1, logCDB(0, 0, 0), []byte{0x80, 0, 0, 3, 0x00, 0x0D, 0x2F}},
		{0, logCDB(0, 0xFF, 0), []byte{0xC0, 0xFF, 0, 10, 0, 0, 0, 0xFF, 0x0C, 0, 0x0D, 0, 0x2F, 0}},
		{0, logCDB(0x0D, 0, 0), []byte{0x8D, 0, 0, 12, 0, 0, 3, 2, 0, 0xFF, 0, 1, 3, 2, 0, 0xFF}},
		{0, logCDB(0x0D, 0, 1), []byte{0x8D, 0, 0, 6, 0, 1, 3, 2, 0, 0xFF}},
		{0, logCDB(0x2F, 0, 0), []byte{0xAF, 0, 0, 8, 0, 0, 3, 4, 0, 0, 0xFF, 0}},
		{0, logCDB(0x0C, 0, 0), []byte{0x8C, 0, 0, 12, 0, 2, 3, 8, 0, 0, 0, 3, 1, 0, 0, 0}},
	} {
		r := n.Do(c.lun, c.cdb, nil)
		wantGood(t, r)
		if !bytes.Equal(r.In, c.want) {
			t.Errorf("% X: % X, want % X", c.cdb, r.In, c.want)
		}
	}
	for _, c := range []struct {
		lun uint16
		cdb []byte
	}{
		{0, logCDB(0x0D, 0, 2)},
		{0, logCDB(0x0D, 1, 0)},
		{0, logCDB(0x00, 1, 0)},
		{0, logCDB(0x30, 0, 0)},
		{1, logCDB(0x0C, 0, 0)},
		{0, []byte{wire.OpLogSense, 0, 0x0D, 0, 0, 0, 0, 1, 0, 0}},
		{0, []byte{wire.OpLogSense, 1, 0x4D, 0, 0, 0, 0, 1, 0, 0}},
	} {
		wantSense(t, n.Do(c.lun, c.cdb, nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	}
}

// TestThinThreshold checks the thin provisioning soft threshold (SBC-3 §4.7.3.8, §6.5.9).
func TestThinThreshold(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Units: 2, Blocks: 16384,
		Attributes: func(i int, a *unit.Attributes) { a.Thin = i == 0 },
	})
	n := b.Nexus("a", 1)
	check := func(want ...uint16) {
		t.Helper()
		for _, lu := range b.LUs {
			used, err := lu.Unit().Device().Used()
			if err != nil {
				t.Fatal(err)
			}
			lu.CheckThinThreshold(uint64(used))
		}
		wantAttentions(t, n, 0, want...)
		wantAttentions(t, n, 1)
	}
	if p := modePage(t, n, 0, 0x1C, 0x02); len(p) != 24 || p[16] != 0 {
		t.Errorf("no threshold: % X", p)
	}
	for _, lu := range b.LUs {
		lu.SetThinThreshold(50)
	}
	if p := modePage(t, n, 0, 0x1C, 0x02); p[16] != 0x81 || p[17] != 2 || wire.Uint32(p[20:]) != 4 {
		t.Errorf("threshold: % X", p)
	}
	if p := modePage(t, n, 0, 0x01, 0); p[7] != 0x80 {
		t.Errorf("LBPERE is not set: % X", p)
	}
	wantSense(t, n.Do(1, modeSense6(0, 0x1C, 2), nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	check()
	dev := b.Units[0].Device()
	blocktest.Write(t, dev, 0, make([]byte, 5<<20))
	check(wire.ThinProvisioningSoftThreshold)
	check()
	if err := blocktest.Do(dev, &block.Request{Op: block.Discard, Len: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	check()
	blocktest.Write(t, dev, 0, make([]byte, 4<<20))
	check(wire.ThinProvisioningSoftThreshold)
}

// TestAvailableSpace checks LOG SENSE, available resources (SBC-3 §6.4.5).
func TestAvailableSpace(t *testing.T) {
	free, known := uint64(5<<20+1), true
	b := scsitest.New(t, scsitest.Config{Available: func(*scsi.LogicalUnit) (uint64, bool) { return free, known }})
	n := b.Nexus("a", 1)
	want := []byte{0x8C, 0, 0, 24, 0, 1, 3, 8, 0, 0, 0, 6, 2, 0, 0, 0, 0, 2, 3, 8, 0, 0, 0, 0, 1, 0, 0, 0}
	if r := n.Do(0, logCDB(0x0C, 0, 0), nil); !bytes.Equal(r.In, want) {
		t.Errorf("% X", r.In)
	}
	known = false
	if r := n.Do(0, logCDB(0x0C, 0, 0), nil); len(r.In) != 16 {
		t.Errorf("% X", r.In)
	}
}
