package nvme_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/block/blocktest"
	"lintel.io/lintel/internal/nvme"
	. "lintel.io/lintel/internal/nvme/nvmetest"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

func fill(n int, v byte) []byte { return bytes.Repeat([]byte{v}, n) }

// eachFormat runs a test for both LBA formats, thin and thick.
func eachFormat(t *testing.T, f func(t *testing.T, b *Bench, io *Conn, size int)) {
	for _, c := range []struct {
		name string
		size uint32
		thin bool
	}{{"512 thin", 512, true}, {"512 thick", 512, false}, {"4096 thin", 4096, true}} {
		t.Run(c.name, func(t *testing.T) {
			b := New(t, Config{Attributes: func(_ int, a *unit.Attributes) { a.BlockSize, a.Thin = c.size, c.thin }})
			f(t, b, b.Attach("a").IO, int(c.size))
		})
	}
}

// TestReadWrite checks Read and Write (NVMe NVM 1.0 §3.2.4, §3.2.6).
func TestReadWrite(t *testing.T) {
	eachFormat(t, func(t *testing.T, b *Bench, io *Conn, size int) {
		io.Good(Write(1, 3, fill(5*size, 7), size))
		if got := io.Good(Read(1, 3, 5, size)).Data; !bytes.Equal(got, fill(5*size, 7)) {
			t.Error("what was written is not read")
		}
		if got := io.Good(Read(1, 2, 2, size)).Data; !bytes.Equal(got, append(fill(size, 0), fill(size, 7)...)) {
			t.Error("a neighbour was written")
		}
		fua := Write(1, 2047, fill(size, 9), size)
		fua.CDW[2] |= 1 << 30
		io.Good(fua)
		read := Read(1, 2047, 1, size)
		read.CDW[2] |= 1 << 30
		if got := io.Good(read).Data; !bytes.Equal(got, fill(size, 9)) {
			t.Error("FUA")
		}
		io.Good(Command{Opcode: wire.Flush, NSID: 1})

		io.Fails(Read(1, 2047, 2, size), wire.LBAOutOfRange.DNR())
		io.Fails(Read(1, 1<<63, 1, size), wire.LBAOutOfRange.DNR())
		io.Fails(Write(1, 2048, fill(size, 0), size), wire.LBAOutOfRange.DNR())
		io.Fails(Read(2, 0, 1, size), wire.InvalidNamespace.DNR())
		io.Fails(Read(0, 0, 1, size), wire.InvalidNamespace.DNR())
		io.Fails(Command{Opcode: wire.Flush, NSID: wire.AllNamespaces}, wire.InvalidNamespace.DNR())
		short := Read(1, 0, 2, size)
		short.In = size
		io.Fails(short, wire.SGLLengthInvalid.DNR())
		long := Write(1, 0, fill(2*size, 1), size)
		long.CDW[2] = 0
		io.Fails(long, wire.SGLLengthInvalid.DNR())
		directive := Write(1, 0, fill(size, 1), size)
		directive.CDW[2] |= 1 << 20
		io.Fails(directive, wire.InvalidField.DNR())
		io.Fails(Command{Opcode: 0x3C, NSID: 1}, wire.InvalidOpcode.DNR())
	})
}

// TestTransferSize checks the Maximum Data Transfer Size (NVMe Base 2.0 §5.17.2.1).
func TestTransferSize(t *testing.T) {
	b := New(t, Config{Blocks: 1 << 16})
	io := b.Attach("a").IO
	io.Good(Read(1, 0, nvme.MaxTransferBytes/512, 512))
	io.Fails(Read(1, 0, nvme.MaxTransferBytes/512+1, 512), wire.InvalidField.DNR())
	io.Good(Write(1, 0, fill(nvme.MaxTransferBytes, 1), 512))
	long := Write(1, 0, fill(nvme.MaxTransferBytes+512, 1), 512)
	io.Fails(long, wire.InvalidField.DNR())
}

