package pool

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// File is what metadata is kept on: a file, or a small volume.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Datasync returns after everything written is on stable storage.
	Datasync() error
}

// The metadata area has a fixed layout, so that it fits into a volume as well
// as into a file. All numbers are big-endian.
//
//	0       superblock
//	1 MiB   configuration, slot A
//	17 MiB  configuration, slot B
//	33 MiB  table of reservations and settings, slot A
//	37 MiB  table, slot B
//	41 MiB  superblock, second copy
//
// A slot is a header of one block and a payload of one or two parts. The slots
// of a pair are written in turns, each with the next number and a SHA-256 over
// its header and payload; the valid one with the higher number counts. A power
// cut can spoil only the slot that was being written, which nobody was told of.
//
// The last block of a pair is its mark: a header without payload whose number is
// that of a version that was acknowledged. It is written after the version is on stable storage
// and goes there with the next one, or when the system writes it, so it may be behind
// but never ahead. A pair whose valid slots are all older than its mark was damaged
// after it was acknowledged, and is refused: it would silently serve what was true once. Where
// slot B is so long that it takes the last block, as older programs wrote it, there is no mark.
const (
	areaVersion  = 1
	areaSize     = 42 << 20
	blockSize    = 4096
	superSecond  = 41 << 20
	configOffset = 1 << 20
	configSize   = 16 << 20
	tableOffset  = 33 << 20
	tableSize    = 4 << 20
)

const (
	superMagic = "LINTELMD"
	slotMagic  = "LINTELSL"
)

// slotKind says what a slot holds.
type slotKind uint32

const (
	slotConfig slotKind = 1 // part 0: pool document, part 1: array document
	slotTable  slotKind = 2 // part 0: table
)

func (k slotKind) String() string {
	switch k {
	case slotConfig:
		return "configuration"
	case slotTable:
		return "reservation table"
	}
	return fmt.Sprintf("kind %d", uint32(k))
}

// Offsets in a slot's header. The owner is the id of the pool, padded with zeros.
const (
	slotMagicAt    = 0
	slotVersionAt  = 8
	slotKindAt     = 12
	slotSequenceAt = 16
	slotPart0At    = 24
	slotPart1At    = 32
	slotOwnerAt    = 40
	slotSumAt      = 72
	slotHeaderLen  = slotSumAt + sha256.Size
	ownerLen       = slotSumAt - slotOwnerAt
)

// errEmpty says that a slot was never written.
var errEmpty = errors.New("never written")

// encodeSlot returns header and payload as they are written.
func encodeSlot(kind slotKind, owner string, sequence uint64, part0, part1 []byte) []byte {
	b := make([]byte, blockSize, blockSize+len(part0)+len(part1))
	copy(b[slotMagicAt:], slotMagic)
	binary.BigEndian.PutUint32(b[slotVersionAt:], areaVersion)
	binary.BigEndian.PutUint32(b[slotKindAt:], uint32(kind))
	binary.BigEndian.PutUint64(b[slotSequenceAt:], sequence)
	binary.BigEndian.PutUint64(b[slotPart0At:], uint64(len(part0)))
	binary.BigEndian.PutUint64(b[slotPart1At:], uint64(len(part1)))
	copy(b[slotOwnerAt:slotOwnerAt+ownerLen], owner)
	b = append(b, part0...)
	b = append(b, part1...)
	sum := slotSum(b)
	copy(b[slotSumAt:], sum[:])
	return b
}

// slotSum is the checksum over everything but itself.
func slotSum(b []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(b[:slotSumAt])
	h.Write(b[slotHeaderLen:])
	return [sha256.Size]byte(h.Sum(nil))
}

// slot is the content of a valid slot.
type slot struct {
	sequence uint64
	part0    []byte
	part1    []byte
}

