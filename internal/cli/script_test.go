package cli

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/serve"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"lintel": func() { os.Exit(Main(context.Background(), os.Args[1:], System())) },
	})
}

// TestScripts runs the transcripts: lintel as users call it, against a real
// agent. With UPDATE_SCRIPTS=1 the expected outputs are rewritten: look at what
// changed before committing it.
func TestScripts(t *testing.T) {
	update, err := strconv.ParseBool(os.Getenv("UPDATE_SCRIPTS"))
	params := testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       err == nil && update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("LINTEL_DATA_DIR", env.WorkDir+"/array")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": exitsWith, "array": startArray, "scrub": scrub, "freeport": freePort, "ready": ready,
		},
	}
	if len(scripts) > 0 {
		params.Dir, params.Files = "", scripts
	}
	testscript.Run(t, params)
}

// exitsWith is "code N COMMAND...": it runs a command and checks its exit code.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit interface{ ExitCode() int }
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}

// scrubs are what differs from run to run, and what to write for it.
var scrubs = []struct {
	pattern *regexp.Regexp
	to      string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\b6024c4e[0-9a-f]{25}\b`), "NAA"},
	{regexp.MustCompile(`\b([ap])[0-9a-f]{12}\b`), "${1}ID"},
	{regexp.MustCompile(`\.[0-9a-f]{12}\b`), ".ID"},
	{regexp.MustCompile(`("pid": |process +)\d+`), "${1}PID"},
	{regexp.MustCompile(`/\S*/script-\w+/`), "WORK/"},
}

// scrub is "scrub FROM TO": it copies a file without what differs from run to run.
func scrub(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: scrub FROM TO")
	}
	text := ts.ReadFile(args[0])
	for _, s := range scrubs {
		text = s.pattern.ReplaceAllString(text, s.to)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

// startArray is "array": it starts an agent on $WORK/array with a data plane
// that serves nothing. It runs until the script ends.
func startArray(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: array")
	}
	dir := ts.MkAbs("array")
	manager, err := agent.Open(agent.Options{DataDir: dir, Version: "1.2.3"})
	ts.Check(err)
	ts.Check(manager.Start(context.Background(), &fakePlane{}))
	listener, err := net.Listen("unix", serve.SocketPath(dir))
	ts.Check(err)
	server := &http.Server{Handler: manager.Handler(), ConnContext: agent.ConnContext, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	ts.Defer(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			ts.Logf("the API ended: %v", err)
		}
		if err := manager.Close(); err != nil {
			ts.Logf("the agent ended: %v", err)
		}
	})
}

// freePort is "freeport VAR...": it sets each variable to a TCP port that is free.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: freeport VAR...")
	}
	for _, name := range args {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer listener.Close()
		_, port, err := net.SplitHostPort(listener.Addr().String())
		ts.Check(err)
		ts.Setenv(name, port)
	}
}

// ready is "ready DIR|SOCKET": it waits until an array serves the directory, or somebody the socket.
func ready(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready DIR|SOCKET")
	}
	for range 1000 {
		path := ts.MkAbs(args[0])
		if filepath.Ext(path) != ".sock" {
			path = serve.SocketPath(path)
		}
		conn, err := serve.DialUnix(context.Background(), path)
		if err == nil {
			conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("no array serves %s", args[0])
}

// fakePlane is a data plane without data. Every portal listens, every volume
// works but the ones named broken..., and each host with a mapping has a session.
type fakePlane struct {
	mu      sync.Mutex
	state   *array.State
	dropped string // id of a session
}

var _ agent.DataPlane = (*fakePlane)(nil)

func (p *fakePlane) now() *array.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

func (p *fakePlane) Apply(_ context.Context, s *array.State) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	return nil
}

func (p *fakePlane) CheckPortal(_ context.Context, at netip.AddrPort) error {
	if at.Addr().IsLoopback() || at.Addr().IsUnspecified() {
		return nil
	}
	return errors.New("cannot assign requested address")
}

func (p *fakePlane) Ready(context.Context) error { return nil }

func (p *fakePlane) Status(context.Context, ...string) (*agent.Status, error) {
	status := &agent.Status{Volumes: map[string]agent.VolumeStatus{}, Portals: map[string]agent.PortalStatus{}}
	for _, pool := range p.now().Pools {
		for _, v := range pool.Volumes {
			status.Volumes[v.ID] = p.volume(v)
		}
	}
	for _, portal := range p.now().Document.Portals {
		status.Portals[portal.ID] = agent.PortalStatus{Listening: portal.AddrPort()}
	}
	return status, nil
}

func (p *fakePlane) volume(v *array.Volume) agent.VolumeStatus {
	if v.Name == "broken" {
		return agent.VolumeStatus{Reason: "the backing file is missing"}
	}
	status := agent.VolumeStatus{Online: true, UsedBytes: 3 << 19}
	for _, s := range p.sessions() {
		for _, lun := range p.now().LUNs(s.HostID) {
			if lun.Volume.ID == v.ID {
				status.Sessions++
			}
		}
	}
	return status
}

func (p *fakePlane) Reopen(_ context.Context, id string) error {
	if v, _ := p.now().VolumeByID(id); v.Name == "broken" {
		return errors.New("the backing file is missing")
	}
	return nil
}

func (p *fakePlane) Sessions(context.Context) ([]agent.Session, error) { return p.sessions(), nil }

func (p *fakePlane) sessions() []agent.Session {
	p.mu.Lock()
	dropped := p.dropped
	p.mu.Unlock()
	var list []agent.Session
	for i, host := range p.now().Document.Hosts {
		id := strconv.Itoa(i + 1)
		if n := len(p.now().Namespaces(host.ID)); n > 0 && len(host.NQNs) > 0 {
			list = append(list, nvmeSession("n"+id, host, n))
		}
		if luns := len(p.now().LUNs(host.ID)); luns > 0 && len(host.Initiators) > 0 && id != dropped {
			list = append(list, agent.Session{
				ID: id, Protocol: array.ISCSI, Initiator: host.Initiators[0], HostID: host.ID, TSIH: uint16(i + 1), PortalTag: 1, LUNs: luns,
				Since: time.Date(2026, 11, 22, 8, 0, i, 0, time.UTC), Commands: 1000, ReadBytes: 4096000, WriteBytes: 512,
				Connections: []agent.Connection{{
					Remote: netip.MustParseAddrPort("192.0.2.7:50000"), Local: netip.MustParseAddrPort("192.0.2.1:3260"), HeaderDigest: true,
				}},
			})
		}
	}
	return list
}

// nvmeSession is a controller with an admin queue and an I/O queue.
func nvmeSession(id string, host *array.Host, namespaces int) agent.Session {
	s := agent.Session{
		ID: id, Protocol: array.NVMeTCP, Initiator: host.NQNs[0], HostID: host.ID, PortalTag: 2, LUNs: namespaces,
		Since: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), Authenticated: host.DHCHAPKey != "",
		Commands: 2000, ReadBytes: 8192000, WriteBytes: 1024, ControllerID: 7, HostIdentifier: [16]byte{0xab, 15: 0xcd},
	}
	for q, depth := range []uint16{32, 128} {
		s.Connections = append(s.Connections, agent.Connection{
			Remote: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.8"), 50000+uint16(q)), Local: netip.MustParseAddrPort("192.0.2.1:4420"),
			QueueID: uint16(q), QueueDepth: depth,
		})
	}
	return s
}

func (p *fakePlane) DropSession(_ context.Context, id string) (bool, error) {
	for _, s := range p.sessions() {
		if s.ID == id {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.dropped = id
			return true, nil
		}
	}
	return false, nil
}

func (p *fakePlane) Stats(context.Context) (*agent.Stats, error) {
	one := agent.IOStats{
		ReadOps: 1000, WriteOps: 10, OtherOps: 5, ReadBytes: 4096000, WriteBytes: 40960, Errors: 1,
		ReadTime: 50 * time.Millisecond, WriteTime: time.Millisecond, InFlight: 2,
	}
	s := &agent.Stats{Volumes: map[string]agent.IOStats{}, Total: one, Sessions: len(p.sessions()), Process: agent.ThisProcess()}
	for _, pool := range p.now().Pools {
		for _, v := range pool.Volumes {
			s.Volumes[v.ID] = one
		}
	}
	return s, nil
}
