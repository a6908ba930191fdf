package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/control"
	"lintel.io/lintel/internal/pool"
)

// RunTarget serves the volumes of the array in the data directory, as its documents say
// there, until ctx is done, and then ends in good order. An agent may manage it, or come and
// go; where there is no array yet, it waits for one that makes it. config has been validated.
func RunTarget(ctx context.Context, config TargetConfig, out, logTo io.Writer) (err error) {
	r, err := begin(config.Common, logTo, TargetRole)
	if err != nil {
		return err
	}
	defer r.end(&err)
	data, err := newDataPlane(config.DataDir, r.log)
	if err != nil {
		return err
	}
	r.undo.add(data.close)
	state, err := data.load(ctx)
	if err != nil {
		return fmt.Errorf("open the array in %s: %w", config.DataDir, err)
	}
	if state == nil {
		r.log.Info("there is no array yet: waiting for lintel agent serve to make one")
	} else if err := data.Apply(ctx, state); err != nil {
		r.log.Error("the data plane could not take over all of the configuration", "error", err)
	}
	r.stopListening()
	if err := r.listen(config.Control, control.NewHandler(data, Version())); err != nil {
		return err
	}
	status := "waiting for the configuration"
	if state != nil {
		status = "serving " + state.Document.Target.IQN
	}
	printTarget(out, config, state, data)
	return r.run(ctx, status)
}

// Reading the documents while an agent changes them.
const (
	loadTries = 20
	loadPause = 50 * time.Millisecond
)

// load opens the pools and returns the state that their documents make, nil for no array. A
// manager may be writing the documents at the same time, one pool after the other, so
// that what does not fit together is read again.
func (d *dataPlane) load(ctx context.Context) (*array.State, error) {
	for try := 1; ; try++ {
		state, err := d.loadOnce()
		if err == nil || try == loadTries {
			return state, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(loadPause):
		}
	}
}

func (d *dataPlane) loadOnce() (_ *array.State, err error) {
	var pools []*pool.Data
	defer func() {
		if err != nil {
			for _, p := range pools {
				err = errors.Join(err, p.Close())
			}
		}
	}()
	head, err := pool.ReadHeadCopy(filepath.Join(filepath.Dir(d.dir), pool.HeadDir))
	if err != nil {
		return nil, err
	}
	dirs, err := pool.List(d.dir)
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		p, err := pool.OpenData(dir)
		if err != nil {
			return nil, err
		}
		pools = append(pools, p)
	}
	if len(pools) == 0 {
		if head != nil {
			return nil, fmt.Errorf("the data directory belongs to array %s, but its pools are gone from %s: bring them back", head.Name, d.dir)
		}
		return nil, nil
	}
	state, err := pool.State(pools, head)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range pools {
		d.pools[p.ID()] = p
	}
	return state, nil
}

// printTarget says what is served and where.
func printTarget(out io.Writer, config TargetConfig, state *array.State, data *dataPlane) {
	if state == nil {
		fmt.Fprintf(out, "lintel %s is the target in %s and waits for an array\n\n", Version(), config.DataDir)
	} else {
		fmt.Fprintf(out, "lintel %s is the target of array %s\n\n", Version(), state.Document.Name)
		printLine(out, "target", state.Document.Target.IQN)
		portals := slices.SortedFunc(slices.Values(state.Document.Portals), func(a, b *array.Portal) int { return a.AddrPort().Compare(b.AddrPort()) })
		for _, p := range portals {
			at := fmt.Sprintf("%s %s", p.AddrPort(), p.Protocol)
			if s := data.target.Portal(p.ID); !s.Listening.IsValid() {
				at += fmt.Sprintf(" (not listening: %s)", s.Reason)
			}
			printLine(out, "portal", at)
		}
	}
	printLine(out, "control", "unix:"+config.Control)
	printLine(out, "data", config.DataDir)
	fmt.Fprintf(out, "\nManage:\n  lintel agent serve --data-dir %s\n\n", quote(config.DataDir))
}
