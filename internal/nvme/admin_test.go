package nvme_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

var le = binary.LittleEndian

// TestIdentifyController checks Identify Controller (NVMe Base 2.0 §5.17.2.1, NVMe NVM 1.0 §4.1.5.2).
func TestIdentifyController(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	d := a.Admin.Good(Identify(wire.CNSController, 0)).Data
	text := func(from, to int) string { return strings.TrimRight(string(d[from:to]), " ") }
	if text(4, 24) != "BENCH" || text(24, 64) != "LINTEL bench" || text(64, 72) != "0001" {
		t.Errorf("serial, model, firmware: %q", d[4:72])
	}
	if string(bytes.TrimRight(d[768:1024], "\x00")) != NQN {
		t.Errorf("SUBNQN %q", d[768:1024])
	}
	for _, c := range []struct {
		name string
		got  uint32
		want uint32
	}{
		{"MDTS", uint32(d[77]), 8},
		{"CNTLID", uint32(le.Uint16(d[78:])), uint32(a.ID)},
		{"VER", le.Uint32(d[80:]), 0x20000},
		{"OAES", le.Uint32(d[92:]), 1<<8 | 1<<11},
		{"CTRATT", le.Uint32(d[96:]), 1 | 1<<6},
		{"CNTRLTYPE", uint32(d[111]), 1},
		{"KAS", uint32(le.Uint16(d[320:])), 1},
		{"ANAGRPMAX", le.Uint32(d[344:]), 0xFFFF},
		{"SQES", uint32(d[512]), 0x66},
		{"CQES", uint32(d[513]), 0x44},
		{"MAXCMD", uint32(le.Uint16(d[514:])), 1024},
		{"FUSES", uint32(le.Uint16(d[522:])), 1},
		{"ACWU", uint32(le.Uint16(d[532:])), 255},
		{"SGLS", le.Uint32(d[536:]), 1 | 1<<20 | 1<<21},
		{"IOCCSZ", le.Uint32(d[1792:]), (64 + 8192) / 16},
		{"IORCSZ", le.Uint32(d[1796:]), 1},
		{"ONCS", uint32(le.Uint16(d[520:])), 0x1BF},
	} {
		if c.got != c.want {
			t.Errorf("%s is %#x, want %#x", c.name, c.got, c.want)
		}
	}
	short := Identify(wire.CNSController, 0)
	short.In = 512
	a.Admin.Fails(short, wire.SGLLengthInvalid.DNR())
}

// TestIdentifyNamespace checks Identify Namespace (NVMe NVM 1.0 §4.1.5.1, NVMe Base 2.0 §5.17.2.8).
func TestIdentifyNamespace(t *testing.T) {
	eachFormat(t, func(t *testing.T, b *Bench, io *Conn, size int) {
		a := b.AttachAdmin(Connect{Host: NewHost("b")})
		io.Good(Write(1, 0, fill(size, 1), size))
		u := b.Units[0]
		for _, cns := range []uint8{wire.CNSNamespace, wire.CNSAllocatedNamespace} {
			d := a.Admin.Good(Identify(cns, 1)).Data
			if le.Uint64(d) != 2048 || le.Uint64(d[8:]) != 2048 {
				t.Errorf("NSZE %d, NCAP %d", le.Uint64(d), le.Uint64(d[8:]))
			}
			used := le.Uint64(d[16:])
			if thin := u.Attributes().Thin; thin != (used < 2048) || thin != (d[24]&1 != 0) {
				t.Errorf("NUSE %d, NSFEAT %#x", used, d[24])
			}
			if 1<<d[130] != size || d[25] != 0 || d[26] != 0 {
				t.Errorf("LBADS %d, NLBAF %d, FLBAS %d", d[130], d[25], d[26])
			}
			if a := u.Attributes(); !bytes.Equal(d[104:120], a.NGUID) || !bytes.Equal(d[120:128], a.EUI64) {
				t.Errorf("NGUID % X, EUI64 % X", d[104:120], d[120:128])
			}
			if le.Uint32(d[92:]) != uint32(u.Group().ID()) || d[30] != 1 || d[31] != 0xFE || d[33] != 9 || d[99] != 0 {
				t.Errorf("ANAGRPID %d, NMIC %d, RESCAP %#x, DLFEAT %d, NSATTR %d", le.Uint32(d[92:]), d[30], d[31], d[33], d[99])
			}
		}
		d := a.Admin.Good(Identify(wire.CNSIndependentNamespace, 1)).Data
		if d[1] != 1 || d[2] != 0xFE || le.Uint32(d[4:]) != 1 || d[14] != 1 {
			t.Errorf("I/O command set independent: % X", d[:16])
		}
		for _, cns := range []uint8{wire.CNSNamespace, wire.CNSAllocatedNamespace, wire.CNSIndependentNamespace, wire.CNSCommandSetNamespace} {
			if d := a.Admin.Good(Identify(cns, 7)).Data; !bytes.Equal(d, fill(4096, 0)) {
				t.Errorf("CNS %#x of an inactive namespace is not zero", cns)
			}
			a.Admin.Fails(Identify(cns, 0), wire.InvalidNamespace.DNR())
			a.Admin.Fails(Identify(cns, wire.AllNamespaces), wire.InvalidNamespace.DNR())
		}
		a.Admin.Good(Identify(wire.CNSCommandSetNamespace, 1))
		a.Admin.Good(Identify(wire.CNSCommandSetController, 0))
		other := Identify(wire.CNSCommandSetNamespace, 1)
		other.CDW[1] = 1 << 24
		a.Admin.Fails(other, wire.InvalidField.DNR())
		a.Admin.Fails(Identify(0x7F, 1), wire.InvalidField.DNR())
	})
}

