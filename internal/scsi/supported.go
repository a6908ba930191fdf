package scsi

import (
	wire "lintel.io/lintel/internal/wire/scsi"
)

// The REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES (SPC-4 table 247).
const (
	reportAll byte = iota
	reportOp
	reportOpAction
	reportEither
)

// reportOpcodes runs REPORT SUPPORTED OPERATION CODES (SPC-4 §6.35).
func reportOpcodes(t *Task) {
	timeouts := t.CDB[2]&0x80 != 0 // RCTD
	code, action := t.CDB[3], wire.Uint16(t.CDB[4:])
	allocation := int(min(wire.Uint32(t.CDB[6:]), MaxTransferBytes))
	tb := t.Nexus.target.table
	options := t.CDB[2] & 0x07
	switch {
	case options == reportAll:
		t.Reply(tb.reportAll(t.LU, timeouts), allocation)
		return
	case options > reportEither,
		options == reportOp && tb.subs[code] != nil,
		options == reportOpAction && tb.ops[code] != nil:
		t.FailField(false, 2, 2)
		return
	}
	t.Reply(reportOne(t.LU, tb.lookup(code, action), timeouts), allocation)
}

// lookup returns the command with these codes, nil for none; one without service
// actions has action 0.
func (tb *table) lookup(code byte, action uint16) *operation {
	switch {
	case tb.subs[code] != nil && action < 32:
		return tb.subs[code][action]
	case action == 0:
		return tb.ops[code]
	}
	return nil
}

// each calls f for every command that exists on a unit, in order of the codes.
func (tb *table) each(lu *LogicalUnit, f func(*operation)) {
	for code := range tb.ops {
		if op := tb.ops[code]; op != nil && op.supported(lu) {
			f(op)
		}
		if tb.subs[code] == nil {
			continue
		}
		for _, op := range tb.subs[code] {
			if op != nil && op.supported(lu) {
				f(op)
			}
		}
	}
}

// reportAll is the all_commands parameter data (SPC-4 §6.35.2).
func (tb *table) reportAll(lu *LogicalUnit, timeouts bool) []byte {
	b := make([]byte, 4)
	tb.each(lu, func(op *operation) {
		d := make([]byte, 8)
		d[0] = op.Op
		if op.ServiceAction >= 0 {
			wire.PutUint16(d[2:], uint16(op.ServiceAction))
			d[5] |= 0x01 // SERVACTV
		}
		wire.PutUint16(d[6:], uint16(len(op.Usage)))
		if timeouts {
			d[5] |= 0x02 // CTDP
			d = appendTimeouts(d)
		}
		b = append(b, d...)
	})
	wire.PutUint32(b, uint32(len(b)-4))
	return b
}

// reportOne is the one_command parameter data (SPC-4 §6.35.3).
func reportOne(lu *LogicalUnit, op *operation, timeouts bool) []byte {
	if op == nil || !op.supported(lu) {
		return []byte{0, 0x01, 0, 0}
	}
	b := make([]byte, 4, 4+maxCDB+12)
	b[1] = 0x03
	wire.PutUint16(b[2:], uint16(len(op.Usage)))
	b = append(b, op.Usage...)
	if timeouts {
		b[1] |= 0x80 // CTDP
		b = appendTimeouts(b)
	}
	return b
}

// appendTimeouts adds a command timeouts descriptor (SPC-4 §6.35.4) that
// recommends none.
func appendTimeouts(b []byte) []byte {
	return append(b, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

// reportFunctions runs REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4 §6.36).
func reportFunctions(t *Task) {
	allocation := wire.Uint32(t.CDB[6:])
	if allocation < 4 {
		t.FailField(false, 6, -1)
		return
	}
	b := make([]byte, 4, 16)
	b[0] = 0xDE             // ABORT TASK (SET), CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK, TARGET RESET
	b[1] = 0x03             // QUERY TASK SET, I_T NEXUS RESET
	if t.CDB[2]&0x80 != 0 { // REPD
		b = b[:16] // no timeouts are given
		b[3] = 12
	}
	t.Reply(b, int(min(allocation, MaxTransferBytes)))
}
