package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/pool"
	"lintel.io/lintel/internal/target"
	"lintel.io/lintel/internal/unit"
)

// dataPlane is the data plane of this process, in the agent's words, with the pools that it
// has open. The two know nothing of each other, so that they can also be separate
// processes.
type dataPlane struct {
	target *target.Target
	dir    string // of the pools

	mu     sync.Mutex
	pools  map[string]*pool.Data // by id
	failed map[string]error      // why a pool could not be opened, by id
	closed bool
}

var _ agent.DataPlane = (*dataPlane)(nil)

// newDataPlane returns a data plane for a data directory that presents nothing yet.
func newDataPlane(dataDir string, log *slog.Logger) (*dataPlane, error) {
	d := &dataPlane{dir: filepath.Join(dataDir, pool.PoolsDir), pools: map[string]*pool.Data{}, failed: map[string]error{}}
	var err error
	d.target, err = target.New(target.Config{
		Logger:   log,
		Pool:     func(id string) (target.Pool, error) { return d.pool(id) },
		Revision: revision,
	})
	return d, err
}

func (d *dataPlane) pool(id string) (*pool.Data, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.pools[id]; p != nil {
		return p, nil
	}
	if err := d.failed[id]; err != nil {
		return nil, err
	}
	return nil, array.Errorf(array.KindNotFound, "pool %s is not open", id)
}

// Ready implements agent.DataPlane: what is in the same process answers.
func (d *dataPlane) Ready(context.Context) error { return nil }

// Apply implements agent.DataPlane.
func (d *dataPlane) Apply(ctx context.Context, s *array.State) error {
	errs := []error{d.openPools(s)}
	errs = append(errs, d.target.Apply(ctx, s))
	errs = append(errs, d.settlePools(s))
	return errors.Join(errs...)
}

// openPools opens the pools that the state has and the data plane has not.
func (d *dataPlane) openPools(s *array.State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed { // the manager may try once more before it is closed itself
		return target.ErrClosed
	}
	var errs []error
	for _, doc := range s.Pools {
		if d.pools[doc.ID] != nil {
			continue
		}
		p, err := pool.OpenData(filepath.Join(d.dir, doc.Name))
		if err == nil && p.ID() != doc.ID {
			err = errors.Join(fmt.Errorf("%s holds pool %s, not %s", p.Dir(), p.ID(), doc.ID), p.Close())
		}
		if err != nil {
			d.failed[doc.ID] = err
			errs = append(errs, fmt.Errorf("pool %s: %w", doc.Name, err))
			continue
		}
		delete(d.failed, doc.ID)
		d.pools[doc.ID] = p
	}
	maps.DeleteFunc(d.failed, func(id string, _ error) bool {
		return !slices.ContainsFunc(s.Pools, func(doc *array.PoolDocument) bool { return doc.ID == id })
	})
	return errors.Join(errs...)
}

// settlePools closes the pools that the state does not have, and lets the others forget the
// volumes that it does not have. Their devices are closed.
func (d *dataPlane) settlePools(s *array.State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for id, p := range d.pools {
		i := slices.IndexFunc(s.Pools, func(doc *array.PoolDocument) bool { return doc.ID == id })
		if i < 0 {
			delete(d.pools, id)
			errs = append(errs, p.Close())
		} else if err := p.Forget(s.Pools[i]); err != nil {
			errs = append(errs, fmt.Errorf("pool %s: %w", s.Pools[i].Name, err))
		}
	}
	return errors.Join(errs...)
}

// State returns the state that was applied last, nil for none.
func (d *dataPlane) State() *array.State { return d.target.State() }

// close ends the sessions and releases everything.
func (d *dataPlane) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	errs := []error{d.target.Close(ctx)}
	d.target.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, p := range d.pools {
		errs = append(errs, p.Close())
	}
	clear(d.pools)
	return errors.Join(errs...)
}

// CheckPortal implements agent.DataPlane.
func (d *dataPlane) CheckPortal(ctx context.Context, at netip.AddrPort) error {
	return d.target.CheckPortal(ctx, at)
}

// Status implements agent.DataPlane.
func (d *dataPlane) Status(_ context.Context, volumes ...string) (*agent.Status, error) {
	status := &agent.Status{
		Volumes: map[string]agent.VolumeStatus{}, Portals: map[string]agent.PortalStatus{}, Pools: map[string]agent.PoolStatus{},
	}
	state := d.target.State()
	if state == nil {
		return status, nil
	}
	all := slices.Contains(volumes, agent.AllVolumes)
	var asked []string
	for _, p := range state.Pools {
		if opened, err := d.pool(p.ID); err != nil {
			status.Pools[p.ID] = agent.PoolStatus{Reason: err.Error()}
		} else {
			status.Pools[p.ID] = poolStatus(opened, d.target.Access(p.ID))
		}
		for _, v := range p.Volumes {
			if all || slices.Contains(volumes, v.ID) {
				asked = append(asked, v.ID)
			}
		}
	}
	for id, s := range d.target.Volumes(asked...) {
		status.Volumes[id] = agent.VolumeStatus(s)
	}
	for _, p := range state.Document.Portals {
		status.Portals[p.ID] = agent.PortalStatus(d.target.Portal(p.ID))
	}
	return status, nil
}

