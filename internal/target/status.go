package target

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/ask"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/iscsi"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/unit"
)

// VolumeStatus is how a volume does. One whose storage does not answer has block.FaultHung; nothing
// else is then known of that, but for the fault it had before.
type VolumeStatus struct {
	Online    bool
	Reason    string // why it is not online
	UsedBytes uint64 // space taken from the backing store
	Sessions  int    // sessions that see it
	Health    block.Health
	// Before is the fault of storage that does not answer as it was told last, where that kind does not pass by
	// itself (block.FaultLost, block.FaultBacking); nil for none.
	Before *block.Fault
}

// answer is what the storage of a volume tells.
type answer struct {
	used   int64
	err    error
	health block.Health
}

// ask asks the storage of a volume, unless it has a question to answer already.
func (v *volume) ask() *ask.Question[answer] {
	return v.asker.Ask(func() answer {
		u := v.lu.Unit()
		health := u.Health()
		v.remember(health.Fault)
		used, err := u.Device().Used()
		return answer{used, err, health}
	})
}

// remember keeps a fault for when the storage hangs.
func (v *volume) remember(f *block.Fault) {
	if f != nil && f.Kind != block.FaultLost && f.Kind != block.FaultBacking {
		f = nil
	}
	v.lasting.Store(f)
}

// await waits for what the storage of a volume tells, but not longer than storage that answers takes.
func (t *Target) await(q *ask.Question[answer]) answer {
	if a, ok := q.Wait(t.cfg.Patience); ok {
		return a
	}
	return answer{health: block.Health{Fault: hungSince(q.Since)}}
}

func hungSince(since time.Time) *block.Fault {
	return &block.Fault{Kind: block.FaultHung, Since: since, Reason: "its storage has not answered since " + since.UTC().Format(time.RFC3339)}
}

func hangs(f *block.Fault) bool { return f != nil && f.Kind == block.FaultHung }

// Volume returns how a volume does; the zero value for one it does not have.
func (t *Target) Volume(id string) VolumeStatus { return t.Volumes(id)[id] }

// Volumes returns how volumes do, by id. Storage that hangs delays nothing but its own answer.
func (t *Target) Volumes(ids ...string) map[string]VolumeStatus {
	status := make(map[string]VolumeStatus, len(ids))
	open := make(map[string]*volume, len(ids))
	questions := make(map[string]*ask.Question[answer], len(ids))
	for _, id := range ids {
		t.mu.Lock()
		v, failed := t.volumes[id], t.failed[id]
		t.mu.Unlock()
		switch {
		case v == nil && failed != nil:
			status[id] = VolumeStatus{Reason: failed.Error()}
		case v == nil:
			status[id] = VolumeStatus{}
		case v.missing():
			status[id] = t.lateStatus(v)
		default:
			status[id] = VolumeStatus{Online: true, Sessions: v.lu.Unit().Attached()}
			open[id], questions[id] = v, v.ask()
		}
	}
	for id, q := range questions {
		s, a := status[id], t.await(q)
		s.Health = a.health
		switch {
		case a.err != nil:
			s.Online, s.Reason = false, a.err.Error()
		case hangs(a.health.Fault):
			s.Before = open[id].lasting.Load()
		default:
			s.UsedBytes = uint64(a.used)
		}
		status[id] = s
	}
	return status
}

// lateStatus returns how a volume does whose backing store could not be opened so far.
func (t *Target) lateStatus(v *volume) VolumeStatus {
	s := VolumeStatus{Sessions: v.lu.Unit().Attached(), Reason: (*v.late.reason.Load()).Error()}
	if q := v.late.opening.Open(); q != nil && time.Since(q.Since) >= t.cfg.Patience {
		s.Health.Fault = hungSince(q.Since)
		s.Reason = s.Health.Fault.Reason
	}
	return s
}

// Access returns the access states of a pool's volumes that are in effect, by target port
// group: what initiators have set included. It is nil for a pool that it does not present.
func (t *Target) Access(poolID string) map[uint16]array.AccessState {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.groups[poolID]
	if g == nil {
		return nil
	}
	states := map[uint16]array.AccessState{}
	for i := range t.state.Document.Target.PortGroups {
		id := t.state.Document.Target.PortGroups[i].ID
		for word, state := range accessStates {
			if state == g.State(id) {
				states[id] = word
			}
		}
	}
	return states
}

// PortalStatus is how a portal does.
type PortalStatus struct {
	Listening netip.AddrPort // where it listens in fact, invalid where it does not
	Reason    string         // why it does not
	Sessions  int
}

