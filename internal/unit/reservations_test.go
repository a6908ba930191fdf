package unit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

type fakeStore struct {
	blob  []byte
	err   error
	saves int
}

func (s *fakeStore) LoadReservations(ID) ([]byte, error) { return s.blob, s.err }
func (s *fakeStore) SaveReservations(_ ID, blob []byte) error {
	if s.err == nil {
		s.blob = blob
		s.saves++
	}
	return s.err
}

var (
	hostA = Initiator{"iqn.a,i,0x1", 1}
	hostB = Initiator{"iqn.b,i,0x1", 1}
	hostC = Initiator{"iqn.c,i,0x1", 2}
)

const keyA, keyB, keyC = 0xA, 0xB, 0xC

// prTest is a unit with three initiators.
type prTest struct {
	*testing.T
	u       *Unit
	r       *Reservations
	store   *fakeStore
	a, b, c *fakeWatcher
}

func newPRTest(t *testing.T) *prTest {
	p := &prTest{T: t, store: &fakeStore{}}
	p.u = newTestUnit(t, func(c *Config) { c.Reservations = p.store })
	p.r = &p.u.Reservations
	p.a, p.b, p.c = &fakeWatcher{initiator: hostA}, &fakeWatcher{initiator: hostB}, &fakeWatcher{initiator: hostC}
	p.u.Attach(p.a)
	p.u.Attach(p.b)
	p.u.Attach(p.c)
	return p
}

func (p *prTest) want(err, want error) {
	p.Helper()
	if !errors.Is(err, want) || (want == nil && err != nil) {
		p.Errorf("got %v, want %v", err, want)
	}
}

// all registers the three initiators.
func (p *prTest) all() *prTest {
	p.Helper()
	p.want(p.r.Register(Register{From: hostA, NewKey: keyA}), nil)
	p.want(p.r.Register(Register{From: hostB, NewKey: keyB}), nil)
	p.want(p.r.Register(Register{From: hostC, NewKey: keyC}), nil)
	return p
}

func (p *prTest) keys() string {
	var s []string
	for _, r := range p.r.Table().Registrations {
		s = append(s, fmt.Sprintf("%s/%d=%X", strings.TrimSuffix(r.Initiator.Name, ",i,0x1"), r.Initiator.Port, r.Key))
	}
	return strings.Join(s, " ")
}

func (p *prTest) wantKeys(want string) {
	p.Helper()
	if got := p.keys(); got != want {
		p.Errorf("registrations %q, want %q", got, want)
	}
}

func (p *prTest) wantHolder(typ ReservationType, holder Initiator) {
	p.Helper()
	if t := p.r.Table(); t.Type != typ || t.Holder != holder {
		p.Errorf("reservation %v of %v, want %v of %v", t.Type, t.Holder, typ, holder)
	}
}

func (p *prTest) preempt(q Preempt) error {
	p.Helper()
	called := false
	err := p.r.Preempt(q, func() { called = true })
	if called != (err == nil) {
		p.Errorf("done called: %v, error %v", called, err)
	}
	return err
}