// TestSGL checks the data pointers of commands (NVMe Base 2.0 §3.3.3.1, §4.1.2).
func TestSGL(t *testing.T) {
	io := New(t, Config{}).Attach("a").IO
	inCapsule := Write(1, 0, fill(512, 1), 512)
	inCapsule.Change = func(e wire.SQE) { e.SetSGL(0, 512, wire.SGLOffset) }
	io.Good(inCapsule)
	read := Read(1, 0, 1, 512)
	read.Change = inCapsule.Change
	io.Fails(read, wire.SGLTypeInvalid.DNR())
	read.Change = func(e wire.SQE) { e.SetSGL(0, 512, 0x40) }
	io.Fails(read, wire.SGLTypeInvalid.DNR())
	read.Change = func(e wire.SQE) { e.SetPSDT(0) }
	io.Fails(read, wire.InvalidField.DNR())
	refused := Write(1, 0, fill(512, 2), 512)
	refused.Refuse = wire.SGLOffsetInvalid.DNR()
	io.Fails(refused, wire.SGLOffsetInvalid.DNR())
	if got := io.Good(Read(1, 0, 1, 512)).Data; got[0] != 1 {
		t.Error("a refused write has written")
	}
}

// TestWriteUncorrectable checks that blocks marked by Write Uncorrectable cannot be read in any way, and
// are listed, until they are written (NVMe NVM 1.0 §3.2.7, §4.2.1).
func TestWriteUncorrectable(t *testing.T) {
	eachFormat(t, func(t *testing.T, b *Bench, io *Conn, size int) {
		admin := b.AttachAdmin(Connect{Host: NewHost("b")}).Admin
		mark := func(lba uint64, blocks uint32) Command { return Blocks(wire.WriteUncorrectable, 1, lba, blocks) }
		listed := func(want ...uint32) {
			t.Helper()
			cmd := Blocks(wire.AdminGetLBAStatus, 1, 0, 1)
			cmd.CDW[2], cmd.CDW[3], cmd.In = 8/4+3*16/4-1, 0x11<<24, 8+3*16
			d := admin.Good(cmd).Data
			var got []uint32
			for i := range le.Uint32(d) {
				got = append(got, le.Uint32(d[8+16*i:]), le.Uint32(d[16+16*i:])+1)
			}
			if !slices.Equal(got, want) || d[4] != 2 {
				t.Errorf("marked %d, want %d; completion %d", got, want, d[4])
			}
		}
		bad := wire.UnrecoveredRead.DNR()
		io.Good(Write(1, 0, fill(32*size, 1), size))
		io.Good(mark(8, 4))
		io.Good(mark(16, 2))
		io.Good(mark(18, 1))
		listed(8, 4, 16, 3)
		io.Good(Read(1, 0, 8, size))
		io.Good(Read(1, 12, 4, size))
		for _, cmd := range []Command{
			Read(1, 0, 32, size), Read(1, 11, 1, size), Compare(1, 8, fill(size, 1), size), Blocks(wire.Verify, 1, 0, 9),
		} {
			io.Fails(cmd, bad)
		}
		first, second := Compare(1, 18, fill(size, 1), size), Write(1, 18, fill(size, 2), size)
		first.Fuse, second.Fuse = wire.FuseFirst, wire.FuseSecond
		pairRun{io.Start(first), io.Start(second)}.want(t, bad, wire.AbortedFailedFused.DNR())
		io.Good(Write(1, 9, fill(size, 2), size))
		io.Good(Blocks(wire.WriteZeroes, 1, 16, 2))
		listed(8, 1, 10, 2, 18, 1)
		if d := io.Good(Read(1, 9, 1, size)).Data; !bytes.Equal(d, fill(size, 2)) {
			t.Error("a block that was written is not what was written")
		}
		io.Good(Write(1, 0, fill(32*size, 3), size))
		listed()
		io.Good(Read(1, 0, 32, size))
		io.Fails(mark(2047, 2), wire.LBAOutOfRange.DNR())
		const most = 256
		for n := range uint64(most) {
			io.Good(mark(2*n, 1))
		}
		io.Fails(mark(2*most, 1), wire.CapacityExceeded.DNR())
		io.Good(mark(1, 1)) // closes a gap
		io.Good(mark(2*most, 1))
		cut := Blocks(wire.AdminGetLBAStatus, 1, 0, 1)
		cut.CDW[2], cut.CDW[3], cut.In = 8/4+16/4-1, 0x11<<24, 8+16
		if d := admin.Good(cut).Data; d[4] != 1 || le.Uint32(d) != 1 {
			t.Errorf("a list cut short: % X", d)
		}
	})
}