// TestIdentifyDescriptors checks the Namespace Identification Descriptor list (NVMe Base 2.0 §5.17.2.3).
func TestIdentifyDescriptors(t *testing.T) {
	eui, long, nguid, uuid := fill(8, 1), fill(16, 2), fill(16, 3), fill(16, 4)
	identities := []unit.Attributes{
		{EUI64: eui, NGUID: nguid, UUID: uuid},
		{EUI64: long, NGUID: long, UUID: uuid}, // its EUI-64 need not be unique
		{UUID: uuid},
	}
	b := New(t, Config{Units: 3, Attributes: func(i int, a *unit.Attributes) {
		a.EUI64, a.NGUID, a.UUID = identities[i].EUI64, identities[i].NGUID, identities[i].UUID
	}})
	a := b.Attach("a")
	for i, want := range [][]byte{
		slices.Concat([]byte{1, 8, 0, 0}, eui, []byte{2, 16, 0, 0}, nguid, []byte{3, 16, 0, 0}, uuid),
		slices.Concat([]byte{2, 16, 0, 0}, long, []byte{3, 16, 0, 0}, uuid),
		slices.Concat([]byte{3, 16, 0, 0}, uuid),
	} {
		want = append(want, 4, 1, 0, 0, 0) // the NVM command set
		d := a.Admin.Good(Identify(wire.CNSDescriptors, uint32(i+1))).Data
		if !bytes.Equal(d[:len(want)], want) || !bytes.Equal(d[len(want):], fill(len(d)-len(want), 0)) {
			t.Errorf("namespace %d: % X, want % X", i+1, d[:80], want)
		}
	}
	a.Admin.Fails(Identify(wire.CNSDescriptors, 9), wire.InvalidNamespace.DNR())
}

// TestIdentifyLists checks the lists of namespaces, controllers and command sets (NVMe Base 2.0 §5.17.2).
func TestIdentifyLists(t *testing.T) {
	b := New(t, Config{Units: 2})
	b.Access.SetNamespaces(nvme.Namespaces{
		1: {Unit: b.Units[0]}, 300: {Unit: b.Units[1]}, 16384: {Unit: b.Units[0]}, 16385: {Unit: b.Units[0]},
	})
	a, o := b.Attach("a"), b.Attach("b")
	for _, cns := range []uint8{wire.CNSActiveNamespaces, wire.CNSAllocatedNamespaces, wire.CNSCommandSetActive, wire.CNSCommandSetAllocated} {
		d := a.Admin.Good(Identify(cns, 0)).Data
		if le.Uint32(d) != 1 || le.Uint32(d[4:]) != 300 || le.Uint32(d[8:]) != 16384 || le.Uint32(d[12:]) != 0 {
			t.Errorf("CNS %#x: % X", cns, d[:16])
		}
		if d := a.Admin.Good(Identify(cns, 1)).Data; le.Uint32(d) != 300 {
			t.Errorf("CNS %#x above 1: % X", cns, d[:16])
		}
		a.Admin.Fails(Identify(cns, 0xFFFFFFFE), wire.InvalidNamespace.DNR())
	}
	a.IO.Good(Read(300, 0, 1, 512))
	a.IO.Good(Read(16384, 0, 1, 512))

	o.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}})
	d := a.Admin.Good(Identify(wire.CNSControllers, 0)).Data
	if le.Uint16(d) != 2 || le.Uint16(d[2:]) != a.ID || le.Uint16(d[4:]) != o.ID {
		t.Errorf("controllers: % X", d[:8])
	}
	from := Identify(wire.CNSControllers, 0)
	from.CDW[0] |= uint32(o.ID) << 16
	if d := a.Admin.Good(from).Data; le.Uint16(d) != 1 || le.Uint16(d[2:]) != o.ID {
		t.Errorf("controllers from %d: % X", o.ID, d[:8])
	}
	if d := a.Admin.Good(Identify(wire.CNSNamespaceControllers, 300)).Data; le.Uint16(d) != 1 || le.Uint16(d[2:]) != a.ID {
		t.Errorf("controllers of 300: % X", d[:8])
	}
	a.Admin.Fails(Identify(wire.CNSNamespaceControllers, 9), wire.InvalidNamespace.DNR())
	sets := Identify(wire.CNSCommandSets, 0)
	sets.CDW[0] |= 0xFFFF << 16
	if d := a.Admin.Good(sets).Data; d[0] != 1 {
		t.Errorf("command sets % X", d[:8])
	}
	a.Admin.Fails(Identify(wire.CNSCommandSets, 0), wire.InvalidField.DNR())
}

