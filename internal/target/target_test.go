package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/unit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memPool is a pool of memory volumes; a volume in missing cannot be opened.
type memPool struct {
	mu      sync.Mutex
	missing map[string]bool
	wrap    func(block.Device) block.Device // nil for none
	blobs   map[string][]byte

	hang    map[string]chan struct{} // by volume id: opening it waits until that is closed
	opening map[string]int           // how often that was begun, by volume id
}

func newMemPool() *memPool {
	return &memPool{missing: map[string]bool{}, blobs: map[string][]byte{}, hang: map[string]chan struct{}{}, opening: map[string]int{}}
}

func (p *memPool) OpenVolume(v *array.Volume) (block.Device, error) {
	p.mu.Lock()
	p.opening[v.ID]++
	if hang := p.hang[v.ID]; hang != nil {
		p.mu.Unlock()
		<-hang
		p.mu.Lock()
	}
	defer p.mu.Unlock()
	if p.missing[v.ID] {
		return nil, errors.New("the backing store is not there")
	}
	if p.wrap != nil {
		return p.wrap(block.NewMem(int64(v.Size))), nil
	}
	return block.NewMem(int64(v.Size)), nil
}

func (p *memPool) openingOf(id string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opening[id]
}

func (p *memPool) Space() (total, free uint64, err error) { return 1 << 40, 1 << 39, nil }

func (p *memPool) load(key string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blobs[key]
}

func (p *memPool) save(key string, blob []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blobs[key] = bytes.Clone(blob)
}

func (p *memPool) LoadReservations(id unit.ID) ([]byte, error) { return p.load("r" + string(id)), nil }
func (p *memPool) SaveReservations(id unit.ID, blob []byte) error {
	p.save("r"+string(id), blob)
	return nil
}
func (p *memPool) LoadSetting(id unit.ID, key string) ([]byte, error) {
	return p.load("s" + string(id) + key), nil
}
func (p *memPool) SaveSetting(id unit.ID, key string, blob []byte) error {
	p.save("s"+string(id)+key, blob)
	return nil
}

// fixture is a Target on a mem pool with one portal on a free port.
type fixture struct {
	t    *testing.T
	pool *memPool
	tgt  *Target
	doc  array.Document
	pd   array.PoolDocument
}

const testIQN = "iqn.2026-11.io.lintel:test"

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, pool: newMemPool()}
	f.doc = array.Document{
		Format: array.Format,
		Object: array.Object{ID: "a000000000001", Rev: 1},
		Name:   "test",
		Target: array.Target{IQN: testIQN, SubsystemNQN: testSubsystem, PortGroups: []array.PortGroup{{ID: 1, Head: "head1"}}},
		Settings: array.Settings{
			NAAPrefix: array.DefaultNAAPrefix,
		},
	}
	f.pd = array.PoolDocument{
		Format: array.Format, Object: array.Object{ID: "p000000000001", Rev: 1}, Name: "default",
		Kind: array.PoolFile, ArrayID: f.doc.ID, System: true, Extent: 1 << 20,
	}
	tgt, err := New(Config{Pool: func(string) (Pool, error) { return f.pool, nil }, Revision: "1", Retry: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	f.tgt = tgt
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := tgt.Close(ctx); err != nil {
			t.Error(err)
		}
		tgt.Wait()
	})
	f.doc.Portals = []*array.Portal{{Object: array.Object{ID: "l1"}, Address: netip.MustParseAddr("127.0.0.1"), Port: freePort(t), Tag: 1, Protocol: array.ISCSI}}
	f.doc.Hosts = []*array.Host{{Object: array.Object{ID: "h1"}, Name: "any", Initiators: []string{"*"}}}
	return f
}

func (f *fixture) addVolume(n int, size uint64, lun uint16) *array.Volume {
	v := &array.Volume{
		Object: array.Object{ID: fmt.Sprintf("p000000000001-%d", n)}, Name: fmt.Sprintf("vol%d", n), Kind: array.VolumeMem,
		Size: size, BlockSize: 512, PhysicalExponent: 3, NAA: fmt.Sprintf("6024c4e%09x%016x", n, n), T10ID: fmt.Sprintf("vol%d", n),
		Serial: fmt.Sprintf("S%d", n), Vendor: array.DefaultVendor, Product: array.DefaultProduct, Thin: true,
	}
	f.pd.Volumes = append(f.pd.Volumes, v)
	f.doc.Mappings = append(f.doc.Mappings, &array.Mapping{Object: array.Object{ID: fmt.Sprintf("m%d", n)}, Volume: v.ID, Host: "h1", LUN: lun})
	return v
}

// apply gives the target a snapshot of the fixture's documents.
func (f *fixture) apply() {
	f.t.Helper()
	if err := f.tryApply(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) tryApply() error { return f.applyWithin(context.Background()) }

func (f *fixture) applyWithin(ctx context.Context) error {
	f.t.Helper()
	doc, pd := f.doc, f.pd
	doc.Portals = append([]*array.Portal(nil), f.doc.Portals...)
	doc.Hosts = append([]*array.Host(nil), f.doc.Hosts...)
	doc.Mappings = append([]*array.Mapping(nil), f.doc.Mappings...)
	pd.Volumes = append([]*array.Volume(nil), f.pd.Volumes...)
	doc.Next = array.Counters{Host: 99, HostGroup: 99, Mapping: 99, Portal: 99, PortalTag: 99}
	pd.NextVolume = 9999
	s, err := array.NewState(&doc, []*array.PoolDocument{&pd})
	if err != nil {
		f.t.Fatal(err)
	}
	return f.tgt.Apply(ctx, s)
}

func (f *fixture) addr() string { return f.doc.Portals[0].AddrPort().String() }
