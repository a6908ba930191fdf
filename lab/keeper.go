package lab

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed image/start.sh
var startScript string

// order is what a keeper is told in the lab's folder.
type order struct {
	Topology Topology `json:"topology"`
	Images   Images   `json:"images"`
	// CPUs are the processors that guests without one of their own are pinned to,
	// in turn.
	CPUs []int `json:"cpus"`
	// BootTimeout bounds the start of one guest.
	BootTimeout time.Duration `json:"bootTimeout"`
}

// order reads the keeper's order.
func (l layout) order() (order, error) {
	var o order
	text, err := os.ReadFile(l.topology())
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	return o, err
}

// Status is what a lab is and how it does.
type Status struct {
	Name    string        `json:"name"`
	Ready   bool          `json:"ready"`
	Error   string        `json:"error,omitempty"` // why the start failed
	Started time.Time     `json:"started"`
	Guests  []GuestStatus `json:"guests"`
}

// GuestStatus is the state of a guest.
type GuestStatus struct {
	Name   string `json:"name"`
	Role   string `json:"role,omitempty"`
	State  string `json:"state"` // off, booting, up or frozen
	Pid    int    `json:"pid,omitempty"`
	CPU    int    `json:"cpu"`
	Boots  int    `json:"boots"`
	BootMS int64  `json:"bootMs,omitempty"` // how long the last start took
	// Networks has the guest's address in each network, and Cut which ways of its
	// links are cut.
	Networks []GuestNetwork `json:"networks"`
}

// GuestNetwork is a guest's link to a network.
type GuestNetwork struct {
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Cut     Direction `json:"cut,omitempty"`
}

// keeper runs a lab from inside its namespaces.
type keeper struct {
	layout layout
	order  order
	stop   context.CancelFunc
	lab    *agent // runs commands on the host side of the lab's networks

	mu       sync.Mutex
	status   Status
	guests   []*guest
	detached bool
}

