package nvme

import (
	"bytes"
	"context"
	"fmt"

	wire "lintel.io/lintel/internal/wire/nvme"
)

const identifySize = 4096

// ControllerIdentity is what Identify Controller says (NVMe Base 2.0 figure 275).
type ControllerIdentity struct {
	Serial, Model, Firmware string
	ID                      uint16 // CNTLID
	Version                 uint32 // VER
	Subsystem               string // SUBNQN
	Type                    uint8  // CNTRLTYPE: 1 I/O, 2 discovery
	MaxTransfer             int    // MDTS in bytes, 0 for no limit (pages of 4 KiB)
	AbortLimit              int    // concurrent Abort commands
	EventRequests           int    // outstanding Asynchronous Event Requests
	Events                  uint32 // OAES
	Attributes              uint32 // CTRATT
	KeepAliveUnit           int    // KAS in units of 100 ms, 0 for no keep alive
	MaxCommands             int    // MAXCMD
	Namespaces              uint32 // NN
	Commands                uint16 // ONCS
	Fused                   uint16 // FUSES
	WriteCache              bool   // VWC
	SGLs                    uint32
	ANA                     uint8  // ANACAP
	ANAGroups               uint32 // NANAGRPID
	ANATransition           uint8  // ANATT, seconds
	Capsule                 int    // in-capsule data of I/O queues in bytes, from IOCCSZ
	Raw                     []byte // all 4096 bytes
}

// Identify returns a data structure of the Identify command (NVMe Base 2.0 §5.17).
func (c *Controller) Identify(ctx context.Context, cns uint8, nsid uint32, controller uint16, commandSet uint8) ([]byte, error) {
	cmd := &Command{In: make([]byte, identifySize)}
	e := cmd.SQE()
	e.SetOpcode(wire.AdminIdentify)
	e.SetNSID(nsid)
	e.SetCDW(10, uint32(cns)|uint32(controller)<<16)
	e.SetCDW(11, uint32(commandSet)<<24)
	if err := c.admin.run(ctx, cmd); err != nil {
		return nil, fmt.Errorf("identify %#02x: %w", cns, err)
	}
	return cmd.In, nil
}

// text returns an ASCII field, which ends with spaces or a NUL.
func text(p []byte) string {
	p, _, _ = bytes.Cut(p, []byte{0})
	return string(bytes.TrimRight(p, " "))
}

// IdentifyController returns what the controller says of itself now.
func (c *Controller) IdentifyController(ctx context.Context) (ControllerIdentity, error) {
	p, err := c.Identify(ctx, wire.CNSController, 0, 0, 0)
	if err != nil {
		return ControllerIdentity{}, err
	}
	i := ControllerIdentity{
		Serial: text(p[4:24]), Model: text(p[24:64]), Firmware: text(p[64:72]),
		ID: le.Uint16(p[78:]), Version: le.Uint32(p[80:]), Events: le.Uint32(p[92:]), Attributes: le.Uint32(p[96:]),
		Type: p[111], AbortLimit: int(p[258]) + 1, EventRequests: int(p[259]) + 1,
		KeepAliveUnit: int(le.Uint16(p[320:])), ANATransition: p[342], ANA: p[343], ANAGroups: le.Uint32(p[348:]),
		MaxCommands: int(le.Uint16(p[514:])), Namespaces: le.Uint32(p[516:]), Commands: le.Uint16(p[520:]), Fused: le.Uint16(p[522:]),
		WriteCache: p[525]&1 != 0, SGLs: le.Uint32(p[536:]), Subsystem: text(p[768:1024]), Raw: p,
	}
	if shift := p[77]; shift > 0 && shift < 19 {
		i.MaxTransfer = 4096 << shift
	}
	// IOCCSZ and ICDOFF are in units of 16 bytes; data behind a gap is not used.
	if size, off := int(le.Uint32(p[1792:])), le.Uint16(p[1800:]); size >= wire.SQESize/16 && off == 0 {
		i.Capsule = min(16*size-wire.SQESize, maxInlineCapsule)
	} else if i.Type != 2 && off == 0 {
		return i, fmt.Errorf("identify controller: %w", protocolError("IOCCSZ %d", size))
	}
	return i, nil
}

// NamespaceIdentity is what Identify Namespace says (NVMe NVM 1.0 figure 97).
type NamespaceIdentity struct {
	Blocks    uint64 // NSZE
	Capacity  uint64 // NCAP
	Used      uint64 // NUSE
	BlockSize int    // bytes, of the format in use
	Features  uint8  // NSFEAT
	Shared    bool   // NMIC
	Types     uint8  // RESCAP
	ReadOnly  bool   // NSATTR: write protected
	ANAGroup  uint32
	NGUID     [16]byte
	EUI64     [8]byte
	Raw       []byte // all 4096 bytes
}

// IdentifyNamespace returns what the controller says of an active namespace.
func (c *Controller) IdentifyNamespace(ctx context.Context, nsid uint32) (NamespaceIdentity, error) {
	p, err := c.Identify(ctx, wire.CNSNamespace, nsid, 0, 0)
	if err != nil {
		return NamespaceIdentity{}, err
	}
	n := NamespaceIdentity{
		Blocks: le.Uint64(p), Capacity: le.Uint64(p[8:]), Used: le.Uint64(p[16:]), Features: p[24],
		Shared: p[30]&1 != 0, Types: p[31], ANAGroup: le.Uint32(p[92:]), ReadOnly: p[99]&1 != 0,
		NGUID: [16]byte(p[104:]), EUI64: [8]byte(p[120:]), Raw: p,
	}
	format := int(p[26]&0xF | p[26]>>5&3<<4)
	if n.Blocks == 0 {
		return n, nil
	}
	shift := p[128+4*format+2]
	if format > int(p[25]) || shift < 9 || shift > 24 {
		return n, fmt.Errorf("identify namespace %d: %w", nsid, protocolError("format %d with blocks of 2^%d bytes", format, shift))
	}
	n.BlockSize = 1 << shift
	return n, nil
}

