package scsi_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/scsitest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

func modeSense6(control, page, subpage byte) []byte {
	return []byte{wire.OpModeSense6, 0x08, control<<6 | page, subpage, 255, 0}
}

// modePage reads one page without block descriptor.
func modePage(t *testing.T, n *scsitest.Nexus, control, page, subpage byte) []byte {
	t.Helper()
	r := n.Do(0, modeSense6(control, page, subpage), nil)
	wantGood(t, r)
	if int(r.In[0]) != len(r.In)-1 || r.In[3] != 0 {
		t.Fatalf("mode header % X with %d bytes", r.In[:4], len(r.In))
	}
	return r.In[4:]
}

// modeSelect changes a page with MODE SELECT(6).
func modeSelect(n *scsitest.Nexus, save bool, pages ...[]byte) scsitest.Result {
	list := append(make([]byte, 4), bytes.Join(pages, nil)...)
	cdb := []byte{wire.OpModeSelect6, 0x10, 0, 0, byte(len(list)), 0}
	if save {
		cdb[1] |= 1
	}
	return n.Do(0, cdb, list)
}

// TestModeSense checks MODE SENSE(6) and MODE SENSE(10) (SPC-4 §6.11, §6.12, SBC-3 §6.5).
func TestModeSense(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.Nexus("a", 1)
	r := n.Do(0, []byte{wire.OpModeSense6, 0, 0x3F, 0, 255, 0}, nil)
	wantGood(t, r)
	if r.In[2] != 0x10 || r.In[3] != 8 || wire.Uint32(r.In[4:]) != 2048 || wire.Uint24(r.In[9:]) != 512 {
		t.Errorf("header and block descriptor % X", r.In[:12])
	}
	var codes []byte
	for p := r.In[12:]; len(p) > 0; p = p[2+int(p[1]):] {
		codes = append(codes, p[0])
	}
	if !bytes.Equal(codes, []byte{0x81, 0x83, 0x84, 0x88, 0x8A, 0x9C}) {
		t.Errorf("pages % X", codes)
	}
	all := n.Do(0, []byte{wire.OpModeSense10, 0x08, 0x3F, 0xFF, 0, 0, 0, 1, 0, 0}, nil)
	wantGood(t, all)
	if len(all.In) != 8+len(r.In)-12+32+24 || int(wire.Uint16(all.In)) != len(all.In)-2 {
		t.Errorf("all pages and subpages: %d bytes", len(all.In))
	}
	long := n.Do(0, []byte{wire.OpModeSense10, 0x10, 0x08, 0, 0, 0, 0, 1, 0, 0}, nil)
	wantGood(t, long)
	if long.In[4] != 1 || wire.Uint16(long.In[6:]) != 16 || wire.Uint64(long.In[8:]) != 2048 || wire.Uint32(long.In[20:]) != 512 {
		t.Errorf("long block descriptor % X", long.In[:24])
	}
	if sub := modePage(t, n, 0, 0x0A, 0x01); sub[0] != 0xCA || sub[1] != 1 || len(sub) != 32 || sub[6] != scsi.MaxSense {
		t.Errorf("control extension % X", sub)
	}
	if both := modePage(t, n, 0, 0x0A, 0xFF); len(both) != 12+32 {
		t.Errorf("control page with subpages: %d bytes", len(both))
	}
	if r := n.Do(0, []byte{wire.OpModeSense6, 0, 0x3F, 0, 4, 0}, nil); len(r.In) != 4 {
		t.Errorf("%d bytes for an allocation length of 4", len(r.In))
	}
	for _, cdb := range [][]byte{modeSense6(0, 0x02, 0), modeSense6(0, 0x08, 7), modeSense6(0, 0x3F, 1)} {
		wantSense(t, n.Do(0, cdb, nil), wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
	}
}

// TestModeGeometry checks MODE SENSE, format and rigid disk geometry pages (SBC §7.1).
func TestModeGeometry(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{Blocks: 255 * 63 * 10}).Nexus("a", 1)
	if p := modePage(t, n, 0, 0x03, 0); wire.Uint16(p[12:]) != 512 || wire.Uint16(p[10:]) != 63 {
		t.Errorf("format page % X", p)
	}
	if p := modePage(t, n, 0, 0x04, 0); wire.Uint24(p[2:]) != 10 || p[5] != 255 {
		t.Errorf("geometry page % X", p)
	}
}

