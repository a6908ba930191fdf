package nvme

import (
	"bytes"
	"errors"
	"time"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// runFabrics runs a Fabrics command (NVMe Base 2.0 §6).
func (r *Request) runFabrics(c *Controller) {
	kind := r.SQE.FabricsType()
	if kind == wire.Connect {
		r.runConnect()
		return
	}
	if c == nil {
		r.fail(wire.CommandSequenceError)
		return
	}
	switch kind {
	case wire.AuthenticationSend:
		r.runAuthenticationSend(c)
		return
	case wire.AuthenticationReceive:
		r.runAuthenticationReceive(c)
		return
	}
	if !r.queue.passed.Load() {
		r.fail(wire.AuthenticationRequired)
		return
	}
	if r.queue.ID() != 0 { // properties are those of the admin queue (NVMe Base 2.0 §6.5, §6.6)
		r.fail(wire.InvalidField)
		return
	}
	switch kind {
	case wire.PropertyGet:
		r.runPropertyGet(c)
	case wire.PropertySet:
		r.runPropertySet(c)
	default:
		r.fail(wire.InvalidField)
	}
}

// Offsets in the data of Connect (NVMe Base 2.0 figure 388).
const (
	connectSize     = 1024
	connectHostID   = 0
	connectCNTLID   = 16
	connectSubNQN   = 256
	connectHostNQN  = 512
	connectNQNSize  = 256
	dynamic         = 0xFFFF // CNTLID of a controller that is yet to be made
	attributeNoFlow = 1 << 2 // CATTR
	minAdminDepth   = 32
	// authenticationRequired is the ATR bit of AUTHREQ, dword 0 of the completion.
	authenticationRequired = 1 << 17
)

// connect is what a Connect asks for.
type connect struct {
	ConnectRequest
	controller uint16
	depth      int
	noFlow     bool
	keepAlive  time.Duration
}

// runConnect is Connect (NVMe Base 2.0 §6.3).
func (r *Request) runConnect() {
	q := r.queue
	q.mu.Lock()
	busy := q.ctrl != nil || q.connecting
	q.connecting = true
	q.mu.Unlock()
	if busy {
		r.fail(wire.CommandSequenceError)
		return
	}
	go func() {
		s := r.connect()
		q.mu.Lock()
		q.connecting = false
		q.mu.Unlock()
		r.finish(s)
	}()
}

// invalid returns the status of a Connect with a field that is wrong for ever: its byte
// offset, in the data or in the command. A host that sees Do Not Retry gives its controller
// up instead of connecting anew, so a Connect that may succeed later is never answered so.
func (r *Request) invalid(inData bool, offset int) wire.Status {
	return r.misfit(inData, offset).DNR()
}

// misfit returns the status of a Connect with a field that is wrong now. That of an I/O
// queue may come when its association is gone, and after a restart find another's under
// the same controller id: the host's next association will do.
func (r *Request) misfit(inData bool, offset int) wire.Status {
	r.Result[0] = uint32(offset)
	if inData {
		r.Result[0] |= 1 << 16
	}
	return wire.ConnectInvalidParameters
}

func (r *Request) connect() wire.Status {
	e, q := r.SQE, r.queue
	if len(r.DataOut) != connectSize {
		return wire.SGLLengthInvalid.DNR()
	}
	if e.CDW(10)&0xFFFF != 0 { // RECFMT
		return wire.ConnectIncompatibleFormat.DNR()
	}
	n, bad := r.parseConnect()
	if bad != 0 {
		return bad
	}
	if !n.Discovery && n.SubNQN != q.sub.NQN() {
		return r.invalid(true, connectSubNQN)
	}
	grant, err := q.sub.cfg.Access.Authorize(n.ConnectRequest)
	if err != nil {
		return r.refused(n, err)
	}
	if n.QueueID == 0 {
		return r.connectAdmin(n, grant)
	}
	return r.connectIO(n, grant)
}

func (r *Request) parseConnect() (connect, wire.Status) {
	e, q, data := r.SQE, r.queue, r.DataOut
	n := connect{
		controller: le.Uint16(data[connectCNTLID:]),
		depth:      int(e.CDW(11)&0xFFFF) + 1,
		noFlow:     e.CDW(11)>>16&attributeNoFlow != 0,
		keepAlive:  time.Duration(e.CDW(12)) * time.Millisecond,
	}
	n.QueueID = uint16(e.CDW(10) >> 16)
	n.Remote, n.Local, n.TLS = q.cfg.Remote, q.cfg.Local, q.cfg.TLS
	copy(n.HostID[:], data[connectHostID:])
	var ok bool
	if n.SubNQN, ok = parseNQN(data[connectSubNQN:]); !ok {
		return n, r.invalid(true, connectSubNQN)
	}
	if n.HostNQN, ok = parseNQN(data[connectHostNQN:]); !ok {
		return n, r.invalid(true, connectHostNQN)
	}
	n.Discovery = q.sub.isDiscovery(n.SubNQN)
	switch {
	case !n.Discovery && n.HostID == [16]byte{}:
		return n, r.invalid(true, connectHostID)
	case n.depth < 2 || n.depth > MaxQueueDepth || n.QueueID == 0 && n.depth < minAdminDepth:
		return n, r.invalid(false, 44)
	case n.QueueID == 0 && n.controller != dynamic:
		return n, r.invalid(true, connectCNTLID)
	case n.QueueID > maxIOQueues || n.Discovery && n.QueueID != 0:
		return n, r.invalid(false, 42)
	}
	return n, 0
}

// parseNQN returns a name that ends with a null byte.
func parseNQN(b []byte) (string, bool) {
	i := bytes.IndexByte(b[:connectNQNSize], 0)
	if i < 0 || !validNQN(string(b[:i])) {
		return "", false
	}
	return string(b[:i]), true
}

// refused returns the status of a Connect that Access has refused.
func (r *Request) refused(n connect, err error) wire.Status {
	r.queue.sub.cfg.Logger.Warn("NVMe connect refused", "host", n.HostNQN, "remote", n.Remote, "subsystem", n.SubNQN, "error", err)
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		return wire.ConnectInvalidHost
	}
	if refusal.Status.Code() == wire.ConnectInvalidParameters {
		r.invalid(true, connectSubNQN)
	}
	return refusal.Status
}

