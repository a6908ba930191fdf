package sbc

import (
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/scsi"
)

// loop executes one command again and again, as a transport that reuses its task.
type loop struct {
	task scsi.Task
	n    *scsi.Nexus
	done chan struct{}
}

func (l *loop) TaskDone(*scsi.Task) { l.done <- struct{}{} }

func newLoop(t testing.TB, dev block.Device, cdb []byte, out []byte) *loop {
	r := newRig(t, dev, unit.Attributes{BlockSize: 512, Thin: true}, nil)
	l := &loop{n: r.nexus, done: make(chan struct{}, 1)}
	l.task.CDB, l.task.Owner, l.task.Tag = append(make([]byte, 0, 16), cdb...)[:16], l, 1
	l.task.DataOut, l.task.DataOutExpected = out, uint32(len(out))
	return l
}

func (l *loop) once() scsi.Status {
	out := l.task.DataOut
	l.n.DataOutLength(&l.task)
	l.n.Execute(&l.task)
	<-l.done
	s := l.task.Status
	l.task.Release()
	l.task.DataOut = out
	return s
}

// hot are the commands that must not allocate.
func hot(t testing.TB) map[string]*loop {
	data := block.Get(4096).Bytes(4096)
	clear(data)
	list := map[string]*loop{}
	for name, dev := range map[string]func() block.Device{
		"null": func() block.Device { return block.NewNull(1 << 30) },
		"mem":  func() block.Device { return block.NewMem(1 << 30) },
	} {
		list[name+"/READ(10)"] = newLoop(t, dev(), cdb(wire.OpRead10, 64, 8), nil)
		list[name+"/READ(16)"] = newLoop(t, dev(), cdb(wire.OpRead16, 64, 8), nil)
		list[name+"/WRITE(10)"] = newLoop(t, dev(), cdb(wire.OpWrite10, 64, 8), data)
		list[name+"/WRITE(16)"] = newLoop(t, dev(), cdb(wire.OpWrite16, 64, 8), data)
		list[name+"/COMPARE AND WRITE"] = newLoop(t, dev(), compareCDB(64, 4), data)
	}
	return list
}

func TestNoAllocation(t *testing.T) {
	for name, l := range hot(t) {
		if s := l.once(); s != scsi.StatusGood {
			t.Fatalf("%s: status %02Xh", name, s)
		}
		if n := testing.AllocsPerRun(1000, func() { l.once() }); n != 0 {
			t.Errorf("%s makes %v allocations", name, n)
		}
	}
}

func BenchmarkExecute(b *testing.B) {
	for name, l := range hot(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.once()
			}
		})
	}
}