// Portal returns how a portal does; the zero value for one it does not have.
func (t *Target) Portal(id string) PortalStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.portals[id]
	if p == nil {
		return PortalStatus{}
	}
	if p.listener == nil {
		return PortalStatus{Reason: p.reason.Error()}
	}
	s := PortalStatus{}
	if a, ok := p.listener.Addr().(*net.TCPAddr); ok {
		s.Listening = a.AddrPort()
	}
	for n := range t.nexuses {
		if n.info.Group == p.spec.Tag && n.info.Local.Port() == s.Listening.Port() {
			s.Sessions++
		}
	}
	for c := range t.controllers {
		if info := c.Info(); info.Port == p.spec.Tag && info.Local.Port() == s.Listening.Port() {
			s.Sessions++
		}
	}
	return s
}

// CheckPortal returns an error where the address cannot be listened on.
func (t *Target) CheckPortal(ctx context.Context, at netip.AddrPort) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network(at.Addr()), at.String())
	if err != nil {
		return err
	}
	return l.Close()
}

// Session is an initiator's login, as the transport and the SCSI target know it.
type Session struct {
	iscsi.SessionStatus
	HostID string // of the host it belongs to, empty for none
	Group  uint16 // portal tag
	LUNs   int
}

// Sessions returns the sessions, oldest first.
func (t *Target) Sessions() []Session {
	list := t.server.Sessions()
	t.mu.Lock()
	defer t.mu.Unlock()
	byID := make(map[uint64]*nexus, len(t.nexuses))
	for n := range t.nexuses {
		byID[n.info.ID] = n
	}
	sessions := make([]Session, len(list))
	for i, s := range list {
		sessions[i].SessionStatus = s
		if n := byID[s.ID]; n != nil {
			sessions[i].Group = n.info.Group
			sessions[i].LUNs = len(n.LUNs())
			sessions[i].HostID = n.host
		}
	}
	return sessions
}

// Controller is an NVMe host's login, as the transport and the subsystem know it.
type Controller struct {
	nvme.ControllerInfo
	OwnerID       string // id of the host it belongs to, empty for none
	Namespaces    int
	Authenticated bool
	Stats         unit.Stats
	Queues        []nvme.QueueStatus
}

// Controllers returns the controllers of NVMe hosts in order of their ids.
func (t *Target) Controllers() []Controller {
	t.mu.Lock()
	state, subsystem := t.state, t.subsystem
	t.mu.Unlock()
	if state == nil {
		return nil
	}
	var list []Controller
	for _, c := range subsystem.Controllers() {
		info := Controller{
			ControllerInfo: c.Info(), Namespaces: c.Namespaces(), Authenticated: c.Authenticated() || c.Info().TLS.Identity != "",
			Stats: c.Stats(), Queues: c.QueueStatus(),
		}
		if h := state.MatchNQN(info.HostNQN, info.Remote.Addr()); h != nil {
			info.OwnerID = h.ID
		}
		list = append(list, info)
	}
	return list
}

// DropController ends the association of an NVMe host and reports whether it
// existed.
func (t *Target) DropController(id uint16) bool {
	t.mu.Lock()
	subsystem := t.subsystem
	t.mu.Unlock()
	if subsystem == nil {
		return false
	}
	for _, c := range subsystem.Controllers() {
		if c.Info().ID == id {
			c.Kill(errDropped)
			return true
		}
	}
	return false
}

var errDropped = errors.New("dropped by the administrator")

// DropSession ends a session and reports whether it existed.
func (t *Target) DropSession(id uint64) bool { return t.server.Drop(id) }

// Stats are the counters since the start of the process.
type Stats struct {
	Volumes     map[string]unit.Stats // by volume id, over both protocols
	Total       unit.Stats            // volumes that are gone included
	Sessions    int
	Connections int
}

// Stats returns the counters.
func (t *Target) Stats() Stats {
	s := Stats{Volumes: map[string]unit.Stats{}}
	for _, session := range t.server.Sessions() {
		s.Sessions++
		s.Connections += len(session.Connections)
	}
	for _, c := range t.Controllers() {
		s.Sessions++
		s.Connections += len(c.Queues)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Total = t.retired
	if t.subsystem == nil {
		return s
	}
	overNVMe := t.subsystem.UnitStats()
	for id, v := range t.volumes {
		vs := v.lu.Stats()
		vs.Add(overNVMe[v.lu.Unit()])
		s.Volumes[id] = vs
		s.Total.Add(vs)
	}
	return s
}

// State returns the state that was applied last, nil before the first.
func (t *Target) State() *array.State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}
