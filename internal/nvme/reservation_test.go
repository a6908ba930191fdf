package nvme_test

import (
	"runtime"
	"sync"
	"testing"

	"lintel.io/lintel/internal/block"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/scsi/reserve"
	"lintel.io/lintel/internal/scsi/sbc"
	"lintel.io/lintel/internal/unit"

	wire "lintel.io/lintel/internal/wire/nvme"
	scsiwire "lintel.io/lintel/internal/wire/scsi"
)

var conflict = wire.ReservationConflict.DNR()

// store keeps reservation tables in memory, as a pool would.
type store struct {
	mu   sync.Mutex
	blob map[unit.ID][]byte
}

func (s *store) LoadReservations(id unit.ID) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blob[id], nil
}

func (s *store) SaveReservations(id unit.ID, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blob[id] = b
	return nil
}

// eachStore runs a test with and without a store for reservations.
func eachStore(t *testing.T, f func(t *testing.T, b *Bench)) {
	t.Run("volatile", func(t *testing.T) { f(t, New(t, Config{})) })
	t.Run("persistent", func(t *testing.T) {
		f(t, New(t, Config{Reservations: &store{blob: make(map[unit.ID][]byte)}}))
	})
}

// TestReservationRegister checks Reservation Register (NVMe Base 2.0 §7.3, §8.19.3).
func TestReservationRegister(t *testing.T) {
	eachStore(t, func(t *testing.T, b *Bench) {
		a := b.Attach("a").IO
		const register, unregister, replace, ignore = 0, 1, 2, 1 << 3
		a.Fails(Register(1, unregister, 1, 0), conflict)
		a.Fails(Register(1, replace, 1, 2), conflict)
		a.Fails(Register(1, unregister|ignore, 1, 0), conflict)
		a.Good(Register(1, replace|ignore, 9, 2)) // registered or not
		a.Good(Register(1, unregister, 2, 0))
		a.Good(Register(1, register, 0, 1))
		a.Good(Register(1, register, 0, 1)) // the same key again
		a.Fails(Register(1, register, 0, 2), conflict)
		a.Fails(Register(1, replace, 9, 2), conflict)
		a.Good(Register(1, replace, 1, 2))
		a.Good(Register(1, replace|ignore, 9, 3))
		a.Fails(Register(1, unregister, 9, 0), conflict)
		a.Good(Register(1, unregister, 3, 0))
		a.Good(Register(1, register, 0, 4))
		a.Good(Register(1, unregister|ignore, 9, 0))
		for _, bad := range []Command{Register(1, register, 0, 0), Register(1, 3, 0, 1), Register(1, 1<<30, 0, 1)} {
			a.Fails(bad, wire.InvalidField.DNR())
		}
		short := Register(1, register, 0, 1)
		short.Out = short.Out[:8]
		a.Fails(short, wire.SGLLengthInvalid.DNR())
		persist := a.Do(Register(1, 3<<30, 0, 1))
		if can := b.Units[0].Reservations.CanPersist(); can != persist.Status.OK() {
			t.Errorf("CPTPL: %s", persist.Status)
		} else if can {
			if b.Units[0].Reservations.Table().Persist != true {
				t.Error("CPTPL has no effect")
			}
			a.Good(Register(1, 2|2<<30, 1, 2))
			if b.Units[0].Reservations.Table().Persist {
				t.Error("CPTPL has no effect")
			}
		}
	})
}

