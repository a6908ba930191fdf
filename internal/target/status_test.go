package target

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/block"
	nvmehost "lintel.io/lintel/internal/initiator/nvme"
	"lintel.io/lintel/internal/unit"
)

// failing is a device whose backing has failed.
type failing struct {
	block.Device
	health block.Health
}

func (f *failing) Health() block.Health { return f.health }

// The health of a device is the volume's, also where it has arrived late and where an initiator
// has marked blocks of it.
func TestVolumeStatusTellsFaults(t *testing.T) {
	want := block.Health{Failed: 3, Fault: &block.Fault{Kind: block.FaultIO, Reason: "broken", Since: time.Unix(1, 0)}}
	f := newFixture(t)
	f.pool.wrap = func(d block.Device) block.Device { return &failing{d, want} }
	var log syncBuffer
	f.tgt.log = slog.New(slog.NewTextHandler(&log, nil))
	v := f.addVolume(1, 1<<20, 0)
	late := f.addVolume(2, 1<<20, 1)
	f.pool.missing[late.ID] = true
	f.apply()
	if got := f.tgt.Volume(late.ID).Health; got != (block.Health{}) {
		t.Errorf("a volume that is not there: %v", got)
	}
	if got := f.tgt.Volume(v.ID); got.Health != want || !got.Online {
		t.Errorf("got %+v", got)
	}
	f.pool.mu.Lock()
	f.pool.missing[late.ID] = false
	f.pool.mu.Unlock()
	for !f.tgt.Volume(late.ID).Online {
		time.Sleep(5 * time.Millisecond)
	}
	f.tgt.mu.Lock()
	u := f.tgt.volumes[late.ID].lu.Unit()
	f.tgt.mu.Unlock()
	if err := u.MarkUncorrectable(0, 1); err != nil {
		t.Fatal(err)
	}
	if got := f.tgt.Volume(late.ID).Health; got != want {
		t.Errorf("got %v", got)
	}
	for !strings.Contains(log.String(), `msg="the storage of a volume fails" volume=vol2 fault=io`) {
		time.Sleep(5 * time.Millisecond)
	}
	if n := strings.Count(log.String(), "volume=vol1 fault=io"); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// TestHangingStorage checks that a volume whose storage hangs keeps neither a change of the
// configuration nor the opening of another volume waiting.
func TestHangingStorage(t *testing.T) {
	for name, threshold := range map[string]uint8{"health": 0, "thin threshold": 50} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			h := newHanging(nil)
			defer close(h.release)
			f.pool.wrap = func(d block.Device) block.Device {
				h.Device = d
				return h
			}
			f.addVolume(1, 1<<20, 0).ThinThreshold = threshold
			f.apply()
			<-h.asked
			f.pool.mu.Lock()
			f.pool.wrap = nil
			f.pool.mu.Unlock()
			late := f.addVolume(2, 1<<20, 1)
			f.pool.missing[late.ID] = true
			f.apply()
			f.pool.mu.Lock()
			f.pool.missing[late.ID] = false
			f.pool.mu.Unlock()
			for !f.tgt.Volume(late.ID).Online {
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

// looked is a device whose looks end as the test says.
type looked struct {
	block.Device
	health atomic.Pointer[block.Health]
	hang   atomic.Pointer[chan struct{}] // nil for none
	broken error                         // of Used
}

func (l *looked) Health() block.Health {
	if hang := l.hang.Load(); hang != nil {
		<-*hang
	}
	return *l.health.Load()
}

func (l *looked) Used() (int64, error) { return 5, l.broken }

func (l *looked) Reopen(_ context.Context, opened func()) error {
	opened()
	return nil
}

// Storage that hangs does not hide that writes are lost, or that its file is another one, until it says otherwise or is
// opened anew; what passes by itself is not told meanwhile.
func TestHangHidesNoLastingFault(t *testing.T) {
	for kind, stays := range map[block.FaultKind]bool{block.FaultLost: true, block.FaultBacking: true, block.FaultIO: false, block.FaultSpace: false} {
		inBubble(t, func(t *testing.T, f *fixture) {
			l := new(looked)
			fault := &block.Fault{Kind: kind, Reason: "what it is", Since: time.Now()}
			l.health.Store(&block.Health{Failed: 1, Fault: fault})
			f.pool.wrap = func(d block.Device) block.Device {
				l.Device = d
				return l
			}
			v := f.addVolume(1, 1<<20, 0)
			f.apply()
			if s := f.tgt.Volume(v.ID); s.Health.Fault != fault || s.Before != nil || s.UsedBytes != 5 {
				t.Errorf("%s: %+v", kind, s)
			}
			hang := make(chan struct{})
			l.hang.Store(&hang)
			for range 2 {
				if s := f.tgt.Volume(v.ID); !s.Online || !hangs(s.Health.Fault) || (s.Before == fault) != stays {
					t.Errorf("%s, hung: %+v", kind, s)
				}
			}
			if err := f.tgt.Reopen(t.Context(), v.ID); err != nil {
				t.Error(err)
			}
			if s := f.tgt.Volume(v.ID); !hangs(s.Health.Fault) || s.Before != nil {
				t.Errorf("%s, opened anew and hung: %+v", kind, s)
			}
			l.health.Store(new(block.Health))
			l.hang.Store(nil)
			close(hang)
			synctest.Wait()
			if s := f.tgt.Volume(v.ID); s.Health.Fault != nil || s.Before != nil {
				t.Errorf("%s, well again: %+v", kind, s)
			}
		})
	}
}

// A volume whose used space cannot be told is offline, and what is wrong below it is told all the same.
func TestHealthBesideUnknownSpace(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fixture) {
		l := &looked{broken: errors.New("the space is not known")}
		want := block.Health{Failed: 3, Fault: &block.Fault{Kind: block.FaultIO, Reason: "broken"}}
		l.health.Store(&want)
		f.pool.wrap = func(d block.Device) block.Device {
			l.Device = d
			return l
		}
		v := f.addVolume(1, 1<<20, 0)
		f.apply()
		if s := f.tgt.Volume(v.ID); s.Online || s.Reason != "the space is not known" || s.Health != want || s.UsedBytes != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

// syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// The time that reads and writes take is measured, over both protocols.
func TestStatsMeasureTime(t *testing.T) {
	f := newFixture(t)
	v := f.addVolume(1, 1<<20, 0)
	f.withNVMe()
	f.apply()
	ctx := context.Background()
	buf := make([]byte, 512)
	const enough = 64 // not every command is measured
	check := func(protocol string, before unit.Stats) unit.Stats {
		t.Helper()
		now := f.tgt.Stats().Volumes[v.ID]
		if now.Reads < before.Reads+enough || now.ReadTime <= before.ReadTime || now.Writes < before.Writes+enough || now.WriteTime <= before.WriteTime {
			t.Errorf("%s: %+v, before %+v", protocol, now, before)
		}
		return now
	}
	s := f.login()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	for range enough {
		if err := errors.Join(s.Read(ctx, 0, 0, 512, buf), s.Write(ctx, 0, 0, 512, buf)); err != nil {
			t.Fatal(err)
		}
	}
	before := check("iSCSI", unit.Stats{})
	q := f.mustConnect(nvmehost.Options{IOQueues: 1}).Queues()[0]
	for range enough {
		if err := errors.Join(q.Read(ctx, 1, 0, 512, buf), q.Write(ctx, 1, 0, 512, buf, 0)); err != nil {
			t.Fatal(err)
		}
	}
	check("NVMe", before)
}

// TestAccessTellsWhatHostsHaveSet checks that the states that SET TARGET PORT GROUPS has set are told as those in effect (SPC-4 §6.45).
func TestAccessTellsWhatHostsHaveSet(t *testing.T) {
	f := newFixture(t)
	if got := f.tgt.Access(f.pd.ID); got != nil {
		t.Errorf("before there is a pool: %v", got)
	}
	f.addVolume(1, 1<<20, 0)
	f.apply()
	check := func(want array.AccessState) {
		t.Helper()
		if got := f.tgt.Access(f.pd.ID); !maps.Equal(got, map[uint16]array.AccessState{1: want}) {
			t.Errorf("got %v, want %s", got, want)
		}
	}
	check(array.Optimized)
	s := f.login()
	ctx := context.Background()
	if err := s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	res, err := s.Do(ctx, 0, setPortGroups, []byte{0, 0, 0, 0, 1, 0, 0, 1}, 0)
	if err != nil || res.Status != 0 {
		t.Fatalf("SET TARGET PORT GROUPS: %+v, %v", res, err)
	}
	check(array.NonOptimized)
	f.apply() // the administrator's choice has not changed
	check(array.NonOptimized)
}

// setPortGroups is SET TARGET PORT GROUPS with 8 bytes of parameters.
var setPortGroups = []byte{0xA4, 0x0A, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0}

// holding is a device that keeps writes until it is let go.
type holding struct {
	block.Device
	begun, letGo, closed chan struct{}
}

func (h *holding) Submit(r *block.Request) {
	if r.Op != block.Write {
		h.Device.Submit(r)
		return
	}
	close(h.begun)
	go func() {
		<-h.letGo
		h.Device.Submit(r)
	}()
}

func (h *holding) Close() error {
	close(h.closed)
	return h.Device.Close()
}

// The device of a volume that was deleted while its storage hangs is closed when that answers.
func TestDeletedVolumeIsClosedLate(t *testing.T) {
	f := newFixture(t)
	h := &holding{begun: make(chan struct{}), letGo: make(chan struct{}), closed: make(chan struct{})}
	f.pool.wrap = func(d block.Device) block.Device { h.Device = d; return h }
	f.addVolume(1, 1<<20, 0)
	f.apply()
	s := f.login()
	if err := s.Ready(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- s.Write(t.Context(), 0, 0, 512, make([]byte, 512)) }()
	<-h.begun
	doc, pd := *f.tgt.State().Document, *f.tgt.State().Pools[0]
	doc.Mappings, pd.Volumes = nil, nil
	state, err := array.NewState(&doc, []*array.PoolDocument{&pd})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.tgt.Apply(ctx, state); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	select {
	case <-h.closed:
		t.Error("closed while a command uses it")
	default:
	}
	close(h.letGo)
	<-h.closed
	<-written
}
