package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// A block is a row of cells, each with the whole stamp: what is torn between
// two cells, or inside of one, shows.
//
//	0  magic
//	8  block
//	16 value
//	24 number of the cell
//	28 CRC32C of the bytes before
const (
	// CellSize is what the size of a block has to be a multiple of, in bytes.
	CellSize  = 32
	cellMagic = 0x6C696E74656C2068
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Fill writes the content that a value stands for over p, a whole block.
func Fill(p []byte, block uint64, v Value) {
	if v == Blank {
		clear(p)
		return
	}
	for i := range len(p) / CellSize {
		c := p[i*CellSize:][:CellSize]
		binary.BigEndian.PutUint64(c, cellMagic)
		binary.BigEndian.PutUint64(c[8:], block)
		binary.BigEndian.PutUint64(c[16:], uint64(v))
		binary.BigEndian.PutUint32(c[24:], uint32(i))
		binary.BigEndian.PutUint32(c[28:], crc32.Checksum(c[:28], castagnoli))
	}
}

// Identify returns the value that p, a whole block, holds. Where it is Torn, the
// note says what each cell holds.
func Identify(p []byte, block uint64) (v Value, note string) {
	v = cell(p, block, 0)
	whole := v != Torn
	for i := 1; whole && i < len(p)/CellSize; i++ {
		whole = cell(p, block, i) == v
	}
	if whole {
		return v, ""
	}
	return Torn, describe(p, block)
}

func describe(p []byte, block uint64) string {
	var parts []string
	n := len(p) / CellSize
	for from := 0; from < n; {
		v, to := cell(p, block, from), from+1
		for to < n && cell(p, block, to) == v {
			to++
		}
		text := v.String()
		if v == Torn {
			text = "damaged or foreign"
		}
		parts = append(parts, fmt.Sprintf("bytes %d to %d %s", from*CellSize, to*CellSize-1, text))
		from = to
	}
	return strings.Join(parts, ", ")
}

func cell(p []byte, block uint64, i int) Value {
	c := p[i*CellSize:][:CellSize]
	if [CellSize]byte(c) == [CellSize]byte{} {
		return Blank
	}
	if binary.BigEndian.Uint64(c) != cellMagic || binary.BigEndian.Uint64(c[8:]) != block ||
		binary.BigEndian.Uint32(c[24:]) != uint32(i) ||
		binary.BigEndian.Uint32(c[28:]) != crc32.Checksum(c[:28], castagnoli) {
		return Torn
	}
	return Value(binary.BigEndian.Uint64(c[16:]))
}