// TestReservationTypes checks what each type of reservation forbids to whom (NVMe Base 2.0 §8.19).
func TestReservationTypes(t *testing.T) {
	for rtype := uint32(1); rtype <= 6; rtype++ {
		b := New(t, Config{})
		holder, registrant, other := b.Attach("a").IO, b.Attach("b").IO, b.Attach("c").IO
		holder.Good(Register(1, 0, 0, 1))
		registrant.Good(Register(1, 0, 0, 2))
		holder.Good(Acquire(1, 0, rtype, 1, 0))
		exclusive, registrants := rtype%2 == 0, rtype > 2
		status := func(denied bool) wire.Status {
			if denied {
				return conflict
			}
			return 0
		}
		data := fill(512, 0)
		for _, c := range []struct {
			io          *Conn
			read, write bool // denied
		}{{holder, false, false}, {registrant, exclusive && !registrants, !registrants}, {other, exclusive, true}} {
			for _, cmd := range []Command{Read(1, 0, 1, 512), Compare(1, 0, data, 512), Blocks(wire.Verify, 1, 0, 1)} {
				c.io.Fails(cmd, status(c.read))
			}
			for _, cmd := range []Command{
				Write(1, 0, data, 512), Blocks(wire.WriteZeroes, 1, 0, 1), management(4, [2]uint64{0, 1}),
				{Opcode: wire.Flush, NSID: 1}, copyCommand(0, [2]uint64{1, 1}),
			} {
				c.io.Fails(cmd, status(c.write))
			}
			c.io.Good(Report(1, 256))
		}
		d := other.Good(Report(1, 256)).Data
		if uint32(d[4]) != rtype || le.Uint16(d[5:]) != 2 {
			t.Errorf("report of type %d: % X", rtype, d[:16])
		}
		if d[64+2] != 1 || (d[128+2] == 1) != (rtype > 4) {
			t.Errorf("type %d: holders %d, %d", rtype, d[64+2], d[128+2])
		}
		other.Fails(Acquire(1, 0, rtype, 0, 0), conflict)
		holder.Good(Acquire(1, 0, rtype, 1, 0)) // it holds it already
		holder.Fails(Acquire(1, 0, rtype%6+1, 1, 0), conflict)
		holder.Fails(ReleaseReservation(1, 0, rtype%6+1, 1), wire.InvalidField.DNR())
		holder.Good(ReleaseReservation(1, 0, rtype, 1))
		other.Good(Write(1, 0, data, 512))
	}
}

// TestReservationAcquire checks preempting and the fields of Acquire and Release (NVMe Base 2.0 §7.2, §7.4).
func TestReservationAcquire(t *testing.T) {
	eachStore(t, func(t *testing.T, b *Bench) {
		a, o := b.Attach("a"), b.Attach("b")
		invalid := wire.InvalidField.DNR()
		a.IO.Good(Register(1, 0, 0, 1))
		o.IO.Good(Register(1, 0, 0, 2))
		a.IO.Fails(Acquire(1, 0, 1, 7, 0), conflict)
		for _, bad := range []Command{Acquire(1, 3, 1, 1, 0), Acquire(1, 8, 1, 1, 0), Acquire(1, 0, 0, 1, 0), Acquire(1, 0, 7, 1, 0),
			Acquire(1, 1, 1, 1, 0), ReleaseReservation(1, 2, 1, 1), ReleaseReservation(1, 8, 1, 1)} {
			a.IO.Fails(bad, invalid)
		}
		short := Acquire(1, 0, 1, 1, 0)
		short.Out = short.Out[:8]
		a.IO.Fails(short, wire.SGLLengthInvalid.DNR())
		short = ReleaseReservation(1, 0, 1, 1)
		short.Out = short.Out[:4]
		a.IO.Fails(short, wire.SGLLengthInvalid.DNR())

		a.IO.Good(Acquire(1, 0, 1, 1, 0))
		padded := ReleaseReservation(1, 0, 1, 1)
		padded.Out = append(padded.Out, make([]byte, 8)...)
		a.IO.Good(padded)
		a.IO.Good(Acquire(1, 0, 1, 1, 0))
		o.IO.Fails(Acquire(1, 1, 1, 2, 77), conflict)
		aer := event(a)
		o.IO.Good(Acquire(1, 1, 2, 2, 1))
		if r := aer.Wait(); r.Result[0] != wire.EventReservation {
			t.Errorf("event %#x", r.Result[0])
		}
		d := a.Admin.Good(GetLogPage(wire.LogReservationNotification, 64, 0)).Data
		if le.Uint64(d) != 1 || d[8] != 1 || le.Uint32(d[12:]) != 1 {
			t.Errorf("notification % X", d[:16])
		}
		d = a.Admin.Good(GetLogPage(wire.LogReservationNotification, 64, 0)).Data
		if le.Uint64(d) != 0 || d[8] != 0 {
			t.Errorf("a notification comes twice: % X", d[:16])
		}
		a.IO.Fails(Read(1, 0, 1, 512), conflict)
		a.IO.Good(Register(1, 0, 0, 5))
		a.Admin.Good(SetFeature(wire.FeatureReservationMask, 1, 1<<3))
		o.IO.Good(ReleaseReservation(1, 1, 0, 2)) // clear; a masks what it would be told
		if d := a.Admin.Good(GetLogPage(wire.LogReservationNotification, 64, 0)).Data; le.Uint64(d) != 0 {
			t.Errorf("a masked notification: % X", d[:16])
		}
		if n := len(b.Units[0].Reservations.Table().Registrations); n != 0 {
			t.Errorf("%d registrations after Clear", n)
		}
		o.IO.Fails(ReleaseReservation(1, 0, 1, 2), conflict)
	})
}

