package sbc

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// sanitizeCDB returns a SANITIZE CDB.
func sanitizeCDB(action, bits byte, length int) []byte {
	return flags(cdb(wire.OpSanitize, 0, uint32(length)), action|bits)
}

// overwrite returns the CDB and parameter list of SANITIZE with OVERWRITE.
func overwrite(bits, first byte, pattern []byte) (cdb, out []byte) {
	out = append([]byte{first, 0, byte(len(pattern) >> 8), byte(len(pattern))}, pattern...)
	return sanitizeCDB(actionOverwrite, bits, len(out)), out
}

// idle waits until no sanitize operation runs, and returns how it has ended.
func (r *rig) idle() scsi.SanitizeState {
	for {
		if state, _ := r.lu.SanitizeState(); state != scsi.SanitizeRunning {
			r.do(make([]byte, 6), nil) // takes a unit attention
			return state
		}
		runtime.Gosched()
	}
}

// store is a setting store that outlives a rig.
type store struct {
	mu    sync.Mutex
	blobs map[string][]byte
	fail  bool
}

func (s *store) LoadSetting(_ unit.ID, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return nil, errors.New("the store is gone")
	}
	return s.blobs[key], nil
}

func (s *store) SaveSetting(_ unit.ID, key string, blob []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		return errors.New("the store is gone")
	}
	if s.blobs == nil {
		s.blobs = make(map[string][]byte)
	}
	s.blobs[key] = bytes.Clone(blob)
	return nil
}

