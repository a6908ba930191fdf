package scsi

import (
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// anyState lets a command through every asymmetric access state.
const anyState uint16 = 0xFFFF

// commands is the table of the SPC commands that every unit has.
func commands() []Command {
	return []Command{
		{
			Name: "TEST UNIT READY", Op: wire.OpTestUnitReady, ServiceAction: -1,
			Usage: []byte{0x00, 0, 0, 0, 0, 0},
			Run:   func(t *Task) { t.Finish(StatusGood) },
		},
		{
			Name: "REQUEST SENSE", Op: wire.OpRequestSense, ServiceAction: -1,
			Usage:         []byte{0x03, 0x01, 0, 0, 0xFF, 0},
			AllowReserved: true, SkipAttention: true, AllowStates: anyState, NoUnit: true, AllowSanitize: true,
			Run: requestSense,
		},
		{
			Name: "INQUIRY", Op: wire.OpInquiry, ServiceAction: -1,
			Usage:         []byte{0x12, 0x01, 0xFF, 0xFF, 0xFF, 0},
			AllowReserved: true, SkipAttention: true, AllowStates: anyState, NoUnit: true, AllowSanitize: true,
			Run: inquiry,
		},
		{
			Name: "REPORT LUNS", Op: wire.OpReportLUNs, ServiceAction: -1,
			Usage:         []byte{0xA0, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0},
			AllowReserved: true, SkipAttention: true, AllowStates: anyState, NoUnit: true, AllowSanitize: true,
			Run: reportLUNs,
		},
	}
}

var _ = unit.AccessNone