// ActiveNamespaces returns the namespaces of the controller with an identifier above after,
// at most 1024 (NVMe Base 2.0 §5.17.2.2).
func (c *Controller) ActiveNamespaces(ctx context.Context, after uint32) ([]uint32, error) {
	p, err := c.Identify(ctx, wire.CNSActiveNamespaces, after, 0, 0)
	if err != nil {
		return nil, err
	}
	var list []uint32
	for ; len(p) >= 4; p = p[4:] {
		id := le.Uint32(p)
		if id == 0 {
			break
		}
		if id <= after {
			return nil, fmt.Errorf("active namespaces: %w", protocolError("%d after %d", id, after))
		}
		after = id
		list = append(list, id)
	}
	return list, nil
}

// Descriptor is a namespace identification descriptor (NVMe Base 2.0 figure 277).
type Descriptor struct {
	Type uint8 // 1 EUI-64, 2 NGUID, 3 UUID, 4 command set
	ID   []byte
}

// Descriptors returns the identification descriptors of a namespace (NVMe Base 2.0 §5.17.2.3).
func (c *Controller) Descriptors(ctx context.Context, nsid uint32) ([]Descriptor, error) {
	p, err := c.Identify(ctx, wire.CNSDescriptors, nsid, 0, 0)
	if err != nil {
		return nil, err
	}
	var all []Descriptor
	for len(p) >= 4 && p[0] != 0 {
		n := int(p[1])
		if n == 0 || n > len(p)-4 {
			return nil, fmt.Errorf("descriptors of namespace %d: %w", nsid, protocolError("a descriptor of %d bytes", n))
		}
		all = append(all, Descriptor{Type: p[0], ID: p[4 : 4+n]})
		p = p[4+n:]
	}
	return all, nil
}

// LogRequest says what to read of a log page (NVMe Base 2.0 §5.16).
type LogRequest struct {
	Page     uint8
	NSID     uint32
	Specific uint8  // LSP
	Retain   bool   // RAE: keep the event that announced it
	Offset   uint64 // bytes, a multiple of 4
}

// LogPage fills p, a multiple of 4 bytes long, from a log page.
func (c *Controller) LogPage(ctx context.Context, r LogRequest, p []byte) error {
	if len(p) == 0 || len(p)%4 != 0 || r.Offset%4 != 0 {
		return fmt.Errorf("%w: %d bytes of a log page at %d", ErrCommand, len(p), r.Offset)
	}
	cmd := &Command{In: p}
	e := cmd.SQE()
	e.SetOpcode(wire.AdminGetLogPage)
	e.SetNSID(r.NSID)
	dwords := uint32(len(p)/4 - 1)
	dw10 := uint32(r.Page) | uint32(r.Specific)<<8 | dwords<<16
	if r.Retain {
		dw10 |= 1 << 15
	}
	e.SetCDW(10, dw10)
	e.SetCDW(11, dwords>>16)
	e.SetCDW(12, uint32(r.Offset))
	e.SetCDW(13, uint32(r.Offset>>32))
	if err := c.admin.run(ctx, cmd); err != nil {
		return fmt.Errorf("log page %#02x: %w", r.Page, err)
	}
	return nil
}

// Feature returns dword 0 of the present value of a feature (NVMe Base 2.0 §5.15), and fills data where the
// feature has some.
func (c *Controller) Feature(ctx context.Context, id uint8, nsid uint32, data []byte) (uint32, error) {
	cmd := &Command{In: data}
	e := cmd.SQE()
	e.SetOpcode(wire.AdminGetFeatures)
	e.SetNSID(nsid)
	e.SetCDW(10, uint32(id))
	if err := c.admin.run(ctx, cmd); err != nil {
		return 0, fmt.Errorf("get feature %#02x: %w", id, err)
	}
	return cmd.Result[0], nil
}

// SetFeature changes a feature (NVMe Base 2.0 §5.27) and returns dword 0 of the completion.
func (c *Controller) SetFeature(ctx context.Context, id uint8, nsid, value uint32, data []byte) (uint32, error) {
	cmd := &Command{Out: data}
	e := cmd.SQE()
	e.SetOpcode(wire.AdminSetFeatures)
	e.SetNSID(nsid)
	e.SetCDW(10, uint32(id))
	e.SetCDW(11, value)
	if err := c.admin.run(ctx, cmd); err != nil {
		return 0, fmt.Errorf("set feature %#02x: %w", id, err)
	}
	return cmd.Result[0], nil
}

// SetQueues asks for n I/O queues, 1 to 65534, and returns how many the host may
// connect (NVMe Base 2.0 §5.27.1.5).
func (c *Controller) SetQueues(ctx context.Context, n int) (int, error) {
	value := uint32(n-1) | uint32(n-1)<<16
	got, err := c.SetFeature(ctx, wire.FeatureQueues, 0, value, nil)
	if err != nil {
		return 0, err
	}
	return int(min(got&0xFFFF, got>>16)) + 1, nil
}

// Do runs one admin command, whose queue entry and data the caller fills in, and
// waits for it. The error is that of Command.Failure.
func (c *Controller) Do(ctx context.Context, cmd *Command) error { return c.admin.run(ctx, cmd) }
