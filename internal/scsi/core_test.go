package scsi_test

import (
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

var (
	testUnitReady = []byte{wire.OpTestUnitReady, 0, 0, 0, 0, 0}
	readCDB       = []byte{wire.OpRead10, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	writeCDB      = []byte{wire.OpWrite10, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	parkCDB       = []byte{0xC0, 0, 0, 0, 0, 0}
)

// testCommands are a READ and a WRITE that do nothing, and a command that waits:
// its tasks come out of parked, to be finished by the test.
func testCommands(parked chan *scsi.Task) [][]scsi.Command {
	usage := func(op byte) []byte { return []byte{op, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0} }
	return [][]scsi.Command{{
		{
			Name: "READ", Op: wire.OpRead10, ServiceAction: -1, Usage: usage(wire.OpRead10), Access: unit.AccessRead,
			Run: func(t *scsi.Task) { t.Reply(make([]byte, 512), 512) },
		},
		{
			Name: "WRITE", Op: wire.OpWrite10, ServiceAction: -1, Usage: usage(wire.OpWrite10), Access: unit.AccessWrite, ChangesMedium: true,
			DataOut: func(t *scsi.Task) int { return int(wire.Uint16(t.CDB[7:])) * int(t.LU.Unit().BlockSize()) },
			Run:     func(t *scsi.Task) { t.Finish(scsi.StatusGood) },
		},
		{
			Name: "PARK", Op: 0xC0, ServiceAction: -1, Usage: []byte{0xC0, 0, 0, 0, 0, 0},
			Run: func(t *scsi.Task) { parked <- t },
		},
		{
			Name: "LONG", Op: wire.OpVariableLength, ServiceAction: -1, Usage: append([]byte{wire.OpVariableLength}, make([]byte, 31)...),
			Run: func(t *scsi.Task) { t.Finish(scsi.StatusConditionMet) },
		},
		{
			Name: "NEVER", Op: 0xC1, ServiceAction: -1, Usage: []byte{0xC1, 0, 0, 0, 0, 0},
			Supported: func(*scsi.LogicalUnit) bool { return false },
			Run:       func(t *scsi.Task) { t.Finish(scsi.StatusGood) },
		},
	}}
}

// parking returns a bench whose command PARK waits, and its waiting tasks.
func parking(t *testing.T, units int) (*scsitest.Bench, chan *scsi.Task) {
	parked := make(chan *scsi.Task, 64)
	return scsitest.New(t, scsitest.Config{Units: units, Families: testCommands(parked)}), parked
}

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

func wantStatus(t *testing.T, r scsitest.Result, s scsi.Status) {
	t.Helper()
	if r.Status != s || r.Aborted {
		t.Fatalf("got %v, want status %02Xh", r, uint8(s))
	}
}