// TestFeatures checks Get and Set Features (NVMe Base 2.0 §5.15, §5.27).
func TestFeatures(t *testing.T) {
	b := New(t, Config{})
	admin := b.Attach("a").Admin
	invalid := wire.InvalidField.DNR()
	for _, c := range []struct {
		name    string
		id      uint8
		nsid    uint32
		initial uint32
		values  []uint32
		wrong   []uint32
	}{
		{"arbitration", wire.FeatureArbitration, 0, 0, []uint32{7, 0x01020307}, []uint32{8}},
		{"power", wire.FeaturePower, 0, 0, []uint32{0}, []uint32{1}},
		{"temperature", wire.FeatureTemperature, 0, 0xFFFF, []uint32{350}, []uint32{1 << 16, 1 << 20}},
		{"error recovery", wire.FeatureErrorRecovery, 1, 0, []uint32{10}, []uint32{1 << 16}},
		{"write cache", wire.FeatureWriteCache, 0, 1, []uint32{0, 1}, []uint32{2}},
		{"atomicity", wire.FeatureWriteAtomicity, 0, 0, []uint32{1, 0}, []uint32{2}},
		{"events", wire.FeatureAsyncEvents, 0, 0, []uint32{1 << 8, 1<<8 | 1<<11 | 0xFF}, []uint32{1 << 31, 1 << 9}},
		{"reservation mask", wire.FeatureReservationMask, 1, 0, []uint32{2, 14, 0}, []uint32{1, 16}},
	} {
		t.Run(c.name, func(t *testing.T) {
			get := GetFeature(c.id, c.nsid)
			if v := admin.Good(get).Result[0]; v != c.initial {
				t.Errorf("initially %#x, want %#x", v, c.initial)
			}
			for _, v := range c.values {
				admin.Good(SetFeature(c.id, c.nsid, v))
				if got := admin.Good(get).Result[0]; got != v {
					t.Errorf("%#x after %#x was set", got, v)
				}
			}
			for _, v := range c.wrong {
				admin.Fails(SetFeature(c.id, c.nsid, v), invalid)
			}
			for sel := range uint32(2) {
				get := get
				get.CDW[0] |= (sel + 1) << 8
				if v := admin.Good(get).Result[0]; v != c.initial {
					t.Errorf("default %#x, want %#x", v, c.initial)
				}
			}
			get.CDW[0] |= 3 << 8
			if v := admin.Good(get).Result[0]; v&4 == 0 || v&1 != 0 {
				t.Errorf("capabilities %#x", v)
			}
		})
	}
	admin.Fails(GetFeature(0x77, 0), invalid)
	admin.Fails(SetFeature(0x77, 0, 0), invalid)
	wrong := GetFeature(wire.FeatureArbitration, 0)
	wrong.CDW[0] |= 4 << 8
	admin.Fails(wrong, invalid)
	save := SetFeature(wire.FeatureArbitration, 0, 0)
	save.CDW[0] |= 1 << 31
	admin.Fails(save, wire.FeatureNotSaveable.DNR())
	admin.Fails(SetFeature(wire.FeatureQueues, 0, 0xFFFF), invalid)
	admin.Fails(GetFeature(wire.FeatureReservationMask, 9), wire.InvalidNamespace.DNR())
	admin.Good(SetFeature(wire.FeatureReservationMask, wire.AllNamespaces, 6))
	if v := admin.Good(GetFeature(wire.FeatureReservationMask, 1)).Result[0]; v != 6 {
		t.Errorf("mask %#x", v)
	}
	temperature := GetFeature(wire.FeatureTemperature, 0)
	temperature.CDW[1] = 1 << 16
	admin.Fails(temperature, invalid)
	if v := admin.Good(GetFeature(wire.FeatureQueues, 0)).Result[0]; v != 127<<16|127 {
		t.Errorf("queues %#x", v)
	}
}

