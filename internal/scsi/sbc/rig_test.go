package sbc

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// rig is a bench with one unit and one nexus, and what the tests of block commands
// ask of them.
type rig struct {
	t     testing.TB
	bench *scsitest.Bench
	dev   block.Device
	u     *unit.Unit
	lu    *scsi.LogicalUnit
	nexus *scsi.Nexus
	size  int // of a block
	tag   atomic.Uint64
}

// geometry is what most tests are run for.
type geometry struct {
	size uint32
	thin bool
}

var geometries = []geometry{{512, true}, {512, false}, {4096, true}, {4096, false}}

func (g geometry) String() string {
	if g.thin {
		return fmt.Sprintf("thin-%d", g.size)
	}
	return fmt.Sprintf("thick-%d", g.size)
}

// eachGeometry runs a test on a mem device of the given number of blocks for
// each geometry.
func eachGeometry(t *testing.T, blocks int64, f func(t *testing.T, r *rig)) {
	for _, g := range geometries {
		t.Run(g.String(), func(t *testing.T) {
			f(t, newRig(t, block.NewMem(blocks*int64(g.size)), unit.Attributes{BlockSize: g.size, Thin: g.thin}, nil))
		})
	}
}

func newRig(t testing.TB, dev block.Device, a unit.Attributes, settings unit.SettingStore) *rig {
	t.Helper()
	b := scsitest.New(t, scsitest.Config{
		Families: [][]scsi.Command{Commands()},
		Settings: settings,
		Device:   func(int, int64) block.Device { return dev },
		Attributes: func(_ int, to *unit.Attributes) {
			to.BlockSize, to.PhysicalExponent, to.Thin = a.BlockSize, a.PhysicalExponent, a.Thin
		},
	})
	r := &rig{t: t, bench: b, dev: dev, u: b.Units[0], lu: b.LUs[0], size: int(a.BlockSize)}
	r.nexus = r.connect("own", false)
	return r
}

// connect returns a nexus without unit attentions.
func (r *rig) connect(id string, readOnly bool) *scsi.Nexus {
	r.t.Helper()
	n := r.bench.NewNexus(id, 1, scsi.LUNMap{0: {LU: r.lu, ReadOnly: readOnly}}).Nexus
	r.on(n, make([]byte, 6), nil) // TEST UNIT READY takes the unit attention
	return n
}

// call is a task and the channel that tells its end.
type call struct {
	scsi.Task
	done chan struct{}
}

func (c *call) TaskDone(*scsi.Task) { c.done <- struct{}{} }

// result is what an initiator sees of a command.
type result struct {
	status  scsi.Status
	sense   wire.Sense
	data    []byte
	aborted bool
}

func (c *call) wait() result {
	<-c.done
	res := result{status: c.Status, data: bytes.Clone(c.DataIn), aborted: c.Aborted}
	if c.SenseLen > 0 {
		res.sense, _ = wire.ParseSense(c.Sense[:c.SenseLen])
	}
	c.Release()
	return res
}

// start starts a command as a transport does: with a CDB of 16 bytes, and with as
// much of the Data-Out as the command takes.
func (r *rig) start(n *scsi.Nexus, cdb, out []byte) *call {
	c := &call{done: make(chan struct{}, 1)}
	c.CDB, c.Owner, c.Tag = append(make([]byte, 0, 16), cdb...)[:16], c, r.tag.Add(1)
	c.DataOutExpected = uint32(len(out))
	out = out[:min(len(out), n.DataOutLength(&c.Task))]
	c.DataOut = append(block.Get(len(out)).Bytes(0), out...)
	n.Execute(&c.Task)
	return c
}

func (r *rig) on(n *scsi.Nexus, cdb, out []byte) result { return r.start(n, cdb, out).wait() }

// do runs a command on the rig's own nexus.
func (r *rig) do(cdb, out []byte) result { return r.on(r.nexus, cdb, out) }

