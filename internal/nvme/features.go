package nvme

import (
	"errors"
	"time"

	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// features are the values of those features that are only kept (NVMe Base 2.0 §5.27).
type features struct {
	arbitration   uint32
	temperature   uint32 // over temperature threshold, in kelvin
	errorRecovery uint32
	atomicity     uint32
	behavior      [hostBehaviorSize]byte
}

const (
	hostBehaviorSize   = 512
	defaultTemperature = 0xFFFF
	disableNormal      = 1 // DN of Write Atomicity
)

func (f *features) init() { *f = features{temperature: defaultTemperature} }

// feature is one feature of a controller.
type feature struct {
	id         uint8
	namespace  bool // it is one of a namespace
	changeable bool
	discovery  bool // discovery controllers have it too
	// get returns the current value and, for those that have some, data.
	get func(c *Controller, ns *namespace, r *Request) (uint32, []byte, wire.Status)
	// set takes dword 11 and the data. nil refuses every change. It may wait.
	set func(c *Controller, ns *namespace, r *Request, v uint32) wire.Status
	// initial is the default value, for SEL.
	initial uint32
}

// featureTable is built once: its functions call others that read it.
var featureTable = map[uint8]*feature{}

func init() {
	for _, f := range []*feature{
		{id: wire.FeatureArbitration, changeable: true, get: kept(func(f *features) *uint32 { return &f.arbitration }), set: keep(func(f *features) *uint32 { return &f.arbitration }, 0xFFFFFF07)},
		{id: wire.FeaturePower, changeable: true, get: constant(0), set: keep(nil, 0xE0)},
		{id: wire.FeatureTemperature, changeable: true, initial: defaultTemperature, get: getTemperature, set: setTemperature},
		{id: wire.FeatureErrorRecovery, changeable: true, get: kept(func(f *features) *uint32 { return &f.errorRecovery }), set: keep(func(f *features) *uint32 { return &f.errorRecovery }, 0xFFFF)},
		{id: wire.FeatureWriteCache, changeable: true, initial: 1, get: getWriteCache, set: setWriteCache},
		{id: wire.FeatureQueues, changeable: true, initial: (maxIOQueues-1)<<16 | (maxIOQueues - 1), get: getQueues, set: setQueues},
		{id: wire.FeatureWriteAtomicity, changeable: true, get: kept(func(f *features) *uint32 { return &f.atomicity }), set: keep(func(f *features) *uint32 { return &f.atomicity }, disableNormal)},
		{id: wire.FeatureAsyncEvents, changeable: true, discovery: true, get: getAsyncEvents, set: setAsyncEvents},
		{id: wire.FeatureKeepAlive, changeable: true, discovery: true, get: getKeepAlive, set: setKeepAlive},
		{id: wire.FeatureHostBehavior, changeable: true, get: getHostBehavior, set: setHostBehavior},
		{id: wire.FeatureHostID, get: getHostID},
		{id: wire.FeatureReservationMask, namespace: true, changeable: true, get: getReservationMask, set: setReservationMask},
		{id: wire.FeatureReservationPersistence, namespace: true, changeable: true, get: getPersistence, set: setPersistence},
	} {
		featureTable[f.id] = f
	}
}

// findFeature returns a feature that the controller has, and the namespace that the command is about.
func (r *Request) findFeature(c *Controller) (*feature, *namespace, wire.Status) {
	f := featureTable[uint8(r.SQE.CDW(10))]
	if f == nil || c.info.Discovery && !f.discovery {
		return nil, nil, wire.InvalidField.DNR()
	}
	nsid := r.SQE.NSID()
	if !f.namespace {
		// Some hosts name a namespace where there is nothing of one.
		return f, nil, 0
	}
	if nsid == wire.AllNamespaces && r.SQE.Opcode() == wire.AdminSetFeatures {
		return f, nil, 0
	}
	ns := c.table.Load().get(nsid)
	if ns == nil {
		return f, nil, c.noNamespace(nsid)
	}
	return f, ns, 0
}

// The values of SEL (NVMe Base 2.0 figure 195).
const (
	selectCurrent      = 0
	selectDefault      = 1
	selectSaved        = 2
	selectCapabilities = 3
)

// runGetFeatures is Get Features (NVMe Base 2.0 §5.15).
func runGetFeatures(c *Controller, r *Request) {
	f, ns, s := r.findFeature(c)
	if s != 0 {
		r.finish(s)
		return
	}
	switch r.SQE.CDW(10) >> 8 & 7 {
	case selectCurrent:
	case selectDefault, selectSaved: // nothing is saved
		r.Result[0] = f.initial
		r.finish(wire.Success)
		return
	case selectCapabilities:
		if f.namespace {
			r.Result[0] |= 1 << 1
		}
		if f.changeable {
			r.Result[0] |= 1 << 2
		}
		r.finish(wire.Success)
		return
	default:
		r.fail(wire.InvalidField)
		return
	}
	v, data, s := f.get(c, ns, r)
	r.Result[0] = v
	switch {
	case s != 0:
		r.finish(s)
	case data == nil:
		r.finish(wire.Success)
	case r.length != len(data):
		r.fail(wire.SGLLengthInvalid)
	default:
		r.reply(data, 0)
	}
}

// runSetFeatures is Set Features (NVMe Base 2.0 §5.27).
func runSetFeatures(c *Controller, r *Request) {
	f, ns, s := r.findFeature(c)
	switch {
	case s != 0:
		r.finish(s)
	case r.SQE.CDW(10)>>31 != 0:
		r.fail(wire.FeatureNotSaveable)
	case f.id == wire.FeatureHostID: // a fact of Connect (NVMe Base 2.0 §5.27.1.25)
		r.fail(wire.CommandSequenceError)
	case f.set == nil:
		r.fail(wire.FeatureNotChangeable)
	default:
		s := f.set(c, ns, r, r.SQE.CDW(11))
		r.finish(s)
	}
}

func constant(v uint32) func(*Controller, *namespace, *Request) (uint32, []byte, wire.Status) {
	return func(*Controller, *namespace, *Request) (uint32, []byte, wire.Status) { return v, nil, 0 }
}

func kept(field func(*features) *uint32) func(*Controller, *namespace, *Request) (uint32, []byte, wire.Status) {
	return func(c *Controller, _ *namespace, _ *Request) (uint32, []byte, wire.Status) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return *field(&c.features), nil, 0
	}
}

