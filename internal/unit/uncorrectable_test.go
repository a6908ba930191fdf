package unit

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"lintel.io/lintel/internal/block"
)

// settingsMap is a store whose saving can be made to fail.
type settingsMap struct {
	blobs map[string][]byte
	fail  error
}

func (m *settingsMap) LoadSetting(_ ID, key string) ([]byte, error) { return m.blobs[key], nil }
func (m *settingsMap) SaveSetting(_ ID, key string, blob []byte) error {
	if len(blob) > MaxSetting {
		return errors.New("the setting is too long")
	}
	if m.fail == nil {
		m.blobs[key] = bytes.Clone(blob)
	}
	return m.fail
}

type requestChan chan *block.Request

func (c requestChan) RequestDone(r *block.Request) { c <- r }

func submit(u *Unit, op block.Op, lba, count int) error {
	done := make(requestChan, 1)
	r := &block.Request{Op: op, Off: int64(lba) * 512, Len: int64(count) * 512, Done: done}
	if op == block.Read || op == block.Write {
		r.Data = make([]byte, count*512)
	}
	u.Device().Submit(r)
	<-done
	if r.Done != block.Completer(done) {
		panic("the request has another completer than before")
	}
	return r.Err
}

func markedUnit(t testing.TB, settings SettingStore, size int64) (*Unit, error) {
	t.Helper()
	return New(Config{
		ID: "u", Device: block.NewMem(size), Group: NewGroup(1, "g"), Settings: settings,
		Attributes: Attributes{NAA: GenerateNAA(DefaultPrefix, "u", nil), Serial: "1", Vendor: "V", Product: "P", BlockSize: 512},
	})
}

// TestUncorrectableModel compares marks with a plain table of blocks, over reopening.
func TestUncorrectableModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const blocks = 40
		settings := &settingsMap{blobs: map[string][]byte{}}
		u, err := markedUnit(t, settings, blocks*512)
		if err != nil {
			rt.Fatal(err)
		}
		var model [blocks]bool
		extent := func(rt *rapid.T) (int, int) {
			lba := rapid.IntRange(0, blocks-1).Draw(rt, "lba")
			return lba, rapid.IntRange(1, blocks-lba).Draw(rt, "count")
		}
		rt.Repeat(map[string]func(*rapid.T){
			"mark": func(rt *rapid.T) {
				lba, count := extent(rt)
				if err := u.MarkUncorrectable(uint64(lba), uint64(count)); err != nil {
					rt.Fatal(err)
				}
				for i := range count {
					model[lba+i] = true
				}
			},
			"write": func(rt *rapid.T) {
				lba, count := extent(rt)
				op := rapid.SampledFrom([]block.Op{block.Write, block.Zero, block.Discard}).Draw(rt, "op")
				if err := submit(u, op, lba, count); err != nil {
					rt.Fatal(err)
				}
				for i := range count {
					model[lba+i] = false
				}
			},
			"reopen": func(rt *rapid.T) {
				if u, err = markedUnit(t, settings, blocks*512); err != nil {
					rt.Fatal(err)
				}
			},
			"": func(rt *rapid.T) {
				var listed [blocks]bool
				ranges := u.Uncorrectable(0, blocks)
				for i, r := range ranges {
					if i > 0 && ranges[i-1].LBA+ranges[i-1].Count >= r.LBA {
						rt.Fatalf("%v is not in order, or not aggregated", ranges)
					}
					for n := range r.Count {
						listed[r.LBA+n] = true
					}
				}
				if listed != model {
					rt.Fatalf("listed %v, want %v", listed, model)
				}
				lba, count := extent(rt)
				bad := -1
				for i := count - 1; i >= 0; i-- {
					if model[lba+i] {
						bad = lba + i
					}
				}
				err := submit(u, block.Read, lba, count)
				var e *block.Error
				if (err == nil) != (bad < 0) || err != nil && (!errors.As(err, &e) || e.Kind != block.KindMedium || e.Off != int64(bad)*512) {
					rt.Fatalf("read of %d from %d: %v, want bad block %d", count, lba, err, bad)
				}
			},
		})
	})
}

// holes is a device without a byte allocated, that keeps the flags of the last change.
type holes struct {
	block.Device
	flags block.Flags
}

func (h *holes) Extent(_, limit int64) (bool, int64, error) { return false, limit, nil }

func (h *holes) Submit(r *block.Request) {
	h.flags = r.Flags
	h.Device.Submit(r)
}

