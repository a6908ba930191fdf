package scsi

// EncodeLUN returns the 8-byte form of a LUN from 0 to 16383 (SAM-5 §4.7):
// peripheral device addressing below 256, flat space addressing above.
func EncodeLUN(lun uint16) uint64 {
	if lun < 256 {
		return uint64(lun) << 48
	}
	return uint64(0x4000|lun&0x3FFF) << 48
}

// DecodeLUN returns the number of a single-level LUN in peripheral (bus 0) or
// flat space addressing. It reports false for any other form: no such LUN exists here.
func DecodeLUN(lun uint64) (uint16, bool) {
	if lun&(1<<48-1) != 0 {
		return 0, false
	}
	switch first := uint16(lun >> 48); first >> 14 {
	case 0:
		return first, first < 256
	case 1:
		return first & 0x3FFF, true
	}
	return 0, false
}
