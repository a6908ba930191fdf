package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lintel.io/lintel/internal/array"
)

// recover finishes what a crash has left undone: backing files of volumes that never came to be
// are removed, and files are cut that were made longer for a volume that stayed as it was. Those of
// deleted volumes a data plane may still have open: they are the manager's to remove.
func (p *Pool) recover() error {
	left, problems, err := p.leftovers()
	if err != nil {
		return err
	}
	p.problems = append(p.problems, problems...)
	left = slices.DeleteFunc(left, func(l leftover) bool { return slices.Contains(p.docs.pool.Doomed, l.id) })
	for _, l := range left {
		if err := os.Remove(p.volumePath(l.id)); err != nil {
			return fmt.Errorf("removing %s: %w", l.why, err)
		}
		p.problems = append(p.problems, Problem{Path: p.volumePath(l.id), Offset: -1, Text: "removed " + l.why, Mended: true})
	}
	if len(left) > 0 {
		if err := syncDir(filepath.Join(p.dir, volumesName)); err != nil {
			return err
		}
	}
	p.amend(problems)
	p.ungrow()
	return nil
}

// ungrow cuts the files that are longer than their volumes, and empty there. One that does not
// fit its volume otherwise is the data plane's to tell of, and one that cannot be cut does no harm.
func (p *Pool) ungrow() {
	for _, v := range p.docs.pool.Volumes {
		if v.Kind != array.VolumeFile || v.Truncate {
			continue
		}
		path := p.volumePath(v.ID)
		if size, err := fitBacking(path, v); err != nil || size == int64(v.Size) {
			continue
		}
		problem := Problem{Path: path, Offset: -1, Text: "cut off what an interrupted growth of the volume has left", Mended: true}
		if err := cut(path, int64(v.Size)); err != nil {
			problem.Text, problem.Mended = fmt.Sprintf("what an interrupted growth of the volume has left could not be cut off: %v", err), false
		}
		p.problems = append(p.problems, problem)
	}
}

// amend passes over, in the document, the numbers of files that nobody knows, so that they are in
// nobody's way; the next commit stores it.
func (p *Pool) amend(strays []Problem) {
	doc := *p.docs.pool
	for _, s := range strays {
		if n, ours := doc.VolumeNumber(filepath.Base(s.Path)); ours && n >= doc.NextVolume {
			doc.NextVolume = n + 1
		}
	}
	if doc.NextVolume != p.docs.pool.NextVolume {
		p.docs.pool = &doc
	}
}

// leftover is a file that nothing needs any more.
type leftover struct{ id, why string }

// leftovers looks at the files of the pool. It returns those that are provably left from
// an interrupted change, and reports those that nobody knows. The first are the backing
// files of doomed volumes, and files without any data that have the name of a
// volume which the document cannot know yet.
func (p *Pool) leftovers() ([]leftover, []Problem, error) {
	entries, err := os.ReadDir(filepath.Join(p.dir, volumesName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, []Problem{{Path: filepath.Join(p.dir, volumesName), Offset: -1, Text: "the directory of the volumes is missing"}}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	known := make(map[string]bool, len(p.docs.pool.Volumes))
	for _, v := range p.docs.pool.Volumes {
		known[v.ID] = v.Kind == array.VolumeFile
	}
	var left []leftover
	var problems []Problem
	for _, e := range entries {
		id := e.Name()
		if known[id] {
			continue
		}
		if slices.Contains(p.docs.pool.Doomed, id) {
			left = append(left, leftover{id, "the backing file of a deleted volume"})
			continue
		}
		if n, ours := p.docs.pool.VolumeNumber(id); ours && n >= p.docs.pool.NextVolume && e.Type().IsRegular() {
			empty, err := emptyFrom(p.volumePath(id), 0)
			if err != nil {
				return nil, nil, err
			}
			if empty {
				left = append(left, leftover{id, "the empty backing file of a volume whose creation was not finished"})
				continue
			}
		}
		problems = append(problems, Problem{Path: p.volumePath(id), Offset: -1, Text: "no volume has this file: it is left alone"})
	}
	return left, problems, nil
}
