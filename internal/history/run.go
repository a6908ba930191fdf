package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// ErrMiscompare is what a Target returns of a CompareAndWrite that found another
// content than expected, and therefore has written nothing.
var ErrMiscompare = errors.New("the block has another content than expected")

// Target is a volume, or one path to it, as a workload uses it. Its methods are
// called concurrently. Blocks are what the volume reads and writes as a whole:
// its logical blocks. Slices are the caller's; a target does not keep them, also
// not after an error. It tries an operation at most once: a retry could overwrite
// what another host has written since. After an error other than
// ErrMiscompare, the operation counts as one that may take effect any time
// or never; so does it when the context ends.
type Target interface {
	// Read fills p with the content of a block.
	Read(ctx context.Context, block uint64, p []byte) error
	// Write stores p, with fua on stable storage.
	Write(ctx context.Context, block uint64, p []byte, fua bool) error
	// CompareAndWrite stores p where the block's content is expect, else it fails
	// with ErrMiscompare.
	CompareAndWrite(ctx context.Context, block uint64, expect, p []byte) error
	// Flush makes every write that was acknowledged stable.
	Flush(ctx context.Context) error
}

// Mix is the share of each operation, relative to the sum.
type Mix struct {
	Read, Write, WriteFUA, CompareAndWrite, Flush int
}

// DefaultMix is the mix of runs that give none.
var DefaultMix = Mix{Read: 40, Write: 25, WriteFUA: 5, CompareAndWrite: 28, Flush: 2}

// Config describes a workload.
type Config struct {
	Recorder *Recorder
	// FirstClient is the number of the first client, from 1 on; the others count
	// up from there. No two runs of one history share a client.
	FirstClient uint32
	// Clients is how many operations are under way at a time; 1 where 0.
	Clients int
	// Blocks are the blocks 0 to Blocks-1 that the clients contend for; few make
	// the sharpest test. They are blank at the beginning of a history.
	Blocks uint64
	// BlockSize is the size of a block in bytes, a multiple of CellSize.
	BlockSize int
	// Ops is how many operations each client issues; until the context ends where 0.
	Ops int
	// Mix is DefaultMix where it is zero.
	Mix Mix
	// Seed makes the choice of operations repeatable.
	Seed uint64
	// Pause is how long a client waits after an operation without an answer; 10 ms where 0.
	Pause time.Duration
}

func (c *Config) check() error {
	switch {
	case c.Recorder == nil || c.Blocks == 0:
		return errors.New("history: a workload needs a recorder and blocks")
	case c.BlockSize <= 0 || c.BlockSize%CellSize != 0:
		return fmt.Errorf("history: block size %d: use a multiple of %d", c.BlockSize, CellSize)
	case c.FirstClient == 0 || uint64(c.FirstClient)+uint64(max(c.Clients, 1))-1 > MaxClient:
		return fmt.Errorf("history: client %d: count from 1", c.FirstClient)
	}
	return nil
}

// Run issues a workload of reads, writes and COMPARE AND WRITEs on a target, and
// records it. What the target fails is recorded and no error of Run. It returns
// nil when each client is through or ctx has ended.
func Run(ctx context.Context, cfg Config, t Target) error {
	if err := cfg.check(); err != nil {
		return err
	}
	cfg.Clients = max(cfg.Clients, 1)
	if cfg.Mix == (Mix{}) {
		cfg.Mix = DefaultMix
	}
	if cfg.Pause == 0 {
		cfg.Pause = 10 * time.Millisecond
	}
	var wg sync.WaitGroup
	errs := make([]error, cfg.Clients)
	for i := range cfg.Clients {
		c := newClient(&cfg, cfg.FirstClient+uint32(i), t)
		wg.Go(func() { errs[i] = c.run(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Sweep reads each block once, as the first client: what a crash has left. It
// fails where a block cannot be read.
func Sweep(ctx context.Context, cfg Config, t Target) error {
	if err := cfg.check(); err != nil {
		return err
	}
	c := newClient(&cfg, cfg.FirstClient, t)
	for b := range cfg.Blocks {
		op, err := c.do(ctx, Op{Kind: Read, Block: b})
		if err != nil {
			return err
		}
		if op.Outcome != OK {
			return fmt.Errorf("history: read block %d: %s", b, op.Note)
		}
	}
	return nil
}

// client issues one operation at a time.
type client struct {
	cfg     *Config
	target  Target
	id      uint32
	seq     uint32
	rng     *rand.Rand
	known   map[uint64]Value // what it last found or stored in each block
	data    []byte
	compare []byte
}

func newClient(cfg *Config, id uint32, t Target) *client {
	return &client{
		cfg: cfg, target: t, id: id,
		rng:   rand.New(rand.NewPCG(cfg.Seed, uint64(id))),
		known: make(map[uint64]Value),
		data:  make([]byte, cfg.BlockSize), compare: make([]byte, cfg.BlockSize),
	}
}

func (c *client) run(ctx context.Context) error {
	for n := 0; (c.cfg.Ops == 0 || n < c.cfg.Ops) && ctx.Err() == nil; n++ {
		op, err := c.do(ctx, c.choose())
		if err != nil {
			return err
		}
		if op.Outcome == Unknown {
			select {
			case <-ctx.Done():
			case <-time.After(c.cfg.Pause):
			}
		}
	}
	return nil
}

func (c *client) choose() Op {
	op := Op{Kind: Read, Block: c.rng.Uint64N(c.cfg.Blocks)}
	m := c.cfg.Mix
	shares := []struct {
		n    int
		kind Kind
		fua  bool
	}{{m.Read, Read, false}, {m.Write, Write, false}, {m.WriteFUA, Write, true}, {m.CompareAndWrite, CompareAndWrite, false}, {m.Flush, Flush, false}}
	sum := 0
	for _, s := range shares {
		sum += s.n
	}
	at := c.rng.IntN(sum)
	for _, s := range shares {
		if at < s.n {
			op.Kind, op.FUA = s.kind, s.fua
			break
		}
		at -= s.n
	}
	if expect, ok := c.known[op.Block]; op.Kind == CompareAndWrite {
		if !ok {
			op.Kind = Read
			return op
		}
		op.Expect = expect
	}
	return op
}

// do issues and records an operation, and learns from it.
func (c *client) do(ctx context.Context, op Op) (Op, error) {
	op.Client = c.id
	if op.Kind.stores() {
		c.seq++
		op.Value = NewValue(c.id, c.seq)
	}
	op, err := c.cfg.Recorder.Do(op, func(op *Op) error { return c.issue(ctx, op) })
	switch {
	case op.Kind.whole():
	case op.Outcome == OK && op.Value != Torn:
		c.known[op.Block] = op.Value
	default: // it may be anything: find out
		delete(c.known, op.Block)
	}
	return op, err
}

func (c *client) issue(ctx context.Context, op *Op) error {
	switch op.Kind {
	case Read:
		// Where nothing is read, nothing of an earlier operation may be found.
		for i := range c.data {
			c.data[i] = 0xA5
		}
		err := c.target.Read(ctx, op.Block, c.data)
		if err == nil {
			op.Value, op.Note = Identify(c.data, op.Block)
		}
		return err
	case Write:
		Fill(c.data, op.Block, op.Value)
		return c.target.Write(ctx, op.Block, c.data, op.FUA)
	case CompareAndWrite:
		Fill(c.compare, op.Block, op.Expect)
		Fill(c.data, op.Block, op.Value)
		return c.target.CompareAndWrite(ctx, op.Block, c.compare, c.data)
	}
	return c.target.Flush(ctx)
}
