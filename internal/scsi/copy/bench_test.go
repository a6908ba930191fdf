package copy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// clock is time that a test moves.
type clock struct{ now atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Unix(c.now.Load(), 0) }
func (c *clock) advance(d time.Duration) { c.now.Add(int64(d / time.Second)) }

// probe is a memory device that can fail, and stop requests half-way.
type probe struct {
	block.Device
	mu      sync.Mutex
	fail    map[block.Op]block.Kind
	stopped map[block.Op]chan struct{} // requests of the kind announce themselves and wait
	ops     map[block.Op]int
	flags   block.Flags // of the last change
}

func (p *probe) Submit(r *block.Request) {
	p.mu.Lock()
	p.ops[r.Op]++
	if r.Op != block.Read {
		p.flags = r.Flags
	}
	kind, bad := p.fail[r.Op]
	stop := p.stopped[r.Op]
	p.mu.Unlock()
	if stop != nil {
		stop <- struct{}{}
		<-stop
	}
	if bad {
		r.Err = &block.Error{Op: r.Op, Kind: kind, Off: r.Off}
		r.Done.RequestDone(r)
		return
	}
	p.Device.Submit(r)
}

func (p *probe) count(op block.Op) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ops[op]
}

type waitDone chan error

func (w waitDone) RequestDone(r *block.Request) { w <- r.Err }

// rig is a bench with a copy manager and two units: LUN 0 with random content in
// its first half, and LUN 1.
type rig struct {
	*testing.T
	*scsitest.Bench
	m      *Manager
	clock  *clock
	n      *scsitest.Nexus
	probes []*probe
}

const rigBlocks = 8192

func newRig(t *testing.T, change ...func(*scsitest.Config)) *rig {
	t.Helper()
	r := &rig{T: t, clock: &clock{}}
	r.clock.now.Store(1_000_000)
	r.m = New(Config{Now: r.clock.Now})
	c := scsitest.Config{
		Units:    2,
		Blocks:   rigBlocks,
		Families: [][]scsi.Command{r.m.Commands()},
		Pages:    map[byte]func(*scsi.LogicalUnit) []byte{0x8F: Page},
		Device: func(_ int, size int64) block.Device {
			p := &probe{Device: block.NewMem(size), fail: map[block.Op]block.Kind{}, stopped: map[block.Op]chan struct{}{}, ops: map[block.Op]int{}}
			r.probes = append(r.probes, p)
			return p
		},
	}
	for _, f := range change {
		f(&c)
	}
	r.Bench = scsitest.New(t, c)
	r.n = r.Nexus("a", 1)
	random := make([]byte, min(r.Units[0].Device().Size()/2, rigBlocks/2<<9))
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	r.store(0, 0, random)
	return r
}

// sub returns the rig for a subtest.
func (r *rig) sub(t *testing.T) *rig {
	s := *r
	s.T = t
	return &s
}

// store writes to a unit as a command would.
func (r *rig) store(i int, off int64, data []byte) {
	r.Helper()
	u := r.Units[i]
	var g unit.RangeGuard
	ready := waiter{new(scsi.Task), make(chan struct{}, 1)}
	if !u.Ranges.Shared(&g, uint64(off)>>u.BlockShift(), uint64(len(data))>>u.BlockShift(), ready) {
		<-ready.c
	}
	done := make(waitDone, 1)
	r.probes[i].Device.Submit(&block.Request{Op: block.Write, Off: off, Data: data, Done: done})
	if err := <-done; err != nil {
		r.Fatal(err)
	}
	u.Ranges.Release(&g)
}

func (r *rig) load(i int, off, n int64) []byte {
	r.Helper()
	data := make([]byte, n)
	done := make(waitDone, 1)
	r.probes[i].Device.Submit(&block.Request{Op: block.Read, Off: off, Data: data, Done: done})
	if err := <-done; err != nil {
		r.Fatal(err)
	}
	return data
}

// wantCopied compares bytes of two units.
func (r *rig) wantCopied(src int, srcOff int64, dst int, dstOff, n int64) {
	r.Helper()
	if !bytes.Equal(r.load(src, srcOff, n), r.load(dst, dstOff, n)) {
		r.Errorf("%d bytes at %d of unit %d are not those at %d of unit %d", n, dstOff, dst, srcOff, src)
	}
}

func (r *rig) good(res scsitest.Result) scsitest.Result {
	r.Helper()
	if res.Status != scsi.StatusGood {
		r.Errorf("got %v, want GOOD", res)
	}
	return res
}

func (r *rig) want(res scsitest.Result, key uint8, code uint16) {
	r.Helper()
	if !res.Is(key, code) {
		r.Errorf("got %v, want %X/%04X", res, key, code)
	}
}

func (r *rig) illegal(res scsitest.Result, code uint16) {
	r.Helper()
	r.want(res, wire.KeyIllegalRequest, code)
}

func (r *rig) aborted(res scsitest.Result, code uint16) {
	r.Helper()
	r.want(res, wire.KeyCopyAborted, code)
}