// TestRegister checks PERSISTENT RESERVE OUT REGISTER (SPC-4 §5.13.7).
func TestRegister(t *testing.T) {
	p := newPRTest(t)
	p.want(p.r.Register(Register{From: hostA}), nil) // nothing is done
	p.want(p.r.Register(Register{From: hostA, Key: 1, NewKey: 2}), ErrConflict)
	if g := p.r.Table().Generation; g != 0 {
		t.Errorf("generation %d", g)
	}
	p.want(p.r.Register(Register{From: hostA, NewKey: keyA}), nil)
	p.want(p.r.Register(Register{From: hostA, NewKey: 5}), ErrConflict)
	p.want(p.r.Register(Register{From: hostA, Key: keyA, NewKey: 5}), nil)
	p.wantKeys("iqn.a/1=5")
	p.want(p.r.Register(Register{From: hostA, NewKey: 6, IgnoreKey: true}), nil)
	p.want(p.r.Register(Register{From: hostB, NewKey: 6, IgnoreKey: true}), nil)
	p.wantKeys("iqn.a/1=6 iqn.b/1=6")
	p.want(p.r.Register(Register{From: hostA, Key: 6}), nil)
	p.want(p.r.Register(Register{From: hostB, IgnoreKey: true}), nil)
	p.want(p.r.Register(Register{From: hostB, IgnoreKey: true}), nil) // nothing is done
	p.wantKeys("")
	if g := p.r.Table().Generation; g != 6 {
		t.Errorf("generation %d", g)
	}
	p.want(p.r.Register(Register{From: hostA, NewKey: 1, TransportID: make([]byte, 2000)}), ErrReservationParameter)
	p.want(p.r.Register(Register{NewKey: 1}), ErrReservationParameter)
}

// TestRegisterAllPorts checks ALL_TG_PT (SPC-4 §6.16.3).
func TestRegisterAllPorts(t *testing.T) {
	p := newPRTest(t)
	ports := []uint16{1, 2}
	p.want(p.r.Register(Register{From: hostA, NewKey: keyA, Ports: ports}), nil)
	p.wantKeys("iqn.a/1=A iqn.a/2=A")
	second := Initiator{hostA.Name, 2}
	p.want(p.r.Register(Register{From: second, Key: keyA, NewKey: 7}), nil)
	p.want(p.r.Register(Register{From: hostA, Key: keyA, NewKey: 8, Ports: ports}), ErrConflict)
	p.wantKeys("iqn.a/1=A iqn.a/2=7")
	p.want(p.r.Register(Register{From: hostA, NewKey: 8, Ports: ports, IgnoreKey: true}), nil)
	p.wantKeys("iqn.a/1=8 iqn.a/2=8")
	p.want(p.r.Register(Register{From: hostA, Key: 8, Ports: ports}), nil)
	p.wantKeys("")
	p.want(p.r.Register(Register{From: hostA, NewKey: 9, Ports: []uint16{3}}), nil)
	p.wantKeys("iqn.a/1=9 iqn.a/3=9")
}

// TestRegisterOthers checks SPEC_I_PT (SPC-4 §6.16.3).
func TestRegisterOthers(t *testing.T) {
	p := newPRTest(t)
	others := []Registrant{{Name: hostB.Name, TransportID: []byte{5}}, {Name: "iqn.d"}, {Name: "iqn.d"}}
	p.want(p.r.Register(Register{From: hostA, Others: others}), nil) // ignored with a zero key
	p.wantKeys("")
	p.want(p.r.Register(Register{From: hostB, NewKey: keyB}), nil)
	p.want(p.r.Register(Register{From: hostA, NewKey: keyA, Others: others}), nil)
	p.wantKeys("iqn.b/1=B iqn.a/1=A iqn.d/1=A")
	p.want(p.r.Register(Register{From: hostA, Key: keyA, NewKey: 5, Others: others}), ErrReservationParameter)
	p.want(p.r.Register(Register{From: hostC, NewKey: 5, IgnoreKey: true, Others: others}), ErrReservationParameter)
	p.want(p.r.Register(Register{From: hostC, NewKey: 5, Others: []Registrant{{}}}), ErrReservationParameter)

	var many []Registrant
	for i := range MaxRegistrations - 3 {
		many = append(many, Registrant{Name: fmt.Sprint("iqn.many", i)})
	}
	p.want(p.r.Register(Register{From: hostC, NewKey: keyC, Others: many}), ErrTooManyRegistrations)
	p.wantKeys("iqn.b/1=B iqn.a/1=A iqn.d/1=A")
	p.want(p.r.Register(Register{From: hostC, NewKey: keyC, Others: many[1:]}), nil)
	p.want(p.r.Register(Register{From: Initiator{"iqn.last", 1}, NewKey: 1}), ErrTooManyRegistrations)
}

