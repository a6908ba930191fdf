package copy

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/reserve"
	"lintel.io/lintel/internal/scsi/sbc"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// lazy is a memory device that takes its time, on goroutines of its own.
type lazy struct {
	block.Device
	under sync.WaitGroup
}

func (l *lazy) Submit(r *block.Request) {
	l.under.Go(func() {
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		l.Device.Submit(r)
	})
}

const fenceBlocks = 4096

// TestFencing sends changes of every kind from one host, and takes a unit from it in every way: once that is
// answered, nothing that the host has sent before reaches the medium.
func TestFencing(t *testing.T) {
	for name, c := range map[string]struct {
		fence  func(f *fencing)
		copies int // to how many of the units copies to the first one are sent
	}{
		"LOGICAL UNIT RESET": {func(f *fencing) { f.by.Manage(scsi.LogicalUnitReset, 0, 0) }, 1},
		"CLEAR TASK SET":     {func(f *fencing) { f.by.Manage(scsi.ClearTaskSet, 0, 0) }, 1},
		"TARGET WARM RESET":  {func(f *fencing) { f.by.Manage(scsi.TargetWarmReset, 0, 0) }, 2},
		"nexus loss":         {func(f *fencing) { f.n.Close() }, 2},
		"PREEMPT AND ABORT":  {(*fencing).preempt, 2},
	} {
		t.Run(name, func(t *testing.T) {
			for range 8 {
				f := newFencing(t)
				pending := f.start(80, c.copies)
				late := []*scsitest.Pending{f.n.Arrive(0, scsi.AttrSimple, write16(7, 1), f.block()), f.n.Arrive(0, scsi.AttrSimple, write16(9, 1), f.block())}
				time.Sleep(time.Duration(rand.IntN(1500)) * time.Microsecond)
				c.fence(f)
				after := f.content()
				for _, p := range late {
					f.n.Execute(p.Task)
				}
				for _, p := range append(pending, late...) {
					p.Wait()
				}
				for _, d := range f.devices {
					d.under.Wait()
				}
				if !bytes.Equal(after, f.content()) {
					t.Fatal("the medium has changed after the answer")
				}
			}
		})
	}
}

type fencing struct {
	*scsitest.Bench
	t       *testing.T
	devices []*lazy
	mem     []block.Device
	n, by   *scsitest.Nexus
	token   []byte
}

func newFencing(t *testing.T) *fencing {
	t.Helper()
	f := &fencing{t: t}
	m := New(Config{})
	f.Bench = scsitest.New(t, scsitest.Config{
		Units: 2, Blocks: fenceBlocks, Families: [][]scsi.Command{sbc.Commands(), reserve.Commands(), m.Commands()},
		Device: func(_ int, size int64) block.Device {
			d := &lazy{Device: block.NewMem(size)}
			f.devices, f.mem = append(f.devices, d), append(f.mem, d.Device)
			return d
		},
	})
	f.n, f.by = f.Nexus("host", 1), f.Nexus("by", 2)
	params := populateParameters(0, 0, blockRange{2048, 64})
	if res := f.n.Do(1, outCDB(actionPopulateToken, 5, len(params)), params); res.Status != scsi.StatusGood {
		t.Fatal(res)
	}
	res := f.n.Do(1, func() []byte {
		b := make([]byte, 16)
		b[0], b[1] = wire.OpThirdPartyCopyIn, actionTokenInformation
		wire.PutUint32(b[2:], 5)
		wire.PutUint32(b[10:], 1024)
		return b
	}(), nil)
	f.token = res.In[len(res.In)-tokenLength:]
	return f
}

// preempt is PREEMPT AND ABORT, sent to the first unit.
func (f *fencing) preempt() {
	rs := &f.Units[0].Reservations
	for i, from := range []unit.Initiator{f.by.Initiator(), f.n.Initiator()} {
		if err := rs.Register(unit.Register{From: from, NewKey: uint64(1 + i)}); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := rs.Reserve(f.n.Initiator(), 2, unit.WriteExclusiveRegistrantsOnly); err != nil {
		f.t.Fatal(err)
	}
	list := make([]byte, 24)
	list[7], list[15] = 1, 2
	if res := f.by.Do(0, []byte{wire.OpPersistentOut, 5, 5, 0, 0, 0, 0, 0, 24, 0}, list); res.Status != scsi.StatusGood {
		f.t.Fatal(res)
	}
}

// content returns what the first unit holds.
func (f *fencing) content() []byte {
	b := make([]byte, fenceBlocks<<9)
	done := make(waitDone, 1)
	f.mem[0].Submit(&block.Request{Op: block.Read, Data: b, Done: done})
	if err := <-done; err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *fencing) block() []byte { return bytes.Repeat([]byte{byte(1 + rand.IntN(255))}, 512) }

func write16(lba uint64, count int) []byte { return cdb16(wire.OpWrite16, lba, count) }

func cdb16(op byte, lba uint64, count int) []byte {
	b := make([]byte, 16)
	b[0] = op
	wire.PutUint64(b[2:], lba)
	wire.PutUint32(b[10:], uint32(count))
	return b
}

// start starts changes of the first unit, by commands to it or, of the copies, to the first units.
func (f *fencing) start(n, copies int) (list []*scsitest.Pending) {
	for range n {
		lba, count := uint64(rand.IntN(64)), 1+rand.IntN(16)
		data := bytes.Repeat(f.block(), 2*count)
		attr := []scsi.TaskAttribute{scsi.AttrSimple, scsi.AttrSimple, scsi.AttrSimple, scsi.AttrOrdered, scsi.AttrHeadOfQueue}[rand.IntN(5)]
		lun := uint16(0)
		var cdb []byte
		switch rand.IntN(9) {
		case 0:
			cdb = write16(lba, count)
		case 1:
			cdb = cdb16(wire.OpWriteAtomic16, lba, count)
		case 2:
			cdb = cdb16(wire.OpORWrite16, lba, count)
		case 3:
			cdb, data = cdb16(wire.OpWriteSame16, lba, count), data[:512]
		case 4:
			cdb = cdb16(wire.OpCompareAndWrite, lba, count)
			cdb[10], cdb[11], cdb[12], cdb[13] = 0, 0, 0, byte(count)
			clear(data[:count<<9])
		case 5:
			cdb = cdb16(wire.OpWriteVerify16, lba, count)
		case 6:
			data = make([]byte, 24)
			data[1], data[3] = 22, 16
			wire.PutUint64(data[8:], lba)
			wire.PutUint32(data[16:], uint32(count))
			cdb = []byte{wire.OpUnmap, 0, 0, 0, 0, 0, 0, 0, 24, 0}
		case 7:
			lun = uint16(rand.IntN(copies))
			describe := func(i int) []byte { return describe(wire.DesignatorNAA, f.Units[i].Attributes().NAA) }
			data = copyParameters(0, usageNone, [][]byte{describe(0), describe(1)}, [][]byte{blockToBlock(1, 0, 1900, 2048, lba)})
			cdb = outCDB(actionExtendedCopy, 0, len(data))
		default:
			data = writeParameters(0, 0, f.token, blockRange{lba, 64})
			cdb = outCDB(actionWriteToken, rand.Uint32(), len(data))
		}
		list = append(list, f.n.Start(lun, attr, cdb, data))
	}
	return list
}