// TestHostIdentifier checks the Host Identifier feature on fabrics (NVMe Base 2.0 §5.27.1.25).
func TestHostIdentifier(t *testing.T) {
	a := New(t, Config{}).Attach("a")
	get := GetFeature(wire.FeatureHostID, 0)
	get.In = 16
	a.Admin.Fails(get, wire.HostIDInconsistentFormat.DNR())
	get.CDW[1] = 1
	if d := a.Admin.Good(get).Data; !bytes.Equal(d, a.Host.ID[:]) {
		t.Errorf("host id % X", d)
	}
	get.In = 8
	a.Admin.Fails(get, wire.SGLLengthInvalid.DNR())
	set := SetFeature(wire.FeatureHostID, 0, 1)
	set.Out = fill(16, 1)
	a.Admin.Fails(set, wire.CommandSequenceError.DNR())
	behavior := SetFeature(wire.FeatureHostBehavior, 0, 0)
	behavior.Out = fill(16, 1)
	a.Admin.Fails(behavior, wire.SGLLengthInvalid.DNR())
	behavior.Out = fill(512, 2)
	a.Admin.Fails(behavior, wire.InvalidField.DNR())
}

// TestWriteCacheOff checks that a host without write cache gets its writes to stable storage (NVMe
// Base 2.0 §5.27.1.4).
func TestWriteCacheOff(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a := b.Attach("a")
	a.IO.Good(Write(1, 0, fill(512, 1), 512))
	if dev.last(block.Write)&block.FUA != 0 {
		t.Error("a write with cache has FUA")
	}
	a.Admin.Good(SetFeature(wire.FeatureWriteCache, 0, 0))
	if dev.count(block.Flush) != 1 {
		t.Error("what was cached was not flushed")
	}
	a.IO.Good(Write(1, 0, fill(512, 1), 512))
	if dev.last(block.Write)&block.FUA == 0 {
		t.Error("a write without cache has no FUA")
	}
}

// TestLogPages checks the log pages that every host reads (NVMe Base 2.0 §5.16.1).
func TestLogPages(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	a.IO.Good(Write(1, 0, fill(512, 1), 512))
	a.IO.Good(Read(1, 0, 1, 512))
	a.IO.Do(Read(1, 1<<40, 1, 512))

	supported := a.Admin.Good(GetLogPage(wire.LogSupportedPages, 1024, 0)).Data
	for id := range 256 {
		size := 512
		r := a.Admin.Do(GetLogPage(uint8(id), size, 0))
		if r.Status.OK() != (supported[4*id]&1 != 0) {
			t.Errorf("page %02Xh: %s, said to be supported: %d", id, r.Status, supported[4*id])
		}
	}
	e := a.Admin.Good(GetLogPage(wire.LogError, 4096, 0)).Data
	if le.Uint64(e) == 0 || e[63+64] != 0 {
		t.Errorf("error log % X", e[:64])
	}
	s := a.Admin.Good(GetLogPage(wire.LogSMART, 512, 0)).Data
	if s[0] != 0 || le.Uint64(s[64:]) != 1 || le.Uint64(s[80:]) != 1 || le.Uint64(s[176:]) == 0 || le.Uint64(s[32:]) != 1 {
		t.Errorf("SMART % X", s[:200])
	}
	f := a.Admin.Good(GetLogPage(wire.LogFirmware, 512, 0)).Data
	if f[0] != 1 || string(f[8:16]) != "0001    " {
		t.Errorf("firmware % X", f[:16])
	}
	effects := a.Admin.Good(GetLogPage(wire.LogCommandEffects, 4096, 0)).Data
	if le.Uint32(effects[4*int(wire.AdminIdentify):]) != 1 || le.Uint32(effects[1024+4*int(wire.Write):]) != 3 ||
		le.Uint32(effects[1024+4*int(wire.Read):]) != 1 || le.Uint32(effects[1024+4*int(wire.ReservationReport):]) != 1 || le.Uint32(effects[1024+4*0x3C:]) != 0 {
		t.Error("commands supported and effects")
	}
	if d := a.Admin.Good(GetLogPage(wire.LogLBAStatus, 16, 0)).Data; le.Uint32(d) != 16 {
		t.Errorf("LBA status % X", d)
	}
	// Pieces.
	if d := a.Admin.Good(GetLogPage(wire.LogFirmware, 8, 8)).Data; string(d) != "0001    " {
		t.Errorf("a piece of the firmware page: %q", d)
	}
	a.Admin.Fails(GetLogPage(wire.LogFirmware, 8, 516), wire.InvalidField.DNR())
	a.Admin.Fails(GetLogPage(wire.LogFirmware, 8, 2), wire.InvalidField.DNR())
	bad := GetLogPage(wire.LogFirmware, 8, 0)
	bad.In = 16
	a.Admin.Fails(bad, wire.SGLLengthInvalid.DNR())
}

