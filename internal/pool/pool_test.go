package pool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/unit"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

var env = array.Env{Now: func() time.Time { return time.Unix(1.8e9, 0) }, Random: rand.Reader}

// fixture is a data directory with one array and its system pool.
type fixture struct {
	t     *testing.T
	dir   string // the data directory
	state *array.State
	pool  *Pool
	data  *Data
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	state, err := array.New(env, "san", "head-a", "default")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, dir: t.TempDir(), state: state}
	if err := os.Mkdir(filepath.Join(f.dir, PoolsDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if f.pool, err = Create(f.poolDir(), state.Pools[0], state.Document); err != nil {
		t.Fatal(err)
	}
	f.openData()
	t.Cleanup(func() { f.close() })
	return f
}

func (f *fixture) poolDir() string { return filepath.Join(f.dir, PoolsDir, "default") }

func (f *fixture) metadata() string { return filepath.Join(f.poolDir(), metadataName) }

func (f *fixture) close() {
	for _, c := range []io.Closer{f.pool, f.data} {
		if err := c.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			f.t.Error(err)
		}
	}
}

func (f *fixture) openData() {
	f.t.Helper()
	var err error
	if f.data, err = OpenData(f.poolDir()); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) reopen() {
	f.t.Helper()
	f.close()
	var err error
	if f.pool, err = Open(f.poolDir()); err != nil {
		f.t.Fatal(err)
	}
	f.openData()
	if f.state, err = array.NewState(f.pool.Array(), []*array.PoolDocument{f.pool.Document()}); err != nil {
		f.t.Fatal(err)
	}
}

// commit stores a state made by a change.
func (f *fixture) commit(state *array.State, err error) {
	f.t.Helper()
	if err == nil {
		err = f.pool.Commit(state.Pools[0], state.Document)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.state = state
}

func (f *fixture) create(spec array.Volume) *array.Volume {
	f.t.Helper()
	state, v, _, err := f.state.CreateVolume(env, "", spec)
	if err == nil {
		err = f.pool.CreateVolume(v)
	}
	f.commit(state, err)
	return v
}

func (f *fixture) problems(want ...string) {
	f.t.Helper()
	found := f.pool.Problems()
	if len(found) != len(want) {
		f.t.Fatalf("problems %v, want %q", found, want)
	}
	for i, p := range found {
		if !strings.Contains(p.String(), want[i]) {
			f.t.Errorf("problem %q, want %q", p, want[i])
		}
	}
}

func TestCommitSurvivesReopen(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.create(array.Volume{Name: fmt.Sprintf("vol-%d", i), Kind: array.VolumeNull, Size: array.GiB, Thin: true})
	}
	state, _, _, err := f.state.CreateHost(env, array.Host{Name: "esx1", CHAPUser: "u", CHAPSecret: "a secret of some length"})
	f.commit(state, err)
	before := f.state
	f.reopen()
	f.problems()
	if len(f.state.Pools[0].Volumes) != 5 || f.state.Document.Generation != before.Document.Generation || f.state.Document.Hosts[0].CHAPSecret != "a secret of some length" {
		t.Errorf("reopened: %+v", f.state.Document)
	}
}

func TestSecondOpenerIsRefused(t *testing.T) {
	f := newFixture(t)
	if _, err := Open(f.poolDir()); array.KindOf(err) != array.KindBusy {
		t.Errorf("got %v", err)
	}
	if _, err := OpenData(f.poolDir()); array.KindOf(err) != array.KindBusy {
		t.Errorf("data: %v", err)
	}
	check := func() {
		t.Helper()
		if _, err := Check(f.dir); array.KindOf(err) != array.KindBusy {
			t.Errorf("check: %v", err)
		}
	}
	check()
	f.data.Close()
	check()
	f.openData()
	f.pool.Close()
	check()
	var err error
	if f.pool, err = Open(f.poolDir()); err != nil {
		t.Errorf("while the data plane has it open: %v", err)
	}
	if _, err := Create(f.poolDir(), f.state.Pools[0], f.state.Document); array.KindOf(err) != array.KindExists {
		t.Errorf("create: %v", err)
	}
}

func TestMetadataIsAllocated(t *testing.T) {
	f := newFixture(t)
	var st unix.Stat_t
	if err := unix.Stat(f.metadata(), &st); err != nil || st.Blocks*512 < areaSize {
		t.Errorf("%d blocks are allocated (%v): a full file system would stop changes", st.Blocks, err)
	}
}

