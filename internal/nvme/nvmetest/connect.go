package nvmetest

import (
	"encoding/binary"

	"lintel.io/lintel/internal/nvme"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// Connect is a Connect command.
type Connect struct {
	Host       Host
	SubNQN     string // NQN by default
	QueueID    uint16
	Controller uint16 // for I/O queues
	Depth      int    // 32 by default
	KeepAlive  uint32 // in milliseconds
	NoFlow     bool
}

// Command returns the command.
func (c Connect) Command() Command {
	data := make([]byte, 1024)
	copy(data, c.Host.ID[:])
	if c.QueueID == 0 {
		c.Controller = 0xFFFF
	}
	binary.LittleEndian.PutUint16(data[16:], c.Controller)
	if c.SubNQN == "" {
		c.SubNQN = NQN
	}
	copy(data[256:], c.SubNQN)
	copy(data[512:], c.Host.NQN)
	if c.Depth == 0 {
		c.Depth = 32
	}
	cmd := Fabrics(wire.Connect)
	cmd.CDW[0] = uint32(c.QueueID) << 16
	cmd.CDW[1] = uint32(c.Depth - 1)
	if c.NoFlow {
		cmd.CDW[1] |= 1 << 18
	}
	cmd.CDW[2] = c.KeepAlive
	cmd.Out = data
	return cmd
}

// Fabrics returns a Fabrics command of a type.
func Fabrics(kind uint8) Command {
	return Command{Opcode: wire.FabricsCommand, NSID: uint32(kind)}
}

// PropertyGet returns the command that reads a property.
func PropertyGet(offset uint32, size int) Command {
	cmd := Fabrics(wire.PropertyGet)
	if size == 8 {
		cmd.CDW[0] = 1
	}
	cmd.CDW[1] = offset
	return cmd
}

// PropertySet returns the command that sets a property of 4 bytes.
func PropertySet(offset, value uint32) Command {
	cmd := Fabrics(wire.PropertySet)
	cmd.CDW[1], cmd.CDW[2] = offset, value
	return cmd
}

// Enabled is the value of CC that enables a controller.
const Enabled = wire.CCEnable | wire.IOQueueEntrySizes

// Association is a host with its queues.
type Association struct {
	Host  Host
	ID    uint16 // of the controller
	Admin *Conn
	IO    *Conn
	b     *Bench
}

// Attach connects a host: an admin queue, an enabled controller and one I/O queue.
func (b *Bench) Attach(name string) *Association {
	b.t.Helper()
	a := b.AttachAdmin(Connect{Host: NewHost(name)})
	a.IO = a.Queue(1)
	return a
}

// AttachAdmin connects an admin queue and enables the controller.
func (b *Bench) AttachAdmin(c Connect) *Association {
	b.t.Helper()
	a := &Association{Host: c.Host, Admin: b.Dial(), b: b}
	a.ID = uint16(a.Admin.Good(c.Command()).Result[0])
	a.Admin.Good(PropertySet(wire.PropertyCC, Enabled))
	return a
}

// Queue connects an I/O queue.
func (a *Association) Queue(id uint16) *Conn {
	a.b.t.Helper()
	q := a.b.Dial()
	q.Good(Connect{Host: a.Host, QueueID: id, Controller: a.ID, Depth: 128}.Command())
	return q
}

// Controller returns the controller.
func (a *Association) Controller() *nvme.Controller { return a.Admin.Queue.Controller() }

// Close closes all connections of the association.
func (a *Association) Close() {
	if a.IO != nil {
		a.IO.Close()
	}
	a.Admin.Close()
}

// Blocks returns an NVM command on a range of blocks.
func Blocks(op uint8, nsid uint32, lba uint64, count uint32) Command {
	cmd := Command{Opcode: op, NSID: nsid}
	cmd.CDW[0], cmd.CDW[1], cmd.CDW[2] = uint32(lba), uint32(lba>>32), count-1
	return cmd
}

// Read returns a Read.
func Read(nsid uint32, lba uint64, count uint32, blockSize int) Command {
	cmd := Blocks(wire.Read, nsid, lba, count)
	cmd.In = int(count) * blockSize
	return cmd
}

// Write returns a Write of whole blocks.
func Write(nsid uint32, lba uint64, data []byte, blockSize int) Command {
	cmd := Blocks(wire.Write, nsid, lba, uint32(len(data)/blockSize))
	cmd.Out = data
	return cmd
}

// Compare returns a Compare with whole blocks.
func Compare(nsid uint32, lba uint64, data []byte, blockSize int) Command {
	cmd := Write(nsid, lba, data, blockSize)
	cmd.Opcode = wire.Compare
	return cmd
}

// Identify returns an Identify.
func Identify(cns uint8, nsid uint32) Command {
	cmd := Command{Opcode: wire.AdminIdentify, NSID: nsid, In: 4096}
	cmd.CDW[0] = uint32(cns)
	return cmd
}

// GetLogPage returns a Get Log Page of size bytes, a multiple of 4.
func GetLogPage(id uint8, size int, offset uint64) Command {
	cmd := Command{Opcode: wire.AdminGetLogPage, NSID: wire.AllNamespaces, In: size}
	n := uint32(size/4 - 1)
	cmd.CDW[0] = uint32(id) | n<<16
	cmd.CDW[1] = n >> 16
	cmd.CDW[2], cmd.CDW[3] = uint32(offset), uint32(offset>>32)
	return cmd
}

// GetFeature returns a Get Features.
func GetFeature(id uint8, nsid uint32) Command {
	cmd := Command{Opcode: wire.AdminGetFeatures, NSID: nsid}
	cmd.CDW[0] = uint32(id)
	return cmd
}

// SetFeature returns a Set Features.
func SetFeature(id uint8, nsid, value uint32) Command {
	cmd := GetFeature(id, nsid)
	cmd.Opcode = wire.AdminSetFeatures
	cmd.CDW[1] = value
	return cmd
}

// Register returns a Reservation Register.
func Register(nsid uint32, action uint32, current, key uint64) Command {
	return reservation(wire.ReservationRegister, nsid, action, current, key)
}

// Acquire returns a Reservation Acquire.
func Acquire(nsid, action, rtype uint32, current, preempt uint64) Command {
	return reservation(wire.ReservationAcquire, nsid, action|rtype<<8, current, preempt)
}

// ReleaseReservation returns a Reservation Release.
func ReleaseReservation(nsid, action, rtype uint32, current uint64) Command {
	cmd := reservation(wire.ReservationRelease, nsid, action|rtype<<8, current, 0)
	cmd.Out = cmd.Out[:8]
	return cmd
}

func reservation(op uint8, nsid, cdw10 uint32, a, b uint64) Command {
	cmd := Command{Opcode: op, NSID: nsid, Out: make([]byte, 16)}
	cmd.CDW[0] = cdw10
	binary.LittleEndian.PutUint64(cmd.Out, a)
	binary.LittleEndian.PutUint64(cmd.Out[8:], b)
	return cmd
}

// Report returns a Reservation Report of size bytes, a multiple of 4, in the extended form.
func Report(nsid uint32, size int) Command {
	cmd := Command{Opcode: wire.ReservationReport, NSID: nsid, In: size}
	cmd.CDW[0], cmd.CDW[1] = uint32(size/4-1), 1
	return cmd
}
