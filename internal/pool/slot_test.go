package pool

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"lintel.io/lintel/internal/array"
)

func testPair(f File) *pair { return newPair(f, "metadata", slotConfig, "p0123456789ab") }

func payload(n int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("payload %d ", n)), 1+n*97%1500)
}

// A power cut at any write leaves the version that was acknowledged, or the one that was
// being written, whole.
func TestPairPowerCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	f := newFaultFile()
	p := testPair(f)
	for n := 1; n <= 60; n++ {
		want := payload(n)
		cuts := 0
		f.inSync = func() { // everything is written, nothing synced
			for _, keep := range []func() bool{coin(r), coin(r), coin(r), func() bool { return true }, func() bool { return false }} {
				cuts++
				got, _, err := testPair(f.cut(keep)).read()
				switch {
				case errors.Is(err, errEmpty) && n == 1:
				case err != nil:
					t.Fatalf("write %d: %v", n, err)
				case !bytes.Equal(got.part0, want) && (n == 1 || !bytes.Equal(got.part0, payload(n-1))):
					t.Fatalf("write %d: after a power cut neither the old nor the new version is there", n)
				case string(got.part1) != "second":
					t.Fatalf("write %d: the second part is %q", n, got.part1)
				}
			}
		}
		if err := p.write(want, []byte("second")); err != nil {
			t.Fatal(err)
		}
		if cuts == 0 {
			t.Fatal("the write was not synced")
		}
		f.inSync = nil
		got, problems, err := testPair(f.cut(coin(r))).read()
		if err != nil || !bytes.Equal(got.part0, want) || len(problems) != 0 {
			t.Fatalf("write %d: acknowledged and lost (%v, %v)", n, err, problems)
		}
	}
}

// Whatever fails, reading gives the last acknowledged version, or one whose write had an
// unknown outcome.
func TestPairModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFaultFile()
		p := testPair(f)
		acked := []byte(nil)
		possible := [][]byte{} // written since, with an unknown outcome
		n := 0
		check := func(f *faultFile) {
			got, _, err := testPair(f).read()
			if err != nil {
				if acked == nil && len(possible) == 0 && errors.Is(err, errEmpty) {
					return
				}
				if acked == nil {
					return // never acknowledged: anything but a wrong version will do
				}
				t.Fatal(err)
			}
			if acked != nil && bytes.Equal(got.part0, acked) {
				return
			}
			for _, b := range possible {
				if bytes.Equal(got.part0, b) {
					return
				}
			}
			t.Fatalf("read %.40q, acknowledged is %.40q", got.part0, acked)
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				n++
				if p.write(payload(n), nil) == nil {
					acked, possible = payload(n), nil
				}
			},
			"failed write": func(t *rapid.T) {
				n++
				f.writeErr = errInjected
				if err := p.write(payload(n), nil); err == nil {
					t.Fatal("the failure was not told")
				}
				f.writeErr = nil
			},
			"failed sync": func(t *rapid.T) {
				n++
				f.syncErr = errInjected
				if err := p.write(payload(n), nil); err == nil {
					t.Fatal("the failure was not told")
				}
				f.syncErr = nil
				possible = append(possible, payload(n))
				if err := p.write([]byte("x"), nil); err == nil {
					t.Fatal("a write after a failed sync was accepted")
				}
			},
			"kill": func(t *rapid.T) {
				p = testPair(f)
				got, _, err := p.read()
				switch {
				case err == nil:
					acked, possible = bytes.Clone(got.part0), nil
				case acked != nil:
					t.Fatal(err)
				}
			},
			"kill, failed sync": func(t *rapid.T) {
				f.syncErr = errInjected
				if _, _, err := testPair(f).read(); err == nil {
					t.Fatal("what may not be on the medium was believed")
				}
				f.syncErr = nil
			},
			"power cut": func(t *rapid.T) {
				seed := rapid.Uint64().Draw(t, "seed")
				f = f.cut(coin(rand.New(rand.NewPCG(seed, 0))))
				check(f)
				p = testPair(f)
				got, _, err := p.read()
				switch {
				case err == nil:
					acked, possible = bytes.Clone(got.part0), nil
				case acked != nil:
					t.Fatal(err)
				default: // start over
					f, possible = newFaultFile(), nil
					p = testPair(f)
				}
			},
			"": func(t *rapid.T) { check(f.cut(func() bool { return true })) },
		})
	})
}

