package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// worker keeps one connection busy. Everything but the fields of report
// belongs to the callbacks of that connection, which run one at a time.
type worker struct {
	run  *run
	conn connection

	first, blocks int64 // the part of the unit that this worker uses, in I/Os
	next          int64 // of sequential I/O
	random        uint64
	limit         int64 // measured I/Os not yet started, -1 for no limit
	generations   []uint32
	busy          []uint64 // bit set: a write to the block, or reads of it, are under way (verify only)
	payload       []byte   // what writes carry without verification
	slots         []slot
	running       int
	stopped       bool
	err           error

	tick            time.Duration // when the interval ends
	interval, total [2]Histogram  // reads, writes

	report report
	done   chan struct{} // closed when nothing is under way any more
}

// report is what a worker tells while it runs.
type report struct {
	ios, retries, verified atomic.Uint64

	mu       sync.Mutex
	until    time.Duration // end of the interval
	interval Histogram
}

// slot is one I/O of the queue.
type slot struct {
	io         transfer
	worker     *worker
	started    time.Duration
	block      int64
	generation uint32
	write      bool
	counted    bool // the I/O is one of those that Count asks for
	buf        []byte
}

func newWorker(r *run, conn connection, index int) *worker {
	c := &r.config
	w := &worker{run: r, conn: conn, done: make(chan struct{}), limit: -1}
	n := int64(c.Connections)
	total := r.span / int64(c.BlockSize)
	w.first = total * int64(index) / n
	w.blocks = total*int64(index+1)/n - w.first
	w.random = mix(r.seed + uint64(index))
	if c.Count > 0 {
		w.limit = c.Count*int64(index+1)/n - c.Count*int64(index)/n
	}
	w.tick = r.from + time.Second
	if c.Verify {
		w.generations = make([]uint32, w.blocks)
		w.busy = make([]uint64, (w.blocks+63)/64)
	} else if c.ReadPercent < 100 {
		w.payload = make([]byte, c.BlockSize)
		x := w.random
		for i := 0; i < len(w.payload); i += 8 {
			x = mix(x)
			binary.LittleEndian.PutUint64(w.payload[i:], x)
		}
	}
	w.slots = make([]slot, min(int64(c.QueueDepth), w.blocks))
	for i := range w.slots {
		s := &w.slots[i]
		s.worker = w
		s.io = conn.newTransfer(s.completed)
		if c.Verify {
			s.buf = make([]byte, c.BlockSize)
		}
	}
	return w
}

// start submits the whole queue. It runs in a callback of the connection, as everything of the worker.
func (w *worker) start() {
	now := w.run.now()
	for i := range w.slots {
		w.issue(&w.slots[i], now)
	}
	w.endIfIdle()
}

func (w *worker) endIfIdle() {
	if w.running == 0 {
		close(w.done)
	}
}

// issue starts the next I/O in a free slot, unless the run is over.
func (w *worker) issue(s *slot, now time.Duration) {
	if w.stopped || w.limit == 0 || now >= w.run.until || w.run.stop.Load() {
		return
	}
	c := &w.run.config
	if s.counted = w.limit > 0 && now >= w.run.from; s.counted {
		w.limit--
	}
	s.write = c.ReadPercent == 0 || c.ReadPercent < 100 && w.below(100) >= uint64(c.ReadPercent)
	s.block = w.choose()
	lba := uint64(w.run.offset+(w.first+s.block)*int64(c.BlockSize)) / w.run.blockSize
	count := uint64(c.BlockSize) / w.run.blockSize
	var buf []byte
	switch {
	case s.write && c.Verify:
		s.generation = w.generations[s.block] + 1
		Fill(s.buf, w.run.offset+(w.first+s.block)*int64(c.BlockSize), w.run.seed, uint64(s.generation))
		buf = s.buf
	case s.write:
		buf = w.payload
	case c.Verify:
		buf = s.buf
	}
	s.started = now
	w.submitted(s.io.submit(s.write, lba, count, buf, c.BlockSize))
}

