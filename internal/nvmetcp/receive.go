package nvmetcp

import (
	"fmt"
	"io"

	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// directSize is from how many missing bytes of an H2CData PDU on the rest is
// read straight to where it belongs.
const directSize = 16 << 10

// readLoop handles PDUs until the connection ends.
func (c *conn) readLoop() error {
	for {
		need, err := c.handleAll()
		if berr := c.endBatch(); err == nil {
			err = berr
		}
		if err != nil {
			return err
		}
		n, err := c.in.Fill(c.nc, need)
		if n > 0 {
			c.beginBatch()
			continue
		}
		if err != nil {
			return err
		}
	}
}

// beginBatch says that the reader handles PDUs and will send what they answer.
func (c *conn) beginBatch() {
	c.mu.Lock()
	c.busy = true
	c.mu.Unlock()
}

// endBatch sends what a batch of PDUs has brought about.
func (c *conn) endBatch() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	c.counters.add(c.tally)
	c.tally = Counters{}
	err := c.flushLocked()
	if err == nil && c.dead {
		err = c.cause
	}
	return err
}

// handleAll handles every complete PDU. It returns how long the next one is, as
// far as is known.
func (c *conn) handleAll() (need int, err error) {
	for !c.closing.Load() {
		have := c.in.Bytes()
		if len(have) < wire.CommonSize {
			return wire.CommonSize, nil
		}
		p := wire.PDU(have)
		l, f := c.recv.Check(p)
		if f.Bad() && p.Type() == wire.TypeH2CTermReq {
			return 0, fmt.Errorf("%w, malformed", errTermReq) // and that ends it, nobody is told
		}
		if f.Bad() {
			return 0, newFault(f, p)
		}
		if len(have) < l.Data {
			return l.Data, nil
		}
		if c.recv.HeaderDigest && p.Type() != wire.TypeH2CTermReq {
			if d := wire.GetDigest(have[l.HeaderDigest:]); d != wire.Digest(have[:l.HeaderDigest]) {
				c.tally.DigestErrors++
				return 0, newFault(wire.Fault{Status: wire.StatusHeaderDigest, Info: d}, p)
			}
		}
		if f := c.checkLength(p, l); f.Bad() {
			return 0, newFault(f, p)
		}
		if len(have) < l.Size {
			if p.Type() != wire.TypeH2CData || l.Size-len(have) < directSize {
				return l.Size, nil
			}
			if err := c.handleLarge(p, l); err != nil {
				return 0, err
			}
			continue
		}
		c.in.Take(l.Size)
		c.tally.PDUsIn++
		if err := c.handle(p, l); err != nil {
			return 0, err
		}
		if err := c.backpressure(); err != nil {
			return 0, err
		}
	}
	return 0, c.ending()
}

// ending returns nil where the reader is to send what there is and then end.
func (c *conn) ending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return c.cause
	}
	return nil
}

// checkLength checks how much data a PDU has.
func (c *conn) checkLength(p wire.PDU, l wire.Layout) wire.Fault {
	switch p.Type() {
	case wire.TypeCapsuleCmd:
		if l.DataLength > max(c.server.cfg.InCapsule, minCapsule) {
			return wire.Invalid(wire.OffPLEN)
		}
	case wire.TypeH2CData:
		switch {
		case l.DataLength == 0 || uint64(l.DataLength) != uint64(p.Count()):
			return wire.Invalid(wire.OffPLEN)
		case l.DataLength > c.server.cfg.MaxH2CData:
			return wire.Fault{Status: wire.StatusLimitExceeded}
		}
	}
	return wire.Fault{}
}

// handle takes one whole PDU. An error ends the connection.
func (c *conn) handle(p wire.PDU, l wire.Layout) error {
	data := p[l.Data:][:l.DataLength]
	ok := true
	if c.recv.DataDigest && len(data) > 0 && p.Type() != wire.TypeH2CTermReq {
		if ok = wire.Digest(data) == wire.GetDigest(p[l.Data+l.DataLength:]); !ok {
			c.tally.DigestErrors++
		}
	}
	switch p.Type() {
	case wire.TypeCapsuleCmd:
		return c.command(p, data, ok)
	case wire.TypeH2CData:
		t, dst, f := c.beginData(p, l.DataLength)
		if f.Bad() {
			return newFault(f, p)
		}
		copy(dst, data)
		return c.endData(p, t, l.DataLength, ok)
	default: // Check lets no other type pass
		return fmt.Errorf("%w: %s (information %#x)", errTermReq, p.Status(), p.Info())
	}
}

// handleLarge handles an H2CData PDU whose data is not all there, reading the rest
// to its place.
func (c *conn) handleLarge(p wire.PDU, l wire.Layout) error {
	c.tally.PDUsIn++
	t, dst, f := c.beginData(p, l.DataLength)
	if f.Bad() {
		return newFault(f, p)
	}
	have := c.in.Bytes()
	got := copy(dst, have[l.Data:])
	c.in.Take(len(have)) // the header stays where it is: nothing is read into the buffer until the end
	if err := c.endBatch(); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.nc, dst[got:]); err != nil {
		return err
	}
	ok := true
	if c.recv.DataDigest {
		if _, err := io.ReadFull(c.nc, c.tail[:]); err != nil {
			return err
		}
		ok = wire.Digest(dst) == wire.GetDigest(c.tail[:])
		if !ok {
			c.tally.DigestErrors++
		}
	}
	c.beginBatch()
	return c.endData(p, t, l.DataLength, ok)
}

// backpressure makes the reader send, and wait for the host to read, where too
// much output has gathered.
func (c *conn) backpressure() error {
	if !c.full.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.awaitLocked(func() bool { return c.out.Len() < c.server.cfg.OutputLimit }) {
		return c.cause
	}
	return nil
}
