package serve

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// output is what Run prints; line waits for a part of it.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start runs an array until the test, or what start returns, ends it.
func start(t *testing.T, config Config) (out *output, stop func() error) {
	t.Helper()
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	out = &output{}
	done := make(chan error, 1)
	go func() { done <- Run(ctx, config, out, io.Discard) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	for !strings.Contains(out.String(), "Manage:") {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("the array ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return out, stop
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestRunEndsInGoodOrder(t *testing.T) {
	dir := t.TempDir()
	manager := filepath.Join(dir, "n")
	notified, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: manager, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notified.Close()
	message := func() string {
		b := make([]byte, 1000)
		n, err := notified.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}

	config := Config{Common: Common{DataDir: filepath.Join(dir, "data"), NotifySocket: manager}, Portals: []string{free(t)}, Listen: Listen{MetricsListen: "127.0.0.1:0"}, Demo: true}
	out, stop := start(t, config)
	if got := message(); !strings.HasPrefix(got, "READY=1\n") {
		t.Errorf("the service manager was told %q", got)
	}
	var metrics string
	for line := range strings.Lines(out.String()) {
		if _, url, ok := strings.Cut(line, "metrics  "); ok {
			metrics = strings.TrimSpace(url)
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(metrics)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || !strings.Contains(string(body), `lintel_volume_size_bytes{pool="default",volume="demo"} 1.073741824e+09`) {
		t.Errorf("the metrics lack the demo volume (%v):\n%s", err, body)
	}
	if err := stop(); err != nil {
		t.Errorf("the array ended with %v", err)
	}
	if got := message(); got != "STOPPING=1" {
		t.Errorf("the service manager was told %q", got)
	}
	// The directory and the portal are free again.
	_, stop = start(t, config)
	if err := stop(); err != nil {
		t.Errorf("the second time the array ended with %v", err)
	}
}

func TestRunReleasesWhatItTook(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	config := Config{Common: Common{DataDir: t.TempDir()}, Portals: []string{taken.Addr().String()}}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	err = Run(context.Background(), config, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "--portal") {
		t.Fatalf("on a portal that is taken: %v, want what to do about it", err)
	}
	lock, err := LockDir(config.DataDir, ManagerRole)
	if err != nil {
		t.Fatalf("the directory is still locked: %v", err)
	}
	lock.Release()
}

// A first start that fails leaves no portal behind, and the next one gets the default.
func TestFailedStartAddsNoPortal(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	config := Config{Common: Common{DataDir: t.TempDir()}, Portals: []string{free(t), taken.Addr().String()}}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := Run(context.Background(), config, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "--portal") {
		t.Fatalf("on a portal that is taken: %v", err)
	}
	other := free(t)
	config.Portals = []string{other}
	out, stop := start(t, config)
	if text := out.String(); strings.Count(text, "portal   ") != 1 || !strings.Contains(text, other) {
		t.Errorf("the next start listens elsewhere too:\n%s", text)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	// An address that is another protocol's is not silently that.
	config.Portals, config.NVMePortals = nil, []string{other}
	if err := config.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := Run(ctx, config, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "exists already, for iscsi") {
		t.Errorf("a portal of the other protocol: %v", err)
	}
}

func TestDemoLeavesWhatExists(t *testing.T) {
	config := Config{Common: Common{DataDir: t.TempDir()}, Portals: []string{free(t)}, Demo: true}
	ctx := context.Background()
	clients := func() (lintelv1connect.VolumeServiceClient, lintelv1connect.MappingServiceClient, func()) {
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return DialUnix(ctx, SocketPath(config.DataDir))
		}}
		client := &http.Client{Transport: transport}
		return lintelv1connect.NewVolumeServiceClient(client, "http://lintel"), lintelv1connect.NewMappingServiceClient(client, "http://lintel"), transport.CloseIdleConnections
	}
	_, stop := start(t, config)
	volumes, _, closeIdle := clients()
	if _, err := volumes.ResizeVolume(ctx, connect.NewRequest(&lintelv1.ResizeVolumeRequest{Name: demoVolume, SizeBytes: 2 << 30})); err != nil {
		t.Fatal(err)
	}
	closeIdle()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	_, stop = start(t, config)
	volumes, mappings, closeIdle := clients()
	got, err := volumes.GetVolume(ctx, connect.NewRequest(&lintelv1.GetVolumeRequest{Name: demoVolume}))
	if err != nil || got.Msg.GetVolume().GetSpec().GetSizeBytes() != 2<<30 {
		t.Errorf("after a restart the demo volume is %v (%v)", got, err)
	}
	list, err := mappings.ListMappings(ctx, connect.NewRequest(&lintelv1.ListMappingsRequest{}))
	if err != nil || len(list.Msg.GetMappings()) != 1 {
		t.Errorf("after a restart the mappings are %v (%v)", list, err)
	}
	closeIdle()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestBanner(t *testing.T) {
	var b bytes.Buffer
	running{
		name: "lab", iqn: "iqn.2026-11.io.lintel:lab", version: "1.0", dataDir: "/srv/my array",
		endpoints: endpoints{api: []string{"unix:/srv/my array/lintel.sock"}, metrics: "127.0.0.1:9150"},
		iscsi:     portals{listening: []string{"[::]:3260"}, broken: []string{"192.0.2.1:3260 (not listening: no such address)"}},
		nqn:       "nqn.2026-11.io.lintel:lab", nvme: portals{listening: []string{"0.0.0.0:4420"}}, discovery: portals{listening: []string{"127.0.0.1:8009"}},
	}.print(&b)
	const want = `lintel 1.0 serves array lab

  target   iqn.2026-11.io.lintel:lab
  portal   [::]:3260
  portal   192.0.2.1:3260 (not listening: no such address)
  nqn      nqn.2026-11.io.lintel:lab
  nvme     0.0.0.0:4420
  discover 127.0.0.1:8009
  api      unix:/srv/my array/lintel.sock
  metrics  http://127.0.0.1:9150/metrics
  data     /srv/my array

Connect:
  iscsi-ls -s iscsi://[::1]:3260
  sudo iscsiadm -m discovery -t sendtargets -p [::1]:3260 && sudo iscsiadm -m node -T iqn.2026-11.io.lintel:lab -p [::1]:3260 --login
  sudo nvme connect-all -t tcp -a 127.0.0.1 -s 4420

Manage:
  lintel --data-dir '/srv/my array' volume create db1 --size 10GiB
  lintel --data-dir '/srv/my array' host create esx1 --iqn iqn.1998-01.com.vmware:esx1
  lintel --data-dir '/srv/my array' map db1 esx1

`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestInProcessTransport(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Method", r.Method)
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(append([]byte("got "), body...))
	})
	res, err := inProcess{handler}.RoundTrip(httptest.NewRequest(http.MethodPost, "http://x/", strings.NewReader("tea")))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || string(body) != "got tea" || res.StatusCode != http.StatusTeapot || res.Header.Get("X-Method") != http.MethodPost {
		t.Errorf("got %d %v %q (%v)", res.StatusCode, res.Header, body, err)
	}
}
