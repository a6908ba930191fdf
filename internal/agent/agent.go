// Package agent manages an array: it implements the API's services over the
// array's documents, the pools that keep them, and a data plane that serves them.
//
// A change goes one way: validated and planned (package array), its backing
// stores made (package pool), its documents written, then applied to the data
// plane, and only then answered. Backing stores are undone where a later step
// fails; what a crash leaves is finished, or removed, by the next start.
package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/pool"
)

// DefaultPool is the name of the pool that a new array starts with.
const DefaultPool = "default"

// Options say how Open opens an array.
type Options struct {
	// DataDir is the directory that keeps everything. Whoever opens it has
	// locked it against other processes.
	DataDir string
	// ArrayName and HeadName are what a new array and its head are called; empty
	// stands for "lintel" and "head-a".
	ArrayName string
	HeadName  string
	// Version of the program, for SystemService.
	Version string
	// Logger takes the agent's log; nil discards it.
	Logger *slog.Logger
	// Now tells the time; nil stands for time.Now.
	Now func() time.Time
	// Memory is what the machine has for volumes of kind mem in bytes; 0 stands for all that the
	// system tells of.
	Memory uint64
	// Retry is how long after the data plane has not taken over all of the configuration
	// it is given it again; 30 s where 0.
	Retry time.Duration
}

// Agent is the management of one array. Its methods may be called concurrently.
type Agent struct {
	opts    Options
	log     *slog.Logger
	env     array.Env
	started time.Time
	audit   *auditLog
	head    *pool.HeadCopy
	plane   DataPlane // set by Start

	state atomic.Pointer[array.State]

	queue queue

	applying   sync.Mutex // above mu
	unfinished []func()   // what follows when the data plane has let go of what changes took away

	mu       sync.Mutex
	pools    map[string]*pool.Pool // by id
	tidy     map[string]*tidying   // by pool id: work done that its document still lists
	applyErr error                 // of the last Apply
	again    *time.Timer           // for the next one, where that is due
	copyErrs map[string]error      // why a copy of the array's document is behind, by its place
	leftErrs map[string]error      // why the backing store of a deleted volume is still there, by its id
	closed   bool
}

// Open opens the array in a data directory, and makes a new one where there is none. It
// fails where anything is damaged beyond what the metadata's second slot can
// stand for, and says what.
func Open(opts Options) (_ *Agent, err error) {
	opts.ArrayName = cmp.Or(opts.ArrayName, "lintel")
	opts.HeadName = cmp.Or(opts.HeadName, "head-a")
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	opts.Retry = cmp.Or(opts.Retry, 30*time.Second)
	if opts.Memory == 0 {
		opts.Memory = machineMemory()
	}
	a := &Agent{
		opts: opts, log: opts.Logger, started: opts.Now(),
		env:      array.Env{Now: opts.Now, Random: rand.Reader},
		pools:    make(map[string]*pool.Pool),
		tidy:     make(map[string]*tidying),
		copyErrs: make(map[string]error),
		leftErrs: make(map[string]error),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close())
		}
	}()
	if err := os.MkdirAll(filepath.Join(opts.DataDir, pool.PoolsDir), 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	if a.head, err = pool.OpenHeadCopy(filepath.Join(opts.DataDir, pool.HeadDir)); err != nil {
		return nil, err
	}
	if err := a.openPools(); err != nil {
		return nil, err
	}
	a.copyDocument(a.state.Load().Document)
	if a.audit, err = openAudit(filepath.Join(opts.DataDir, "audit.log"), opts.Now); err != nil {
		return nil, err
	}
	return a, nil
}