// payloadLen returns the length of the payload that a header announces, or an error
// where it is no header of this kind and owner, or longer than limit.
func payloadLen(header []byte, kind slotKind, owner string, limit int) (int, error) {
	if allZero(header) {
		return 0, errEmpty
	}
	if string(header[slotMagicAt:slotMagicAt+len(slotMagic)]) != slotMagic {
		return 0, fmt.Errorf("no header: it starts with % x", header[:len(slotMagic)])
	}
	if v := binary.BigEndian.Uint32(header[slotVersionAt:]); v != areaVersion {
		return 0, fmt.Errorf("version %d, this program knows %d", v, areaVersion)
	}
	if k := slotKind(binary.BigEndian.Uint32(header[slotKindAt:])); k != kind {
		return 0, fmt.Errorf("it holds %v", k)
	}
	if is := trimZeros(header[slotOwnerAt : slotOwnerAt+ownerLen]); is != owner {
		return 0, fmt.Errorf("it belongs to %q, not to %q", is, owner)
	}
	len0, len1 := binary.BigEndian.Uint64(header[slotPart0At:]), binary.BigEndian.Uint64(header[slotPart1At:])
	if len0 > math.MaxInt32 || len1 > math.MaxInt32 || int(len0)+int(len1) > limit-blockSize {
		return 0, fmt.Errorf("parts of %d and %d bytes do not fit", len0, len1)
	}
	return int(len0) + int(len1), nil
}

// decodeSlot checks header and payload and returns what they hold; the parts lie
// in b.
func decodeSlot(b []byte, kind slotKind, owner string) (slot, error) {
	if len(b) < blockSize {
		return slot{}, fmt.Errorf("%d bytes are no slot", len(b))
	}
	n, err := payloadLen(b[:blockSize], kind, owner, len(b))
	if err != nil {
		return slot{}, err
	}
	b = b[:blockSize+n]
	if slotSum(b) != [sha256.Size]byte(b[slotSumAt:]) {
		return slot{}, errors.New("the checksum is wrong: it was written partly, or damaged")
	}
	len0 := int(binary.BigEndian.Uint64(b[slotPart0At:]))
	payload := b[blockSize:]
	return slot{sequence: binary.BigEndian.Uint64(b[slotSequenceAt:]), part0: payload[:len0], part1: payload[len0:]}, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func trimZeros(b []byte) string {
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	return string(b[:end])
}

// Offsets in a superblock.
const (
	superMagicAt   = 0
	superVersionAt = 8
	superSizeAt    = 16
	superOwnerAt   = 24
	superSumAt     = superOwnerAt + ownerLen
	superEnd       = superSumAt + sha256.Size
)

func encodeSuper(owner string) []byte {
	b := make([]byte, blockSize)
	copy(b[superMagicAt:], superMagic)
	binary.BigEndian.PutUint32(b[superVersionAt:], areaVersion)
	binary.BigEndian.PutUint64(b[superSizeAt:], areaSize)
	copy(b[superOwnerAt:superOwnerAt+ownerLen], owner)
	sum := sha256.Sum256(b[:superSumAt])
	copy(b[superSumAt:], sum[:])
	return b
}

// decodeSuper returns the id of the pool that a metadata area belongs to.
func decodeSuper(b []byte) (owner string, err error) {
	switch {
	case len(b) < superEnd || allZero(b):
		return "", errEmpty
	case string(b[:len(superMagic)]) != superMagic:
		return "", fmt.Errorf("not metadata of a pool: it starts with % x", b[:len(superMagic)])
	}
	if v := binary.BigEndian.Uint32(b[superVersionAt:]); v > areaVersion {
		return "", fmt.Errorf("version %d, this program knows %d: use the newer program", v, areaVersion)
	}
	if sha256.Sum256(b[:superSumAt]) != [sha256.Size]byte(b[superSumAt:superEnd]) {
		return "", errors.New("the checksum is wrong")
	}
	if n := binary.BigEndian.Uint64(b[superSizeAt:]); n != areaSize {
		return "", fmt.Errorf("an area of %d bytes, want %d", n, areaSize)
	}
	owner = trimZeros(b[superOwnerAt : superOwnerAt+ownerLen])
	if owner == "" {
		return "", errors.New("the owner is missing")
	}
	return owner, nil
}
