package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/pool"
)

// applyTimeout is how long the data plane may take to end the commands on what a
// change takes away.
const applyTimeout = 30 * time.Second

// readyTimeout is how long the data plane may take to say that it is there.
const readyTimeout = 5 * time.Second

// change is what a mutation does.
type change struct {
	state *array.State // as it is to be
	plan  array.Plan
	// prepare makes backing stores, before the documents are written. It leaves
	// nothing behind where it fails.
	prepare func() (undo func() error, err error)
	// check returns why prepare would fail, as far as that can be told without doing it.
	check func() error
	// drop is a pool whose directory goes with the change.
	drop *array.PoolDocument
	// alone keeps the change from sharing a write with others: the data plane
	// has to take it over before the next one.
	alone bool
	// finish removes what nothing needs any more, when the data plane has let
	// go of it.
	finish func()
}

// mutation is a change that waits for its turn.
type mutation struct {
	plan func(*array.State) (*change, error)
	done chan struct{}

	change *change
	undo   func() error
	err    error
}

// queue collects mutations; one of those who wait carries all of them out together, so that
// they share one write.
type queue struct {
	mu      sync.Mutex
	waiting []*mutation
	busy    bool
	closed  bool
	idle    chan struct{} // closed when it is not busy after close
}

var errClosing = array.Errorf(array.KindUnavailable, "the array is stopping: try again when it is back")

// mutate plans a change and, unless dryRun, makes it. It returns when the change is on stable storage
// and the data plane was given it; where that has not taken over all of it, a warning in the
// plan says so. ctx is looked at before the change, not during it.
func (a *Agent) mutate(ctx context.Context, dryRun bool, plan func(*array.State) (*change, error)) (*change, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if dryRun {
		return a.rehearse(ctx, plan)
	}
	m := &mutation{plan: plan, done: make(chan struct{})}
	q := &a.queue
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil, errClosing
	}
	q.waiting = append(q.waiting, m)
	if !q.busy {
		q.busy = true
		go a.work()
	}
	q.mu.Unlock()
	<-m.done
	return m.change, m.err
}

// rehearse plans a change and refuses what would be refused if it were made now, as far as that can
// be told without making it.
func (a *Agent) rehearse(ctx context.Context, plan func(*array.State) (*change, error)) (*change, error) {
	if err := a.answers(ctx); err != nil {
		return nil, nothingChanged(err)
	}
	c, err := plan(a.state.Load())
	if err == nil && c.check != nil {
		err = c.check()
	}
	return c, err
}

// work carries out what waits until nothing does.
func (a *Agent) work() {
	q := &a.queue
	for {
		q.mu.Lock()
		batch := q.waiting
		q.waiting = nil
		if len(batch) == 0 {
			q.busy = false
			if q.idle != nil {
				close(q.idle)
			}
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		for len(batch) > 0 {
			batch = batch[a.commitSome(batch):]
		}
	}
}

// close refuses new mutations and waits for the others.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	var wait chan struct{}
	if q.busy {
		if q.idle == nil {
			q.idle = make(chan struct{})
		}
		wait = q.idle
	}
	q.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

// commitSome carries out one or more mutations from the head of the batch with one write, and
// returns how many. Those that concern another pool than the system pool go alone,
// for two pools cannot be written as one, and so do those that ask for it.
func (a *Agent) commitSome(batch []*mutation) (n int) {
	if err := a.ready(); err != nil {
		for _, m := range batch {
			m.finish(nil, err)
		}
		return len(batch)
	}
	base := a.state.Load()
	state := base
	var together []*mutation
	for _, m := range batch {
		c, err := m.plan(state)
		if err != nil {
			n++
			m.finish(nil, err)
			continue
		}
		alone := c.alone || c.drop != nil || !onlySystem(state, c.state)
		if alone && len(together) > 0 {
			break // its plan is made again in the next round
		}
		n++
		m.change = c
		if c.prepare != nil {
			if m.undo, err = c.prepare(); err != nil {
				m.finish(nil, err)
				continue
			}
		}
		state = c.state
		together = append(together, m)
		if alone {
			break
		}
	}
	if len(together) > 0 && state != base {
		a.commitTogether(base, state, together)
	}
	for _, m := range together {
		m.finish(m.change, nil)
	}
	return n
}

// ready returns an error where the data plane could not take a change over, or has not taken the one
// before: no change is made on top of one that is not in effect.
func (a *Agent) ready() error {
	err := a.answers(context.Background())
	if err == nil && noAnswer(a.lastApply()) {
		a.Reapply(context.Background())
		if err = a.lastApply(); !noAnswer(err) {
			err = nil
		}
	}
	if err != nil {
		return nothingChanged(err)
	}
	return nil
}

func nothingChanged(err error) error { return fmt.Errorf("nothing was changed: %w", err) }

// answers returns an error where the data plane does not say soon that it is there.
func (a *Agent) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return a.plane.Ready(ctx)
}