func (r *Request) connectAdmin(n connect, grant Grant) wire.Status {
	q := r.queue
	c := newController(q.sub, ControllerInfo{Peer: n.Peer, Port: q.cfg.Port, SubNQN: n.SubNQN, Discovery: n.Discovery}, grant)
	if !q.sub.add(c) {
		return wire.ConnectControllerBusy
	}
	if !n.Discovery && n.SubNQN != q.sub.NQN() { // Rename may not have seen the controller
		c.abandon()
		return r.invalid(true, connectSubNQN)
	}
	a := newAuthentication(grant, n)
	if a == nil {
		if err := c.open(); err != nil {
			c.abandon()
			return r.refused(n, err)
		}
	}
	if s := c.join(r, n, a); s != 0 {
		c.abandon()
		return s
	}
	c.setKeepAlive(n.keepAlive)
	q.sub.cfg.Logger.Info("NVMe host connected", "host", n.HostNQN, "controller", c.info.ID, "remote", n.Remote, "subsystem", n.SubNQN)
	return wire.Success
}

func (r *Request) connectIO(n connect, grant Grant) wire.Status {
	c := r.queue.sub.find(n.controller)
	switch {
	case c == nil || c.info.Discovery:
		return r.misfit(true, connectCNTLID)
	case c.info.SubNQN != n.SubNQN:
		return r.misfit(true, connectSubNQN)
	case c.info.HostNQN != n.HostNQN || c.grant.Terms != grant.Terms:
		return r.misfit(true, connectHostNQN)
	case c.info.HostID != n.HostID:
		return r.misfit(true, connectHostID)
	case c.status.Load()&(wire.CSTSReady|wire.CSTSFatal) != wire.CSTSReady:
		return wire.CommandSequenceError
	case n.QueueID > c.maxQueues():
		return r.invalid(false, 42)
	}
	return c.join(r, n, newAuthentication(grant, n))
}

func (c *Controller) maxQueues() uint16 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ioQueues
}

// capabilities is CAP (NVMe Base 2.0 figure 36): queues of MaxQueueDepth entries, contiguous, ready within 7.5 s,
// the NVM command set, ready with media.
const (
	readyTimeout uint64 = 15 // in units of 500 ms
	capabilities        = MaxQueueDepth - 1 | 1<<16 | readyTimeout<<24 | 1<<37 | 1<<59
)

