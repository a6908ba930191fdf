package sbc

import (
	"math"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/scsi"
)

const (
	statusHeader     = 8
	statusDescriptor = 16
	maxDescriptors   = 256
	// maxExtents bounds how often the device is asked for one command. An
	// answer may end before the end of the unit (SBC-3 §5.4.2).
	maxExtents = 4096

	mapped      = 0
	deallocated = 1
)

// runGetLBAStatus is GET LBA STATUS (SBC-3 §5.4). A fully provisioned unit is
// mapped as a whole. The map of a thin one comes from its device, which may have
// to wait for the medium.
func runGetLBAStatus(t *scsi.Task) {
	u := t.LU.Unit()
	lba := wire.Uint64(t.CDB[2:])
	if lba >= u.Blocks() {
		failRange(t, lba)
		return
	}
	if !u.Attributes().Thin {
		l := statusList{room: maxDescriptors}
		l.add(lba, u.Blocks()-lba, mapped)
		l.reply(t)
		return
	}
	go findLBAStatus(t, lba)
}

func findLBAStatus(t *scsi.Task, lba uint64) {
	allocation := int64(wire.Uint32(t.CDB[10:]))
	l := statusList{room: int(max(1, min((allocation-statusHeader)/statusDescriptor, maxDescriptors)))}
	u := t.LU.Unit()
	shift := u.BlockShift()
	end := int64(u.Blocks()) << shift
	for pos, i := int64(lba)<<shift, 0; pos < end && i < maxExtents && !t.Cancelled(); i++ {
		allocated, n, err := u.Device().Extent(pos, end-pos)
		if err != nil {
			t.FailIO(err)
			return
		}
		blocks, status := n>>shift, byte(deallocated)
		if allocated || blocks == 0 {
			// A block that is allocated in part is mapped.
			blocks, status = (n+1<<shift-1)>>shift, mapped
		}
		if !l.add(uint64(pos)>>shift, uint64(blocks), status) {
			break
		}
		pos += blocks << shift
	}
	l.reply(t)
}

// statusList collects LBA status descriptors, merging neighbours of one status.
type statusList struct {
	room  int // descriptors at most
	data  []byte
	first uint64
	count uint64
	state byte
}

// add appends a run of blocks; false where there is no room for more.
func (l *statusList) add(lba, count uint64, state byte) bool {
	if l.count > 0 && l.state == state {
		l.count += count
		return true
	}
	if !l.flush() {
		return false
	}
	l.first, l.count, l.state = lba, count, state
	return true
}

// flush writes the run that is being collected.
func (l *statusList) flush() bool {
	for l.count > 0 {
		if len(l.data)/statusDescriptor == l.room {
			return false
		}
		var d [statusDescriptor]byte
		n := min(l.count, math.MaxUint32)
		wire.PutUint64(d[0:], l.first)
		wire.PutUint32(d[8:], uint32(n))
		d[12] = l.state
		l.data = append(l.data, d[:]...)
		l.first, l.count = l.first+n, l.count-n
	}
	return len(l.data)/statusDescriptor < l.room
}

func (l *statusList) reply(t *scsi.Task) {
	l.flush()
	b := make([]byte, statusHeader, statusHeader+len(l.data))
	wire.PutUint32(b, uint32(statusHeader-4+len(l.data)))
	t.Reply(append(b, l.data...), int(min(wire.Uint32(t.CDB[10:]), math.MaxInt32)))
}
