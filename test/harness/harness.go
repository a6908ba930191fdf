// Package harness starts a real lintel process for the end-to-end and
// conformance tests and speaks to it as an administrator would: through its
// command line.
package harness

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// deadline bounds every wait of the harness.
const deadline = 60 * time.Second

var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lintel-bin-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "lintel")
	cmd := exec.Command("go", "build", "-o", out, "lintel.io/lintel/cmd/lintel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building lintel: %w\n%s", err, msg)
	}
	return out, nil
})

// Main runs the tests of a package and removes the binary that they built.
func Main(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// Need skips the test where a program is missing and says which package of
// Debian brings it.
func Need(t testing.TB, program, debianPackage string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is missing: install Debian's package %s (make deps)", program, debianPackage)
	}
}

// Array is a running `lintel serve`.
type Array struct {
	Bin     string
	Dir     string   // the data directory
	Portals []string // address:port

	*Process // nil for an array in two processes

	t      testing.TB
	args   []string
	before []string // command that runs lintel, with its arguments
	server string   // address of the API where the socket is out of reach
}

// Serve starts an array with the given number of portals on free loopback
// ports and stops it when the test ends. The data directory is new.
func Serve(t testing.TB, portals int, args ...string) *Array {
	t.Helper()
	a := newArray(t, portals, args)
	a.run()
	return a
}

// ServeIn starts an array with its data on a file system of its own, of the given
// size in bytes, which only the process sees.
func ServeIn(t testing.TB, size int64, portals int) *Array {
	t.Helper()
	Need(t, "unshare", "util-linux")
	a := newArray(t, portals, nil)
	flags := "-m"
	if os.Getuid() != 0 {
		flags = "-Urm"
	}
	mount := filepath.Dir(a.Dir)
	a.before = []string{"unshare", flags, "--", "sh", "-c", `mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"`, "sh", fmt.Sprint(size), mount}
	if out, err := exec.Command("unshare", flags, "--", "mount", "-t", "tmpfs", "tmpfs", mount).CombinedOutput(); err != nil {
		t.Skipf("no mount namespace for a file system of its own: run as root or allow user namespaces: %s", out)
	}
	api := freePort(t)
	a.args = []string{"--api-listen", api}
	a.server = "http://" + api
	a.run()
	return a
}

func newArray(t testing.TB, portals int, args []string) *Array {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	a := &Array{Bin: bin, Dir: filepath.Join(t.TempDir(), "data"), t: t, args: args}
	for range portals {
		a.Portals = append(a.Portals, freePort(t))
	}
	return a
}

// run starts the array and ends it with the test.
func (a *Array) run() {
	a.t.Helper()
	args := append(slices.Clone(a.before), a.Bin, "serve", "--data-dir", a.Dir)
	for _, p := range a.Portals {
		args = append(args, "--portal", p)
	}
	a.Process = newProcess(a.t, "lintel serve", append(args, a.args...), func() bool { return a.listens() && a.manages() })
	a.Start()
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// listens reports whether every portal takes connections.
func (a *Array) listens() bool {
	for _, p := range a.Portals {
		c, err := net.DialTimeout("tcp", p, time.Second)
		if err != nil {
			return false
		}
		c.Close()
	}
	return true
}

// manages reports whether the API answers.
func (a *Array) manages() bool {
	_, err := a.Try("volume", "list")
	return err == nil
}

// Run runs a lintel command against the array and returns its output; it fails
// the test where the command fails.
func (a *Array) Run(args ...string) string {
	a.t.Helper()
	out, err := a.Try(args...)
	if err != nil {
		a.t.Fatalf("lintel %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// Try runs a lintel command against the array.
func (a *Array) Try(args ...string) (string, error) {
	where := []string{"--data-dir", a.Dir}
	if a.server != "" {
		where = []string{"--server", a.server}
	}
	return Command(a.Bin, append(where, args...)...)
}

// URL returns the libiscsi URL of a LUN through one of the portals.
func (a *Array) URL(portal, lun int) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", a.Portals[portal], a.IQN(), lun)
}

// IQN returns the target's name as discovery reports it.
func (a *Array) IQN() string {
	a.t.Helper()
	out, err := Command("iscsi-ls", "iscsi://"+a.Portals[0])
	if err != nil {
		a.t.Fatal(err)
	}
	for f := range strings.FieldsSeq(out) {
		if name, ok := strings.CutPrefix(f, "Target:"); ok {
			return name
		}
	}
	a.t.Fatalf("iscsi-ls shows no target:\n%s", out)
	return ""
}

// Command runs a program with a deadline and returns its standard output; the
// error carries what it wrote to standard error.
func Command(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s%s", err, stderr.Bytes(), stdout.Bytes())
	}
	return stdout.String(), nil
}
