package pool

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"lintel.io/lintel/internal/array"
)

// Problem is something that is wrong with what a pool has on disk.
type Problem struct {
	Path   string
	Offset int64 // where in the file, -1 where that says nothing
	Text   string
	// Fatal says that the pool cannot be used.
	Fatal bool
	// Mended says that it was put right when the pool was opened.
	Mended bool
}

func (p Problem) String() string {
	if p.Offset < 0 {
		return fmt.Sprintf("%s: %s", p.Path, p.Text)
	}
	return fmt.Sprintf("%s: at byte %d: %s", p.Path, p.Offset, p.Text)
}

// pair is two slots that are written in turns.
type pair struct {
	file   File
	name   string // of the file, for messages
	kind   slotKind
	owner  string
	offset [2]int64
	size   int   // of what is written to a slot, at most
	mark   int64 // offset of the mark, 0 for none

	mu       sync.Mutex // held while storage is written to
	sequence uint64
	next     int  // slot to write
	long     bool // slot B reaches into the mark

	failed atomic.Pointer[error] // why nothing is written any more, nil where it is
}

func newPair(f File, name string, kind slotKind, owner string) *pair {
	p := &pair{file: f, name: name, kind: kind, owner: owner}
	switch kind {
	case slotConfig:
		p.offset, p.size = [2]int64{configOffset, configOffset + configSize}, configSize-blockSize
	case slotTable:
		p.offset, p.size = [2]int64{tableOffset, tableOffset + tableSize}, tableSize-blockSize
	}
	p.mark = p.offset[1] + int64(p.size)
	return p
}

// readSlot reads and checks one slot.
func (p *pair) readSlot(i int) (slot, error) {
	header := make([]byte, blockSize)
	if err := readFull(p.file, header, p.offset[i]); err != nil {
		return slot{}, err
	}
	n, err := payloadLen(header, p.kind, p.owner, p.size+blockSize)
	if i == 1 {
		p.long = err == nil && blockSize+n > p.size
	}
	if err != nil {
		return slot{}, err
	}
	b := make([]byte, blockSize+n)
	copy(b, header)
	if err := readFull(p.file, b[blockSize:], p.offset[i]+blockSize); err != nil {
		return slot{}, err
	}
	return decodeSlot(b, p.kind, p.owner)
}

// readTries is how often a pair is read that seems to have lost a version: another process
// may be writing it.
const readTries = 3

// read returns the content that counts and what is wrong with the rest. What it returns is on
// stable storage: whoever wrote it may have ended before it was, and nothing is built on what
// a power cut takes away. It fails where neither slot is valid, where a newer version was
// acknowledged than the valid ones, and where the file cannot be brought to stable storage;
// where both slots were never written it fails with errEmpty.
func (p *pair) read() (content slot, problems []Problem, err error) {
	for range readTries {
		if content, problems, err = p.readOnce(); err == nil {
			break
		}
	}
	if err != nil {
		return slot{}, problems, err
	}
	if err := p.file.Datasync(); err != nil {
		return slot{}, problems, array.Errorf(array.KindUnavailable,
			"%s: what was last written of the %v could not be brought to stable storage: %w; repair the storage below, then start again", p.name, p.kind, err)
	}
	return content, problems, nil
}

// readOnce reads the mark before the slots, so that it is not ahead of them.
func (p *pair) readOnce() (slot, []Problem, error) {
	marked, damaged, err := p.readMark()
	if err != nil {
		return slot{}, nil, err
	}
	content, problems, err := p.readSlots()
	if p.long {
		marked, damaged = 0, nil
	}
	problems = append(problems, damaged...)
	switch {
	case errors.Is(err, errEmpty) && marked > 0:
		return slot{}, problems, fmt.Errorf("version %d of the %v was acknowledged, and is lost from the slots at byte %d and %d, of which none holds a version: "+
			"%s", marked, p.kind, p.offset[0], p.offset[1], p.wayOut())
	case err != nil:
		return slot{}, problems, err
	case content.sequence < marked:
		return slot{}, problems, fmt.Errorf("version %d of the %v was acknowledged, and is lost from slot %c at byte %d: what is left is version %d; "+
			"bring the file back from a backup, or go on with the older version: dd if=/dev/zero of=%s bs=%d seek=%d count=1 conv=notrunc",
			marked, p.kind, 'A'+p.next, p.offset[p.next], content.sequence, p.name, blockSize, p.mark/blockSize)
	}
	return content, problems, nil
}

// wayOut says what to do about a pair of which nothing is left.
func (p *pair) wayOut() string {
	const mib = 1 << 20
	if p.kind != slotTable {
		return "bring the file back from a backup"
	}
	return fmt.Sprintf("bring the file back from a backup, or give up what was kept for the volumes (persistent reservations, saved mode pages, "+
		"marks of unreadable blocks): dd if=/dev/zero of=%s bs=%d seek=%d count=%d conv=notrunc", p.name, mib, tableOffset/mib, 2*tableSize/mib)
}

// readMark returns the number in the mark, 0 where there is none.
func (p *pair) readMark() (uint64, []Problem, error) {
	if p.mark == 0 {
		return 0, nil, nil
	}
	b := make([]byte, blockSize)
	if err := readFull(p.file, b, p.mark); err != nil {
		return 0, nil, err
	}
	s, err := decodeSlot(b, p.kind, p.owner)
	if err != nil && !errors.Is(err, errEmpty) {
		return 0, []Problem{{Path: p.name, Offset: p.mark, Text: fmt.Sprintf("%v, mark: %v", p.kind, err)}}, nil
	}
	return s.sequence, nil, nil
}

