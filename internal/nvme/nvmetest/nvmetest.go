// Package nvmetest is a small bench for tests of the NVMe controller: a subsystem with
// memory units, and hosts whose connections execute commands without a socket.
package nvmetest

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// The names of the bench's subsystems.
const (
	NQN          = "nqn.2026-11.io.lintel:bench"
	DiscoveryNQN = "nqn.2026-11.io.lintel:bench.discovery"
	PortGroup    = 1
)

// Config says what a bench is made of. The zero value is one writable unit of
// 2048 blocks of 512 bytes, thin, in memory, that every host sees as NSID 1.
type Config struct {
	Units  int    // how many units, NSID 1 on; at least 1
	Blocks uint64 // capacity of each
	// Attributes, where not nil, changes the attributes of unit i.
	Attributes func(i int, a *unit.Attributes)
	// Device, where not nil, gives the device of unit i instead of one in memory.
	Device func(i int, size int64) block.Device
	// Reservations keeps reservation tables; nil keeps them in memory.
	Reservations unit.ReservationStore
	// Subsystem, where not nil, changes the configuration of the subsystem.
	Subsystem func(*nvme.Config)
}

// Bench is a subsystem with units.
type Bench struct {
	Subsystem *nvme.Subsystem
	Access    *Access
	Group     *unit.Group
	Units     []*unit.Unit

	t testing.TB
}

// Access lets every host see the bench's units, unless a test changes it.
type Access struct {
	mu         sync.Mutex
	grants     map[string]nvme.Grant
	refusals   map[string]error
	openErr    error
	onOpen     func(*nvme.Controller)
	namespaces nvme.Namespaces
	discovery  nvme.Discovery
	open       map[*nvme.Controller]bool
}

var _ nvme.Access = (*Access)(nil)

// SetGrant sets the terms for a host.
func (a *Access) SetGrant(hostNQN string, g nvme.Grant) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants[hostNQN] = g
}

// Refuse keeps a host out; a nil error lets it in again.
func (a *Access) Refuse(hostNQN string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refusals[hostNQN] = err
}

// FailOpen makes Open fail with an error.
func (a *Access) FailOpen(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.openErr = err
}

// OnOpen calls f for each controller that is being opened, before its namespaces are returned.
func (a *Access) OnOpen(f func(*nvme.Controller)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.onOpen = f
}

// SetNamespaces sets what controllers see that are opened from now on.
func (a *Access) SetNamespaces(m nvme.Namespaces) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.namespaces = m
}

// SetPorts sets the ports of the discovery log.
func (a *Access) SetPorts(p []nvme.Port) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.discovery = nvme.Discovery{Generation: a.discovery.Generation + 1, NQN: NQN, Ports: p}
}

// Opened returns how many controllers are open.
func (a *Access) Opened() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.open)
}

// Authorize lets a host in that is not refused.
func (a *Access) Authorize(r nvme.ConnectRequest) (nvme.Grant, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.grants[r.HostNQN], a.refusals[r.HostNQN]
}

// Open shows the namespaces.
func (a *Access) Open(c *nvme.Controller) (nvme.Namespaces, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.openErr != nil {
		return nil, a.openErr
	}
	a.open[c] = true
	if a.onOpen != nil {
		a.onOpen(c)
	}
	return a.namespaces, nil
}

// Closed forgets a controller.
func (a *Access) Closed(c *nvme.Controller) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, c)
}

// Discovery returns the ports.
func (a *Access) Discovery(nvme.Peer) nvme.Discovery {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.discovery
}

