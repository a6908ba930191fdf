package nvme_test

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// TestLateWrite checks that a write which is still at the device when its association ends, or when its host
// has another one, never changes what the host writes or reads afterwards (NVMe Base 2.0 §3.7.2, §3.9).
func TestLateWrite(t *testing.T) {
	late := map[string]Command{
		"write": Write(1, 0, fill(2048, 1), 512), "zeroes": Blocks(wire.WriteZeroes, 1, 0, 4), "deallocate": management(4, [2]uint64{0, 4}),
		"copy": copyCommand(0, [2]uint64{100, 4}),
	}
	for end, lose := range map[string]func(*Association){
		"connection lost": func(a *Association) { go a.IO.Close() },
		"admin lost":      func(a *Association) { go a.Admin.Close() },
		"killed":          func(a *Association) { a.Controller().Kill(errors.New("end")) },
		"reset":           func(a *Association) { a.Admin.Good(PropertySet(wire.PropertyCC, wire.IOQueueEntrySizes)) },
		"unmapped":        func(a *Association) { a.Controller().SetNamespaces(nvme.Namespaces{}) },
		"unnoticed":       func(*Association) {},
	} {
		for name, cmd := range late {
			t.Run(end+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					dev := &failing{Device: block.NewMem(1 << 20)}
					b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
					a := b.Attach("a")
					dev.holdBack()
					if cmd.Opcode == wire.Copy {
						dev.letOthers() // it reads first
						dev.holdWrites()
					}
					old := a.IO.Start(cmd)
					synctest.Wait()
					lose(a)
					synctest.Wait()
					again := b.Attach("a")
					dev.letOthers()
					elsewhere := again.IO.Start(Write(1, 4, fill(512, 3), 512))
					read := again.IO.Start(Read(1, 1, 1, 512))
					write := again.IO.Start(Write(1, 2, fill(512, 2), 512))
					synctest.Wait()
					if len(elsewhere.Done()) == 0 {
						t.Error("other blocks wait")
					}
					if len(write.Done())+len(read.Done()) != 0 {
						t.Error("the device has two commands of the host on the same blocks")
					}
					dev.resume()
					synctest.Wait()
					want := map[uint8]byte{wire.Write: 1}[cmd.Opcode]
					if r := read.Wait(); !r.Status.OK() || r.Data[0] != want {
						t.Errorf("read %s, % X", r.Status, r.Data[:1])
					}
					if r := write.Wait(); !r.Status.OK() {
						t.Error(r.Status)
					}
					old.Wait()
					if got := dev.content(t, 1024, 512); !bytes.Equal(got, fill(512, 2)) {
						t.Errorf("the block has % X, the last write is lost", got[:1])
					}
					a.Close()
					again.Close()
					if b.Units[0].Ranges.Atomic() {
						t.Error("a range is left")
					}
				})
			})
		}
	}
}
