package pool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"lintel.io/lintel/internal/array"
)

// Data is a pool as the data plane has it open: it opens the devices of the volumes and keeps
// what their units save. It is the only writer of the table in the pool's metadata,
// reads the documents, which a Pool keeps, perhaps in another process, and writes
// none of them. Its methods may be called concurrently.
type Data struct {
	dir      string
	file     *osFile
	owner    string
	table    *table
	problems []Problem
	docs     documents
	space    spaceAsker
}

// OpenData opens the pool in dir for the data plane. It fails where the table is damaged in
// both places, and where somebody else has it open for that.
func OpenData(dir string) (_ *Data, err error) {
	path := filepath.Join(dir, metadataName)
	f, err := openLocked(path, os.O_RDWR, tableSpan)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	d := &Data{dir: dir, file: f}
	if d.owner, _, err = readOwner(f, path); err != nil { // the Pool tells of the problems
		return nil, err
	}
	if d.docs, _, err = readDocuments(newPair(f, path, slotConfig, d.owner)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if d.table, d.problems, err = readTable(newPair(f, path, slotTable, d.owner)); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// Dir returns the pool's directory.
func (d *Data) Dir() string { return d.dir }

// ID returns the id of the pool.
func (d *Data) ID() string { return d.owner }

// Document returns the pool's document as it was when Data was opened.
func (d *Data) Document() *array.PoolDocument { return d.docs.pool }

// Array returns the array's document as it was when Data was opened.
func (d *Data) Array() *array.Document { return d.docs.array }

// Problems returns what was found wrong with the table when it was opened.
func (d *Data) Problems() []Problem { return slices.Clone(d.problems) }

// Err returns why the table is not written any more, nil where it is.
func (d *Data) Err() error { return d.table.pair.broken() }

// Space returns the capacity of the file system below and what is left of it for
// unprivileged processes, in bytes.
func (d *Data) Space() (total, free uint64, err error) { return d.space.of(d.dir) }

// Forget removes what the units of deleted volumes have kept: those whose ids the document
// knows as used, and lists no more. The devices of the volumes are closed.
func (d *Data) Forget(doc *array.PoolDocument) error {
	gone := d.table.ids(func(id string) bool { return used(doc, id) })
	if len(gone) == 0 {
		return nil
	}
	listed := make(map[string]bool, len(doc.Volumes))
	for _, v := range doc.Volumes {
		listed[v.ID] = true
	}
	gone = slices.DeleteFunc(gone, func(id string) bool { return listed[id] })
	if len(gone) == 0 {
		return nil
	}
	return d.table.change(func(units map[string]entry) {
		for _, id := range gone {
			delete(units, id)
		}
	})
}

// used reports whether the id is one that a volume of the pool has, or had.
func used(doc *array.PoolDocument, id string) bool {
	n, ours := doc.VolumeNumber(id)
	return ours && n < doc.NextVolume
}

// Close releases the pool. The volumes' devices are closed by those who opened them.
func (d *Data) Close() error { return d.file.Close() }
