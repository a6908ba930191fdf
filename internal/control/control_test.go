package control

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var env = array.Env{Now: func() time.Time { return time.Unix(1.8e9, 0) }, Random: rand.Reader}

// plane is a data plane that notes what it is asked for.
type plane struct {
	mu       sync.Mutex
	state    *array.State
	applied  int
	applyErr error
	status   agent.Status
	sessions []agent.Session
	stats    agent.Stats
	reopened []string
}

var _ Plane = (*plane)(nil)

func (p *plane) State() *array.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

func (p *plane) Ready(context.Context) error { return nil }

func (p *plane) Apply(ctx context.Context, s *array.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	p.applied++
	return errors.Join(p.applyErr, ctx.Err())
}

func (p *plane) CheckPortal(_ context.Context, at netip.AddrPort) error {
	if at.Port() == 1 {
		return errors.New("address already in use")
	}
	return nil
}

func (p *plane) Status(_ context.Context, volumes ...string) (*agent.Status, error) {
	s := p.status
	s.Volumes = map[string]agent.VolumeStatus{}
	for _, id := range volumes {
		s.Volumes[id] = p.status.Volumes[id]
	}
	return &s, nil
}

func (p *plane) Reopen(ctx context.Context, id string) error {
	deadline, ok := ctx.Deadline()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reopened = append(p.reopened, id)
	if !ok || time.Until(deadline) > maxReopen {
		return errors.New("no bound")
	}
	return p.applyErr
}

func (p *plane) Sessions(context.Context) ([]agent.Session, error) { return p.sessions, nil }

func (p *plane) DropSession(_ context.Context, id string) (bool, error) { return id == "1", nil }

func (p *plane) Stats(context.Context) (*agent.Stats, error) { return &p.stats, nil }

