package iscsi

import (
	"errors"
	"fmt"
	"io"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// directSize is from how many missing bytes of a data segment on the rest
// is read straight to where it belongs.
const directSize = 16 << 10

// readLoop handles PDUs until the connection ends; nil means after a logout.
func (c *conn) readLoop() error {
	for {
		need, err := c.handleAll()
		if err != nil && !errors.Is(err, errLoggedOut) {
			return err
		}
		if ferr := c.endBatch(err != nil); err != nil || ferr != nil {
			return ferr
		}
		n, err := c.in.Fill(c.nc, need)
		if n > 0 {
			c.batches.Add(1)
			if err := c.beginBatch(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
	}
}

// beginBatch says that the reader handles PDUs and will send what they answer. It fails where
// nothing more is to be handled.
func (c *conn) beginBatch() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.closeAfterFlush && !c.dead {
		c.cond.Wait()
	}
	if c.dead {
		return c.cause
	}
	c.busy = true
	return nil
}

// endBatch sends what a batch of PDUs has brought about; last waits until it
// is really sent.
func (c *conn) endBatch(last bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	c.counters.add(c.local)
	c.local = Counters{}
	err := c.flushLocked()
	for last && c.flushing && !c.dead {
		c.flushWait = true
		c.cond.Wait()
	}
	if err == nil && c.dead {
		err = c.cause
	}
	return err
}

// handleAll handles every complete PDU. It returns how long the next one is, as
// far as is known.
func (c *conn) handleAll() (need int, err error) {
	for {
		have := c.in.Bytes()
		if len(have) < wire.HeaderSize {
			return wire.HeaderSize, nil
		}
		b := wire.BHS(have)
		l := b.Layout(c.params.headerDigest, c.params.dataDigest)
		if len(have) < l.Data {
			return l.Data, nil
		}
		if n := b.DataLength(); n > c.params.maxRecv {
			return 0, fmt.Errorf("%w: %s with %d bytes of data, more than MaxRecvDataSegmentLength %d", errProtocol, b.Opcode(), n, c.params.maxRecv)
		}
		if c.params.headerDigest && wire.Digest(have[:l.HeaderDigest]) != wire.GetDigest(have[l.HeaderDigest:]) {
			c.local.DigestErrors++
			return 0, errDigest
		}
		if len(have) < l.Size {
			op := b.Opcode()
			if l.Size-len(have) < directSize || op != wire.OpDataOut && op != wire.OpSCSICommand {
				return l.Size, nil
			}
			if err := c.handleLarge(b, l); err != nil {
				return 0, err
			}
			continue
		}
		c.in.Take(l.Size)
		c.local.PDUsIn++
		data := have[l.Data : l.Data+b.DataLength()]
		ok := true
		if c.params.dataDigest && len(data) > 0 {
			ok = wire.Digest(have[l.Data:l.DataDigest]) == wire.GetDigest(have[l.DataDigest:])
		}
		if err := c.handle(b, have[wire.HeaderSize:l.HeaderDigest], data, ok); err != nil {
			return 0, err
		}
		if err := c.backpressure(); err != nil {
			return 0, err
		}
	}
}

// handleLarge handles a command or Data-Out whose data segment is not all
// there, reading the rest to its place.
func (c *conn) handleLarge(b wire.BHS, l wire.Layout) error {
	have := c.in.Bytes()
	n := b.DataLength()
	c.local.PDUsIn++
	var t *task
	var dst []byte
	command := b.Opcode() == wire.OpSCSICommand
	if command {
		t, dst = c.beginCommand(b, have[wire.HeaderSize:l.HeaderDigest], n)
	} else {
		t, dst = c.beginDataOut(b, n)
	}
	err := c.endBatch(false)
	c.in.Take(len(have)) // the header stays where it is: nothing is read into the buffer until the end
	ok := false
	if err == nil {
		ok, err = c.readData(dst, have[l.Data:], n, l.Size-l.Data-n)
	}
	if err != nil {
		c.abandon(t)
		return err
	}
	c.batches.Add(1)
	if err := c.beginBatch(); err != nil {
		c.abandon(t)
		return err
	}
	if command {
		return c.endCommand(b, t, n, ok)
	}
	return c.endDataOut(b, t, n, ok)
}

// readData fills dst with the first bytes of a data segment of n bytes, of
// which have is there already, and reads past the rest and its tail: padding
// and digest. It reports whether the digest is right.
func (c *conn) readData(dst, have []byte, n, tail int) (bool, error) {
	crc := uint32(0)
	digest := c.params.dataDigest
	if digest {
		crc = wire.Digest(have)
	}
	got := len(have)
	copy(dst, have)
	if len(dst) > got {
		if _, err := io.ReadFull(c.nc, dst[got:]); err != nil {
			return false, err
		}
		if digest {
			crc = wire.ContinueDigest(crc, dst[got:])
		}
		got = len(dst)
	}
	if got < n {
		waste := make([]byte, min(n-got, 64<<10))
		for got < n {
			p := waste[:min(n-got, len(waste))]
			if _, err := io.ReadFull(c.nc, p); err != nil {
				return false, err
			}
			if digest {
				crc = wire.ContinueDigest(crc, p)
			}
			got += len(p)
		}
	}
	if tail == 0 {
		return true, nil
	}
	p := c.tail[:tail]
	if _, err := io.ReadFull(c.nc, p); err != nil {
		return false, err
	}
	if !digest {
		return true, nil
	}
	pad := tail - wire.DigestSize
	return wire.ContinueDigest(crc, p[:pad]) == wire.GetDigest(p[pad:]), nil
}

// backpressure makes the reader send, and wait for the peer to read, where too
// much output has gathered, and stop where the connection ends.
func (c *conn) backpressure() error {
	if !c.full.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.flushLocked(); err != nil {
		return err
	}
	c.busy = false // what completes meanwhile is for the writer
	for (c.out.Len() >= c.server.cfg.OutputLimit || c.closeAfterFlush) && !c.dead {
		c.outWait = true
		c.cond.Wait()
	}
	if c.dead {
		return c.cause
	}
	c.busy = true
	return nil
}