// A version that was written and not synced when the process was killed is brought to stable
// storage before it is built on: the next write goes over the version before it.
func TestReadSettlesWhatItFinds(t *testing.T) {
	f := newFaultFile()
	killed := testPair(f)
	if err := killed.write([]byte("one"), nil); err != nil {
		t.Fatal(err)
	}
	f.syncErr = errInjected // as good as killed before the sync
	if err := killed.write([]byte("two"), nil); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	f.syncErr = errInjected
	if _, _, err := testPair(f).read(); !errors.Is(err, errInjected) || array.KindOf(err) != array.KindUnavailable || !strings.Contains(err.Error(), "repair the storage") {
		t.Fatalf("a version that cannot be made stable was believed: %v", err)
	}
	p := testPair(f)
	if got, _, err := p.read(); err != nil || string(got.part0) != "two" {
		t.Fatalf("read %q, %v", got.part0, err)
	}
	f.inSync = func() {
		got, _, err := testPair(f.cut(func() bool { return false })).read()
		if err != nil || string(got.part0) != "two" {
			t.Errorf("after a power cut: %q, %v", got.part0, err)
		}
	}
	if err := p.write([]byte("three"), nil); err != nil {
		t.Fatal(err)
	}
}

// A flipped bit anywhere in either slot is noticed. The newer one stands in for the older one,
// the older one not for the newer one: what was acknowledged would silently be lost.
func TestEveryBitOfASlotCounts(t *testing.T) {
	f := newFaultFile()
	p := testPair(f)
	if err := errors.Join(p.write([]byte("version one"), nil), p.write([]byte("version two"), []byte("!"))); err != nil {
		t.Fatal(err)
	}
	for i, other := range []string{"version two", "version one"} {
		for off := range int64(blockSize + len("version two!")) {
			at := p.offset[i] + off
			f.flip(at, 0x10)
			got, problems, err := testPair(f).read()
			if i == 0 && off >= blockSize+int64(len("version one")) {
				f.flip(at, 0x10)
				continue // behind the end
			}
			switch lost := err != nil && strings.Contains(err.Error(), "version 2 of the configuration was acknowledged"); {
			case len(problems) == 0, lost != (i == 1), !lost && string(got.part0) != other:
				t.Fatalf("slot %d, byte %d: got %.20q, problems %v, error %v", i, off, got.part0, problems, err)
			}
			f.flip(at, 0x10)
		}
	}
	f.flip(p.offset[0]+blockSize, 1)
	f.flip(p.offset[1]+slotSequenceAt, 1)
	_, _, err := testPair(f).read()
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(p.offset[0])) || !strings.Contains(err.Error(), fmt.Sprint(p.offset[1])) {
		t.Errorf("both slots are damaged: %v", err)
	}
}

func TestEveryBitOfASuperblockCounts(t *testing.T) {
	f := newFaultFile()
	if err := format(f, "p0123456789ab"); err != nil {
		t.Fatal(err)
	}
	if owner, problems, err := readOwner(f, "m"); owner != "p0123456789ab" || problems != nil || err != nil {
		t.Fatalf("got %q, %v, %v", owner, problems, err)
	}
	for off := range int64(superEnd) {
		for _, base := range []int64{0, superSecond} {
			f.flip(base+off, 0x40)
			owner, problems, err := readOwner(f, "m")
			if err != nil || len(problems) != 1 || owner != "p0123456789ab" || problems[0].Offset != base {
				t.Fatalf("byte %d: got %q, %v, %v", base+off, owner, problems, err)
			}
			f.flip(base+off, 0x40)
		}
	}
	f.flip(0, 1)
	f.flip(superSecond, 1)
	if _, _, err := readOwner(f, "m"); err == nil {
		t.Error("two damaged superblocks were accepted")
	}
}