func outCDB(action byte, list uint32, n int) []byte {
	b := make([]byte, 16)
	b[0], b[1] = wire.OpThirdPartyCopyOut, action
	binary.BigEndian.PutUint32(b[6:], list)
	binary.BigEndian.PutUint32(b[10:], uint32(n))
	return b
}

func inCDB(action, list byte, n uint32) []byte {
	b := make([]byte, 16)
	b[0], b[1], b[2] = wire.OpThirdPartyCopyIn, action, list
	binary.BigEndian.PutUint32(b[10:], n)
	return b
}

func (r *rig) extendedCopy(data []byte) scsitest.Result {
	r.Helper()
	return r.n.Do(0, outCDB(actionExtendedCopy, 0, len(data)), data)
}

// describe returns a target descriptor with a unit's NAA designator.
func (r *rig) describe(i int) []byte {
	return describe(wire.DesignatorNAA, r.Units[i].Attributes().NAA)
}

func describe(kind uint8, id []byte) []byte {
	d := make([]byte, targetLength)
	d[0], d[4], d[5], d[7] = descriptorIdentifier, wire.CodeBinary, kind, byte(len(id))
	copy(d[8:], id)
	return d
}

func blockToBlock(src, dst, count uint16, srcLBA, dstLBA uint64) []byte {
	d := make([]byte, blockToBlockBytes)
	d[0], d[3] = descriptorBlockToBlock, 24
	binary.BigEndian.PutUint16(d[4:], src)
	binary.BigEndian.PutUint16(d[6:], dst)
	binary.BigEndian.PutUint16(d[10:], count)
	binary.BigEndian.PutUint64(d[12:], srcLBA)
	binary.BigEndian.PutUint64(d[20:], dstLBA)
	return d
}

func blockOffset(src, dst uint16, n uint32, srcLBA, dstLBA uint64, srcByte, dstByte uint16) []byte {
	d := make([]byte, blockOffsetBytes)
	d[0], d[3] = descriptorBlockOffset, 28
	binary.BigEndian.PutUint16(d[4:], src)
	binary.BigEndian.PutUint16(d[6:], dst)
	binary.BigEndian.PutUint32(d[8:], n)
	binary.BigEndian.PutUint64(d[12:], srcLBA)
	binary.BigEndian.PutUint64(d[20:], dstLBA)
	binary.BigEndian.PutUint16(d[28:], srcByte)
	binary.BigEndian.PutUint16(d[30:], dstByte)
	return d
}

// copyParameters builds a parameter list of EXTENDED COPY.
func copyParameters(id, usage byte, targets, segments [][]byte) []byte {
	t, s := bytes.Join(targets, nil), bytes.Join(segments, nil)
	b := make([]byte, listHeader)
	b[0], b[1] = id, usage<<3
	binary.BigEndian.PutUint16(b[2:], uint16(len(t)))
	binary.BigEndian.PutUint32(b[8:], uint32(len(s)))
	return append(append(b, t...), s...)
}

func list(parts ...[]byte) [][]byte { return parts }

func rangeList(ranges []blockRange) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(ranges)*rangeBytes))
	for _, x := range ranges {
		b = binary.BigEndian.AppendUint64(b, x.first)
		b = binary.BigEndian.AppendUint32(b, uint32(x.count))
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

func populateParameters(timeout uint32, typ uint32, ranges ...blockRange) []byte {
	b := make([]byte, 14)
	binary.BigEndian.PutUint32(b[4:], timeout)
	if typ != 0 {
		b[2] = 2
		binary.BigEndian.PutUint32(b[8:], typ)
	}
	b = append(b, rangeList(ranges)...)
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

func writeParameters(flags byte, offset uint64, token []byte, ranges ...blockRange) []byte {
	b := make([]byte, 534)
	b[2] = flags
	binary.BigEndian.PutUint64(b[writeOffset:], offset)
	copy(b[writeToken:], token)
	b = append(b, rangeList(ranges)...)
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

func (r *rig) populate(lun uint16, list uint32, data []byte) scsitest.Result {
	r.Helper()
	return r.n.Do(lun, outCDB(actionPopulateToken, list, len(data)), data)
}

func (r *rig) writeToken(lun uint16, list uint32, data []byte) scsitest.Result {
	r.Helper()
	return r.n.Do(lun, outCDB(actionWriteToken, list, len(data)), data)
}

func (r *rig) tokenInformation(lun uint16, list uint32) scsitest.Result {
	r.Helper()
	cdb := inCDB(actionTokenInformation, 0, 4096)
	binary.BigEndian.PutUint32(cdb[2:], list)
	return r.n.Do(lun, cdb, nil)
}

// token makes a token of ranges of LUN 0.
func (r *rig) token(ranges ...blockRange) []byte {
	r.Helper()
	r.good(r.populate(0, 1, populateParameters(0, 0, ranges...)))
	b := r.good(r.tokenInformation(0, 1)).In
	at := 32 + int(b[13])
	if n := wire.Uint32(b[at:]); n != 2+tokenLength || len(b) != at+4+int(n) {
		r.Fatalf("token descriptors of %d bytes", n)
	}
	return b[at+6:]
}

var errRandom = errors.New("no random numbers")

type noRandom struct{}

func (noRandom) Read([]byte) (int, error) { return 0, errRandom }
