package history_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/history"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/sbc"
	"lintel.io/lintel/internal/scsi/scsitest"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// nexus is a target whose commands go straight to the device server.
type nexus struct{ *scsitest.Nexus }

var _ history.Target = nexus{}

func (n nexus) do(op, flags byte, lba uint64, out []byte) (scsitest.Result, error) {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = op, flags
	wire.PutUint64(cdb[2:], lba)
	if op != wire.OpSynchronizeCache16 {
		cdb[13] = 1
	}
	r := n.Do(0, cdb, out)
	switch {
	case r.Is(wire.KeyMiscompare, wire.MiscompareDuringVerify):
		return r, history.ErrMiscompare
	case r.Status != scsi.StatusGood || r.Aborted:
		return r, errors.New(r.String())
	}
	return r, nil
}

func (n nexus) Read(_ context.Context, lba uint64, p []byte) error {
	r, err := n.do(wire.OpRead16, 0, lba, nil)
	copy(p, r.In)
	return err
}

func (n nexus) Write(_ context.Context, lba uint64, p []byte, fua bool) error {
	flags := byte(0)
	if fua {
		flags = 8
	}
	_, err := n.do(wire.OpWrite16, flags, lba, p)
	return err
}

func (n nexus) CompareAndWrite(_ context.Context, lba uint64, expect, p []byte) error {
	_, err := n.do(wire.OpCompareAndWrite, 0, lba, append(bytes.Clone(expect), p...))
	return err
}

func (n nexus) Flush(context.Context) error {
	_, err := n.do(wire.OpSynchronizeCache16, 0, 0, nil)
	return err
}

// cheat is a device that says that it has flushed.
type cheat struct{ block.Device }

func (c cheat) Submit(r *block.Request) {
	r.Flags &^= block.FUA
	if r.Op == block.Flush {
		r.Err = nil
		r.Done.RequestDone(r)
		return
	}
	c.Device.Submit(r)
}

// cutPower runs two initiators on a unit whose device loses its volatile cache
// again and again, and judges what they saw.
func cutPower(t *testing.T, wrap func(block.Device) block.Device) error {
	t.Helper()
	var faulty *blocktest.Faulty
	bench := scsitest.New(t, scsitest.Config{
		Families: [][]scsi.Command{sbc.Commands()},
		Device: func(_ int, size int64) block.Device {
			faulty = blocktest.NewFaulty(block.NewMem(size))
			return wrap(faulty)
		},
	})
	var log bytes.Buffer
	rec, err := history.NewRecorder(&log, "bench")
	if err != nil {
		t.Fatal(err)
	}
	a, b := nexus{bench.Nexus("a", 1)}, nexus{bench.Nexus("b", 2)}
	cfg := history.Config{
		Recorder: rec, FirstClient: 1, Clients: 2, Blocks: 4, BlockSize: 512, Pause: time.Microsecond,
		Mix: history.Mix{Read: 40, Write: 25, WriteFUA: 10, CompareAndWrite: 20, Flush: 5},
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for i, n := range []nexus{a, b} {
		c := cfg
		c.FirstClient = uint32(10*i + 1)
		wg.Go(func() {
			if err := history.Run(ctx, c, n); err != nil {
				t.Error(err)
			}
		})
	}
	for round := range uint32(20) {
		// As many operations as this takes are between two cuts.
		between := cfg
		between.FirstClient, between.Clients, between.Ops, between.Seed = 100+10*round, 1, 100, uint64(round)
		if err := history.Run(ctx, between, a); err != nil {
			t.Fatal(err)
		}
		if round == 19 {
			cancel() // and once without load
			wg.Wait()
		}
		cut := history.Op{Client: 1000, Kind: history.PowerCut}
		if _, err := rec.Do(cut, func(*history.Op) error { faulty.PowerCut(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	cfg.FirstClient = 2000
	if err := history.Sweep(context.Background(), cfg, b); err != nil {
		t.Fatal(err)
	}
	l, err := history.ReadLog(&log)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d operations", len(l.Ops))
	return history.Check(l.Ops, time.Minute)
}

// TestPowerCutsUnderLoad checks SYNCHRONIZE CACHE and FUA through power failures (SBC-3 §4.15).
func TestPowerCutsUnderLoad(t *testing.T) {
	if err := cutPower(t, func(dev block.Device) block.Device { return dev }); err != nil {
		t.Error(err)
	}
}

func TestCheatingDeviceIsRejected(t *testing.T) {
	err := cutPower(t, func(dev block.Device) block.Device { return cheat{dev} })
	v, ok := errors.AsType[*history.Violation](err)
	if !ok {
		t.Fatalf("a device that does not flush is not rejected: %v", err)
	}
	t.Log(v)
}