// New returns a bench, which ends with the test.
func New(t testing.TB, c Config) *Bench {
	t.Helper()
	b := &Bench{
		Access: &Access{
			grants:     make(map[string]nvme.Grant),
			refusals:   make(map[string]error),
			namespaces: make(nvme.Namespaces),
			open:       make(map[*nvme.Controller]bool),
		},
		Group: unit.NewGroup(1, "bench"),
		t:     t,
	}
	cfg := nvme.Config{
		NQN:          NQN,
		DiscoveryNQN: DiscoveryNQN,
		Serial:       "BENCH",
		Model:        "LINTEL bench",
		Firmware:     "0001",
		PortGroup:    PortGroup,
		Access:       b.Access,
	}
	if c.Subsystem != nil {
		c.Subsystem(&cfg)
	}
	s, err := nvme.NewSubsystem(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Subsystem = s
	for i := range max(c.Units, 1) {
		b.addUnit(c, i)
	}
	return b
}

func (b *Bench) addUnit(c Config, i int) {
	b.t.Helper()
	id := unit.ID(fmt.Sprintf("bench-%d", i))
	a := unit.Attributes{
		NAA:       unit.GenerateNAA(unit.DefaultPrefix, id, nil),
		EUI64:     []byte{0x02, 0x4C, 0x4E, 0, 0, 0, 0, byte(i)},
		NGUID:     unit.GenerateEUI64(unit.DefaultPrefix, id),
		UUID:      unit.GenerateEUI64(unit.DefaultPrefix, "uuid of "+id),
		T10ID:     string(id),
		Serial:    unit.GenerateSerial(id),
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
	u, err := unit.New(unit.Config{ID: id, Attributes: a, Device: dev, Group: b.Group, Reservations: c.Reservations})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Units = append(b.Units, u)
	b.Access.namespaces[uint32(i+1)] = nvme.Namespace{Unit: u}
	b.t.Cleanup(func() {
		if err := u.Close(); err != nil {
			b.t.Errorf("close unit %d: %v", i, err)
		}
	})
}

// Host is a host: its name and identifier.
type Host struct {
	NQN string
	ID  [16]byte
}

// NewHost returns a host named after a short name.
func NewHost(name string) Host {
	h := Host{NQN: "nqn.2026-11.io.lintel:host." + name}
	copy(h.ID[:], "id-of-"+name)
	return h
}

// Conn is a connection: a queue with a transport that has no socket.
type Conn struct {
	Queue *nvme.Queue

	b      *Bench
	ended  chan struct{} // closed when the queue's Close is done
	killed chan error

	mu     sync.Mutex // serialises what a transport does one at a time
	closed bool
	cid    uint16
}

// Dial returns a connection that is no queue yet. It is closed at the end of the test.
func (b *Bench) Dial() *Conn { return b.DialFrom("192.0.2.1") }

// DialFrom is Dial from an address.
func (b *Bench) DialFrom(address string) *Conn {
	c := &Conn{b: b, ended: make(chan struct{}), killed: make(chan error, 16)}
	c.Queue = b.Subsystem.NewQueue(nvme.QueueConfig{
		Remote: netip.AddrPortFrom(netip.MustParseAddr(address), 1024),
		Local:  netip.MustParseAddrPort("192.0.2.2:4420"),
		Port:   1,
		Kill: func(err error) {
			select {
			case c.killed <- err:
			default:
			}
			go c.Close()
		},
	})
	b.t.Cleanup(c.Close)
	return c
}

// Close closes the connection and waits until the queue has ended.
func (c *Conn) Close() {
	c.mu.Lock()
	closed := c.closed
	c.closed = true
	if !closed {
		c.Queue.Close(func() { close(c.ended) })
	}
	c.mu.Unlock()
	<-c.ended
}

// Killed returns a channel that gets the reasons for which the controller ended the
// connection.
func (c *Conn) Killed() <-chan error { return c.killed }

// Ended returns a channel that is closed when the queue has ended.
func (c *Conn) Ended() <-chan struct{} { return c.ended }

// Command is a command to execute.
type Command struct {
	Opcode uint8
	Fuse   wire.Fuse
	NSID   uint32
	CDW    [6]uint32 // dwords 10 to 15
	Out    []byte    // data for the controller
	In     int       // how many bytes the host takes
	// Change, where not nil, changes the entry before it is sent.
	Change func(wire.SQE)
	// Refuse is the status that the transport ends the command with.
	Refuse wire.Status
}

// Result is how a command has ended.
type Result struct {
	Status wire.Status
	Result [2]uint32
	Data   []byte
}

// Call is a command under way.
type Call struct {
	nvme.Request
	CID  uint16
	done chan Result
}

// RequestDone keeps the result.
func (c *Call) RequestDone(*nvme.Request) {
	r := Result{Status: c.Status, Result: c.Result, Data: append([]byte(nil), c.DataIn...)}
	c.Release()
	c.done <- r
}

// Done returns the channel on which the result arrives.
func (c *Call) Done() <-chan Result { return c.done }

// Wait waits for the result.
func (c *Call) Wait() Result { return <-c.done }

// Arrive announces a command to the queue, as a transport does when its capsule has
// arrived; Execute follows.
func (c *Conn) Arrive(cmd Command) *Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.arriveLocked(cmd)
}

func (c *Conn) arriveLocked(cmd Command) *Call {
	e := make(wire.SQE, wire.SQESize)
	c.cid++
	e.SetOpcode(cmd.Opcode)
	e.SetFuse(cmd.Fuse)
	e.SetCID(c.cid)
	e.SetNSID(cmd.NSID)
	for i, v := range cmd.CDW {
		e.SetCDW(10+i, v)
	}
	e.SetSGL(0, uint32(max(len(cmd.Out), cmd.In)), wire.SGLTransport)
	if cmd.Change != nil {
		cmd.Change(e)
	}
	call := &Call{CID: c.cid, done: make(chan Result, 1)}
	call.SQE, call.Owner = e, call
	n := c.Queue.DataOutLength(&call.Request)
	if n > len(cmd.Out) {
		c.b.t.Errorf("the controller asks for %d bytes of %d", n, len(cmd.Out))
		n = len(cmd.Out)
	}
	call.DataOut = append(block.Get(n).Bytes(0), cmd.Out[:n]...)
	if cmd.Refuse != 0 {
		call.Refuse, call.DataOut = cmd.Refuse, nil
	}
	return call
}

// Execute executes an announced command.
func (c *Conn) Execute(call *Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.executeLocked(call)
}

func (c *Conn) executeLocked(call *Call) {
	if c.closed {
		call.Status = wire.HostAborted
		call.RequestDone(&call.Request)
		return
	}
	c.Queue.Execute(&call.Request)
}

// Start starts a command.
func (c *Conn) Start(cmd Command) *Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	call := c.arriveLocked(cmd)
	c.executeLocked(call)
	return call
}

// Do runs a command.
func (c *Conn) Do(cmd Command) Result { return c.Start(cmd).Wait() }

// Good runs a command that has to succeed.
func (c *Conn) Good(cmd Command) Result {
	c.b.t.Helper()
	r := c.Do(cmd)
	if !r.Status.OK() {
		c.b.t.Fatalf("opcode %02Xh: %s", cmd.Opcode, r.Status)
	}
	return r
}

// Fails runs a command that has to end with a status, its bits included.
func (c *Conn) Fails(cmd Command, want wire.Status) Result {
	c.b.t.Helper()
	r := c.Do(cmd)
	if r.Status != want {
		c.b.t.Fatalf("opcode %02Xh: %s, want %s", cmd.Opcode, r.Status, want)
	}
	return r
}