// TestReservationReport checks Reservation Report (NVMe Base 2.0 §7.5).
func TestReservationReport(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	second := b.AttachAdmin(Connect{Host: a.Host}) // the same host by another way
	gone := b.Attach("gone")
	a.IO.Good(Register(1, 0, 0, 0x1122334455667788))
	gone.IO.Good(Register(1, 0, 0, 9))
	gone.Close()
	d := a.IO.Good(Report(1, 512)).Data
	if le.Uint32(d) != 2 || d[4] != 0 || le.Uint16(d[5:]) != 3 || d[9] != 0 {
		t.Errorf("header % X", d[:16])
	}
	for i, id := range []uint16{a.ID, second.ID, 0xFFFF} {
		e := d[64*(i+1):]
		if le.Uint16(e) != id || e[2] != 0 {
			t.Errorf("entry %d: % X", i, e[:32])
		}
		host, key := a.Host, uint64(0x1122334455667788)
		if i == 2 {
			host, key = gone.Host, 9
		}
		if [16]byte(e[16:32]) != host.ID || le.Uint64(e[8:]) != key {
			t.Errorf("entry %d: % X", i, e[:32])
		}
	}
	basic := Report(1, 64)
	basic.CDW[1] = 0
	a.IO.Fails(basic, wire.HostIDInconsistentFormat.DNR())
	bad := Report(1, 64)
	bad.CDW[0]++
	a.IO.Fails(bad, wire.SGLLengthInvalid.DNR())
}

// TestReservationPersistence checks reservations that survive a loss of power (NVMe Base 2.0 §8.19.2, §5.27.1.27).
func TestReservationPersistence(t *testing.T) {
	s := &store{blob: make(map[unit.ID][]byte)}
	b := New(t, Config{Reservations: s})
	a := b.Attach("a")
	a.Admin.Good(SetFeature(wire.FeatureReservationPersistence, 1, 1))
	if a.Admin.Good(GetFeature(wire.FeatureReservationPersistence, 1)).Result[0] != 1 {
		t.Error("persistence is not kept")
	}
	a.Admin.Fails(SetFeature(wire.FeatureReservationPersistence, 1, 2), wire.InvalidField.DNR())
	a.IO.Good(Register(1, 0, 0, 1))
	a.IO.Good(Acquire(1, 0, 2, 1, 0))

	b = New(t, Config{Reservations: s}) // the array comes back
	a, o := b.Attach("a"), b.Attach("b")
	o.IO.Fails(Read(1, 0, 1, 512), conflict)
	a.IO.Good(Read(1, 0, 1, 512))
	if d := a.IO.Good(Report(1, 128)).Data; d[9] != 1 || d[4] != 2 {
		t.Errorf("report % X", d[:16])
	}
	a.Admin.Good(SetFeature(wire.FeatureReservationPersistence, wire.AllNamespaces, 0))
	if len(s.blob[b.Units[0].ID()]) != 0 {
		t.Error("the table is kept without persistence")
	}
	volatile := New(t, Config{}).Attach("a")
	volatile.Admin.Fails(SetFeature(wire.FeatureReservationPersistence, 1, 1), wire.FeatureNotChangeable.DNR())
}

// slowStore keeps whoever saves a table until it is let go.
type slowStore struct {
	store
	saving, release chan struct{}
}

func (s *slowStore) SaveReservations(id unit.ID, b []byte) error {
	s.saving <- struct{}{}
	<-s.release
	return s.store.SaveReservations(id, b)
}