// lastApply returns what the last Apply has failed with.
func (a *Agent) lastApply() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.applyErr
}

// finish answers a mutation, once.
func (m *mutation) finish(c *change, err error) {
	select {
	case <-m.done:
	default:
		m.change, m.err = c, err
		close(m.done)
	}
}

// commitTogether writes and applies the state that the mutations have made, and answers
// those that fail.
func (a *Agent) commitTogether(base, state *array.State, together []*mutation) {
	state, err := a.tidied(base, state)
	if err == nil {
		state, err = a.persist(base, state, together[0].change.drop)
	}
	if err != nil {
		defer func() {
			for _, m := range together {
				m.finish(nil, err)
			}
		}()
		a.undo(together)
		if state == nil {
			return
		}
	}
	a.state.Store(state)
	if state.Document != base.Document {
		a.copyDocument(state.Document)
	}
	var finish []func()
	for _, m := range together {
		if err == nil && m.change.finish != nil {
			finish = append(finish, m.change.finish)
		}
	}
	if failed := a.apply(context.Background(), finish...); failed != nil {
		for _, m := range together {
			m.change.plan.Warnings = append(m.change.plan.Warnings, fmt.Sprintf("stored, not in effect yet: %v", failed))
		}
	}
}

// undo takes back, last first, the backing stores made for changes that could not be written.
func (a *Agent) undo(together []*mutation) {
	if !a.outcomeKnown() {
		return
	}
	for _, m := range slices.Backward(together) {
		if m.undo == nil {
			continue
		}
		if err := m.undo(); err != nil {
			a.log.Error("undoing a change failed: the next start removes what is left", "error", err)
		}
	}
}

// outcomeKnown reports whether a write that failed has certainly not reached the medium. After a
// failed sync the documents may be there after a restart, and then need the
// backing stores made for them.
func (a *Agent) outcomeKnown() bool {
	return !slices.ContainsFunc(a.openedPools(), func(p *pool.Pool) bool { return p.Err() != nil })
}

// onlySystem reports whether two states differ in the array's document and the system
// pool's at most.
func onlySystem(before, after *array.State) bool {
	if len(before.Pools) != len(after.Pools) {
		return false
	}
	for i, p := range after.Pools {
		if p != before.Pools[i] && !p.System {
			return false
		}
	}
	return true
}

// persist writes what differs between the states: the system pool with the array's document first,
// then another pool. It returns the state that is on stable storage then: where it
// fails, nil for none of the change, or a state with the part that was written.
func (a *Agent) persist(before, after *array.State, drop *array.PoolDocument) (*array.State, error) {
	var system, other *array.PoolDocument
	for _, p := range after.Pools {
		switch {
		case p.System:
			system = p
		case !slices.Contains(before.Pools, p):
			other = p
		}
	}
	p, err := a.Pool(system.ID)
	if err != nil {
		return nil, err
	}
	if err := p.Commit(system, after.Document); err != nil {
		return nil, err
	}
	switch {
	case drop != nil:
		err = a.removePool(drop)
	case other != nil:
		if p, err = a.Pool(other.ID); err == nil {
			err = p.Commit(other, after.Document)
		}
	}
	if err == nil {
		return after, nil
	}
	if after.Document == before.Document {
		return nil, err
	}
	part, partErr := array.NewState(after.Document, before.Pools)
	if partErr != nil {
		return nil, errors.Join(err, partErr)
	}
	return part, fmt.Errorf("the array's configuration was changed, the pool was not: %w", err)
}

