package serve

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/pool"
)

// manager is a service manager that waits for what a role tells it.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T, name string) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &manager{t, conn, path}
}

func (m *manager) told(want string) {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 1000)
	n, err := m.conn.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), want) {
		m.t.Fatalf("the service manager was told %q (%v), want %q", b[:n], err, want)
	}
}

// runs starts a role and returns what ends it.
func runs(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	}
}

func TestRolesEndInGoodOrder(t *testing.T) {
	dir := t.TempDir()
	targetManager, agentManager := newManager(t, "t"), newManager(t, "a")
	target := TargetConfig{Common: Common{DataDir: dir, NotifySocket: targetManager.path}}
	management := AgentConfig{Common: Common{DataDir: dir, NotifySocket: agentManager.path}, Listen: Listen{MetricsListen: "127.0.0.1:0"}}
	for _, validate := range []func() error{target.Validate, management.Validate} {
		if err := validate(); err != nil {
			t.Fatal(err)
		}
	}
	out := &output{}
	startTarget := func() (stop func()) {
		stop = runs(t, func(ctx context.Context) error { return RunTarget(ctx, target, out, io.Discard) })
		targetManager.told("READY=1\n")
		return stop
	}
	stopTarget := startTarget()
	stopAgent := runs(t, func(ctx context.Context) error { return RunAgent(ctx, management, io.Discard, io.Discard) })
	agentManager.told("READY=1\nSTATUS=managing lintel")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return DialUnix(ctx, SocketPath(dir)) }}
	volumes := lintelv1connect.NewVolumeServiceClient(&http.Client{Transport: transport}, "http://lintel")
	create := &lintelv1.CreateVolumeRequest{Spec: &lintelv1.VolumeSpec{Name: "db1", SizeBytes: 1 << 20}}
	if _, err := volumes.CreateVolume(t.Context(), connect.NewRequest(create)); err != nil {
		t.Fatal(err)
	}
	transport.CloseIdleConnections()
	stopAgent()
	agentManager.told("STOPPING=1")
	stopTarget()
	targetManager.told("STOPPING=1")

	// Started again, the target serves what is in the directory before it says that it is ready.
	stopTarget = startTarget()
	if !strings.Contains(out.String(), "is the target of array lintel") {
		t.Errorf("it printed\n%s", out)
	}
	stopTarget()
	targetManager.told("STOPPING=1")
	if r, err := pool.Check(dir); err != nil || len(r.Problems) != 0 || r.Volumes != 1 {
		t.Errorf("check: %+v, %v", r, err)
	}
}
