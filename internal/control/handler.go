package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"

	"connectrpc.com/connect"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
)

// Plane is a data plane with what it serves now.
type Plane interface {
	agent.DataPlane
	// State returns the state that was applied last, nil for none.
	State() *array.State
}

// server answers for a data plane.
type server struct {
	plane Plane
	hello Hello

	apply  sync.Mutex
	run    string // of the last Apply
	number uint64
}

// NewHandler returns the handler of a data plane's control socket, which only the
// administrator may open; program is its version.
func NewHandler(plane Plane, program string) http.Handler {
	s := &server{plane: plane, hello: Hello{Version: Version, Program: program, Instance: rand.Text(), PID: os.Getpid()}}
	mux := http.NewServeMux()
	handle(mux, helloCall, s.sayHello)
	handle(mux, applyCall, s.applyState)
	handle(mux, portalCall, func(ctx context.Context, r *portalRequest) (*portalResponse, error) {
		return &portalResponse{failure(plane.CheckPortal(ctx, r.Address))}, nil
	})
	handle(mux, statusCall, func(ctx context.Context, r *statusRequest) (*agent.Status, error) {
		return plane.Status(ctx, r.Volumes...)
	})
	handle(mux, reopenCall, func(ctx context.Context, r *reopenRequest) (*reopenResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, min(max(r.Timeout, 0), maxReopen))
		defer cancel()
		return &reopenResponse{failure(plane.Reopen(ctx, r.Volume))}, nil
	})
	handle(mux, sessionCall, func(ctx context.Context, _ *none) (*sessionsResponse, error) {
		list, err := plane.Sessions(ctx)
		return &sessionsResponse{list}, err
	})
	handle(mux, dropCall, func(ctx context.Context, r *dropRequest) (*dropResponse, error) {
		dropped, err := plane.DropSession(ctx, r.ID)
		return &dropResponse{dropped}, err
	})
	handle(mux, statsCall, func(ctx context.Context, _ *none) (*agent.Stats, error) { return plane.Stats(ctx) })
	return mux
}

func handle[Req, Res any](mux *http.ServeMux, procedure string, f func(context.Context, *Req) (*Res, error)) {
	mux.Handle(procedure, connect.NewUnaryHandler(procedure, func(ctx context.Context, req *connect.Request[Req]) (*connect.Response[Res], error) {
		res, err := f(ctx, req.Msg)
		if err != nil {
			if _, ok := errors.AsType[*connect.Error](err); !ok {
				err = connect.NewError(connect.CodeInternal, err)
			}
			return nil, err
		}
		return connect.NewResponse(res), nil
	}, connect.WithCodec(codec{}), connect.WithReadMaxBytes(maxMessage)))
}

func (s *server) sayHello(context.Context, *none) (*Hello, error) {
	h := s.hello
	if state := s.plane.State(); state != nil {
		h.Array = state.Document.ID
	}
	return &h, nil
}

// applyState applies a state to the end, also where the manager stops waiting for it. One that the
// manager gave up before its turn came is not applied: a newer one may have been.
func (s *server) applyState(ctx context.Context, r *applyRequest) (*applyResponse, error) {
	s.apply.Lock()
	defer s.apply.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, connect.NewError(connect.CodeCanceled, fmt.Errorf("nobody waits for this configuration any more: %w", err))
	}
	if r.Run == s.run && r.Number < s.number {
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("configuration number %d of this agent came after number %d, which is newer: the agent sends the newest again", r.Number, s.number))
	}
	state, err := r.state(s.plane.State())
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	s.run, s.number = r.Run, r.Number
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(max(r.Timeout, 0), maxApply))
	defer cancel()
	return &applyResponse{Instance: s.hello.Instance, Failed: failure(s.plane.Apply(ctx, state))}, nil
}

func failure(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
