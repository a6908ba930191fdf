package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a lintel process that serves until it is told to end. It can be started again.
type Process struct {
	t     testing.TB
	name  string
	args  []string
	ready func() bool

	cmd  *exec.Cmd // nil while it does not run
	log  *lockedBuffer
	done chan error
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newProcess returns a process that is not started yet, and ends with the test. It is started when
// ready says so.
func newProcess(t testing.TB, name string, args []string, ready func() bool) *Process {
	p := &Process{t: t, name: name, args: args, ready: ready, log: &lockedBuffer{}}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.Stop()
		}
		if t.Failed() {
			t.Logf("the log of %s:\n%s", p.name, p.Log())
		}
	})
	return p
}

// Start starts the process and waits until it does its work.
func (p *Process) Start() {
	p.t.Helper()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd, done := p.cmd, make(chan error, 1)
	p.done = done
	go func() { done <- cmd.Wait() }()
	for end := time.Now().Add(deadline); ; time.Sleep(10 * time.Millisecond) {
		select {
		case err := <-done:
			p.cmd = nil
			p.t.Fatalf("%s ended: %v\n%s", p.name, err, p.Log())
		default:
		}
		if p.ready() {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s is not ready after %v\n%s", p.name, deadline, p.Log())
		}
	}
}

// Kill ends the process as a power failure would, with SIGKILL.
func (p *Process) Kill() {
	p.t.Helper()
	if err := p.end(syscall.SIGKILL); err == nil {
		p.t.Errorf("%s ended well on SIGKILL", p.name)
	}
}

// Stop ends the process with SIGTERM and fails the test where it does not end
// cleanly.
func (p *Process) Stop() {
	p.t.Helper()
	if err := p.end(syscall.SIGTERM); err != nil {
		p.t.Errorf("%s on SIGTERM: %v", p.name, err)
	}
}

func (p *Process) end(sig syscall.Signal) error {
	p.t.Helper()
	cmd := p.cmd
	p.cmd = nil
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.done:
		return err
	case <-time.After(deadline):
		return errors.Join(fmt.Errorf("still running %v after signal %v", deadline, sig), cmd.Process.Kill())
	}
}

// Pid returns the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Log returns what the process printed so far.
func (p *Process) Log() string { return p.log.String() }
