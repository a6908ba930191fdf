package agent

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/pool"
)

type poolService struct{ *Agent }

var _ lintelv1connect.PoolServiceHandler = poolService{}

func (a *Agent) poolMessage(p *array.PoolDocument, data PoolStatus) *lintelv1.Pool {
	m := &lintelv1.Pool{
		Id: p.ID, Etag: p.Etag(), Created: timeMessage(p.Created),
		Spec: &lintelv1.PoolSpec{Name: p.Name, Kind: messageOf(poolKinds, p.Kind), Comment: p.Comment},
		Status: &lintelv1.PoolStatus{
			State: lintelv1.PoolState_POOL_STATE_ONLINE, Volumes: uint32(len(p.Volumes)),
			Epoch: p.Epoch, ExtentBytes: p.Extent, System: p.System, ProvisionedBytes: provisioned(p),
		},
	}
	store, err := a.Pool(p.ID)
	if err != nil { // planned only, or just deleted
		m.Status.Path = a.poolDir(p.Name)
		return m
	}
	m.Status.Path = store.Dir()
	m.Status.SizeBytes, m.Status.FreeBytes, err = store.Space()
	if data.Reason != "" {
		err = errors.New(data.Reason)
	}
	if broken := store.Err(); broken != nil {
		err = broken
	}
	if err != nil {
		m.Status.State, m.Status.Reason = lintelv1.PoolState_POOL_STATE_DEGRADED, err.Error()
	}
	return m
}

// provisioned returns the sizes of the volumes that take space from the pool.
func provisioned(p *array.PoolDocument) (total uint64) {
	for _, v := range p.Volumes {
		if v.Kind == array.VolumeFile {
			total += v.Size
		}
	}
	return total
}

func (s poolService) ListPools(ctx context.Context, _ *connect.Request[lintelv1.ListPoolsRequest]) (*connect.Response[lintelv1.ListPoolsResponse], error) {
	resp := new(lintelv1.ListPoolsResponse)
	status := s.look(ctx)
	for _, p := range s.State().Pools {
		resp.Pools = append(resp.Pools, s.poolMessage(p, status.pool(p.ID)))
	}
	return connect.NewResponse(resp), nil
}

func (s poolService) GetPool(ctx context.Context, req *connect.Request[lintelv1.GetPoolRequest]) (*connect.Response[lintelv1.GetPoolResponse], error) {
	p, err := s.State().Pool(req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.GetPoolResponse{Pool: s.poolMessage(p, s.look(ctx).pool(p.ID))}), nil
}

func (s poolService) CreatePool(ctx context.Context, req *connect.Request[lintelv1.CreatePoolRequest]) (*connect.Response[lintelv1.CreatePoolResponse], error) {
	spec := req.Msg.GetSpec()
	kind, err := wordOf(poolKinds, "kind", spec.GetKind(), array.PoolFile)
	if err != nil {
		return nil, err
	}
	var made *array.PoolDocument
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, p, plan, err := state.CreatePool(s.env, spec.GetName(), kind, spec.GetComment())
		if err != nil {
			return nil, err
		}
		made = p
		dir := s.poolDir(p.Name)
		return &change{state: next, plan: plan, check: func() error { return pool.CheckNew(dir) }, prepare: func() (func() error, error) {
			store, err := pool.Create(dir, p, next.Document)
			if err != nil {
				return nil, err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.pools[p.ID] = store
			return func() error { return s.removePool(p) }, nil
		}}, nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.CreatePoolResponse{Pool: s.poolMessage(made, PoolStatus{}), Plan: planMessage(c.plan)}), nil
}

func (s poolService) DeletePool(ctx context.Context, req *connect.Request[lintelv1.DeletePoolRequest]) (*connect.Response[lintelv1.DeletePoolResponse], error) {
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		next, p, plan, err := state.DeletePool(req.Msg.GetName(), req.Msg.GetEtag())
		if err != nil {
			return nil, err
		}
		return &change{state: next, plan: plan, drop: p}, nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.DeletePoolResponse{Plan: planMessage(c.plan)}), nil
}
