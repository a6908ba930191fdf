package pool

import (
	"strings"
	"testing"
	"testing/synctest"
)

// A file system that hangs delays who asks for its space shortly, and is asked once.
func TestSpaceOfHangingFileSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a spaceAsker
		answer := make(chan space)
		for range 3 {
			if _, _, err := a.ask("p", func() space { return <-answer }); err == nil || !strings.Contains(err.Error(), "pool in p: its file system has not answered since ") {
				t.Errorf("got %v", err)
			}
		}
		answer <- space{total: 2, free: 1}
		synctest.Wait()
		if total, free, err := a.ask("p", func() space { return space{total: 4, free: 3} }); total != 4 || free != 3 || err != nil {
			t.Errorf("%d, %d, %v", total, free, err)
		}
	})
}

// Whether a pool takes changes is known while one of them waits for storage that hangs.
func TestErrWhileStorageHangs(t *testing.T) {
	f := newFixture(t)
	f.pool.config.mu.Lock()
	defer f.pool.config.mu.Unlock()
	if err := f.pool.Err(); err != nil {
		t.Error(err)
	}
}
