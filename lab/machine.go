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
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultTimeout bounds a command whose context has no deadline.
const DefaultTimeout = time.Minute

// Machine is a machine of a lab: a guest, or the host side of its networks.
type Machine struct {
	Name   string
	lab    *Lab
	client *http.Client
}

// Machine returns a guest by its name, or with HostSide the machine that runs the
// lab, in the lab's networks. The name must exist.
func (l *Lab) Machine(name string) *Machine {
	return &Machine{Name: name, lab: l, client: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dial(ctx, name) },
		DisableKeepAlives: true,
	}}}
}

// Address returns the machine's IPv4 address in a network.
func (m *Machine) Address(network string) string { return m.lab.Topology.Address(m.Name, network) }

// Address6 returns the machine's IPv6 address in a network.
func (m *Machine) Address6(network string) string { return m.lab.Topology.Address6(m.Name, network) }

// RunError is a command that ended otherwise than with code 0.
type RunError struct {
	Machine string
	Argv    []string
	Result  Result
}

// Error names the command, how it ended and the end of what it said.
func (e *RunError) Error() string {
	how := fmt.Sprintf("exit code %d", e.Result.Code)
	if e.Result.TimedOut {
		how = fmt.Sprintf("killed after %s", e.Result.Took.Round(time.Millisecond))
	}
	text := strings.TrimSpace(e.Result.Stderr)
	if text == "" {
		text = strings.TrimSpace(e.Result.Stdout)
	}
	if len(text) > 2000 {
		text = "..." + text[len(text)-2000:]
	}
	return fmt.Sprintf("%s: %s: %s: %s", e.Machine, strings.Join(e.Argv, " "), how, text)
}

// Run runs a command until it ends, at most until the context's deadline or, where
// it has none, for DefaultTimeout. What it printed is in the result; a code other
// than 0 is a *RunError as well.
func (m *Machine) Run(ctx context.Context, argv ...string) (Result, error) {
	return m.RunInput(ctx, nil, argv...)
}

// RunInput is Run with input for the command.
func (m *Machine) RunInput(ctx context.Context, stdin []byte, argv ...string) (Result, error) {
	timeout := DefaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		// The agent has to kill it and to answer before the context ends.
		timeout = max(time.Until(deadline)-3*time.Second, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout+10*time.Second)
	defer cancel()
	var result Result
	if err := m.post(ctx, "run", runRequest{Argv: argv, Stdin: stdin, Timeout: timeout}, &result); err != nil {
		return result, fmt.Errorf("%s: %s: %w", m.Name, strings.Join(argv, " "), err)
	}
	if result.Code != 0 || result.TimedOut {
		return result, &RunError{Machine: m.Name, Argv: argv, Result: result}
	}
	return result, nil
}

// Sh runs a shell script that stops at its first failure, and returns what it
// printed without the blanks around it.
func (m *Machine) Sh(ctx context.Context, script string) (string, error) {
	r, err := m.Run(ctx, "bash", "-euo", "pipefail", "-c", script)
	return strings.TrimSpace(r.Stdout), err
}

// Start starts a process that goes on, under a name that commands about it use. Its
// output is in its log.
func (m *Machine) Start(ctx context.Context, name string, argv ...string) error {
	return m.wrap("start "+name, m.post(ctx, "start", startRequest{Name: name, Argv: argv}, nil))
}

// Signal sends a signal to a process of Start and its children.
func (m *Machine) Signal(ctx context.Context, name string, signal unix.Signal) error {
	path := "signal?name=" + url.QueryEscape(name) + "&signal=" + strconv.Itoa(int(signal))
	return m.wrap("signal "+name, m.post(ctx, path, nil, nil))
}

// Process returns the state of a process of Start.
func (m *Machine) Process(ctx context.Context, name string) (ProcessState, error) {
	var s ProcessState
	err := exchange(ctx, m.client, http.MethodGet, "http://lab/process?name="+url.QueryEscape(name), nil, &s)
	return s, m.wrap("process "+name, err)
}

// Wait waits until a process of Start has ended.
func (m *Machine) Wait(ctx context.Context, name string) (ProcessState, error) {
	var s ProcessState
	err := exchange(ctx, m.client, http.MethodGet, "http://lab/process?wait&name="+url.QueryEscape(name), nil, &s)
	return s, m.wrap("wait for "+name, err)
}

// ReadFile returns the content of a file.
func (m *Machine) ReadFile(ctx context.Context, path string) ([]byte, error) {
	var b bytes.Buffer
	err := exchange(ctx, m.client, http.MethodGet, "http://lab/file?path="+url.QueryEscape(path), nil, io.Writer(&b))
	return b.Bytes(), m.wrap("read "+path, err)
}

