package pool

import (
	"fmt"
	"testing"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/unit"
)

// A change that does not fit into the table fails alone, and not those that are written with it.
func TestTableThatIsFull(t *testing.T) {
	file := newFaultFile()
	tbl := newTable(newPair(file, "m", slotTable, "p1"), map[string]entry{})
	p := &Data{table: tbl}
	large := make([]byte, maxReservations)
	for i := range tableSize / (maxReservations * 4 / 3) {
		if err := p.SaveReservations(unit.ID(fmt.Sprint("large", i)), large); err != nil && array.KindOf(err) != array.KindInvalid {
			t.Fatal(err)
		}
	}
	changes := []*tableChange{
		{apply: func(units map[string]entry) { setEntry(units, "a", entry{Reservations: []byte{1}}) }},
		{apply: func(units map[string]entry) { setEntry(units, "too much", entry{Reservations: large}) }},
		{apply: func(units map[string]entry) { setEntry(units, "large0", entry{}) }},
	}
	changes = append(changes, &tableChange{apply: func(units map[string]entry) {
		setEntry(units, "more", entry{Reservations: large})
		setEntry(units, "still more", entry{Reservations: large})
	}})
	tbl.waiting, tbl.writing = &tableBatch{changes: changes, done: make(chan struct{})}, true
	tbl.writeBatch()
	for i, failed := range []bool{false, true, false, true} {
		if err := changes[i].err; (err != nil) != failed || failed && array.KindOf(err) != array.KindInvalid {
			t.Errorf("change %d: %v", i, err)
		}
	}
	if _, there := tbl.units["large0"]; there || tbl.units["a"].Reservations == nil {
		t.Error("what fits was not written")
	}
}
