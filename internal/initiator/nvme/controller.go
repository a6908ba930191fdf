package nvme

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	wire "lintel.io/lintel/internal/wire/nvme"
)

// Controller is an association with a controller of an NVM or discovery subsystem:
// its admin queue and the I/O queues. Its methods may be called concurrently.
type Controller struct {
	opts     Options
	address  string
	id       uint16
	admin    *Queue
	identity ControllerIdentity
	capacity uint64 // CAP
	version  uint32 // VS
	running  sync.WaitGroup
	ended    chan struct{}

	mu     sync.Mutex // taken before no lock but those of queues
	err    error
	queues []*Queue // I/O queues
}

// Dial connects to a subsystem: it makes the association, authenticates, enables the
// controller, identifies it, configures asynchronous events, starts keep alive and
// connects the I/O queues. ctx bounds all of it.
func Dial(ctx context.Context, address string, opts Options) (*Controller, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := &Controller{opts: opts, address: address, ended: make(chan struct{})}
	if err := c.dial(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s at %s: %w", opts.Subsystem, address, err)
	}
	return c, nil
}

func (c *Controller) dial(ctx context.Context) error {
	if _, err := c.connect(ctx, 0); err != nil {
		return err
	}
	if err := c.enable(ctx); err != nil {
		return err
	}
	var err error
	if c.identity, err = c.IdentifyController(ctx); err != nil {
		return err
	}
	if c.identity.ID != c.id {
		return protocolError("controller %d identifies itself as %d", c.id, c.identity.ID)
	}
	if c.opts.KeepAlive > 0 {
		c.running.Go(c.keepAlive)
	}
	if c.opts.OnEvent != nil {
		if err := c.listen(ctx); err != nil {
			return err
		}
	}
	if c.opts.IOQueues == 0 {
		return nil
	}
	n, err := c.SetQueues(ctx, c.opts.IOQueues)
	if err != nil {
		return err
	}
	if n < c.opts.IOQueues {
		return fmt.Errorf("the controller has only %d of %d I/O queues", n, c.opts.IOQueues)
	}
	for i := range c.opts.IOQueues {
		if _, err := c.ConnectQueue(ctx, uint16(i+1)); err != nil {
			return err
		}
	}
	return nil
}

// ConnectQueue connects an I/O queue, 1 on; Dial has done so for the first
// Options.IOQueues.
func (c *Controller) ConnectQueue(ctx context.Context, id uint16) (*Queue, error) {
	if id == 0 {
		return nil, fmt.Errorf("%w: queue 0 is the admin queue", ErrCommand)
	}
	return c.connect(ctx, id)
}

// adopt makes a connected queue part of the association, unless that has ended.
func (c *Controller) adopt(q *Queue) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if q.id == 0 {
		c.admin = q
	} else {
		c.queues = append(c.queues, q)
	}
	return nil
}

// poll is how often a property is read while waiting for the controller.
const poll = 10 * time.Millisecond