func (s *store) setFail(fail bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// TestSanitizeOverwrite checks SANITIZE OVERWRITE (SBC-3 §5.25.2.2).
func TestSanitizeOverwrite(t *testing.T) {
	const blocks = 3000
	eachGeometry(t, blocks, func(t *testing.T, r *rig) {
		for _, c := range []struct {
			first   byte
			pattern []byte
			want    func(i int) byte
		}{
			{1, r.fill(1, 0xAA), func(int) byte { return 0xAA }},
			{1, r.fill(1, 0xAB)[:r.size/2], func(int) byte { return 0xAB }},
			{2, []byte{1, 2, 3}, func(i int) byte { return byte(i%3 + 1) }},
			{3, []byte{0}, func(int) byte { return 0 }},
			{bitInvert | 1, []byte{0x0F}, func(int) byte { return 0x0F }},
			{bitInvert | 2, []byte{0x0F}, func(int) byte { return 0xF0 }},
			{bitInvert | 3, []byte{0x0F}, func(int) byte { return 0x0F }},
		} {
			for _, immed := range []byte{0, bitSanitizeImmed} {
				r.put(0, blocks, 'u')
				r.good(overwrite(immed, c.first, c.pattern))
				if state := r.idle(); state != scsi.SanitizeIdle {
					t.Fatalf("the operation has ended in state %d", state)
				}
				one := make([]byte, r.size)
				for i := range one {
					one[i] = c.want(i)
				}
				if at := difference(r.medium(0, blocks), bytes.Repeat(one, blocks)); at >= 0 {
					t.Fatalf("byte %d of block %d is wrong", at%int64(r.size), at/int64(r.size))
				}
			}
		}
	})
}

// TestSanitizeParameters checks what SANITIZE refuses (SBC-3 §5.25).
func TestSanitizeParameters(t *testing.T) {
	eachGeometry(t, 100, func(t *testing.T, r *rig) {
		r.put(0, 100, 'u')
		for n := range 5 {
			r.invalid(sanitizeCDB(actionOverwrite, 0, n), make([]byte, n), false, 7, -1)
		}
		r.invalid(sanitizeCDB(actionOverwrite, 0, r.size+5), make([]byte, r.size+5), false, 7, -1)
		b, out := overwrite(0, 0, r.fill(1, 1))
		r.invalid(b, out, true, 0, 4)
		b, out = overwrite(0, 0x21, r.fill(1, 1))
		r.invalid(b, out, true, 0, 6)
		b, out = overwrite(0, 1, r.fill(1, 1))
		for _, n := range []int{0, r.size + 4, r.size + 1} {
			wire.PutUint16(out[2:], uint16(n))
			r.invalid(b, out, true, 2, -1)
		}
		r.fails(b, out[:100], wire.KeyIllegalRequest, invalidCommandUnit)
		r.invalid(sanitizeCDB(actionExitFailureMode, 0, 8), make([]byte, 8), false, 8, 3)
		for action := byte(0); action < 0x20; action++ {
			switch action {
			case actionOverwrite, actionBlockErase, actionExitFailureMode:
			default:
				r.fails(sanitizeCDB(action, 0, 0), nil, wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
			}
		}
		if r.u.Attributes().Thin {
			r.invalid(sanitizeCDB(actionBlockErase, 0, 8), make([]byte, 8), false, 8, 3)
		} else {
			r.fails(sanitizeCDB(actionBlockErase, 0, 0), nil, wire.KeyIllegalRequest, wire.InvalidFieldInCDB)
		}
		r.good(sanitizeCDB(actionExitFailureMode, 0, 0), nil)
		r.has(0, 100, 'u')
		n := r.connect("reader", true)
		b, out = overwrite(0, 1, r.fill(1, 1))
		r.failed(r.on(n, b, out), b, wire.KeyDataProtect, wire.WriteProtected)
	})
}

// TestSanitizeBlockErase checks SANITIZE BLOCK ERASE (SBC-3 §5.25.2.3).
func TestSanitizeBlockErase(t *testing.T) {
	for _, size := range []uint32{512, 4096} {
		r := thinRig(t, size, 1000)
		for _, immed := range []byte{0, bitSanitizeImmed} {
			r.put(0, 1000, 'u')
			r.good(sanitizeCDB(actionBlockErase, immed, 0), nil)
			if state := r.idle(); state != scsi.SanitizeIdle {
				t.Fatalf("the operation has ended in state %d", state)
			}
			r.has(0, 1000, 0)
			if list, states := r.statusOf(0, 256); len(list) != 1 || list[0] != (extent{0, 1000}) || states[0] != deallocated {
				t.Fatalf("%v % X", list, states)
			}
		}
	}
}

// TestSanitizeLocks checks what is refused while SANITIZE goes on (SBC-3 §4.11.3).
func TestSanitizeLocks(t *testing.T) {
	f := blocktest.NewFaulty(block.NewMem(4 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, nil)
	other := r.connect("other", false)
	f.Hold(block.Write)
	b, out := overwrite(0, 1, []byte{0x55})
	running := r.start(r.nexus, b, out)
	f.WaitHeld(1)
	for _, n := range []*scsi.Nexus{r.nexus, other} {
		for _, b := range [][]byte{
			make([]byte, 6), {0x1B, 0, 0, 0, 1, 0}, cdb(wire.OpRead16, 0, 1), cdb(wire.OpWrite10, 0, 1),
			cdb(wire.OpSynchronizeCache10, 0, 0), readCapacity16(0, 32),
			sanitizeCDB(actionBlockErase, 0, 0), sanitizeCDB(actionExitFailureMode, 0, 0),
		} {
			s := r.failed(r.on(n, b, r.fill(1, 0)), b, wire.KeyNotReady, wire.SanitizeInProgress)
			if s.Specific[0] != 0x80 {
				t.Errorf("% X: no progress indication", b)
			}
		}
		b, out := overwrite(0, 1, []byte{0x55})
		r.failed(r.on(n, b, out), b, wire.KeyNotReady, wire.SanitizeInProgress)
		for _, b := range [][]byte{{0x12, 0, 0, 0, 96, 0}, {3, 0, 0, 0, 96, 0}} {
			if res := r.on(n, b, nil); res.status != scsi.StatusGood {
				t.Errorf("% X: %v", b, res.sense)
			}
		}
	}
	f.Release()
	if res := running.wait(); res.status != scsi.StatusGood {
		t.Fatalf("%v", res.sense)
	}
	r.has(0, 8192, 0x55)
	f.PowerCut()
	r.has(0, 8192, 0x55)
}

// TestSanitizeOutlivesTask checks that SANITIZE goes on after its task was aborted (SBC-3 §4.11.2).
func TestSanitizeOutlivesTask(t *testing.T) {
	for _, function := range []scsi.Function{scsi.AbortTask, scsi.AbortTaskSet, scsi.ClearTaskSet, scsi.LogicalUnitReset} {
		f := blocktest.NewFaulty(block.NewMem(4 << 20))
		r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, nil)
		f.Hold(block.Write)
		b, out := overwrite(0, 1, []byte{0x55})
		running := r.start(r.nexus, b, out)
		f.WaitHeld(1)
		done := make(chan scsi.Response, 1)
		r.nexus.Manage(function, 0, running.Tag, func(resp scsi.Response) { done <- resp })
		f.Hold(block.Flush)
		f.Release()
		if res := running.wait(); !res.aborted {
			t.Fatalf("function %d: the task was not aborted: %v", function, res.sense)
		}
		if resp := <-done; resp != scsi.FunctionComplete {
			t.Fatalf("function %d: response %d", function, resp)
		}
		if state := r.idle(); state != scsi.SanitizeIdle {
			t.Fatalf("the operation has ended in state %d", state)
		}
		r.has(0, 8192, 0x55)
	}
}

// TestSanitizeFailure checks the failure modes of SANITIZE (SBC-3 §4.11.4, §5.25.2.5).
func TestSanitizeFailure(t *testing.T) {
	for _, bits := range []byte{0, bitUnrestrictedExit, bitSanitizeImmed, bitSanitizeImmed | bitUnrestrictedExit} {
		for _, op := range []block.Op{block.Write, block.Flush} {
			f := blocktest.NewFaulty(block.NewMem(4 << 20))
			r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, &store{})
			f.Inject(blocktest.Fault{Ops: []block.Op{op}, Off: 2 << 20, Len: 1, Kind: block.KindMedium, Count: 1})
			b, out := overwrite(bits, 1, []byte{0x55})
			if bits&bitSanitizeImmed != 0 {
				r.good(b, out)
			} else {
				r.fails(b, out, wire.KeyMediumError, wire.SanitizeFailed)
			}
			if state, seal := r.idle(), r.lu.Unit().Seal(); state != scsi.SanitizeFailed || seal != unit.SanitizeFailed {
				t.Fatalf("the operation has ended in state %d, seal %d", state, seal)
			}
			r.fails(cdb(wire.OpRead10, 0, 1), nil, wire.KeyMediumError, wire.SanitizeFailed)
			if err := ResumeSanitize(r.lu); err != nil { // as after a restart
				t.Fatal(err)
			}
			r.fails(cdb(wire.OpRead10, 0, 1), nil, wire.KeyMediumError, wire.SanitizeFailed)
			if bits&bitUnrestrictedExit != 0 {
				r.good(sanitizeCDB(actionExitFailureMode, 0, 0), nil)
				r.good(cdb(wire.OpRead10, 0, 1), nil)
				continue
			}
			r.invalid(sanitizeCDB(actionExitFailureMode, 0, 0), nil, false, 1, 4)
			r.fails(cdb(wire.OpRead10, 0, 1), nil, wire.KeyMediumError, wire.SanitizeFailed)
			r.good(sanitizeCDB(actionBlockErase, 0, 0), nil)
			r.has(0, 8192, 0)
		}
	}
}

// TestSanitizeResume checks that a restart does not end SANITIZE (SBC-3 §4.11.2).
func TestSanitizeResume(t *testing.T) {
	s := &store{}
	medium := block.NewMem(4 << 20)
	f := blocktest.NewFaulty(medium)
	first := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, s)
	first.put(0, 8192, 'u')
	if err := ResumeSanitize(first.lu); err != nil {
		t.Fatal(err)
	}
	first.good(cdb(wire.OpRead10, 0, 1), nil)
	f.Hold(block.Write)
	first.good(overwrite(bitSanitizeImmed, 2, []byte{0x55}))
	f.WaitHeld(1)
	f.PowerCut() // ends the request with KindGone
	if state := first.idle(); state != scsi.SanitizeFailed {
		t.Fatalf("the operation has ended in state %d", state)
	}

	next := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, s)
	f.Hold(block.Write)
	if err := ResumeSanitize(next.lu); err != nil {
		t.Fatal(err)
	}
	f.WaitHeld(1)
	next.fails(cdb(wire.OpRead10, 0, 1), nil, wire.KeyNotReady, wire.SanitizeInProgress)
	if seal := next.lu.Unit().Seal(); seal != unit.Sanitizing {
		t.Errorf("other protocols see seal %d", seal)
	}
	f.Release()
	if state, seal := next.idle(), next.lu.Unit().Seal(); state != scsi.SanitizeIdle || seal != unit.Unsealed {
		t.Fatalf("the operation has ended in state %d, seal %d", state, seal)
	}
	next.has(0, 8192, 0x55)
	if blob, _ := s.LoadSetting("", sanitizeKey); blob != nil {
		t.Fatalf("the operation is still recorded: %s", blob)
	}
}

