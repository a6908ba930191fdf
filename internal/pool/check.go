package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lintel.io/lintel/internal/array"
)

// Names of what is in an array's data directory.
const (
	PoolsDir = "pools"
	HeadDir  = "head"
)

// Report is what Check found.
type Report struct {
	// Array is the name of the array, empty where it could not be read.
	Array string
	// Generation is the version of the array's document.
	Generation uint64
	// Pools, Volumes, Hosts and Mappings count what the documents name.
	Pools, Volumes, Hosts, Mappings int
	// Problems lists what is wrong; a directory without problems is whole.
	Problems []Problem
}

func (r *Report) add(path string, offset int64, fatal bool, format string, args ...any) {
	r.Problems = append(r.Problems, Problem{Path: path, Offset: offset, Fatal: fatal, Text: fmt.Sprintf(format, args...)})
}

// Fatal reports whether an array cannot be served from the directory as it is.
func (r *Report) Fatal() bool {
	return slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Fatal })
}

// Check reads everything that an array keeps in its data directory, changes nothing, and
// reports what is wrong. It fails where the directory cannot be read or is in use.
func Check(dir string) (*Report, error) {
	r := new(Report)
	entries, err := os.ReadDir(filepath.Join(dir, PoolsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, array.Errorf(array.KindNotFound, "%s holds no array: there is no directory %q in it", dir, PoolsDir)
	}
	if err != nil {
		return nil, err
	}
	var pools []*Pool
	defer func() {
		for _, p := range pools {
			_ = p.Close() // it was only read
		}
	}()
	for _, e := range entries {
		path := filepath.Join(dir, PoolsDir, e.Name())
		switch {
		case !e.IsDir():
			r.add(path, -1, false, "this file is not the array's")
		case strings.HasPrefix(e.Name(), newPrefix), strings.HasPrefix(e.Name(), oldPrefix):
			r.add(path, -1, false, "left from an interrupted creation or removal of a pool: the next start removes it")
		case foreign(e.Name()):
		default:
			p, err := r.checkPool(path)
			if err != nil {
				return nil, err
			}
			if p != nil {
				pools = append(pools, p)
			}
		}
	}
	if err := r.checkArray(dir, pools); err != nil {
		return nil, err
	}
	return r, nil
}

// noMetadata is what is wrong with a directory of pools without metadata in it.
const noMetadata = "the pool's metadata is missing: mount the file system that the pool is on, or move the directory away if it is no pool's"

// checkPool checks a pool by itself. It returns nil where it cannot be read.
func (r *Report) checkPool(dir string) (*Pool, error) {
	path := filepath.Join(dir, metadataName)
	f, err := openLocked(path, os.O_RDONLY, wholeSpan)
	if errors.Is(err, fs.ErrNotExist) {
		r.add(path, -1, true, "%s", noMetadata)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &Pool{dir: dir, file: f}
	err = p.load(f, path)
	r.Problems = append(r.Problems, p.problems...)
	var units *table
	if err == nil {
		var problems []Problem
		units, problems, err = readTable(newPair(f, path, slotTable, p.config.owner))
		r.Problems = append(r.Problems, problems...)
	}
	if err != nil {
		r.add(path, -1, true, "%v", strings.TrimPrefix(err.Error(), path+": "))
		return nil, f.Close()
	}
	left, problems, err := p.leftovers()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for _, l := range left {
		r.add(p.volumePath(l.id), -1, false, "%s: the next start removes it", l.why)
	}
	r.Problems = append(r.Problems, problems...)
	ids := make(map[string]bool)
	for _, v := range p.docs.pool.Volumes {
		ids[v.ID] = true
		if v.Kind != array.VolumeFile {
			continue
		}
		if _, err := fitBacking(p.volumePath(v.ID), v); err != nil {
			r.add(p.volumePath(v.ID), -1, false, "%v", err)
		}
	}
	for _, id := range units.ids(func(id string) bool { return !ids[id] && !used(p.docs.pool, id) }) {
		r.add(path, tableOffset, false, "the reservation table has an entry for %s, which was never a volume", id)
	}
	return p, nil
}

// checkArray checks what has to hold between the pools, and with the head's copy.
func (r *Report) checkArray(dir string, pools []*Pool) error {
	r.Pools = len(pools)
	var system *Pool
	docs := make([]*array.PoolDocument, 0, len(pools))
	for _, p := range pools {
		docs = append(docs, p.docs.pool)
		r.Volumes += len(p.docs.pool.Volumes)
		if p.docs.pool.System {
			system = p
		}
		if name := filepath.Base(p.dir); name != p.docs.pool.Name {
			r.add(p.dir, -1, true, "the directory holds pool %s: it was renamed", p.docs.pool.Name)
		}
	}
	if system == nil {
		r.add(filepath.Join(dir, PoolsDir), -1, true, "no system pool can be read: the configuration of the array is not there")
		return nil
	}
	doc := system.docs.array
	r.Array, r.Generation, r.Hosts, r.Mappings = doc.Name, doc.Generation, len(doc.Hosts), len(doc.Mappings)
	if state, err := array.NewState(doc, docs); err != nil {
		r.add(system.dir, -1, true, "the configuration breaks a rule: %v", err)
	} else {
		for _, m := range doc.Mappings {
			if v, _ := state.VolumeByID(m.Volume); v == nil {
				r.add(system.dir, -1, false, "%s maps LUN %d to volume %s, which is in no pool", m.ID, m.LUN, m.Volume)
			}
		}
	}
	for _, p := range pools {
		if p.docs.array.ID == doc.ID && p.docs.array.Generation > doc.Generation {
			r.addNewer(p.dir, p.docs.array, system)
		}
	}
	return r.checkHead(dir, system)
}

func (r *Report) addNewer(path string, newer *array.Document, system *Pool) {
	r.add(path, -1, true, "%v", newerCopy(newer, system.docs.pool.Name, system.docs.array))
}

// newerCopy says that a copy of the array's document is newer than the original.
func newerCopy(newer *array.Document, system string, doc *array.Document) error {
	return fmt.Errorf("the copy of the configuration is version %d, but pool %s has version %d: the pool has lost acknowledged changes", newer.Generation, system, doc.Generation)
}

func (r *Report) checkHead(dir string, system *Pool) error {
	path := filepath.Join(dir, HeadDir, metadataName)
	f, err := openLocked(path, os.O_RDONLY, wholeSpan)
	if errors.Is(err, fs.ErrNotExist) {
		r.add(path, -1, false, "the head's copy of the configuration is missing: the next start makes one")
		return nil
	}
	if err != nil {
		return err
	}
	h := &HeadCopy{file: f}
	if err := h.load(path); err != nil {
		r.add(path, -1, true, "%v", strings.TrimPrefix(err.Error(), path+": "))
		return f.Close()
	}
	r.Problems = append(r.Problems, h.Problems...)
	if h.doc != nil {
		switch {
		case h.doc.ID != system.docs.array.ID:
			r.add(path, -1, true, "the head belongs to array %s, its pools to %s", h.doc.ID, system.docs.array.ID)
		case h.doc.Generation > system.docs.array.Generation:
			r.addNewer(path, h.doc, system)
		}
	}
	return f.Close()
}
