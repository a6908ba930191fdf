package pool

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"lintel.io/lintel/internal/ask"
)

// spacePatience is how long a file system has to tell its space.
const spacePatience = 2 * time.Second

// A spaceAsker asks the file system of a directory for its space, without hanging where that does.
type spaceAsker struct{ asker ask.Asker[space] }

type space struct {
	total, free uint64 // bytes
	err         error
}

func (a *spaceAsker) of(dir string) (total, free uint64, err error) {
	return a.ask(dir, func() space { return spaceOf(dir) })
}

func (a *spaceAsker) ask(dir string, f func() space) (total, free uint64, err error) {
	q := a.asker.Ask(f)
	s, ok := q.Wait(spacePatience)
	if !ok {
		return 0, 0, fmt.Errorf("pool in %s: its file system has not answered since %s", dir, q.Since.UTC().Format(time.RFC3339))
	}
	return s.total, s.free, s.err
}

func spaceOf(dir string) space {
	var st unix.Statfs_t
	if err := ignoringEINTR(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return space{err: fmt.Errorf("pool in %s: %w", dir, err)}
	}
	return space{total: st.Blocks * uint64(st.Bsize), free: st.Bavail * uint64(st.Bsize)}
}