// TestUncorrectableHoles tests that marked blocks do not pass for unallocated ones, and
// that what replaces them is on stable storage before the mark goes.
func TestUncorrectableHoles(t *testing.T) {
	h := &holes{Device: block.NewMem(1 << 20)}
	u, err := New(Config{
		ID: "u", Device: h, Group: NewGroup(1, "g"), Settings: &settingsMap{blobs: map[string][]byte{}},
		Attributes: Attributes{NAA: GenerateNAA(DefaultPrefix, "u", nil), Serial: "1", Vendor: "V", Product: "P", BlockSize: 512},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.MarkUncorrectable(8, 4); err != nil {
		t.Fatal(err)
	}
	type extent struct {
		allocated bool
		blocks    int64
	}
	for off, want := range map[int64]extent{0: {false, 8}, 7: {false, 1}, 8: {true, 4}, 11: {true, 1}, 12: {false, 52}} {
		allocated, n, err := u.Device().Extent(off*512, (64-off)*512)
		if got := (extent{allocated, n / 512}); err != nil || got != want {
			t.Errorf("from block %d: %v, %v, want %v", off, got, err, want)
		}
	}
	if err := submit(u, block.Write, 0, 4); err != nil || h.flags != 0 {
		t.Errorf("a write beside the mark: flags %v, %v", h.flags, err)
	}
	done := make(requestChan, 1)
	r := &block.Request{Op: block.Write, Off: 9 * 512, Data: make([]byte, 512), Done: done}
	u.Device().Submit(r)
	<-done
	if r.Err != nil || h.flags != block.FUA || r.Flags != 0 {
		t.Errorf("a write of a marked block: flags %v on the device, %v for the owner, %v", h.flags, r.Flags, r.Err)
	}
}

func TestUncorrectableLimits(t *testing.T) {
	settings := &settingsMap{blobs: map[string][]byte{}}
	u, err := markedUnit(t, settings, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if submit(u, block.Flush, 0, 0) != nil || u.Uncorrectable(0, 1) != nil {
		t.Error("a unit without marks")
	}
	for n := range uint64(maxUncorrectable) {
		if err := u.MarkUncorrectable(2*n, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.MarkUncorrectable(2*maxUncorrectable, 1); !errors.Is(err, ErrUncorrectableLimit) {
		t.Error(err)
	}
	// What is written has to become readable, also where that splits a range.
	if err := u.MarkUncorrectable(1, 1); err != nil {
		t.Fatal(err)
	}
	for len(u.Uncorrectable(0, 2048)) < maxUncorrectable {
		next := uint64(2048 - 2*(maxUncorrectable-len(u.Uncorrectable(0, 2048))))
		if err := u.MarkUncorrectable(next, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := submit(u, block.Write, 1, 1); err != nil || len(u.Uncorrectable(0, 2048)) != maxUncorrectable+1 {
		t.Errorf("a write that splits a range: %v, %d ranges", err, len(u.Uncorrectable(0, 2048)))
	}
	if err := submit(u, block.Write, 1024, 1024); err != nil {
		t.Fatal(err)
	}
	if err := u.Resize(501); err != nil || len(u.Uncorrectable(0, 2048)) != 251 {
		t.Errorf("marks after shrinking: %v, %v", u.Uncorrectable(0, 2048), err)
	}
	settings.fail = errors.New("no space")
	if err := submit(u, block.Write, 0, 1); block.KindOf(err) != block.KindIO {
		t.Errorf("a write whose mark could not be taken off: %v", err)
	}
	if err := submit(u, block.Read, 0, 1); block.KindOf(err) != block.KindMedium {
		t.Errorf("the mark is gone: %v", err)
	}
	if err := u.MarkUncorrectable(1000, 1); err == nil {
		t.Error("a mark that could not be saved")
	}
	for _, blob := range [][]byte{{2}, {1, 0}, append([]byte{1}, make([]byte, 16)...)} {
		settings.blobs[settingUncorrectable] = blob
		if _, err := markedUnit(t, settings, 1<<20); err == nil {
			t.Errorf("marks % x are taken", blob)
		}
	}
}

// Writes split a range into as many as a store takes, and are refused then for that reason.
func TestUncorrectableSplits(t *testing.T) {
	settings := &settingsMap{blobs: map[string][]byte{}}
	u, err := markedUnit(t, settings, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.MarkUncorrectable(0, u.Blocks()); err != nil {
		t.Fatal(err)
	}
	writes := 0
	for ; err == nil; writes++ {
		err = submit(u, block.Write, 2*writes+1, 1)
	}
	if !errors.Is(err, ErrUncorrectableLimit) || writes < 1000 {
		t.Errorf("after %d writes: %v", writes, err)
	}
	if size := len(settings.blobs[settingUncorrectable]); size > MaxSetting || size < MaxSetting-spanSize {
		t.Errorf("the setting has %d bytes", size)
	}
}

// TestUncorrectableShrink tests that marks do not outlive their blocks where the power
// fails, or the store does, while a unit shrinks.
func TestUncorrectableShrink(t *testing.T) {
	settings := &settingsMap{blobs: map[string][]byte{}}
	u, err := markedUnit(t, settings, 100*512)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.MarkUncorrectable(45, 10); err != nil {
		t.Fatal(err)
	}
	settings.fail = errors.New("no space")
	if err := u.Resize(50); err == nil {
		t.Fatal("marks that could not be changed went unnoticed")
	}
	if u.Blocks() != 50 || u.Device().Size() != 50*512 {
		t.Fatalf("%d blocks on a device of %d bytes", u.Blocks(), u.Device().Size())
	}
	settings.fail = nil
	for _, blocks := range []int64{50, 100} { // what grows after a restart is new
		if u, err = markedUnit(t, settings, blocks*512); err != nil {
			t.Fatal(err)
		}
	}
	if got := u.Uncorrectable(0, 100); len(got) != 1 || got[0] != (BlockRange{45, 5}) {
		t.Fatalf("marked: %v", got)
	}
}
