package scsi

import (
	"lintel.io/lintel/internal/unit"
)

// Target is the SCSI target device: what one array is to its initiators. Its
// logical units are reached through target ports, each in one target port
// group (one group a head).
type Target struct{}

// TargetConfig describes a Target.
type TargetConfig struct {
	// Name is the SCSI target device name (the IQN), at most 223 bytes.
	Name string
	// Families are the tables of command families beside the SPC base
	// commands of this package (sbc.Commands(), reserve.Commands(), ...).
	Families [][]Command
}

// NewTarget returns a target without ports or units.
func NewTarget(TargetConfig) (*Target, error) { return &Target{}, nil }

// PortConfig describes a target port.
type PortConfig struct {
	// Name is the SCSI target port name (for iSCSI "iqn...,t,0x0001").
	Name string
	// Relative is the relative target port identifier, 1 to 65535, unique in the array.
	Relative uint16
	// Group is the target port group, 1 to 65535.
	Group uint16
	// Protocol is the SPC-4 protocol identifier (5 for iSCSI).
	Protocol uint8
}

// SetPorts replaces the list of target ports (REPORT TARGET PORT GROUPS and VPD 83h list them).
func (t *Target) SetPorts([]PortConfig) error { return nil }

// LogicalUnit is a unit.Unit as SCSI presents it: with mode pages, unit
// attentions, and sanitize state.
type LogicalUnit struct{}

// AddUnit makes a unit known to the target. It can be mapped afterwards.
func (t *Target) AddUnit(u *unit.Unit) (*LogicalUnit, error) { return &LogicalUnit{}, nil }

// RemoveUnit ends the commands on a unit and forgets it. done is called when
// no command can reach the unit's device any more.
func (t *Target) RemoveUnit(lu *LogicalUnit, done func()) {}

// Unit returns the shared unit below.
func (lu *LogicalUnit) Unit() *unit.Unit { return nil }

// Mapping is what one LUN of a nexus leads to.
type Mapping struct {
	LU       *LogicalUnit
	ReadOnly bool
}

// LUNMap is what an I_T nexus sees: LUN number (0 to 16383) to unit. It is not changed
// after it was given to a nexus.
type LUNMap map[uint16]Mapping

// NexusConfig describes an I_T nexus.
type NexusConfig struct {
	Initiator     unit.Initiator // name and relative target port
	InitiatorName string         // initiator device name, for transport ids and displays
	TransportID   []byte         // SPC-4 §7.6.4 TransportID of the initiator port
	LUNs          LUNMap
}

// Nexus is an I_T nexus: one initiator port at one target port.
type Nexus struct{}

// NewNexus establishes an I_T nexus. Every mapped unit reports POWER ON OCCURRED (29/01) or
// I_T NEXUS LOSS (29/07) where it has not seen, or has lost, this initiator port.
func (t *Target) NewNexus(NexusConfig) (*Nexus, error) { return &Nexus{}, nil }

// SetLUNs replaces what the nexus sees, and raises REPORTED LUNS DATA HAS
// CHANGED (3F/0E) where it differs. Commands under way on an unmapped unit end.
func (n *Nexus) SetLUNs(LUNMap) {}

// Close ends the nexus (I_T nexus loss, SAM-5 §6.3.4): its commands are
// aborted, SCSI-2 reservations released, medium removal allowed. done is called when none
// of its commands can reach a device any more.
func (n *Nexus) Close(done func()) {}

// DataOutLength reports how many bytes of Data-Out the command in t.CDB takes: 0
// where it takes none, is unknown, exceeds the limits or its LUN does not exist (Execute
// then ends it with the right status without data).
func (n *Nexus) DataOutLength(t *Task) int { return 0 }

// Execute runs a command. t.Owner.TaskDone is called once, possibly before
// Execute returns, except for a task for which task management sets Aborted: TaskDone is called
// for it too, when it can no longer reach the device.
func (n *Nexus) Execute(t *Task) {}

// Manage runs a task management function. tag names the task of ABORT TASK
// and QUERY TASK. done is called, possibly before Manage returns, when every
// affected command has ended.
func (n *Nexus) Manage(f Function, lun, tag uint64, done func(Response)) {}

// Release gives the task's data back to its pools and readies it for reuse.
func (t *Task) Release() {}

// AllocIn sets DataIn to n bytes from the buffer pool, aligned for devices, and
// returns it. The content is arbitrary: the caller fills all of it.
func (t *Task) AllocIn(n int) []byte { return nil }

// Finish ends the task with a status that carries no sense data.
func (t *Task) Finish(Status) {}

// Fail ends the task with CHECK CONDITION and the given sense.
func (t *Task) Fail(Sense) {}

// FailField ends the task with ILLEGAL REQUEST, INVALID FIELD IN CDB (or in
// PARAMETER LIST where inData) and a field pointer to the byte and bit; bit -1 for
// the whole byte.
func (t *Task) FailField(inData bool, byteOffset, bit int) {}

// FailIO ends the task with the sense that a device error stands for:
// KindMedium 3/11/00 or 3/0C/00 with the LBA in INFORMATION, KindNoSpace 7/27/07
// (DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT), KindReadOnly 7/27/00,
// KindGone 2/04/01 while it may come back, else 4/44/00.
func (t *Task) FailIO(err error) {}

// Sense is a sense key with additional sense code and qualifier, and what goes with them.
type Sense struct {
	Key         uint8
	Code        uint16 // ASC in the high byte, ASCQ in the low
	Information uint64 // INFORMATION field, valid where HasInfo
	HasInfo     bool
	Specific    [3]byte // sense key specific bytes, valid where Specific[0]&0x80 != 0 (SKSV)
}
