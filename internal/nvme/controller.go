package nvme

import (
	"cmp"
	"encoding/hex"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// ControllerInfo describes a controller.
type ControllerInfo struct {
	Peer
	ID        uint16 // CNTLID
	Port      uint16 // through which the admin queue was connected
	SubNQN    string
	Discovery bool
	Created   time.Time
}

// Controller is one dynamic controller: an association of a host (NVMe Base 2.0
// §3.1.3). Its methods may be called concurrently.
//
//	Connect --> (authentication) --> open --CC.EN=1--> ready --CC.EN=0--> open
//	      any state --Kill, admin queue lost, keep alive expired--> ending --last queue closed--> gone
type Controller struct {
	sub       *Subsystem
	info      ControllerInfo
	initiator unit.Initiator
	grant     Grant
	portGroup uint16

	table        atomic.Pointer[nsTable]
	guest        atomic.Bool   // for discovery, or the host has yet to authenticate
	status       atomic.Uint32 // CSTS
	traffic      atomic.Bool   // since the keep alive timer was started
	writeThrough atomic.Bool   // the host has switched the volatile write cache off
	retryDelay   atomic.Bool   // the host knows of Command Retry Delay (ACRE)
	anaChanges   atomic.Uint64
	events       events
	errorLog     errorLog

	setting sync.Mutex // serialises SetNamespaces and the end; above mu
	given   bool       // by SetNamespaces, which may come before Access.Open has returned

	mu        sync.Mutex
	config    uint32 // CC
	queues    map[uint16]*Queue
	ioQueues  uint16 // how many the host may connect
	ending    bool
	opened    bool
	keepAlive time.Duration // 0 for none
	timer     *time.Timer
	features  features
	past      unit.Stats // of queues that are gone
}

const (
	maxIOQueues = 128
	// keepAliveUnit is the granularity of the keep alive timer (KAS).
	keepAliveUnit = 100 * time.Millisecond
	// discoveryTime is the timeout of discovery controllers without a keep alive timer.
	discoveryTime = 2 * time.Minute
)

func newController(s *Subsystem, info ControllerInfo, grant Grant) *Controller {
	c := &Controller{
		sub:       s,
		info:      info,
		initiator: unit.Initiator{Name: "nvme:" + hex.EncodeToString(info.HostID[:])},
		grant:     grant,
		portGroup: cmp.Or(grant.PortGroup, s.cfg.PortGroup),
		queues:    make(map[uint16]*Queue),
		ioQueues:  maxIOQueues,
	}
	c.info.Created = time.Now()
	c.guest.Store(info.Discovery || !grant.HostKey.Empty())
	c.table.Store(&nsTable{})
	c.events.init()
	c.features.init()
	return c
}

// Info returns what the controller was made of.
func (c *Controller) Info() ControllerInfo { return c.info }

// Terms returns those of the grant that the admin queue was let in by.
func (c *Controller) Terms() any { return c.grant.Terms }

// Queues returns how many queues are connected, the admin queue included.
func (c *Controller) Queues() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queues)
}

// open asks the array what the host sees. Commands wait for it.
func (c *Controller) open() error {
	if c.info.Discovery {
		return nil
	}
	c.mu.Lock()
	if c.opened || c.ending {
		c.mu.Unlock()
		return nil
	}
	c.opened = true
	c.mu.Unlock()
	c.guest.Store(false)
	c.sub.fence(c)
	m, err := c.sub.cfg.Access.Open(c)
	if err != nil {
		c.mu.Lock()
		c.opened = false
		c.mu.Unlock()
		return err
	}
	c.setNamespaces(m, namespacesFirst)
	return nil
}

// Kill ends the association: its commands are cancelled and its connections closed.
func (c *Controller) Kill(err error) { c.kill(err, wire.AbortedSQDeletion) }