// runPropertyGet is Property Get (NVMe Base 2.0 §6.5).
func (r *Request) runPropertyGet(c *Controller) {
	var v uint64
	size := 4
	switch r.SQE.CDW(11) {
	case wire.PropertyCAP:
		v, size = capabilities, 8
	case wire.PropertyVS:
		v = uint64(wire.Version20)
	case wire.PropertyCC:
		c.mu.Lock()
		v = uint64(c.config)
		c.mu.Unlock()
	case wire.PropertyCSTS:
		v = uint64(c.status.Load())
	case wire.PropertyCRTO:
		v = readyTimeout
	default:
		r.fail(wire.InvalidField)
		return
	}
	if size != propertySize(r.SQE) {
		r.fail(wire.InvalidField)
		return
	}
	r.Result = [2]uint32{uint32(v), uint32(v >> 32)}
	r.finish(wire.Success)
}

// propertySize returns the size that ATTRIB names, 0 for none.
func propertySize(e wire.SQE) int {
	switch e.CDW(10) & 7 {
	case 0:
		return 4
	case 1:
		return 8
	}
	return 0
}

// runPropertySet is Property Set (NVMe Base 2.0 §6.6). CC is the one property that can be set.
func (r *Request) runPropertySet(c *Controller) {
	if r.SQE.CDW(11) != wire.PropertyCC || propertySize(r.SQE) != 4 {
		r.fail(wire.InvalidField)
		return
	}
	c.configure(r.SQE.CDW(12))
	r.finish(wire.Success)
}

// unsupportedConfig has the bits of CC that must be zero: the command set and memory
// page size that are not the first, and arbitration.
const unsupportedConfig = 7<<4 | 15<<7 | 7<<11

// configure takes a new value of CC (NVMe Base 2.0 §3.1.3.5).
func (c *Controller) configure(cc uint32) {
	c.mu.Lock()
	old := c.config
	c.config = cc
	c.mu.Unlock()
	switch {
	case cc&wire.CCEnable != 0 && old&wire.CCEnable == 0:
		sizes := cc & (0xFF << 16)
		if cc&unsupportedConfig != 0 || !c.info.Discovery && sizes != wire.IOQueueEntrySizes {
			c.status.Or(wire.CSTSFatal)
			return
		}
		c.setStatus(wire.CSTSShutdownMask, wire.CSTSReady)
	case cc&wire.CCEnable == 0 && old&wire.CCEnable != 0:
		c.reset()
	}
	if cc&wire.CCShutdownMask != 0 && old&wire.CCShutdownMask == 0 {
		c.shutdown()
	}
}

func (c *Controller) setStatus(off, on uint32) {
	for {
		old := c.status.Load()
		if c.status.CompareAndSwap(old, old&^off|on) {
			return
		}
	}
}

var errReset = errors.New("the host has reset the controller")

// reset is a controller level reset (NVMe Base 2.0 §3.7.2): the I/O queues end, and
// the controller is not ready when none of their commands can reach a device.
func (c *Controller) reset() {
	c.events.reset()
	c.mu.Lock()
	c.ioQueues = maxIOQueues
	c.features.init()
	c.mu.Unlock()
	c.writeThrough.Store(false)
	c.retryDelay.Store(false)
	c.endIO(errReset, func() { c.setStatus(wire.CSTSReady|wire.CSTSShutdownMask, 0) })
}

var errShutdown = errors.New("the host has shut the controller down")

// shutdown is a controller shutdown (NVMe Base 2.0 §3.6.2).
func (c *Controller) shutdown() {
	c.setStatus(wire.CSTSShutdownMask, wire.CSTSShutdownBusy)
	c.endIO(errShutdown, func() { c.setStatus(wire.CSTSShutdownMask, wire.CSTSShutdownDone) })
}

// endIO ends the I/O queues.
func (c *Controller) endIO(err error, done func()) {
	c.mu.Lock()
	queues := c.queuesLocked(false)
	c.mu.Unlock()
	d := unit.NewDrain(done)
	for _, q := range queues {
		q.mu.Lock()
		q.closed = true
		q.mu.Unlock()
		q.cancel(wire.AbortedSQDeletion, d, everyRequest)
		q.cfg.Kill(err)
	}
	d.Release()
}