// TestModeChangeable checks MODE SENSE, page control (SPC-4 §6.11.3).
func TestModeChangeable(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{}).Nexus("a", 1)
	if p := modePage(t, n, 1, 0x08, 0); p[2] != 0x04 || !bytes.Equal(p[3:], make([]byte, 17)) {
		t.Errorf("changeable caching % X", p)
	}
	if p := modePage(t, n, 1, 0x0A, 0); p[2] != 0x04 || p[3] != 0 || p[4] != 0x08 || p[5] != 0x40 {
		t.Errorf("changeable control % X", p)
	}
	if p := modePage(t, n, 1, 0x0A, 1); !bytes.Equal(p[4:], make([]byte, 28)) {
		t.Errorf("changeable control extension % X", p)
	}
	page := modePage(t, n, 0, 0x0A, 0)
	page[4] |= 0x08
	wantGood(t, modeSelect(n, false, page))
	for control, want := range map[byte]byte{0: 0x08, 2: 0, 3: 0} {
		if p := modePage(t, n, control, 0x0A, 0); p[4] != want {
			t.Errorf("page control %d gives SWP %02Xh", control, p[4])
		}
	}
}

// TestWriteProtectMode checks MODE SELECT, SWP (SPC-4 §7.5.8).
func TestWriteProtectMode(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{Families: testCommands(nil)})
	n, other := b.Nexus("a", 1), b.Nexus("b", 2)
	wantGood(t, n.Do(0, writeCDB, nil))
	page := modePage(t, n, 0, 0x0A, 0)
	page[4] |= 0x08
	wantGood(t, modeSelect(n, false, page))
	wantSense(t, n.Do(0, writeCDB, nil), wire.KeyDataProtect, wire.SoftwareWriteProtected)
	if r := n.Do(0, modeSense6(0, 0x08, 0), nil); r.In[2]&0x80 == 0 {
		t.Error("WP is not set")
	}
	wantSense(t, other.Do(0, testUnitReady, nil), wire.KeyUnitAttention, wire.ModeParametersChanged)
	page[4] &^= 0x08
	wantGood(t, modeSelect(n, false, page))
	wantGood(t, n.Do(0, writeCDB, nil))
}

// TestDescriptorSense checks MODE SELECT, D_SENSE (SPC-4 §4.5.2, §7.5.8).
func TestDescriptorSense(t *testing.T) {
	n := scsitest.New(t, scsitest.Config{}).Nexus("a", 1)
	page := modePage(t, n, 0, 0x0A, 0)
	page[2] |= 0x04
	wantGood(t, modeSelect(n, false, page))
	r := n.Do(0, []byte{0xFF, 0, 0, 0, 0, 0}, nil)
	wantSense(t, r, wire.KeyIllegalRequest, wire.InvalidOperationCode)
	if r.Raw[0] != 0x72 {
		t.Errorf("response code %02Xh", r.Raw[0])
	}
	page[2] &^= 0x04
	wantGood(t, modeSelect(n, false, page))
	if r := n.Do(0, []byte{0xFF, 0, 0, 0, 0, 0}, nil); r.Raw[0] != 0x70 {
		t.Errorf("response code %02Xh", r.Raw[0])
	}
}

