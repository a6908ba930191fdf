package pool

import (
	"sync"
	"testing"

	"lintel.io/lintel/internal/array"
)

// A data plane that opens a pool whose documents another process is writing reads a version that
// is whole, and none older than the last that was stored before.
func TestDataReadsWhileDocumentsAreWritten(t *testing.T) {
	f := newFixture(t)
	f.data.Close()
	var mu sync.Mutex
	stored := f.state.Document.Generation
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		doc := *f.state.Document
		for {
			select {
			case <-stop:
				return
			default:
			}
			next := doc
			next.Generation++
			if err := f.pool.Commit(f.state.Pools[0], &next); err != nil {
				t.Error(err)
				return
			}
			doc = next
			mu.Lock()
			stored = doc.Generation
			mu.Unlock()
		}
	})
	good := 0
	for tries := 0; good < 300 && tries < 3000; tries++ {
		mu.Lock()
		least := stored
		mu.Unlock()
		d, err := OpenData(f.poolDir())
		if err != nil { // both slots were written in the meantime: it is tried again
			continue
		}
		good++
		if got := d.Array().Generation; got < least {
			t.Errorf("read version %d after %d was stored", got, least)
		}
		d.Close()
	}
	close(stop)
	writer.Wait()
	if good < 300 {
		t.Errorf("only %d reads were whole", good)
	}
	f.openData()
}

// Neither side writes what the other has.
func TestEachSideHasItsSlots(t *testing.T) {
	f := newFixture(t)
	v := f.create(array.Volume{Name: "db1", Kind: array.VolumeNull, Size: array.GiB})
	if err := f.data.SaveSetting("u1", "mode", []byte("page")); err != nil {
		t.Fatal(err)
	}
	f.create(array.Volume{Name: "db2", Kind: array.VolumeNull, Size: array.GiB})
	f.reopen()
	f.problems()
	if s, err := f.data.LoadSetting("u1", "mode"); err != nil || string(s) != "page" {
		t.Errorf("the setting is %q (%v)", s, err)
	}
	if doc := f.data.Document(); len(doc.Volumes) != 2 || doc.Volumes[0].ID != v.ID {
		t.Errorf("the document is %+v", doc)
	}
}
