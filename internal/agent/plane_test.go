package agent_test

import (
	"context"
	"errors"
	"maps"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/pool"
)

// fakePlane is a data plane that opens devices and has the sessions that a test gives it.
type fakePlane struct {
	dir string // of the pools

	mu       sync.Mutex
	pools    map[string]*pool.Data
	state    *array.State
	devices  map[string]block.Device
	failed   map[string]error
	sessions []agent.Session
	inUse    map[string]int // sessions by volume id
	health   map[string]block.Health
	status   map[string]agent.VolumeStatus // instead of what is known, by volume id
	access   map[uint16]array.AccessState
	busy     map[netip.AddrPort]bool
	applyErr error
	applies  int

	reopened  []string // ids of volumes
	reopenErr error
	closed    bool

	away, awayAtApply bool // does not answer
}

var _ agent.DataPlane = (*fakePlane)(nil)

func newFakePlane(dir string) *fakePlane {
	return &fakePlane{
		dir: filepath.Join(dir, pool.PoolsDir), pools: map[string]*pool.Data{}, devices: map[string]block.Device{}, failed: map[string]error{},
		inUse: map[string]int{}, health: map[string]block.Health{}, busy: map[netip.AddrPort]bool{},
	}
}

// answerLocked fails where the plane is away.
func (f *fakePlane) answerLocked() error {
	if f.away {
		return agent.ErrNoAnswer
	}
	return nil
}

func (f *fakePlane) Ready(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answerLocked()
}

func (f *fakePlane) Apply(_ context.Context, s *array.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applies++
	if f.closed {
		return errors.New("the plane is closed")
	}
	if err := f.answerLocked(); err != nil {
		return err
	}
	if f.awayAtApply {
		return agent.ErrNoAnswer
	}
	var errs []error
	for _, p := range s.Pools {
		for _, v := range p.Volumes {
			errs = append(errs, f.applyVolume(p, v))
		}
	}
	for id, d := range f.devices {
		if v, _ := s.VolumeByID(id); v == nil {
			errs = append(errs, d.Close())
			delete(f.devices, id)
		}
	}
	f.state = s
	return errors.Join(append(errs, f.applyErr)...)
}

func (f *fakePlane) applyVolume(p *array.PoolDocument, v *array.Volume) error {
	if d := f.devices[v.ID]; d != nil {
		if d.Size() != int64(v.Size) {
			return d.Resize(int64(v.Size))
		}
		return nil
	}
	store := f.pools[p.ID]
	if store == nil {
		var err error
		if store, err = pool.OpenData(filepath.Join(f.dir, p.Name)); err != nil {
			return err
		}
		f.pools[p.ID] = store
	}
	d, err := store.OpenVolume(v)
	if err != nil {
		f.failed[v.ID] = err
		return nil
	}
	f.devices[v.ID] = d
	return nil
}

func (f *fakePlane) CheckPortal(_ context.Context, at netip.AddrPort) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[at] {
		return errors.New("address already in use")
	}
	return f.answerLocked()
}

func (f *fakePlane) Status(_ context.Context, volumes ...string) (*agent.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.answerLocked(); err != nil {
		return nil, err
	}
	st := &agent.Status{Volumes: map[string]agent.VolumeStatus{}, Portals: map[string]agent.PortalStatus{}, Pools: map[string]agent.PoolStatus{}}
	if slices.Equal(volumes, []string{agent.AllVolumes}) {
		volumes = slices.AppendSeq(slices.Collect(maps.Keys(f.devices)), maps.Keys(f.failed))
	}
	for _, id := range volumes {
		st.Volumes[id] = f.volumeLocked(id)
	}
	for _, p := range f.state.Pools {
		st.Pools[p.ID] = agent.PoolStatus{Access: f.access}
	}
	for _, p := range f.state.Document.Portals {
		st.Portals[p.ID] = agent.PortalStatus{Listening: p.AddrPort()}
	}
	return st, nil
}

func (f *fakePlane) volumeLocked(id string) agent.VolumeStatus {
	if s, told := f.status[id]; told {
		return s
	}
	s := agent.VolumeStatus{Sessions: f.inUse[id], Health: f.health[id]}
	if d := f.devices[id]; d != nil {
		used, _ := d.Used()
		s.Online, s.UsedBytes = true, uint64(used)
	} else if err := f.failed[id]; err != nil {
		s.Reason = err.Error()
	}
	return s
}

