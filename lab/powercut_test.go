package lab_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lintel.io/lintel/internal/history"
	"lintel.io/lintel/lab"
)

// Blocks that only cutPower writes, each in a page of its own of the head's cache.
const (
	flushedBlock = 8
	fuaBlock     = 16
	dirtyBlock   = 24
)

// cutPower takes the power from a guest, after writes of which all but those of the
// dirty block are stable, and records it.
func (w *workload) cutPower(ctx context.Context, recorder *history.Recorder) error {
	p, err := w.dial(ctx, 0)
	if err != nil {
		return err
	}
	defer p.Drop()
	b := make([]byte, p.BlockSize())
	ops := []history.Op{
		{Kind: history.Write, Block: flushedBlock},
		{Kind: history.Flush},
		{Kind: history.Write, Block: fuaBlock, FUA: true},
	}
	for range 50 { // meanwhile the others write as well
		ops = append(ops, history.Op{Kind: history.Write, Block: dirtyBlock})
	}
	for i, op := range append(ops, history.Op{Kind: history.PowerCut}) {
		op.Client = w.client(0)
		if op.Kind == history.Write {
			op.Value = history.NewValue(op.Client, uint32(i+1))
			history.Fill(b, op.Block, op.Value)
		}
		op, err := recorder.Do(op, func(op *history.Op) error {
			switch op.Kind {
			case history.Write:
				return p.Write(ctx, op.Block, b, op.FUA)
			case history.Flush:
				return p.Flush(ctx)
			}
			_, err := lab.AskKeeper(ctx, lab.KeeperAddress, "off "+w.Cut)
			return err
		})
		if err != nil {
			return err
		}
		if op.Outcome != history.OK {
			return errors.New(op.String())
		}
	}
	return nil
}

// sweep reads each block.
func (w *workload) sweep(ctx context.Context, recorder *history.Recorder) error {
	p, err := w.dial(ctx, 0)
	if err != nil {
		return err
	}
	defer p.Drop()
	return history.Sweep(ctx, history.Config{
		Recorder: recorder, FirstClient: w.client(0), Blocks: w.Blocks, BlockSize: p.BlockSize(),
	}, p)
}

// alone runs on the first host what ends by itself and returns what it saw.
func (c *contended) alone(t *testing.T, w workload) history.Log {
	t.Helper()
	h := c.hosts[0]
	sh(t, h, "mkdir %s", w.Dir)
	_, err := h.Run(within(t, 2*time.Minute), w.argv(t)...)
	must(t, err)
	return readLog(t, h, w)
}

// powerCut takes the power from the head in the middle of a workload, which goes on
// when the head is back, and returns what the hosts saw. What lies, where it is not
// nil, is called before.
func (c *contended) powerCut(t *testing.T, lun uint16, mix history.Mix, lies func()) []history.Log {
	t.Helper()
	head := c.array.Machine
	both := c.start(t, lun, mix)
	if lies != nil {
		lies()
	}
	c.answered(t, 10, both...)
	cut := c.workload(0, lun)
	cut.Cut = head.Name
	logs := []history.Log{c.alone(t, cut)}
	must(t, head.PowerOn(within(t, 4*time.Minute)))
	c.mount(t, head)
	must(t, c.array.Up(within(t, 2*time.Minute)))
	c.answered(t, 10, both...)
	sweep := c.workload(0, lun)
	sweep.Sweep, sweep.Blocks = true, dirtyBlock+1
	logs = append(logs, c.alone(t, sweep))
	return append(logs, c.end(t, both)...)
}

// TestLinearizableThroughPowerCuts checks SYNCHRONIZE CACHE and FUA of a volume with a
// write cache, which two hosts write while its head loses its power (SBC-3 §4.15).
func TestLinearizableThroughPowerCuts(t *testing.T) {
	t.Parallel()
	c := newContended(t)
	c.shared(t, "sound", 1)
	c.shared(t, "liar", 2)

	t.Run("a head that loses its power is accepted", func(t *testing.T) {
		// Once with flushes under way, and once with much that was not flushed.
		logs := c.powerCut(t, 1, history.DefaultMix, nil)
		logs = append(logs, c.powerCut(t, 1, history.Mix{Read: 4, Write: 3, CompareAndWrite: 3}, nil)...)
		ops, err := history.Merge(logs...)
		must(t, err)
		hardEnough(t, ops)
		must(t, history.Check(ops, time.Minute))
	})
	t.Run("a head whose disk lies about flushes is rejected", func(t *testing.T) {
		ops, err := history.Merge(c.powerCut(t, 2, history.DefaultMix, func() { must(t, c.disk.DropWrites(within(t, time.Minute))) })...)
		must(t, err)
		rejected(t, ops)
		for _, block := range []uint64{flushedBlock, fuaBlock} {
			rejected(t, slices.DeleteFunc(slices.Clone(ops), func(op history.Op) bool { return !whole(op) && op.Block != block }))
		}
	})
}

// whole reports whether an operation concerns every block.
func whole(op history.Op) bool { return op.Kind >= history.Flush }

// hardEnough checks that a history of two power cuts was a test of them.
func hardEnough(t *testing.T, ops []history.Op) {
	t.Helper()
	isCut := func(op history.Op) bool { return op.Kind == history.PowerCut }
	first := ops[slices.IndexFunc(ops, isCut)]
	var last history.Op
	var flushed int64 // before the last cut
	for _, op := range ops {
		if isCut(op) {
			last = op
		}
	}
	for _, op := range ops {
		if op.Kind == history.Flush && op.Return < last.Call {
			flushed = max(flushed, op.Return)
		}
	}
	count := map[string]int{
		"flush before the first cut": 0, "FUA write before the first cut": 0, "write between the cuts": 0,
		"write between the last flush and the last cut": 0, "write after the last cut": 0, "operation without an answer": 0,
	}
	var stored, found history.Value
	for _, op := range ops {
		switch {
		case op.Outcome == history.Unknown:
			count["operation without an answer"]++
		case op.Kind == history.Flush && op.Return < first.Call:
			count["flush before the first cut"]++
		case op.Kind != history.Write: // nothing to count
		case op.FUA && op.Return < first.Call:
			count["FUA write before the first cut"]++
		case op.Call > flushed && op.Return < last.Call:
			count["write between the last flush and the last cut"]++
		case op.Call > first.Return && op.Return < last.Call:
			count["write between the cuts"]++
		case op.Call > last.Return:
			count["write after the last cut"]++
		}
		if op.Block == dirtyBlock {
			if op.Kind == history.Write {
				stored = op.Value
			} else {
				found = op.Value
			}
		}
	}
	t.Log(count)
	for what, n := range count {
		if n == 0 {
			t.Errorf("no %s: the test is too easy", what)
		}
	}
	if first == last || stored == found {
		t.Errorf("%s was not flushed and is there after the last power cut: the test is too easy", stored)
	}
}

// rejected checks that the judge misses a write after a power cut.
func rejected(t *testing.T, ops []history.Op) {
	t.Helper()
	err := history.Check(ops, time.Minute)
	violation, ok := errors.AsType[*history.Violation](err)
	if !ok {
		t.Fatalf("the judge says of writes that were stable and are lost: %v", err)
	}
	contains(t, violation.Error(), "write", "power cut", fmt.Sprintf("block %d", violation.Block))
	t.Logf("%s", strings.TrimSpace(violation.Error()))
}
