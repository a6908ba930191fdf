package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lintel.io/lintel/internal/array"
)

// Part is a pool that has been opened: a Pool or a Data.
type Part interface {
	Dir() string
	Document() *array.PoolDocument
	Array() *array.Document
}

// State puts the array together from its pools; head is the head's copy of the array's
// document, nil for none. It fails where a pool is there twice or has another name than its
// directory, where not exactly one is the system pool, and where a copy of the
// array's document is newer than that pool's, or belongs to another array.
func State[P Part](pools []P, head *array.Document) (*array.State, error) {
	var system Part
	byID := make(map[string]Part, len(pools))
	docs := make([]*array.PoolDocument, 0, len(pools))
	for _, p := range pools {
		doc := p.Document()
		switch twin := byID[doc.ID]; {
		case twin != nil:
			return nil, fmt.Errorf("%s and %s are the same pool: remove the copy", twin.Dir(), p.Dir())
		case filepath.Base(p.Dir()) != doc.Name:
			return nil, fmt.Errorf("the directory %s holds pool %s: give it its name back", p.Dir(), doc.Name)
		case doc.System && system != nil:
			return nil, fmt.Errorf("%s and %s are both system pools: serve one array from one data directory", system.Dir(), p.Dir())
		case doc.System:
			system = p
		}
		byID[doc.ID] = p
		docs = append(docs, doc)
	}
	if system == nil {
		return nil, errors.New("the system pool, which keeps the configuration, is not there: bring its directory back")
	}
	for _, p := range pools {
		if err := checkCopy(p.Dir(), p.Array(), system); err != nil {
			return nil, err
		}
	}
	if err := checkHeadCopy(head, system); err != nil {
		return nil, err
	}
	state, err := array.NewState(system.Array(), docs)
	if err != nil {
		return nil, fmt.Errorf("the configuration in %s: %w", system.Dir(), err)
	}
	return state, nil
}

func checkCopy(place string, copied *array.Document, system Part) error {
	if doc := system.Array(); copied.ID == doc.ID && copied.Generation > doc.Generation {
		return fmt.Errorf("%s: %w", place, newerCopy(copied, system.Document().Name, doc))
	}
	return nil
}

func checkHeadCopy(copied *array.Document, system Part) error {
	doc := system.Array()
	switch {
	case copied == nil:
		return nil
	case copied.ID != doc.ID:
		return fmt.Errorf("the head belongs to array %s, its pools to %s: remove the directory %s if the pools were moved here", copied.ID, doc.ID, HeadDir)
	case copied.Generation > doc.Generation:
		return fmt.Errorf("head: %w: bring the pool's newer metadata back, or remove the directory %s to go on with the older configuration", newerCopy(copied, system.Document().Name, doc), HeadDir)
	}
	return nil
}

// ReadHeadCopy returns the copy of the array's document that the head keeps in dir, nil for
// none. Somebody else may have it open.
func ReadHeadCopy(dir string) (*array.Document, error) {
	path := filepath.Join(dir, metadataName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the head's copy of the configuration: %w", err)
	}
	defer f.Close()
	h := &HeadCopy{file: &osFile{File: f, readOnly: true}}
	if err := h.load(path); err != nil {
		return nil, headError(dir, err)
	}
	return h.doc, nil
}