// WriteFile makes a file, and its folder, with the given content.
func (m *Machine) WriteFile(ctx context.Context, path string, from io.Reader, mode os.FileMode) error {
	u := fmt.Sprintf("http://lab/file?path=%s&mode=%o", url.QueryEscape(path), mode.Perm())
	return m.wrap("write "+path, exchange(ctx, m.client, http.MethodPut, u, from, nil))
}

func (m *Machine) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return exchange(ctx, m.client, http.MethodPost, "http://lab/"+path, bytes.NewReader(body), out)
}

func (m *Machine) wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %s: %w", m.Name, what, err)
	}
	return nil
}

// act has the keeper do something to the guest.
func (m *Machine) act(ctx context.Context, what string, a action) (string, error) {
	a.Guest = m.Name
	var reply string
	err := m.lab.ask(ctx, http.MethodPost, what, a, &reply)
	return reply, m.wrap(what, err)
}

// PowerOff takes the power away: nothing in the guest gets a chance to act.
func (m *Machine) PowerOff(ctx context.Context) error {
	_, err := m.act(ctx, "off", action{})
	return err
}

// PowerOn starts the guest with its disks as they are, and waits until it is up.
func (m *Machine) PowerOn(ctx context.Context) error {
	_, err := m.act(ctx, "on", action{})
	return err
}

// Reset is PowerOff and PowerOn.
func (m *Machine) Reset(ctx context.Context) error {
	_, err := m.act(ctx, "reset", action{})
	return err
}

// Freeze stops the guest in the middle of whatever it does.
func (m *Machine) Freeze(ctx context.Context) error {
	_, err := m.act(ctx, "freeze", action{})
	return err
}

// Thaw lets a frozen guest go on as if nothing had been.
func (m *Machine) Thaw(ctx context.Context) error {
	_, err := m.act(ctx, "thaw", action{})
	return err
}

// Cut cuts the guest's link to a network: frames are lost, the link stays up.
func (m *Machine) Cut(ctx context.Context, network string, direction Direction) error {
	if direction != Both && direction != In && direction != Out {
		return fmt.Errorf("direction %q: it is %s, %s or %s", direction, Both, In, Out)
	}
	_, err := m.act(ctx, "link", action{Network: network, Direction: direction})
	return err
}

// Heal ends a Cut.
func (m *Machine) Heal(ctx context.Context, network string) error {
	_, err := m.act(ctx, "link", action{Network: network})
	return err
}

// Disturb disturbs what the guest sends to a network as tc-netem(8) describes it, for
// instance with "delay 20ms loss 1% rate 100mbit"; an empty text ends that.
func (m *Machine) Disturb(ctx context.Context, network, netem string) error {
	argv := []string{"tc", "qdisc", "replace", "dev", network, "root", "netem"}
	if netem == "" {
		argv = []string{"sh", "-c", `tc qdisc del dev "$1" root 2>/dev/null || true`, "sh", network}
	}
	_, err := m.Run(ctx, append(argv, strings.Fields(netem)...)...)
	return err
}

// AddDisk adds a disk to the running guest and returns its device; it is there as
// /dev/lab/NAME too. A disk of that name that the lab has already is taken as it is.
func (m *Machine) AddDisk(ctx context.Context, name string, size Size) (string, error) {
	device, err := m.act(ctx, "add-disk", action{Disk: name, Size: size})
	if err != nil {
		return "", err
	}
	_, err = m.Run(ctx, "ln", "-sf", "../"+device, "/dev/lab/"+name)
	return "/dev/" + device, err
}

// RemoveDisk takes a disk away that AddDisk added; nothing may have it open.
func (m *Machine) RemoveDisk(ctx context.Context, name string) error {
	if _, err := m.act(ctx, "remove-disk", action{Disk: name}); err != nil {
		return err
	}
	_, err := m.Run(ctx, "rm", "-f", "/dev/lab/"+name)
	return err
}

// SetClock moves the guest's clock by a duration.
func (m *Machine) SetClock(ctx context.Context, by time.Duration) error {
	_, err := m.Sh(ctx, fmt.Sprintf("date -s @$(( $(date +%%s) + %d ))", int64(by.Seconds())))
	return err
}

// Console has the guest's kernel carry out a command of its management console,
// such as "proc interrupts" or "sysrq t". It works when the guest's programs do not.
func (m *Machine) Console(ctx context.Context, command string) (string, error) {
	return m.act(ctx, "console", action{Command: command})
}

// ErrNoTick says that a guest's clock stands still: its sleeps never end.
var ErrNoTick = errors.New("the guest gets no timer interrupts: switch it off and on")

// CheckTick checks that the guest gets timer interrupts, and returns ErrNoTick where
// not. It takes a second.
func (m *Machine) CheckTick(ctx context.Context) error {
	count := func() (string, error) { return timerLine(m.Console(ctx, "proc interrupts")) }
	before, err := count()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Second):
	}
	after, err := count()
	if err == nil && before == after {
		return fmt.Errorf("%s: %w", m.Name, ErrNoTick)
	}
	return err
}