// TestCompare checks Compare (NVMe NVM 1.0 §3.2.1).
func TestCompare(t *testing.T) {
	eachFormat(t, func(t *testing.T, b *Bench, io *Conn, size int) {
		data := fill(4*size, 3)
		io.Good(Write(1, 8, data, size))
		io.Good(Compare(1, 8, data, size))
		data[4*size-1] = 4
		io.Fails(Compare(1, 8, data, size), wire.CompareFailure.DNR())
		io.Fails(Compare(1, 2046, data, size), wire.LBAOutOfRange.DNR())
	})
}

// TestVerify checks Verify (NVMe NVM 1.0 §3.2.5).
func TestVerify(t *testing.T) {
	io := New(t, Config{Blocks: 1 << 17}).Attach("a").IO
	io.Good(Blocks(wire.Verify, 1, 0, 65536))
	io.Fails(Blocks(wire.Verify, 1, 1<<17-1, 2), wire.LBAOutOfRange.DNR())
}

// TestWriteZeroes checks Write Zeroes and its deallocation (NVMe NVM 1.0 §3.2.8).
func TestWriteZeroes(t *testing.T) {
	eachFormat(t, func(t *testing.T, b *Bench, io *Conn, size int) {
		for _, flags := range []uint32{0, 1 << 25, 1<<25 | 1<<30} {
			io.Good(Write(1, 0, fill(16*size, 5), size))
			zero := Blocks(wire.WriteZeroes, 1, 1, 14)
			zero.CDW[2] |= flags
			io.Good(zero)
			want := append(fill(size, 5), fill(14*size, 0)...)
			want = append(want, fill(size, 5)...)
			if !bytes.Equal(io.Good(Read(1, 0, 16, size)).Data, want) {
				t.Errorf("flags %#x: wrong blocks are zero", flags)
			}
		}
		io.Fails(Blocks(wire.WriteZeroes, 1, 2047, 2), wire.LBAOutOfRange.DNR())
	})
}

func management(attributes uint32, ranges ...[2]uint64) Command {
	cmd := Command{Opcode: wire.DatasetManagement, NSID: 1, Out: make([]byte, 16*len(ranges))}
	cmd.CDW[0], cmd.CDW[1] = uint32(len(ranges)-1), attributes
	for i, r := range ranges {
		binary.LittleEndian.PutUint32(cmd.Out[16*i+4:], uint32(r[1]))
		binary.LittleEndian.PutUint64(cmd.Out[16*i+8:], r[0])
	}
	return cmd
}

// TestDatasetManagement checks Dataset Management, Deallocate (NVMe NVM 1.0 §3.2.3).
func TestDatasetManagement(t *testing.T) {
	eachFormat(t, func(t *testing.T, b *Bench, io *Conn, size int) {
		io.Good(Write(1, 0, fill(16*size, 5), size))
		io.Good(management(3, [2]uint64{0, 16})) // hints
		io.Fails(management(4, [2]uint64{0, 4}, [2]uint64{2047, 2}), wire.LBAOutOfRange.DNR())
		if got := io.Good(Read(1, 0, 16, size)).Data; !bytes.Equal(got, fill(16*size, 5)) {
			t.Error("blocks were deallocated by a hint or a wrong command")
		}
		io.Good(management(4, [2]uint64{0, 4}, [2]uint64{6, 0}, [2]uint64{15, 1}))
		got := io.Good(Read(1, 0, 16, size)).Data
		want := fill(16*size, 5)
		if b.Units[0].Attributes().Thin {
			clear(want[:4*size])
			clear(want[15*size:])
		}
		if !bytes.Equal(got, want) {
			t.Error("other blocks than those of the ranges are zero")
		}
		short := management(4, [2]uint64{0, 4})
		short.CDW[0] = 1
		io.Fails(short, wire.SGLLengthInvalid.DNR())
	})
}