func poolStatus(p *pool.Data, access map[uint16]array.AccessState) agent.PoolStatus {
	s := agent.PoolStatus{Problems: p.Problems(), Access: access}
	if err := p.Err(); err != nil {
		s.Reason = err.Error()
	}
	return s
}

// Reopen implements agent.DataPlane.
func (d *dataPlane) Reopen(ctx context.Context, volumeID string) error {
	return d.target.Reopen(ctx, volumeID)
}

// Sessions implements agent.DataPlane.
func (d *dataPlane) Sessions(context.Context) ([]agent.Session, error) {
	sessions := d.target.Sessions()
	list := make([]agent.Session, len(sessions))
	for i, s := range sessions {
		a := agent.Session{
			ID:            strconv.FormatUint(s.ID, 10),
			Protocol:      array.ISCSI,
			Discovery:     s.Discovery,
			Initiator:     s.Initiator,
			HostID:        s.HostID,
			ISID:          s.ISID,
			TSIH:          s.TSIH,
			PortalTag:     s.Group,
			Since:         s.Since,
			LUNs:          s.LUNs,
			CHAPUser:      s.User,
			Authenticated: s.User != "",
			Commands:      s.Counters.Commands,
			ReadBytes:     s.Counters.BytesRead,
			WriteBytes:    s.Counters.BytesWritten,
			InFlight:      s.InFlight,
		}
		for _, c := range s.Connections {
			a.Connections = append(a.Connections, agent.Connection{
				CID: c.CID, Remote: c.Remote, Local: c.Local, HeaderDigest: c.HeaderDigest, DataDigest: c.DataDigest,
			})
		}
		list[i] = a
	}
	for _, c := range d.target.Controllers() {
		a := agent.Session{
			ID:             nvmeSession + strconv.FormatUint(uint64(c.ID), 10),
			Protocol:       array.NVMeTCP,
			Discovery:      c.Discovery,
			Initiator:      c.HostNQN,
			HostID:         c.OwnerID,
			PortalTag:      c.Port,
			Since:          c.Created,
			LUNs:           c.Namespaces,
			Authenticated:  c.Authenticated,
			TLS:            c.TLS.Identity != "",
			Commands:       c.Stats.Reads + c.Stats.Writes + c.Stats.Others,
			ReadBytes:      c.Stats.ReadBytes,
			WriteBytes:     c.Stats.WriteBytes,
			InFlight:       c.Stats.InFlight,
			ControllerID:   c.ID,
			HostIdentifier: c.HostID,
		}
		for _, q := range c.Queues {
			a.Connections = append(a.Connections, agent.Connection{
				QueueID: q.ID, QueueDepth: uint16(q.Depth), Remote: q.Remote, Local: q.Local,
				HeaderDigest: q.HeaderDigest, DataDigest: q.DataDigest,
			})
		}
		list = append(list, a)
	}
	return list, nil
}

// nvmeSession begins the session ids of NVMe controllers, so that they are apart
// from those of iSCSI sessions.
const nvmeSession = "nvme-"

// DropSession implements agent.DataPlane.
func (d *dataPlane) DropSession(_ context.Context, id string) (bool, error) {
	if controller, ok := strings.CutPrefix(id, nvmeSession); ok {
		n, err := strconv.ParseUint(controller, 10, 16)
		return err == nil && d.target.DropController(uint16(n)), nil
	}
	n, err := strconv.ParseUint(id, 10, 64)
	return err == nil && d.target.DropSession(n), nil
}

// Stats implements agent.DataPlane.
func (d *dataPlane) Stats(context.Context) (*agent.Stats, error) {
	s := d.target.Stats()
	stats := &agent.Stats{
		Volumes:     make(map[string]agent.IOStats, len(s.Volumes)),
		Total:       ioStats(s.Total),
		Sessions:    s.Sessions,
		Connections: s.Connections,
		Process:     agent.ThisProcess(),
	}
	for id, v := range s.Volumes {
		stats.Volumes[id] = ioStats(v)
	}
	return stats, nil
}

func ioStats(s unit.Stats) agent.IOStats {
	return agent.IOStats{
		ReadOps: s.Reads, ReadBytes: s.ReadBytes,
		WriteOps: s.Writes, WriteBytes: s.WriteBytes,
		OtherOps: s.Others, Errors: s.Errors, InFlight: s.InFlight,
		ReadTime: s.ReadTime, WriteTime: s.WriteTime,
	}
}