// TestGetLBAStatus checks Get LBA Status (NVMe NVM 1.0 §4.2.1).
func TestGetLBAStatus(t *testing.T) {
	admin := New(t, Config{}).Attach("a").Admin
	cmd := Blocks(wire.AdminGetLBAStatus, 1, 0, 1)
	cmd.CDW[2], cmd.CDW[3], cmd.In = 3, 0x11<<24|8, 16
	if d := admin.Good(cmd).Data; le.Uint32(d) != 0 || d[4] != 2 {
		t.Errorf("status % X", d)
	}
	admin.Fails(edit(cmd, func(c *Command) { c.NSID = 2 }), wire.InvalidNamespace.DNR())
	admin.Fails(edit(cmd, func(c *Command) { c.CDW[3] = 0 }), wire.InvalidField.DNR())
	admin.Fails(edit(cmd, func(c *Command) { c.CDW[2] = 4 }), wire.SGLLengthInvalid.DNR())
	admin.Fails(edit(cmd, func(c *Command) { c.CDW[0] = 2047 }), wire.LBAOutOfRange.DNR())
}

// TestAbort checks Abort, which is answered when the command cannot change anything (NVMe Base 2.0 §5.1).
func TestAbort(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a := b.Attach("a")
	abort := func(queue uint16, cid uint16) Command {
		c := Command{Opcode: wire.AdminAbort}
		c.CDW[0] = uint32(queue) | uint32(cid)<<16
		return c
	}
	if r := a.Admin.Good(abort(1, 999)); r.Result[0] != 1 {
		t.Error("a command that is not there was aborted")
	}
	a.Admin.Fails(abort(7, 1), wire.InvalidField.DNR())
	dev.holdBack()
	w := a.IO.Start(Write(1, 0, fill(512, 1), 512))
	ab := a.Admin.Start(abort(1, w.CID))
	select {
	case <-ab.Done():
		t.Error("Abort is answered with the write under way")
	default:
	}
	dev.resume()
	if r := w.Wait(); r.Status != wire.AbortRequested {
		t.Errorf("the write ended with %s", r.Status)
	}
	if r := ab.Wait(); !r.Status.OK() || r.Result[0] != 0 {
		t.Errorf("Abort: %s %d", r.Status, r.Result[0])
	}
	aer := a.Admin.Start(Command{Opcode: wire.AdminAsyncEvent})
	a.Admin.Good(abort(0, aer.CID))
	if r := aer.Wait(); r.Status != wire.AbortRequested {
		t.Errorf("the event request ended with %s", r.Status)
	}
	a.Admin.Fails(Command{Opcode: 0x00}, wire.InvalidOpcode.DNR())
}

func event(a *Association) *Call { return a.Admin.Start(Command{Opcode: wire.AdminAsyncEvent}) }