// keep stores a value of which only the bits of mask may be set; a nil field has nothing to store.
func keep(field func(*features) *uint32, mask uint32) func(*Controller, *namespace, *Request, uint32) wire.Status {
	return func(c *Controller, _ *namespace, _ *Request, v uint32) wire.Status {
		if v&^mask != 0 {
			return wire.InvalidField.DNR()
		}
		if field != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			*field(&c.features) = v
		}
		return 0
	}
}

// temperatureSelect checks TMPSEL and THSEL: the composite temperature, over its threshold.
func temperatureSelect(v uint32) bool {
	sensor := v >> 16 & 15
	return (sensor == 0 || sensor == 15) && v>>20 == 0
}

func getTemperature(c *Controller, _ *namespace, r *Request) (uint32, []byte, wire.Status) {
	if !temperatureSelect(r.SQE.CDW(11)) {
		return 0, nil, wire.InvalidField.DNR()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.features.temperature, nil, 0
}

func setTemperature(c *Controller, _ *namespace, _ *Request, v uint32) wire.Status {
	if !temperatureSelect(v) {
		return wire.InvalidField.DNR()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.features.temperature = v & 0xFFFF
	return 0
}

func getWriteCache(c *Controller, _ *namespace, _ *Request) (uint32, []byte, wire.Status) {
	if c.writeThrough.Load() {
		return 0, nil, 0
	}
	return 1, nil, 0
}

// setWriteCache switches the volatile write cache for the commands of this
// controller: without it each write is on stable storage before it is answered.
// What was written before is brought there by the switch.
func setWriteCache(c *Controller, _ *namespace, _ *Request, v uint32) wire.Status {
	if v&^1 != 0 {
		return wire.InvalidField.DNR()
	}
	was := c.writeThrough.Swap(v == 0)
	if v != 0 || was {
		return 0
	}
	for _, ns := range c.table.Load().all() {
		if err := flushUnit(ns.unit); err != nil {
			return c.ioStatus(err)
		}
	}
	return 0
}

func getQueues(c *Controller, _ *namespace, _ *Request) (uint32, []byte, wire.Status) {
	n := uint32(c.maxQueues() - 1)
	return n<<16 | n, nil, 0
}

// setQueues is Number of Queues (NVMe Base 2.0 §5.27.1.5).
func setQueues(c *Controller, _ *namespace, r *Request, v uint32) wire.Status {
	sq, cq := v&0xFFFF, v>>16
	if sq == 0xFFFF || cq == 0xFFFF {
		return wire.InvalidField.DNR()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queuesLocked(false)) > 0 {
		return wire.CommandSequenceError.DNR()
	}
	n := min(sq, cq, maxIOQueues-1)
	c.ioQueues = uint16(n + 1)
	r.Result[0] = n<<16 | n
	return 0
}

func getAsyncEvents(c *Controller, _ *namespace, _ *Request) (uint32, []byte, wire.Status) {
	return c.events.getEnabled(), nil, 0
}

// criticalWarnings are the SMART bits of the configuration: none of them ever is raised.
const criticalWarnings = 0xFF

func setAsyncEvents(c *Controller, _ *namespace, _ *Request, v uint32) wire.Status {
	if v&^(c.optionalEvents()|criticalWarnings) != 0 {
		return wire.InvalidField.DNR()
	}
	c.events.setEnabled(v)
	return 0
}

// optionalEvents is OAES.
func (c *Controller) optionalEvents() uint32 {
	if c.info.Discovery {
		return wire.NotifyDiscovery
	}
	return wire.NotifyNamespace | wire.NotifyANA
}

func getKeepAlive(c *Controller, _ *namespace, _ *Request) (uint32, []byte, wire.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint32(c.keepAlive / time.Millisecond), nil, 0
}

func setKeepAlive(c *Controller, _ *namespace, _ *Request, v uint32) wire.Status {
	c.setKeepAlive(time.Duration(v) * time.Millisecond)
	return 0
}

func getHostBehavior(c *Controller, _ *namespace, _ *Request) (uint32, []byte, wire.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.features.behavior
	return 0, b[:], 0
}

// setHostBehavior is Host Behavior Support (NVMe Base 2.0 §5.27.1.18).
func setHostBehavior(c *Controller, _ *namespace, r *Request, _ uint32) wire.Status {
	if len(r.DataOut) != hostBehaviorSize {
		return wire.SGLLengthInvalid.DNR()
	}
	if r.DataOut[0] > 1 {
		return wire.InvalidField.DNR()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.features.behavior[0] = r.DataOut[0]
	c.retryDelay.Store(r.DataOut[0] == 1)
	return 0
}

// getHostID returns the extended host identifier, the only form on fabrics.
func getHostID(c *Controller, _ *namespace, r *Request) (uint32, []byte, wire.Status) {
	if r.SQE.CDW(11)&1 == 0 {
		return 0, nil, wire.HostIDInconsistentFormat.DNR()
	}
	return 1, c.info.HostID[:], 0
}

const notifyMask = 1<<notifyRegistrationPreempted | 1<<notifyReservationReleased | 1<<notifyReservationPreempted

func getReservationMask(_ *Controller, ns *namespace, _ *Request) (uint32, []byte, wire.Status) {
	return ns.mask.Load(), nil, 0
}

func setReservationMask(c *Controller, ns *namespace, _ *Request, v uint32) wire.Status {
	if v&^uint32(notifyMask) != 0 {
		return wire.InvalidField.DNR()
	}
	if ns != nil {
		ns.mask.Store(v)
		return 0
	}
	for _, ns := range c.table.Load().all() {
		ns.mask.Store(v)
	}
	return 0
}

func getPersistence(_ *Controller, ns *namespace, _ *Request) (uint32, []byte, wire.Status) {
	if ns.unit.Reservations.Table().Persist {
		return 1, nil, 0
	}
	return 0, nil, 0
}

// setPersistence is Reservation Persistence (NVMe Base 2.0 §5.27.1.27).
func setPersistence(c *Controller, ns *namespace, _ *Request, v uint32) wire.Status {
	if v&^1 != 0 {
		return wire.InvalidField.DNR()
	}
	list := []*namespace{ns}
	if ns == nil {
		list = c.table.Load().all()
	}
	for _, ns := range list {
		err := ns.unit.Reservations.SetPersist(v == 1)
		if errors.Is(err, unit.ErrNotPersistent) {
			return wire.FeatureNotChangeable.DNR()
		}
		if err != nil {
			return wire.InternalError
		}
	}
	return 0
}
