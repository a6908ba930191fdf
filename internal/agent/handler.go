package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/array"
)

// maxRequest is the longest request in bytes.
const maxRequest = 4 << 20

// Handler returns the API, for a unix socket that only the administrator can open, and
// for TCP on a loopback address. It knows no users: whoever reaches it may do
// everything, so it has to be kept from any other address. Requests over TCP
// have to name a loopback host, and browsers may not send them from other
// sites.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	opts := []connect.HandlerOption{
		connect.WithInterceptors(connect.UnaryInterceptorFunc(a.intercept)),
		connect.WithReadMaxBytes(maxRequest),
	}
	mux.Handle(lintelv1connect.NewPoolServiceHandler(poolService{a}, opts...))
	mux.Handle(lintelv1connect.NewVolumeServiceHandler(volumeService{a}, opts...))
	mux.Handle(lintelv1connect.NewHostServiceHandler(hostService{a}, opts...))
	mux.Handle(lintelv1connect.NewHostGroupServiceHandler(hostGroupService{a}, opts...))
	mux.Handle(lintelv1connect.NewMappingServiceHandler(mappingService{a}, opts...))
	mux.Handle(lintelv1connect.NewTargetServiceHandler(targetService{a}, opts...))
	mux.Handle(lintelv1connect.NewSessionServiceHandler(sessionService{a}, opts...))
	mux.Handle(lintelv1connect.NewStatsServiceHandler(statsService{a}, opts...))
	mux.Handle(lintelv1connect.NewSystemServiceHandler(systemService{a}, opts...))
	return http.NewCrossOriginProtection().Handler(localOnly(mux))
}

// localOnly refuses TCP requests that name a host which is not loopback: a name that
// somebody has made to resolve to this machine.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && at.Network() == "tcp" && !loopbackHost(r.Host) {
			http.Error(w, "the API answers to localhost, 127.0.0.1 and [::1] only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

type peerKey struct{}

// ConnContext notes who is at the other end of a unix socket, for the audit log. It is
// meant for http.Server.ConnContext.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) // nil where it fails
	}); err != nil || cred == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, fmt.Sprintf("unix:uid=%d,pid=%d", cred.Uid, cred.Pid))
}

// intercept gives errors their codes, and logs what changes something.
func (a *Agent) intercept(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		resp, err := next(ctx, req)
		if err != nil {
			err = a.coded(req.Spec().Procedure, err)
		}
		if req.Spec().IdempotencyLevel != connect.IdempotencyNoSideEffects {
			a.record(ctx, req, resp, err)
		}
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// codes has the API's code of each kind of error.
var codes = map[array.Kind]connect.Code{
	array.KindInternal:    connect.CodeInternal,
	array.KindInvalid:     connect.CodeInvalidArgument,
	array.KindNotFound:    connect.CodeNotFound,
	array.KindExists:      connect.CodeAlreadyExists,
	array.KindBusy:        connect.CodeFailedPrecondition,
	array.KindConflict:    connect.CodeAborted,
	array.KindUnavailable: connect.CodeUnavailable,
}

func (a *Agent) coded(procedure string, err error) error {
	var known *connect.Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	kind := array.KindOf(err)
	if kind == array.KindInternal || kind == array.KindUnavailable {
		a.log.Error("request failed", "procedure", procedure, "error", err)
	}
	return connect.NewError(codes[kind], err)
}

// record writes the audit log.
func (a *Agent) record(ctx context.Context, req connect.AnyRequest, resp connect.AnyResponse, err error) {
	r := auditRecord{Method: req.Spec().Procedure, Code: "ok", Peer: cmp.Or(req.Peer().Addr, "internal")}
	if peer, ok := ctx.Value(peerKey{}).(string); ok {
		r.Peer = peer
	}
	if m, ok := req.Any().(proto.Message); ok {
		m = proto.Clone(m)
		redact(m.ProtoReflect())
		r.Request, _ = protojson.Marshal(m) // nil where it fails: the rest is worth a line
	}
	if d, ok := req.Any().(interface{ GetDryRun() bool }); ok {
		r.DryRun = d.GetDryRun()
	}
	if err != nil {
		r.Code, r.Error = connect.CodeOf(err).String(), err.Error()
	} else if p, ok := resp.Any().(interface{ GetPlan() *lintelv1.Plan }); ok {
		r.Plan = p.GetPlan().GetSteps()
	}
	if err := a.audit.add(r); err != nil {
		a.log.Error("the audit log could not be written", "error", err)
	}
	a.log.Info("change", "method", r.Method, "peer", r.Peer, "dry_run", r.DryRun, "code", r.Code, "plan", r.Plan)
}

// redact hides the fields of a message that its definition marks as secrets
// (debug_redact).
func redact(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case secretField(f):
			m.Set(f, protoreflect.ValueOfString("***"))
		case f.Kind() == protoreflect.MessageKind && !f.IsList() && !f.IsMap():
			redact(v.Message())
		}
		return true
	})
}

func secretField(f protoreflect.FieldDescriptor) bool {
	options, ok := f.Options().(*descriptorpb.FieldOptions)
	return ok && options.GetDebugRedact()
}
