package nvme

import (
	"maps"
	"slices"
	"sync/atomic"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// maxNSID is the highest namespace identifier (NN).
const maxNSID = 16384

// namespace is one NSID of one controller.
type namespace struct {
	ctrl     *Controller
	unit     *unit.Unit
	nsid     uint32
	readOnly atomic.Bool   // the mapping is
	mask     atomic.Uint32 // Reservation Notification Mask
	fixed    bool          // the device takes no writes
}

var _ unit.Watcher = (*namespace)(nil)

// nsTable finds the namespace of an NSID. It is never changed once published.
type nsTable struct {
	low  []*namespace // NSIDs below 256
	high map[uint32]*namespace
	ids  []uint32 // sorted, with those whose unit is not there now
}

func (t *nsTable) get(nsid uint32) *namespace {
	if uint64(nsid) < uint64(len(t.low)) {
		return t.low[nsid]
	}
	return t.high[nsid]
}

// all returns the namespaces in order of their NSIDs.
func (t *nsTable) all() []*namespace {
	list := make([]*namespace, 0, len(t.ids))
	for _, id := range t.ids {
		if ns := t.get(id); ns != nil {
			list = append(list, ns)
		}
	}
	return list
}

// awaits reports whether an NSID is mapped, but its unit is not there now.
func (t *nsTable) awaits(nsid uint32) bool {
	_, mapped := slices.BinarySearch(t.ids, nsid)
	return mapped && t.get(nsid) == nil
}

// noNamespace returns the status of a command on an NSID that leads to no unit. For one that
// may come back Do Not Retry is not set, as hosts take the namespace for gone then.
func (c *Controller) noNamespace(nsid uint32) wire.Status {
	if c.table.Load().awaits(nsid) {
		return c.ioStatus(errAwaited)
	}
	return wire.InvalidNamespace.DNR()
}

var errAwaited = &block.Error{Kind: block.KindGone}

func newNSTable(m map[uint32]*namespace) *nsTable {
	t := &nsTable{ids: slices.Sorted(maps.Keys(m))}
	for _, id := range t.ids {
		if id >= 256 {
			if t.high == nil {
				t.high = make(map[uint32]*namespace)
			}
			t.high[id] = m[id]
			continue
		}
		for len(t.low) <= int(id) {
			t.low = append(t.low, nil)
		}
		t.low[id] = m[id]
	}
	return t
}

// SetNamespaces replaces what the controller's host sees, and tells it where
// that differs. NSIDs beyond 16384 are left out. Commands under way on a namespace that is gone end.
func (c *Controller) SetNamespaces(m Namespaces) {
	c.setNamespaces(m, namespacesLater)
}

// Why a controller gets namespaces.
type namespacesCause uint8

const (
	namespacesFirst namespacesCause = iota // they are what Access.Open has returned
	namespacesLater
	namespacesEnd // the controller ends
)

func (c *Controller) setNamespaces(m Namespaces, cause namespacesCause) {
	c.setting.Lock()
	defer c.setting.Unlock()
	switch cause {
	case namespacesFirst:
		if c.given {
			return // there are newer ones
		}
	case namespacesLater:
		c.given = true
	case namespacesEnd:
	}
	if cause != namespacesEnd {
		c.mu.Lock()
		ending := c.ending
		c.mu.Unlock()
		if ending {
			return
		}
	}
	old := c.table.Load()
	next := make(map[uint32]*namespace, len(m))
	changed := make(map[uint32]bool)
	for nsid, to := range m {
		if nsid == 0 || nsid > maxNSID {
			continue
		}
		if to.Unit == nil {
			next[nsid] = nil
			changed[nsid] = !old.awaits(nsid)
			continue
		}
		ns := old.get(nsid)
		switch {
		case ns == nil || ns.unit != to.Unit:
			ns = &namespace{ctrl: c, unit: to.Unit, nsid: nsid, fixed: to.Unit.Device().Info().ReadOnly}
			ns.readOnly.Store(to.ReadOnly)
			changed[nsid] = true
		case ns.readOnly.Swap(to.ReadOnly) != to.ReadOnly:
			changed[nsid] = true
		}
		next[nsid] = ns
	}
	// Watched before there are commands on them, so that Preempt and Abort knows of these.
	for nsid, ns := range next {
		if ns != nil && old.get(nsid) != ns {
			ns.unit.Attach(ns)
		}
	}
	c.table.Store(newNSTable(next))
	d := unit.NewDrain(func() {})
	for _, nsid := range old.ids {
		ns := old.get(nsid)
		now, mapped := next[nsid]
		if !mapped || ns != now {
			changed[nsid] = true
		}
		if ns != nil && ns != now {
			c.drop(ns, d)
		}
	}
	d.Release()
	for nsid, is := range changed {
		if is {
			c.events.namespaceChanged(nsid)
		}
	}
}

// drop ends the commands on a namespace that the table does not have any more.
func (c *Controller) drop(ns *namespace, d *unit.Drain) {
	ns.unit.Detach(ns)
	c.cancelOn(c.noNamespace(ns.nsid), d, func(r *Request) bool { return r.ns == ns })
}

// cancelOn ends the I/O commands that match.
func (c *Controller) cancelOn(s wire.Status, d *unit.Drain, match func(*Request) bool) {
	c.mu.Lock()
	queues := c.queuesLocked(false)
	c.mu.Unlock()
	for _, q := range queues {
		q.cancel(s, d, match)
	}
}

// removeUnit takes a unit away from the host.
func (c *Controller) removeUnit(u *unit.Unit, d *unit.Drain) {
	c.setting.Lock()
	defer c.setting.Unlock()
	old := c.table.Load()
	next := make(map[uint32]*namespace)
	var gone []*namespace
	for _, nsid := range old.ids {
		if ns := old.get(nsid); ns != nil && ns.unit == u {
			gone = append(gone, ns)
		} else {
			next[nsid] = ns
		}
	}
	if len(gone) > 0 {
		c.table.Store(newNSTable(next))
	}
	for _, ns := range gone {
		c.drop(ns, d)
		c.events.namespaceChanged(ns.nsid)
	}
	// Commands on the unit of a namespace that SetNamespaces has taken away already.
	c.cancelOn(wire.InvalidNamespace.DNR(), d, func(r *Request) bool { return r.ns != nil && r.ns.unit == u })
}

// Initiator identifies the host in the reservation table: registrations are those of
// a host, whatever controllers it has (NVMe Base 2.0 §8.19).
func (ns *namespace) Initiator() unit.Initiator { return ns.ctrl.initiator }

// UnitEvent turns an event of the unit into an asynchronous one.
func (ns *namespace) UnitEvent(e unit.Event) {
	ev := &ns.ctrl.events
	switch e {
	case unit.EventCapacity, unit.EventInquiry, unit.EventModeParameters:
		ev.namespaceChanged(ns.nsid)
	case unit.EventAccessState:
		ns.ctrl.anaChanges.Add(1)
		ev.raise(wire.EventANAChanged)
	case unit.EventRegistrationsPreempted:
		ns.notify(notifyRegistrationPreempted)
	case unit.EventReservationsReleased:
		ns.notify(notifyReservationReleased)
	case unit.EventReservationsPreempted:
		ns.notify(notifyReservationPreempted)
	case unit.EventThinThreshold, unit.EventReset:
		// What they tell is no news to NVMe hosts: they find no critical warning
		// of a namespace, and a SCSI reset ends SCSI commands alone.
	}
}

// AbortTasks ends the host's commands on the unit for Preempt and Abort (NVMe Base 2.0 §8.19.7), also those
// of a time when the unit was another namespace.
func (ns *namespace) AbortTasks(done func()) {
	d := unit.NewDrain(func() { go done() })
	ns.ctrl.cancelOn(wire.AbortedPreempt, d, func(r *Request) bool {
		return r.ns != nil && r.ns.unit == ns.unit && !isReservation(r.SQE.Opcode())
	})
	d.Release()
}

// writable says why the namespace takes no changes.
func (ns *namespace) isReadOnly() bool {
	return ns.fixed || ns.readOnly.Load() || ns.unit.Attributes().ReadOnly
}

// anaState returns the state of the namespace's ANA group through this head.
func (ns *namespace) anaState() uint8 {
	return anaStates[ns.access()&0xF]
}

// access returns the access state of the namespace through the controller's port group.
func (ns *namespace) access() unit.AccessState {
	return ns.unit.Group().State(ns.ctrl.portGroup)
}

// anaStates translates unit.AccessState to the states of NVMe Base 2.0 §8.1.3. The states
// between are not used.
var anaStates = [16]uint8{
	unit.Optimized:     wire.ANAOptimized,
	unit.NonOptimized:  wire.ANANonOptimized,
	unit.Standby:       wire.ANAInaccessible,
	unit.Unavailable:   wire.ANAInaccessible,
	unit.Offline:       wire.ANAPersistentLoss,
	unit.Transitioning: wire.ANAChange,
}
