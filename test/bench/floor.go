package main

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/bench"
)

// exchange is what the floor is measured with: what sockets alone cost. A server
// answers each request with a read's worth of bytes and does nothing else, in a
// process of its own. Sizes are in bytes.
type exchange struct{ request, answer int }

// The exchanges have the sizes of a read of 4 KiB in each protocol.
var (
	iscsiExchange = exchange{48, 48 + 4096}
	nvmeExchange  = exchange{72, 24 + 4096}
)

const floorDepth = 128 // the most requests answered with one write

// serveFloor runs the server until its standard input ends.
func serveFloor(x exchange) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	announce(l.Addr().String())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go x.answerAll(c)
	}
}

func (x exchange) answerAll(c net.Conn) {
	defer c.Close()
	in, out := make([]byte, x.request*floorDepth), make([]byte, x.answer*floorDepth)
	have := 0
	for {
		n, err := c.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		if _, err := c.Write(out[:have/x.request*x.answer]); err != nil {
			return
		}
		have = copy(in, in[have/x.request*x.request:have])
	}
}

// floorServer is the server's process.
type floorServer struct {
	exchange
	*child
}

func startFloor(x exchange) (*floorServer, error) {
	c, err := startChild("-floor-server", fmt.Sprintf("%d:%d", x.request, x.answer))
	if err != nil {
		return nil, fmt.Errorf("floor server: %w", err)
	}
	return &floorServer{x, c}, nil
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
	out, in := make([]byte, f.request*depth), make([]byte, 256<<10)
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
		answers := (rest + n) / f.answer
		rest = (rest + n) % f.answer
		now = time.Since(start)
		for _, s := range sent[:answers] {
			h.Record(now - s)
		}
		copy(sent, sent[answers:])
		for i := depth - answers; i < depth; i++ {
			sent[i] = now
		}
		if _, err := c.Write(out[:answers*f.request]); err != nil {
			return err
		}
	}
	return nil
}