func copyCommand(to uint64, ranges ...[2]uint64) Command {
	cmd := Blocks(wire.Copy, 1, to, uint32(len(ranges)))
	cmd.Out = make([]byte, 32*len(ranges))
	for i, r := range ranges {
		binary.LittleEndian.PutUint64(cmd.Out[32*i+8:], r[0])
		binary.LittleEndian.PutUint16(cmd.Out[32*i+16:], uint16(r[1]-1))
	}
	return cmd
}

// TestCopy checks Copy (NVMe NVM 1.0 §3.2.2).
func TestCopy(t *testing.T) {
	b := New(t, Config{Blocks: 1 << 18})
	io := b.Attach("a").IO
	io.Good(Write(1, 0, fill(4*512, 1), 512))
	io.Good(Write(1, 10, fill(4*512, 2), 512))
	io.Good(copyCommand(100, [2]uint64{10, 2}, [2]uint64{0, 3}))
	want := append(fill(2*512, 2), fill(3*512, 1)...)
	want = append(want, fill(512, 0)...)
	if got := io.Good(Read(1, 100, 6, 512)).Data; !bytes.Equal(got, want) {
		t.Error("wrong copy")
	}
	io.Good(copyCommand(1<<17, [2]uint64{0, 4096}, [2]uint64{0, 8192}))
	if got := io.Good(Read(1, 1<<17+4096, 4, 512)).Data; !bytes.Equal(got, fill(4*512, 1)) {
		t.Error("wrong copy of long ranges")
	}
	io.Fails(copyCommand(0, [2]uint64{1<<18 - 1, 2}), wire.LBAOutOfRange.DNR())
	io.Fails(copyCommand(1<<18-1, [2]uint64{0, 2}), wire.LBAOutOfRange.DNR())
	io.Fails(copyCommand(0, [2]uint64{0, 32769}), wire.CommandSizeLimitExceeded.DNR())
	var many [][2]uint64
	for range 129 {
		many = append(many, [2]uint64{0, 1})
	}
	io.Fails(copyCommand(0, many...), wire.CommandSizeLimitExceeded.DNR())
	io.Fails(copyCommand(0, [2]uint64{0, 32768}, [2]uint64{0, 32768}, [2]uint64{0, 32768}, [2]uint64{0, 32768}, [2]uint64{0, 1}), wire.CommandSizeLimitExceeded.DNR())
	bad := copyCommand(0, [2]uint64{0, 1})
	bad.CDW[2] |= 1 << 8
	io.Fails(bad, wire.InvalidField.DNR())
	bad = copyCommand(0, [2]uint64{0, 1})
	bad.CDW[2] = 1
	io.Fails(bad, wire.SGLLengthInvalid.DNR())
}

// TestReadOnly checks writes to a write protected namespace (NVMe Base 2.0 §8.12).
func TestReadOnly(t *testing.T) {
	b := New(t, Config{})
	b.Access.SetNamespaces(nvme.Namespaces{1: {Unit: b.Units[0], ReadOnly: true}})
	a := b.Attach("a")
	for _, cmd := range []Command{
		Write(1, 0, fill(512, 1), 512), Blocks(wire.WriteZeroes, 1, 0, 1), management(4, [2]uint64{0, 1}), copyCommand(0, [2]uint64{1, 1}),
	} {
		a.IO.Fails(cmd, wire.NamespaceWriteProtected.DNR())
	}
	a.IO.Good(Read(1, 0, 1, 512))
	if a.Admin.Good(Identify(wire.CNSNamespace, 1)).Data[99] != 1 {
		t.Error("NSATTR does not say write protected")
	}
}

// TestSealed checks that no command reaches the blocks of a namespace that a SCSI host sanitizes (NVMe Base 2.0 §8.21).
func TestSealed(t *testing.T) {
	b := New(t, Config{})
	a := b.Attach("a")
	for seal, s := range map[unit.Seal]wire.Status{unit.Sanitizing: wire.SanitizeInProgress, unit.SanitizeFailed: wire.SanitizeFailed.DNR()} {
		b.Units[0].SetSeal(seal)
		for _, cmd := range []Command{
			Read(1, 0, 1, 512), Write(1, 0, fill(512, 1), 512), Blocks(wire.WriteZeroes, 1, 0, 1), management(4, [2]uint64{0, 1}),
			copyCommand(0, [2]uint64{1, 1}), Blocks(wire.Verify, 1, 0, 1),
		} {
			a.IO.Fails(cmd, s)
		}
	}
	b.Units[0].SetSeal(unit.Unsealed)
	a.IO.Good(Read(1, 0, 1, 512))
}