func (f *fakePlane) Reopen(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.answerLocked(); err != nil {
		return err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		return errors.New("storage that hangs would be waited for for ever")
	}
	if f.reopenErr == nil {
		f.reopened = append(f.reopened, id)
		delete(f.health, id)
	}
	return f.reopenErr
}

func (f *fakePlane) Sessions(context.Context) ([]agent.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]agent.Session(nil), f.sessions...), f.answerLocked()
}

func (f *fakePlane) DropSession(_ context.Context, id string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.sessions {
		if s.ID == id {
			f.sessions = append(f.sessions[:i], f.sessions[i+1:]...)
			return true, nil
		}
	}
	return false, f.answerLocked()
}

func (f *fakePlane) Stats(context.Context) (*agent.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.answerLocked(); err != nil {
		return nil, err
	}
	st := &agent.Stats{Volumes: map[string]agent.IOStats{}, Sessions: len(f.sessions), Process: agent.ThisProcess()}
	for id := range f.devices {
		st.Volumes[id] = agent.IOStats{ReadOps: 1, ReadBytes: 4096}
		st.Total.ReadOps++
	}
	return st, nil
}

func (f *fakePlane) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, d := range f.devices {
		_ = d.Close()
	}
	f.devices = map[string]block.Device{}
	for _, p := range f.pools {
		_ = p.Close()
	}
	f.pools = map[string]*pool.Data{}
}

// rig is an array with a fake data plane and clients of its API.
type rig struct {
	retry  time.Duration // of agent.Options
	memory uint64        // of agent.Options
	t      testing.TB
	dir    string
	agent  *agent.Agent
	plane  *fakePlane
	server *httptest.Server

	pools    lintelv1connect.PoolServiceClient
	volumes  lintelv1connect.VolumeServiceClient
	hosts    lintelv1connect.HostServiceClient
	groups   lintelv1connect.HostGroupServiceClient
	mappings lintelv1connect.MappingServiceClient
	target   lintelv1connect.TargetServiceClient
	sessions lintelv1connect.SessionServiceClient
	stats    lintelv1connect.StatsServiceClient
	system   lintelv1connect.SystemServiceClient
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "data")}
	r.start()
	t.Cleanup(r.stop)
	return r
}

func (r *rig) start() {
	r.t.Helper()
	a, err := agent.Open(agent.Options{DataDir: r.dir, Version: "test", Retry: r.retry, Memory: r.memory})
	if err != nil {
		r.t.Fatal(err)
	}
	r.agent, r.plane = a, newFakePlane(r.dir)
	if err := a.Start(r.t.Context(), r.plane); err != nil {
		r.t.Fatal(err)
	}
	r.server = httptest.NewServer(a.Handler())
	client, url := r.server.Client(), r.server.URL
	r.pools = lintelv1connect.NewPoolServiceClient(client, url)
	r.volumes = lintelv1connect.NewVolumeServiceClient(client, url)
	r.hosts = lintelv1connect.NewHostServiceClient(client, url)
	r.groups = lintelv1connect.NewHostGroupServiceClient(client, url)
	r.mappings = lintelv1connect.NewMappingServiceClient(client, url)
	r.target = lintelv1connect.NewTargetServiceClient(client, url)
	r.sessions = lintelv1connect.NewSessionServiceClient(client, url)
	r.stats = lintelv1connect.NewStatsServiceClient(client, url)
	r.system = lintelv1connect.NewSystemServiceClient(client, url)
}

func (r *rig) stop() {
	if r.agent == nil {
		return
	}
	r.server.Close()
	r.plane.close()
	if err := r.agent.Close(); err != nil {
		r.t.Error(err)
	}
	r.agent = nil
}

func (r *rig) restart() {
	r.stop()
	r.start()
}

// call makes a call that has to succeed.
func call[Req, Resp any](r *rig, do func(context.Context, *connect.Request[Req]) (*connect.Response[Resp], error), req *Req) *Resp {
	r.t.Helper()
	resp, err := do(context.Background(), connect.NewRequest(req))
	if err != nil {
		r.t.Fatalf("%T: %v", req, err)
	}
	return resp.Msg
}

// refuse makes a call that has to fail with a code.
func refuse[Req, Resp any](r *rig, code connect.Code, do func(context.Context, *connect.Request[Req]) (*connect.Response[Resp], error), req *Req) error {
	r.t.Helper()
	_, err := do(context.Background(), connect.NewRequest(req))
	if connect.CodeOf(err) != code || err == nil {
		r.t.Fatalf("%T: got %v, want %v", req, err, code)
	}
	return err
}
