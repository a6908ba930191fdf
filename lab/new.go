package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// TB is what New needs of a test (testing.TB has it all).
type TB interface {
	Helper()
	Name() string
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
}

// TestVariable is the environment variable that lets tests start labs; without it New
// skips them.
const TestVariable = "LINTEL_LAB"

// ProgramVariable is the environment variable that names a lintel to test in place of
// that of the source tree.
const ProgramVariable = "LINTEL_LAB_PROGRAM"

// builtProgram builds lintel once for all tests of a process. Other processes may
// build theirs at the same time, so each has a file of its own, and it is removed at
// once so that it ends with the process.
var builtProgram = sync.OnceValues(func() (*os.File, error) {
	if given := os.Getenv(ProgramVariable); given != "" {
		return os.Open(given)
	}
	dir, err := os.MkdirTemp("", "lintel-lab-program-")
	if err != nil {
		return nil, fmt.Errorf("build lintel: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "lintel")
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, "lintel.io/lintel/cmd/lintel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build lintel: %w\n%s", err, text)
	}
	return os.Open(out)
})

// New starts a lab with the lintel of this source tree and ends it with the test. The
// consoles of its guests are shown when the test fails.
func New(t TB, topology Topology) *Lab {
	t.Helper()
	if os.Getenv(TestVariable) == "" {
		t.Skipf("starts a lab of guests: set %s=1 (make lab-test)", TestVariable)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	images, err := BuildImages(ctx, func(step string) { t.Logf("%s", step) })
	if err != nil {
		t.Fatalf("%v", err)
	}
	program, err := builtProgram()
	if err != nil {
		t.Fatalf("%v", err)
	}
	l, err := Start(ctx, topology, Options{Program: fmt.Sprintf("/proc/self/fd/%d", program.Fd()), Images: images})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if s, err := l.Status(ctx); err == nil {
		for _, g := range s.Guests {
			if g.Boots > 1 {
				t.Logf("guest %s had to be started %d times: %v", g.Name, g.Boots, ErrNoTick)
			}
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.show(t)
		}
		if err := l.Close(); err != nil {
			t.Logf("lab %s: %v", l.Name(), err)
		}
	})
	return l
}

// show prints what tells why a test has failed.
func (l *Lab) show(t TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, g := range l.Topology.Guests {
		t.Logf("end of the console of %s:\n%s", g.Name, l.Log(g.Name))
		if err := l.Machine(g.Name).CheckTick(ctx); err != nil {
			t.Logf("%v", err)
		}
	}
}
