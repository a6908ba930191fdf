package scsi

import (
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// DataOutLength reports how many bytes of Data-Out the command in t.CDB takes: 0
// where it takes none, is unknown, exceeds the limits or its LUN does not exist (Execute
// then ends it with the right status without data). With it the command has arrived: what
// task management of other nexuses and changes of the LUN do to the commands of the unit
// until Execute, they do to it.
func (n *Nexus) DataOutLength(t *Task) int {
	t.arrived = nil
	op, _ := n.target.table.find(t.CDB)
	if op == nil || op.DataOut == nil {
		return 0
	}
	p := n.find(t.LUN)
	if p == nil || len(t.CDB) < len(op.Usage) {
		return 0
	}
	t.arrived, t.epoch = p, p.epoch.Load()
	t.Nexus, t.LU = n, p.lu
	if size := op.DataOut(t); size > 0 && size <= MaxTransferBytes {
		return size
	}
	return 0
}

// Execute runs a command. t.Owner.TaskDone is called once, possibly before
// Execute returns, except for a task for which task management sets Aborted: TaskDone is called
// for it too, when it can no longer reach the device.
func (n *Nexus) Execute(t *Task) {
	t.begin(n)
	p := n.find(t.LUN)
	if p == nil {
		n.executeNoUnit(t)
		return
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		n.executeNoUnit(t)
		return
	}
	if t.arrived != nil && (t.arrived != p || t.epoch != p.epoch.Load()) {
		p.mu.Unlock()
		t.late(p)
		return
	}
	t.LU, t.path = p.lu, p
	p.linkLocked(t)
	t.stamp = p.meter.Start()
	attention := len(p.attentions) != 0
	p.mu.Unlock()
	if (t.Attr == AttrOrdered || p.lu.order.held.Load() != 0) && !p.lu.order.admit(p.lu, t) {
		return
	}
	t.run(attention)
}

// late ends a task that was ended between its arrival and its execution, at which the LUN
// leads to p.
func (t *Task) late(p *path) {
	mode := p.lu.othersMode()
	switch {
	case t.arrived != p:
		mode = cancelGone
	case mode == cancelSilent:
		p.mu.Lock()
		code := p.cutCode
		p.mu.Unlock()
		if code != 0 {
			p.attend(code)
		}
	}
	t.applyCancel(mode)
	t.Owner.TaskDone(t)
}

// start runs a task that was dormant.
func (t *Task) start() {
	if t.Cancelled() {
		t.Finish(StatusTaskAborted)
		return
	}
	t.run(t.path.attending())
}

// run makes the checks of SAM-5 and SPC-4 in their order, then runs the command.
func (t *Task) run(attention bool) {
	lu, p := t.LU, t.path
	op, sub := t.Nexus.target.table.find(t.CDB)
	if attention && (op == nil || !op.SkipAttention) {
		if code, ok := p.takeAttention(); ok {
			t.fail(wire.KeyUnitAttention, code)
			return
		}
	}
	if op == nil || !op.supported(lu) {
		t.unknown(sub || op != nil && op.ServiceAction >= 0)
		return
	}
	t.op, t.Command = op, &op.Command
	if !op.valid(t.CDB) {
		at, bit := op.firstBad(t.CDB)
		t.FailField(false, at, bit)
		return
	}
	if t.Attr == AttrACA {
		t.fail(wire.KeyIllegalRequest, wire.InvalidMessage)
		return
	}
	flags := lu.flags.Load()
	if flags&(flagSanitize|flagStopped) != 0 && !t.ready(op, flags) {
		return
	}
	if state := lu.unit.Group().State(t.Nexus.Group()); op.states&(1<<state) == 0 {
		t.inaccessible(state)
		return
	}
	if lu.reserved(t.Nexus.cfg.Initiator, op) {
		t.Finish(StatusReservationConflict)
		return
	}
	if op.ChangesMedium && (p.readOnly.Load() || flags&flagWriteProtect != 0 || lu.ReadOnly()) {
		t.protected(flags)
		return
	}
	op.Run(t)
}

// unknown ends a command whose operation code, or service action where sub, is
// not supported (SPC-4 §4.3.4.1).
func (t *Task) unknown(sub bool) {
	if sub {
		t.FailField(false, 1, 4)
		return
	}
	t.fail(wire.KeyIllegalRequest, wire.InvalidOperationCode)
}

// inaccessible ends a command in an asymmetric access state that forbids it
// (SPC-4 §5.15.2.4 to §5.15.2.8).
func (t *Task) inaccessible(state unit.AccessState) {
	code := wire.AsymmetricAccessTransition
	switch state {
	case unit.Standby:
		code = wire.TargetPortStandby
	case unit.Unavailable:
		code = wire.TargetPortUnavailable
	case unit.Offline:
		code = wire.NotReadyOffline
	}
	t.fail(wire.KeyNotReady, code)
}

// protected ends a command that may not change the medium (SBC-3 §4.12).
func (t *Task) protected(flags uint32) {
	code := wire.WriteProtected
	if flags&flagWriteProtect != 0 {
		code = wire.SoftwareWriteProtected
	}
	t.fail(wire.KeyDataProtect, code)
}

// ready ends the commands that a stopped unit, or one whose sanitize operation
// goes on or has failed, does not process (SBC-3 §4.11.3, §4.20).
func (t *Task) ready(op *operation, flags uint32) bool {
	if flags&flagSanitize != 0 && !op.AllowSanitize {
		t.Fail(t.LU.sanitizeSense())
		return false
	}
	if flags&flagStopped != 0 && op.medium {
		t.fail(wire.KeyNotReady, wire.InitializingCommandRequired)
		return false
	}
	return true
}

// executeNoUnit answers for a LUN that leads to no unit (SAM-5 §5.11, SPC-4
// §6.6.1).
func (n *Nexus) executeNoUnit(t *Task) {
	op, _ := n.target.table.find(t.CDB)
	if op == nil || !op.NoUnit {
		t.Fail(t.noUnitSense())
		return
	}
	t.op, t.Command = op, &op.Command
	if !op.valid(t.CDB) {
		at, bit := op.firstBad(t.CDB)
		t.FailField(false, at, bit)
		return
	}
	op.Run(t)
}

// noUnitSense tells why a LUN leads to no unit. One that may come back is never LOGICAL UNIT NOT
// SUPPORTED, which hosts take for a permanent loss.
func (t *Task) noUnitSense() Sense {
	if t.Nexus.awaits(t.LUN) {
		return Sense{Key: wire.KeyNotReady, Code: wire.BecomingReady}
	}
	return Sense{Key: wire.KeyIllegalRequest, Code: wire.LogicalUnitNotSupported}
}
