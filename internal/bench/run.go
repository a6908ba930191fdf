package bench

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"
)

// run is one run under way.
type run struct {
	config       Config
	url          URL
	blockSize    uint64 // of the unit
	offset, span int64
	seed         uint64
	base         time.Time
	from, until  time.Duration // the measured time, since base
	stop         atomic.Bool
	initiator    initiator
	workers      []*worker
}

func (r *run) now() time.Duration { return time.Since(r.base) }

// drainTime is how long the commands under way at the end may take.
const drainTime = 30 * time.Second

// Run logs in, keeps the load going and returns what it measured. progress,
// where not nil, is called once a second. A cancelled context ends the run;
// what was measured until then is returned with the context's error. The
// first I/O error, and data that is not what was written, end the run too.
func Run(ctx context.Context, config Config, progress func(Snapshot)) (Result, error) {
	config, err := config.withDefaults()
	if err != nil {
		return Result{}, err
	}
	r := &run{config: config, seed: config.Seed}
	if r.url, err = ParseURL(config.URL); err != nil {
		return Result{}, err
	}
	if r.url.Target == "" {
		return Result{}, fmt.Errorf("URL %q names a portal and no unit", config.URL)
	}
	r.initiator = newISCSI(&r.config, &r.url)
	if r.url.NVMe {
		if r.initiator, err = newNVMe(&r.config, &r.url); err != nil {
			return Result{}, err
		}
	}
	for r.seed == 0 {
		r.seed = rand.Uint64()
	}
	defer r.close()
	if err := r.login(ctx); err != nil {
		return Result{}, err
	}
	return r.measure(ctx, progress)
}

// logoutTime is how long the target has to let a session go in good order.
const logoutTime = 2 * time.Second

// close logs out, or hangs up where the target does not answer.
func (r *run) close() {
	ctx, cancel := context.WithTimeout(context.Background(), logoutTime)
	defer cancel()
	r.initiator.close(ctx)
}

// login establishes the sessions and sizes the part of the unit to be used.
func (r *run) login(ctx context.Context) error {
	c := &r.config
	var conns []connection
	for len(conns) < c.Connections {
		ctx, cancel := context.WithTimeout(ctx, c.LoginTimeout)
		defer cancel()
		more, err := r.initiator.login(ctx)
		if err != nil {
			return err
		}
		if len(conns) == 0 {
			if err := r.size(ctx); err != nil {
				return err
			}
		}
		conns = append(conns, more...)
	}
	r.base = time.Now()
	r.from = c.Ramp
	r.until = math.MaxInt64
	if c.Duration > 0 {
		r.until = r.from + c.Duration
	}
	for i, conn := range conns {
		r.workers = append(r.workers, newWorker(r, conn, i))
	}
	return nil
}

func (r *run) size(ctx context.Context) error {
	c := &r.config
	blocks, blockSize, err := r.initiator.capacity(ctx)
	if err != nil {
		return err
	}
	r.blockSize = uint64(blockSize)
	if blockSize <= 0 || c.BlockSize%blockSize != 0 {
		return fmt.Errorf("the unit has blocks of %d bytes: choose a block size that is a multiple", blockSize)
	}
	if blocks > math.MaxInt64/uint64(blockSize) {
		return fmt.Errorf("the unit claims %d blocks", blocks)
	}
	size := int64(blocks) * int64(blockSize)
	r.offset, r.span = c.Offset, c.Span
	if r.span == 0 {
		r.span = (size - r.offset) / int64(c.BlockSize) * int64(c.BlockSize)
	}
	if r.span < 0 || r.offset > size-r.span {
		return fmt.Errorf("the unit has only %d bytes", size)
	}
	n := r.span / int64(c.BlockSize)
	if n < int64(c.Connections) {
		return fmt.Errorf("the part used has only %d blocks of %d bytes for %d connections", n, c.BlockSize, c.Connections)
	}
	if c.Verify && n > maxVerifyBlocks {
		return fmt.Errorf("verification of %d blocks takes too much memory: choose a span of at most %d blocks", n, maxVerifyBlocks)
	}
	return nil
}