// enable configures and enables the controller (NVMe Base 2.0 §3.5.2).
func (c *Controller) enable(ctx context.Context) error {
	var err error
	if c.capacity, err = c.Property(ctx, wire.PropertyCAP); err != nil {
		return err
	}
	vs, err := c.Property(ctx, wire.PropertyVS)
	if err != nil {
		return err
	}
	c.version = uint32(vs)
	if err := c.SetProperty(ctx, wire.PropertyCC, uint64(wire.IOQueueEntrySizes|wire.CCEnable)); err != nil {
		return err
	}
	// CAP.TO is in units of 500 ms.
	limit := max(int(c.capacity>>24&0xFF), 1) * int(500*time.Millisecond/poll)
	for range limit {
		status, err := c.Property(ctx, wire.PropertyCSTS)
		switch {
		case err != nil:
			return err
		case uint32(status)&wire.CSTSFatal != 0:
			return errors.New("the controller has a fatal status")
		case uint32(status)&wire.CSTSReady != 0:
			return nil
		}
		select {
		case <-c.opts.After(poll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("the controller does not become ready")
}

// Shutdown ends the association in good order (NVMe Base 2.0 §3.6): commands under way get
// ErrClosed. Whatever the outcome, the association has ended when it returns.
func (c *Controller) Shutdown(ctx context.Context) error {
	defer c.Close()
	if err := c.shutdown(ctx); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}

func (c *Controller) shutdown(ctx context.Context) error {
	if err := c.SetProperty(ctx, wire.PropertyCC, uint64(wire.IOQueueEntrySizes|wire.CCEnable|wire.CCShutdownNormal)); err != nil {
		return err
	}
	for {
		status, err := c.Property(ctx, wire.PropertyCSTS)
		if err != nil {
			return err
		}
		if uint32(status)&wire.CSTSShutdownMask == wire.CSTSShutdownDone {
			return nil
		}
		select {
		case <-c.opts.After(poll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// HostID returns the host identifier in use.
func (c *Controller) HostID() [16]byte { return c.opts.HostID }

// ID returns the controller id.
func (c *Controller) ID() uint16 { return c.id }

// Identity returns what the controller said of itself when it was connected.
func (c *Controller) Identity() ControllerIdentity { return c.identity }

// Capabilities returns the CAP property and the version (VS).
func (c *Controller) Capabilities() (capabilities uint64, version uint32) {
	return c.capacity, c.version
}

// Admin returns the admin queue.
func (c *Controller) Admin() *Queue { return c.admin }

// Queues returns the I/O queues in the order in which they were connected, those that
// have ended included.
func (c *Controller) Queues() []*Queue {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Queue(nil), c.queues...)
}

// Err returns why the association has ended, nil while it lives.
func (c *Controller) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Ended returns a channel that is closed when the association has ended, for whatever reason.
func (c *Controller) Ended() <-chan struct{} { return c.ended }

// Close drops all connections without a shutdown, ends what is under way with
// ErrClosed, and returns when every callback has run. It must not be called from one.
func (c *Controller) Close() {
	c.fail(ErrClosed)
	if c.admin != nil {
		c.admin.running.Wait()
	}
	for _, q := range c.Queues() {
		q.running.Wait()
	}
	c.running.Wait()
}

// fail ends the association and its queues.
func (c *Controller) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.ended)
	if c.admin != nil {
		c.admin.fail(err)
	}
	for _, q := range c.queues {
		q.fail(err)
	}
}

// keepAlive sends Keep Alive commands until the association ends (NVMe Base 2.0 §3.9).
func (c *Controller) keepAlive() {
	answered := make(chan *Command, 1)
	cmd := &Command{Done: func(cmd *Command) { answered <- cmd }}
	cmd.SQE().SetOpcode(wire.AdminKeepAlive)
	for {
		select {
		case <-c.opts.After(c.opts.KeepAlive / 2):
		case <-c.ended:
			return
		}
		if c.admin.Submit(cmd) != nil {
			return
		}
		select {
		case <-answered:
			if err := cmd.Failure(); err != nil {
				c.fail(fmt.Errorf("keep alive: %w", err))
				return
			}
		case <-c.opts.After(c.opts.KeepAlive):
			c.fail(ErrKeepAlive)
			return
		case <-c.ended:
			return
		}
	}
}

// maxEventRequests bounds the asynchronous event requests that are kept outstanding.
const maxEventRequests = 4

// listen configures all events that the controller knows and keeps requests for
// them outstanding (NVMe Base 2.0 §5.2).
func (c *Controller) listen(ctx context.Context) error {
	if _, err := c.SetFeature(ctx, wire.FeatureAsyncEvents, 0, c.identity.Events, nil); err != nil {
		return err
	}
	for range min(c.identity.EventRequests, maxEventRequests) {
		cmd := &Command{}
		cmd.SQE().SetOpcode(wire.AdminAsyncEvent)
		cmd.Done = func(cmd *Command) {
			if !cmd.Good() {
				return
			}
			c.opts.OnEvent(cmd.Result[0])
			_ = c.admin.Submit(cmd) // fails where the association has ended
		}
		if err := c.admin.Submit(cmd); err != nil {
			return err
		}
	}
	return nil
}

// run submits a command and waits for its end. A cancelled context aborts the
// command; run returns when the target cannot touch its data any more.
func (q *Queue) run(ctx context.Context, cmd *Command) error {
	done := make(chan struct{})
	cmd.Done = func(*Command) { close(done) }
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.Submit(cmd); err != nil {
		return err
	}
	select {
	case <-done:
		return cmd.Failure()
	case <-ctx.Done():
	}
	return q.giveUp(ctx, cmd, done)
}

// giveUp ends a command whose context was cancelled.
func (q *Queue) giveUp(ctx context.Context, cmd *Command, done <-chan struct{}) error {
	q.mu.Lock()
	if cmd.state == waiting {
		q.waiting.remove(cmd)
		cmd.state = idle
		q.mu.Unlock()
		return ctx.Err()
	}
	cid, active := cmd.cid, cmd.state == active
	q.mu.Unlock()
	if active {
		abort := &Command{Done: func(*Command) {}}
		e := abort.SQE()
		e.SetOpcode(wire.AdminAbort)
		e.SetCDW(10, uint32(cid)<<16|uint32(q.id))
		if admin := q.ctrl.admin; admin != nil {
			_ = admin.Submit(abort) // where it fails the command ends below
		}
	}
	select {
	case <-done:
	case <-q.ctrl.opts.After(q.ctrl.opts.AbortTimeout):
		q.fail(fmt.Errorf("a cancelled command was not aborted: %w", ctx.Err()))
		<-done
	}
	return ctx.Err()
}

var le = binary.LittleEndian