func (a *Agent) removePool(doc *array.PoolDocument) error {
	p, err := a.Pool(doc.ID)
	if err != nil {
		return err
	}
	if err := p.Remove(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.pools, doc.ID)
	delete(a.tidy, doc.ID)
	return nil
}

// tidying is work done that a pool's document still lists as to do.
type tidying struct{ removed, cut []string }

// tidied takes what is done out of the documents of pools that are written anyway. What the
// change itself asks to be cut is not done, even if it was cut before.
func (a *Agent) tidied(before, after *array.State) (*array.State, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var err error
	for _, p := range after.Pools {
		if t := a.tidy[p.ID]; t != nil && !slices.Contains(before.Pools, p) {
			delete(a.tidy, p.ID)
			t.cut = slices.DeleteFunc(t.cut, func(id string) bool {
				was, _ := before.VolumeByID(id)
				is, _ := after.VolumeByID(id)
				return was == nil || is == nil || was.Size != is.Size
			})
			if after, err = after.Tidy(p.ID, t.removed, t.cut); err != nil {
				return nil, err
			}
		}
	}
	return after, nil
}

// done notes work that the pool's document need not list any more.
func (a *Agent) done(poolID string, note func(*tidying)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tidy[poolID]
	if t == nil {
		t = new(tidying)
		a.tidy[poolID] = t
	}
	note(t)
}

// Reapply gives the configuration as of now to the data plane, which may have been away.
func (a *Agent) Reapply(ctx context.Context) { _ = a.apply(ctx) } // it is an alert

// apply gives the state to the data plane, and then finishes the changes that wait for that.
// Where there is no answer they wait for the next time: what the data plane has still
// open is not known. It returns, and keeps for the alerts, why not all of the state is in effect,
// and tries again later.
func (a *Agent) apply(ctx context.Context, finish ...func()) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.unfinished = append(a.unfinished, finish...)
	a.mu.Lock()
	closed := a.closed
	a.mu.Unlock()
	if closed {
		return errClosing
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	err := a.plane.Apply(ctx, a.state.Load())
	a.mu.Lock()
	before := a.applyErr
	a.applyErr = err
	if a.again != nil {
		a.again.Stop()
		a.again = nil
	}
	// Whoever follows a data plane that does not answer calls Reapply when it does.
	if err != nil && !noAnswer(err) && !a.closed {
		a.again = time.AfterFunc(a.opts.Retry, func() { a.Reapply(context.Background()) })
	}
	a.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		a.log.Error("the data plane could not take over all of the configuration", "error", err)
	case err == nil && before != nil:
		a.log.Info("the data plane has taken over all of the configuration")
	}
	if noAnswer(err) {
		return err
	}
	for _, f := range a.unfinished {
		f()
	}
	a.unfinished = nil
	return err
}

// copyDocument copies the array's document to the head and to the other pools. A copy that
// fails is an alert, not a failure of the change: the system pool has it.
func (a *Agent) copyDocument(doc *array.Document) {
	note := func(place string, err error) {
		if err != nil {
			a.log.Error("copying the configuration failed", "to", place, "error", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if err == nil {
			delete(a.copyErrs, place)
		} else {
			a.copyErrs[place] = err
		}
	}
	note("head", a.head.Store(doc))
	for _, p := range a.openedPools() {
		if d := p.Document(); !d.System {
			note("pool "+d.Name, copyTo(p, doc))
		}
	}
}

// copyTo stores the document in a pool, unless it has that version.
func copyTo(p *pool.Pool, doc *array.Document) error {
	if has := p.Array(); has.ID == doc.ID && has.Generation == doc.Generation {
		return nil
	}
	return p.Commit(p.Document(), doc)
}
