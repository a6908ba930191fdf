package nvme_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// TestAwaitedNamespace checks that a namespace whose unit is not there now stays active, and that nothing about it
// is answered with Do Not Retry (NVMe Base 2.0 §5.17.2.2, figure 95).
func TestAwaitedNamespace(t *testing.T) {
	b := New(t, Config{Units: 2})
	b.Access.SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}, 2: {}, 300: {}})
	a := b.Attach("a")
	changed := GetLogPage(wire.LogChangedNamespaces, 4096, 0)
	a.Admin.Good(changed) // what has come by opening
	active := func() []uint32 {
		t.Helper()
		var ids []uint32
		for d := a.Admin.Good(Identify(wire.CNSActiveNamespaces, 0)).Data; le.Uint32(d) != 0; d = d[4:] {
			ids = append(ids, le.Uint32(d))
		}
		return ids
	}
	if got := active(); !slices.Equal(got, []uint32{1, 2, 300}) {
		t.Errorf("active namespaces %d", got)
	}
	for _, nsid := range []uint32{2, 300} {
		a.IO.Fails(Read(nsid, 0, 1, 512), wire.NamespaceNotReady)
		for _, cns := range []uint8{wire.CNSNamespace, wire.CNSIndependentNamespace, wire.CNSDescriptors} {
			a.Admin.Fails(Identify(cns, nsid), wire.NamespaceNotReady)
		}
	}
	a.IO.Fails(Read(3, 0, 1, 512), wire.InvalidNamespace.DNR())

	a.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}, 2: {}, 300: {}})
	if d := a.Admin.Good(changed).Data; le.Uint32(d) != 0 {
		t.Errorf("changed namespaces % X, but nothing has changed", d[:12])
	}
	a.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}, 2: {Unit: b.Units[1]}})
	if d := a.Admin.Good(changed).Data; le.Uint32(d) != 2 || le.Uint32(d[4:]) != 300 {
		t.Errorf("changed namespaces % X", d[:12])
	}
	a.IO.Good(Read(2, 0, 1, 512))
	a.IO.Fails(Read(300, 0, 1, 512), wire.InvalidNamespace.DNR())
	// Of a unit that is taken away nothing of the others changes.
	a.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}, 2: {Unit: b.Units[1]}, 300: {}})
	b.Subsystem.RemoveNamespace(b.Units[1], func() {})
	if got := active(); !slices.Equal(got, []uint32{1, 300}) {
		t.Errorf("active namespaces %d", got)
	}
}

// hanging is a sparse device that does not tell its used space before it is let go.
type hanging struct {
	block.Device
	release chan struct{}
}

func (d *hanging) Info() block.Info {
	i := d.Device.Info()
	i.Sparse = true
	return i
}

func (d *hanging) Used() (int64, error) {
	<-d.release
	return d.Device.Used()
}

// TestIdentifyOfHangingStorage checks that Keep Alive is answered while Identify waits for storage (NVMe
// Base 2.0 §5.17, §5.18).
func TestIdentifyOfHangingStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &hanging{release: make(chan struct{})}
		b := New(t, Config{Device: func(_ int, size int64) block.Device {
			d.Device = block.NewMem(size)
			return d
		}})
		a := b.Attach("a")
		identify := make(chan *Call, 1)
		go func() { identify <- a.Admin.Start(Identify(wire.CNSNamespace, 1)) }()
		synctest.Wait()
		if len(identify) == 0 {
			t.Error("the admin queue waits for the storage")
			close(d.release)
			return
		}
		a.Admin.Good(Command{Opcode: wire.AdminKeepAlive})
		close(d.release)
		if r := (<-identify).Wait(); r.Status != wire.Success {
			t.Errorf("Identify: %v", r.Status)
		}
	})
}
