package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// guest is the keeper's side of a guest.
//
// Its state goes
//
//	off -> booting -> up <-> frozen
//
// and back to off from everywhere: when it is switched off, and when its kernel ends
// by itself.
type guest struct {
	k    *keeper
	spec *GuestSpec
	cpu  int

	power sync.Mutex // held while the power is switched; taken before mu

	mu      sync.Mutex
	state   string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the kernel of cmd has ended
	ready   chan struct{} // closed when the agent of this start has announced itself
	boots   int
	took    time.Duration
	cut     map[string]Direction
	plugged map[string]int // disks that were added while it ran, and their number

	consoleMu sync.Mutex // one command at a time
}

// The states of a guest.
const (
	stateOff     = "off"
	stateBooting = "booting"
	stateUp      = "up"
	stateFrozen  = "frozen"
)

func newGuest(k *keeper, i int) *guest {
	g := &guest{k: k, spec: &k.order.Topology.Guests[i], state: stateOff, cut: map[string]Direction{}, plugged: map[string]int{}}
	if g.spec.CPU != nil {
		g.cpu = *g.spec.CPU
	} else {
		g.cpu = k.order.CPUs[i%len(k.order.CPUs)]
	}
	return g
}

// powerOn starts the guest and waits until its agent answers.
func (g *guest) powerOn(ctx context.Context) error {
	g.power.Lock()
	defer g.power.Unlock()
	return g.powerOnLocked(ctx)
}

func (g *guest) powerOnLocked(ctx context.Context) error {
	g.mu.Lock()
	on := g.state != stateOff
	g.mu.Unlock()
	if on {
		return nil
	}
	err := g.boot(ctx)
	if errors.Is(err, ErrNoTick) {
		g.note("it is started again: " + ErrNoTick.Error())
		err = g.boot(ctx)
	}
	return err
}

// note adds a line of the lab's own to the guest's console log.
func (g *guest) note(text string) {
	log, err := os.OpenFile(g.k.layout.log(g.spec.Name), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return // there is no log that it could be missed in
	}
	defer log.Close()
	fmt.Fprintf(log, "lab: %s: %s\n", g.spec.Name, text)
}

// boot starts the guest once; where it fails, the guest is off and its console's log says why.
func (g *guest) boot(ctx context.Context) error {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, g.k.order.BootTimeout, fmt.Errorf("its agent does not answer after %s", g.k.order.BootTimeout))
	defer cancel()
	ended, ready, err := g.start()
	if err != nil {
		return fmt.Errorf("guest %s: %w", g.spec.Name, err)
	}
	stuck := make(chan error, 1)
	go func() { stuck <- g.watchTick(ctx) }()
	select {
	case <-ready:
		g.mu.Lock()
		defer g.mu.Unlock()
		g.took = time.Since(start)
		return nil
	case <-ended:
		err = errors.New("its kernel ended while it started")
	case err = <-stuck:
	}
	err = fmt.Errorf("guest %s: %w; end of its console:\n%s", g.spec.Name, err, tail(g.k.layout.log(g.spec.Name), 2000))
	return errors.Join(err, g.powerOffLocked())
}

// watchTick returns ErrNoTick when the clock of a guest that starts stands still, and
// else why its context has ended. A kernel that is caught in a fault of its own does not
// answer at all: one with CONFIG_VMAP_STACK can be, see image/kernel.config.
func (g *guest) watchTick(ctx context.Context) error {
	last := ""
	for still := 0; still < 3; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Second):
		}
		still++
		if ticks, err := timerLine(g.console("proc interrupts")); err == nil && ticks != last {
			last, still = ticks, 0
		}
	}
	return ErrNoTick
}

// timerLine returns the line of /proc/interrupts that counts the timer's.
func timerLine(interrupts string, err error) (string, error) {
	for line := range strings.Lines(interrupts) {
		if strings.Contains(line, "timer") {
			return line, err
		}
	}
	return interrupts, err
}

