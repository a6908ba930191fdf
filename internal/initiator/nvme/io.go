package nvme

import (
	"context"
	"fmt"
	"sync"

	wire "lintel.io/lintel/internal/wire/nvme"
)

// The bits of dword 12 of NVM commands (NVMe NVM 1.0 §3.2).
const (
	FUA        uint32 = 1 << 30 // the data is on stable storage before the command ends
	Deallocate uint32 = 1 << 25 // of Write Zeroes: deallocate the blocks
	NoRetry    uint32 = 1 << 31 // LR: limited retry
)

// SetIO makes the command one of the NVM command set that covers blocks, 1 to
// 65536, from an address on. Flags go to dword 12.
func (cmd *Command) SetIO(op uint8, nsid uint32, lba uint64, blocks, flags uint32) {
	e := cmd.SQE()
	e.SetOpcode(op)
	e[1] = 0
	e.SetNSID(nsid)
	e.SetSLBA(lba)
	e.SetCDW(12, (blocks-1)&0xFFFF|flags)
}

// Do runs one command, whose queue entry and data the caller fills in, and waits for it.
// A cancelled context aborts it; Do returns when the target cannot touch its data any
// more. The error is that of Command.Failure.
func (q *Queue) Do(ctx context.Context, cmd *Command) error { return q.run(ctx, cmd) }

func (q *Queue) transfer(ctx context.Context, what string, op uint8, nsid uint32, lba uint64, blocks, flags uint32, in, out []byte) error {
	cmd := &Command{In: in, Out: out}
	cmd.SetIO(op, nsid, lba, blocks, flags)
	if err := q.run(ctx, cmd); err != nil {
		return fmt.Errorf("%s of block %d: %w", what, lba, err)
	}
	return nil
}

// Read fills p from a block address on. p is a multiple of the block size long.
func (q *Queue) Read(ctx context.Context, nsid uint32, lba uint64, blockSize int, p []byte) error {
	return q.transfer(ctx, "read", wire.Read, nsid, lba, uint32(len(p)/blockSize), 0, p, nil)
}

// Write stores p from a block address on. p is a multiple of the block size long;
// flags may be FUA.
func (q *Queue) Write(ctx context.Context, nsid uint32, lba uint64, blockSize int, p []byte, flags uint32) error {
	return q.transfer(ctx, "write", wire.Write, nsid, lba, uint32(len(p)/blockSize), flags, nil, p)
}

// Compare compares p with what is stored; CompareFailure is the status where it differs.
func (q *Queue) Compare(ctx context.Context, nsid uint32, lba uint64, blockSize int, p []byte) error {
	return q.transfer(ctx, "compare", wire.Compare, nsid, lba, uint32(len(p)/blockSize), 0, nil, p)
}

// Flush makes everything written to a namespace stable.
func (q *Queue) Flush(ctx context.Context, nsid uint32) error {
	cmd := &Command{}
	cmd.SQE().SetOpcode(wire.Flush)
	cmd.SQE().SetNSID(nsid)
	if err := q.run(ctx, cmd); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// WriteZeroes makes blocks read as zeros; flags may be FUA and Deallocate.
func (q *Queue) WriteZeroes(ctx context.Context, nsid uint32, lba uint64, blocks, flags uint32) error {
	return q.transfer(ctx, "write zeroes", wire.WriteZeroes, nsid, lba, blocks, flags, nil, nil)
}

// WriteUncorrectable makes reads of blocks fail until they are written.
func (q *Queue) WriteUncorrectable(ctx context.Context, nsid uint32, lba uint64, blocks uint32) error {
	return q.transfer(ctx, "write uncorrectable", wire.WriteUncorrectable, nsid, lba, blocks, 0, nil, nil)
}

// Verify checks that blocks can be read.
func (q *Queue) Verify(ctx context.Context, nsid uint32, lba uint64, blocks uint32) error {
	return q.transfer(ctx, "verify", wire.Verify, nsid, lba, blocks, 0, nil, nil)
}

// Range is a range of blocks of Dataset Management.
type Range struct {
	LBA    uint64
	Blocks uint32
}

// Deallocate gives up to 256 ranges of blocks back, with Dataset Management (NVMe NVM 1.0 §3.2.3).
func (q *Queue) Deallocate(ctx context.Context, nsid uint32, ranges ...Range) error {
	if len(ranges) < 1 || len(ranges) > 256 {
		return fmt.Errorf("%w: %d ranges", ErrCommand, len(ranges))
	}
	cmd := &Command{Out: make([]byte, 16*len(ranges))}
	for i, r := range ranges {
		le.PutUint32(cmd.Out[16*i+4:], r.Blocks)
		le.PutUint64(cmd.Out[16*i+8:], r.LBA)
	}
	e := cmd.SQE()
	e.SetOpcode(wire.DatasetManagement)
	e.SetNSID(nsid)
	e.SetCDW(10, uint32(len(ranges)-1))
	e.SetCDW(11, 1<<2)
	if err := q.run(ctx, cmd); err != nil {
		return fmt.Errorf("deallocate: %w", err)
	}
	return nil
}

// Copy copies ranges of blocks to lba, in this order (NVMe NVM 1.0 §3.2.2, descriptor format 0).
func (q *Queue) Copy(ctx context.Context, nsid uint32, lba uint64, ranges ...Range) error {
	if len(ranges) < 1 || len(ranges) > 256 {
		return fmt.Errorf("%w: %d ranges", ErrCommand, len(ranges))
	}
	cmd := &Command{Out: make([]byte, 32*len(ranges))}
	for i, r := range ranges {
		le.PutUint64(cmd.Out[32*i+8:], r.LBA)
		le.PutUint16(cmd.Out[32*i+16:], uint16(r.Blocks-1))
	}
	e := cmd.SQE()
	e.SetOpcode(wire.Copy)
	e.SetNSID(nsid)
	e.SetSLBA(lba)
	e.SetCDW(12, uint32(len(ranges)-1))
	if err := q.run(ctx, cmd); err != nil {
		return fmt.Errorf("copy to block %d: %w", lba, err)
	}
	return nil
}

// CompareAndWrite writes data where the blocks hold expected, as one fused
// operation (NVMe Base 2.0 §3.4.2). CompareFailure is the status where they differ.
func (q *Queue) CompareAndWrite(ctx context.Context, nsid uint32, lba uint64, blockSize int, expected, data []byte) error {
	if len(expected) != len(data) {
		return fmt.Errorf("%w: comparing %d and writing %d bytes", ErrCommand, len(expected), len(data))
	}
	var group sync.WaitGroup
	group.Add(2)
	done := func(*Command) { group.Done() }
	compare, write := &Command{Out: expected, Done: done}, &Command{Out: data, Done: done}
	blocks := uint32(len(data) / blockSize)
	compare.SetIO(wire.Compare, nsid, lba, blocks, 0)
	write.SetIO(wire.Write, nsid, lba, blocks, 0)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.SubmitFused(compare, write); err != nil {
		return err
	}
	// Aborting one half would leave the other: a cancelled context ends the queue.
	stop := context.AfterFunc(ctx, func() { q.fail(fmt.Errorf("a fused operation was given up: %w", ctx.Err())) })
	group.Wait()
	stop()
	err := compare.Failure()
	switch {
	case err == nil:
		err = write.Failure()
	case compare.Err == nil && write.Good():
		err = protocolError("a fused write succeeded after its compare had failed with %#x", uint16(compare.Status))
	}
	if err != nil {
		return fmt.Errorf("compare and write of block %d: %w", lba, err)
	}
	return nil
}
