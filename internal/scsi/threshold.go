package scsi

import (
	"math"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// thresholdSets returns a size as a count of threshold sets, rounded up.
func thresholdSets(bytes uint64) uint32 {
	sets := bytes / thresholdBytes
	if bytes%thresholdBytes != 0 {
		sets++
	}
	return uint32(min(sets, math.MaxUint32))
}

// SetThinThreshold sets the used part of a thin unit, in percent of its capacity, at which
// initiators are told THIN PROVISIONING SOFT THRESHOLD REACHED (SBC-3 §4.7.3.8);
// 0 for never.
func (lu *LogicalUnit) SetThinThreshold(percent uint8) {
	lu.threshold.Store(uint32(min(percent, 100)))
}

// thresholdAt returns how many bytes of a thin unit may be used before the soft
// threshold is reached, 0 for no threshold.
func (lu *LogicalUnit) thresholdAt() uint64 {
	size := lu.unit.Blocks() << lu.unit.BlockShift()
	return size / 100 * uint64(lu.threshold.Load())
}

// CheckThinThreshold tells the initiators of a thin unit that its soft threshold
// is reached, once for each time that the used space, in bytes, grows past it. The array calls it
// from time to time.
func (lu *LogicalUnit) CheckThinThreshold(used uint64) {
	at := lu.thresholdAt()
	if at == 0 || !lu.unit.Attributes().Thin {
		lu.reached.Store(false)
		return
	}
	over := used >= at
	if lu.reached.Swap(over) != over && over {
		lu.unit.Notify(unit.EventThinThreshold, nil)
	}
}

// isThin says for the mode page that it exists on thin units only.
func isThin(lu *LogicalUnit) bool { return lu.unit.Attributes().Thin }

// provisioningModePage is the Logical Block Provisioning page (SBC-3 §6.5.9),
// with the soft threshold of the used space.
func provisioningModePage(lu *LogicalUnit, _ modeValues) []byte {
	b := newPage(0x1C, 0x02, 24)
	if at := lu.thresholdAt(); at > 0 {
		b[16] = 0x80 | 0x01 // ENABLED, soft, armed while the count grows
		b[17] = 0x02        // the used logical block provisioning resources
		wire.PutUint32(b[20:], thresholdSets(at))
	}
	return b
}