// damage overwrites bytes of the metadata.
func (f *fixture) damage(off int64, b ...byte) {
	f.t.Helper()
	file, err := os.OpenFile(f.metadata(), os.O_WRONLY, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := file.WriteAt(b, off); err != nil {
		f.t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		f.t.Fatal(err)
	}
}

func TestDamagedMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		at       []int64
		problems int    // where it still opens
		refused  string // what is said where it does not
	}{
		"first superblock":   {[]int64{100}, 0, ""},
		"superblock sum":     {[]int64{superSumAt}, 1, ""},
		"both superblocks":   {[]int64{0, superSecond}, 0, "neither superblock"},
		"one slot":           {[]int64{configOffset + blockSize + 5}, 1, ""},
		"both slots":         {[]int64{configOffset + blockSize + 5, configOffset + configSize + 3}, 0, "neither slot of the configuration"},
		"newest slot":        {[]int64{configOffset + configSize + 5}, 0, "version 2 of the configuration was acknowledged"},
		"erased newest slot": {[]int64{configOffset + configSize}, 0, "version 2 of the configuration was acknowledged"},
		"mark":               {[]int64{configOffset + 2*configSize - blockSize}, 1, ""},
		"newest table slot":  {[]int64{tableOffset + tableSize + slotSumAt}, 0, "version 2 of the reservation table was acknowledged"},
		"one table slot":     {[]int64{tableOffset + slotSumAt}, 1, ""},
		"the only table":     {[]int64{tableOffset + slotSumAt, tableOffset + tableSize}, 0, "neither slot of the reservation table"},
		"beyond the content": {[]int64{configOffset + configSize - 2}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.create(array.Volume{Name: "db1", Kind: array.VolumeNull, Size: array.GiB})
			if err := f.data.SaveSetting("x", "k", []byte("v")); err != nil {
				t.Fatal(err)
			}
			f.close()
			for _, off := range c.at {
				f.damage(off, 0xff, 0xff)
			}
			p, err := Open(f.poolDir())
			d, err2 := OpenData(f.poolDir())
			if err = errors.Join(err, err2); err != nil {
				if p != nil {
					p.Close()
				}
				if d != nil {
					d.Close()
				}
			}
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("got %v", err)
				}
			} else {
				if err != nil {
					t.Fatal(err)
				}
				f.pool, f.data = p, d
				if found := append(p.Problems(), d.Problems()...); len(found) != c.problems {
					t.Errorf("problems %v", found)
				}
				f.close()
			}
			r, err := Check(f.dir)
			if err != nil || r.Fatal() != (c.refused != "") {
				t.Errorf("check: %v, %v", r, err)
			}
		})
	}
}

// The way out that the message of a damaged table names works, and is told of until the table is written.
func TestDamagedTableIsGivenUp(t *testing.T) {
	f := newFixture(t)
	if err := f.data.SaveSetting("x", "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	f.close()
	f.damage(tableOffset+slotSumAt, 0xff)
	f.damage(tableOffset+tableSize+slotSumAt, 0xff)
	_, err := OpenData(f.poolDir())
	if err == nil {
		t.Fatal("a damaged table was opened")
	}
	_, command, found := strings.Cut(err.Error(), ": dd ")
	if !found {
		t.Fatalf("no way out: %v", err)
	}
	if out, err := exec.Command("dd", strings.Fields(command)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f.reopen()
	if found := f.data.Problems(); len(found) != 1 || !strings.Contains(found[0].Text, "the reservation table was erased") {
		t.Errorf("problems %v", found)
	}
	if err := f.data.SaveSetting("x", "k", []byte("new")); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	f.problems()
	if s, err := f.data.LoadSetting("x", "k"); string(s) != "new" || err != nil || len(f.data.Problems()) != 0 {
		t.Errorf("setting %q, %v, problems %v", s, err, f.data.Problems())
	}
}

// What is on a file system that knows no sync can be checked.
func TestReadingNeedsNoSync(t *testing.T) {
	f, err := openLocked("/proc/self/maps", os.O_RDONLY, wholeSpan)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINVAL) {
		t.Fatalf("the file is no example: %v", err)
	}
	if err := f.Datasync(); err != nil {
		t.Error(err)
	}
}

// An older program refuses what a newer one has written.
func TestNewerFormatIsRefused(t *testing.T) {
	f := newFixture(t)
	doc := *f.state.Pools[0]
	doc.Format++
	if err := f.pool.Commit(&doc, f.state.Document); err != nil {
		t.Fatal(err)
	}
	f.close()
	if _, err := Open(f.poolDir()); !errors.Is(err, array.ErrNewer) {
		t.Errorf("got %v", err)
	}
}

// What a newer program has written is not told as damage that could be removed.
func TestNewerHeadCopyIsNotDamage(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(t.TempDir(), HeadDir)
	h, err := OpenHeadCopy(dir)
	if err != nil {
		t.Fatal(err)
	}
	newer := *f.state.Document
	newer.Format++
	if err := h.Store(&newer); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = OpenHeadCopy(dir)
	if _, read := ReadHeadCopy(dir); read == nil || err == nil || read.Error() != err.Error() {
		t.Errorf("got %v and %v", err, read)
	}
	if !errors.Is(err, array.ErrNewer) || strings.Contains(err.Error(), "remove") {
		t.Errorf("got %v", err)
	}
}

// What keeps a backing store from being made is told with what to do.
func TestStoreErrorsSayWhatToDo(t *testing.T) {
	for cause, want := range map[error]string{
		unix.EROFS: "writable again", unix.EACCES: "write access", unix.ENOSPC: "free some space",
	} {
		if err := storeError(&fs.PathError{Op: "open", Path: "/x", Err: cause}); !errors.Is(err, cause) || !strings.Contains(err.Error(), want) || array.KindOf(err) == array.KindInternal {
			t.Errorf("%v: %v", cause, err)
		}
	}
	if err := createError("p2", unix.ENOSPC); array.KindOf(err) != array.KindBusy || !strings.Contains(err.Error(), "free 42MiB") {
		t.Errorf("a pool: %v", err)
	}
}

func TestFailedSyncPoisonsThePool(t *testing.T) {
	file := newFaultFile()
	f := newFixture(t)
	f.pool.config.file = file
	file.syncErr = errInjected
	state, _, _, err := f.state.CreateVolume(env, "", array.Volume{Name: "db1", Kind: array.VolumeNull, Size: array.GiB})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.pool.Commit(state.Pools[0], state.Document); !errors.Is(err, errInjected) || array.KindOf(err) != array.KindUnavailable {
			t.Fatalf("got %v", err)
		}
	}
	if f.pool.Err() == nil || f.pool.Document() != f.state.Pools[0] && len(f.pool.Document().Volumes) != 0 {
		t.Error("the failure is not kept, or the change is")
	}
	if err := f.data.SaveSetting("x", "k", []byte("v")); err != nil {
		t.Errorf("the table is another pair of slots: %v", err)
	}
}

