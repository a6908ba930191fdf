package pool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/unit"
)

// tableFormat is the version of the table's format.
const tableFormat = 1

// Bounds of what a unit keeps in the table.
const (
	maxReservations = 256 << 10
	maxSettings     = 32
	maxSettingKey   = 64
)

// entry is what a unit keeps beside its volume's document. It is not changed.
type entry struct {
	Reservations []byte            `json:"reservations,omitempty"`
	Settings     map[string][]byte `json:"settings,omitempty"`
}

type tableDocument struct {
	Format int              `json:"format"`
	Units  map[string]entry `json:"units,omitempty"`
}

func decodeTable(b []byte) (map[string]entry, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("reservation table: %w", err)
	}
	if head.Format != tableFormat {
		return nil, fmt.Errorf("reservation table: format %d, this program knows %d", head.Format, tableFormat)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var doc tableDocument
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("reservation table: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("reservation table: there is data behind its end")
	}
	if doc.Units == nil {
		doc.Units = make(map[string]entry)
	}
	return doc.Units, nil
}

func encodeTable(units map[string]entry) ([]byte, error) {
	return json.Marshal(tableDocument{Format: tableFormat, Units: units})
}

// table is the pool's table of reservations and settings. Changes that come while one
// is being written are written together by the next write.
type table struct {
	pair *pair

	mu      sync.Mutex
	units   map[string]entry // as on stable storage
	waiting *tableBatch      // changes that nobody writes yet
	writing bool
}

// tableBatch is changes that are written together.
type tableBatch struct {
	changes []*tableChange
	done    chan struct{}
}

type tableChange struct {
	apply func(map[string]entry)
	err   error
}

func newTable(p *pair, units map[string]entry) *table { return &table{pair: p, units: units} }

// readTable returns the table that counts. One that was erased as a whole, mark and all, is empty,
// and a problem: that is how an administrator gives up a damaged one.
func readTable(p *pair) (*table, []Problem, error) {
	content, problems, err := p.read()
	if errors.Is(err, errEmpty) && len(problems) == 0 {
		erased := Problem{Path: p.name, Offset: p.offset[0], Text: fmt.Sprintf("the %v was erased: what was kept for the volumes, such as persistent reservations, is gone", p.kind)}
		return newTable(p, map[string]entry{}), []Problem{erased}, nil
	}
	if err != nil {
		return nil, problems, err
	}
	units, err := decodeTable(content.part0)
	return newTable(p, units), problems, err
}

// ids returns the units with an entry for which f is true.
func (t *table) ids(f func(id string) bool) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for id := range t.units {
		if f(id) {
			list = append(list, id)
		}
	}
	return list
}

// get returns a unit's entry as of the last finished write.
func (t *table) get(id unit.ID) entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.units[string(id)]
}

// change applies f and returns after the result is on stable storage. f may be
// applied to several versions of the table; only one is kept.
func (t *table) change(f func(map[string]entry)) error {
	t.mu.Lock()
	if t.waiting == nil {
		t.waiting = &tableBatch{done: make(chan struct{})}
	}
	batch, c := t.waiting, &tableChange{apply: f}
	batch.changes = append(batch.changes, c)
	if t.writing {
		t.mu.Unlock()
		<-batch.done // whoever writes now sees to this batch next
		return c.err
	}
	t.writing = true
	t.mu.Unlock()
	t.writeBatch()
	return c.err
}

// writeBatch writes the changes that wait, and leaves those that have come in the
// meantime to a goroutine, so that nobody waits for the changes of others.
func (t *table) writeBatch() {
	t.mu.Lock()
	batch := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	err := t.store(batch.changes...)
	for _, c := range batch.changes {
		c.err = err
		if len(batch.changes) > 1 && array.KindOf(err) == array.KindInvalid { // what does not fit costs only itself
			c.err = t.store(c)
		}
	}
	t.mu.Lock()
	t.writing = t.waiting != nil
	more := t.writing
	t.mu.Unlock()
	close(batch.done)
	if more {
		go t.writeBatch()
	}
}

// store writes some changes. Only one goroutine does so at a time.
func (t *table) store(changes ...*tableChange) error {
	t.mu.Lock()
	units := maps.Clone(t.units)
	t.mu.Unlock()
	for _, c := range changes {
		c.apply(units)
	}
	b, err := encodeTable(units)
	if err == nil {
		err = t.pair.write(b, nil)
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.units = units
	return nil
}

// LoadReservations returns the stored reservation table of a unit, nil for none.
func (d *Data) LoadReservations(id unit.ID) ([]byte, error) {
	return bytes.Clone(d.table.get(id).Reservations), nil
}

// SaveReservations returns after the reservation table of a unit is on stable storage; nil
// removes it.
func (d *Data) SaveReservations(id unit.ID, blob []byte) error {
	if len(blob) > maxReservations {
		return array.Errorf(array.KindInvalid, "a reservation table of %d bytes is longer than %d", len(blob), maxReservations)
	}
	blob = bytes.Clone(blob)
	return d.table.change(func(units map[string]entry) {
		e := units[string(id)]
		e.Reservations = blob
		setEntry(units, id, e)
	})
}

// LoadSetting returns a saved setting of a unit, nil for none.
func (d *Data) LoadSetting(id unit.ID, key string) ([]byte, error) {
	return bytes.Clone(d.table.get(id).Settings[key]), nil
}

// SaveSetting returns after a setting of a unit is on stable storage; nil removes it.
func (d *Data) SaveSetting(id unit.ID, key string, blob []byte) error {
	if len(blob) > unit.MaxSetting || key == "" || len(key) > maxSettingKey {
		return array.Errorf(array.KindInvalid, "setting %q of %d bytes: keys have 1 to %d bytes, values at most %d", key, len(blob), maxSettingKey, unit.MaxSetting)
	}
	if s := d.table.get(id).Settings; len(s) >= maxSettings && s[key] == nil && blob != nil {
		return array.Errorf(array.KindInvalid, "unit %s has %d settings already", id, maxSettings)
	}
	blob = bytes.Clone(blob)
	return d.table.change(func(units map[string]entry) {
		e := units[string(id)]
		settings := maps.Clone(e.Settings)
		if blob == nil {
			delete(settings, key)
		} else {
			if settings == nil {
				settings = make(map[string][]byte)
			}
			settings[key] = blob
		}
		e.Settings = settings
		setEntry(units, id, e)
	})
}

func setEntry(units map[string]entry, id unit.ID, e entry) {
	if len(e.Reservations) == 0 && len(e.Settings) == 0 {
		delete(units, string(id))
		return
	}
	units[string(id)] = e
}

var (
	_ unit.ReservationStore = (*Data)(nil)
	_ unit.SettingStore     = (*Data)(nil)
)
