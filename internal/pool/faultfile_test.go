package pool

import (
	"errors"
	"math/rand/v2"
	"sync"
)

const sector = 512

// faultFile is a file in memory that loses power: what was written since the last sync may
// be there or not, each sector on its own.
type faultFile struct {
	mu       sync.Mutex
	stable   map[int64][sector]byte // by sector number; missing ones are zero
	volatile map[int64][sector]byte // written and not yet synced
	syncs    int
	writeErr error // what the next write fails with, after writing half
	syncErr  error // what the next sync fails with
	inSync   func()
}

func newFaultFile() *faultFile {
	return &faultFile{stable: map[int64][sector]byte{}, volatile: map[int64][sector]byte{}}
}

func (f *faultFile) sectorLocked(n int64) [sector]byte {
	if s, ok := f.volatile[n]; ok {
		return s
	}
	return f.stable[n]
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n := 0; n < len(p); {
		at := off + int64(n)
		s := f.sectorLocked(at / sector)
		n += copy(p[n:], s[at%sector:])
	}
	return len(p), nil
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	whole := p
	err := f.writeErr
	if err != nil {
		f.writeErr = nil
		p = p[:len(p)/2]
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		s := f.sectorLocked(at / sector)
		n += copy(s[at%sector:], p[n:])
		f.volatile[at/sector] = s
	}
	if err != nil {
		return len(p), err
	}
	return len(whole), nil
}

func (f *faultFile) Datasync() error {
	if f.inSync != nil {
		f.inSync()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncs++
	if err := f.syncErr; err != nil {
		f.syncErr = nil
		return err
	}
	for n, s := range f.volatile {
		f.stable[n] = s
	}
	clear(f.volatile)
	return nil
}

// cut returns what is on the medium after a loss of power: keep decides for every sector
// that was not synced.
func (f *faultFile) cut(keep func() bool) *faultFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := newFaultFile()
	for n, s := range f.stable {
		after.stable[n] = s
	}
	for n, s := range f.volatile {
		if keep() {
			after.stable[n] = s
		}
	}
	return after
}

func (f *faultFile) flip(off int64, mask byte) {
	s := f.stable[off/sector]
	s[off%sector] ^= mask
	f.stable[off/sector] = s
}

var errInjected = errors.New("injected fault")

func coin(r *rand.Rand) func() bool { return func() bool { return r.IntN(2) == 0 } }

var _ File = (*faultFile)(nil)
