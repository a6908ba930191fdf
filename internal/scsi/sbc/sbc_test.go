package sbc

import (
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// TestReservationAccess checks what reservations of others forbid to the block commands (SBC-3 §4.12).
func TestReservationAccess(t *testing.T) {
	want := map[string]unit.Access{}
	for access, names := range map[unit.Access][]string{
		unit.AccessNone: {"READ CAPACITY(10)", "READ CAPACITY(16)"},
		unit.AccessRead: {
			"READ(6)", "READ(10)", "READ(12)", "READ(16)", "VERIFY(10)", "VERIFY(12)", "VERIFY(16)", "PRE-FETCH(10)", "PRE-FETCH(16)",
			"GET LBA STATUS", "READ DEFECT DATA(10)", "READ DEFECT DATA(12)",
		},
	} {
		for _, name := range names {
			want[name] = access
		}
	}
	changes := 0
	for _, c := range Commands() {
		access, ok := want[c.Name]
		if !ok {
			access = unit.AccessWrite
		}
		if c.Access != access {
			t.Errorf("%s has access %d, want %d", c.Name, c.Access, access)
		}
		if c.ChangesMedium {
			changes++
		}
		if c.ChangesMedium && access != unit.AccessWrite {
			t.Errorf("%s changes the medium with access %d", c.Name, access)
		}
	}
	if changes != len(Commands())-len(want)-3 { // SYNCHRONIZE CACHE, EXIT FAILURE MODE
		t.Errorf("%d commands change the medium", changes)
	}
}

// TestUsage checks the CDB usage data of the block commands (SPC-4 §6.27.4, SBC-3 §5).
func TestUsage(t *testing.T) {
	cache := map[byte]byte{
		wire.OpRead10: 0x1A, wire.OpRead12: 0x1A, wire.OpRead16: 0x1A, wire.OpWrite10: 0x1A, wire.OpWrite12: 0x1A, wire.OpWrite16: 0x1A,
		wire.OpORWrite16: 0x1A, wire.OpCompareAndWrite: 0x1A, wire.OpWriteAtomic16: 0x18,
		wire.OpVerify10: 0x16, wire.OpVerify12: 0x16, wire.OpVerify16: 0x16,
		wire.OpWriteVerify10: 0x16, wire.OpWriteVerify12: 0x16, wire.OpWriteVerify16: 0x16,
	}
	for _, c := range Commands() {
		if len(c.Usage) != wire.CDBLength(c.Op) || c.Usage[0] != c.Op {
			t.Errorf("%s: usage data % X", c.Name, c.Usage)
		}
		if bits, ok := cache[c.Op]; ok && c.Usage[1] != bits {
			t.Errorf("%s: usage data % X", c.Name, c.Usage)
		}
		if c.Usage[len(c.Usage)-1] != 0 {
			t.Errorf("%s evaluates the control byte", c.Name)
		}
	}
}

// TestLimits checks that the Block Limits page says what the commands keep (SBC-3 §6.5.3).
func TestLimits(t *testing.T) {
	for _, g := range geometries {
		r := newRig(t, block.NewNull(1<<40), unit.Attributes{BlockSize: g.size, Thin: g.thin}, nil)
		page := r.good([]byte{wire.OpInquiry, 1, 0xB0, 0, 64, 0}, nil)
		limit := wire.Uint32(page[8:])
		if limit != scsi.MaxTransferBytes/g.size {
			t.Errorf("MAXIMUM TRANSFER LENGTH is %d", limit)
		}
		r.good(compareCDB(0, int(page[5])), make([]byte, 2*int(page[5])*r.size))
		same := uint32(wire.Uint64(page[36:]))
		r.good(cdb(wire.OpWriteSame16, 0, same), r.fill(1, 0))
		r.invalid(cdb(wire.OpWriteSame16, 0, same+1), r.fill(1, 0), false, 10, -1)
		atomic := uint16(wire.Uint32(page[44:]))
		r.good(atomicCDB(0, atomic), r.fill(int(atomic), 0))
		r.invalid(atomicCDB(0, atomic+1), nil, false, 12, -1)
		if g.thin {
			r.good(unmapList(make([]extent, wire.Uint32(page[24:]))...))
		}
	}
}
