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
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPUsVariable is the environment variable that lists the processors, such as
// "0,1", that guests are pinned to in turn; all by default.
const CPUsVariable = "LINTEL_LAB_CPUS"

// Lab is a running lab, as those outside of it see it.
type Lab struct {
	// Topology is what the lab consists of, with its defaults filled in.
	Topology Topology

	layout  layout
	keeper  *exec.Cmd      // nil in a lab that this process did not start
	life    io.WriteCloser // the pipe that keeps the lab alive
	exited  chan struct{}  // closed when the keeper has ended
	control *http.Client
}

// Options are what Start needs beside the topology.
type Options struct {
	// Program is the lintel that keeps the lab and that guests find as
	// /lab/lintel and lintel.
	Program string
	// Images to start from.
	Images Images
	// BootTimeout bounds the start of a guest; 0 stands for two minutes, of which a
	// machine with nothing else to do needs a few seconds.
	BootTimeout time.Duration
}

// BaseDir returns the folder that has a folder for every lab of this user.
func BaseDir() string {
	return filepath.Join(os.TempDir(), "lintel-lab-"+strconv.Itoa(os.Getuid()))
}

// Start starts a lab and returns when all its guests are up. It ends with Close,
// and with this process, unless it is detached. A start that fails leaves nothing.
func Start(ctx context.Context, t Topology, o Options) (*Lab, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if _, err := CollectGarbage(false); err != nil {
		return nil, err
	}
	l, err := launch(t, o)
	if err != nil {
		return nil, err
	}
	if err := l.waitReady(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, l.Log("keeper")), l.Close())
	}
	return l, nil
}

// launch starts the keeper.
func launch(t Topology, o Options) (*Lab, error) {
	cpus, err := processors()
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(t.Name)
	if err != nil {
		return nil, err
	}
	l := &Lab{Topology: t, layout: layout{dir}, exited: make(chan struct{})}
	l.connect()
	if err := l.fill(o, cpus); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	log, err := os.Create(l.layout.log("keeper"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(l.layout.share(), "lintel"), "lab", "keep", dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &unix.SysProcAttr{
		Setsid:     true, // an interrupt from the terminal is for us alone
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
	}
	if os.Geteuid() != 0 {
		asRootInside(cmd.SysProcAttr)
	}
	if l.life, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the lab's keeper: %w", err), os.RemoveAll(dir))
	}
	l.keeper = cmd
	go func() {
		_ = cmd.Wait() // what it had to say is in its log
		close(l.exited)
	}()
	return l, nil
}

// makeDir makes the folder of a new lab; its name is the lab's.
func makeDir(name string) (string, error) {
	base := BaseDir()
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", fmt.Errorf("folder of the labs: %w", err)
	}
	for n := 1; n < 1000; n++ {
		dir := filepath.Join(base, name)
		if n > 1 {
			dir += "-" + strconv.Itoa(n)
		}
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("folder of the lab: %w", err)
		}
		return dir, nil
	}
	return "", fmt.Errorf("there are too many labs in %s: end some with lintel lab down", base)
}

