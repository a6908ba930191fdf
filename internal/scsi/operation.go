package scsi

import (
	"encoding/binary"
	"errors"
	"fmt"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// What a command counts as in the statistics.
const (
	classOther uint8 = iota
	classRead
	classWrite
)

// maxCDB is the longest CDB that has a command, in bytes.
const maxCDB = 32

// operation is a Command as the dispatcher wants it.
type operation struct {
	Command
	class  uint8
	medium bool // refused on a stopped unit
	states uint16
	// badLow and badHigh have a bit set for each bit of CDB bytes 0 to 7 and 8
	// to 15, little endian, that must be zero; badRest for those beyond.
	badLow, badHigh uint64
	badRest         []byte
}

// table finds a command by operation code and service action.
type table struct {
	ops  [256]*operation
	subs [256]*[32]*operation
}

// defaultStates are the asymmetric access states in which a command is
// processed that does not say otherwise.
const defaultStates = 1<<0 | 1<<1

// newTable builds the table of the SPC commands and several families. Two
// commands with the same codes are refused.
func newTable(families [][]Command) (*table, error) {
	tb := &table{}
	var errs []error
	for _, c := range commands() {
		errs = append(errs, tb.add(c, c.Op == wire.OpTestUnitReady))
	}
	for _, family := range families {
		for _, c := range family {
			errs = append(errs, tb.add(c, c.Access != unit.AccessNone))
		}
	}
	return tb, errors.Join(errs...)
}

func (tb *table) add(c Command, medium bool) error {
	if len(c.Usage) == 0 || len(c.Usage) > maxCDB || c.Usage[0] != c.Op || c.ServiceAction > 31 || c.Run == nil {
		return fmt.Errorf("scsi: command %s: bad description", c.Name)
	}
	op := &operation{Command: c, medium: medium, states: c.AllowStates}
	if op.states == 0 {
		op.states = defaultStates
	}
	switch {
	case wire.IsRead(c.Op):
		op.class = classRead
	case wire.IsWrite(c.Op):
		op.class = classWrite
	}
	op.Usage = append([]byte(nil), c.Usage...)
	if c.ServiceAction >= 0 {
		op.Usage[1] = op.Usage[1]&^0x1F | byte(c.ServiceAction)
	}
	var bad [maxCDB]byte
	for i, u := range op.Usage {
		bad[i] = ^u
	}
	op.badLow = binary.LittleEndian.Uint64(bad[0:])
	op.badHigh = binary.LittleEndian.Uint64(bad[8:])
	if len(op.Usage) > 16 {
		op.badRest = bad[16:len(op.Usage)]
	}
	return tb.insert(op)
}

func (tb *table) insert(op *operation) error {
	code := op.Op
	if op.ServiceAction < 0 {
		if tb.ops[code] != nil || tb.subs[code] != nil {
			return fmt.Errorf("scsi: command %s: operation code %02Xh is taken", op.Name, code)
		}
		tb.ops[code] = op
		return nil
	}
	if tb.subs[code] == nil {
		tb.subs[code] = new([32]*operation)
	}
	if tb.ops[code] != nil || tb.subs[code][op.ServiceAction] != nil {
		return fmt.Errorf("scsi: command %s: operation code %02Xh with service action %02Xh is taken", op.Name, code, op.ServiceAction)
	}
	tb.subs[code][op.ServiceAction] = op
	return nil
}

// find returns the command of a CDB. sub says that the operation code is known
// and its service action is not.
func (tb *table) find(cdb []byte) (op *operation, sub bool) {
	if len(cdb) < 6 {
		return nil, false
	}
	if op := tb.ops[cdb[0]]; op != nil {
		return op, false
	}
	if s := tb.subs[cdb[0]]; s != nil {
		op := s[cdb[1]&0x1F]
		return op, op == nil
	}
	return nil, false
}

// supported reports whether the command exists on a unit; lu may be nil.
func (op *operation) supported(lu *LogicalUnit) bool {
	return op.Supported == nil || lu == nil || op.Supported(lu)
}

// valid reports whether the CDB has no bit set that the command does not evaluate.
func (op *operation) valid(cdb []byte) bool {
	if len(cdb) < 16 {
		return op.validShort(cdb)
	}
	if binary.LittleEndian.Uint64(cdb)&op.badLow|binary.LittleEndian.Uint64(cdb[8:])&op.badHigh != 0 {
		return false
	}
	return op.badRest == nil || op.validRest(cdb)
}

func (op *operation) validShort(cdb []byte) bool {
	if len(cdb) < len(op.Usage) {
		return false
	}
	var b [16]byte
	copy(b[:], cdb)
	return op.valid(b[:])
}

func (op *operation) validRest(cdb []byte) bool {
	if len(cdb) < len(op.Usage) {
		return false
	}
	for i, bad := range op.badRest {
		if cdb[16+i]&bad != 0 {
			return false
		}
	}
	return true
}

// firstBad returns the byte and bit of the first field that must be zero and is not.
func (op *operation) firstBad(cdb []byte) (byteOffset, bit int) {
	for i, u := range op.Usage {
		if i >= len(cdb) {
			return i, -1
		}
		for bit := 7; bit >= 0; bit-- {
			if cdb[i]&^u&(1<<bit) != 0 {
				return i, bit
			}
		}
	}
	return len(op.Usage) - 1, -1
}
