package unit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lintel.io/lintel/internal/block"
)

// fakeDevice is a device without content.
type fakeDevice struct {
	mu     sync.Mutex
	info   block.Info
	size   int64
	fail   error
	closed int
}

var _ block.Device = (*fakeDevice)(nil)

func (d *fakeDevice) Info() block.Info { return d.info }
func (d *fakeDevice) Size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}
func (d *fakeDevice) Submit(r *block.Request)                    { r.Done.RequestDone(r) }
func (d *fakeDevice) Extent(_, limit int64) (bool, int64, error) { return true, limit, nil }
func (d *fakeDevice) Used() (int64, error)                       { return 0, nil }
func (d *fakeDevice) Close() error                               { d.closed++; return nil }
func (d *fakeDevice) Resize(size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail == nil {
		d.size = size
	}
	return d.fail
}

// fakeWatcher collects events; it ends its tasks when told to.
type fakeWatcher struct {
	initiator Initiator
	mu        sync.Mutex
	events    []Event
	aborts    []func()
}

func (w *fakeWatcher) Initiator() Initiator { return w.initiator }
func (w *fakeWatcher) UnitEvent(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}
func (w *fakeWatcher) AbortTasks(done func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.aborts = append(w.aborts, done)
}

func (w *fakeWatcher) take() []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.events
	w.events = nil
	return e
}

func (w *fakeWatcher) wantEvents(t *testing.T, want ...Event) {
	t.Helper()
	if got := w.take(); !slices.Equal(got, want) {
		t.Errorf("events of %s: got %v, want %v", w.initiator.Name, got, want)
	}
}

func testAttributes() Attributes {
	return Attributes{
		NAA:       GenerateNAA(DefaultPrefix, "v1", nil),
		EUI64:     GenerateEUI64(DefaultPrefix, "v1"),
		T10ID:     "v1",
		Serial:    GenerateSerial("v1"),
		Vendor:    "LINTEL",
		Product:   "VIRTUAL-DISK",
		Revision:  "0001",
		BlockSize: 512,
	}
}

