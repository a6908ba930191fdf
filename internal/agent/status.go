package agent

import (
	"context"
	"errors"
	"slices"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
)

// view is the status that the data plane told, or why it told none.
type view struct {
	status Status
	err    error
}

// look asks the data plane how everything does, of the volumes only these.
func (a *Agent) look(ctx context.Context, volumes ...string) view {
	s, err := a.plane.Status(ctx, volumes...)
	if err != nil {
		return view{err: err}
	}
	return view{status: *s}
}

// notServed is why something does not work whose status is not known.
func (v view) notServed() string {
	if v.err == nil {
		return ""
	}
	return "not served: " + v.err.Error()
}

// knowsVolume reports whether the data plane has told how a volume does.
func (v view) knowsVolume(id string) bool {
	_, ok := v.status.Volumes[id]
	return ok
}

// knowsPortal reports whether the data plane has told how a portal does.
func (v view) knowsPortal(id string) bool {
	_, ok := v.status.Portals[id]
	return ok
}

// access returns the access state of a pool through a port group that is in effect, empty where
// it is not known.
func (v view) access(p *array.PoolDocument, g *array.PortGroup) array.AccessState {
	switch access := v.pool(p.ID).Access; {
	case v.err != nil:
		return ""
	case access != nil:
		return access[g.ID]
	}
	return g.State(p.ID)
}

func (v view) volume(id string) VolumeStatus {
	if s, ok := v.status.Volumes[id]; ok {
		return s
	}
	return VolumeStatus{Reason: v.notServed()}
}

// answers reports whether it is known how the storage of a volume does.
func (s VolumeStatus) answers() bool { return s.Online && !s.hangs() }

// hangs reports whether the storage of a volume does not answer.
func (s VolumeStatus) hangs() bool {
	return s.Health.Fault != nil && s.Health.Fault.Kind == block.FaultHung
}

// lost reports whether writes are lost, as far as is known.
func (s VolumeStatus) lost() bool {
	return slices.ContainsFunc([]*block.Fault{s.Health.Fault, s.Before}, func(f *block.Fault) bool { return f != nil && f.Kind == block.FaultLost })
}

func (v view) portal(id string) PortalStatus {
	if s, ok := v.status.Portals[id]; ok {
		return s
	}
	return PortalStatus{Reason: v.notServed()}
}

// pool returns how the data plane's part of a pool does. One that nobody asks for anything is not broken.
func (v view) pool(id string) PoolStatus { return v.status.Pools[id] }

func noAnswer(err error) bool { return errors.Is(err, ErrNoAnswer) }
