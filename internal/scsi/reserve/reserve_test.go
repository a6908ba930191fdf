package reserve

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// device is a device without content.
type device struct{ block.Device }

func (device) Info() block.Info { return block.Info{BlockSize: 1} }
func (device) Size() int64      { return 1 << 20 }

type store struct {
	blob []byte
	err  error
}

func (s *store) LoadReservations(unit.ID) ([]byte, error) { return s.blob, nil }
func (s *store) SaveReservations(_ unit.ID, blob []byte) error {
	if s.err == nil {
		s.blob = blob
	}
	return s.err
}

type watcher struct{ initiator unit.Initiator }

func (w *watcher) Initiator() unit.Initiator { return w.initiator }
func (w *watcher) UnitEvent(unit.Event)      {}
func (w *watcher) AbortTasks(done func())    { go done() }

func newUnit(t testing.TB, s unit.ReservationStore) *unit.Unit {
	t.Helper()
	u, err := unit.New(unit.Config{
		ID: "v1",
		Attributes: unit.Attributes{NAA: unit.GenerateNAA(unit.DefaultPrefix, "v1", nil), Serial: "1",
			Vendor: "LINTEL", Product: "VIRTUAL-DISK", BlockSize: 512},
		Device:       device{},
		Group:        unit.NewGroup(1, "p"),
		Reservations: s,
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

const (
	portA = "iqn.2026-11.io.lintel:a,i,0x00023d000001"
	portB = "iqn.2026-11.io.lintel:b,i,0x00023d000002"
)

// fixture is a unit with one initiator port, A, at target port 1 of two.
type fixture struct {
	testing.TB
	store *store
	u     *unit.Unit
	s     service
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{TB: t, store: &store{}}
	f.u = newUnit(t, f.store)
	f.s = service{
		table:       &f.u.Reservations,
		from:        unit.Initiator{Name: portA, Port: 1},
		transportID: wire.ISCSITransportID(portA),
		ports:       []uint16{1, 2},
		known:       f.u.Initiators,
	}
	return f
}

// as returns the fixture of another initiator port on the same unit.
func (f *fixture) as(name string, relative uint16) *fixture {
	g := *f
	g.s.from = unit.Initiator{Name: name, Port: relative}
	g.s.transportID = wire.ISCSITransportID(name)
	return &g
}

func outCDB(action, scopeType byte, length int) []byte {
	b := []byte{wire.OpPersistentOut, action, scopeType, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(b[5:], uint32(length))
	return b
}

func list(key, serviceKey uint64, flags byte, more ...byte) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint64(b, key)
	binary.BigEndian.PutUint64(b[8:], serviceKey)
	b[listFlags] = flags
	return append(b, more...)
}

func moveList(key, serviceKey uint64, flags byte, relative uint16, id []byte) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint64(b, key)
	binary.BigEndian.PutUint64(b[8:], serviceKey)
	b[moveFlags] = flags
	binary.BigEndian.PutUint16(b[moveRelative:], relative)
	binary.BigEndian.PutUint32(b[20:], uint32(len(id)))
	return append(b, id...)
}

// otherPorts is what follows the basic list where SPEC_I_PT is set.
func otherPorts(ids ...[]byte) []byte {
	b := bytes.Join(ids, nil)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

func (f *fixture) out(action, scopeType byte, data []byte) error {
	f.Helper()
	p, err := parse(outCDB(action, scopeType, len(data)), data)
	if err != nil {
		return err
	}
	done := make(chan struct{}, 2)
	if err := f.s.do(p, func() { done <- struct{}{} }); err != nil {
		return err
	}
	<-done
	return nil
}

func (f *fixture) want(got, want error) {
	f.Helper()
	var a, b *fieldError
	switch {
	case want == nil && got == nil:
	case errors.As(want, &b):
		if !errors.As(got, &a) || *a != *b {
			f.Errorf("got %+v, want %+v", got, want)
		}
	case want == nil, !errors.Is(got, want):
		f.Errorf("got %v, want %v", got, want)
	}
}

func (f *fixture) keys() string {
	b := dataIn(&f.u.Reservations, readKeys)
	var s []string
	for k := b[8:]; len(k) > 0; k = k[8:] {
		s = append(s, fmt.Sprintf("%X", wire.Uint64(k)))
	}
	return strings.Join(s, " ")
}

// TestReadKeys checks PERSISTENT RESERVE IN, READ KEYS (SPC-4 §6.15.2).
func TestReadKeys(t *testing.T) {
	f := newFixture(t)
	if got := hex.EncodeToString(dataIn(f.s.table, readKeys)); got != "0000000000000000" {
		t.Errorf("no keys: %s", got)
	}
	f.want(f.out(register, 0, list(0, 0xA, 0)), nil)
	f.want(f.as(portB, 1).out(register, 0, list(0, 0xB, 0)), nil)
	if got := hex.EncodeToString(dataIn(f.s.table, readKeys)); got != "00000002"+"00000010"+"000000000000000a"+"000000000000000b" {
		t.Errorf("two keys: %s", got)
	}
}

// TestReadReservation checks PERSISTENT RESERVE IN, READ RESERVATION (SPC-4 §6.15.3).
func TestReadReservation(t *testing.T) {
	f := newFixture(t)
	f.want(f.out(register, 0, list(0, 0xA, 0)), nil)
	if got := hex.EncodeToString(dataIn(f.s.table, readReservation)); got != "0000000100000000" {
		t.Errorf("none: %s", got)
	}
	f.want(f.out(reserve, 6, list(0xA, 0, 0)), nil)
	if got := hex.EncodeToString(dataIn(f.s.table, readReservation)); got != "0000000100000010"+"000000000000000a"+"00000000"+"0006"+"0000" {
		t.Errorf("type 6: %s", got)
	}
	f.want(f.out(release, 6, list(0xA, 0, 0)), nil)
	f.want(f.out(reserve, 8, list(0xA, 0, 0)), nil)
	if got := hex.EncodeToString(dataIn(f.s.table, readReservation)); got != "0000000100000010"+"0000000000000000"+"00000000"+"0008"+"0000" {
		t.Errorf("all registrants: %s", got)
	}
}

// TestReportCapabilities checks PERSISTENT RESERVE IN, REPORT CAPABILITIES (SPC-4 §6.15.4).
func TestReportCapabilities(t *testing.T) {
	f := newFixture(t)
	if got := hex.EncodeToString(dataIn(f.s.table, reportCapabilities)); got != "00080d80ea010000" {
		t.Errorf("capabilities %s", got)
	}
	f.want(f.out(register, 0, list(0, 0xA, 1)), nil)
	if got := hex.EncodeToString(dataIn(f.s.table, reportCapabilities)); got != "00080d81ea010000" {
		t.Errorf("activated: %s", got)
	}
	memory := newUnit(t, nil)
	if got := hex.EncodeToString(dataIn(&memory.Reservations, reportCapabilities)); got != "00080c80ea010000" {
		t.Errorf("in memory: %s", got)
	}
}

// TestReadFullStatus checks PERSISTENT RESERVE IN, READ FULL STATUS (SPC-4 §6.15.5).
func TestReadFullStatus(t *testing.T) {
	f := newFixture(t)
	f.want(f.out(register, 0, list(0, 0xA, 0)), nil)
	f.want(f.as(portB, 2).out(register, 0, list(0, 0xB, 0)), nil)
	f.want(f.out(reserve, 5, list(0xA, 0, 0)), nil)
	b := dataIn(f.s.table, readFullStatus)
	if wire.Uint32(b[4:]) != uint32(len(b)-8) {
		t.Errorf("additional length %d of %d", wire.Uint32(b[4:]), len(b))
	}
	for i, want := range []struct {
		key    uint64
		holder byte
		typ    byte
		port   uint16
		name   string
	}{{0xA, 1, 5, 1, portA}, {0xB, 0, 0, 2, portB}} {
		d := b[8:]
		if i == 1 {
			d = d[24+wire.Uint32(d[20:]):]
		}
		name, _, n, err := wire.ParseISCSITransportID(d[24:])
		if err != nil || n != int(wire.Uint32(d[20:])) {
			t.Errorf("TransportID %d: %v", i, err)
		}
		if wire.Uint64(d) != want.key || d[12] != want.holder || d[13] != want.typ || wire.Uint16(d[18:]) != want.port || name != want.name {
			t.Errorf("descriptor %d: %x", i, d[:24])
		}
	}
	nvme := unit.Initiator{Name: "nvme:00112233445566778899aabbccddeeff"}
	f.want(f.u.Reservations.Register(unit.Register{From: nvme, NewKey: 1}), nil)
	if b := dataIn(f.s.table, readFullStatus); wire.Uint32(b[4:]) != uint32(len(b)-8) {
		t.Error("registration of another command set")
	}
}

// TestRegister checks PERSISTENT RESERVE OUT, REGISTER (SPC-4 §5.13.7, §6.16).
func TestRegister(t *testing.T) {
	f := newFixture(t)
	f.want(f.out(register, 0, list(9, 0xA, 0)), unit.ErrConflict)
	f.want(f.out(register, 0xFF, list(0, 0xA, 0)), nil) // scope and type are ignored
	f.want(f.out(register, 0, list(0, 0xB, 0)), unit.ErrConflict)
	f.want(f.out(register, 0, list(0xA, 0xB, 0)), nil)
	f.want(f.out(registerAndIgnore, 0, list(0x99, 0xC, 0)), nil)
	if f.keys() != "C" {
		t.Errorf("keys %s", f.keys())
	}
	f.want(f.out(register, 0, list(0xC, 0xC, 1)), nil)
	if f.store.blob == nil {
		t.Error("not saved")
	}
	f.store.err = errors.New("disk full")
	f.want(f.out(register, 0, list(0xC, 0, 1)), f.store.err)
	f.store.err = nil
	f.want(f.out(register, 0, list(0xC, 0, 0)), nil)
	if f.keys() != "" || f.store.blob != nil {
		t.Errorf("keys %s", f.keys())
	}
	g := &fixture{TB: t, u: newUnit(t, nil), s: f.s}
	g.s.table = &g.u.Reservations
	g.want(g.out(register, 0, list(0, 1, 1)), &fieldError{true, listFlags, persistBit})
}

// TestRegisterAllTargetPorts checks PERSISTENT RESERVE OUT, ALL_TG_PT (SPC-4 §6.16.3).
func TestRegisterAllTargetPorts(t *testing.T) {
	f := newFixture(t)
	f.want(f.out(register, 0, list(0, 0xA, 4)), nil)
	if f.keys() != "A A" {
		t.Errorf("keys %s", f.keys())
	}
	f.want(f.as(portA, 2).out(reserve, 1, list(0xA, 0, 4)), nil) // ALL_TG_PT is ignored here
	f.want(f.out(reserve, 1, list(0xA, 0, 0)), unit.ErrConflict)
	f.want(f.out(registerAndIgnore, 0, list(0, 0, 4)), nil)
	if f.keys() != "" {
		t.Errorf("keys %s", f.keys())
	}
}

// TestRegisterSpecifiedInitiatorPorts checks PERSISTENT RESERVE OUT, SPEC_I_PT (SPC-4 §6.16.3, §7.6.4.6).
func TestRegisterSpecifiedInitiatorPorts(t *testing.T) {
	f := newFixture(t)
	upper := strings.Replace(strings.Replace(portB, "00023d", "00023D", 1), "lintel", "Lintel", 1)
	f.want(f.out(register, 0, list(0, 0xA, 8, otherPorts(wire.ISCSITransportID(upper))...)), nil)
	table := f.u.Reservations.Table()
	if reg, ok := table.Lookup(unit.Initiator{Name: portB, Port: 1}); !ok || reg.Key != 0xA || !bytes.Equal(reg.TransportID, wire.ISCSITransportID(portB)) {
		t.Errorf("registrations %+v", table.Registrations)
	}
	f.want(f.out(register, 0, list(0xA, 0xB, 8, otherPorts(wire.ISCSITransportID(portB))...)), &fieldError{true, listFlags, specifyBit})
	f.want(f.out(registerAndIgnore, 0, list(0, 0xA, 8, otherPorts()...)), &fieldError{true, listFlags, specifyBit})
	f.want(f.out(reserve, 1, list(0xA, 0, 8, otherPorts()...)), &fieldError{true, listFlags, specifyBit})
	f.want(f.out(clearAll, 0, list(0xA, 0, 0)), nil)

	// A device name stands for the ports that are logged in.
	const deviceB = "iqn.2026-11.io.lintel:b"
	data := list(0, 0xA, 8, otherPorts(wire.ISCSITransportID(deviceB))...)
	f.want(f.out(register, 0, data), &fieldError{true, listOthers, -1})
	f.u.Attach(&watcher{unit.Initiator{Name: portB, Port: 1}})
	f.u.Attach(&watcher{unit.Initiator{Name: portB, Port: 2}})
	f.u.Attach(&watcher{unit.Initiator{Name: deviceB + "2,i,0x1", Port: 1}})
	f.want(f.out(register, 0, data), nil)
	if f.keys() != "A A" {
		t.Errorf("keys %s", f.keys())
	}
	f.want(f.out(clearAll, 0, list(0xA, 0, 0)), nil)

	good := wire.ISCSITransportID(portB)
	var many [][]byte
	for range unit.MaxRegistrations + 1 {
		many = append(many, good)
	}
	for name, c := range map[string]struct {
		data []byte
		err  error
	}{
		"no length":     {list(0, 0xA, 8), errLength},
		"short length":  {list(0, 0xA, 8, 0, 0), errLength},
		"length beyond": {list(0, 0xA, 8, 0, 0, 0, 24), errLength},
		"cut":           {list(0, 0xA, 8, otherPorts(good, good[:23])...), &fieldError{true, listOthers + len(good), -1}},
		"other kind":    {list(0, 0xA, 8, otherPorts(make([]byte, 24))...), &fieldError{true, listOthers, -1}},
		"too many":      {list(0, 0xA, 8, otherPorts(many...)...), &fieldError{true, listOthers + unit.MaxRegistrations*len(good), -1}},
		"not specified": {list(0, 0xA, 0, otherPorts(good)...), errLength},
	} {
		t.Run(name, func(t *testing.T) {
			f := *f
			f.TB = t
			f.want(f.out(register, 0, c.data), c.err)
		})
	}
	if f.keys() != "" {
		t.Errorf("keys %s", f.keys())
	}
}

// TestTooManyRegistrations checks INSUFFICIENT REGISTRATION RESOURCES (SPC-4 §5.13.7).
func TestTooManyRegistrations(t *testing.T) {
	f := newFixture(t)
	for i := range unit.MaxRegistrations {
		f.want(f.as(fmt.Sprintf("iqn.x:%d,i,0x000000000001", i), 1).out(register, 0, list(0, 1, 0)), nil)
	}
	f.want(f.out(register, 0, list(0, 1, 0)), unit.ErrTooManyRegistrations)
	if n := len(dataIn(f.s.table, readFullStatus)); n > 0xFFFF {
		t.Logf("READ FULL STATUS has %d bytes: initiators read it cut", n)
	}
}

// TestReserveRelease checks PERSISTENT RESERVE OUT, RESERVE and RELEASE (SPC-4 §5.13.9, §5.13.11.2).
func TestReserveRelease(t *testing.T) {
	f := newFixture(t)
	f.want(f.out(reserve, 1, list(0, 0, 0)), unit.ErrConflict)
	f.want(f.out(register, 0, list(0, 0xA, 0)), nil)
	f.want(f.out(reserve, 2, list(0xA, 0, 0)), &fieldError{false, cdbType, 3})
	f.want(f.out(reserve, 0x11, list(0xA, 0, 0)), &fieldError{false, cdbType, 7})
	f.want(f.out(release, 0x13, list(0xA, 0, 0)), nil) // there is none
	f.want(f.out(reserve, 3, list(0xA, 0, 0)), nil)
	f.want(f.out(release, 1, list(0xA, 0, 0)), unit.ErrInvalidRelease)
	f.want(f.out(release, 0x13, list(0xA, 0, 0)), unit.ErrInvalidRelease)
	f.want(f.out(release, 3, list(0xA, 0, 0)), nil)
}

// TestPreempt checks PERSISTENT RESERVE OUT, PREEMPT and PREEMPT AND ABORT (SPC-4 §5.13.11.2.4, §5.13.11.2.6).
func TestPreempt(t *testing.T) {
	f := newFixture(t)
	b := f.as(portB, 1)
	f.u.Attach(&watcher{f.s.from})
	f.u.Attach(&watcher{b.s.from})
	f.want(f.out(register, 0, list(0, 0xA, 0)), nil)
	b.want(b.out(register, 0, list(0, 0xB, 0)), nil)
	b.want(b.out(reserve, 1, list(0xB, 0, 0)), nil)
	f.want(f.out(preempt, 1, list(0xA, 0, 0)), &fieldError{true, listKey, -1})
	f.want(f.out(preempt, 0x21, list(0xA, 0xB, 0)), &fieldError{false, cdbType, 7})
	f.want(f.out(preemptAndAbort, 4, list(0xA, 0xB, 0)), &fieldError{false, cdbType, 3})
	f.want(f.out(preempt, 1, list(0xA, 0xC, 0)), unit.ErrConflict)
	f.want(f.out(preemptAndAbort, 5, list(0xA, 0xB, 0)), nil)
	if table := f.u.Reservations.Table(); f.keys() != "A" || table.Type != 5 || table.Holder != f.s.from {
		t.Errorf("table %+v", table)
	}
	f.want(f.out(preempt, 6, list(0xA, 0xA, 0)), nil)
}

// TestRegisterAndMove checks PERSISTENT RESERVE OUT, REGISTER AND MOVE (SPC-4 §5.13.8, §6.16.4).
func TestRegisterAndMove(t *testing.T) {
	f := newFixture(t)
	to := wire.ISCSITransportID(portB)
	f.want(f.out(register, 0, list(0, 0xA, 0)), nil)
	f.want(f.out(registerAndMove, 0, moveList(0xA, 0xB, 0, 2, to)), &fieldError{false, cdbAction, 4})
	f.want(f.out(reserve, 3, list(0xA, 0, 0)), nil)
	f.want(f.out(registerAndMove, 0, moveList(1, 0xB, 0, 2, to)), unit.ErrConflict)
	f.want(f.out(registerAndMove, 0, moveList(0xA, 0, 0, 2, to)), &fieldError{true, listKey, -1})
	f.want(f.out(registerAndMove, 0, moveList(0xA, 0xB, 0, 3, to)), &fieldError{true, moveRelative, -1})
	f.want(f.out(registerAndMove, 0, moveList(0xA, 0xB, 0, 1, f.s.transportID)), &fieldError{true, moveTransport, -1})
	f.want(f.out(registerAndMove, 0, moveList(0xA, 0xB, 0, 2, make([]byte, 24))), &fieldError{true, moveTransport, -1})
	f.want(f.out(registerAndMove, 0, moveList(0xA, 0xB, 0, 2, append(slices.Clone(to), to...))), &fieldError{true, moveTransport, -1})
	f.want(f.out(registerAndMove, 0, moveList(0xA, 0xB, 0, 2, wire.ISCSITransportID("iqn.2026-11.io.lintel:b"))), &fieldError{true, moveTransport, -1})
	short := moveList(0xA, 0xB, 0, 2, to)
	f.want(f.out(registerAndMove, 0, short[:len(short)-4]), errLength)
	f.want(f.out(registerAndMove, 0, moveList(0xA, 0xB, 2, 2, to)), nil)
	b := f.as(portB, 2)
	if f.keys() != "B" || !f.u.Reservations.Table().Holds(b.s.from) {
		t.Errorf("table %+v", f.u.Reservations.Table())
	}
	b.want(b.out(registerAndMove, 0, moveList(0xB, 0xC, 1, 1, f.s.transportID)), nil)
	if f.keys() != "B C" || f.store.blob == nil {
		t.Errorf("keys %s, %d bytes stored", f.keys(), len(f.store.blob))
	}
}

// TestParameterListLength checks PARAMETER LIST LENGTH ERROR (SPC-4 §6.16.1).
func TestParameterListLength(t *testing.T) {
	f := newFixture(t)
	for _, n := range []int{0, 1, 23, 25, 28} {
		f.want(f.out(register, 0, make([]byte, n)), errLength)
	}
	if _, err := parse(outCDB(register, 0, 24), make([]byte, 20)); !errors.Is(err, errLength) {
		t.Errorf("less data than announced: %v", err)
	}
	f.want(f.out(clearAll, 0, make([]byte, 24)), unit.ErrConflict)
}

func FuzzPersistentOut(f *testing.F) {
	f.Add(byte(register), byte(0), list(0, 0xA, 8|4|1, otherPorts(wire.ISCSITransportID(portB), wire.ISCSITransportID("iqn.x"))...))
	f.Add(byte(registerAndMove), byte(0), moveList(0, 2, 3, 1, wire.ISCSITransportID(portB)))
	f.Add(byte(preemptAndAbort), byte(7), list(1, 0, 0))
	f.Fuzz(func(t *testing.T, action, scopeType byte, data []byte) {
		x := newFixture(t)
		x.want(x.out(register, 0, list(0, 1, 0)), nil)
		x.want(x.out(reserve, 7, list(1, 0, 0)), nil)
		_ = x.out(action&0x1F, scopeType, data)
		for a := range byte(4) {
			if b := dataIn(x.s.table, a); len(b) < 8 {
				t.Errorf("service action %d: %d bytes", a, len(b))
			}
		}
	})
}