// TestUnregisterHolder checks what unregistering does to the reservation (SPC-4 §5.13.11.2.3).
func TestUnregisterHolder(t *testing.T) {
	for _, typ := range []ReservationType{1, 3, 5, 6, 7, 8} {
		p := newPRTest(t).all()
		p.want(p.r.Reserve(hostA, keyA, typ), nil)
		p.want(p.r.Register(Register{From: hostB, Key: keyB}), nil)
		p.wantHolder(typ, hostA)
		p.want(p.r.Register(Register{From: hostA, Key: keyA}), nil)
		p.a.wantEvents(t)
		p.b.wantEvents(t)
		switch typ {
		case 1, 3:
			p.wantHolder(0, Initiator{})
			p.c.wantEvents(t)
		case 5, 6:
			p.wantHolder(0, Initiator{})
			p.c.wantEvents(t, EventReservationsReleased)
		default:
			p.wantHolder(typ, hostA) // everyone registered holds it
			p.want(p.r.Register(Register{From: hostC, Key: keyC}), nil)
			p.wantHolder(0, Initiator{})
			p.c.wantEvents(t)
		}
	}
}

// TestReserve checks PERSISTENT RESERVE OUT RESERVE (SPC-4 §5.13.9).
func TestReserve(t *testing.T) {
	p := newPRTest(t)
	p.want(p.r.Reserve(hostA, 0, 1), ErrConflict)
	p.all()
	generation := p.r.Table().Generation
	p.want(p.r.Reserve(hostA, keyB, 1), ErrConflict)
	for _, typ := range []ReservationType{0, 2, 4, 9, 15} {
		p.want(p.r.Reserve(hostA, keyA, typ), ErrReservationType)
	}
	p.want(p.r.Reserve(hostA, keyA, 5), nil)
	p.want(p.r.Reserve(hostA, keyA, 5), nil)
	p.want(p.r.Reserve(hostA, keyA, 6), ErrConflict)
	p.want(p.r.Reserve(hostB, keyB, 5), ErrConflict)
	if k := p.r.Table().Key(); k != keyA {
		t.Errorf("reservation key %X", k)
	}
	p.want(p.r.Release(hostA, keyA, 5), nil)
	p.want(p.r.Reserve(hostA, keyA, 7), nil)
	p.want(p.r.Reserve(hostB, keyB, 7), nil) // every registrant holds it
	p.want(p.r.Reserve(hostB, keyB, 8), ErrConflict)
	if k := p.r.Table().Key(); k != 0 {
		t.Errorf("reservation key %X", k)
	}
	if g := p.r.Table().Generation; g != generation {
		t.Errorf("generation %d", g)
	}
}

// TestRelease checks PERSISTENT RESERVE OUT RELEASE (SPC-4 §5.13.11.2.1, §5.13.11.2.2).
func TestRelease(t *testing.T) {
	for _, typ := range []ReservationType{1, 3, 5, 6, 7, 8} {
		p := newPRTest(t).all()
		p.want(p.r.Release(hostA, keyA, typ), nil)
		p.want(p.r.Reserve(hostA, keyA, typ), nil)
		p.want(p.r.Release(hostA, keyB, typ), ErrConflict)
		p.want(p.r.Release(Initiator{"iqn.x", 1}, 0, typ), ErrConflict)
		p.want(p.r.Release(hostA, keyA, 0), ErrInvalidRelease)
		p.want(p.r.Release(hostA, keyA, typ^2), ErrInvalidRelease)
		if !typ.AllRegistrants() {
			p.want(p.r.Release(hostB, keyB, typ), nil)
			p.wantHolder(typ, hostA)
		}
		p.want(p.r.Release(hostA, keyA, typ), nil)
		p.wantHolder(0, Initiator{})
		p.a.wantEvents(t)
		if typ == 1 || typ == 3 {
			p.b.wantEvents(t)
		} else {
			p.b.wantEvents(t, EventReservationsReleased)
		}
	}
}