// readSlots returns the content of the newest valid slot and what is wrong with the other.
func (p *pair) readSlots() (slot, []Problem, error) {
	var slots [2]slot
	var errs [2]error
	for i := range slots {
		slots[i], errs[i] = p.readSlot(i)
	}
	var problems []Problem
	for i, err := range errs {
		if err != nil && !errors.Is(err, errEmpty) {
			problems = append(problems, Problem{Path: p.name, Offset: p.offset[i], Text: fmt.Sprintf("%v, slot %c: %v", p.kind, 'A'+i, err)})
		}
	}
	best := -1
	for i := range slots {
		if errs[i] == nil && (best < 0 || slots[i].sequence > slots[best].sequence) {
			best = i
		}
	}
	if best < 0 {
		if errors.Is(errs[0], errEmpty) && errors.Is(errs[1], errEmpty) {
			return slot{}, nil, errEmpty
		}
		return slot{}, problems, fmt.Errorf("%s: neither slot of the %v can be used: slot A at byte %d: %w; slot B at byte %d: %w; %s",
			p.name, p.kind, p.offset[0], errs[0], p.offset[1], errs[1], p.wayOut())
	}
	// A slot is empty only as long as the other one holds the first version.
	if errors.Is(errs[1-best], errEmpty) && slots[best].sequence > 1 {
		problems = append(problems, Problem{Path: p.name, Offset: p.offset[1-best], Text: fmt.Sprintf("%v, slot %c: it was erased", p.kind, 'A'+1-best)})
	}
	if errs[1-best] == nil && slots[best].sequence-slots[1-best].sequence != 1 {
		problems = append(problems, Problem{Path: p.name, Offset: p.offset[1-best], Text: fmt.Sprintf("%v: the slots have the numbers %d and %d, which do not follow each other",
			p.kind, slots[0].sequence, slots[1].sequence)})
	}
	p.sequence, p.next = slots[best].sequence, 1-best
	return slots[best], problems, nil
}

// write stores the parts in the slot that does not count and returns after they are on
// stable storage. Where the write itself fails (no space), what was there before
// still counts and the next write may succeed; when the sync fails, nobody knows
// what is on the medium, and every write from then on fails with the same
// error.
func (p *pair) write(part0, part1 []byte) error {
	if n := blockSize + len(part0) + len(part1); n > p.size {
		return array.Errorf(array.KindInvalid, "the %v of %d bytes does not fit into %d: delete something first", p.kind, n, p.size)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.broken(); err != nil {
		return err
	}
	b := encodeSlot(p.kind, p.owner, p.sequence+1, part0, part1)
	if _, err := p.file.WriteAt(b, p.offset[p.next]); err != nil {
		return array.Errorf(array.KindUnavailable, "writing the %v of pool %s: %w", p.kind, p.owner, err)
	}
	if err := p.file.Datasync(); err != nil {
		failed := array.Errorf(array.KindUnavailable,
			"the %v of pool %s could not be brought to stable storage: %w; nothing more is written to it: repair the storage below, then restart", p.kind, p.owner, err)
		p.failed.Store(&failed)
		return failed
	}
	p.long = p.long && p.next == 0
	p.sequence++
	p.next = 1 - p.next
	if p.mark != 0 && !p.long {
		// Where this fails the mark is one behind: a damage may go unnoticed then, no more.
		_, _ = p.file.WriteAt(encodeSlot(p.kind, p.owner, p.sequence, nil, nil), p.mark)
	}
	return nil
}

// broken returns why the pair is not written any more, nil where it is. It does not wait for storage.
func (p *pair) broken() error {
	if failed := p.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}

// format writes an empty metadata area: both superblocks, and slots that were never
// written. The file has to read as zeros.
func format(f File, owner string) error {
	if len(owner) == 0 || len(owner) > ownerLen {
		return fmt.Errorf("pool id %q: use 1 to %d bytes", owner, ownerLen)
	}
	b := encodeSuper(owner)
	for _, off := range []int64{superSecond, 0} {
		if _, err := f.WriteAt(b, off); err != nil {
			return fmt.Errorf("writing the superblock: %w", err)
		}
	}
	return f.Datasync()
}

// owner returns the id of the pool that a metadata area belongs to, from either of
// its superblocks.
func readOwner(f File, name string) (string, []Problem, error) {
	var owners [2]string
	var errs [2]error
	offsets := [2]int64{0, superSecond}
	var problems []Problem
	for i, off := range offsets {
		b := make([]byte, blockSize)
		if errs[i] = readFull(f, b, off); errs[i] == nil {
			owners[i], errs[i] = decodeSuper(b)
		}
		if errs[i] != nil {
			problems = append(problems, Problem{Path: name, Offset: off, Text: fmt.Sprintf("superblock: %v", errs[i])})
		}
	}
	switch {
	case errs[0] != nil && errs[1] != nil:
		return "", problems, fmt.Errorf("%s: neither superblock can be used: at byte 0: %w; at byte %d: %w", name, errs[0], int64(superSecond), errs[1])
	case errs[0] == nil && errs[1] == nil && owners[0] != owners[1]:
		return "", problems, fmt.Errorf("%s: the superblocks name different owners, %q and %q", name, owners[0], owners[1])
	case errs[0] == nil:
		return owners[0], problems, nil
	}
	return owners[1], problems, nil
}

func readFull(f File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("the file ends after %d bytes: %w", off+int64(n), io.ErrUnexpectedEOF)
	}
	return err
}