// TestBadBlock checks the status of a block that cannot be read or written, and the Error Information log (NVMe Base 2.0 §3.3.3.2.3, §5.16.1.2).
func TestBadBlock(t *testing.T) {
	const bad = 13
	dev := blocktest.NewFaulty(block.NewMem(1 << 20))
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a := b.Attach("a")
	dev.Inject(blocktest.Fault{Off: bad * 512, Len: 512, Kind: block.KindMedium})
	read, write := wire.UnrecoveredRead.DNR(), wire.WriteFault.DNR()
	for _, c := range []struct {
		cmd  Command
		want wire.Status
	}{
		{Read(1, 10, 8, 512), read},
		{Compare(1, 10, fill(4096, 0), 512), read},
		{Blocks(wire.Verify, 1, 10, 8), read},
		{Write(1, 10, fill(4096, 0), 512), write},
		{Blocks(wire.WriteZeroes, 1, 10, 8), write},
	} {
		a.IO.Fails(c.cmd, c.want)
		e := a.Admin.Good(GetLogPage(wire.LogError, 64, 0)).Data
		if status, lba := binary.LittleEndian.Uint16(e[12:])>>1, binary.LittleEndian.Uint64(e[16:]); status != uint16(c.want) || lba != bad {
			t.Errorf("opcode %02Xh: the log says status %04Xh at block %d", c.cmd.Opcode, status, lba)
		}
	}
}

// TestDeviceErrors checks the status of device errors (NVMe Base 2.0 §3.3.3.2.1).
func TestDeviceErrors(t *testing.T) {
	dev := &failing{Device: block.NewMem(1 << 20)}
	b := New(t, Config{Device: func(int, int64) block.Device { return dev }})
	a := b.Attach("a")
	for _, c := range []struct {
		kind        block.Kind
		read, write wire.Status
	}{
		{block.KindMedium, wire.UnrecoveredRead.DNR(), wire.WriteFault.DNR()},
		{block.KindNoSpace, wire.CapacityExceeded, wire.CapacityExceeded},
		{block.KindReadOnly, wire.NamespaceWriteProtected.DNR(), wire.NamespaceWriteProtected.DNR()},
		{block.KindGone, wire.NamespaceNotReady, wire.NamespaceNotReady},
		{block.KindRange, wire.LBAOutOfRange.DNR(), wire.LBAOutOfRange.DNR()},
		{block.KindIO, wire.InternalError, wire.InternalError},
	} {
		dev.fail(c.kind)
		a.IO.Fails(Read(1, 0, 1, 512), c.read)
		a.IO.Fails(Compare(1, 0, fill(512, 0), 512), c.read)
		a.IO.Fails(Write(1, 0, fill(512, 0), 512), c.write)
		a.IO.Fails(Blocks(wire.WriteZeroes, 1, 0, 1), c.write)
		a.IO.Fails(management(4, [2]uint64{0, 1}), c.write)
		a.IO.Fails(copyCommand(0, [2]uint64{1, 1}), c.read)
		if c.kind != block.KindMedium {
			a.IO.Fails(Command{Opcode: wire.Flush, NSID: 1}, c.write)
		}
	}
	dev.fail(block.KindGone)
	behavior := SetFeature(wire.FeatureHostBehavior, 0, 0)
	behavior.Out = make([]byte, 512)
	behavior.Out[0] = 1
	a.Admin.Good(behavior)
	a.IO.Fails(Read(1, 0, 1, 512), wire.NamespaceNotReady|1<<11)
	get := GetFeature(wire.FeatureHostBehavior, 0)
	get.In = 512
	if a.Admin.Good(get).Data[0] != 1 {
		t.Error("ACRE is not kept")
	}
}