// TestPersistenceKept checks that a registration which leaves persistence as it is does not undo the one of another
// host that has it changed at the same time (NVMe Base 2.0 §7.3).
func TestPersistenceKept(t *testing.T) {
	for range 20 {
		s := &slowStore{store: store{blob: make(map[unit.ID][]byte)}, saving: make(chan struct{}, 2), release: make(chan struct{})}
		b := New(t, Config{Reservations: s})
		x, y := b.Attach("a").IO, b.Attach("b").IO
		first := x.Start(Register(1, 3<<30, 0, 1))
		<-s.saving
		second := y.Start(Register(1, 0, 0, 2))
		for range 100 { // as far as it gets
			runtime.Gosched()
		}
		close(s.release)
		for _, c := range []*Call{first, second} {
			if r := c.Wait(); !r.Status.OK() {
				t.Fatal(r.Status)
			}
		}
		if table := b.Units[0].Reservations.Table(); !table.Persist || len(table.Registrations) != 2 {
			t.Fatalf("persistent %v, %d registrations", table.Persist, len(table.Registrations))
		}
	}
}

// TestPreemptAndAbort checks that the commands of a preempted host end, and cannot write after the
// answer (NVMe Base 2.0 §8.19.7).
func TestPreemptAndAbort(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a, o := b.Attach("a"), b.Attach("b")
	a.IO.Good(Register(1, 0, 0, 1))
	o.IO.Good(Register(1, 0, 0, 2))
	a.IO.Good(Acquire(1, 0, 3, 1, 0))
	dev.holdBack()
	w := a.IO.Start(Write(1, 0, fill(512, 1), 512))
	p := o.IO.Start(Acquire(1, 2, 3, 2, 1))
	select {
	case <-p.Done():
		t.Error("answered with the write under way")
	default:
	}
	dev.resume()
	if r := w.Wait(); r.Status != wire.AbortedPreempt {
		t.Errorf("the write ended with %s", r.Status)
	}
	if r := p.Wait(); !r.Status.OK() {
		t.Errorf("Preempt and Abort: %s", r.Status)
	}
	a.IO.Fails(Write(1, 0, fill(512, 1), 512), conflict)
}

// scsiCall is a SCSI command under way.
type scsiCall struct {
	scsi.Task
	done chan scsi.Status
}

func (c *scsiCall) TaskDone(*scsi.Task) { c.done <- c.Status }

// scsiHost is a SCSI initiator at the same unit.
type scsiHost struct{ n *scsi.Nexus }

