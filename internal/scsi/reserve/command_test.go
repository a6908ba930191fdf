package reserve

import (
	"errors"
	"fmt"
	"testing"

	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	wire "lintel.io/lintel/internal/wire/scsi"
)

func newBench(t *testing.T, s *store) *scsitest.Bench {
	c := scsitest.Config{Families: [][]scsi.Command{Commands()}}
	if s != nil {
		c.Reservations = s
	}
	return scsitest.New(t, c)
}

func out(n *scsitest.Nexus, action, scopeType byte, data []byte) scsitest.Result {
	return n.Do(0, outCDB(action, scopeType, len(data)), data)
}

func in(n *scsitest.Nexus, action byte, allocation uint16) scsitest.Result {
	cdb := []byte{wire.OpPersistentIn, action, 0, 0, 0, 0, 0, byte(allocation >> 8), byte(allocation), 0}
	return n.Do(0, cdb, nil)
}

func good(t *testing.T, r scsitest.Result) {
	t.Helper()
	if r.Status != scsi.StatusGood {
		t.Errorf("got %v, want GOOD", r)
	}
}

func conflict(t *testing.T, r scsitest.Result) {
	t.Helper()
	if r.Status != scsi.StatusReservationConflict {
		t.Errorf("got %v, want RESERVATION CONFLICT", r)
	}
}

func illegal(t *testing.T, r scsitest.Result, code uint16) {
	t.Helper()
	if !r.Is(wire.KeyIllegalRequest, code) {
		t.Errorf("got %v, want illegal request %04X", r, code)
	}
}

func attention(t *testing.T, n *scsitest.Nexus, code uint16) {
	t.Helper()
	if r := n.Do(0, make([]byte, 6), nil); !r.Is(wire.KeyUnitAttention, code) {
		t.Errorf("got %v, want unit attention %04X", r, code)
	}
	good(t, n.Do(0, make([]byte, 6), nil))
}

// TestReserveCommand checks RESERVE(6), RESERVE(10), RELEASE(6) and RELEASE(10) (SPC-2 §7.20, §7.23).
func TestReserveCommand(t *testing.T) {
	b := newBench(t, nil)
	n1, n2 := b.Nexus("a", 1), b.Nexus("b", 1)
	for _, c := range []struct{ reserve, release []byte }{
		{[]byte{wire.OpReserve6, 0, 0, 0, 0, 0}, []byte{wire.OpRelease6, 0, 0, 0, 0, 0}},
		{[]byte{wire.OpReserve10, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{wire.OpRelease10, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		good(t, n1.Do(0, c.reserve, nil))
		good(t, n1.Do(0, c.reserve, nil))
		conflict(t, n2.Do(0, c.reserve, nil))
		good(t, n2.Do(0, c.release, nil))
		conflict(t, n2.Do(0, make([]byte, 6), nil))
		conflict(t, in(n2, readKeys, 8))
		conflict(t, out(n2, register, 0, list(0, 1, 0)))
		good(t, n1.Do(0, c.release, nil))
		good(t, n2.Do(0, c.reserve, nil))
		good(t, n2.Do(0, c.release, nil))
	}
	illegal(t, n1.Do(0, []byte{wire.OpReserve6, 0x10, 0, 0, 0, 0}, nil), wire.InvalidFieldInCDB) // third party
	illegal(t, n1.Do(0, []byte{wire.OpReserve6, 1, 0, 0, 0, 0}, nil), wire.InvalidFieldInCDB)    // extent
	good(t, out(n1, register, 0, list(0, 1, 0)))
	conflict(t, n1.Do(0, []byte{wire.OpReserve6, 0, 0, 0, 0, 0}, nil))
	conflict(t, n1.Do(0, []byte{wire.OpRelease6, 0, 0, 0, 0, 0}, nil))
}

// TestPersistentReserveIn checks PERSISTENT RESERVE IN (SPC-4 §6.15.1).
func TestPersistentReserveIn(t *testing.T) {
	b := newBench(t, nil)
	n := b.Nexus("a", 1)
	good(t, out(n, register, 0, list(0, 1, 0)))
	for action := range byte(4) {
		full := in(n, action, 16384)
		good(t, full)
		short := in(n, action, 8)
		good(t, short)
		if len(short.In) != 8 || string(short.In) != string(full.In[:8]) {
			t.Errorf("service action %d: cut to %x, whole %x", action, short.In, full.In)
		}
	}
	for action := byte(4); action < 0x20; action++ {
		illegal(t, in(n, action, 16384), wire.InvalidFieldInCDB)
	}
}

// TestPersistentReserveOut checks PERSISTENT RESERVE OUT (SPC-4 §6.16).
func TestPersistentReserveOut(t *testing.T) {
	s := &store{}
	b := newBench(t, s)
	n1, n2 := b.Nexus("a", 1), b.Nexus("b", 2)
	for action := byte(8); action < 0x20; action++ {
		illegal(t, out(n1, action, 0, list(0, 1, 0)), wire.InvalidFieldInCDB)
	}
	illegal(t, out(n1, register, 0, make([]byte, 20)), wire.ParameterListLengthError)
	illegal(t, n1.Do(0, outCDB(register, 0, 1<<24), nil), wire.ParameterListLengthError)
	good(t, out(n1, register, 0, list(0, 1, 1))) // saved, so it completes later
	good(t, out(n2, registerAndIgnore, 0, list(0, 2, 1)))
	if s.blob == nil {
		t.Error("not saved")
	}
	good(t, out(n1, reserve, 6, list(1, 0, 0)))
	conflict(t, out(n2, reserve, 6, list(2, 0, 0)))
	illegal(t, out(n1, release, 5, list(1, 0, 0)), wire.InvalidReleaseOfReservation)
	illegal(t, out(n1, preempt, 6, list(1, 0, 0)), wire.InvalidFieldInParameterList)
	good(t, out(n1, release, 6, list(1, 0, 0)))
	attention(t, n2, wire.ReservationsReleased)
	good(t, out(n1, reserve, 1, list(1, 0, 0)))
	good(t, out(n2, preemptAndAbort, 1, list(2, 1, 0)))
	attention(t, n1, wire.RegistrationsPreempted)
	good(t, out(n1, register, 0, list(0, 1, 0)))
	good(t, out(n2, clearAll, 0, list(2, 0, 0)))
	attention(t, n1, wire.ReservationsPreempted)

	good(t, out(n1, register, 0, list(0, 1, 1)))
	good(t, out(n1, reserve, 3, list(1, 0, 0)))
	good(t, out(n1, registerAndMove, 0, moveList(1, 2, 3, 2, n2.TransportID())))
	if table := b.Units[0].Reservations.Table(); !table.Holds(n2.Initiator()) || len(table.Registrations) != 1 {
		t.Errorf("table %+v", table)
	}
	for i := range 256 {
		many := b.NewNexus(fmt.Sprint("many", i), 1, b.LUNs())
		many.Do(0, make([]byte, 6), nil)
		if r := out(many, register, 0, list(0, 1, 0)); i == 255 {
			illegal(t, r, wire.InsufficientRegistrations)
		} else {
			good(t, r)
		}
	}
	s.err = errors.New("disk full")
	if r := out(n2, register, 0, list(2, 3, 1)); !r.Is(wire.KeyHardwareError, wire.InternalTargetFailure) {
		t.Errorf("failed save: %v", r)
	}
}
