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
	Host      string
	Initiator string
	Target    string
	Portals   []string
	LUN       uint16
	First     uint32 // the number of its first client
	Blocks    uint64
	Dir       string        // for log, clock.json and the file stop, which ends it
	Serve     string        // address to tell the time at
	Ask       string        // address to ask for the time of the history's clock
	Limit     time.Duration // after which it ends anyway
}

const (
	clientsOfPath = 2
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
	ctx, cancel := context.WithTimeout(context.Background(), w.Limit)
	defer cancel()
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
	for i, portal := range w.Portals {
		p, err := iscsi.Dial(ctx, portal, initiator.Options{
			Initiator: w.Initiator, Target: w.Target, ISID: wire.ISID{0x80, 0, 0, 1, 0, byte(i)}, AbortTimeout: answerTime,
		}, w.LUN)
		if err != nil {
			return err
		}
		defer p.Drop()
		first := w.First + uint32(i*clientsOfPath)
		wg.Go(func() {
			errs[i] = history.Run(ctx, history.Config{
				Recorder: recorder, FirstClient: first, Clients: clientsOfPath, Blocks: w.Blocks,
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

// contended is an array on a guest whose volume two hosts use at the same time.
type contended struct {
	*san
	hosts [2]*lab.Machine
	iqn   string
	runs  int
}

// history runs the workload on both hosts, with what disturbs it, on a LUN that was
// never written, and returns what they saw.
func (c *contended) history(t *testing.T, lun uint16, disturb func(t *testing.T)) []history.Op {
	t.Helper()
	c.runs++
	dir := fmt.Sprintf("/tmp/run-%d", c.runs)
	for i, h := range c.hosts {
		w := workload{
			Host: h.Name, Initiator: h.IQN(), Target: c.iqn, Portals: c.array.Portals, LUN: lun,
			First: uint32(100*i + 1), Blocks: 3, Dir: dir, Limit: 2 * time.Minute,
		}
		clock := c.hosts[0].Address(lab.Management) + ":7100"
		if i == 0 {
			w.Serve = clock
		} else {
			w.Ask = clock
		}
		text, err := json.Marshal(w)
		must(t, err)
		sh(t, h, "mkdir -p %s", dir)
		must(t, h.Start(within(t, time.Minute), "workload", "env", workloadVariable+"="+string(text), "/tmp/workload"))
		sh(t, h, "for i in $(seq 300); do [ $(stat -c %%s %s/log 2>/dev/null || echo 0) -gt 1000 ] && exit 0; sleep 0.1; done; cat /run/lab/workload.log; exit 1", dir)
	}
	disturb(t)
	logs := make([]history.Log, len(c.hosts))
	for i := len(c.hosts) - 1; i >= 0; i-- { // the first tells the others the time
		h, ctx := c.hosts[i], within(t, time.Minute)
		sh(t, h, "touch %s/stop", dir)
		state, err := h.Wait(ctx, "workload")
		must(t, err)
		if state.Code != 0 {
			text, _ := h.ReadFile(ctx, state.Log)
			t.Fatalf("the workload on %s ended with %d: %s", h.Name, state.Code, text)
		}
		text, err := h.ReadFile(ctx, dir+"/log")
		must(t, err)
		logs[i], err = history.ReadLog(bytes.NewReader(text))
		must(t, err)
		text, err = h.ReadFile(ctx, dir+"/clock.json")
		must(t, err)
		must(t, json.Unmarshal(text, &logs[i].Clock))
		t.Logf("%s: %d operations, clock %s off, known within %s", h.Name, len(logs[i].Ops),
			time.Duration(logs[i].Clock.Offset), time.Duration(logs[i].Clock.Error))
	}
	ops, err := history.Merge(logs...)
	must(t, err)
	return ops
}

// TestLinearizable checks reads, writes and COMPARE AND WRITE of two hosts on the same
// blocks while their paths and the array's process fail (SBC-3 §5.2, RFC 7143 §6.3.5).
func TestLinearizable(t *testing.T) {
	t.Parallel()
	s := &san{Lab: lab.New(t, lab.Topology{
		Name:     "history",
		Networks: []string{"san-a", "san-b"},
		Guests:   []lab.GuestSpec{{Name: "head1", Role: "head"}, {Name: "host1", Role: "host"}, {Name: "host2", Role: "host"}},
		Disks: []lab.DiskSpec{
			{Name: "data", Size: 256 * lab.MiB, Guests: []string{"head1"}},
			{Name: "raw", Size: 16 * lab.MiB, Guests: []string{"head1"}},
		},
	})}
	ctx := within(t, 4*time.Minute)
	head := s.Machine("head1")
	sh(t, head, "mkfs.ext4 -q /dev/lab/data; mkdir -p /data; mount /dev/lab/data /data")
	faulty, err := head.FaultyDisk(ctx, "/dev/lab/raw", "raw")
	must(t, err)
	s.array, err = head.Serve(ctx, "/data/array", []string{"san-a", "san-b"})
	must(t, err)
	s.showLog(t)
	s.lintel(t, "volume", "create", "sound", "--size", "16MiB")
	s.lintel(t, "volume", "create", "cheat", "--size", "16MiB", "--kind", "disk", "--path", faulty.Path())
	c := &contended{san: s, iqn: targetName(t, s)}
	program, err := os.Executable()
	must(t, err)
	for i, name := range []string{"host1", "host2"} {
		c.hosts[i] = s.Machine(name)
		s.lintel(t, "host", "create", name, "--iqn", c.hosts[i].IQN())
		s.lintel(t, "map", "sound", name, "--lun", "1")
		s.lintel(t, "map", "cheat", name, "--lun", "2")
		f, err := os.Open(program)
		must(t, err)
		err = c.hosts[i].WriteFile(ctx, "/tmp/workload", f, 0o755)
		f.Close()
		must(t, err)
	}

	t.Run("an array whose paths fail is accepted", func(t *testing.T) {
		ops := c.history(t, 1, func(t *testing.T) { disturbPaths(t, c) })
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
		ops := c.history(t, 2, func(t *testing.T) {
			time.Sleep(time.Second)
			must(t, faulty.DropWrites(within(t, time.Minute)))
			time.Sleep(time.Second)
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
