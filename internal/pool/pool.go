// Package pool keeps pools: the documents of array and pool, reservations and
// saved settings in a metadata area of two alternating slots each, and the
// backing stores of the volumes. A manager has a Pool of it and a data plane its
// Data; they may be two processes.
//
// A file pool is a directory:
//
//	metadata        the metadata area, see slot.go
//	volumes/ID      backing files, sparse
//
// What is written of the metadata area is locked. Nothing on disk is ever
// repaired silently: what is wrong is reported, and what cannot be decided
// safely is refused.
package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"lintel.io/lintel/internal/array"
)

// Names of what is in a pool's directory.
const (
	metadataName = "metadata"
	volumesName  = "volumes"
	// newPrefix and oldPrefix mark directories of pools that are being made and
	// removed.
	newPrefix = ".new-"
	oldPrefix = ".old-"
)

// Pool is a pool as its manager has it open: it keeps the documents and makes, changes and
// removes the backing stores of volumes. Data is what the data plane has of the same
// pool. Its methods may be called concurrently, but for Commit and the changes of
// backing stores, which have one caller at a time.
type Pool struct {
	dir    string
	file   *osFile
	config *pair

	problems []Problem
	space    spaceAsker

	mu     sync.Mutex
	docs   documents
	closed bool
}

// Create makes the pool doc in the directory dir, which must not exist, with a copy of
// the array's document, and opens it. After a crash the pool is there whole or
// not at all.
func Create(dir string, doc *array.PoolDocument, arr *array.Document) (_ *Pool, err error) {
	if err := checkFree(dir); err != nil {
		return nil, err
	}
	parent, name := filepath.Split(filepath.Clean(dir))
	staging := filepath.Join(parent, newPrefix+name)
	if err := removeStaging(staging); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(staging, volumesName), 0o700); err != nil {
		return nil, createError(doc.Name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(createError(doc.Name, err), removeStaging(staging))
		}
	}()
	if err := createMetadata(filepath.Join(staging, metadataName), doc, arr); err != nil {
		return nil, err
	}
	if err := errors.Join(syncDir(staging), os.Rename(staging, dir), syncDir(parent)); err != nil {
		return nil, err
	}
	return Open(dir)
}

// CheckNew returns why Create would not make a pool in dir, as far as that can be told without
// trying.
func CheckNew(dir string) error {
	if err := checkFree(dir); err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	err := writable(parent)
	if err == nil {
		err = hasRoom(parent, areaSize)
	}
	if err != nil {
		return createError(filepath.Base(dir), err)
	}
	return nil
}

// createError says why a pool was not made, and what to do.
func createError(name string, err error) error {
	err = fmt.Errorf("making pool %s: %w", name, err)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return array.Errorf(array.KindBusy, "%w: free %s, which a pool takes for its metadata", err, array.FormatSize(areaSize))
	}
	return storeError(err)
}

func checkFree(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return array.Errorf(array.KindExists, "pool directory %s exists already", dir)
	}
	return nil
}