// good runs a command that has to end with GOOD and returns its Data-In.
func (r *rig) good(cdb, out []byte) []byte {
	r.t.Helper()
	res := r.do(cdb, out)
	if res.status != scsi.StatusGood {
		r.t.Fatalf("% X: status %02Xh, %v", cdb, res.status, res.sense)
	}
	return res.data
}

// fails runs a command that has to end with CHECK CONDITION and the given sense,
// which it returns.
func (r *rig) fails(cdb, out []byte, key uint8, code uint16) wire.Sense {
	r.t.Helper()
	return r.failed(r.do(cdb, out), cdb, key, code)
}

func (r *rig) failed(res result, cdb []byte, key uint8, code uint16) wire.Sense {
	r.t.Helper()
	if res.status != scsi.StatusCheckCondition || res.sense.Key != key || res.sense.Code != code {
		r.t.Fatalf("% X: status %02Xh, %v; want %X/%04X", cdb, res.status, res.sense, key, code)
	}
	return res.sense
}

// outOfRange runs a command whose blocks the unit does not have; first is the
// first of them.
func (r *rig) outOfRange(cdb, out []byte, first uint64) {
	r.t.Helper()
	s := r.fails(cdb, out, wire.KeyIllegalRequest, wire.LBAOutOfRange)
	if want := first>>32 == 0; s.HasInfo != want || want && s.Information != first {
		r.t.Fatalf("% X: information %v %d, want %d", cdb, s.HasInfo, s.Information, first)
	}
}

// invalid runs a command with a field that is wrong, and checks the pointer to it.
func (r *rig) invalid(cdb, out []byte, inData bool, at, bit int) {
	r.t.Helper()
	code := wire.InvalidFieldInCDB
	if inData {
		code = wire.InvalidFieldInParameterList
	}
	s := r.fails(cdb, out, wire.KeyIllegalRequest, code)
	if want := wire.FieldPointer(inData, at, bit); s.Specific != want {
		r.t.Fatalf("% X: field pointer % X, want % X", cdb, s.Specific, want)
	}
}

// medium returns what the device has in a range of blocks.
func (r *rig) medium(lba, count int) []byte {
	r.t.Helper()
	return blocktest.Read(r.t, r.dev, int64(lba*r.size), count*r.size)
}

// has checks that each byte of a range of blocks has a value.
func (r *rig) has(lba, count int, value byte) {
	r.t.Helper()
	if got := r.medium(lba, count); !bytes.Equal(got, r.fill(count, value)) {
		r.t.Fatalf("blocks %d to %d are not %02Xh throughout", lba, lba+count-1, value)
	}
}

// put fills blocks of the device with a value.
func (r *rig) put(lba, count int, value byte) {
	r.t.Helper()
	blocktest.Write(r.t, r.dev, int64(lba*r.size), r.fill(count, value))
}

// fill returns count blocks of one value.
func (r *rig) fill(count int, value byte) []byte {
	return bytes.Repeat([]byte{value}, count*r.size)
}

// cdb returns a CDB of the common layout.
func cdb(op byte, lba uint64, count uint32) []byte {
	b := make([]byte, wire.CDBLength(op))
	b[0] = op
	switch len(b) {
	case 6:
		wire.PutUint24(b[1:], uint32(lba))
		b[4] = byte(count)
	case 10:
		wire.PutUint32(b[2:], uint32(lba))
		wire.PutUint16(b[7:], uint16(count))
	case 12:
		wire.PutUint32(b[2:], uint32(lba))
		wire.PutUint32(b[6:], count)
	case 16:
		wire.PutUint64(b[2:], lba)
		wire.PutUint32(b[10:], count)
	}
	return b
}

// flags returns a CDB with bits of byte 1 set.
func flags(b []byte, bits byte) []byte {
	b[1] |= bits
	return b
}

// pattern returns count blocks that differ from each other.
func (r *rig) pattern(count int, seed byte) []byte {
	b := make([]byte, count*r.size)
	for i := range b {
		b[i] = byte(i) ^ byte(i/r.size)*7 ^ seed
	}
	return b
}
