package block

import (
	"sync"
	"sync/atomic"
)

const (
	chunkSize = 64 << 10
	tableSize = 4096 // chunks in a table: 256 MiB
	tableSpan = chunkSize * tableSize

	// MaxMem is the largest size of a mem device in bytes: 1 PiB.
	MaxMem = 1 << 50
)

// A chunk is a piece of a mem device that has been written.
type chunk struct {
	mu   sync.RWMutex // guards data
	data [chunkSize]byte
}

type chunkTable [tableSize]atomic.Pointer[chunk]

var memInfo = Info{
	Kind:               "mem",
	BlockSize:          1,
	PhysicalBlockSize:  4096,
	AtomicUnit:         AtomicUnlimited,
	Align:              1,
	Discard:            true,
	DiscardGranularity: chunkSize,
	Sparse:             true,
	Inline:             true,
}

// A mem device keeps what is written in memory, a chunk at a time. Chunks are
// found without a lock, through two levels of atomic pointers.
type mem struct {
	gate   gate
	size   atomic.Int64
	tables atomic.Pointer[[]atomic.Pointer[chunkTable]]
	chunks atomic.Int64

	mu sync.Mutex // orders Resize and Close
}

var _ Device = (*mem)(nil)

// NewMem returns a device of the given size in bytes, 0 to MaxMem, that lives in
// memory. It occupies what has been written, in chunks of 64 KiB, until discarded.
func NewMem(size int64) Device {
	d := &mem{gate: newGate()}
	d.setSize(min(max(size, 0), MaxMem))
	return d
}

func (d *mem) Info() Info  { return memInfo }
func (d *mem) Size() int64 { return d.size.Load() }

func (d *mem) Submit(r *Request) {
	switch d.gate.enter(r) {
	case held:
		return
	case refused:
		complete(r, fail(r, KindGone, ErrClosed))
		return
	}
	err := Check(r, &memInfo, d.size.Load())
	if err == nil && r.Op != Flush {
		d.run(r)
	}
	complete(r, err)
	d.gate.leave()
}

func (d *mem) run(r *Request) {
	if r.Op == Discard || r.Op == Zero {
		d.zeroRange(r.Off, r.Off+r.Len, r.Op == Discard)
		return
	}
	for off, p := r.Off, r.Data; len(p) > 0; {
		at := off % chunkSize
		n := min(int64(len(p)), chunkSize-at)
		slot := d.slot(off/chunkSize, r.Op == Write)
		if r.Op == Read {
			d.read(slot, at, p[:n])
		} else {
			d.write(slot, at, p[:n])
		}
		off, p = off+n, p[n:]
	}
}

func (d *mem) zeroRange(off, end int64, free bool) {
	size := d.size.Load()
	for off < end {
		at := off % chunkSize
		n := min(end-off, chunkSize-at)
		if slot := d.slot(off/chunkSize, false); slot == nil {
			n = tableSpan - off%tableSpan
		} else {
			d.zero(slot, at, n, free && at == 0 && (n == chunkSize || off+n == size))
		}
		off += n
	}
}

// slot returns the place of a chunk. Where its table does not exist it is made,
// or nil returned.
func (d *mem) slot(index int64, make bool) *atomic.Pointer[chunk] {
	entry := &(*d.tables.Load())[index/tableSize]
	table := entry.Load()
	if table == nil {
		if !make {
			return nil
		}
		entry.CompareAndSwap(nil, new(chunkTable))
		table = entry.Load()
	}
	return &table[index%tableSize]
}

func load(slot *atomic.Pointer[chunk]) *chunk {
	if slot == nil {
		return nil
	}
	return slot.Load()
}

func (d *mem) read(slot *atomic.Pointer[chunk], at int64, p []byte) {
	c := load(slot)
	if c == nil {
		clear(p)
		return
	}
	c.mu.RLock()
	copy(p, c.data[at:])
	c.mu.RUnlock()
}

func (d *mem) write(slot *atomic.Pointer[chunk], at int64, p []byte) {
	c := slot.Load()
	if c == nil {
		c = new(chunk)
		if slot.CompareAndSwap(nil, c) {
			d.chunks.Add(1)
		} else if c = slot.Load(); c == nil {
			return // discarded at the same time: as if after this write
		}
	}
	c.mu.Lock()
	copy(c.data[at:], p)
	c.mu.Unlock()
}

func (d *mem) zero(slot *atomic.Pointer[chunk], at, n int64, free bool) {
	c := load(slot)
	if c == nil {
		return
	}
	if free {
		if slot.CompareAndSwap(c, nil) {
			d.chunks.Add(-1)
		}
		return
	}
	c.mu.Lock()
	clear(c.data[at : at+n])
	c.mu.Unlock()
}

func (d *mem) Extent(off, limit int64) (bool, int64, error) {
	if d.gate.closed() {
		return false, 0, &Error{Kind: KindGone, Off: off, Err: ErrClosed}
	}
	d.mu.Lock() // a shrinking Resize takes tables away
	defer d.mu.Unlock()
	limit, err := clipExtent(off, limit, d.size.Load())
	if err != nil {
		return false, 0, err
	}
	tables := *d.tables.Load()
	first := off / chunkSize
	allocated := load(d.slot(first, false)) != nil
	next := first + 1
	for next*chunkSize < off+limit {
		table := tables[next/tableSize].Load()
		if table == nil && !allocated {
			next = (next/tableSize + 1) * tableSize
			continue
		}
		if allocated != (table != nil && table[next%tableSize].Load() != nil) {
			break
		}
		next++
	}
	return allocated, min(limit, next*chunkSize-off), nil
}

func (d *mem) Resize(size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	if size > MaxMem {
		return &Error{Kind: KindNoSpace, Off: size}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gate.closed() {
		return &Error{Kind: KindGone, Err: ErrClosed}
	}
	d.gate.pause(nil)
	defer d.gate.resume(d.Submit)
	if old := d.size.Load(); size < old {
		d.run(&Request{Op: Discard, Off: size, Len: old - size})
	}
	d.setSize(size)
	return nil
}

// setSize makes the table of tables fit; nobody may be using it.
func (d *mem) setSize(size int64) {
	tables := make([]atomic.Pointer[chunkTable], size/tableSpan+1)
	if old := d.tables.Load(); old != nil {
		for i := range min(len(*old), len(tables)) {
			tables[i].Store((*old)[i].Load())
		}
	}
	d.tables.Store(&tables)
	d.size.Store(size)
}

func (d *mem) Used() (int64, error) { return d.chunks.Load() * chunkSize, nil }

func (d *mem) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.gate.closed() {
		d.gate.close()
	}
	return nil
}
