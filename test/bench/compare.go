package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/internal/bench"
)

// Both servers have the null unit as LUN 1 and the file unit as LUN 2; only
// the first span bytes of each are used.
const (
	nullLUN = 1
	fileLUN = 2
	span    = 1 << 30
)

// workload is one row of the comparison.
type workload struct {
	name        string
	lun         int
	connections int
	depth       int
	block       int
	reads       int // percent
	random      bool
	goals       []goal
}

// goal is a figure to be reached, as a ratio of ours to theirs.
type goal struct {
	what   string
	value  func(sample) float64
	limit  float64
	atMost bool
}

func cpuAtMost(limit float64) goal {
	return goal{"server CPU per I/O", sampleCPU, limit, true}
}

func iopsAtLeast(limit float64) goal {
	return goal{"IOPS", sampleIOPS, limit, false}
}

func rateAtLeast(limit float64) goal {
	return goal{"MB/s", func(s sample) float64 { return s.rate }, limit, false}
}

func p50AtMost(limit float64) goal {
	return goal{"p50", func(s sample) float64 { return s.p50 }, limit, true}
}

var workloads = []workload{
	{"null, 4 KiB random read", nullLUN, 2, 32, 4 << 10, 100, true, []goal{cpuAtMost(1. / 4), iopsAtLeast(2.5)}},
	{"null, 4 KiB random write", nullLUN, 2, 32, 4 << 10, 0, true, []goal{cpuAtMost(1. / 4), iopsAtLeast(2.5)}},
	{"file, 4 KiB random read", fileLUN, 2, 32, 4 << 10, 100, true, []goal{cpuAtMost(1. / 5)}},
	{"file, 4 KiB random write", fileLUN, 2, 32, 4 << 10, 0, true, []goal{cpuAtMost(1. / 3)}},
	{"null, 1 MiB sequential read", nullLUN, 2, 32, 1 << 20, 100, false, []goal{rateAtLeast(2)}},
	{"null, 1 MiB sequential write", nullLUN, 2, 32, 1 << 20, 0, false, []goal{rateAtLeast(2)}},
	{"null, 4 KiB random read, depth 1", nullLUN, 1, 1, 4 << 10, 100, true, []goal{p50AtMost(1)}},
}

// sample is what one measurement, or the median of several, says.
type sample struct {
	iops, rate    float64 // 1/s, bytes/s
	p50, p99, cpu float64 // microseconds
}

func sampleIOPS(s sample) float64 { return s.iops }
func sampleCPU(s sample) float64  { return s.cpu }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// server is a target under test.
type server interface {
	url(lun int) string
	pid() int
	io.Closer
}

// row is what was measured of one workload.
type row struct {
	workload
	oursSamples, theirsSamples []sample
}

func (r *row) ratio(value func(sample) float64) float64 {
	return ratio(r.oursSamples, r.theirsSamples, value)
}

// floorRow is what was measured of the floor.
type floorRow struct {
	name               string
	connections, depth int
	samples            []sample
}

// comparison is a table of two servers under equal workloads.
type comparison struct {
	ours, theirs string // names of the servers
	whose        string // of theirs, as in "IOPS of tgt's"
	rows         []row
	floor        []floorRow
}

// choose takes the workloads that were asked for.
func (c *comparison) choose(from []workload, o options) {
	for _, w := range from {
		if o.only.MatchString(w.name) {
			c.rows = append(c.rows, row{workload: w})
		}
	}
}

// measure measures every workload on the servers, ours first, and the floor, in
// interleaved rounds.
func (c *comparison) measure(ctx context.Context, o options, floor *floorServer, servers ...server) error {
	for round := range o.rounds {
		note("%s: round %d of %d", c.ours, round+1, o.rounds)
		for i := range c.rows {
			row := &c.rows[i]
			for j := range servers {
				which := (j + round) % len(servers)
				s := servers[which]
				got, err := measure(ctx, s, &row.workload, o)
				if err != nil {
					return fmt.Errorf("%s on %s: %w", row.name, s.url(row.lun), err)
				}
				if which == 0 {
					row.oursSamples = append(row.oursSamples, got)
				} else {
					row.theirsSamples = append(row.theirsSamples, got)
				}
			}
		}
		for i := range c.floor {
			f := &c.floor[i]
			got, err := floor.measure(f.connections, f.depth, o.time)
			if err != nil {
				return err
			}
			f.samples = append(f.samples, got)
		}
	}
	return nil
}

