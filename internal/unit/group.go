package unit

// AccessState is the asymmetric access state of a group through one target
// port group; the values are those of SPC-4 §5.15.2 and table 306.
type AccessState uint8

// The access states.
const (
	Optimized     AccessState = 0x0
	NonOptimized  AccessState = 0x1
	Standby       AccessState = 0x2
	Unavailable   AccessState = 0x3
	Offline       AccessState = 0xE
	Transitioning AccessState = 0xF
)

// Group is the failover unit as initiators see it: the units of one pool, an
// ALUA device group, an ANA group. It has one access state for each target
// port group.
type Group struct{}
