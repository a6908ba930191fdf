// Package scsitest is a small bench for tests of SCSI commands: a target with
// memory units, and nexuses that execute commands and wait for their results.
package scsitest

import (
	"fmt"
	"sync/atomic"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// TargetName is the name of the bench's target device.
const TargetName = "iqn.2026-11.io.lintel:bench"

// Config says what a bench is made of. The zero value is one writable unit of
// 2048 blocks of 512 bytes, thin, in memory.
type Config struct {
	Units  int    // how many units, LUN 0 on; at least 1
	Blocks uint64 // capacity of each
	// Attributes, where not nil, changes the attributes of unit i.
	Attributes func(i int, a *unit.Attributes)
	// Device, where not nil, gives the device of unit i instead of one in memory.
	Device func(i int, size int64) block.Device
	// Reservations and Settings keep what units save; nil keeps it in memory.
	Reservations unit.ReservationStore
	Settings     unit.SettingStore
	// Families, Pages, Available and OnReset go to scsi.TargetConfig.
	Families [][]scsi.Command
	Pages    map[byte]func(*scsi.LogicalUnit) []byte
	OnReset  func(*scsi.Nexus, scsi.Function)

	Available func(*scsi.LogicalUnit) (uint64, bool)
}

// Bench is a target with units. Target ports 1 and 2 are in target port groups 1 and 2.
type Bench struct {
	Target *scsi.Target
	Group  *unit.Group
	Units  []*unit.Unit
	LUs    []*scsi.LogicalUnit

	t testing.TB
}

// New returns a bench, which ends with the test.
func New(t testing.TB, c Config) *Bench {
	t.Helper()
	target, err := scsi.NewTarget(scsi.TargetConfig{
		Name:      TargetName,
		Families:  c.Families,
		Pages:     c.Pages,
		Available: c.Available,
		OnReset:   c.OnReset,
	})
	if err != nil {
		t.Fatal(err)
	}
	err = target.SetPorts([]scsi.PortConfig{
		{Name: TargetName + ",t,0x0001", Relative: 1, Group: 1, Protocol: wire.ProtocolISCSI},
		{Name: TargetName + ",t,0x0002", Relative: 2, Group: 2, Protocol: wire.ProtocolISCSI},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &Bench{Target: target, Group: unit.NewGroup(1, "bench"), t: t}
	for i := range max(c.Units, 1) {
		b.addUnit(c, i)
	}
	return b
}

func (b *Bench) addUnit(c Config, i int) {
	b.t.Helper()
	a := unit.Attributes{
		NAA:       []byte{0x60, 0x24, 0xC4, 0xE0, 0, 0, 0, byte(i), 0, 0, 0, 0, 0, 0, 0, 1},
		EUI64:     []byte{0x02, 0x4C, 0x4E, 0, 0, 0, 0, byte(i)},
		T10ID:     fmt.Sprintf("bench-%d", i),
		Serial:    fmt.Sprintf("SERIAL%02d", i),
		Vendor:    "LINTEL",
		Product:   "VIRTUAL-DISK",
		Revision:  "0001",
		BlockSize: 512,
		Thin:      true,
	}
	if c.Attributes != nil {
		c.Attributes(i, &a)
	}
	blocks := c.Blocks
	if blocks == 0 {
		blocks = 2048
	}
	size := int64(blocks) * int64(a.BlockSize)
	var dev block.Device
	if c.Device != nil {
		dev = c.Device(i, size)
	} else {
		dev = block.NewMem(size)
	}
	u, err := unit.New(unit.Config{
		ID:           unit.ID(fmt.Sprintf("bench-%d", i)),
		Attributes:   a,
		Device:       dev,
		Group:        b.Group,
		Reservations: c.Reservations,
		Settings:     c.Settings,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	lu, err := b.Target.AddUnit(u)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Units, b.LUs = append(b.Units, u), append(b.LUs, lu)
	b.t.Cleanup(func() {
		if err := u.Close(); err != nil {
			b.t.Errorf("close unit %d: %v", i, err)
		}
	})
}

// LUNs returns the map of all units, LUN 0 on.
func (b *Bench) LUNs() scsi.LUNMap {
	m := make(scsi.LUNMap)
	for i, lu := range b.LUs {
		m[uint16(i)] = scsi.Mapping{LU: lu}
	}
	return m
}

// Nexus returns a nexus of an initiator, named by a short id, at a target port;
// it sees all units, and no unit attention is pending.
func (b *Bench) Nexus(id string, port uint16) *Nexus {
	b.t.Helper()
	n := b.NewNexus(id, port, b.LUNs())
	for i := range b.LUs {
		n.Do(uint16(i), []byte{wire.OpTestUnitReady, 0, 0, 0, 0, 0}, nil)
	}
	return n
}

// NewNexus returns a nexus with the given LUNs, its unit attentions pending.
func (b *Bench) NewNexus(id string, port uint16, luns scsi.LUNMap) *Nexus {
	b.t.Helper()
	name := "iqn.2026-11.io.lintel.test:" + id
	portName := name + ",i,0x400000000001"
	n, err := b.Target.NewNexus(scsi.NexusConfig{
		Initiator:     unit.Initiator{Name: portName, Port: port},
		InitiatorName: name,
		TransportID:   wire.ISCSITransportID(portName),
		LUNs:          luns,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return &Nexus{Nexus: n, t: b.t}
}

// Nexus is an I_T nexus that executes commands one after the other or at once.
type Nexus struct {
	*scsi.Nexus
	t   testing.TB
	tag atomic.Uint64
}

// Result is what the initiator gets of a command.
type Result struct {
	Status  scsi.Status
	Sense   wire.Sense // where Status is CHECK CONDITION
	Raw     []byte     // the sense data
	In      []byte
	Aborted bool // no response at all
}

// Is reports whether the command ended with CHECK CONDITION and this sense.
func (r Result) Is(key uint8, code uint16) bool {
	return r.Status == scsi.StatusCheckCondition && r.Sense.Key == key && r.Sense.Code == code
}

func (r Result) String() string {
	if r.Aborted {
		return "aborted"
	}
	if r.Status == scsi.StatusCheckCondition {
		return r.Sense.String()
	}
	return fmt.Sprintf("status %02Xh, %d bytes", uint8(r.Status), len(r.In))
}

// Do executes a command and waits for its result. The CDB may be shorter than
// 16 bytes. out is what the initiator sends.
func (n *Nexus) Do(lun uint16, cdb, out []byte) Result {
	n.t.Helper()
	return n.Start(lun, scsi.AttrSimple, cdb, out).Wait()
}

// Pending is a command under way.
type Pending struct {
	Task *scsi.Task
	done chan Result
}

// Start executes a command without waiting for it.
func (n *Nexus) Start(lun uint16, attr scsi.TaskAttribute, cdb, out []byte) *Pending {
	n.t.Helper()
	p := n.Arrive(lun, attr, cdb, out)
	n.Execute(p.Task)
	return p
}

// Arrive is the part of Start before the data has come: Execute of the Task follows.
func (n *Nexus) Arrive(lun uint16, attr scsi.TaskAttribute, cdb, out []byte) *Pending {
	n.t.Helper()
	p := &Pending{done: make(chan Result, 1)}
	full := make([]byte, max(16, len(cdb)))
	copy(full, cdb)
	p.Task = &scsi.Task{LUN: wire.EncodeLUN(lun), Tag: n.tag.Add(1), CDB: full, Attr: attr, Owner: p}
	want := n.DataOutLength(p.Task)
	p.Task.DataOut = append([]byte(nil), out[:min(len(out), want)]...)
	return p
}

// Tag returns the command's tag, for task management.
func (p *Pending) Tag() uint64 { return p.Task.Tag }

// Done reports whether the command has ended.
func (p *Pending) Done() bool { return len(p.done) > 0 }

// Wait waits for the command's end and returns its result.
func (p *Pending) Wait() Result {
	r := <-p.done
	p.done <- r
	return r
}

// TaskDone makes Pending a scsi.Owner.
func (p *Pending) TaskDone(t *scsi.Task) {
	r := Result{Status: t.Status, Aborted: t.Aborted, In: append([]byte(nil), t.DataIn...)}
	if t.SenseLen > 0 {
		r.Raw = append([]byte(nil), t.Sense[:t.SenseLen]...)
		r.Sense, _ = wire.ParseSense(r.Raw)
	}
	t.Release()
	select {
	case p.done <- r:
	default:
		panic("scsitest: TaskDone was called twice")
	}
}

// Manage runs a task management function and waits for its response.
func (n *Nexus) Manage(f scsi.Function, lun uint16, tag uint64) scsi.Response {
	done := make(chan scsi.Response, 1)
	n.Nexus.Manage(f, wire.EncodeLUN(lun), tag, func(r scsi.Response) { done <- r })
	return <-done
}

// Close ends the nexus and waits for its commands.
func (n *Nexus) Close() {
	done := make(chan struct{})
	n.Nexus.Close(func() { close(done) })
	<-done
}