func TestPairRefusals(t *testing.T) {
	f := newFaultFile()
	if err := testPair(f).write([]byte("mine"), nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := newPair(f, "m", slotConfig, "p-other").read(); err == nil || !strings.Contains(err.Error(), "belongs to") {
		t.Errorf("another pool's slot: %v", err)
	}
	if err := testPair(f).write(make([]byte, configSize), nil); array.KindOf(err) != array.KindInvalid {
		t.Errorf("a payload that does not fit: %v", err)
	}
	if _, err := decodeSlot(make([]byte, 10), slotConfig, "p"); err == nil {
		t.Error("ten bytes were taken for a slot")
	}
	b := encodeSlot(slotConfig, "p", 1, nil, nil)
	b[slotVersionAt+3]++
	if _, err := decodeSlot(b, slotConfig, "p"); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a newer version: %v", err)
	}
	if _, err := decodeSlot(encodeSlot(slotTable, "p", 1, nil, nil), slotConfig, "p"); err == nil {
		t.Error("a table was taken for a configuration")
	}
	super := encodeSuper("p")
	super[superVersionAt+3]++
	if _, err := decodeSuper(super); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("a newer area: %v", err)
	}
}

// A mark that is damaged, erased or behind is in nobody's way, and one without slots is not believed.
func TestMark(t *testing.T) {
	f := newFaultFile()
	p := testPair(f)
	for n := range 3 {
		if err := p.write(payload(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	lost := func() bool {
		_, _, err := testPair(f).read()
		return err != nil
	}
	mark := make([]byte, blockSize)
	if _, err := f.ReadAt(mark, p.mark); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		mark     []byte
		problems int
		lost     bool // where the newest slot is damaged
	}{
		{"whole", mark, 0, true},
		{"behind", encodeSlot(slotConfig, p.owner, 2, nil, nil), 0, false},
		{"erased", make([]byte, blockSize), 0, false},
		{"damaged", append([]byte{mark[0] ^ 1}, mark[1:]...), 1, false},
		{"another pool's", encodeSlot(slotConfig, "p-other", 9, nil, nil), 1, false},
	} {
		if _, err := f.WriteAt(c.mark, p.mark); err != nil {
			t.Fatal(err)
		}
		if got, problems, err := testPair(f).read(); err != nil || got.sequence != 3 || len(problems) != c.problems {
			t.Errorf("%s: got %d, %v, %v", c.name, got.sequence, problems, err)
		}
		if err := f.Datasync(); err != nil {
			t.Fatal(err)
		}
		f.flip(p.offset[0]+blockSize, 1) // the newest one
		if lost() != c.lost {
			t.Errorf("%s: the lost version is refused: %v, want %v", c.name, !c.lost, c.lost)
		}
		f.flip(p.offset[0]+blockSize, 1)
	}
	// A pair that goes on with its older version does so with all it needs.
	f.flip(p.offset[0]+blockSize, 1)
	older := testPair(f)
	if got, _, err := older.read(); err != nil || got.sequence != 2 {
		t.Fatalf("got %d, %v", got.sequence, err)
	}
	if err := older.write([]byte("on"), nil); err != nil || lost() {
		t.Errorf("writing on: %v, lost %v", err, lost())
	}
}

// Where both slots are erased and the mark is not, the pair is not taken for a new one.
func TestMarkWithoutSlots(t *testing.T) {
	f := newFaultFile()
	p := testPair(f)
	if err := errors.Join(p.write([]byte("one"), nil), p.write([]byte("two"), nil)); err != nil {
		t.Fatal(err)
	}
	for _, off := range p.offset {
		if _, err := f.WriteAt(make([]byte, 2*blockSize), off); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := testPair(f).read(); err == nil || !strings.Contains(err.Error(), "version 2 of the configuration was acknowledged") {
		t.Errorf("got %v", err)
	}
}

// A version that takes the place of the mark, as older programs wrote it, is read, and the mark left
// out as long as it is there.
func TestLongSlot(t *testing.T) {
	f := newFaultFile()
	p := testPair(f)
	if err := p.write([]byte("one"), nil); err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("x"), configSize-blockSize)
	if _, err := f.WriteAt(encodeSlot(slotConfig, p.owner, 2, long, nil), p.offset[1]); err != nil {
		t.Fatal(err)
	}
	p = testPair(f)
	if got, problems, err := p.read(); err != nil || len(problems) != 0 || !bytes.Equal(got.part0, long) {
		t.Fatalf("version %d, %v, %v", got.sequence, problems, err)
	}
	for n := range 4 {
		if err := p.write(payload(n), nil); err != nil {
			t.Fatal(err)
		}
		again := testPair(f)
		if got, problems, err := again.read(); err != nil || len(problems) != 0 || !bytes.Equal(got.part0, payload(n)) {
			t.Fatalf("write %d: version %d, %v, %v", n, got.sequence, problems, err)
		}
		if n > 0 { // slot B was written
			if marked, _, err := again.readMark(); err != nil || marked != p.sequence {
				t.Errorf("write %d: the mark is %d, %v", n, marked, err)
			}
		}
	}
}

// tornOnce shows garbage the first time that a slot is read, as somebody does who is writing it.
type tornOnce struct {
	*faultFile
	torn map[int64]bool
}

func (f *tornOnce) ReadAt(p []byte, off int64) (int, error) {
	if torn, slot := f.torn[off]; slot && !torn {
		f.torn[off] = true
		return len(p), nil
	}
	return f.faultFile.ReadAt(p, off)
}

func TestReadIsRepeated(t *testing.T) {
	f := newFaultFile()
	p := testPair(f)
	if err := errors.Join(p.write([]byte("one"), nil), p.write([]byte("two"), nil)); err != nil {
		t.Fatal(err)
	}
	torn := &tornOnce{f, map[int64]bool{p.offset[0] + blockSize: false, p.offset[1] + blockSize: false}}
	if got, problems, err := testPair(torn).read(); err != nil || len(problems) != 0 || string(got.part0) != "two" {
		t.Errorf("read %q, %v, %v", got.part0, problems, err)
	}
}

// Another process that reads while versions are written finds one of them.
func TestReadWhileWritten(t *testing.T) {
	f := newFaultFile()
	p := testPair(f)
	if err := p.write(payload(0), nil); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 200 {
			if err := p.write(payload(n), nil); err != nil {
				t.Error(err)
			}
		}
	}()
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		if _, _, err := testPair(f).read(); err != nil && strings.Contains(err.Error(), "acknowledged") {
			t.Error(err)
		}
	}
}