// TestNamespaceChanged checks the events and the log of changed namespaces (NVMe Base 2.0 §5.2.1, §5.16.1.5).
func TestNamespaceChanged(t *testing.T) {
	b := New(t, Config{Units: 3})
	b.Access.SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0]}})
	a := b.Attach("a")
	changed := GetLogPage(wire.LogChangedNamespaces, 4096, 0)
	a.Admin.Good(changed) // what has come by opening
	a.Admin.Good(SetFeature(wire.FeatureAsyncEvents, 0, 1<<8))
	aer := event(a)
	if err := b.Units[0].Resize(1024); err != nil {
		t.Fatal(err)
	}
	if r := aer.Wait(); r.Result[0] != wire.EventNamespaceChanged {
		t.Errorf("event %#x", r.Result[0])
	}
	if d := a.Admin.Good(Identify(wire.CNSNamespace, 1)).Data; le.Uint64(d) != 1024 {
		t.Error("the new size is not seen")
	}
	// Another change is not told before the log was read.
	aer = event(a)
	a.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0], ReadOnly: true}, 2: {Unit: b.Units[1]}})
	retained := changed
	retained.CDW[0] |= 1 << 15
	for _, cmd := range []Command{retained, retained, changed} {
		if d := a.Admin.Good(cmd).Data; le.Uint32(d) != 1 || le.Uint32(d[4:]) != 2 || le.Uint32(d[8:]) != 0 {
			t.Errorf("changed namespaces % X", d[:12])
		}
	}
	select {
	case r := <-aer.Done():
		t.Errorf("event %#x that the log had told", r.Result[0])
	default:
	}
	if d := a.Admin.Good(changed).Data; le.Uint32(d) != 0 {
		t.Error("the log keeps what was read")
	}
	a.Controller().SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[2]}})
	if r := aer.Wait(); r.Result[0] != wire.EventNamespaceChanged {
		t.Errorf("event %#x", r.Result[0])
	}
	a.IO.Fails(Read(2, 0, 1, 512), wire.InvalidNamespace.DNR())
	if b.Units[1].Attached() != 0 || b.Units[0].Attached() != 0 {
		t.Error("the controller watches a unit that it does not see")
	}

	var calls []*Call
	for range 4 {
		calls = append(calls, event(a))
	}
	if r := event(a).Wait(); r.Status != wire.TooManyAsyncEvents.DNR() {
		t.Errorf("a fifth event request: %s", r.Status)
	}
	a.Close()
	for _, c := range calls {
		if c.Wait().Status.OK() {
			t.Error("an event request of a lost controller succeeded")
		}
	}
}

// TestChangeWhileOpening checks that what the array says last counts, also while it is still
// answering what a new controller sees (NVMe Base 2.0 §5.17.2.2).
func TestChangeWhileOpening(t *testing.T) {
	b := New(t, Config{Units: 2})
	b.Access.OnOpen(func(c *nvme.Controller) { c.SetNamespaces(nvme.Namespaces{7: {Unit: b.Units[1]}}) })
	a := b.Attach("a")
	if d := a.Admin.Good(Identify(wire.CNSActiveNamespaces, 0)).Data; le.Uint32(d) != 7 || le.Uint32(d[4:]) != 0 {
		t.Errorf("namespaces % X", d[:8])
	}
}

// TestManyChanged checks the Changed Namespace List when more have changed than it can name (NVMe
// Base 2.0 §5.16.1.5).
func TestManyChanged(t *testing.T) {
	b := New(t, Config{})
	m := nvme.Namespaces{}
	for i := range uint32(1025) {
		m[i+1] = nvme.Namespace{Unit: b.Units[0]}
	}
	b.Access.SetNamespaces(m)
	a := b.Attach("a")
	if d := a.Admin.Good(GetLogPage(wire.LogChangedNamespaces, 4096, 0)).Data; le.Uint32(d) != wire.AllNamespaces || le.Uint32(d[4:]) != 0 {
		t.Errorf("% X", d[:8])
	}
}

// TestRemoveNamespace checks that a unit that goes away ends its commands (NVMe Base 2.0 §5.23).
func TestRemoveNamespace(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a := b.Attach("a")
	dev.holdBack()
	w := a.IO.Start(Write(1, 0, fill(512, 1), 512))
	removed := make(chan struct{})
	b.Subsystem.RemoveNamespace(b.Units[0], func() { close(removed) })
	select {
	case <-removed:
		t.Error("removed with a write under way")
	default:
	}
	a.IO.Fails(Read(1, 0, 1, 512), wire.InvalidNamespace.DNR())
	dev.resume()
	<-removed
	if r := w.Wait(); r.Status != wire.InvalidNamespace.DNR() {
		t.Errorf("the write ended with %s", r.Status)
	}
}

