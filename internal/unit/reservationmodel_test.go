package unit

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// prModel is the reservation state in its plainest form.
type prModel struct {
	keys   map[Initiator]uint64
	typ    ReservationType
	holder Initiator
	gen    uint32
}

func (m *prModel) drop(i Initiator) {
	delete(m.keys, i)
	if m.typ == 7 || m.typ == 8 {
		if len(m.keys) == 0 {
			m.typ = 0
		}
	} else if m.holder == i {
		m.typ = 0
	}
}

func (m *prModel) holds(i Initiator) bool {
	return m.typ != 0 && m.keys[i] != 0 && (m.typ >= 7 || m.holder == i)
}

// TestReservationModel runs random services against a plain model.
func TestReservationModel(t *testing.T) {
	initiators := []Initiator{hostA, hostB, hostC, {hostA.Name, 2}}
	types := []ReservationType{1, 3, 5, 6, 7, 8}
	rapid.Check(t, func(t *rapid.T) {
		store := &fakeStore{}
		u, err := New(Config{ID: "v", Attributes: testAttributes(), Device: &fakeDevice{}, Group: NewGroup(1, "p"), Reservations: store})
		if err != nil {
			t.Fatal(err)
		}
		r := &u.Reservations
		m := &prModel{keys: map[Initiator]uint64{}}
		key := rapid.Uint64Range(0, 3)
		who := rapid.SampledFrom(initiators)
		check := func(t *rapid.T, got, want error) {
			if !errors.Is(got, want) || want == nil && got != nil {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
		allowed := func(from Initiator, k uint64) bool { return k != 0 && m.keys[from] == k }
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				table := r.Table()
				if len(table.Registrations) != len(m.keys) || table.Type != m.typ || table.Generation != m.gen {
					t.Fatalf("table %+v, model %+v", table, m)
				}
				for _, i := range initiators {
					reg, _ := table.Lookup(i)
					if reg.Key != m.keys[i] || table.Holds(i) != m.holds(i) {
						t.Fatalf("%v: table %+v, model %+v", i, table, m)
					}
					write := m.typ != 0 && !m.holds(i) && (m.typ < 5 || m.keys[i] == 0)
					read := write && (m.typ == 3 || m.typ == 6 || m.typ == 8)
					if r.Conflicts(i, AccessWrite) != write || r.Conflicts(i, AccessRead) != read {
						t.Fatalf("%v: wrong conflicts with %+v", i, m)
					}
				}
				if (store.blob != nil) != (table.Persist && len(m.keys) > 0) {
					t.Fatalf("stored %d bytes", len(store.blob))
				}
				if store.blob != nil {
					restored, err := decodeTable(store.blob)
					if err != nil || restored.Type != m.typ || !slices.EqualFunc(restored.Registrations, table.Registrations,
						func(a, b Registration) bool { return a.Initiator == b.Initiator && a.Key == b.Key }) {
						t.Fatalf("stored %+v, %v", restored, err)
					}
				}
			},
			"register": func(t *rapid.T) {
				q := Register{From: who.Draw(t, "from"), Key: key.Draw(t, "key"), NewKey: key.Draw(t, "new"),
					IgnoreKey: rapid.Bool().Draw(t, "ignore"), Persist: rapid.Bool().Draw(t, "persist")}
				err := r.Register(q)
				switch {
				case !q.IgnoreKey && m.keys[q.From] != q.Key:
					check(t, err, ErrConflict)
					return
				case q.NewKey != 0:
					m.keys[q.From] = q.NewKey
					m.gen++
				case m.keys[q.From] != 0:
					m.drop(q.From)
					m.gen++
				}
				check(t, err, nil)
			},
			"reserve": func(t *rapid.T) {
				from, k, typ := who.Draw(t, "from"), key.Draw(t, "key"), rapid.SampledFrom(types).Draw(t, "type")
				err := r.Reserve(from, k, typ)
				switch {
				case !allowed(from, k), m.typ != 0 && (!m.holds(from) || m.typ != typ):
					check(t, err, ErrConflict)
				default:
					check(t, err, nil)
					if m.typ == 0 {
						m.typ, m.holder = typ, from
					}
				}
			},
			"release": func(t *rapid.T) {
				from, k, typ := who.Draw(t, "from"), key.Draw(t, "key"), rapid.SampledFrom(types).Draw(t, "type")
				err := r.Release(from, k, typ)
				switch {
				case !allowed(from, k):
					check(t, err, ErrConflict)
				case m.holds(from) && m.typ != typ:
					check(t, err, ErrInvalidRelease)
				default:
					check(t, err, nil)
					if m.holds(from) {
						m.typ = 0
					}
				}
			},
			"clear": func(t *rapid.T) {
				from, k := who.Draw(t, "from"), key.Draw(t, "key")
				err := r.Clear(from, k)
				if !allowed(from, k) {
					check(t, err, ErrConflict)
					return
				}
				check(t, err, nil)
				m.keys, m.typ = map[Initiator]uint64{}, 0
				m.gen++
			},
			"preempt": func(t *rapid.T) {
				q := Preempt{From: who.Draw(t, "from"), Key: key.Draw(t, "key"), Target: key.Draw(t, "target"),
					Type: rapid.SampledFrom(types).Draw(t, "type")}
				err := r.Preempt(q, func() {})
				switch {
				case !allowed(q.From, q.Key):
					check(t, err, ErrConflict)
					return
				case q.Target == 0 && m.typ < 7:
					check(t, err, ErrReservationParameter)
					return
				}
				victims := map[Initiator]bool{}
				for i, k := range m.keys {
					if q.Target == 0 || k == q.Target {
						victims[i] = true
					}
				}
				if len(victims) == 0 {
					check(t, err, ErrConflict)
					return
				}
				check(t, err, nil)
				m.gen++
				if q.Target == 0 || m.typ != 0 && m.typ < 7 && m.keys[m.holder] == q.Target {
					delete(victims, q.From)
					m.typ, m.holder = q.Type, q.From
				}
				for i := range victims {
					m.drop(i)
				}
			},
			"move": func(t *rapid.T) {
				q := Move{From: who.Draw(t, "from"), Key: key.Draw(t, "key"), NewKey: key.Draw(t, "new"), To: who.Draw(t, "to"),
					Unregister: rapid.Bool().Draw(t, "unregister"), Persist: rapid.Bool().Draw(t, "persist")}
				err := r.Move(q)
				switch {
				case !allowed(q.From, q.Key):
					check(t, err, ErrConflict)
				case m.typ == 0:
					check(t, err, ErrNoReservation)
				case m.typ >= 7 || !m.holds(q.From):
					check(t, err, ErrConflict)
				case q.NewKey == 0 || q.To == q.From:
					check(t, err, ErrReservationParameter)
				default:
					check(t, err, nil)
					m.keys[q.To], m.holder = q.NewKey, q.To
					m.gen++
					if q.Unregister {
						m.drop(q.From)
					}
				}
			},
		})
	})
}
