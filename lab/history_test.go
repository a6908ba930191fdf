package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/history"
	"lintel.io/lintel/internal/history/iscsi"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
	"lintel.io/lintel/lab"
)

// workloadVariable makes the test binary the program that issues and records a
// workload on a guest; its value is a workload in JSON.
const workloadVariable = "LINTEL_LAB_TEST_WORKLOAD"

func init() {
	text := os.Getenv(workloadVariable)
	if text == "" {
		return
	}
	var w workload
	err := json.Unmarshal([]byte(text), &w)
	if err == nil {
		err = w.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// workload is what one host does. Its clients share the paths evenly.
type workload struct {
	Number    int // no other workload on its array has it
	Host      string
	Initiator string
	Target    string
	Portals   []string
	LUN       uint16
	Blocks    uint64
	Mix       history.Mix
	Dir       string        // for log, clock.json and the file stop, which ends it
	Serve     string        // address to tell the time at
	Ask       string        // address to ask for the time of the history's clock
	Limit     time.Duration // after which it ends anyway
	Cut       string        // a guest: all that it does is what cutPower does
	Sweep     bool          // all that it does is to read each block once
}

const (
	contendedBlocks = 3
	clientsOfPath   = 2
	// answerTime is how long an operation waits for its answer. Then it is
	// aborted, and its session given up where that has no answer either.
	answerTime = time.Second
)

func (w *workload) run() error {
	log, err := os.Create(path.Join(w.Dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	recorder, err := history.NewRecorder(log, w.Host)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.Limit)
	defer cancel()
	switch {
	case w.Cut != "":
		return w.cutPower(ctx, recorder)
	case w.Sweep:
		return w.sweep(ctx, recorder)
	}
	if w.Serve != "" {
		l, err := net.Listen("tcp", w.Serve)
		if err != nil {
			return err
		}
		go tellTime(l)
	}
	before, err := w.clock()
	if err != nil {
		return err
	}
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(path.Join(w.Dir, "stop")); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	errs := make([]error, len(w.Portals))
	var wg sync.WaitGroup
	for i := range w.Portals {
		p, err := w.dial(ctx, i)
		if err != nil {
			return err
		}
		defer p.Drop()
		first := w.client(i * clientsOfPath)
		wg.Go(func() {
			errs[i] = history.Run(ctx, history.Config{
				Recorder: recorder, FirstClient: first, Clients: clientsOfPath, Blocks: w.Blocks, Mix: w.Mix,
				BlockSize: p.BlockSize(), Seed: uint64(first), Pause: 20 * time.Millisecond,
			}, impatient{p})
		})
	}
	wg.Wait()
	after, err := w.clock()
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	// Between the two measurements, the clocks may have drifted apart.
	drift := max(after.Offset-before.Offset, before.Offset-after.Offset)
	text, err := json.Marshal(history.Clock{Offset: (before.Offset + after.Offset) / 2, Error: max(before.Error, after.Error) + drift})
	if err != nil {
		return err
	}
	return os.WriteFile(path.Join(w.Dir, "clock.json"), text, 0o644)
}

// client returns the number that the i-th client of the workload has in a history.
func (w *workload) client(i int) uint32 { return uint32(100*w.Number + i) }

// dial returns the path through a portal.
func (w *workload) dial(ctx context.Context, portal int) (*iscsi.Path, error) {
	return iscsi.Dial(ctx, w.Portals[portal], initiator.Options{
		Initiator: w.Initiator, Target: w.Target, ISID: wire.ISID{0x80, 0, 0, 1, byte(w.Number), byte(portal)}, AbortTimeout: answerTime,
	}, w.LUN)
}

// impatient bounds the time of each operation.
type impatient struct{ *iscsi.Path }

func (p impatient) Read(ctx context.Context, block uint64, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return p.Path.Read(ctx, block, b)
}

func (p impatient) Write(ctx context.Context, block uint64, b []byte, fua bool) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return p.Path.Write(ctx, block, b, fua)
}

func (p impatient) CompareAndWrite(ctx context.Context, block uint64, expect, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return p.Path.CompareAndWrite(ctx, block, expect, b)
}

func (p impatient) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return p.Path.Flush(ctx)
}

// tellTime answers every byte with the time of this machine.
func tellTime(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			var b [1]byte
			for {
				if _, err := io.ReadFull(conn, b[:]); err != nil {
					return
				}
				if err := json.NewEncoder(conn).Encode(history.Monotonic()); err != nil {
					return
				}
			}
		}()
	}
}