// submitted accounts for an I/O that was handed over, or not.
func (w *worker) submitted(err error) {
	if err != nil {
		w.fail(err)
		return
	}
	w.running++
}

// choose picks the block of the next I/O; with verification one that nothing is under way for.
func (w *worker) choose() int64 {
	var block int64
	if w.run.config.Random {
		block = int64(w.below(uint64(w.blocks)))
	} else {
		block = w.next
	}
	if w.busy != nil {
		// At most len(slots)-1 blocks are busy, and there are at least len(slots).
		for w.busy[block/64]&(1<<(block%64)) != 0 {
			block = (block + 1) % w.blocks
		}
		w.busy[block/64] |= 1 << (block % 64)
	}
	w.next = (block + 1) % w.blocks
	return block
}

// below returns a random number from 0 to n-1.
func (w *worker) below(n uint64) uint64 {
	w.random += 0x9e3779b97f4a7c15
	x := w.random
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	hi, _ := bits.Mul64(x^x>>31, n)
	return hi
}

// completed is the callback of a slot's transfer.
func (s *slot) completed() {
	w := s.worker
	w.running--
	if !s.io.good() && w.retry(s) {
		return
	}
	now := w.run.now()
	if w.stopped {
		w.endIfIdle()
		return
	}
	if err := w.check(s); err != nil {
		w.fail(err)
		w.endIfIdle()
		return
	}
	if w.busy != nil {
		w.busy[s.block/64] &^= 1 << (s.block % 64)
	}
	if now >= w.run.from && now < w.run.until && (w.limit < 0 || s.counted) {
		w.record(s, now)
	}
	w.issue(s, now)
	w.endIfIdle()
}

// retry starts an I/O again that the target did not take for a passing reason.
func (w *worker) retry(s *slot) bool {
	if w.stopped || w.run.stop.Load() || !s.io.passing() {
		return false
	}
	w.report.retries.Add(1)
	w.submitted(s.io.again())
	return !w.stopped
}

func (w *worker) check(s *slot) error {
	off := w.run.offset + (w.first+s.block)*int64(w.run.config.BlockSize)
	if err := s.io.failure(); err != nil {
		return fmt.Errorf("%s at byte %d: %w", s.what(), off, err)
	}
	if s.write {
		if w.generations != nil {
			w.generations[s.block] = s.generation
		}
		return nil
	}
	if n := s.io.received(); n != w.run.config.BlockSize {
		return fmt.Errorf("read at byte %d brought %d of %d bytes", off, n, w.run.config.BlockSize)
	}
	if w.generations == nil {
		return nil
	}
	got, err := Check(s.buf, off, w.run.seed)
	want := w.generations[s.block]
	if want == 0 { // not written by this run: an earlier one with the same seed, or anything else
		if errors.Is(err, ErrNoPattern) {
			return nil
		}
		return err
	}
	if err == nil && got != uint64(want) {
		err = &CorruptError{Off: off, What: fmt.Sprintf("generation %d where %d was written last", got, want)}
	}
	w.report.verified.Add(uint64(len(s.buf)))
	return err
}

func (s *slot) what() string {
	if s.write {
		return "write"
	}
	return "read"
}

func (w *worker) record(s *slot, now time.Duration) {
	if now >= w.tick {
		w.publish(now)
	}
	direction := 0
	if s.write {
		direction = 1
	}
	w.interval[direction].Record(now - s.started)
	w.report.ios.Add(1)
}

// publish ends the interval of live progress.
func (w *worker) publish(now time.Duration) {
	r := &w.report
	r.mu.Lock()
	r.interval.Reset()
	for i := range w.interval {
		r.interval.Add(&w.interval[i])
	}
	r.until = w.tick
	r.mu.Unlock()
	for i := range w.interval {
		w.total[i].Add(&w.interval[i])
		w.interval[i].Reset()
	}
	for w.tick <= now {
		w.tick += time.Second
	}
}

// fail ends the run of this worker, and of all.
func (w *worker) fail(err error) {
	if !w.stopped {
		w.stopped, w.err = true, err
	}
	w.run.stop.Store(true)
}