// TestClear checks PERSISTENT RESERVE OUT CLEAR (SPC-4 §5.13.11.2.7).
func TestClear(t *testing.T) {
	p := newPRTest(t).all()
	p.want(p.r.Reserve(hostA, keyA, 6), nil)
	p.want(p.r.Clear(hostB, keyA), ErrConflict)
	generation := p.r.Table().Generation
	p.want(p.r.Clear(hostB, keyB), nil)
	p.wantKeys("")
	p.wantHolder(0, Initiator{})
	p.a.wantEvents(t, EventReservationsPreempted)
	p.b.wantEvents(t)
	p.c.wantEvents(t, EventReservationsPreempted)
	if g := p.r.Table().Generation; g != generation+1 {
		t.Errorf("generation %d", g)
	}
}

// TestPreempt checks PERSISTENT RESERVE OUT PREEMPT (SPC-4 §5.13.11.2.4, §5.13.11.2.5).
func TestPreempt(t *testing.T) {
	t.Run("no reservation", func(t *testing.T) {
		p := newPRTest(t).all()
		p.want(p.preempt(Preempt{From: hostA, Key: keyB, Target: keyC}), ErrConflict)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA}), ErrReservationParameter)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: 0x99}), ErrConflict)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: keyB}), nil)
		p.wantKeys("iqn.a/1=A iqn.c/2=C")
		p.b.wantEvents(t, EventRegistrationsPreempted)
		p.c.wantEvents(t)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: keyA}), nil) // itself
		p.wantKeys("iqn.c/2=C")
		p.a.wantEvents(t)
	})
	t.Run("holder", func(t *testing.T) {
		p := newPRTest(t).all()
		p.want(p.r.Reserve(hostB, keyB, 3), nil)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: keyB, Type: 2}), ErrReservationType)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: keyB, Type: 5}), nil)
		p.wantKeys("iqn.a/1=A iqn.c/2=C")
		p.wantHolder(5, hostA)
		p.a.wantEvents(t)
		p.b.wantEvents(t, EventRegistrationsPreempted)
		p.c.wantEvents(t, EventReservationsReleased) // the type has changed
		p.want(p.preempt(Preempt{From: hostC, Key: keyC, Target: keyA, Type: 5}), nil)
		p.wantHolder(5, hostC)
		p.a.wantEvents(t, EventRegistrationsPreempted)
		p.c.wantEvents(t)
	})
	t.Run("own reservation", func(t *testing.T) {
		p := newPRTest(t).all()
		p.want(p.r.Reserve(hostA, keyA, 1), nil)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: keyA, Type: 6}), nil)
		p.wantKeys("iqn.a/1=A iqn.b/1=B iqn.c/2=C")
		p.wantHolder(6, hostA)
		p.b.wantEvents(t, EventReservationsReleased)
	})
	t.Run("not the holder", func(t *testing.T) {
		p := newPRTest(t).all()
		p.want(p.r.Reserve(hostB, keyB, 1), nil)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: keyC, Type: 2}), nil)
		p.wantKeys("iqn.a/1=A iqn.b/1=B")
		p.wantHolder(1, hostB)
		p.b.wantEvents(t)
		p.c.wantEvents(t, EventRegistrationsPreempted)
	})
	t.Run("all registrants", func(t *testing.T) {
		p := newPRTest(t).all()
		p.want(p.r.Reserve(hostB, keyB, 7), nil)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: keyB, Type: 3}), nil)
		p.wantKeys("iqn.a/1=A iqn.c/2=C")
		p.wantHolder(7, hostB)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Type: 0}), ErrReservationType)
		p.want(p.preempt(Preempt{From: hostA, Key: keyA, Type: 3}), nil)
		p.wantKeys("iqn.a/1=A")
		p.wantHolder(3, hostA)
		p.b.wantEvents(t, EventRegistrationsPreempted)
		p.c.wantEvents(t, EventRegistrationsPreempted)
	})
	t.Run("same key", func(t *testing.T) {
		p := newPRTest(t)
		p.want(p.r.Register(Register{From: hostA, NewKey: 1}), nil)
		p.want(p.r.Register(Register{From: hostB, NewKey: 1}), nil)
		p.want(p.r.Register(Register{From: hostC, NewKey: 1}), nil)
		p.want(p.r.Reserve(hostB, 1, 5), nil)
		p.want(p.preempt(Preempt{From: hostA, Key: 1, Target: 1, Type: 5}), nil)
		p.wantKeys("iqn.a/1=1")
		p.wantHolder(5, hostA)
	})
}

