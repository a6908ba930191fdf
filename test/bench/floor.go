package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/bench"
)

// The floor is what sockets alone cost: a server that answers each request of
// 48 bytes with 48 + 4096 bytes and does nothing else, in a process of its own.
const (
	floorRequest = 48
	floorAnswer  = 48 + 4096
	floorDepth   = 128 // the most requests answered with one write
)

// serveFloor runs the server until its standard input ends.
func serveFloor() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answerFloor(c)
	}
}

func answerFloor(c net.Conn) {
	defer c.Close()
	in, out := make([]byte, floorRequest*floorDepth), make([]byte, floorAnswer*floorDepth)
	have := 0
	for {
		n, err := c.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		if _, err := c.Write(out[:have/floorRequest*floorAnswer]); err != nil {
			return
		}
		have = copy(in, in[have/floorRequest*floorRequest:have])
	}
}

// floorServer is the server's process.
type floorServer struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	address string
}

func startFloor() (*floorServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &floorServer{cmd: exec.Command(self, "-floor-server")}
	f.cmd.Stderr = os.Stderr
	stdin, err := f.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, fmt.Errorf("floor server: %w", err)
	}
	f.stdin = stdin
	line, err := bufio.NewReader(stdout).ReadString('\n')
	f.address = strings.TrimSpace(line)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("floor server: %w", err)
	}
	return f, nil
}

// Close ends the server.
func (f *floorServer) Close() error {
	f.stdin.Close()
	return f.cmd.Wait()
}

// measure drives the floor server as the load generator drives a target.
func (f *floorServer) measure(connections, depth int, duration time.Duration) (sample, error) {
	var stop atomic.Bool
	var group sync.WaitGroup
	histograms := make([]bench.Histogram, connections)
	errs := make([]error, connections)
	before, err := bench.ProcessCPU(f.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	start := time.Now()
	for i := range connections {
		group.Go(func() { errs[i] = f.drive(depth, &stop, start, &histograms[i]) })
	}
	time.Sleep(duration)
	stop.Store(true)
	group.Wait()
	elapsed := time.Since(start)
	after, err := bench.ProcessCPU(f.cmd.Process.Pid)
	if err != nil {
		return sample{}, err
	}
	var h bench.Histogram
	for i := range histograms {
		if errs[i] != nil {
			return sample{}, fmt.Errorf("floor: %w", errs[i])
		}
		h.Add(&histograms[i])
	}
	n := float64(max(h.Count(), 1))
	return sample{
		iops: n / elapsed.Seconds(), rate: n * 4096 / elapsed.Seconds(),
		p50: micros(h.Quantile(.5)), p99: micros(h.Quantile(.99)), cpu: micros(after-before) / n,
	}, nil
}

func (f *floorServer) drive(depth int, stop *atomic.Bool, start time.Time, h *bench.Histogram) error {
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		return err
	}
	defer c.Close()
	out, in := make([]byte, floorRequest*depth), make([]byte, 256<<10)
	sent := make([]time.Duration, 0, depth) // a ring would not be faster at these depths
	now := time.Since(start)
	for range depth {
		sent = append(sent, now)
	}
	if _, err := c.Write(out); err != nil {
		return err
	}
	rest := 0
	for !stop.Load() {
		n, err := c.Read(in)
		if err != nil {
			return err
		}
		answers := (rest + n) / floorAnswer
		rest = (rest + n) % floorAnswer
		now = time.Since(start)
		for _, s := range sent[:answers] {
			h.Record(now - s)
		}
		copy(sent, sent[answers:])
		for i := depth - answers; i < depth; i++ {
			sent[i] = now
		}
		if _, err := c.Write(out[:answers*floorRequest]); err != nil {
			return err
		}
	}
	return nil
}