// TestANA checks the states, the log page and the events of ANA (NVMe Base 2.0 §8.1, §5.16.1.13).
func TestANA(t *testing.T) {
	b := New(t, Config{Units: 2})
	a := b.Attach("a")
	a.IO.Good(Write(1, 0, fill(512, 0), 512)) // so that some of it is used
	a.Admin.Good(SetFeature(wire.FeatureAsyncEvents, 0, 1<<11))
	for _, c := range []struct {
		state  unit.AccessState
		ana    uint8
		status wire.Status
	}{
		{unit.NonOptimized, 2, 0},
		{unit.Standby, 3, wire.PathInaccessible},
		{unit.Unavailable, 3, wire.PathInaccessible},
		{unit.Offline, 4, wire.PathPersistentLoss},
		{unit.Transitioning, 15, wire.PathTransition},
		{unit.Optimized, 1, 0},
	} {
		aer := event(a)
		before := le.Uint64(a.Admin.Good(GetLogPage(wire.LogANA, 4096, 0)).Data)
		b.Group.SetState(PortGroup, c.state)
		if r := aer.Wait(); r.Result[0] != wire.EventANAChanged {
			t.Errorf("%s: event %#x", c.state, r.Result[0])
		}
		d := a.Admin.Good(GetLogPage(wire.LogANA, 4096, 0)).Data
		if le.Uint64(d) <= before || le.Uint16(d[8:]) != 1 || le.Uint32(d[16:]) != 1 || le.Uint32(d[20:]) != 2 ||
			d[32] != c.ana || le.Uint32(d[48:]) != 1 || le.Uint32(d[52:]) != 2 {
			t.Errorf("%s: % X", c.state, d[:56])
		}
		used := le.Uint64(a.Admin.Good(Identify(wire.CNSNamespace, 1)).Data[16:])
		if hidden := c.ana == 3 || c.ana == 4; hidden != (used == 0) {
			t.Errorf("%s: NUSE %d", c.state, used)
		}
		tracked := Blocks(wire.AdminGetLBAStatus, 1, 0, 1)
		tracked.CDW[2], tracked.CDW[3], tracked.In = 3, 0x11<<24|8, 16
		a.Admin.Fails(tracked, c.status)
		a.IO.Fails(Read(1, 0, 1, 512), c.status)
		first, second := pair(0, fill(512, 0), fill(512, 0))
		x, y := a.IO.Start(first), a.IO.Start(second)
		want := c.status
		if want != 0 {
			want = wire.AbortedFailedFused.DNR()
		}
		pairRun{x, y}.want(t, c.status, want)
		report := a.IO.Do(Report(1, 64))
		if c.ana < 4 != report.Status.OK() {
			t.Errorf("%s: Reservation Report: %s", c.state, report.Status)
		}
	}
	groups := GetLogPage(wire.LogANA, 64, 0)
	groups.CDW[0] |= 1 << 8
	if d := a.Admin.Good(groups).Data; le.Uint32(d[20:]) != 0 || d[32] != 1 {
		t.Errorf("groups only: % X", d)
	}
}

// TestDiscovery checks the discovery controller and its log (NVMe Base 2.0 §3.1.2.3, §5.16.1.23).
func TestDiscovery(t *testing.T) {
	b := New(t, Config{})
	ports := []nvme.Port{
		{ID: 1, Address: netip.MustParseAddrPort("192.0.2.1:4420")},
		{ID: 2, Address: netip.MustParseAddrPort("[2001:db8::1]:4420"), Secure: true},
		{ID: 3, Address: netip.MustParseAddrPort("192.0.2.1:8009"), Only: true, Same: true},
		{ID: 4, Address: netip.MustParseAddrPort("192.0.2.9:8009"), Referral: true},
	}
	b.Access.SetPorts(ports)
	for _, nqn := range []string{wire.DiscoveryNQN, DiscoveryNQN} {
		a := b.AttachAdmin(Connect{Host: NewHost("a"), SubNQN: nqn, KeepAlive: 30000})
		id := a.Admin.Good(Identify(wire.CNSController, 0)).Data
		if id[111] != 2 || string(bytes.TrimRight(id[768:1024], "\x00")) != DiscoveryNQN || le.Uint32(id[92:]) != 1<<31 {
			t.Errorf("identify: type %d, SUBNQN %q", id[111], id[768:1024])
		}
		d := a.Admin.Good(GetLogPage(wire.LogDiscovery, 8192, 0)).Data
		if le.Uint64(d[8:]) != 6 {
			t.Fatalf("%d records", le.Uint64(d[8:]))
		}
		type entry struct {
			transport, family, kind, requirement, security byte
			port, depth, flags                             uint16
			service, nqn, address                          string
		}
		var got []entry
		for i := range 6 {
			e := d[1024*(i+1):][:1024]
			text := func(from, to int) string { return strings.TrimRight(string(e[from:to]), " \x00") }
			got = append(got, entry{e[0], e[1], e[2], e[3], e[768], le.Uint16(e[4:]), le.Uint16(e[8:]), le.Uint16(e[10:]), text(32, 64), text(256, 512), text(512, 768)})
		}
		want := []entry{
			{3, 1, 3, 4, 0, 1, 1024, 2, "4420", DiscoveryNQN, "192.0.2.1"},
			{3, 1, 2, 4, 0, 1, 1024, 0, "4420", NQN, "192.0.2.1"},
			{3, 2, 3, 5, 2, 2, 1024, 2, "4420", DiscoveryNQN, "2001:db8::1"},
			{3, 2, 2, 5, 2, 2, 1024, 0, "4420", NQN, "2001:db8::1"},
			{3, 1, 3, 4, 0, 3, 1024, 3, "8009", DiscoveryNQN, "192.0.2.1"},
			{3, 1, 1, 4, 0, 4, 1024, 0, "8009", wire.DiscoveryNQN, "192.0.2.9"},
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("entry %d: %+v, want %+v", i, got[i], want[i])
			}
		}
		a.Admin.Good(SetFeature(wire.FeatureAsyncEvents, 0, 1<<31))
		aer := event(a)
		generation := le.Uint64(d)
		b.Access.SetPorts(ports)
		b.Subsystem.DiscoveryChanged()
		if r := aer.Wait(); r.Result[0] != wire.EventDiscoveryChanged {
			t.Errorf("event %#x", r.Result[0])
		}
		d = a.Admin.Good(GetLogPage(wire.LogDiscovery, 16, 0)).Data
		if le.Uint64(d) <= generation {
			t.Error("the generation counter stands still")
		}
		a.Admin.Good(Command{Opcode: wire.AdminKeepAlive})
		a.Admin.Fails(Identify(wire.CNSActiveNamespaces, 0), wire.InvalidField.DNR())
		a.Admin.Fails(GetFeature(wire.FeatureQueues, 0), wire.InvalidField.DNR())
		a.Admin.Fails(GetLogPage(wire.LogANA, 64, 0), wire.InvalidLogPage.DNR())
		a.Admin.Fails(Command{Opcode: wire.AdminAbort}, wire.InvalidOpcode.DNR())
		a.Admin.Good(GetLogPage(wire.LogSupportedPages, 1024, 0))
		b.Dial().Fails(Connect{Host: a.Host, SubNQN: nqn, QueueID: 1, Controller: a.ID}.Command(), wire.ConnectInvalidParameters.DNR())
		a.Close()
	}
	if b.Access.Opened() != 0 {
		t.Error("discovery controllers see volumes")
	}
	a := b.Attach("b")
	a.Admin.Fails(GetLogPage(wire.LogDiscovery, 1024, 0), wire.InvalidLogPage.DNR())
}

