package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// SectorSize is the unit of the verification pattern in bytes: each sector
// carries its own offset, generation and checksum.
const SectorSize = 512

const (
	patternMagic = 0x4c4e544c42454e43 // "LNTLBENC"
	atOffset     = 8
	atGeneration = 16
	atRun        = 24
	atFill       = 32
	atChecksum   = SectorSize - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNoPattern says that a sector was not written by Fill.
var ErrNoPattern = errors.New("no verification pattern")

// Fill writes the verification pattern of one run into p, whose length is a
// multiple of SectorSize: each sector states the byte offset it belongs at,
// its generation and the run, and ends in a CRC32C.
func Fill(p []byte, off int64, run, generation uint64) {
	for ; len(p) >= SectorSize; p, off = p[SectorSize:], off+SectorSize {
		s := p[:SectorSize]
		binary.BigEndian.PutUint64(s, patternMagic)
		binary.BigEndian.PutUint64(s[atOffset:], uint64(off))
		binary.BigEndian.PutUint64(s[atGeneration:], generation)
		binary.BigEndian.PutUint64(s[atRun:], run)
		x := mix(uint64(off) ^ mix(generation^mix(run)))
		for i := atFill; i+8 <= atChecksum; i += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(s[i:], x)
		}
		binary.LittleEndian.PutUint32(s[atChecksum-4:], uint32(x>>32))
		binary.BigEndian.PutUint32(s[atChecksum:], crc32.Checksum(s[:atChecksum], castagnoli))
	}
}

// Check reads back what Fill wrote at off and returns the generation that all
// sectors of p share. ErrNoPattern means that a sector holds something
// else; a *CorruptError says which sector has the wrong content.
func Check(p []byte, off int64, run uint64) (generation uint64, err error) {
	for i := 0; i+SectorSize <= len(p); i += SectorSize {
		s, at := p[i:i+SectorSize], off+int64(i)
		if binary.BigEndian.Uint64(s) != patternMagic || binary.BigEndian.Uint64(s[atRun:]) != run {
			return 0, fmt.Errorf("byte %d: %w", at, ErrNoPattern)
		}
		if crc32.Checksum(s[:atChecksum], castagnoli) != binary.BigEndian.Uint32(s[atChecksum:]) {
			return 0, &CorruptError{Off: at, What: "checksum is wrong"}
		}
		if got := int64(binary.BigEndian.Uint64(s[atOffset:])); got != at {
			return 0, &CorruptError{Off: at, What: fmt.Sprintf("holds the data of byte %d", got)}
		}
		g := binary.BigEndian.Uint64(s[atGeneration:])
		if i > 0 && g != generation {
			return 0, &CorruptError{Off: at, What: fmt.Sprintf("generation %d in a block of generation %d", g, generation)}
		}
		generation = g
	}
	return generation, nil
}

// CorruptError is data that is not what was written.
type CorruptError struct {
	Off  int64 // the byte offset of the sector on the volume
	What string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("data corruption at byte %d: %s", e.Off, e.What)
}

// mix scrambles a number (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