// measure runs the load from the first submission to the last completion.
func (r *run) measure(ctx context.Context, progress func(Snapshot)) (Result, error) {
	r.base = time.Now()
	for _, w := range r.workers {
		// The worker starts in a callback of its connection, where it stays.
		if err := w.conn.begin(w.start); err != nil {
			return Result{}, err
		}
	}
	finished := make(chan struct{})
	go func() {
		for _, w := range r.workers {
			<-w.done
		}
		close(finished)
	}()
	t := timeline{run: r, timer: time.NewTimer(r.from)}
	defer t.timer.Stop()
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	var told uint64
	stop := ctx.Done()
	for waiting := true; waiting; {
		select {
		case <-t.timer.C:
			if t.phase == draining {
				r.close()
				<-finished
				return Result{}, fmt.Errorf("the target did not answer for %v", drainTime)
			}
			t.next()
		case <-ticks.C:
			if progress != nil {
				progress(r.snapshot(&told))
			}
		case <-stop:
			stop = nil
			t.stop()
		case <-finished:
			waiting = false
		}
	}
	t.stop()
	err := ctx.Err()
	for _, w := range r.workers {
		if w.err != nil && err == nil {
			err = w.err
		}
	}
	if err == nil {
		err = t.err
	}
	return r.result(&t), err
}

// timeline is the run as the clock sees it: ramping -> measuring -> draining.
type timeline struct {
	run           *run
	phase         phase
	timer         *time.Timer // ends the phase
	before, after cpuTimes
	end           time.Duration // of the measured time
	err           error         // of reading CPU times
}

type phase uint8

const (
	ramping phase = iota
	measuring
	draining
)

// next enters the phase after the present one.
func (t *timeline) next() {
	r := t.run
	switch t.phase {
	case ramping:
		t.phase = measuring
		t.before = t.read()
		if r.until != math.MaxInt64 {
			t.timer.Reset(r.until - r.now())
		}
	case measuring:
		t.phase = draining
		t.after = t.read()
		t.end = max(min(r.now(), r.until), r.from)
		r.stop.Store(true)
		t.timer.Reset(drainTime)
	case draining:
	}
}

// stop goes to the last phase.
func (t *timeline) stop() {
	for t.phase != draining {
		t.next()
	}
}

type cpuTimes struct{ server, client time.Duration }

func (t *timeline) read() (c cpuTimes) {
	c.client, _ = ProcessCPU(os.Getpid()) // unknown where the system has no /proc
	if pid := t.run.config.ServerPID; pid != 0 {
		var err error
		if c.server, err = ProcessCPU(pid); err != nil {
			t.err = err
		}
	}
	return c
}

func (r *run) snapshot(last *uint64) Snapshot {
	now := r.now()
	s := Snapshot{Elapsed: now, Ramp: now < r.from}
	var h Histogram
	for _, w := range r.workers {
		s.IOs += w.report.ios.Load()
		w.report.mu.Lock()
		if now-w.report.until < 2*time.Second {
			h.Add(&w.report.interval)
		}
		w.report.mu.Unlock()
	}
	s.IOPS = float64(s.IOs - *last)
	s.BytesPerSecond = s.IOPS * float64(r.config.BlockSize)
	s.P50, s.P99 = h.Quantile(.5), h.Quantile(.99)
	*last = s.IOs
	return s
}

func (r *run) result(t *timeline) Result {
	elapsed := t.end - r.from
	res := Result{Elapsed: elapsed}
	var both [2]Histogram
	for _, w := range r.workers {
		for i := range both {
			both[i].Add(&w.total[i])
			both[i].Add(&w.interval[i])
		}
		res.Retries += w.report.retries.Load()
		res.Verified += w.report.verified.Load()
	}
	res.Read.set(&both[0], r.config.BlockSize, elapsed)
	res.Write.set(&both[1], r.config.BlockSize, elapsed)
	both[0].Add(&both[1])
	res.Total.set(&both[0], r.config.BlockSize, elapsed)
	if n := time.Duration(res.Total.IOs); n > 0 && t.err == nil {
		res.ServerCPU = (t.after.server - t.before.server) / n
		res.ClientCPU = (t.after.client - t.before.client) / n
	}
	return res
}