// TestModeSelectErrors checks MODE SELECT, refused parameter lists (SPC-4 §6.9).
func TestModeSelectErrors(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.Nexus("a", 1)
	control := func(at int, bits byte) []byte {
		p := modePage(t, n, 0, 0x0A, 0)
		p[at] ^= bits
		return append(make([]byte, 4), p...)
	}
	header := func(b ...byte) []byte { return b }
	long := append([]byte{0, 0, 0, 8}, 0, 0, 8, 0, 0, 0, 2, 0)
	for _, c := range []struct {
		name string
		flag byte
		list []byte
		code uint16
		at   int // the field pointer
	}{
		{"fixed bit", 0x10, control(3, 0x10), wire.InvalidFieldInParameterList, 4 + 3},
		{"page length", 0x10, control(1, 0x01), wire.InvalidFieldInParameterList, 4 + 1},
		{"page code", 0x10, control(0, 0x11), wire.InvalidFieldInParameterList, 4},
		{"subpage format", 0x10, header(0, 0, 0, 0, 0x4A, 0), wire.InvalidFieldInParameterList, 5},
		{"medium type", 0x10, header(0, 1, 0, 0), wire.InvalidFieldInParameterList, 1},
		{"block descriptor length", 0x10, header(0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0), wire.InvalidFieldInParameterList, 3},
		{"block length", 0x10, append(append([]byte{}, long[:10]...), 1, 0), wire.InvalidFieldInParameterList, 4},
		{"number of blocks", 0x10, append([]byte{0, 0, 0, 8, 0, 0, 1, 0}, long[8:]...), wire.InvalidFieldInParameterList, 4},
		{"descriptor cut", 0x10, long[:9], wire.ParameterListLengthError, -1},
		{"header cut", 0x10, header(0, 0, 0), wire.ParameterListLengthError, -1},
		{"page header cut", 0x10, header(0, 0, 0, 0, 0x0A), wire.ParameterListLengthError, -1},
		{"page cut", 0x10, control(0, 0)[:10], wire.ParameterListLengthError, -1},
		{"vendor format", 0x00, control(0, 0), wire.InvalidFieldInCDB, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := n.Do(0, []byte{wire.OpModeSelect6, c.flag, 0, 0, byte(len(c.list)), 0}, c.list)
			wantSense(t, r, wire.KeyIllegalRequest, c.code)
			if c.at >= 0 && int(wire.Uint16(r.Sense.Specific[1:])) != c.at {
				t.Errorf("field pointer % X, want byte %d", r.Sense.Specific, c.at)
			}
		})
	}
	t.Run("less data than announced", func(t *testing.T) {
		wantSense(t, n.Do(0, []byte{wire.OpModeSelect6, 0x10, 0, 0, 16, 0}, make([]byte, 4)), wire.KeyIllegalRequest, wire.ParameterListLengthError)
	})
	wantGood(t, n.Do(0, []byte{wire.OpModeSelect6, 0x10, 0, 0, 0, 0}, nil))
	wantGood(t, n.Do(0, []byte{wire.OpModeSelect6, 0x10, 0, 0, 12, 0}, long))
	wide := append(make([]byte, 8), make([]byte, 12)...)
	wide[4], wide[7] = 1, 16
	wide = append(wide, 0, 0, 2, 0)
	wantGood(t, n.Do(0, []byte{wire.OpModeSelect10, 0x10, 0, 0, 0, 0, 0, 0, 24, 0}, wide))
}

// memorySettings keeps settings across benches, as a pool does across restarts.
type memorySettings struct {
	blobs map[string][]byte
	err   error
}

func (m *memorySettings) LoadSetting(id unit.ID, key string) ([]byte, error) {
	return m.blobs[string(id)+key], m.err
}

func (m *memorySettings) SaveSetting(id unit.ID, key string, blob []byte) error {
	if m.err != nil {
		return m.err
	}
	m.blobs[string(id)+key] = blob
	return nil
}

// TestSavedModes checks MODE SELECT, saved pages (SPC-4 §6.9, §7.5.1).
func TestSavedModes(t *testing.T) {
	store := &memorySettings{blobs: make(map[string][]byte)}
	n := scsitest.New(t, scsitest.Config{Settings: store}).Nexus("a", 1)
	page := modePage(t, n, 0, 0x0A, 0)
	page[2] |= 0x04
	caching := modePage(t, n, 0, 0x08, 0)
	caching[2] &^= 0x04
	wantGood(t, modeSelect(n, true, page, caching))
	page[2] &^= 0x04
	wantGood(t, modeSelect(n, false, page))

	b := scsitest.New(t, scsitest.Config{Settings: store})
	n = b.Nexus("a", 1)
	for _, control := range []byte{0, 3} {
		if p := modePage(t, n, control, 0x0A, 0); p[2]&0x04 == 0 {
			t.Errorf("page control %d: D_SENSE is lost", control)
		}
		if p := modePage(t, n, control, 0x08, 0); p[2]&0x04 != 0 {
			t.Errorf("page control %d: WCE is set again", control)
		}
	}
	if p := modePage(t, n, 2, 0x08, 0); p[2]&0x04 == 0 {
		t.Error("the default of WCE is not the administrator's")
	}
	if !b.LUs[0].WriteThrough() {
		t.Error("the write cache is on")
	}

	admin := scsitest.Config{Settings: store, Attributes: func(_ int, a *unit.Attributes) { a.WriteThrough = true }}
	n = scsitest.New(t, admin).Nexus("a", 1)
	if p := modePage(t, n, 3, 0x08, 0); p[2]&0x04 != 0 {
		t.Error("the saved value outlives a change of the administrator's mind")
	}
}

