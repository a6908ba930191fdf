package iscsi_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/history"
	"lintel.io/lintel/internal/history/iscsi"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
	"lintel.io/lintel/internal/target"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memPool keeps volumes in memory and saves nothing.
type memPool struct {
	wrap func(block.Device) block.Device
}

func (p memPool) OpenVolume(v *array.Volume) (block.Device, error) {
	return p.wrap(block.NewMem(int64(v.Size))), nil
}

func correct(dev block.Device) block.Device { return dev }

// dropper acknowledges every hundredth write without storing it.
type dropper struct {
	block.Device
	writes atomic.Int64
}

func (d *dropper) Submit(r *block.Request) {
	if r.Op == block.Write && d.writes.Add(1)%100 == 0 {
		r.Err = nil
		r.Done.RequestDone(r)
		return
	}
	d.Device.Submit(r)
}

func (memPool) Space() (total, free uint64, err error)             { return 1 << 40, 1 << 39, nil }
func (memPool) LoadReservations(unit.ID) ([]byte, error)           { return nil, nil }
func (memPool) SaveReservations(unit.ID, []byte) error             { return nil }
func (memPool) LoadSetting(unit.ID, string) ([]byte, error)        { return nil, nil }
func (memPool) SaveSetting(id unit.ID, key string, b []byte) error { return nil }

const testIQN = "iqn.2026-11.io.lintel:history"