// openPools opens the pools, or makes the first one, and takes the state from them.
func (a *Agent) openPools() error {
	root := filepath.Join(a.opts.DataDir, pool.PoolsDir)
	if err := pool.Sweep(root); err != nil {
		return err
	}
	dirs, err := pool.List(root)
	if err != nil {
		return err
	}
	if len(dirs) == 0 {
		return a.createArray()
	}
	var pools []*pool.Pool
	for _, dir := range dirs {
		p, err := pool.Open(dir)
		if err != nil {
			return err
		}
		pools = append(pools, p)
		doc := p.Document()
		if twin := a.pools[doc.ID]; twin != nil { // State refuses it
			defer func() { _ = twin.Close() }() // nothing was written
		}
		a.pools[doc.ID] = p
		for _, problem := range p.Problems() {
			a.log.Warn("pool has a problem", "pool", doc.Name, "problem", problem.String())
		}
	}
	state, err := pool.State(pools, a.head.Document())
	if err != nil {
		return err
	}
	a.state.Store(state)
	for _, p := range state.Pools {
		for _, id := range p.Doomed {
			a.unfinished = append(a.unfinished, func() { a.removeBacking(p.ID, id) })
		}
	}
	return nil
}

// createArray makes a new array with one pool.
func (a *Agent) createArray() error {
	if doc := a.head.Document(); doc != nil {
		return fmt.Errorf("the data directory belongs to array %s, but its pools are gone from %s: bring them back, or start with an empty directory",
			doc.Name, filepath.Join(a.opts.DataDir, pool.PoolsDir))
	}
	state, err := array.New(a.env, a.opts.ArrayName, a.opts.HeadName, DefaultPool)
	if err != nil {
		return err
	}
	p, err := pool.Create(a.poolDir(DefaultPool), state.Pools[0], state.Document)
	if err != nil {
		return err
	}
	a.pools[state.Pools[0].ID] = p
	// What was decoded is what is committed.
	if state, err = array.NewState(p.Array(), []*array.PoolDocument{p.Document()}); err != nil {
		return err
	}
	a.state.Store(state)
	a.log.Info("made a new array", "array", state.Document.Name, "target", state.Document.Target.IQN)
	return nil
}

func (a *Agent) poolDir(name string) string {
	return filepath.Join(a.opts.DataDir, pool.PoolsDir, name)
}

// Start gives the agent its data plane and applies the state to it. It is called once, before
// any request is served. What the data plane cannot bring up now is reported by
// SystemService.GetHealth and does not stop the start.
func (a *Agent) Start(ctx context.Context, plane DataPlane) error {
	if a.plane != nil {
		return errors.New("the agent has a data plane already")
	}
	a.plane = plane
	if err := a.answers(ctx); err != nil { // to wait for Apply would keep the API away for long
		a.log.Error("the data plane has not taken over the configuration", "error", err)
		a.mu.Lock()
		a.applyErr = err
		a.mu.Unlock()
	} else {
		a.Reapply(ctx)
	}
	return ctx.Err()
}

// State returns the configuration as of now.
func (a *Agent) State() *array.State { return a.state.Load() }

// Pool returns the open pool of that id.
func (a *Agent) Pool(id string) (*pool.Pool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pools[id]; p != nil {
		return p, nil
	}
	return nil, array.Errorf(array.KindNotFound, "pool %s is not open", id)
}

// openedPools returns the open pools, ordered by directory.
func (a *Agent) openedPools() []*pool.Pool {
	a.mu.Lock()
	defer a.mu.Unlock()
	pools := make([]*pool.Pool, 0, len(a.pools))
	for _, p := range a.pools {
		pools = append(pools, p)
	}
	slices.SortFunc(pools, func(x, y *pool.Pool) int { return cmp.Compare(x.Dir(), y.Dir()) })
	return pools
}

// Close waits for the changes under way, refuses new ones, and releases the pools. The data plane is
// closed before, by whoever made it.
func (a *Agent) Close() error {
	a.queue.close()
	a.applying.Lock()
	defer a.applying.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	if a.again != nil {
		a.again.Stop()
	}
	var errs []error
	for _, p := range a.pools {
		errs = append(errs, p.Close())
	}
	if a.head != nil {
		errs = append(errs, a.head.Close())
	}
	if a.audit != nil {
		errs = append(errs, a.audit.Close())
	}
	return errors.Join(errs...)
}