// TestPreemptAndAbort checks PERSISTENT RESERVE OUT PREEMPT AND ABORT (SPC-4 §5.13.11.2.6).
func TestPreemptAndAbort(t *testing.T) {
	p := newPRTest(t)
	for _, h := range []Initiator{hostA, hostB, hostC} {
		p.want(p.r.Register(Register{From: h, NewKey: 1}), nil)
	}
	done := 0
	p.want(p.r.Preempt(Preempt{From: hostA, Key: 1, Target: 1, Abort: true}, func() { done++ }), nil)
	if len(p.a.aborts) != 0 || len(p.b.aborts) != 1 || len(p.c.aborts) != 1 {
		t.Fatalf("aborts: %d %d %d", len(p.a.aborts), len(p.b.aborts), len(p.c.aborts))
	}
	p.b.aborts[0]()
	if done != 0 {
		t.Error("done before all tasks have ended")
	}
	p.c.aborts[0]()
	if done != 1 {
		t.Errorf("done %d times", done)
	}
}

// TestMove checks PERSISTENT RESERVE OUT REGISTER AND MOVE (SPC-4 §5.13.8).
func TestMove(t *testing.T) {
	p := newPRTest(t).all()
	to := Initiator{"iqn.d,i,0x1", 2}
	p.want(p.r.Move(Move{From: hostA, Key: keyA, NewKey: 4, To: to}), ErrNoReservation)
	p.want(p.r.Move(Move{From: to, NewKey: 4, To: hostA}), ErrConflict)
	p.want(p.r.Reserve(hostA, keyA, 3), nil)
	p.want(p.r.Move(Move{From: hostA, Key: keyB, NewKey: 4, To: to}), ErrConflict)
	p.want(p.r.Move(Move{From: hostB, Key: keyB, NewKey: 4, To: to}), ErrConflict)
	p.want(p.r.Move(Move{From: hostA, Key: keyA, NewKey: 0, To: to}), ErrReservationParameter)
	p.want(p.r.Move(Move{From: hostA, Key: keyA, NewKey: 4, To: hostA}), ErrReservationParameter)
	p.want(p.r.Move(Move{From: hostA, Key: keyA, NewKey: 4, To: Initiator{}}), ErrReservationParameter)
	generation := p.r.Table().Generation
	p.want(p.r.Move(Move{From: hostA, Key: keyA, NewKey: 4, To: to, Unregister: true, Persist: true}), nil)
	p.wantKeys("iqn.b/1=B iqn.c/2=C iqn.d/2=4")
	p.wantHolder(3, to)
	if g := p.r.Table(); g.Generation != generation+1 || !g.Persist || p.store.blob == nil {
		t.Errorf("generation %d, persist %v", g.Generation, g.Persist)
	}
	p.want(p.r.Move(Move{From: to, Key: 4, NewKey: 5, To: hostB}), nil)
	p.wantKeys("iqn.b/1=5 iqn.c/2=C iqn.d/2=4")
	p.wantHolder(3, hostB)
	p.want(p.r.Release(hostB, 5, 3), nil)
	p.want(p.r.Reserve(hostB, 5, 8), nil)
	p.want(p.r.Move(Move{From: hostB, Key: 5, NewKey: 5, To: to}), ErrConflict)

	var many []Registrant
	for i := range MaxRegistrations - 4 {
		many = append(many, Registrant{Name: fmt.Sprint("iqn.many", i)})
	}
	p.want(p.r.Release(hostB, 5, 8), nil)
	p.want(p.r.Register(Register{From: hostA, NewKey: 1, Others: many}), nil)
	p.want(p.r.Reserve(hostA, 1, 3), nil)
	p.want(p.r.Move(Move{From: hostA, Key: 1, NewKey: 5, To: Initiator{"iqn.z", 1}}), ErrTooManyRegistrations)
	p.want(p.r.Move(Move{From: hostA, Key: 1, NewKey: 5, To: Initiator{"iqn.z", 1}, Unregister: true}), nil)
}