// compareTgt measures Lintel against tgt, and the floor.
func (r *report) compareTgt(ctx context.Context, o options, dir string) error {
	c := &comparison{ours: "lintel", theirs: "tgt", whose: "tgt's"}
	if c.choose(workloads, o); len(c.rows) == 0 {
		return nil
	}
	var started []io.Closer
	defer func() { closeAll(started) }()
	ours, err := startLintelPair(ctx, o.lintel, dir, "lintel")
	if err != nil {
		return err
	}
	started = append(started, ours)
	tgtDir, err := serverDir(dir, "tgt")
	if err != nil {
		return err
	}
	servers := []server{ours}
	theirs, err := startTgt(ctx, tgtDir, span)
	switch {
	case errors.Is(err, errNoTgt):
		note("Lintel alone: %v", err)
		r.note = err.Error()
	case err != nil:
		return err
	default:
		servers = append(servers, theirs)
		started = append(started, theirs)
	}
	floor, err := startFloor(iscsiExchange)
	if err != nil {
		return err
	}
	started = append(started, floor)
	for _, s := range servers {
		if err := fill(ctx, s); err != nil {
			return err
		}
	}
	c.floor = []floorRow{{name: "floor, 48 to 4144 bytes", connections: 2, depth: 32}, {name: "floor, depth 1", connections: 1, depth: 1}}
	r.comparisons = append(r.comparisons, c)
	return c.measure(ctx, o, floor, servers...)
}

// startLintelPair starts an array with the two units of the comparison.
func startLintelPair(ctx context.Context, program, dir, name string) (*lintel, error) {
	path, err := serverDir(dir, name)
	if err != nil {
		return nil, err
	}
	l, err := startLintel(ctx, program, path)
	if err != nil {
		return nil, err
	}
	err = l.create(ctx, "null", lintelv1.VolumeKind_VOLUME_KIND_NULL)
	if err == nil {
		err = l.create(ctx, "file", lintelv1.VolumeKind_VOLUME_KIND_FILE)
	}
	if err == nil {
		err = l.mapTo(ctx, "null", nullLUN)
	}
	if err == nil {
		err = l.mapTo(ctx, "file", fileLUN)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("lintel: %w", err)
	}
	return l, nil
}

// fill writes the whole file unit once, so that it is allocated and in the page cache.
func fill(ctx context.Context, s server) error {
	const block = 1 << 20
	_, err := bench.Run(ctx, bench.Config{
		URL: s.url(fileLUN), BlockSize: block, QueueDepth: 8, Span: span, Count: span / block,
	}, nil)
	if err != nil {
		return fmt.Errorf("filling %s: %w", s.url(fileLUN), err)
	}
	return nil
}

func measure(ctx context.Context, s server, w *workload, o options) (sample, error) {
	res, err := bench.Run(ctx, bench.Config{
		URL: s.url(w.lun), QueueDepth: w.depth, Connections: w.connections, BlockSize: w.block,
		ReadPercent: w.reads, Random: w.random, Span: span, Duration: o.time, Ramp: o.ramp, ServerPID: s.pid(),
	}, nil)
	t := res.Total
	return sample{
		iops: t.IOPS, rate: t.BytesPerSecond, p50: micros(t.Latency.P50), p99: micros(t.Latency.P99), cpu: micros(res.ServerCPU),
	}, err
}

// median takes the median of each figure by itself.
func median(samples []sample) (m sample) {
	of := func(get func(*sample) *float64) {
		values := make([]float64, len(samples))
		for i := range samples {
			values[i] = *get(&samples[i])
		}
		*get(&m) = middle(values)
	}
	of(func(s *sample) *float64 { return &s.iops })
	of(func(s *sample) *float64 { return &s.rate })
	of(func(s *sample) *float64 { return &s.p50 })
	of(func(s *sample) *float64 { return &s.p99 })
	of(func(s *sample) *float64 { return &s.cpu })
	return m
}

// ratio is the median of the rounds' ratios: what disturbs a machine for longer than
// a measurement disturbs both sides of one round.
func ratio(ours, theirs []sample, value func(sample) float64) float64 {
	ratios := make([]float64, min(len(ours), len(theirs)))
	for i := range ratios {
		ratios[i] = value(ours[i]) / value(theirs[i])
	}
	return middle(ratios)
}

// middle returns the median and sorts values.
func middle(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}