// TestRename checks that a subsystem takes another name while hosts are connected: they
// find it by discovery (NVMe Base 2.0 §4.5, §5.16.1.23).
func TestRename(t *testing.T) {
	const other = "nqn.2026-11.io.lintel:renamed"
	b := New(t, Config{})
	old := b.Attach("a")
	persistent := b.AttachAdmin(Connect{Host: NewHost("a"), SubNQN: DiscoveryNQN, KeepAlive: 30000})
	persistent.Admin.Good(SetFeature(wire.FeatureAsyncEvents, 0, 1<<31))
	aer := event(persistent)
	for _, nqn := range []string{"", "iqn.x", wire.DiscoveryNQN, DiscoveryNQN} {
		if err := b.Subsystem.Rename(nqn); err == nil {
			t.Errorf("%q is a name", nqn)
		}
	}
	if err := b.Subsystem.Rename(other); err != nil || b.Subsystem.NQN() != other {
		t.Fatal(err)
	}
	b.Subsystem.DiscoveryChanged()
	if r := aer.Wait(); r.Result[0] != wire.EventDiscoveryChanged {
		t.Errorf("event %#x", r.Result[0])
	}
	<-old.Admin.Killed()
	<-old.IO.Killed()
	persistent.Admin.Good(Command{Opcode: wire.AdminKeepAlive})
	b.Dial().Fails(Connect{Host: NewHost("a"), SubNQN: NQN}.Command(), wire.ConnectInvalidParameters.DNR())
	a := b.AttachAdmin(Connect{Host: NewHost("a"), SubNQN: other})
	if d := a.Admin.Good(Identify(wire.CNSController, 0)).Data; string(bytes.TrimRight(d[768:1024], "\x00")) != other {
		t.Errorf("SUBNQN %q", d[768:1024])
	}
}

// TestSubsystemConfig checks what a subsystem is made of (NVMe Base 2.0 §4.5).
func TestSubsystemConfig(t *testing.T) {
	access := New(t, Config{}).Access
	for name, c := range map[string]nvme.Config{
		"no name":     {Access: access},
		"short name":  {NQN: "nqn.x", Access: access},
		"discovery":   {NQN: wire.DiscoveryNQN, Access: access},
		"no access":   {NQN: NQN},
		"id range":    {NQN: NQN, Access: access, FirstController: 9, LastController: 8},
		"id reserved": {NQN: NQN, Access: access, LastController: 0xFFF0},
	} {
		if _, err := nvme.NewSubsystem(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	s, err := nvme.NewSubsystem(nvme.Config{NQN: NQN, Access: access})
	if err != nil || s.NQN() != NQN {
		t.Error(err)
	}
}
