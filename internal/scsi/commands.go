package scsi

import (
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The asymmetric access states in which commands beyond the ordinary are
// processed (SPC-4 §5.15.2.4).
const (
	anyState      uint16 = 0xFFFF
	standbyStates uint16 = 1<<unit.Optimized | 1<<unit.NonOptimized | 1<<unit.Standby
	setStates     uint16 = standbyStates | 1<<unit.Unavailable | 1<<unit.Offline
)

// commands is the table of the SPC commands that every unit has.
func commands() []Command {
	list := append(inquiryCommands(), modeCommands()...)
	list = append(list, maintenanceCommands()...)
	return append(list, powerCommands()...)
}

func inquiryCommands() []Command {
	return []Command{
		{
			Name: "TEST UNIT READY", Op: wire.OpTestUnitReady, ServiceAction: -1,
			Usage: []byte{wire.OpTestUnitReady, 0, 0, 0, 0, 0},
			Run:   func(t *Task) { t.Finish(StatusGood) },
		},
		{
			Name: "REQUEST SENSE", Op: wire.OpRequestSense, ServiceAction: -1,
			Usage:         []byte{wire.OpRequestSense, 0x01, 0, 0, 0xFF, 0},
			AllowReserved: true, SkipAttention: true, AllowStates: anyState, NoUnit: true, AllowSanitize: true,
			Run: requestSense,
		},
		{
			Name: "INQUIRY", Op: wire.OpInquiry, ServiceAction: -1,
			Usage:         []byte{wire.OpInquiry, 0x01, 0xFF, 0xFF, 0xFF, 0},
			AllowReserved: true, SkipAttention: true, AllowStates: anyState, NoUnit: true, AllowSanitize: true,
			Run: inquiry,
		},
		{
			Name: "REPORT LUNS", Op: wire.OpReportLUNs, ServiceAction: -1,
			Usage:         []byte{wire.OpReportLUNs, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0},
			AllowReserved: true, SkipAttention: true, AllowStates: anyState, NoUnit: true, AllowSanitize: true,
			Run: reportLUNs,
		},
	}
}

func modeCommands() []Command {
	return []Command{
		{
			Name: "MODE SENSE(6)", Op: wire.OpModeSense6, ServiceAction: -1,
			Usage:  []byte{wire.OpModeSense6, 0x08, 0xFF, 0xFF, 0xFF, 0},
			Access: unit.AccessRead, AllowStates: standbyStates,
			Run: modeSense6,
		},
		{
			Name: "MODE SENSE(10)", Op: wire.OpModeSense10, ServiceAction: -1,
			Usage:  []byte{wire.OpModeSense10, 0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0},
			Access: unit.AccessRead, AllowStates: standbyStates,
			Run: modeSense10,
		},
		{
			Name: "MODE SELECT(6)", Op: wire.OpModeSelect6, ServiceAction: -1,
			Usage:  []byte{wire.OpModeSelect6, 0x11, 0, 0, 0xFF, 0},
			Access: unit.AccessWrite, AllowStates: standbyStates,
			DataOut: func(t *Task) int { return int(t.CDB[4]) },
			Run:     modeSelect6,
		},
		{
			Name: "MODE SELECT(10)", Op: wire.OpModeSelect10, ServiceAction: -1,
			Usage:  []byte{wire.OpModeSelect10, 0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0},
			Access: unit.AccessWrite, AllowStates: standbyStates,
			DataOut: func(t *Task) int { return int(wire.Uint16(t.CDB[7:])) },
			Run:     modeSelect10,
		},
		{
			Name: "LOG SENSE", Op: wire.OpLogSense, ServiceAction: -1,
			Usage:         []byte{wire.OpLogSense, 0, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0},
			AllowReserved: true, AllowStates: standbyStates, AllowSanitize: true,
			Run: logSense,
		},
	}
}

func maintenanceCommands() []Command {
	return []Command{
		{
			Name: "REPORT TARGET PORT GROUPS", Op: wire.OpMaintenanceIn, ServiceAction: int(wire.ActionTargetGroups),
			Usage:         []byte{wire.OpMaintenanceIn, 0xE0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0},
			AllowReserved: true, AllowStates: anyState, AllowSanitize: true,
			Run: reportPortGroups,
		},
		{
			Name: "REPORT SUPPORTED OPERATION CODES", Op: wire.OpMaintenanceIn, ServiceAction: int(wire.ActionSupportedOps),
			Usage:         []byte{wire.OpMaintenanceIn, 0, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0},
			AllowReserved: true, AllowStates: anyState, AllowSanitize: true,
			Run: reportOpcodes,
		},
		{
			Name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", Op: wire.OpMaintenanceIn, ServiceAction: int(wire.ActionSupportedTMFs),
			Usage:         []byte{wire.OpMaintenanceIn, 0, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0},
			AllowReserved: true, AllowStates: anyState, AllowSanitize: true,
			Run: reportFunctions,
		},
		{
			Name: "SET TARGET PORT GROUPS", Op: wire.OpMaintenanceOut, ServiceAction: int(wire.ActionTargetGroups),
			Usage:  []byte{wire.OpMaintenanceOut, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0},
			Access: unit.AccessWrite, AllowStates: setStates,
			DataOut: portGroupsOut,
			Run:     setPortGroups,
		},
	}
}

func powerCommands() []Command {
	return []Command{
		{
			Name: "START STOP UNIT", Op: wire.OpStartStopUnit, ServiceAction: -1,
			Usage: []byte{wire.OpStartStopUnit, 0x01, 0, 0x0F, 0xF7, 0},
			Run:   startStop,
		},
		{
			Name: "PREVENT ALLOW MEDIUM REMOVAL", Op: wire.OpPreventAllow, ServiceAction: -1,
			Usage: []byte{wire.OpPreventAllow, 0, 0, 0, 0x03, 0},
			Run:   preventAllow,
		},
		{
			Name: "SEND DIAGNOSTIC", Op: wire.OpSendDiagnostic, ServiceAction: -1,
			Usage:  []byte{wire.OpSendDiagnostic, 0x17, 0, 0xFF, 0xFF, 0},
			Access: unit.AccessWrite, AllowStates: standbyStates,
			Run: sendDiagnostic,
		},
		{
			Name: "RECEIVE DIAGNOSTIC RESULTS", Op: wire.OpReceiveDiagnostic, ServiceAction: -1,
			Usage:  []byte{wire.OpReceiveDiagnostic, 0x01, 0xFF, 0xFF, 0xFF, 0},
			Access: unit.AccessRead, AllowStates: standbyStates,
			Run: receiveDiagnostic,
		},
	}
}
