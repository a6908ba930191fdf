package iscsi

import "sync"

// budget bounds the memory of all commands that wait for Data-Out. Commands
// that find no room wait in line; a connection at its own limit does not hold
// up those behind it.
type budget struct {
	mu    sync.Mutex // taken with no conn.mu held, or below exactly one
	free  int64
	share int64 // of one connection
	line  []*task
}

// take takes n bytes for a task of c; line says to wait in line where there is no room.
func (b *budget) take(c *conn, t *task, n int64, line bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.line) == 0 && b.fits(c, n) {
		b.grant(t, n)
		return true
	}
	if line {
		b.line = append(b.line, t)
	}
	return false
}

// fits reports whether n bytes may be taken. One command of a connection
// always may where the budget allows, so that a large one can make progress.
func (b *budget) fits(c *conn, n int64) bool {
	return b.free >= n && (c.gathered == 0 || c.gathered+n <= b.share)
}

func (b *budget) grant(t *task, n int64) {
	b.free -= n
	t.conn.gathered += n
	t.budget = n
}

// release gives n bytes of c back and starts those who waited for it. No
// conn.mu is held.
func (b *budget) release(c *conn, n int64) {
	b.mu.Lock()
	b.free += n
	c.gathered -= n
	var ready []*task
	rest := b.line[:0]
	blocked := false // the first that waits for the common budget keeps its place
	for _, t := range b.line {
		switch want := int64(t.need); {
		case blocked || !b.fits(t.conn, want):
			blocked = blocked || b.free < want
			rest = append(rest, t)
		default:
			b.grant(t, want)
			ready = append(ready, t)
		}
	}
	clear(b.line[len(rest):])
	b.line = rest
	b.mu.Unlock()
	for _, t := range ready {
		t.conn.granted(t)
	}
}

// leave takes a task out of the line, and reports whether it stood there.
func (b *budget) leave(t *task) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, w := range b.line {
		if w == t {
			b.line = append(b.line[:i], b.line[i+1:]...)
			return true
		}
	}
	return false
}
