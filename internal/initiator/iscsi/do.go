package iscsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

// Result is how a command ended.
type Result struct {
	Status uint8
	Sense  []byte
	Data   []byte // what the target sent
	// Residual is how many of the expected bytes were not transferred; negative where the
	// command had more to transfer.
	Residual int
}

// Err returns nil for status GOOD, else a *StatusError.
func (r Result) Err() error {
	if r.Status == 0 {
		return nil
	}
	return &StatusError{Status: r.Status, Sense: r.Sense}
}

// Do runs one command and waits for it. dataOut is sent, or up to expectIn
// bytes are received. A cancelled context aborts the command with ABORT TASK; Do
// returns when the target cannot touch its data any more. err is about the
// transport: a CHECK CONDITION is a Result.
func (s *Session) Do(ctx context.Context, lun uint64, cdb, dataOut []byte, expectIn int) (Result, error) {
	return s.pick().Do(ctx, lun, cdb, dataOut, expectIn)
}

// Do runs one command on this connection; see Session.Do.
func (c *Conn) Do(ctx context.Context, lun uint64, cdb, dataOut []byte, expectIn int) (Result, error) {
	cmd := &Command{LUN: lun, CDB: cdb, Attr: AttrSimple, Out: dataOut}
	if expectIn > 0 {
		cmd.In = make([]byte, expectIn)
	}
	err := c.run(ctx, cmd)
	if err != nil {
		return Result{}, fmt.Errorf("command %#02x: %w", cdb[:min(1, len(cdb))], err)
	}
	end := min(cmd.Received, len(cmd.In))
	return Result{Status: cmd.Status, Sense: slices.Clone(cmd.Sense()), Data: cmd.In[:end], Residual: cmd.Residual}, nil
}

// run submits a command and waits for its end.
func (c *Conn) run(ctx context.Context, cmd *Command) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan struct{})
	cmd.Done = func(*Command) { close(done) }
	if err := c.Submit(cmd); err != nil {
		return err
	}
	select {
	case <-done:
		return cmd.Err
	case <-ctx.Done():
	}
	s := c.session
	abort, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.AbortTimeout)
	defer cancel()
	response, err := s.Manage(abort, AbortTask, cmd.LUN, cmd)
	if err != nil || response != FunctionComplete && response != TaskDoesNotExist {
		s.fail(fmt.Errorf("a cancelled command could not be aborted: response %d, %w", response, orProtocol(err)))
	}
	<-done
	return ctx.Err()
}

// Read fills p from a block address on, with READ (16). p is a multiple of the block size long.
func (s *Session) Read(ctx context.Context, lun, lba uint64, blockSize int, p []byte) error {
	cdb := cdb16(0x88, lba, len(p)/blockSize)
	c := s.pick()
	cmd := &Command{LUN: lun, CDB: cdb[:], Attr: AttrSimple, In: p}
	if err := c.run(ctx, cmd); err != nil {
		return fmt.Errorf("read of block %d: %w", lba, err)
	}
	if err := cmd.Failure(); err != nil {
		return fmt.Errorf("read of block %d: %w", lba, err)
	}
	if cmd.Received != len(p) {
		return fmt.Errorf("read of block %d: %d of %d bytes", lba, cmd.Received, len(p))
	}
	return nil
}

// Write stores p from a block address on, with WRITE (16). p is a multiple of the block size long.
func (s *Session) Write(ctx context.Context, lun, lba uint64, blockSize int, p []byte) error {
	cdb := cdb16(0x8a, lba, len(p)/blockSize)
	return s.change(ctx, "write", lun, lba, cdb[:], p)
}

// Flush makes everything written stable, with SYNCHRONIZE CACHE (16).
func (s *Session) Flush(ctx context.Context, lun uint64) error {
	cdb := cdb16(0x91, 0, 0)
	return s.change(ctx, "flush", lun, 0, cdb[:], nil)
}

func (s *Session) change(ctx context.Context, what string, lun, lba uint64, cdb, out []byte) error {
	r, err := s.Do(ctx, lun, cdb, out, 0)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return fmt.Errorf("%s of block %d: %w", what, lba, err)
	}
	return nil
}

func cdb16(op byte, lba uint64, blocks int) (cdb [16]byte) {
	cdb[0] = op
	binary.BigEndian.PutUint64(cdb[2:], lba)
	binary.BigEndian.PutUint32(cdb[10:], uint32(blocks))
	return cdb
}

// Capacity returns the number of blocks of a unit and their size in bytes, with READ
// CAPACITY (16) or, where the unit does not know it, (10).
func (s *Session) Capacity(ctx context.Context, lun uint64) (blocks uint64, blockSize int, err error) {
	r, err := s.Do(ctx, lun, []byte{0: 0x9e, 1: 0x10, 13: 32, 15: 0}, nil, 32)
	if err == nil && r.Status == 0 && len(r.Data) >= 12 {
		return binary.BigEndian.Uint64(r.Data) + 1, int(binary.BigEndian.Uint32(r.Data[8:])), nil
	}
	if err == nil {
		r, err = s.Do(ctx, lun, make([]byte, 10), nil, 0)
	}
	if err == nil {
		r, err = s.Do(ctx, lun, []byte{0: 0x25, 9: 0}, nil, 8)
	}
	if err == nil {
		err = r.Err()
	}
	if err == nil && len(r.Data) < 8 {
		err = fmt.Errorf("capacity data of %d bytes", len(r.Data))
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read capacity: %w", err)
	}
	return uint64(binary.BigEndian.Uint32(r.Data)) + 1, int(binary.BigEndian.Uint32(r.Data[4:])), nil
}

// LUNs returns the units that the target reports, in their wire form, with REPORT LUNS.
func (s *Session) LUNs(ctx context.Context) ([]uint64, error) {
	const room = 8 + 8*16384
	cdb := []byte{0: 0xa0, 11: 0}
	binary.BigEndian.PutUint32(cdb[6:], room)
	r, err := s.Do(ctx, 0, cdb, nil, room)
	if err == nil {
		err = r.Err()
	}
	if err == nil && len(r.Data) < 8 {
		err = fmt.Errorf("LUN list of %d bytes", len(r.Data))
	}
	if err != nil {
		return nil, fmt.Errorf("report LUNs: %w", err)
	}
	n := min(int(binary.BigEndian.Uint32(r.Data)), len(r.Data)-8) / 8
	luns := make([]uint64, n)
	for i := range luns {
		luns[i] = binary.BigEndian.Uint64(r.Data[8+8*i:])
	}
	return luns, nil
}

// Ready sends TEST UNIT READY until the unit has told its unit attentions, and
// returns nil when it is ready.
func (s *Session) Ready(ctx context.Context, lun uint64) error {
	const (
		unitAttention = 6
		attempts      = 32
	)
	var err error
	for range attempts {
		var r Result
		if r, err = s.Do(ctx, lun, make([]byte, 6), nil, 0); err != nil {
			break
		}
		if err = r.Err(); err == nil {
			return nil
		}
		if key, _ := SenseCode(r.Sense); key != unitAttention {
			break
		}
	}
	return fmt.Errorf("test unit ready: %w", err)
}