// TestConflicts checks which accesses conflict (SPC-4 §5.13.3, SBC-3 §4.17).
func TestConflicts(t *testing.T) {
	const none = "holder --, registrant --, stranger --"
	for typ, want := range map[ReservationType]string{
		0: none,
		1: "holder --, registrant -w, stranger -w",
		3: "holder --, registrant rw, stranger rw",
		5: "holder --, registrant --, stranger -w",
		6: "holder --, registrant --, stranger rw",
		7: "holder --, registrant --, stranger -w",
		8: "holder --, registrant --, stranger rw",
	} {
		p := newPRTest(t).all()
		if typ != 0 {
			p.want(p.r.Reserve(hostA, keyA, typ), nil)
		}
		var got []string
		for _, i := range []struct {
			name string
			Initiator
		}{{"holder", hostA}, {"registrant", hostB}, {"stranger", Initiator{hostA.Name, 9}}} {
			s := []byte("--")
			if p.r.Conflicts(i.Initiator, AccessRead) {
				s[0] = 'r'
			}
			if p.r.Conflicts(i.Initiator, AccessWrite) {
				s[1] = 'w'
			}
			if p.r.Conflicts(i.Initiator, AccessNone) || p.r.Reserved(i.Initiator) {
				t.Errorf("%v: %s conflicts without access", typ, i.name)
			}
			got = append(got, i.name+" "+string(s))
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%v: got %s, want %s", typ, s, want)
		}
		if typ.String() == "" || ReservationType(2).String() == "" {
			t.Error("no text")
		}
	}
}

// TestReserveUnit checks RESERVE and RELEASE (SPC-2 §5.5.1, §7.20, §7.23).
func TestReserveUnit(t *testing.T) {
	p := newPRTest(t)
	p.want(p.r.ReleaseUnit(hostA), nil)
	p.want(p.r.ReserveUnit(hostA), nil)
	p.want(p.r.ReserveUnit(hostA), nil)
	p.want(p.r.ReserveUnit(hostB), ErrConflict)
	p.want(p.r.ReleaseUnit(hostB), nil)
	if p.r.Reserved(hostA) || !p.r.Reserved(hostB) {
		t.Error("reserved for the wrong one")
	}
	for _, a := range []Access{AccessNone, AccessRead, AccessWrite} {
		if p.r.Conflicts(hostA, a) || !p.r.Conflicts(hostB, a) {
			t.Error("conflict of the wrong one")
		}
	}
	p.want(p.r.Register(Register{From: hostA, NewKey: 1}), ErrConflict)
	p.want(p.r.Register(Register{From: hostB, NewKey: 1, IgnoreKey: true}), ErrConflict)
	p.r.NexusLost(hostB)
	if !p.r.Reserved(hostB) {
		t.Error("released by another's loss")
	}
	p.r.NexusLost(hostA)
	p.r.NexusLost(hostA)
	if p.r.Reserved(hostB) {
		t.Error("still reserved")
	}
	p.want(p.r.ReserveUnit(hostB), nil)
	p.r.Reset()
	p.r.Reset()
	p.want(p.r.ReserveUnit(hostA), nil)
	p.want(p.r.ReleaseUnit(hostA), nil)
	p.want(p.r.Register(Register{From: hostA, NewKey: 1}), nil)
	p.want(p.r.ReserveUnit(hostA), ErrConflict)
	p.want(p.r.ReleaseUnit(hostA), ErrConflict)
	p.want(p.r.Reserve(hostA, 1, 3), nil)
	p.r.Reset()
	p.r.NexusLost(hostA)
	p.wantHolder(3, hostA)
}

