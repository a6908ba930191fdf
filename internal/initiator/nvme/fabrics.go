package nvme

import (
	"context"
	"fmt"

	wire "lintel.io/lintel/internal/wire/nvme"
)

const (
	// adminCapsule is how much data the capsules of admin and Fabrics commands
	// hold, in bytes (NVMe/TCP 1.0 §3.3.2.1).
	adminCapsule = 8192

	connectSize      = 1024 // of the data of Connect
	attributeNoFlow  = 1 << 2
	requiresAuth     = 1 << 17 // ATR in AUTHREQ of the result
	requiresSecure   = 1 << 18 // ASCR: a secure channel has to be made
	maxInlineCapsule = 1 << 20
)

// connect connects a queue and authenticates on it (NVMe Base 2.0 §6.3, §8.13).
func (c *Controller) connect(ctx context.Context, id uint16) (*Queue, error) {
	what := "admin queue"
	if id != 0 {
		what = fmt.Sprintf("I/O queue %d", id)
	}
	q, err := c.connection(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	q.serve()
	if err = c.establish(ctx, q); err == nil {
		err = c.adopt(q)
	}
	if err != nil {
		q.Close()
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return q, nil
}

func (c *Controller) establish(ctx context.Context, q *Queue) error {
	depth, controller := c.opts.AdminDepth, c.opts.Controller
	cmd := &Command{Out: make([]byte, connectSize)}
	e := cmd.SQE()
	e.SetOpcode(wire.FabricsCommand)
	e.SetFabricsType(wire.Connect)
	if q.id != 0 {
		depth, controller = min(c.opts.Depth, int(c.capacity&0xFFFF)+1), c.id
		q.capsule = c.identity.Capsule
	} else {
		e.SetCDW(12, uint32(c.opts.KeepAlive.Milliseconds()))
	}
	le.PutUint16(e[42:], q.id)
	le.PutUint16(e[44:], uint16(depth-1))
	if !c.opts.FlowControl {
		e[46] = attributeNoFlow
	}
	copy(cmd.Out, c.opts.HostID[:])
	le.PutUint16(cmd.Out[16:], controller)
	copy(cmd.Out[256:], c.opts.Subsystem)
	copy(cmd.Out[512:], c.opts.HostNQN)
	if err := q.run(ctx, cmd); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := q.open(depth); err != nil {
		return err
	}
	got := uint16(cmd.Result[0])
	if q.id == 0 {
		c.id = got
	}
	if got != c.id || c.opts.Controller != anyController && got != c.opts.Controller {
		return protocolError("connected to controller %d instead of %d", got, controller)
	}
	switch a := c.opts.Auth; {
	case cmd.Result[0]&requiresSecure != 0:
		return fmt.Errorf("%w: the target demands secure channel concatenation", ErrAuthentication)
	case cmd.Result[0]&requiresAuth != 0 || a != nil && !a.ControllerKey.Empty():
		return q.authenticate(ctx)
	}
	return nil
}

// wide reports whether a property is 8 bytes long (NVMe Base 2.0 figure 33).
func wide(offset uint32) bool { return offset == wire.PropertyCAP }

// Property reads a controller property (NVMe Base 2.0 §6.5).
func (c *Controller) Property(ctx context.Context, offset uint32) (uint64, error) {
	cmd := propertyCommand(wire.PropertyGet, offset)
	if err := c.admin.run(ctx, cmd); err != nil {
		return 0, fmt.Errorf("get property %#x: %w", offset, err)
	}
	value := uint64(cmd.Result[0]) | uint64(cmd.Result[1])<<32
	if !wide(offset) && cmd.Result[1] != 0 {
		return 0, fmt.Errorf("get property %#x: %w", offset, protocolError("a value of 8 bytes"))
	}
	return value, nil
}

// SetProperty writes a controller property (NVMe Base 2.0 §6.6).
func (c *Controller) SetProperty(ctx context.Context, offset uint32, value uint64) error {
	cmd := propertyCommand(wire.PropertySet, offset)
	le.PutUint64(cmd.Entry[48:], value)
	if err := c.admin.run(ctx, cmd); err != nil {
		return fmt.Errorf("set property %#x: %w", offset, err)
	}
	return nil
}

func propertyCommand(kind uint8, offset uint32) *Command {
	cmd := &Command{}
	e := cmd.SQE()
	e.SetOpcode(wire.FabricsCommand)
	e.SetFabricsType(kind)
	if wide(offset) {
		e[40] = 1
	}
	e.SetCDW(11, offset)
	return cmd
}

// Disconnect deletes the I/O queue (NVMe Base 2.0 §6.4), whose commands the
// target ends. The queue has ended when it returns.
func (q *Queue) Disconnect(ctx context.Context) error {
	defer q.Close()
	cmd := &Command{}
	cmd.SQE().SetOpcode(wire.FabricsCommand)
	cmd.SQE().SetFabricsType(wire.Disconnect)
	if err := q.run(ctx, cmd); err != nil {
		return fmt.Errorf("disconnect: %w", err)
	}
	return nil
}