func TestReservationsAndSettings(t *testing.T) {
	f := newFixture(t)
	get := func() string {
		t.Helper()
		r, err := f.data.LoadReservations("u1")
		s, err2 := f.data.LoadSetting("u1", "mode")
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%q %q", r, s)
	}
	if got := get(); got != `"" ""` {
		t.Errorf("new: %s", got)
	}
	blob := []byte("keys")
	if err := errors.Join(f.data.SaveReservations("u1", blob), f.data.SaveSetting("u1", "mode", []byte("page"))); err != nil {
		t.Fatal(err)
	}
	blob[0] = 'X' // the caller's again
	f.reopen()
	if got := get(); got != `"keys" "page"` {
		t.Errorf("reopened: %s", got)
	}
	if err := errors.Join(f.data.SaveReservations("u1", nil), f.data.SaveSetting("u1", "mode", nil)); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if got := get(); got != `"" ""` || len(f.data.table.units) != 0 {
		t.Errorf("removed: %s, %v", got, f.data.table.units)
	}
	for _, err := range []error{
		f.data.SaveReservations("u1", make([]byte, maxReservations+1)),
		f.data.SaveSetting("u1", "", nil),
		f.data.SaveSetting("u1", "k", make([]byte, unit.MaxSetting+1)),
	} {
		if array.KindOf(err) != array.KindInvalid {
			t.Errorf("got %v", err)
		}
	}
	for i := range maxSettings {
		if err := f.data.SaveSetting("u2", fmt.Sprint(i), []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.data.SaveSetting("u2", "more", []byte{1}); array.KindOf(err) != array.KindInvalid {
		t.Errorf("got %v", err)
	}
}

// Changes of the table that come while one is written share the next write, and a
// failed write fails exactly its own.
func TestTableGroupCommit(t *testing.T) {
	file := newFaultFile()
	tbl := newTable(newPair(file, "m", slotTable, "p1"), map[string]entry{})
	p := &Data{table: tbl}
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	file.inSync = func() {
		once.Do(func() {
			close(entered)
			<-release
		})
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.SaveReservations("first", []byte{1}); err != nil {
			t.Error(err)
		}
	})
	<-entered
	const n = 10
	for i := range n {
		wg.Go(func() {
			if err := p.SaveReservations(unit.ID(fmt.Sprint(i)), []byte{2}); err != nil {
				t.Error(err)
			}
		})
	}
	for {
		tbl.mu.Lock()
		queued := tbl.waiting != nil && len(tbl.waiting.changes) == n
		tbl.mu.Unlock()
		if queued {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()
	if file.syncs != 2 || len(tbl.units) != n+1 {
		t.Errorf("%d syncs for %d entries, want 2", file.syncs, len(tbl.units))
	}
	file.writeErr = errInjected
	if err := p.SaveReservations("first", []byte{9}); !errors.Is(err, errInjected) {
		t.Errorf("got %v", err)
	}
	if b, _ := p.LoadReservations("first"); len(b) != 1 || b[0] != 1 {
		t.Errorf("a change that failed is seen: %v", b)
	}
	if err := p.SaveReservations("first", []byte{3}); err != nil {
		t.Errorf("after a failed write: %v", err)
	}
}

func TestHeadCopy(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(f.dir, HeadDir)
	open := func() *HeadCopy {
		t.Helper()
		h, err := OpenHeadCopy(dir)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h := open()
	if h.Document() != nil {
		t.Error("a new copy has a document")
	}
	if _, err := OpenHeadCopy(dir); array.KindOf(err) != array.KindBusy {
		t.Errorf("second opener: %v", err)
	}
	if err := errors.Join(h.Store(f.state.Document), h.Close()); err != nil {
		t.Fatal(err)
	}
	h = open()
	if h.Document() == nil || h.Document().ID != f.state.Document.ID {
		t.Errorf("got %v", h.Document())
	}
	check := func() error {
		read, err := ReadHeadCopy(dir)
		if err != nil || read.ID != h.Document().ID {
			t.Errorf("read %v (%v)", read, err)
		}
		_, err = State([]*Pool{f.pool}, read)
		return err
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	newer := *f.state.Document
	newer.Generation++
	if err := h.Store(&newer); err != nil {
		t.Fatal(err)
	}
	if err := check(); err == nil {
		t.Error("a newer copy was accepted")
	}
	other := newer
	other.ID = "a-other"
	if err := h.Store(&other); err != nil {
		t.Fatal(err)
	}
	if err := check(); err == nil {
		t.Error("another array's copy was accepted")
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	f.close()
	if r, err := Check(f.dir); err != nil || !r.Fatal() {
		t.Errorf("check: %v, %v", r, err)
	}
}

func TestRemove(t *testing.T) {
	f := newFixture(t)
	stray := filepath.Join(f.poolDir(), volumesName, "stray")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.pool.Remove(); array.KindOf(err) != array.KindBusy {
		t.Fatalf("with a stray file: %v", err)
	}
	if err := os.Remove(stray); err != nil {
		t.Fatal(err)
	}
	// One that cannot be moved, as it is a mount point, goes on.
	away := filepath.Join(f.dir, "away")
	if err := os.Rename(f.poolDir(), away); err != nil {
		t.Fatal(err)
	}
	if err := f.pool.Remove(); err == nil {
		t.Fatal("a pool that cannot be moved was removed")
	}
	if err := os.Rename(away, f.poolDir()); err != nil {
		t.Fatal(err)
	}
	f.commit(f.state, nil)
	if err := f.pool.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.poolDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// What the file system keeps beside the pools is none; any other directory without
// metadata may be a pool whose file system is not mounted.
func TestForeignDirectories(t *testing.T) {
	f := newFixture(t)
	f.close()
	pools := filepath.Join(f.dir, PoolsDir)
	for _, name := range []string{"lost+found", ".snapshot"} {
		if err := os.Mkdir(filepath.Join(pools, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if dirs, err := List(pools); err != nil || len(dirs) != 1 {
		t.Errorf("pools %v, %v", dirs, err)
	}
	if r, err := Check(f.dir); err != nil || r.Fatal() {
		t.Errorf("check: %v, %v", r, err)
	}
	empty := filepath.Join(pools, "archive")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(f.dir); err != nil || !r.Fatal() || !strings.Contains(r.Problems[0].Text, "mount the file system") {
		t.Errorf("check of an empty one: %v, %v", r, err)
	}
	if _, err := Open(empty); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mount the file system") {
		t.Errorf("an empty one opens: %v", err)
	}
}

func TestSweepFinishesRemovals(t *testing.T) {
	f := newFixture(t)
	f.close()
	pools := filepath.Join(f.dir, PoolsDir)
	if err := os.Rename(f.poolDir(), filepath.Join(pools, oldPrefix+"default")); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(f.dir); err != nil || len(r.Problems) != 2 || !r.Fatal() {
		t.Errorf("check: %v, %v", r, err)
	}
	if err := Sweep(pools); err != nil {
		t.Error(err)
	}
	if dirs, err := List(pools); err != nil || len(dirs) != 0 {
		t.Errorf("got %v, %v", dirs, err)
	}
	if entries, err := os.ReadDir(pools); err != nil || len(entries) != 0 {
		t.Errorf("left over: %v, %v", entries, err)
	}
	if dirs, err := List(filepath.Join(f.dir, "none")); err != nil || dirs != nil {
		t.Errorf("got %v, %v", dirs, err)
	}
	if _, err := Check(filepath.Join(f.dir, "none")); array.KindOf(err) != array.KindNotFound {
		t.Errorf("got %v", err)
	}
}
