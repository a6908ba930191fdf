package blocktest_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
)

func newFaulty() *blocktest.Faulty {
	return blocktest.NewFaulty(block.NewMem(blocktest.MinSize))
}

func TestFaultyConformance(t *testing.T) {
	blocktest.Run(t, func(testing.TB) block.Device { return newFaulty() })
}

func page(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }

func wantPage(t *testing.T, dev block.Device, off int64, b byte) {
	t.Helper()
	if !bytes.Equal(blocktest.Read(t, dev, off, 4096), page(b)) {
		t.Errorf("the page at %d is not all %#x", off, b)
	}
}

func TestFaultyPowerCut(t *testing.T) {
	dev := newFaulty()
	blocktest.Write(t, dev, 0, page(1))
	blocktest.Flush(t, dev)
	blocktest.Write(t, dev, 0, page(2))
	blocktest.Write(t, dev, 4096, page(2))
	wantPage(t, dev, 0, 2)
	if err := blocktest.Do(dev, &block.Request{Op: block.Write, Flags: block.FUA, Off: 4096, Data: page(3)}); err != nil {
		t.Fatal(err)
	}
	wantPage(t, dev, 4096, 3)
	if err := blocktest.Do(dev, &block.Request{Op: block.Discard, Len: 2048}); err != nil {
		t.Fatal(err)
	}
	dev.PowerCut()
	wantPage(t, dev, 0, 1)
	wantPage(t, dev, 4096, 3)
	// It works again, and flushing later brings nothing old back.
	blocktest.Write(t, dev, 8192, page(4))
	blocktest.Flush(t, dev)
	dev.PowerCut()
	wantPage(t, dev, 0, 1)
	wantPage(t, dev, 8192, 4)
}

func TestFaultyInject(t *testing.T) {
	dev := newFaulty()
	remove := dev.Inject(blocktest.Fault{Ops: []block.Op{block.Read}, Off: 4096, Len: 4096, Kind: block.KindMedium})
	dev.Inject(blocktest.Fault{Ops: []block.Op{block.Flush}, Kind: block.KindGone, Count: 2})
	read := func(off int64) error {
		return blocktest.Do(dev, &block.Request{Op: block.Read, Off: off, Data: page(0)})
	}
	for _, off := range []int64{1, 4096, 8191} {
		if err := read(off); block.KindOf(err) != block.KindMedium {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	for _, off := range []int64{0, 8192} {
		if err := read(off); err != nil {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	blocktest.Write(t, dev, 4096, page(1))
	for range 2 {
		if err := blocktest.Do(dev, &block.Request{Op: block.Flush}); block.KindOf(err) != block.KindGone {
			t.Errorf("flush: %v", err)
		}
	}
	blocktest.Flush(t, dev)
	remove()
	wantPage(t, dev, 4096, 1)
	if n := dev.Count(block.Flush); n != 3 {
		t.Errorf("%d flushes counted, want 3", n)
	}
	dev.Inject(blocktest.Fault{Kind: block.KindIO})
	if err := read(0); err == nil {
		t.Error("a fault of everything spares a read")
	}
}

func TestFaultySetFull(t *testing.T) {
	dev := newFaulty()
	blocktest.Write(t, dev, 0, page(1))
	dev.SetFull(true)
	for op, kind := range map[block.Op]block.Kind{block.Write: block.KindNoSpace, block.Zero: block.KindNoSpace} {
		if err := blocktest.Do(dev, &block.Request{Op: op, Off: 1 << 20, Len: 4096, Data: page(2)}); block.KindOf(err) != kind {
			t.Errorf("%s: %v, want %s", op, err, kind)
		}
	}
	blocktest.Write(t, dev, 0, page(3))
	wantPage(t, dev, 0, 3)
	dev.SetFull(false)
	blocktest.Write(t, dev, 1<<20, page(2))
}

func TestFaultyHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := newFaulty()
		dev.Hold(block.Write)
		errs := make(chan error, 2)
		for i := range int64(2) {
			go func() {
				errs <- blocktest.Do(dev, &block.Request{Op: block.Write, Off: i * 4096, Data: page(1)})
			}()
		}
		dev.WaitHeld(2)
		synctest.Wait()
		if len(errs) != 0 || dev.Held() != 2 {
			t.Fatalf("%d of 2 writes are held", dev.Held())
		}
		wantPage(t, dev, 0, 0)
		dev.Release()
		for range 2 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		wantPage(t, dev, 0, 1)

		dev.Hold()
		for range 2 {
			go func() { errs <- blocktest.Do(dev, &block.Request{Op: block.Flush}) }()
		}
		dev.WaitHeld(2)
		dev.PowerCut()
		for range 2 {
			if err := <-errs; block.KindOf(err) != block.KindGone {
				t.Errorf("a flush in a power cut: %v", err)
			}
		}
		wantPage(t, dev, 0, 0)

		dev.Hold(block.Read)
		go func() { errs <- blocktest.Do(dev, &block.Request{Op: block.Read, Data: page(0)}) }()
		dev.WaitHeld(1)
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
		if err := <-errs; block.KindOf(err) != block.KindGone {
			t.Errorf("a read in a close: %v", err)
		}
	})
}