// TestPersistThroughPowerLoss checks APTPL (SPC-4 §5.13.4).
func TestPersistThroughPowerLoss(t *testing.T) {
	p := newPRTest(t)
	restart := func() {
		t.Helper()
		p.u = newTestUnit(t, func(c *Config) { c.Reservations = p.store })
		p.r = &p.u.Reservations
	}
	if !p.r.CanPersist() {
		t.Error("cannot persist")
	}
	p.want(p.r.Register(Register{From: hostA, NewKey: keyA}), nil)
	if p.store.saves != 0 {
		t.Error("saved without APTPL")
	}
	p.want(p.r.Register(Register{From: hostB, NewKey: keyB, TransportID: []byte{5, 0, 0, 0}, Persist: true}), nil)
	p.want(p.r.Reserve(hostB, keyB, 5), nil)
	restart()
	p.wantKeys("iqn.a/1=A iqn.b/1=B")
	p.wantHolder(5, hostB)
	reg, ok := p.r.Table().Lookup(hostB)
	if g := p.r.Table(); g.Generation != 0 || !g.Persist || !ok || len(reg.TransportID) != 4 {
		t.Errorf("restored %+v", g)
	}
	if !p.r.Conflicts(hostC, AccessWrite) || p.r.Conflicts(hostA, AccessWrite) {
		t.Error("the restored reservation does not hold")
	}
	p.want(p.r.Release(hostB, keyB, 5), nil)
	p.want(p.r.Reserve(hostA, keyA, 8), nil)
	restart()
	p.wantHolder(8, Initiator{})
	if !p.r.Table().Holds(hostB) {
		t.Error("registrant is no holder")
	}

	// A failing store changes nothing.
	before := p.r.Table()
	p.store.err = errors.New("disk full")
	p.want(p.r.Release(hostB, keyB, 8), p.store.err)
	p.want(p.r.Clear(hostB, keyB), p.store.err)
	p.want(p.r.Register(Register{From: hostC, NewKey: keyC, Persist: true}), p.store.err)
	p.want(p.preempt(Preempt{From: hostA, Key: keyA, Target: keyB, Abort: true}), p.store.err)
	if p.r.Table() != before {
		t.Error("changed although it was not saved")
	}
	p.store.err = nil
	p.want(p.r.Release(hostB, keyB, 8), nil)

	// The last registration without APTPL forgets all at the next power loss.
	p.want(p.r.Register(Register{From: hostC, NewKey: keyC}), nil)
	p.wantKeys("iqn.a/1=A iqn.b/1=B iqn.c/2=C")
	if p.store.blob != nil {
		t.Error("still stored")
	}
	restart()
	p.wantKeys("")

	memory := newTestUnit(t)
	p.want(memory.Reservations.Register(Register{From: hostA, NewKey: 1, Persist: true}), ErrNotPersistent)
	p.want(memory.Reservations.Register(Register{From: hostA, NewKey: 1}), nil)
	p.want(memory.Reservations.Reserve(hostA, 1, 1), nil)
	p.want(memory.Reservations.Move(Move{From: hostA, Key: 1, NewKey: 1, To: hostB, Persist: true}), ErrNotPersistent)
	if memory.Reservations.CanPersist() {
		t.Error("can persist")
	}
}