func newTestUnit(t testing.TB, change ...func(*Config)) *Unit {
	t.Helper()
	c := Config{
		ID:         "v1",
		Attributes: testAttributes(),
		Device:     &fakeDevice{size: 1 << 20, info: block.Info{BlockSize: 1}},
		Group:      NewGroup(1, "p1"),
	}
	for _, f := range change {
		f(&c)
	}
	u, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestNew(t *testing.T) {
	u := newTestUnit(t)
	if u.ID() != "v1" || u.BlockSize() != 512 || u.BlockShift() != 9 || u.Blocks() != 2048 || u.ReadOnly() {
		t.Errorf("unit is %v %v %v %v", u.ID(), u.BlockSize(), u.BlockShift(), u.Blocks())
	}
	if got := u.Group().Units(); len(got) != 1 || got[0] != u {
		t.Errorf("units of the group: %v", got)
	}
	if u.Device().Size() != 1<<20 {
		t.Error("wrong device")
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if n := u.Device().(*fakeDevice).closed; n != 1 {
		t.Errorf("device closed %d times", n)
	}
	if len(u.Group().Units()) != 0 {
		t.Error("closed unit is still in its group")
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no id":            func(c *Config) { c.ID = "" },
		"no device":        func(c *Config) { c.Device = nil },
		"no group":         func(c *Config) { c.Group = nil },
		"bad attributes":   func(c *Config) { c.Attributes.NAA = nil },
		"device blocks":    func(c *Config) { c.Device = &fakeDevice{info: block.Info{BlockSize: 4096}} },
		"bad reservations": func(c *Config) { c.Reservations = &fakeStore{blob: []byte("rubbish")} },
		"store fails":      func(c *Config) { c.Reservations = &fakeStore{err: errors.New("no")} },
	} {
		c := Config{ID: "v1", Attributes: testAttributes(), Device: &fakeDevice{info: block.Info{BlockSize: 1}}, Group: NewGroup(1, "p")}
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestResize(t *testing.T) {
	u := newTestUnit(t)
	w := &fakeWatcher{}
	u.Attach(w)
	if err := u.Resize(4096); err != nil || u.Blocks() != 4096 || u.Device().Size() != 2<<20 {
		t.Errorf("grow: %v, %d blocks", err, u.Blocks())
	}
	w.wantEvents(t, EventCapacity)
	if err := u.Resize(4096); err != nil {
		t.Error(err)
	}
	w.wantEvents(t)

	// Shrinking waits for the writes under way.
	var write RangeGuard
	u.Ranges.Shared(&write, 5, 1, nil)
	done := make(chan error)
	go func() { done <- u.Resize(1024) }()
	for !u.Ranges.Atomic() {
	}
	if u.Blocks() != 4096 {
		t.Error("shrunk under a write")
	}
	u.Ranges.Release(&write)
	if err := <-done; err != nil || u.Blocks() != 1024 {
		t.Errorf("shrink: %v, %d blocks", err, u.Blocks())
	}
	w.wantEvents(t, EventCapacity)

	dev := u.Device().(*fakeDevice)
	dev.fail = errors.ErrUnsupported
	if err := u.Resize(512); !errors.Is(err, errors.ErrUnsupported) || u.Blocks() != 1024 {
		t.Errorf("failed shrink: %v, %d blocks", err, u.Blocks())
	}
	for _, n := range []uint64{0, 1 << 62} {
		if err := u.Resize(n); !errors.Is(err, ErrInvalid) {
			t.Errorf("resize to %d: %v", n, err)
		}
	}
	w.wantEvents(t)
	dev.size = 512 * 9
	u.SizeChanged()
	u.SizeChanged()
	if u.Blocks() != 9 {
		t.Errorf("%d blocks", u.Blocks())
	}
	w.wantEvents(t, EventCapacity)
}

func TestSetAttributes(t *testing.T) {
	u := newTestUnit(t)
	set := func(change func(*Attributes)) error {
		a := u.Attributes().Clone()
		change(&a)
		return u.SetAttributes(a)
	}
	if err := set(func(a *Attributes) { a.Serial = "0002" }); err != nil {
		t.Error(err)
	}
	w := &fakeWatcher{}
	u.Attach(w)
	if u.Attached() != 1 {
		t.Error("not attached")
	}
	for name, c := range map[string]struct {
		change func(*Attributes)
		err    error
		events []Event
	}{
		"nothing":       {func(*Attributes) {}, nil, nil},
		"naa":           {func(a *Attributes) { a.NAA[15]++ }, ErrInUse, nil},
		"eui64":         {func(a *Attributes) { a.EUI64 = nil }, ErrInUse, nil},
		"t10":           {func(a *Attributes) { a.T10ID = "x" }, ErrInUse, nil},
		"serial":        {func(a *Attributes) { a.Serial = "x" }, ErrInUse, nil},
		"vendor":        {func(a *Attributes) { a.Vendor = "x" }, ErrInUse, nil},
		"block size":    {func(a *Attributes) { a.BlockSize = 4096 }, ErrInvalid, nil},
		"exponent":      {func(a *Attributes) { a.PhysicalExponent = 3 }, ErrInvalid, nil},
		"invalid":       {func(a *Attributes) { a.Product = "\x01" }, ErrInvalid, nil},
		"product":       {func(a *Attributes) { a.Product = "DISK" }, nil, []Event{EventInquiry}},
		"revision":      {func(a *Attributes) { a.Revision = "2" }, nil, []Event{EventInquiry}},
		"rotational":    {func(a *Attributes) { a.Rotational = true }, nil, []Event{EventInquiry}},
		"read-only":     {func(a *Attributes) { a.ReadOnly = true }, nil, []Event{EventModeParameters}},
		"write-through": {func(a *Attributes) { a.WriteThrough = true }, nil, []Event{EventModeParameters}},
		"thin":          {func(a *Attributes) { a.Thin = true }, nil, []Event{EventInquiry, EventCapacity}},
	} {
		before := u.Attributes()
		if err := set(c.change); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		if c.err != nil && u.Attributes() != before {
			t.Errorf("%s: refused and changed", name)
		}
		if got := w.take(); !slices.Equal(got, c.events) {
			t.Errorf("%s: events %v, want %v", name, got, c.events)
		}
	}
	if !u.ReadOnly() {
		t.Error("not read-only")
	}
	u.Detach(w)
	if err := set(func(a *Attributes) { a.NAA[15]++ }); err != nil {
		t.Error(err)
	}
	w.wantEvents(t)
}

func TestNotify(t *testing.T) {
	u := newTestUnit(t)
	a, b := &fakeWatcher{}, &fakeWatcher{}
	u.Attach(a)
	u.Attach(b)
	u.Attach(b)
	if got := u.Initiators(); !slices.Equal(got, []Initiator{{}}) {
		t.Errorf("initiators %v", got)
	}
	u.Notify(EventReset, a)
	a.wantEvents(t)
	b.wantEvents(t, EventReset)
	u.Notify(EventThinThreshold, nil)
	a.wantEvents(t, EventThinThreshold)
	b.wantEvents(t, EventThinThreshold)
}

type fakeSettings map[string][]byte

func (f fakeSettings) LoadSetting(id ID, key string) ([]byte, error) {
	return f[string(id)+"/"+key], nil
}
func (f fakeSettings) SaveSetting(id ID, key string, blob []byte) error {
	f[string(id)+"/"+key] = blob
	return nil
}

func TestSettings(t *testing.T) {
	store := fakeSettings{}
	for _, u := range []*Unit{newTestUnit(t), newTestUnit(t, func(c *Config) { c.Settings = store })} {
		if b, err := u.LoadSetting("mode"); err != nil || b != nil {
			t.Errorf("load: %v %v", b, err)
		}
		if err := u.SaveSetting("mode", []byte("x")); err != nil {
			t.Error(err)
		}
		if b, err := u.LoadSetting("mode"); err != nil || string(b) != "x" {
			t.Errorf("load: %q %v", b, err)
		}
	}
	if string(store["v1/mode"]) != "x" {
		t.Error("store was not used")
	}
}

// TestGroupStates checks asymmetric access states (SPC-4 §5.15.2).
func TestGroupStates(t *testing.T) {
	g := NewGroup(7, "p7")
	u := newTestUnit(t, func(c *Config) { c.Group = g })
	asked := &fakeWatcher{initiator: Initiator{"a", 1}}
	other := &fakeWatcher{initiator: Initiator{"b", 1}}
	u.Attach(asked)
	u.Attach(other)
	if g.ID() != 7 || g.Name() != "p7" || g.State(1) != Optimized {
		t.Error("new group")
	}
	g.SetState(2, Standby)
	if g.State(2) != Standby || g.State(1) != Optimized {
		t.Error("state was not set")
	}
	asked.wantEvents(t, EventAccessState)
	other.wantEvents(t, EventAccessState)
	g.SetState(2, Standby)
	asked.wantEvents(t)
	if g.SetStates(map[uint16]AccessState{1: NonOptimized, 2: Optimized}, asked.initiator) || g.State(1) != Optimized || g.State(2) != Standby {
		t.Error("an initiator overrode the administrator's state")
	}
	asked.wantEvents(t)
	if !g.SetStates(map[uint16]AccessState{1: NonOptimized, 2: Standby}, asked.initiator) || g.State(1) != NonOptimized || g.State(2) != Standby {
		t.Error("states were not set")
	}
	asked.wantEvents(t)
	other.wantEvents(t, EventAccessState)
	g.SetState(1, Optimized) // as before: every change of the configuration says so again
	if g.State(1) != NonOptimized {
		t.Error("what an initiator has set is gone")
	}
	g.SetState(2, Optimized)
	asked.wantEvents(t, EventAccessState)
	other.wantEvents(t, EventAccessState)
	g.SetPreferred(2)
	if g.Preferred() != 2 {
		t.Error("preferred")
	}
	for _, s := range []AccessState{Optimized, NonOptimized, Standby, Unavailable, Offline, Transitioning, 9} {
		if s.String() == "" {
			t.Error("no text")
		}
	}
	second := newTestUnit(t, func(c *Config) { c.Group = g; c.ID = "v0" })
	if got := g.Units(); !slices.Equal(got, []*Unit{second, u}) {
		t.Error("units are not in order")
	}
}

// TestValidate checks designators and identity strings (SPC-4 §7.8.6, §4.3.1).
func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Attributes){
		"no naa":        func(a *Attributes) { a.NAA = nil },
		"naa type":      func(a *Attributes) { a.NAA[0] = 0x10 },
		"naa length":    func(a *Attributes) { a.NAA = a.NAA[:8] },
		"naa 5 length":  func(a *Attributes) { a.NAA[0] = 0x50 },
		"eui64 length":  func(a *Attributes) { a.EUI64 = a.EUI64[:9] },
		"t10 length":    func(a *Attributes) { a.T10ID = strings.Repeat("x", 229) },
		"serial empty":  func(a *Attributes) { a.Serial = " " },
		"serial length": func(a *Attributes) { a.Serial = strings.Repeat("x", 253) },
		"vendor":        func(a *Attributes) { a.Vendor = "LINTEL-SAN" },
		"vendor empty":  func(a *Attributes) { a.Vendor = "" },
		"product":       func(a *Attributes) { a.Product = strings.Repeat("x", 17) },
		"revision":      func(a *Attributes) { a.Revision = "00001" },
		"not ascii":     func(a *Attributes) { a.Product = "süd" },
		"block size":    func(a *Attributes) { a.BlockSize = 520 },
		"exponent":      func(a *Attributes) { a.PhysicalExponent = 16 },
	} {
		a := testAttributes()
		if err := a.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&a)
		if err := a.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGenerateNAA checks generated NAA designators (SPC-4 §7.8.6.6.5).
func TestGenerateNAA(t *testing.T) {
	used := make(map[string]bool)
	taken := func(first8 []byte) bool { return used[string(first8)] }
	for i := range 1000 {
		b := GenerateNAA(DefaultPrefix, ID(fmt.Sprint("v", i)), taken)
		if err := checkNAA(b); err != nil {
			t.Fatal(err)
		}
		if s := hex.EncodeToString(b); !strings.HasPrefix(s, "6024c4e") || len(s) != 32 {
			t.Fatalf("designator %s", s)
		}
		used[string(b[:8])] = true
	}
	if len(used) != 1000 {
		t.Errorf("%d distinct designators", len(used))
	}
	first := GenerateNAA(DefaultPrefix, "v1", nil)
	if !bytes.Equal(first, GenerateNAA(DefaultPrefix, "v1", nil)) {
		t.Error("not the same twice")
	}
	second := GenerateNAA(DefaultPrefix, "v1", func(b []byte) bool { return bytes.Equal(b, first[:8]) })
	if bytes.Equal(first[:8], second[:8]) {
		t.Error("taken designator was used")
	}
	eui := GenerateEUI64(DefaultPrefix, "v1")
	if len(eui) != 16 || !bytes.Equal(eui[8:11], DefaultPrefix[:]) {
		t.Errorf("EUI-64 %x", eui)
	}
	if len(GenerateSerial("v1")) != 16 {
		t.Error("serial")
	}
}

var notAllocated atomic.Int64

func TestHotPathDoesNotAllocate(t *testing.T) {
	u := newTestUnit(t)
	var g RangeGuard
	from := Initiator{"iqn.2026-11.io.lintel:host,i,0x00023d000001", 1}
	if n := testing.AllocsPerRun(100, func() {
		if u.Ranges.Shared(&g, 1, 8, nil) {
			u.Ranges.Release(&g)
		}
		if u.Ranges.Atomic() || u.Reservations.Conflicts(from, AccessWrite) || u.Reservations.Reserved(from) {
			notAllocated.Add(1)
		}
		notAllocated.Add(int64(u.Blocks()) + int64(u.Group().State(1)) + int64(u.Attributes().BlockSize))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