// A slot that was erased, or an older one put in place, is told.
func TestPairTellsOfGaps(t *testing.T) {
	f := newFaultFile()
	p := testPair(f)
	for n := range 4 {
		if err := p.write(payload(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	blank := make([]byte, blockSize)
	old := encodeSlot(slotConfig, p.owner, 1, []byte("old"), nil)
	for _, b := range [][]byte{blank, old} {
		if _, err := f.WriteAt(b, p.offset[0]); err != nil {
			t.Fatal(err)
		}
		if got, problems, err := testPair(f).read(); err != nil || got.sequence != 4 || len(problems) != 1 {
			t.Errorf("got %d, %v, %v", got.sequence, problems, err)
		}
	}
}

func FuzzDecodeSlot(f *testing.F) {
	f.Add(encodeSlot(slotConfig, "p1", 7, []byte("one"), []byte("two")))
	f.Add(make([]byte, blockSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSlot(b, slotConfig, "p1")
		if err != nil {
			return
		}
		if again, err := decodeSlot(encodeSlot(slotConfig, "p1", s.sequence, s.part0, s.part1), slotConfig, "p1"); err != nil || !bytes.Equal(again.part0, s.part0) || !bytes.Equal(again.part1, s.part1) {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
	})
}

func FuzzDecodeSuper(f *testing.F) {
	f.Add(encodeSuper("p1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if owner, err := decodeSuper(b); err == nil && owner == "" {
			t.Fatal("an empty owner was accepted")
		}
	})
}

func FuzzDecodeTable(f *testing.F) {
	f.Add([]byte(`{"format":1,"units":{"p1-1":{"reservations":"AAEC","settings":{"mode":"AA=="}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		units, err := decodeTable(b)
		if err != nil {
			return
		}
		if b, err = encodeTable(units); err == nil {
			_, err = decodeTable(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}
