package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lintel.io/lintel/internal/array"
)

// headOwner stands for the pool's id in the metadata area of a head's copy.
const headOwner = "head"

// HeadCopy is a head's own copy of the array's document: it tells which array the head
// belongs to when no pool can be opened, and whether a pool has lost changes.
type HeadCopy struct {
	file *osFile
	pair *pair
	doc  *array.Document

	// Problems is what was found when the copy was opened.
	Problems []Problem
}

// OpenHeadCopy opens the copy in dir, which it makes where there is none yet.
func OpenHeadCopy(dir string) (_ *HeadCopy, err error) {
	path := filepath.Join(dir, metadataName)
	if err := createHeadCopy(dir, path); err != nil {
		return nil, fmt.Errorf("making the head's copy of the configuration: %w", err)
	}
	f, err := openLocked(path, os.O_RDWR, wholeSpan)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	h := &HeadCopy{file: f}
	if err := h.load(path); err != nil {
		return nil, headError(dir, err)
	}
	return h, nil
}

// createHeadCopy makes the file, whole or not at all.
func createHeadCopy(dir, path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	staging := filepath.Join(dir, newPrefix+metadataName)
	f, err := os.OpenFile(staging, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(areaSize)
	if err == nil {
		err = format(&osFile{File: f}, headOwner)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(os.Rename(staging, path), syncDir(dir), syncDir(filepath.Dir(dir)))
}

// headError says what to do about a copy that cannot be read.
func headError(dir string, err error) error {
	if errors.Is(err, array.ErrNewer) {
		return fmt.Errorf("the head's copy of the configuration: %w", err)
	}
	return fmt.Errorf("the head's copy of the configuration is damaged: %w; if the pools are whole, remove %s", err, dir)
}

func (h *HeadCopy) load(path string) error {
	owner, problems, err := readOwner(h.file, path)
	if err != nil {
		return err
	}
	if owner != headOwner {
		return fmt.Errorf("%s belongs to pool %s", path, owner)
	}
	h.Problems = problems
	h.pair = newPair(h.file, path, slotConfig, owner)
	h.pair.mark = 0 // an older copy does no harm
	content, problems, err := h.pair.read()
	h.Problems = append(h.Problems, problems...)
	if errors.Is(err, errEmpty) {
		return nil
	}
	if err != nil {
		return err
	}
	h.doc, err = array.DecodeDocument(content.part1)
	return err
}

// Document returns the array's document as last stored, nil for none.
func (h *HeadCopy) Document() *array.Document { return h.doc }

// Store returns after the document is on stable storage. It does nothing where the document is
// the same pointer as before.
func (h *HeadCopy) Store(doc *array.Document) error {
	if doc == h.doc {
		return nil
	}
	b, err := doc.Encode()
	if err != nil {
		return err
	}
	if err := h.pair.write(nil, b); err != nil {
		return err
	}
	h.doc = doc
	return nil
}

// Close releases the file.
func (h *HeadCopy) Close() error { return h.file.Close() }