func (c *Controller) kill(err error, s wire.Status) {
	c.mu.Lock()
	if c.ending {
		c.mu.Unlock()
		return
	}
	c.ending = true
	if c.timer != nil {
		c.timer.Stop()
	}
	queues := c.queuesLocked(true)
	c.mu.Unlock()
	c.status.Or(wire.CSTSFatal)
	c.sub.cfg.Logger.Info("NVMe association ends", "host", c.info.HostNQN, "controller", c.info.ID, "remote", c.info.Remote, "reason", err)
	d := unit.NewDrain(func() {})
	for _, q := range queues {
		q.cancel(s, d, everyRequest)
		q.cfg.Kill(err)
	}
	d.Release()
}

// queuesLocked returns the queues, with or without the admin queue.
func (c *Controller) queuesLocked(admin bool) []*Queue {
	list := make([]*Queue, 0, len(c.queues))
	for id, q := range c.queues {
		if id != 0 || admin {
			list = append(list, q)
		}
	}
	return list
}

// join makes the queue of a Connect one of the controller, and demands authentication
// of its host where a is not nil. A queue that cannot join stays as it was.
func (c *Controller) join(r *Request, n connect, a *authentication) wire.Status {
	q, id := r.queue, n.QueueID
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ending && id == 0:
		return wire.ConnectControllerBusy
	case c.ending:
		return r.misfit(true, connectCNTLID)
	case id != 0 && c.config&(wire.CCEnable|wire.CCShutdownMask) != wire.CCEnable: // its I/O queues have been ended
		return wire.CommandSequenceError
	case c.queues[id] != nil: // perhaps of a connection whose loss is yet to be seen
		return wire.CommandSequenceError
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return wire.AbortedSQDeletion
	}
	c.queues[id] = q
	q.ctrl, q.id, q.depth, q.noFlow = c, id, n.depth, n.noFlow
	q.demandLocked(a)
	r.Result[0] = uint32(c.info.ID)
	if a != nil {
		r.Result[0] |= authenticationRequired
	}
	return wire.Success
}

// leave takes a closed queue out, and the controller with its last one.
func (c *Controller) leave(q *Queue) {
	c.sub.counting.Lock()
	c.mu.Lock()
	if c.queues[q.id] == q {
		delete(c.queues, q.id)
		c.past.Add(c.sub.retireLocked(q))
	}
	c.sub.counting.Unlock()
	last := c.ending && len(c.queues) == 0
	c.mu.Unlock()
	if last {
		c.end()
	}
}

// abandon forgets a controller that has got no queue.
func (c *Controller) abandon() {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	c.end()
}

// end forgets the controller.
func (c *Controller) end() {
	c.setNamespaces(nil, namespacesEnd)
	c.sub.remove(c)
	c.mu.Lock()
	opened := c.opened
	c.opened = false
	c.mu.Unlock()
	if opened {
		c.sub.cfg.Access.Closed(c)
	}
}

var errKeepAlive = errors.New("the keep alive timer has expired")

// silenceLocked is how long the host may send no command, 0 for any time.
func (c *Controller) silenceLocked() time.Duration {
	if c.info.Discovery && c.keepAlive == 0 {
		return discoveryTime
	}
	return c.keepAlive
}

// setKeepAlive starts the keep alive timer anew with a timeout, 0 for none (NVMe Base
// 2.0 §3.9).
func (c *Controller) setKeepAlive(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := d % keepAliveUnit; r != 0 {
		d += keepAliveUnit - r
	}
	c.keepAlive = d
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if s := c.silenceLocked(); s > 0 && !c.ending {
		c.traffic.Store(false)
		c.timer = time.AfterFunc(s, c.checkKeepAlive)
	}
}

// checkKeepAlive ends the association of a host that has sent no command for the
// whole of the timeout (traffic based keep alive, NVMe Base 2.0 §3.9.4).
func (c *Controller) checkKeepAlive() {
	c.mu.Lock()
	if c.ending || c.timer == nil {
		c.mu.Unlock()
		return
	}
	if c.traffic.Swap(false) {
		c.timer.Reset(c.silenceLocked())
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	c.kill(errKeepAlive, wire.KeepAliveExpired)
}
