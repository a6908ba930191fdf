package scsi

import (
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// reportPortGroups runs REPORT TARGET PORT GROUPS (SPC-4 §6.37).
func reportPortGroups(t *Task) {
	b := make([]byte, 4)
	switch t.CDB[1] >> 5 {
	case 0:
	case 1: // the extended header
		b = append(b, 0x10, 0, 0, 0)
	default:
		t.FailField(false, 1, 7)
		return
	}
	group := t.LU.unit.Group()
	ports := t.Nexus.target.Ports()
	for _, id := range portGroups(ports) {
		at := len(b)
		b = append(b, byte(group.State(id))&0x0F,
			0xCF, // T_SUP, O_SUP, U_SUP, S_SUP, AN_SUP, AO_SUP
			byte(id>>8), byte(id), 0, 0, 0, 0)
		if group.Preferred() == id {
			b[at] |= 0x80
		}
		for _, p := range ports {
			if p.Group == id && b[at+7] < 0xFF {
				b[at+7]++
				b = append(b, 0, 0, byte(p.Relative>>8), byte(p.Relative))
			}
		}
	}
	wire.PutUint32(b, uint32(len(b)-4))
	t.Reply(b, int(min(wire.Uint32(t.CDB[6:]), MaxTransferBytes)))
}

// portGroups returns the target port groups in order of their first port.
func portGroups(ports []PortConfig) []uint16 {
	var list []uint16
	seen := make(map[uint16]bool)
	for _, p := range ports {
		if !seen[p.Group] {
			seen[p.Group] = true
			list = append(list, p.Group)
		}
	}
	return list
}

func portGroupsOut(t *Task) int { return int(min(wire.Uint32(t.CDB[6:]), MaxTransferBytes)) }

// setPortGroups runs SET TARGET PORT GROUPS (SPC-4 §6.45). The whole list is
// checked before anything changes.
func setPortGroups(t *Task) {
	length := wire.Uint32(t.CDB[6:])
	if length == 0 {
		t.Finish(StatusGood)
		return
	}
	list := t.DataOut
	if uint64(len(list)) < uint64(length) || length < 4 || length%4 != 0 {
		t.fail(wire.KeyIllegalRequest, wire.ParameterListLengthError)
		return
	}
	known := make(map[uint16]bool)
	for _, id := range portGroups(t.Nexus.target.Ports()) {
		known[id] = true
	}
	states := make(map[uint16]unit.AccessState)
	for at := 4; at < int(length); at += 4 {
		state, id := unit.AccessState(list[at]&0x0F), wire.Uint16(list[at+2:])
		if state > unit.Unavailable {
			t.FailField(true, at, 3)
			return
		}
		if _, twice := states[id]; twice || !known[id] {
			t.FailField(true, at+2, -1)
			return
		}
		states[id] = state
	}
	if !t.LU.unit.Group().SetStates(states, t.Nexus.cfg.Initiator) {
		t.fail(wire.KeyHardwareError, wire.SetTargetPortGroupsFailed)
		return
	}
	t.Finish(StatusGood)
}