// start runs the guest's kernel.
func (g *guest) start() (ended, ready chan struct{}, err error) {
	l, o := g.k.layout, &g.k.order
	if err := os.RemoveAll(filepath.Dir(l.console(g.spec.Name))); err != nil {
		return nil, nil, err
	}
	log, err := os.OpenFile(l.log(g.spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	argv := append([]string{"-c", fmt.Sprint(g.cpu), o.Images.Kernel}, o.Topology.kernelArguments(l, o.Images, g.spec.Name)...)
	cmd := exec.Command("taskset", argv...)
	cmd.Env = append(os.Environ(), "TMPDIR="+l.memory())
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, because the kernel's helpers have to end with it: they
	// would keep the taps busy.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cmd, g.state = cmd, stateBooting
	g.ended, g.ready = make(chan struct{}), make(chan struct{})
	g.boots++
	g.took = 0
	clear(g.plugged)
	go g.wait(cmd, g.ended)
	return g.ended, g.ready, nil
}

// wait waits for the end of a guest's kernel.
func (g *guest) wait(cmd *exec.Cmd, ended chan struct{}) {
	_ = cmd.Wait() // however it ends, the guest is off
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.cmd = stateOff, nil
	close(ended)
}

// announced is called when the agent says that it is up.
func (g *guest) announced() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == stateBooting {
		g.state = stateUp
		close(g.ready)
	}
}

// powerOff takes the power away: nothing in the guest gets a chance to act.
func (g *guest) powerOff() error {
	g.power.Lock()
	defer g.power.Unlock()
	return g.powerOffLocked()
}

func (g *guest) powerOffLocked() error {
	g.mu.Lock()
	cmd, ended := g.cmd, g.ended
	g.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := unix.Kill(-cmd.Process.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("guest %s: %w", g.spec.Name, err)
	}
	<-ended
	return nil
}

// reset takes the power away and gives it back; the disks stay as they are.
func (g *guest) reset(ctx context.Context) error {
	g.power.Lock()
	defer g.power.Unlock()
	if err := g.powerOffLocked(); err != nil {
		return err
	}
	return g.powerOnLocked(ctx)
}

// freeze stops the guest's kernel, and with it all that it runs, or lets it go on.
// Only the kernel's own process is stopped: it traces the others, and would take
// their stops for signals of its guest.
func (g *guest) freeze(frozen bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	from, to, signal := stateFrozen, stateUp, unix.SIGCONT
	if frozen {
		from, to, signal = stateUp, stateFrozen, unix.SIGSTOP
	}
	if g.state != from {
		return fmt.Errorf("guest %s is %s", g.spec.Name, g.state)
	}
	if err := unix.Kill(g.cmd.Process.Pid, signal); err != nil {
		return fmt.Errorf("guest %s: %w", g.spec.Name, err)
	}
	g.state = to
	return nil
}

// setLink cuts a link of the guest, or heals it where no direction is given.
func (g *guest) setLink(ctx context.Context, network string, cut Direction) error {
	if network == Management || !slices.Contains(g.spec.Networks, network) {
		return fmt.Errorf("guest %s has no link to a network %q that can be cut: it has %s", g.spec.Name, network, strings.Join(g.spec.Networks, ", "))
	}
	if err := setLink(ctx, &g.k.order.Topology, g.spec.Name, network, cut == Both || cut == In, cut == Both || cut == Out); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut[network] = cut
	return nil
}

// console has the guest's kernel carry out a command of the management console.
func (g *guest) console(command string) (string, error) {
	g.consoleMu.Lock()
	defer g.consoleMu.Unlock()
	name := g.spec.Name
	return mconsole(g.k.layout.console(name), g.k.layout.path("uml", "."+name), command)
}

// addDisk adds a disk of size bytes to the running guest, or the one of that name
// that is there already, and returns its device.
func (g *guest) addDisk(name string, size Size) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	used := len(g.k.order.Topology.guestDisks(g.spec.Name))
	n := used + 1
	for slices.Contains(values(g.plugged), n) {
		n++
	}
	switch {
	case !guestName.MatchString(name):
		return "", fmt.Errorf("disk name %q: use up to 15 of a-z, 0-9 and -, a letter first", name)
	case n > maxDisks:
		return "", fmt.Errorf("guest %s has %d disks already", g.spec.Name, maxDisks)
	case g.plugged[name] != 0:
		return "", fmt.Errorf("guest %s has a disk %s already", g.spec.Name, name)
	}
	path := g.k.layout.disk(name)
	if _, err := os.Stat(path); err != nil {
		if err := makeDisk(path, size); err != nil {
			return "", err
		}
	}
	d := DiskSpec{Name: name, Guests: []string{g.spec.Name}}
	if _, err := g.console("config " + ubdArgument(g.k.layout, d, n)); err != nil {
		return "", err
	}
	g.plugged[name] = n
	return ubdDevice(n), nil
}

// removeDisk takes a disk away that addDisk added. The kernel refuses it while the
// disk is open.
func (g *guest) removeDisk(name string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.plugged[name]
	if n == 0 {
		return fmt.Errorf("guest %s has no disk %s that was added while it ran", g.spec.Name, name)
	}
	if _, err := g.console(fmt.Sprintf("remove ubd%d", n)); err != nil {
		return err
	}
	delete(g.plugged, name)
	return nil
}

func values(m map[string]int) []int {
	var out []int
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

func (g *guest) status() GuestStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := GuestStatus{Name: g.spec.Name, Role: g.spec.Role, State: g.state, CPU: g.cpu, Boots: g.boots, BootMS: g.took.Milliseconds()}
	if g.cmd != nil {
		s.Pid = g.cmd.Process.Pid
	}
	for _, n := range g.spec.allNetworks() {
		s.Networks = append(s.Networks, GuestNetwork{Name: n, Address: g.k.order.Topology.Address(g.spec.Name, n), Cut: g.cut[n]})
	}
	return s
}

// tail returns the last bytes of a file, from the start of a line.
func tail(path string, size int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	buf := make([]byte, min(size, info.Size()))
	n, _ := f.ReadAt(buf, info.Size()-int64(len(buf)))
	text := strings.ToValidUTF8(string(buf[:n]), "?")
	if int64(n) < info.Size() {
		if _, rest, ok := strings.Cut(text, "\n"); ok {
			return rest
		}
	}
	return text
}