// TestSaveFailureIsMadeGood checks that a failed save, which may have reached
// the store or not, is followed by another one.
func TestSaveFailureIsMadeGood(t *testing.T) {
	p := newPRTest(t)
	p.want(p.r.Register(Register{From: hostA, NewKey: 1, Persist: true}), nil)
	saves := p.store.saves
	p.store.err = errors.New("unknown outcome")
	p.want(p.r.Register(Register{From: hostA, Key: 1, NewKey: 2, Persist: true}), p.store.err)
	p.store.err = nil
	p.want(p.r.Register(Register{From: hostA, Key: 1, NewKey: 1, Persist: true}), nil)
	if p.store.saves != saves+1 {
		t.Error("not saved again")
	}
}

func TestDecodeTableRefuses(t *testing.T) {
	p := newPRTest(t).all()
	p.want(p.r.Register(Register{From: hostA, Key: keyA, NewKey: keyA, Persist: true}), nil)
	p.want(p.r.Reserve(hostA, keyA, 3), nil)
	good := p.store.blob
	if err := CheckReservations(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 0x40
		if CheckReservations(bad) == nil {
			t.Errorf("byte %d changed: accepted", i)
		}
		if CheckReservations(good[:i]) == nil {
			t.Errorf("cut at %d: accepted", i)
		}
	}
	for name, change := range map[string]func(*Table){
		"type":      func(t *Table) { t.Type = 2 },
		"zero key":  func(t *Table) { t.Registrations[0].Key = 0 },
		"duplicate": func(t *Table) { t.Registrations[1].Initiator = t.Registrations[0].Initiator },
		"long name": func(t *Table) { t.Registrations[0].Initiator.Name = strings.Repeat("x", 2000) },
		"too many": func(t *Table) {
			for i := range MaxRegistrations {
				t.add(Registration{Initiator: Initiator{Port: uint16(i)}, Key: 1})
			}
		},
		"no registrations": func(t *Table) { t.Registrations = nil; t.Type = 7 },
		"holder":           func(t *Table) { t.index[t.Holder] = 3 },
		"holder of none":   func(t *Table) { t.Type = 0x83 },
	} {
		d := p.r.Table().draft()
		change(d)
		if CheckReservations(encodeTable(d)) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzDecodeTable(f *testing.F) {
	f.Add(encodeTable(&Table{}))
	t := &Table{Type: 3, Holder: hostB}
	t.reindex()
	t.add(Registration{Initiator: hostA, Key: 1, TransportID: []byte{5}})
	t.add(Registration{Initiator: hostB, Key: 2})
	f.Add(encodeTable(t))
	f.Fuzz(func(t *testing.T, blob []byte) {
		table, err := decodeTable(blob)
		if err == nil && string(encodeTable(table)) != string(blob) {
			t.Error("another encoding of the same table was accepted")
		}
	})
}

// TestSetPersist checks Reservation Persistence without a registration (NVMe Base 2.0 §5.27.1.27).
func TestSetPersist(t *testing.T) {
	p := newPRTest(t)
	p.want(p.r.SetPersist(true), nil)
	p.want(p.r.SetPersist(true), nil)
	if !p.r.Table().Persist {
		t.Error("not persistent")
	}
	p.want(p.r.Register(Register{From: hostA, NewKey: keyA, Persist: true}), nil)
	if p.store.blob == nil {
		t.Error("the table is not kept")
	}
	p.want(p.r.SetPersist(false), nil)
	if p.store.blob != nil || p.r.Table().Persist {
		t.Error("the table is kept")
	}
	p.store.err = errors.New("no space")
	if err := p.r.SetPersist(true); err == nil || p.r.Table().Persist {
		t.Error("a change that could not be saved is seen")
	}
	p.u = newTestUnit(t)
	p.want(p.u.Reservations.SetPersist(true), ErrNotPersistent)
	p.want(p.u.Reservations.SetPersist(false), nil)
}