// fill writes what the keeper needs into the lab's folder.
func (l *Lab) fill(o Options, cpus []int) error {
	// The keeper takes the lock over; until then it keeps the collector away.
	if err := os.WriteFile(l.layout.startMark(), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	for _, dir := range []string{l.layout.share(), l.layout.path("log")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if o.BootTimeout == 0 {
		o.BootTimeout = 2 * time.Minute
	}
	text, err := json.MarshalIndent(order{Topology: l.Topology, Images: o.Images, CPUs: cpus, BootTimeout: o.BootTimeout}, "", "  ")
	if err == nil {
		err = os.WriteFile(l.layout.topology(), text, 0o644)
	}
	if err != nil {
		return err
	}
	program, err := os.Open(o.Program)
	if err != nil {
		return fmt.Errorf("the program for the guests: %w", err)
	}
	defer program.Close()
	return writeStream(filepath.Join(l.layout.share(), "lintel"), program, 0o755)
}

// asRootInside makes a user who is not root that in a namespace of their own.
func asRootInside(attr *unix.SysProcAttr) {
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = idMapping(os.Getuid())
	attr.GidMappings = idMapping(os.Getgid())
}

// processors returns what CPUsVariable lists.
func processors() ([]int, error) {
	var cpus []int
	text := os.Getenv(CPUsVariable)
	if text == "" {
		for i := range runtime.NumCPU() {
			cpus = append(cpus, i)
		}
		return cpus, nil
	}
	for _, field := range strings.Split(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%s=%s: write numbers with commas between them", CPUsVariable, text)
		}
		cpus = append(cpus, n)
	}
	return cpus, nil
}

// Attach returns a lab that another process started.
func Attach(name string) (*Lab, error) {
	if filepath.Base(name) != name {
		return nil, fmt.Errorf("lab name %q", name)
	}
	l := &Lab{layout: layout{filepath.Join(BaseDir(), name)}}
	o, err := l.layout.order()
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no lab %s: %w", name, os.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	l.Topology = o.Topology
	l.connect()
	return l, nil
}

func (l *Lab) connect() {
	l.control = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", l.layout.control())
		},
		DisableKeepAlives: true,
	}}
}

// Name returns the lab's name, which no other lab of this user has.
func (l *Lab) Name() string { return filepath.Base(l.layout.dir) }

// waitReady waits for the start to succeed or fail.
func (l *Lab) waitReady(ctx context.Context) error {
	for {
		s, err := l.Status(ctx)
		switch {
		case err == nil && s.Ready:
			return nil
		case err == nil && s.Error != "":
			return fmt.Errorf("lab %s: %s", l.Name(), s.Error)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab %s: %w", l.Name(), ctx.Err())
		case <-l.exited:
			return fmt.Errorf("lab %s: its keeper has ended", l.Name())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask sends a request to the keeper and decodes its answer into out.
func (l *Lab) ask(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return exchange(ctx, l.control, method, "http://lab/"+path, bytes.NewReader(body), out)
}

// exchange makes one HTTP request and decodes the answer into out, which may be
// nil or an io.Writer.
func exchange(ctx context.Context, client *http.Client, method, url string, body io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 10000))
		return errors.New(string(bytes.TrimSpace(text)))
	}
	switch out := out.(type) {
	case nil:
		return nil
	case io.Writer:
		_, err = io.Copy(out, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// Status returns how the lab and its guests do.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, l.ask(ctx, http.MethodGet, "status", nil, &s)
}

// Detach lets the lab live on when this process ends.
func (l *Lab) Detach(ctx context.Context) error {
	return l.ask(ctx, http.MethodPost, "detach", nil, nil)
}

// Close ends the lab and returns when nothing is left of it.
func (l *Lab) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	asked := l.ask(ctx, http.MethodPost, "down", nil, nil)
	if l.keeper == nil {
		if asked != nil {
			return fmt.Errorf("lab %s: %w", l.Name(), asked)
		}
		return l.waitGone(ctx)
	}
	l.life.Close()
	select {
	case <-l.exited:
	case <-ctx.Done():
		// Its end is the end of its process namespace.
		_ = l.keeper.Process.Kill()
		<-l.exited
	}
	return os.RemoveAll(l.layout.dir)
}

func (l *Lab) waitGone(ctx context.Context) error {
	for {
		if _, err := os.Stat(l.layout.dir); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab %s does not end: %w", l.Name(), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Log returns the end of the console of a guest, or of what "keeper" had to say.
func (l *Lab) Log(machine string) string { return tail(l.layout.log(machine), 6000) }

// dial connects to the agent of a machine.
func (l *Lab) dial(ctx context.Context, machine string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", l.layout.dial())
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", l.Name(), err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fmt.Fprintln(conn, machine)
	reply, err := readLine(conn)
	if err == nil && reply != "ok" {
		err = errors.New(reply)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s in lab %s: %w", machine, l.Name(), err)
	}
	return conn, nil
}
