package history

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testBlockSize = 512

// flaw is what a double does wrong, once in a while.
type flaw string

const (
	flawless     flaw = "is correct"
	dropsWrite   flaw = "acknowledges a write that it drops"
	staleRead    flaw = "returns what a block held before"
	lateRead     flaw = "returns now and then what a block held first"
	twoWinners   flaw = "lets two COMPARE AND WRITEs win"
	falseMiss    flaw = "calls equal blocks different"
	tearsBlock   flaw = "stores half of a block"
	misdirects   flaw = "stores a block in the place of another"
	losesFlushed flaw = "loses a flushed write in a power cut"
	losesFUA     flaw = "loses a write with FUA in a power cut"
	losesKilled  flaw = "loses a write when its process is killed"
)

var errNoAnswer = errors.New("the link is down")

// double is a volume in memory with a volatile cache.
type double struct {
	flaw   flaw
	mute   int // each operation of this number gets no answer; 0 for none
	mu     sync.Mutex
	count  map[Kind]int
	cache  map[uint64][]byte
	before map[uint64][]byte // what each block held before
	first  map[uint64][]byte
	medium map[uint64][]byte
	late   []func() // executed without an answer, later
}

var _ Target = (*double)(nil)

func newDouble(f flaw) *double {
	return &double{flaw: f, count: map[Kind]int{}, cache: map[uint64][]byte{}, before: map[uint64][]byte{}, first: map[uint64][]byte{}, medium: map[uint64][]byte{}}
}

// nth reports whether the double is to use its flaw in this operation of a kind.
func (d *double) nth(f flaw, k Kind) bool {
	if d.flaw != f {
		return false
	}
	d.count[k]++
	return d.count[k]%25 == 0
}

// start begins an operation; the answer is lost where it returns false. Where late
// is not nil, the operation then happens at another time.
func (d *double) start(late func()) bool {
	runtime.Gosched()
	d.mu.Lock()
	d.count[PowerCut]++
	if d.mute == 0 || d.count[PowerCut]%d.mute != 0 {
		if d.count[PowerCut]%(d.mute+7) == 0 {
			for _, f := range d.late {
				f()
			}
			d.late = nil
		}
		return true
	}
	switch d.count[PowerCut] / d.mute % 3 {
	case 0:
		late()
	case 1:
		d.late = append(d.late, late)
	}
	d.mu.Unlock()
	return false
}

func (d *double) get(block uint64) []byte {
	if p, ok := d.cache[block]; ok {
		return p
	}
	return make([]byte, testBlockSize)
}

func (d *double) put(block uint64, p []byte, fua bool) {
	old := d.get(block)
	d.before[block] = old
	switch {
	case d.nth(dropsWrite, Write):
		return
	case d.nth(tearsBlock, Write):
		p = append(bytes.Clone(p[:testBlockSize/2]), old[testBlockSize/2:]...)
	case d.nth(misdirects, Write):
		block = 0
	}
	d.cache[block] = bytes.Clone(p)
	if d.first[block] == nil {
		d.first[block] = d.cache[block]
	}
	if fua && d.flaw != losesFUA {
		d.medium[block] = d.cache[block]
	}
}

func (d *double) Read(_ context.Context, block uint64, p []byte) error {
	if !d.start(func() {}) {
		return errNoAnswer
	}
	defer d.mu.Unlock()
	copy(p, d.get(block))
	if d.nth(staleRead, Read) && d.before[block] != nil {
		copy(p, d.before[block])
	}
	if d.nth(lateRead, Read) && d.first[block] != nil {
		copy(p, d.first[block])
	}
	return nil
}

func (d *double) Write(_ context.Context, block uint64, p []byte, fua bool) error {
	p = bytes.Clone(p)
	if !d.start(func() { d.put(block, p, fua) }) {
		return errNoAnswer
	}
	defer d.mu.Unlock()
	d.put(block, p, fua)
	return nil
}

func (d *double) CompareAndWrite(_ context.Context, block uint64, expect, p []byte) error {
	expect, p = bytes.Clone(expect), bytes.Clone(p)
	equal := func() bool { return bytes.Equal(d.get(block), expect) }
	if !d.start(func() {
		if equal() {
			d.put(block, p, false)
		}
	}) {
		return errNoAnswer
	}
	defer d.mu.Unlock()
	won := equal()
	if d.flaw == twoWinners && bytes.Equal(d.before[block], expect) {
		won = true
	}
	if d.nth(falseMiss, CompareAndWrite) {
		won = false
	}
	if !won {
		return ErrMiscompare
	}
	d.put(block, p, false)
	return nil
}

func (d *double) Flush(context.Context) error {
	if !d.start(func() {}) {
		return errNoAnswer
	}
	defer d.mu.Unlock()
	if d.flaw != losesFlushed {
		maps.Copy(d.medium, d.cache)
	}
	return nil
}

// powerCut loses what is not on the medium, but for one block in two.
func (d *double) powerCut(*Op) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for b := range d.cache {
		if b%2 == 0 {
			delete(d.cache, b)
			if p, ok := d.medium[b]; ok {
				d.cache[b] = p
			}
		}
	}
	d.medium = maps.Clone(d.cache)
	return nil
}

func (d *double) kill(*Op) error {
	if d.flaw == losesKilled {
		return d.powerCut(nil)
	}
	return nil
}
