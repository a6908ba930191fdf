package scsi_test

import (
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// FuzzCommand executes any CDB with any data: each ends once, with a status.
func FuzzCommand(f *testing.F) {
	f.Add([]byte{wire.OpModeSelect6, 0x10, 0, 0, 16, 0}, []byte{0, 0, 0, 0, 0x0A, 10, 2, 0x10, 8, 0, 0, 0, 0xFF, 0xFF, 0, 0}, uint64(0))
	f.Add([]byte{wire.OpModeSelect10, 0x11, 0, 0, 0, 0, 0, 0, 24, 0}, make([]byte, 24), uint64(0))
	f.Add([]byte{wire.OpMaintenanceOut, 0x0A, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0}, []byte{0, 0, 0, 0, 1, 0, 0, 1}, uint64(0))
	f.Add([]byte{wire.OpInquiry, 1, 0x83, 1, 0, 0}, []byte{}, uint64(1)<<48)
	f.Add(opcodesCDB(3, 0xA3, 0x0A, 255), []byte{}, uint64(0))
	f.Add(logCDB(0x0C, 0, 0), []byte{}, uint64(0))
	f.Add(reportLUNsCDB(2, 64), []byte{}, uint64(1))
	bench := scsitest.New(f, scsitest.Config{Families: testCommands(make(chan *scsi.Task, 1))})
	n := bench.NewNexus("a", 1, bench.LUNs())
	f.Fuzz(func(t *testing.T, cdb, out []byte, lun uint64) {
		if len(cdb) > 0 && cdb[0] == parkCDB[0] {
			return
		}
		done := make(chan scsi.Status, 2)
		task := &scsi.Task{LUN: lun, CDB: cdb, Owner: ownerFunc(func(t *scsi.Task) { done <- t.Status })}
		task.DataOut = out[:min(len(out), n.DataOutLength(task))]
		n.Execute(task)
		switch s := <-done; s {
		case scsi.StatusGood, scsi.StatusCheckCondition, scsi.StatusConditionMet:
		default:
			t.Errorf("status %02Xh", s)
		}
		task.Release()
	})
}