// TestResetRestoresModes checks LOGICAL UNIT RESET, mode parameters (SPC-4 §7.5.1).
func TestResetRestoresModes(t *testing.T) {
	b := scsitest.New(t, scsitest.Config{})
	n := b.Nexus("a", 1)
	caching := modePage(t, n, 0, 0x08, 0)
	caching[2] &^= 0x04
	control := modePage(t, n, 0, 0x0A, 0)
	control[5] |= 0x40
	wantGood(t, modeSelect(n, false, caching, control))
	if !b.LUs[0].WriteThrough() {
		t.Fatal("the write cache is on")
	}
	if r := n.Manage(scsi.LogicalUnitReset, 0, 0); r != scsi.FunctionComplete {
		t.Fatalf("response %d", r)
	}
	wantSense(t, n.Do(0, testUnitReady, nil), wire.KeyUnitAttention, wire.BusDeviceResetOccurred)
	if b.LUs[0].WriteThrough() {
		t.Error("the write cache is still off")
	}
	if p := modePage(t, n, 0, 0x0A, 0); p[5] != 0 {
		t.Error("TAS is still set")
	}
}

// TestBadSavedModes checks that unreadable saved parameters are refused, not ignored.
func TestBadSavedModes(t *testing.T) {
	for _, blob := range []string{"", "{", `{"version":2,"values":{}}`, `{"version":1,"more":1}`, `{"version":1} x`} {
		store := &memorySettings{blobs: map[string][]byte{"bench-9mode": []byte(blob)}}
		if err := addUnit(t, store); err == nil {
			t.Errorf("%q was taken", blob)
		}
	}
	if err := addUnit(t, &memorySettings{err: errors.New("no disk")}); err == nil {
		t.Error("a store that fails was taken")
	}
}

func addUnit(t *testing.T, store unit.SettingStore) error {
	b := scsitest.New(t, scsitest.Config{})
	a := b.Units[0].Attributes().Clone()
	u, err := unit.New(unit.Config{ID: "bench-9", Attributes: a, Device: block.NewMem(1 << 20), Group: b.Group, Settings: store})
	if err != nil {
		return err
	}
	defer u.Close()
	_, err = b.Target.AddUnit(u)
	return err
}

// TestModeSelectFails checks MODE SELECT, storage that fails (SPC-4 §6.9).
func TestModeSelectFails(t *testing.T) {
	store := &memorySettings{blobs: make(map[string][]byte)}
	var dev *blocktest.Faulty
	b := scsitest.New(t, scsitest.Config{Settings: store, Device: func(_ int, size int64) block.Device {
		dev = blocktest.NewFaulty(block.NewMem(size))
		return dev
	}})
	n := b.Nexus("a", 1)
	store.err = fmt.Errorf("no disk")
	page := modePage(t, n, 0, 0x0A, 0)
	page[2] |= 0x04
	wantSense(t, modeSelect(n, true, page), wire.KeyHardwareError, wire.InternalTargetFailure)
	store.err = nil
	defer dev.Inject(blocktest.Fault{Ops: []block.Op{block.Flush}, Kind: block.KindIO})()
	caching := modePage(t, n, 0, 0x08, 0)
	caching[2] &^= 0x04
	wantSense(t, modeSelect(n, false, caching), wire.KeyHardwareError, wire.InternalTargetFailure)
}

// slowSettings is a store that waits with each save until it is let go.
type slowSettings struct{ saving chan chan struct{} }

func (slowSettings) LoadSetting(unit.ID, string) ([]byte, error) { return nil, nil }

func (s slowSettings) SaveSetting(unit.ID, string, []byte) error {
	goOn := make(chan struct{})
	s.saving <- goOn
	<-goOn
	return nil
}

// TestModeSelectAtOnce checks that two MODE SELECT of different pages at a time do not undo each other (SPC-4 §6.9).
func TestModeSelectAtOnce(t *testing.T) {
	s := slowSettings{make(chan chan struct{})}
	b := scsitest.New(t, scsitest.Config{Settings: s})
	n, other := b.Nexus("a", 1), b.Nexus("b", 1)
	caching, control := modePage(t, n, 0, 0x08, 0), modePage(t, n, 0, 0x0A, 0)
	caching[2] &^= 0x04
	control[2] |= 0x04
	selectPage := func(n *scsitest.Nexus, page []byte) *scsitest.Pending {
		list := append(make([]byte, 4), page...)
		return n.Start(0, scsi.AttrSimple, []byte{wire.OpModeSelect6, 0x11, 0, 0, byte(len(list)), 0}, list)
	}
	first := selectPage(n, caching)
	goOn := <-s.saving
	second := selectPage(other, control)
	close(goOn)
	close(<-s.saving)
	wantGood(t, first.Wait())
	wantGood(t, second.Wait())
	attentions(t, n, 0)
	if p := modePage(t, n, 0, 0x08, 0); p[2]&0x04 != 0 {
		t.Error("the write cache is on again")
	}
	if p := modePage(t, n, 0, 0x0A, 0); p[2]&0x04 == 0 {
		t.Error("D_SENSE is not set")
	}
}