// clock relates the clock of this machine, which the log is of, to the history's.
func (w *workload) clock() (history.Clock, error) {
	if w.Ask == "" {
		return history.Clock{}, nil
	}
	conn, err := net.Dial("tcp", w.Ask)
	if err != nil {
		return history.Clock{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return history.Clock{}, err
	}
	answers := json.NewDecoder(conn)
	there, err := history.MeasureClock(200, func() (int64, error) {
		var t int64
		_, err := conn.Write([]byte{'?'})
		if err == nil {
			err = answers.Decode(&t)
		}
		return t, err
	})
	return history.Clock{Offset: -there.Offset, Error: there.Error}, err
}

// contended is an array on a guest whose volumes two hosts use at the same time.
type contended struct {
	*san
	hosts     [2]*lab.Machine // the time of a history is that of the first
	iqn       string
	workloads int // how many there were
}

// newContended starts a lab with an array on a guest, a file system on a faulty disk below
// it, and two hosts. The array has no volume.
func newContended(t *testing.T, disks ...lab.DiskSpec) *contended {
	t.Helper()
	c := &contended{san: &san{Lab: lab.New(t, lab.Topology{
		Name:     "history",
		Networks: []string{"san-a", "san-b"},
		Guests:   []lab.GuestSpec{{Name: "head1", Role: "head"}, {Name: "host1", Role: "host"}, {Name: "host2", Role: "host"}},
		Disks:    append([]lab.DiskSpec{{Name: "data", Size: 256 * lab.MiB, Guests: []string{"head1"}}}, disks...),
	})}}
	ctx := within(t, 4*time.Minute)
	head := c.Machine("head1")
	sh(t, head, "mkfs.ext4 -q /dev/lab/data")
	c.mount(t, head)
	var err error
	c.array, err = head.Serve(ctx, "/data/array", []string{"san-a", "san-b"})
	must(t, err)
	c.showLog(t)
	c.iqn = targetName(t, c.san)
	program, err := os.Executable()
	must(t, err)
	for i, name := range []string{"host1", "host2"} {
		c.hosts[i] = c.Machine(name)
		c.lintel(t, "host", "create", name, "--iqn", c.hosts[i].IQN())
		f, err := os.Open(program)
		must(t, err)
		err = c.hosts[i].WriteFile(ctx, "/tmp/workload", f, 0o755)
		f.Close()
		must(t, err)
	}
	return c
}

// mount makes the head's file system ready for the array, after each start of the head.
// Its kernel writes what is dirty only when it is asked to.
func (c *contended) mount(t *testing.T, head *lab.Machine) {
	t.Helper()
	var err error
	c.disk, err = head.FaultyDisk(within(t, time.Minute), "/dev/lab/data", "data")
	must(t, err)
	sh(t, head, "sysctl -q vm.dirty_writeback_centisecs=0; mkdir -p /data; mount %s /data", c.disk.Path())
}

// shared makes a volume that both hosts see as the LUN.
func (c *contended) shared(t *testing.T, name string, lun uint16, args ...string) {
	t.Helper()
	c.lintel(t, append([]string{"volume", "create", name, "--size", "16MiB"}, args...)...)
	for _, h := range c.hosts {
		c.lintel(t, "map", name, h.Name, "--lun", fmt.Sprint(lun))
	}
}

// workload returns a new workload for a host.
func (c *contended) workload(host int, lun uint16) workload {
	c.workloads++
	h := c.hosts[host]
	return workload{
		Number: c.workloads, Host: h.Name, Initiator: h.IQN(), Target: c.iqn, Portals: c.array.Portals, LUN: lun,
		Blocks: contendedBlocks, Dir: fmt.Sprintf("/tmp/workload-%d", c.workloads), Limit: 10 * time.Minute,
	}
}

// argv returns the command that is the workload.
func (w *workload) argv(t *testing.T) []string {
	t.Helper()
	text, err := json.Marshal(w)
	must(t, err)
	return []string{"env", workloadVariable + "=" + string(text), "/tmp/workload"}
}

// start has both hosts run a workload, and waits until it does.
func (c *contended) start(t *testing.T, lun uint16, mix history.Mix) []workload {
	t.Helper()
	var both []workload
	for i, h := range c.hosts {
		w := c.workload(i, lun)
		w.Mix = mix
		clock := c.hosts[0].Address(lab.Management) + ":7100"
		if i == 0 {
			w.Serve = clock
		} else {
			w.Ask = clock
		}
		sh(t, h, "mkdir %s", w.Dir)
		must(t, h.Start(within(t, time.Minute), path.Base(w.Dir), w.argv(t)...))
		c.answered(t, 10, w)
		both = append(both, w)
	}
	return both
}

// answered waits until each client of the workloads has had another n answers.
func (c *contended) answered(t *testing.T, n int, workloads ...workload) {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	for _, w := range workloads {
		h := c.Machine(w.Host)
		count := func() map[uint32]int {
			answers := map[uint32]int{}
			if text, err := h.ReadFile(ctx, w.Dir+"/log"); err == nil { // else it has not begun
				l, _ := history.ReadLog(bytes.NewReader(text)) // its header may be incomplete
				for _, op := range l.Ops {
					if op.Outcome != history.Unknown {
						answers[op.Client]++
					}
				}
			}
			return answers
		}
		begin := count()
		for client := 0; client < len(w.Portals)*clientsOfPath; {
			if id := w.client(client); count()[id] >= begin[id]+n {
				client++
				continue
			}
			if ctx.Err() != nil {
				t.Fatalf("client %d on %s gets no answers: %s", w.client(client), w.Host, sh(t, h, "cat /run/lab/%s.log", path.Base(w.Dir)))
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
}

// end ends a workload and returns what the hosts saw.
func (c *contended) end(t *testing.T, both []workload) []history.Log {
	t.Helper()
	logs := make([]history.Log, len(both))
	for i := len(both) - 1; i >= 0; i-- { // the first tells the others the time
		h, ctx, w := c.hosts[i], within(t, time.Minute), both[i]
		sh(t, h, "touch %s/stop", w.Dir)
		state, err := h.Wait(ctx, path.Base(w.Dir))
		must(t, err)
		if state.Code != 0 {
			text, _ := h.ReadFile(ctx, state.Log)
			t.Fatalf("the workload on %s ended with %d: %s", h.Name, state.Code, text)
		}
		logs[i] = readLog(t, h, w)
		text, err := h.ReadFile(ctx, w.Dir+"/clock.json")
		must(t, err)
		must(t, json.Unmarshal(text, &logs[i].Clock))
		t.Logf("%s: %d operations, clock %s off, known within %s", h.Name, len(logs[i].Ops),
			time.Duration(logs[i].Clock.Offset), time.Duration(logs[i].Clock.Error))
	}
	return logs
}

func readLog(t *testing.T, h *lab.Machine, w workload) history.Log {
	t.Helper()
	text, err := h.ReadFile(within(t, time.Minute), w.Dir+"/log")
	must(t, err)
	l, err := history.ReadLog(bytes.NewReader(text))
	must(t, err)
	return l
}

// history runs the workload on both hosts, with what disturbs it, on a LUN that was
// never written, and returns what they saw.
func (c *contended) history(t *testing.T, lun uint16, disturb func(both []workload)) []history.Op {
	t.Helper()
	both := c.start(t, lun, history.DefaultMix)
	disturb(both)
	ops, err := history.Merge(c.end(t, both)...)
	must(t, err)
	return ops
}

// TestLinearizable checks reads, writes and COMPARE AND WRITE of two hosts on the same
// blocks while their paths and the array's process fail (SBC-3 §5.2, RFC 7143 §6.3.5).
func TestLinearizable(t *testing.T) {
	t.Parallel()
	c := newContended(t, lab.DiskSpec{Name: "raw", Size: 16 * lab.MiB, Guests: []string{"head1"}})
	faulty, err := c.array.FaultyDisk(within(t, time.Minute), "/dev/lab/raw", "raw")
	must(t, err)
	c.shared(t, "sound", 1)
	c.shared(t, "cheat", 2, "--kind", "disk", "--path", faulty.Path())

	t.Run("an array whose paths fail is accepted", func(t *testing.T) {
		ops := c.history(t, 1, func([]workload) { disturbPaths(t, c) })
		count := map[string]int{}
		for _, op := range ops {
			count[op.Kind.String()+": "+op.Outcome.String()]++
		}
		t.Log(count)
		for _, ending := range []string{"read: ok", "write: ok", "compare and write: ok", "compare and write: miscompare", "flush: ok", "write: no answer"} {
			if count[ending] == 0 {
				t.Errorf("nothing ended as %q: the test is too easy", ending)
			}
		}
		must(t, history.Check(ops, time.Minute))
	})
	t.Run("an array whose disk forgets writes is rejected", func(t *testing.T) {
		ops := c.history(t, 2, func(both []workload) {
			must(t, faulty.DropWrites(within(t, time.Minute)))
			c.answered(t, 50, both...)
		})
		err := history.Check(ops, time.Minute)
		violation, ok := errors.AsType[*history.Violation](err)
		if !ok {
			t.Fatalf("the judge says of writes that were acknowledged and forgotten: %v", err)
		}
		contains(t, violation.Error(), "write")
		t.Logf("%s", strings.TrimSpace(violation.Error()))
	})
}

// disturbPaths lets every path of each host fail in turn, then all at once.
func disturbPaths(t *testing.T, c *contended) {
	ctx := within(t, 2*time.Minute)
	for i, fault := range []struct {
		network   string
		direction lab.Direction
	}{{"san-a", lab.Both}, {"san-b", lab.In}, {"san-a", lab.Out}, {"san-b", lab.Both}} {
		h := c.hosts[i%2]
		must(t, h.Cut(ctx, fault.network, fault.direction))
		time.Sleep(1500 * time.Millisecond)
		must(t, h.Heal(ctx, fault.network))
		time.Sleep(500 * time.Millisecond)
	}
	c.lintel(t, "portal", "remove", c.array.Portals[0], "--yes")
	time.Sleep(time.Second)
	c.lintel(t, "portal", "add", c.array.Portals[0])
	must(t, c.array.Kill(ctx))
	must(t, c.array.Up(ctx))
	time.Sleep(2 * time.Second)
}