// serve runs a data plane with a volume as LUN 1 of each host and returns its address.
func serve(t *testing.T, wrap func(block.Device) block.Device) string {
	t.Helper()
	tgt, err := target.New(target.Config{Pool: func(string) (target.Pool, error) { return memPool{wrap}, nil }, Revision: "1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := tgt.Close(ctx); err != nil {
			t.Error(err)
		}
		tgt.Wait()
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	doc := array.Document{
		Format: array.Format, Object: array.Object{ID: "a000000000001", Rev: 1}, Name: "test",
		Target:   array.Target{IQN: testIQN, PortGroups: []array.PortGroup{{ID: 1, Head: "head1"}}},
		Settings: array.Settings{NAAPrefix: array.DefaultNAAPrefix},
		Portals:  []*array.Portal{{Object: array.Object{ID: "l1"}, Address: netip.MustParseAddr("127.0.0.1"), Port: address.Port(), Tag: 1}},
		Hosts:    []*array.Host{{Object: array.Object{ID: "h1"}, Name: "any", Initiators: []string{"*"}}},
		Mappings: []*array.Mapping{{Object: array.Object{ID: "m1"}, Volume: "p000000000001-1", Host: "h1", LUN: 1}},
		Next:     array.Counters{Host: 2, HostGroup: 2, Mapping: 2, Portal: 2, PortalTag: 2},
	}
	pool := array.PoolDocument{
		Format: array.Format, Object: array.Object{ID: "p000000000001", Rev: 1}, Name: "default",
		Kind: array.PoolFile, ArrayID: doc.ID, System: true, Extent: 1 << 20, NextVolume: 2,
		Volumes: []*array.Volume{{
			Object: array.Object{ID: "p000000000001-1"}, Name: "vol1", Kind: array.VolumeMem, Size: 1 << 20, BlockSize: 512,
			PhysicalExponent: 3, NAA: "6024c4e0000000010000000000000001", T10ID: "vol1", Serial: "S1",
			Vendor: array.DefaultVendor, Product: array.DefaultProduct, Thin: true,
		}},
	}
	s, err := array.NewState(&doc, []*array.PoolDocument{&pool})
	if err != nil {
		t.Fatal(err)
	}
	if err := tgt.Apply(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	return address.String()
}

// faulty is a path that fails again and again under the load of its clients.
type faulty struct {
	*iscsi.Path
	ops    atomic.Int64
	faults atomic.Int64
}

func (f *faulty) count() {
	if f.ops.Add(1)%100 == 0 {
		f.faults.Add(1)
		f.Drop()
	}
}

func (f *faulty) Read(ctx context.Context, block uint64, p []byte) error {
	f.count()
	return f.Path.Read(ctx, block, p)
}

func (f *faulty) Write(ctx context.Context, block uint64, p []byte, fua bool) error {
	f.count()
	return f.Path.Write(ctx, block, p, fua)
}

func (f *faulty) CompareAndWrite(ctx context.Context, block uint64, expect, p []byte) error {
	f.count()
	return f.Path.CompareAndWrite(ctx, block, expect, p)
}

// contend runs two hosts, each with a path of its own that fails again and again,
// and returns their history.
func contend(t *testing.T, address string) []history.Op {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var logs [2]bytes.Buffer
	var paths [2]*faulty
	var wg sync.WaitGroup
	for i := range logs {
		opts := initiator.Options{Target: testIQN, Initiator: initiator.DefaultInitiatorName + string(rune('1'+i))}
		if i == 0 { // the other leaves its lost sessions to the target
			opts.ISID = wire.ISID{0x80, 0, 0, 1, 0, 1}
		}
		p, err := iscsi.Dial(ctx, address, opts, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Drop()
		paths[i] = &faulty{Path: p}
		rec, err := history.NewRecorder(&logs[i], "host"+string(rune('1'+i)))
		if err != nil {
			t.Fatal(err)
		}
		cfg := history.Config{
			Recorder: rec, FirstClient: uint32(100*i + 1), Clients: 4, Blocks: 3, BlockSize: p.BlockSize(), Ops: 500,
			Seed: uint64(i), Pause: time.Millisecond,
		}
		wg.Go(func() {
			if err := history.Run(ctx, cfg, paths[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var read [2]history.Log
	for i := range logs {
		var err error
		if read[i], err = history.ReadLog(&logs[i]); err != nil {
			t.Fatal(err)
		}
	}
	ops, err := history.Merge(read[0], read[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d operations, %d + %d faults", len(ops), paths[0].faults.Load(), paths[1].faults.Load())
	return ops
}

// TestPathFaults checks reads, writes and COMPARE AND WRITE of two initiators while
// sessions fail and are reinstated (SBC-3 §5.2, RFC 7143 §6.3.5).
func TestPathFaults(t *testing.T) {
	ops := contend(t, serve(t, correct))
	type ending struct {
		kind    history.Kind
		outcome history.Outcome
	}
	count := make(map[ending]int)
	for _, op := range ops {
		count[ending{op.Kind, op.Outcome}]++
	}
	for _, e := range []ending{
		{history.Read, history.OK}, {history.Write, history.OK}, {history.CompareAndWrite, history.OK}, {history.Flush, history.OK},
		{history.CompareAndWrite, history.Miscompare}, {history.Write, history.Unknown},
	} {
		if count[e] == 0 {
			t.Errorf("no %s ended with %s: the test is too easy", e.kind, e.outcome)
		}
	}
	if err := history.Check(ops, time.Minute); err != nil {
		t.Error(err)
	}
}

func TestDroppedWriteIsRejected(t *testing.T) {
	ops := contend(t, serve(t, func(dev block.Device) block.Device { return &dropper{Device: dev} }))
	err := history.Check(ops, time.Minute)
	v, ok := errors.AsType[*history.Violation](err)
	if !ok {
		t.Fatalf("an array that drops writes is not rejected: %v", err)
	}
	t.Log(v)
}

func TestDialFails(t *testing.T) {
	address := serve(t, correct)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := iscsi.Dial(ctx, address, initiator.Options{Target: testIQN}, 2); err == nil {
		t.Error("LUN 2 is there")
	}
	if _, err := iscsi.Dial(ctx, address, initiator.Options{Target: testIQN + "x"}, 1); err == nil {
		t.Error("another target is there")
	}
}

func TestNoPath(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p, err := iscsi.Dial(ctx, serve(t, correct), initiator.Options{Target: testIQN}, 1)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, p.BlockSize())
	if err := p.Write(ctx, 1<<20, b, true); err == nil {
		t.Error("a block beyond the end was written")
	}
	p.Drop()
	cancel()
	for name, err := range map[string]error{
		"read": p.Read(ctx, 0, b), "write": p.Write(ctx, 0, b, false),
		"compare and write": p.CompareAndWrite(ctx, 0, b, b), "flush": p.Flush(ctx),
	} {
		if err == nil {
			t.Errorf("%s without a path", name)
		}
	}
}
