package unit

// Attributes are the identity of a unit and what of it the administrator sets.
// A copy is published whole: readers see either the old or the new one.
type Attributes struct {
	NAA      []byte // 8 (NAA 2, 3 or 5) or 16 (NAA 6) bytes, always set
	EUI64    []byte // 8, 12 or 16 bytes, nil for none
	T10ID    string // vendor specific part of the T10 designator, at most 228 ASCII bytes
	Serial   string // unit serial number, at most 252 printable ASCII bytes
	Vendor   string // at most 8 ASCII bytes
	Product  string // at most 16
	Revision string // at most 4

	BlockSize        uint32 // logical block size in bytes: 512 or 4096
	PhysicalExponent uint8  // log2 of logical blocks per physical block
	Rotational       bool   // medium rotation rate: true says 7200 rpm, false non-rotating
	Thin             bool   // LBPME: unmapped blocks read as zeros
	ReadOnly         bool   // for every initiator
	WriteThrough     bool   // WCE=0: every write is on stable storage before it is answered
}