// listen answers on a socket until the function it returns is called.
func listen(t *testing.T, path string, handler http.Handler) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		_ = server.Serve(l)
		close(done)
	}()
	stop = sync.OnceFunc(func() {
		server.Close()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

func newClient(path string) *Client {
	return NewClient("unix:"+path, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
}

func newState(t testing.TB) *array.State {
	t.Helper()
	s, err := array.New(env, "san", "head-a", "default")
	for _, name := range []string{"db1", "db2"} {
		if err == nil {
			s, _, _, err = s.CreateVolume(env, "", array.Volume{Name: name, Kind: array.VolumeNull, Size: array.GiB})
		}
	}
	if err == nil {
		s, _, _, err = s.AddPortal(env, array.Portal{Protocol: array.ISCSI, Address: netip.MustParseAddr("127.0.0.1"), Port: 3260})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill gives every field of a value something that is not zero.
func fill(v reflect.Value) {
	switch at, ok := v.Addr().Interface().(*netip.AddrPort); {
	case ok:
		*at = netip.MustParseAddrPort("[2001:db8::1]:3260")
		return
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1.8e9, 5).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	default:
		v.Set(reflect.ValueOf(7).Convert(v.Type()))
	}
}

// Everything that the interface carries arrives.
func TestEverythingArrives(t *testing.T) {
	p := &plane{}
	fill(reflect.ValueOf(&p.sessions).Elem())
	fill(reflect.ValueOf(&p.stats).Elem())
	fill(reflect.ValueOf(&p.status).Elem())
	path := filepath.Join(t.TempDir(), "s")
	listen(t, path, NewHandler(p, "1.2.3"))
	c, ctx := newClient(path), t.Context()
	if h, err := c.Hello(ctx); err != nil || h.Program != "1.2.3" || h.Array != "" {
		t.Errorf("hello %+v, %v", h, err)
	}
	s := newState(t)
	if err := c.Apply(ctx, s); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Document, p.state.Document, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(s.Pools, p.state.Pools); diff != "" {
		t.Error(diff)
	}
	if h, err := c.Hello(ctx); err != nil || h.Array != s.Document.ID || !c.has(h.Instance) {
		t.Errorf("hello %+v, %v", h, err)
	}
	addresses := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	status, err := c.Status(ctx, "text")
	if diff := cmp.Diff(&p.status, status, addresses); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if status, err := c.Status(ctx); err != nil || len(status.Volumes) != 0 {
		t.Errorf("nobody asked for volumes: %v, %v", status, err)
	}
	sessions, err := c.Sessions(ctx)
	if diff := cmp.Diff(p.sessions, sessions, addresses); diff != "" || err != nil {
		t.Error(diff, err)
	}
	stats, err := c.Stats(ctx)
	if diff := cmp.Diff(&p.stats, stats, addresses); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for id, want := range map[string]bool{"1": true, "2": false} {
		if dropped, err := c.DropSession(ctx, id); dropped != want || err != nil {
			t.Errorf("drop %s: %v, %v", id, dropped, err)
		}
	}
	if err := errors.Join(c.Ready(ctx), c.CheckPortal(ctx, netip.MustParseAddrPort("127.0.0.1:2"))); err != nil {
		t.Error(err)
	}
	if err := c.CheckPortal(ctx, netip.MustParseAddrPort("127.0.0.1:1")); err == nil || errors.Is(err, agent.ErrNoAnswer) || err.Error() != "address already in use" {
		t.Errorf("got %v", err)
	}
	bounded, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	if err := errors.Join(c.Reopen(ctx, "v1"), c.Reopen(bounded, "v2")); err != nil || !slices.Equal(p.reopened, []string{"v1", "v2"}) {
		t.Errorf("reopen: %v, %v", p.reopened, err)
	}
	p.applyErr = errors.New("half of it")
	if err := c.Reopen(ctx, "v1"); err == nil || errors.Is(err, agent.ErrNoAnswer) || err.Error() != "half of it" {
		t.Errorf("got %v", err)
	}
	if err := c.Apply(ctx, s); err == nil || errors.Is(err, agent.ErrNoAnswer) || err.Error() != "half of it" {
		t.Errorf("got %v", err)
	}
}

// What did not change is the same object in the data plane, so that initiators are told of
// nothing that has not happened.
func TestWhatIsEqualStays(t *testing.T) {
	p := &plane{}
	path := filepath.Join(t.TempDir(), "s")
	listen(t, path, NewHandler(p, ""))
	c := newClient(path)
	apply := func(s *array.State) (before, after *array.State) {
		t.Helper()
		before = p.State()
		if err := c.Apply(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		return before, p.State()
	}
	s := newState(t)
	apply(s)
	if before, after := apply(s); before.Document != after.Document || before.Pools[0] != after.Pools[0] {
		t.Error("the same state is another one")
	}
	grown, _, _, err := s.ResizeVolume("db1", "", 2*array.GiB, false)
	if err != nil {
		t.Fatal(err)
	}
	before, after := apply(grown)
	volume := func(s *array.State, name string) *array.Volume {
		v, _, err := s.Volume(name)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if before.Document != after.Document || volume(before, "db2") != volume(after, "db2") || volume(after, "db1").Size != 2*array.GiB {
		t.Error("more has changed than a volume")
	}
	named, _, _, err := grown.CreateHost(env, array.Host{Name: "esx1"})
	if err != nil {
		t.Fatal(err)
	}
	if before, after := apply(named); before.Document == after.Document || before.Document.Portals[0] != after.Document.Portals[0] || before.Pools[0] != after.Pools[0] {
		t.Error("more has changed than the hosts")
	}
}

func TestRefusals(t *testing.T) {
	p := &plane{}
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	c, ctx := newClient(path), t.Context()
	refused := func(what string, err error, want string) {
		t.Helper()
		if !errors.Is(err, agent.ErrNoAnswer) || array.KindOf(err) != array.KindUnavailable || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	refused("nobody there", c.Ready(ctx), "the target does not answer: unix:"+path)
	stop := listen(t, path, NewHandler(p, ""))
	s := newState(t)
	next, _, _, err := s.CreateHost(env, array.Host{Name: "esx1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(ctx, next); err != nil {
		t.Fatal(err)
	}
	refused("an older configuration", c.Apply(ctx, s), "newer than")
	grown, _, _, err := next.ResizeVolume("db1", "", 2*array.GiB, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(ctx, grown); err != nil {
		t.Fatal(err)
	}
	refused("an older pool", c.Apply(ctx, next), "version 4 of pool default, which is newer than 3")
	refused("another array", c.Apply(ctx, newState(t)), "serves array san")
	future := *next.Document
	future.Format++
	b, err := future.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, err = call[applyRequest, applyResponse](ctx, c, applyCall, &applyRequest{Array: b})
	refused("a newer format", err, array.ErrNewer.Error())
	_, err = call[applyRequest, applyResponse](ctx, c, applyCall, &applyRequest{Array: []byte("17"), Pools: nil})
	refused("not a document", err, "refuses")
	_, err = call[none, none](ctx, c, versioned+"Explode", &none{})
	refused("an unknown call", err, "does not speak version 1")
	if p.applied != 2 {
		t.Errorf("applied %d times", p.applied)
	}
	stop()
	mux := http.NewServeMux()
	handle(mux, helloCall, func(context.Context, *none) (*Hello, error) { return &Hello{Version: 2, Program: "9.9"}, nil })
	handle(mux, statsCall, func(context.Context, *none) (*agent.Stats, error) { panic(http.ErrAbortHandler) })
	listen(t, filepath.Join(dir, "t"), mux)
	other := newClient(filepath.Join(dir, "t"))
	refused("another version", other.Ready(ctx), "lintel 9.9) speaks version 2")
	_, err = other.Stats(ctx)
	refused("a connection that breaks", err, "the target does not answer")
}

// A configuration that was overtaken, or that nobody waits for when its turn comes, is not applied.
func TestLateApply(t *testing.T) {
	p := &plane{}
	s := &server{plane: p, hello: Hello{Instance: "i"}}
	state := newState(t)
	apply := func(ctx context.Context, run string, number uint64) error {
		r, err := newApplyRequest(state, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		r.Run, r.Number = run, number
		_, err = s.applyState(ctx, r)
		return err
	}
	if err := apply(t.Context(), "a", 2); err != nil {
		t.Fatal(err)
	}
	if err := apply(t.Context(), "a", 1); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "number 1 of this agent came after number 2") {
		t.Errorf("overtaken: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	s.apply.Lock()
	done := make(chan error)
	go func() { done <- apply(gone, "a", 3) }()
	cancel()
	s.apply.Unlock()
	if err := <-done; connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("given up: %v", err)
	}
	if p.applied != 1 {
		t.Errorf("applied %d times", p.applied)
	}
	if err := apply(t.Context(), "b", 1); err != nil || p.applied != 2 {
		t.Errorf("another agent: %v, applied %d times", err, p.applied)
	}
}

// The requests of a client are numbered.
func TestApplyIsNumbered(t *testing.T) {
	var runs []string
	var numbers []uint64
	mux := http.NewServeMux()
	handle(mux, applyCall, func(_ context.Context, r *applyRequest) (*applyResponse, error) {
		runs, numbers = append(runs, r.Run), append(numbers, r.Number)
		return &applyResponse{}, nil
	})
	path := filepath.Join(t.TempDir(), "s")
	listen(t, path, mux)
	state := newState(t)
	one, other := newClient(path), newClient(path)
	for _, c := range []*Client{one, one, other} {
		if err := c.Apply(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
	if runs[0] != runs[1] || runs[1] == runs[2] || runs[0] == "" || !slices.Equal(numbers, []uint64{1, 2, 1}) {
		t.Errorf("runs %q, numbers %v", runs, numbers)
	}
}

// Follow applies the state again whenever the data plane was started anew, and else leaves it alone.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c, s := newClient(path), newState(t)
	ctx, cancel := context.WithCancel(t.Context())
	applied := make(chan error)
	var done sync.WaitGroup
	done.Go(func() {
		c.Follow(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) {
			applied <- c.Apply(ctx, s)
		})
	})
	for range 3 {
		p := &plane{}
		stop := listen(t, path, NewHandler(p, ""))
		if err := <-applied; err != nil {
			t.Fatal(err)
		}
		if p.State() == nil {
			t.Error("nothing was applied")
		}
		stop()
	}
	cancel()
	done.Wait()
}

func FuzzApply(f *testing.F) {
	s := newState(f)
	r, err := newApplyRequest(s, time.Second)
	if err != nil {
		f.Fatal(err)
	}
	b, err := codec{}.Marshal(r)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"Array":{"format":1},"Pools":[null]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r applyRequest
		if (codec{}).Unmarshal(b, &r) != nil {
			return
		}
		for _, before := range []*array.State{nil, s} {
			if got, err := r.state(before); err == nil && got.Validate() != nil {
				t.Errorf("an invalid state was accepted: %v", got.Validate())
			}
		}
	})
}
