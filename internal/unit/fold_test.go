package unit

import "testing"

// TestStoredNames checks that a stored table counts for its initiators in whatever case it has
// their iSCSI names (RFC 7143 §4.2.7.2, SPC-4 §5.13.5).
func TestStoredNames(t *testing.T) {
	const stored, normal = "iqn.1991-05.com.Microsoft:HOST1,i,0x40000137aa01", "iqn.1991-05.com.microsoft:host1,i,0x40000137aa01"
	other := Initiator{"iqn.b,i,0x1", 1}
	table := func(holder Initiator, regs ...Registration) []byte {
		d := &Table{Persist: true, Type: WriteExclusive, Holder: holder, Registrations: regs}
		d.reindex()
		return encodeTable(d)
	}
	old, now := Initiator{stored, 1}, Initiator{normal, 1}
	for name, test := range map[string]struct {
		blob []byte
		keys []uint64
		held bool
	}{
		"holder":                  {table(old, Registration{Initiator: other, Key: 1}, Registration{Initiator: old, Key: 2}), []uint64{1, 2}, true},
		"registrant":              {table(other, Registration{Initiator: other, Key: 1}, Registration{Initiator: old, Key: 2}), []uint64{1, 2}, false},
		"in normal form":          {table(now, Registration{Initiator: now, Key: 2}), []uint64{2}, true},
		"twice, the holder later": {table(old, Registration{Initiator: now, Key: 1}, Registration{Initiator: old, Key: 2}), []uint64{2}, true},
		"twice, the holder first": {table(old, Registration{Initiator: old, Key: 2}, Registration{Initiator: now, Key: 1}), []uint64{2}, true},
	} {
		t.Run(name, func(t *testing.T) {
			u := newTestUnit(t, func(c *Config) { c.Reservations = &fakeStore{blob: test.blob} })
			got := u.Reservations.Table()
			var keys []uint64
			for _, r := range got.Registrations {
				keys = append(keys, r.Key)
			}
			if r, ok := got.Lookup(now); !ok || r.Key != 2 || got.Holds(now) != test.held || len(keys) != len(test.keys) || keys[0] != test.keys[0] {
				t.Errorf("the host finds %+v, with keys %v, holder %t", r, keys, got.Holds(now))
			}
			if _, ok := got.Lookup(old); ok {
				t.Error("the name is kept as the host wrote it")
			}
			if got.Holds(now) != test.held || u.Reservations.Conflicts(now, AccessWrite) == test.held {
				t.Error("the reservation is another's")
			}
			if err := u.Reservations.Register(Register{From: now, Key: 2, NewKey: 3, Persist: true}); err != nil {
				t.Error(err)
			}
		})
	}
}