// createMetadata makes a metadata file with the first version of the documents. Its space
// is allocated, so that a full file system does not stop changes.
func createMetadata(path string, doc *array.PoolDocument, arr *array.Document) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	file := &osFile{File: f}
	err = allocate(f, areaSize)
	if err == nil {
		err = format(file, doc.ID)
	}
	if err == nil {
		err = writeFirst(file, path, doc, arr)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func writeFirst(f File, path string, doc *array.PoolDocument, arr *array.Document) error {
	docs, err := encodeDocuments(doc, arr)
	if err != nil {
		return err
	}
	if err := newPair(f, path, slotConfig, doc.ID).write(docs[0], docs[1]); err != nil {
		return err
	}
	b, err := encodeTable(nil)
	if err != nil {
		return err
	}
	return newPair(f, path, slotTable, doc.ID).write(b, nil)
}

func encodeDocuments(doc *array.PoolDocument, arr *array.Document) (docs [2][]byte, err error) {
	if docs[0], err = doc.Encode(); err != nil {
		return docs, err
	}
	docs[1], err = arr.Encode()
	return docs, err
}

// allocate makes f size bytes long, with all its blocks allocated where the file
// system can.
func allocate(f *os.File, size int64) error {
	err := ignoringEINTR(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

// Open opens the pool in dir and finishes what a crash has left undone, as far as it is
// provably the pool's own. It fails where the metadata is damaged in both places,
// where a newer program has written it, and where somebody else has the pool open.
func Open(dir string) (_ *Pool, err error) {
	path := filepath.Join(dir, metadataName)
	f, err := openLocked(path, os.O_RDWR, configSpan)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	p := &Pool{dir: dir, file: f}
	if err := p.load(f, path); err != nil {
		return nil, err
	}
	if err := p.recover(); err != nil {
		return nil, err
	}
	return p, nil
}

// load reads and checks what a Pool keeps.
func (p *Pool) load(f File, path string) error {
	owner, problems, err := readOwner(f, path)
	if err != nil {
		return err
	}
	p.config = newPair(f, path, slotConfig, owner)
	p.problems = problems
	if p.docs, problems, err = readDocuments(p.config); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	p.problems = append(p.problems, problems...)
	return nil
}

// documents are what the configuration slots hold.
type documents struct {
	pool    *array.PoolDocument
	array   *array.Document
	encoded [2][]byte
}

// readDocuments returns the documents that count.
func readDocuments(p *pair) (documents, []Problem, error) {
	content, problems, err := p.read()
	if err != nil {
		return documents{}, problems, err
	}
	d := documents{encoded: [2][]byte{content.part0, content.part1}}
	if d.pool, err = array.DecodePoolDocument(content.part0); err != nil {
		return d, problems, err
	}
	if err := d.pool.Validate(); err != nil {
		return d, problems, err
	}
	if d.pool.ID != p.owner {
		return d, problems, fmt.Errorf("the metadata of pool %s holds the document of pool %s", p.owner, d.pool.ID)
	}
	d.array, err = array.DecodeDocument(content.part1)
	return d, problems, err
}

// Dir returns the pool's directory.
func (p *Pool) Dir() string { return p.dir }

// Document returns the pool's document as last committed.
func (p *Pool) Document() *array.PoolDocument {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.docs.pool
}

// Array returns the array's document as last committed to this pool.
func (p *Pool) Array() *array.Document {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.docs.array
}

// Problems returns what was found when the pool was opened.
func (p *Pool) Problems() []Problem { return slices.Clone(p.problems) }

// Err returns why the metadata is not written any more, nil where it is.
func (p *Pool) Err() error { return p.config.broken() }

// Commit returns after both documents are on stable storage, together: after a crash both
// are there or neither. Where it fails, the former ones count. A document that is
// the same pointer as before is not encoded again.
func (p *Pool) Commit(doc *array.PoolDocument, arr *array.Document) error {
	p.mu.Lock()
	old := p.docs
	p.mu.Unlock()
	if doc == old.pool && arr == old.array {
		return nil
	}
	next := documents{doc, arr, old.encoded}
	var err error
	if doc != old.pool {
		if next.encoded[0], err = doc.Encode(); err != nil {
			return err
		}
	}
	if arr != old.array {
		if next.encoded[1], err = arr.Encode(); err != nil {
			return err
		}
	}
	if err := p.config.write(next.encoded[0], next.encoded[1]); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.docs = next
	return nil
}

// Space returns the capacity of the file system below and what is left of it for
// unprivileged processes, in bytes.
func (p *Pool) Space() (total, free uint64, err error) { return p.space.of(p.dir) }

// Close releases the pool. Its volumes' devices are closed by those who opened them.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	return p.file.Close()
}

// Remove closes an empty pool and removes its directory. After a crash the pool is
// there whole or not at all. It fails with KindBusy where the directory holds
// anything that is not the pool's own.
func (p *Pool) Remove() error {
	entries, err := os.ReadDir(filepath.Join(p.dir, volumesName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return array.Errorf(array.KindBusy, "pool %s still has the file %s: remove it by hand if it is not needed", p.Document().Name, filepath.Join(p.dir, volumesName, entries[0].Name()))
	}
	parent, name := filepath.Split(filepath.Clean(p.dir))
	old := filepath.Join(parent, oldPrefix+name)
	if err := removeStaging(old); err != nil {
		return err
	}
	if err := os.Rename(p.dir, old); err != nil { // the pool goes on
		return fmt.Errorf("removing pool %s: %w", p.Document().Name, err)
	}
	if err := errors.Join(p.Close(), syncDir(parent)); err != nil {
		return fmt.Errorf("removing pool %s: %w", p.Document().Name, err)
	}
	return removeStaging(old)
}

// removeStaging removes the directory of a pool that was never finished, or is being
// removed: the metadata and an empty volumes directory, nothing else.
func removeStaging(dir string) error {
	for _, path := range []string{filepath.Join(dir, metadataName), filepath.Join(dir, volumesName), dir} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing an unfinished pool: %w", err)
		}
	}
	return nil
}

// List returns the directories of the pools below dir, in order of their names.
func List(dir string) ([]string, error) {
	dirs, _, err := list(dir)
	return dirs, err
}

// Sweep removes what unfinished creations and removals of pools have left below dir.
func Sweep(dir string) error {
	_, left, err := list(dir)
	for _, path := range left {
		err = errors.Join(err, removeStaging(path))
	}
	return err
}

// foreign reports whether a directory beside the pools is the file system's own, such as
// lost+found or a folder of snapshots.
func foreign(name string) bool { return name == "lost+found" || strings.HasPrefix(name, ".") }

func list(dir string) (pools, left []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case !e.IsDir():
		case strings.HasPrefix(e.Name(), newPrefix), strings.HasPrefix(e.Name(), oldPrefix):
			left = append(left, path)
		case !foreign(e.Name()):
			pools = append(pools, path)
		}
	}
	return pools, left, err
}
