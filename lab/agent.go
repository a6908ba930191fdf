package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxCapture bounds what is kept of a command's output, in bytes.
const maxCapture = 16 << 20

// runRequest asks an agent for a command.
type runRequest struct {
	Argv    []string      `json:"argv"`
	Env     []string      `json:"env,omitempty"`
	Stdin   []byte        `json:"stdin,omitempty"`
	Timeout time.Duration `json:"timeout"`
}

// Result is how a command ended.
type Result struct {
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
	// Code is the exit code, minus the signal's number for a command that a signal ended.
	Code int `json:"code"`
	// TimedOut says that the command was killed because its time was over.
	TimedOut bool          `json:"timedOut,omitempty"`
	Took     time.Duration `json:"took"`
}

// startRequest asks an agent for a process that goes on.
type startRequest struct {
	Name string   `json:"name"`
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
}

// ProcessState is what an agent knows of a process that it started.
type ProcessState struct {
	Pid     int    `json:"pid"`
	Running bool   `json:"running"`
	Code    int    `json:"code"` // as in Result, once it has ended
	Log     string `json:"log"`  // the file with its output
}

// agent runs commands on a machine of the lab for whoever reaches it.
type agent struct {
	logs string // folder for the output of processes

	mu        sync.Mutex
	processes map[string]*process
}

type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

func newAgent(logs string) *agent {
	return &agent{logs: logs, processes: map[string]*process{}}
}

// ServeAgent is the program of every guest: it tells the keeper that the guest is
// up and serves commands on address until it is killed.
func ServeAgent(ctx context.Context, address, keeper, name string) error {
	logs := "/run/lab"
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return fmt.Errorf("folder for logs: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if _, err := AskKeeper(ctx, keeper, "ready "+name); err != nil {
		return err
	}
	server := &http.Server{Handler: newAgent(logs).handler(), ReadHeaderTimeout: time.Minute}
	return server.Serve(l)
}

func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", a.run)
	mux.HandleFunc("POST /start", a.start)
	mux.HandleFunc("POST /signal", a.signal)
	mux.HandleFunc("GET /process", a.process)
	mux.HandleFunc("GET /file", a.readFile)
	mux.HandleFunc("PUT /file", a.writeFile)
	mux.HandleFunc("POST /shell", a.shell)
	return mux
}

// capture keeps the first maxCapture bytes of a stream.
type capture struct{ buf bytes.Buffer }

func (c *capture) Write(p []byte) (int, error) {
	c.buf.Write(p[:min(len(p), maxCapture-c.buf.Len())])
	return len(p), nil
}

func (a *agent) run(w http.ResponseWriter, r *http.Request) {
	var req runRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || len(req.Argv) == 0 {
		http.Error(w, "no command", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), req.Timeout)
	defer cancel()
	var stdout, stderr capture
	cmd := exec.CommandContext(ctx, req.Argv[0], req.Argv[1:]...)
	cmd.Env = append(os.Environ(), req.Env...)
	cmd.Stdin = bytes.NewReader(req.Stdin)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	ownGroup(cmd)
	cmd.WaitDelay = time.Second
	start := time.Now()
	err := cmd.Run()
	result := Result{Took: time.Since(start), TimedOut: errors.Is(ctx.Err(), context.DeadlineExceeded), Code: -1}
	if cmd.ProcessState != nil {
		result.Code = exitCode(cmd.ProcessState)
	} else if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	result.Stdout, result.Stderr = stdout.buf.String(), stderr.buf.String()
	answer(w, result)
}

func (a *agent) start(w http.ResponseWriter, r *http.Request) {
	var req startRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || len(req.Argv) == 0 || filepath.Base(req.Name) != req.Name {
		http.Error(w, "no command or no name", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.processes[req.Name]; p != nil && !ended(p) {
		http.Error(w, req.Name+" runs already", http.StatusConflict)
		return
	}
	path := filepath.Join(a.logs, req.Name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer log.Close()
	cmd := exec.Command(req.Argv[0], req.Argv[1:]...)
	cmd.Env = append(os.Environ(), req.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	p := &process{cmd: cmd, log: path, done: make(chan struct{})}
	a.processes[req.Name] = p
	go func() {
		_ = cmd.Wait() // its state is in cmd.ProcessState
		close(p.done)
	}()
	answer(w, p.state())
}

func ended(p *process) bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) state() ProcessState {
	s := ProcessState{Pid: p.cmd.Process.Pid, Running: !ended(p), Log: p.log}
	if !s.Running {
		s.Code = exitCode(p.cmd.ProcessState)
	}
	return s
}

// exitCode is Result.Code of a process that has ended.
func exitCode(s *os.ProcessState) int {
	if status, ok := s.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return -int(status.Signal())
	}
	return s.ExitCode()
}

func (a *agent) named(w http.ResponseWriter, r *http.Request) *process {
	name := r.URL.Query().Get("name")
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.processes[name]
	if p == nil {
		http.Error(w, "no process "+name, http.StatusNotFound)
	}
	return p
}

// process answers with the state of a process; with wait it first waits until the
// process has ended or the caller gives up.
func (a *agent) process(w http.ResponseWriter, r *http.Request) {
	p := a.named(w, r)
	if p == nil {
		return
	}
	if r.URL.Query().Has("wait") {
		select {
		case <-p.done:
		case <-r.Context().Done():
		}
	}
	answer(w, p.state())
}

func (a *agent) signal(w http.ResponseWriter, r *http.Request) {
	p := a.named(w, r)
	if p == nil {
		return
	}
	n, err := strconv.Atoi(r.URL.Query().Get("signal"))
	if err == nil && !ended(p) {
		err = unix.Kill(-p.cmd.Process.Pid, unix.Signal(n))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	answer(w, p.state())
}

func (a *agent) readFile(w http.ResponseWriter, r *http.Request) {
	http.ServeFile(w, r, r.URL.Query().Get("path"))
}

func (a *agent) writeFile(w http.ResponseWriter, r *http.Request) {
	mode, err := strconv.ParseUint(r.URL.Query().Get("mode"), 8, 12)
	if err == nil {
		err = writeStream(r.URL.Query().Get("path"), r.Body, os.FileMode(mode))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	answer(w, struct{}{})
}

// writeStream writes a file whole or not at all.
func writeStream(path string, from io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if mode&0o111 != 0 {
		// A child that is forked meanwhile has the file open for writing until it
		// executes its program, and as long nobody can execute the file.
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".lab-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// answer writes a value as JSON.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// A client that has gone needs no answer.
	_ = json.NewEncoder(w).Encode(v)
}