// TestSanitizeRecord checks what happens where the state of SANITIZE cannot be kept or read (SBC-3 §4.11.2).
func TestSanitizeRecord(t *testing.T) {
	for _, blob := range []string{"{", `{"version":2}`} {
		s := &store{blobs: map[string][]byte{sanitizeKey: []byte(blob)}}
		r := newRig(t, block.NewMem(1<<20), unit.Attributes{BlockSize: 512, Thin: true}, s)
		if err := ResumeSanitize(r.lu); err == nil {
			t.Fatal("no error")
		}
		r.fails(cdb(wire.OpRead10, 0, 1), nil, wire.KeyMediumError, wire.SanitizeFailed)
		r.invalid(sanitizeCDB(actionExitFailureMode, 0, 0), nil, false, 1, 4)
		r.good(sanitizeCDB(actionBlockErase, 0, 0), nil)
		r.good(cdb(wire.OpRead10, 0, 1), nil)
	}

	s := &store{}
	f := blocktest.NewFaulty(block.NewMem(1 << 20))
	r := newRig(t, f, unit.Attributes{BlockSize: 512, Thin: true}, s)
	r.put(0, 1, 'u')
	s.setFail(true)
	if err := ResumeSanitize(r.lu); err == nil {
		t.Fatal("no error")
	}
	r.fails(sanitizeCDB(actionBlockErase, 0, 0), nil, wire.KeyHardwareError, wire.InternalTargetFailure)
	r.has(0, 1, 'u')
	r.good(cdb(wire.OpRead10, 0, 1), nil)
	s.setFail(false)

	// The operation succeeds, but the record of it stays: the unit stays locked.
	f.Hold(block.Discard)
	erase := r.start(r.nexus, sanitizeCDB(actionBlockErase, bitUnrestrictedExit, 0), nil)
	f.WaitHeld(1)
	s.setFail(true)
	f.Release()
	if res := erase.wait(); res.sense.Code != wire.SanitizeFailed {
		t.Fatalf("%v", res.sense)
	}
	r.invalid(sanitizeCDB(actionExitFailureMode, 0, 0), nil, false, 1, 4)
	s.setFail(false)
	r.good(sanitizeCDB(actionExitFailureMode, 0, 0), nil)
	r.has(0, 1, 0)
}

// hooked is a device that calls a function before each request.
type hooked struct {
	block.Device
	hook func(*block.Request)
}

func (h hooked) Submit(r *block.Request) {
	h.hook(r)
	h.Device.Submit(r)
}

// TestSanitizeProgress checks the PROGRESS INDICATION of SANITIZE (SBC-3 §4.11.3).
func TestSanitizeProgress(t *testing.T) {
	var r *rig
	steps := 0
	r = newRig(t, hooked{block.NewMem(8 << 20), func(q *block.Request) {
		if q.Op != block.Write {
			return
		}
		s := r.fails(make([]byte, 6), nil, wire.KeyNotReady, wire.SanitizeInProgress)
		done, want := int(wire.Uint16(s.Specific[1:])), steps*65536/16
		if done > want || done+100 < want {
			t.Errorf("progress %d after %d of 16 steps", done, steps)
		}
		steps++
	}}, unit.Attributes{BlockSize: 512}, nil)
	r.good(overwrite(0, 2, []byte{1}))
	if steps != 16 {
		t.Fatalf("%d steps", steps)
	}
}