func newSCSIHost(t *testing.T, u *unit.Unit) scsiHost {
	t.Helper()
	target, err := scsi.NewTarget(scsi.TargetConfig{Name: "iqn.2026-11.io.lintel:bench", Families: [][]scsi.Command{sbc.Commands(), reserve.Commands()}})
	if err != nil {
		t.Fatal(err)
	}
	err = target.SetPorts([]scsi.PortConfig{{Name: "iqn.2026-11.io.lintel:bench,t,0x0001", Relative: 1, Group: 1, Protocol: scsiwire.ProtocolISCSI}})
	if err != nil {
		t.Fatal(err)
	}
	lu, err := target.AddUnit(u)
	if err != nil {
		t.Fatal(err)
	}
	name := "iqn.2026-11.io.lintel:host,i,0x400000000001"
	n, err := target.NewNexus(scsi.NexusConfig{
		Initiator:   unit.Initiator{Name: name, Port: 1},
		TransportID: scsiwire.ISCSITransportID(name),
		LUNs:        scsi.LUNMap{0: {LU: lu}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close(func() {}) })
	h := scsiHost{n}
	h.do(make([]byte, 6), nil) // the unit attention
	return h
}

func (h scsiHost) do(cdb, out []byte) scsi.Status {
	c := &scsiCall{done: make(chan scsi.Status, 1)}
	c.CDB = make([]byte, 16)
	copy(c.CDB, cdb)
	c.DataOut, c.DataOutExpected, c.Owner = out, uint32(len(out)), c
	h.n.Execute(&c.Task)
	return <-c.done
}

func (h scsiHost) persistentOut(action, typ byte, key, other uint64) scsi.Status {
	cdb := []byte{scsiwire.OpPersistentOut, action, typ, 0, 0, 0, 0, 0, 24, 0}
	out := make([]byte, 24)
	scsiwire.PutUint64(out, key)
	scsiwire.PutUint64(out[8:], other)
	return h.do(cdb, out)
}

func (h scsiHost) read() scsi.Status {
	return h.do([]byte{scsiwire.OpRead10, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil)
}

func (h scsiHost) write() scsi.Status {
	return h.do([]byte{scsiwire.OpWrite10, 0, 0, 0, 0, 0, 0, 0, 1, 0}, make([]byte, 512))
}

// TestOneReservationTable checks that SCSI and NVMe hosts share one reservation table (SPC-4 §5.13, NVMe Base 2.0 §8.19).
func TestOneReservationTable(t *testing.T) {
	spcTypes := []byte{0, 1, 3, 5, 6, 7, 8}
	for rtype := uint32(1); rtype <= 6; rtype++ {
		b := New(t, Config{})
		a := b.Attach("a")
		s := newSCSIHost(t, b.Units[0])
		data := fill(512, 0)
		exclusive := rtype%2 == 0
		scsiStatus := func(denied bool) scsi.Status {
			if denied {
				return scsi.StatusReservationConflict
			}
			return scsi.StatusGood
		}

		// NVMe holds, SCSI is kept out.
		a.IO.Good(Register(1, 0, 0, 1))
		a.IO.Good(Acquire(1, 0, rtype, 1, 0))
		if got := s.write(); got != scsi.StatusReservationConflict {
			t.Errorf("type %d: a SCSI write ends with %02Xh", rtype, got)
		}
		if got := s.read(); got != scsiStatus(exclusive) {
			t.Errorf("type %d: a SCSI read ends with %02Xh", rtype, got)
		}
		if got := s.persistentOut(0, 0, 0, 0xBEEF); got != scsi.StatusGood { // REGISTER
			t.Fatalf("REGISTER: %02Xh", got)
		}
		if got := s.write(); got != scsiStatus(rtype <= 2) {
			t.Errorf("type %d: a write of a SCSI registrant ends with %02Xh", rtype, got)
		}
		d := a.IO.Good(Report(1, 192)).Data
		if le.Uint16(d[5:]) != 2 || le.Uint16(d[128:]) != 0xFFFF || le.Uint64(d[136:]) != 0xBEEF {
			t.Errorf("report % X", d)
		}

		// SCSI preempts, NVMe is kept out and told.
		aer := event(a)
		target := uint64(1)
		if rtype > 4 {
			target = 0 // of all registrants
		}
		if got := s.persistentOut(4, spcTypes[rtype], 0xBEEF, target); got != scsi.StatusGood {
			t.Fatalf("PREEMPT: %02Xh", got)
		}
		if r := aer.Wait(); r.Result[0] != wire.EventReservation {
			t.Errorf("event %#x", r.Result[0])
		}
		a.IO.Fails(Write(1, 0, data, 512), conflict)
		want := wire.Success
		if exclusive {
			want = conflict
		}
		a.IO.Fails(Read(1, 0, 1, 512), want)
		if d := a.IO.Good(Report(1, 128)).Data; uint32(d[4]) != rtype || d[66] != 1 {
			t.Errorf("type %d: report % X", rtype, d)
		}
		a.IO.Good(Register(1, 0, 0, 3))
		a.IO.Good(Acquire(1, 1, 1, 3, map[bool]uint64{true: 0, false: 0xBEEF}[rtype > 4])) // NVMe preempts
		if got := s.write(); got != scsi.StatusReservationConflict && got != scsi.StatusCheckCondition {
			t.Errorf("a write of a preempted SCSI host ends with %02Xh", got)
		}
		if got := s.write(); got != scsi.StatusReservationConflict {
			t.Errorf("a write of a preempted SCSI host ends with %02Xh", got)
		}
		a.IO.Good(ReleaseReservation(1, 1, 0, 3))
		s.write() // the unit attention, if any

		// SCSI-2 RESERVE keeps NVMe out too.
		if got := s.do([]byte{scsiwire.OpReserve6, 0, 0, 0, 0, 0}, nil); got != scsi.StatusGood {
			t.Fatalf("RESERVE: %02Xh", got)
		}
		a.IO.Fails(Read(1, 0, 1, 512), conflict)
		a.IO.Fails(Register(1, 0, 0, 1), conflict)
	}
}