// Keep runs the lab whose folder is dir until ctx ends, it is told to stop, or
// lifeline ends without the lab having been detached from it. As the first process
// of a process namespace it only keeps watch over itself as a second one, and
// when that ends, ends all there is and removes the folder.
func Keep(ctx context.Context, dir string, lifeline io.Reader) error {
	l := layout{dir}
	if os.Getpid() == 1 {
		return watchKeeper(l)
	}
	k := &keeper{layout: l, lab: newAgent(l.path("log"))}
	var err error
	if k.order, err = l.order(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	release, err := k.order.Images.use()
	if err != nil {
		return err
	}
	defer release()
	ctx, k.stop = context.WithCancel(ctx)
	defer k.stop()
	k.status = Status{Name: filepath.Base(dir), Started: time.Now()}
	for i := range k.order.Topology.Guests {
		k.guests = append(k.guests, newGuest(k, i))
	}
	go func() {
		_, _ = io.Copy(io.Discard, lifeline) // only its end matters
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.detached {
			k.stop()
		}
	}()
	if err := k.prepare(ctx); err != nil {
		return err
	}
	go k.boot(ctx)
	<-ctx.Done()
	return nil
}

// watchKeeper is the life of process 1 of the lab.
func watchKeeper(l layout) error {
	// The lock says that the lab lives; the kernel drops it however this ends.
	unlock, err := lockFile(context.Background(), l.lock())
	if err != nil {
		return err
	}
	defer unlock()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("lab: make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("lab: mount /proc: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if pid == cmd.Process.Pid || errors.Is(err, unix.ECHILD) {
			break
		}
	}
	endOthers()
	// While the lab starts, its starter is there to read the log of a keeper that
	// failed and to remove the folder; later nobody else may be left to do it.
	if _, err := os.Stat(l.startMark()); err == nil {
		return nil
	}
	// It may not have come so far, or have none.
	_ = unix.Unmount(l.memory(), unix.MNT_DETACH)
	_ = unix.Unmount(filepath.Join(l.share(), "modules"), unix.MNT_DETACH)
	return os.RemoveAll(l.dir)
}

// endOthers ends all processes of the namespace but this one, its first.
func endOthers() {
	// A missing process is no failure here.
	_ = unix.Kill(-1, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

// prepare makes all that guests need before they can start.
func (k *keeper) prepare(ctx context.Context) error {
	l, t := k.layout, &k.order.Topology
	for _, dir := range []string{l.share(), l.uml(), l.memory(), l.path("log"), l.path("disk")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	// Guests' memory is a file; it must never be written to a disk.
	if err := unix.Mount("lab", l.memory(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=90%"); err != nil {
		return fmt.Errorf("lab: memory of the guests: %w", err)
	}
	if err := makeNetworks(ctx, t); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for name, text := range map[string]string{"start.sh": startScript, "hosts": t.hosts()} {
		if err := os.WriteFile(filepath.Join(l.share(), name), []byte(text), 0o755); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	if err := k.shareModules(ctx); err != nil {
		return err
	}
	for _, d := range t.Disks {
		if err := makeDisk(l.disk(d.Name), d.Size); err != nil {
			return err
		}
	}
	return k.listen(ctx)
}

// packagedModules is where Debian's package user-mode-linux has its kernel's modules.
const packagedModules = "/usr/lib/uml/modules"

// shareModules shows guests the modules of their kernel, if it is Debian's packaged one;
// the lab's own has none.
func (k *keeper) shareModules(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, k.order.Images.Kernel, "--version").Output()
	if err != nil {
		return fmt.Errorf("lab: version of the kernel: %w", err)
	}
	version := strings.TrimSpace(string(out))
	if _, err := os.Stat(filepath.Join(packagedModules, version)); version == "" || err != nil {
		return nil
	}
	shared := filepath.Join(k.layout.share(), "modules")
	if err := os.MkdirAll(shared, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if err := unix.Mount(packagedModules, shared, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("lab: share the kernel's modules: %w", err)
	}
	return nil
}

// makeDisk makes a sparse file.
func makeDisk(path string, size Size) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	return errors.Join(f.Truncate(int64(size)), f.Close())
}

// listen opens the lab's doors: the control and dial sockets for the outside and
// the port that guests announce themselves to.
func (k *keeper) listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, t := k.layout, &k.order.Topology
	port, err := lc.Listen(ctx, "tcp", fmt.Sprintf("%s:%d", t.Address(HostSide, Management), keeperPort))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	dial, err := lc.Listen(ctx, "unix", l.dial())
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	control, err := lc.Listen(ctx, "unix", l.control())
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	own, err := lc.Listen(ctx, "tcp", fmt.Sprintf("%s:%d", t.Address(HostSide, Management), agentPort))
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	go serveEach(port, k.answerGuest)
	go serveEach(dial, k.connect)
	for listener, handler := range map[net.Listener]http.Handler{control: k.handler(), own: k.lab.handler()} {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
		go func() { _ = server.Serve(listener) }() // ends with the process
	}
	return nil
}

// serveEach calls serve in a goroutine for every connection.
func serveEach(l net.Listener, serve func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

// boot starts all guests at once and says when they are up.
func (k *keeper) boot(ctx context.Context) {
	errs := make([]error, len(k.guests))
	var wg sync.WaitGroup
	for i, g := range k.guests {
		if !g.spec.Off {
			wg.Go(func() { errs[i] = g.powerOn(ctx) })
		}
	}
	wg.Wait()
	os.Remove(k.layout.startMark())
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status.Ready = true
	if err := errors.Join(errs...); err != nil {
		k.status.Ready, k.status.Error = false, err.Error()
	}
}

// guestNamed returns a guest, or nil.
func (k *keeper) guestNamed(name string) *guest {
	if i := k.order.Topology.guestIndex(name); i >= 0 {
		return k.guests[i]
	}
	return nil
}
