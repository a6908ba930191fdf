// Package iscsi lets a workload of package history use a logical unit over one
// iSCSI session, which is logged in again whenever it was lost.
package iscsi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"lintel.io/lintel/internal/history"
	initiator "lintel.io/lintel/internal/initiator/iscsi"
)

// Path is a logical unit reached through one portal. A block of the workload is
// a logical block. An operation is sent once: one whose session is lost has no
// answer, and the next one logs in again.
type Path struct {
	address   string
	opts      initiator.Options
	lun       uint64
	blockSize int

	mu      sync.Mutex
	session *initiator.Session // nil before the first login
}

var _ history.Target = (*Path)(nil)

// Dial logs in to a target and returns the path to its LUN, 0 to 16383. With an
// ISID in opts each login replaces the session before at the target; without
// one, what is left of it there goes on.
func Dial(ctx context.Context, address string, opts initiator.Options, lun uint16) (*Path, error) {
	p := &Path{address: address, opts: opts, lun: initiator.LUN(lun)}
	s, err := p.login(ctx)
	if err != nil {
		return nil, err
	}
	if _, p.blockSize, err = s.Capacity(ctx, p.lun); err != nil {
		p.Drop()
		return nil, fmt.Errorf("history: LUN %d at %s: %w", lun, address, err)
	}
	return p, nil
}

// BlockSize returns the size of a block in bytes.
func (p *Path) BlockSize() int { return p.blockSize }

// Drop cuts the connection, as a failing link does: what is under way gets no answer.
func (p *Path) Drop() {
	p.mu.Lock()
	s := p.session
	p.mu.Unlock()
	if s != nil {
		s.Close()
	}
}

// login returns the session, a new one where it was lost.
func (p *Path) login(ctx context.Context) (*initiator.Session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil && p.session.Err() == nil {
		return p.session, nil
	}
	s, err := initiator.Dial(ctx, p.address, p.opts)
	if err != nil {
		return nil, fmt.Errorf("history: log in at %s: %w", p.address, err)
	}
	if err := s.Ready(ctx, p.lun); err != nil {
		s.Close()
		return nil, fmt.Errorf("history: log in at %s: %w", p.address, err)
	}
	if p.session != nil {
		p.session.Close()
	}
	p.session = s
	return s, nil
}

// Read implements history.Target with READ (16).
func (p *Path) Read(ctx context.Context, block uint64, b []byte) error {
	s, err := p.login(ctx)
	if err != nil {
		return err
	}
	return s.Read(ctx, p.lun, block, p.blockSize, b)
}

// Write implements history.Target with WRITE (16).
func (p *Path) Write(ctx context.Context, block uint64, b []byte, fua bool) error {
	cdb := [16]byte{0: 0x8A, 13: 1}
	if fua {
		cdb[1] = 0x08
	}
	return p.do(ctx, cdb, block, b)
}

// CompareAndWrite implements history.Target with COMPARE AND WRITE (SBC-3 §5.2).
func (p *Path) CompareAndWrite(ctx context.Context, block uint64, expect, b []byte) error {
	const (
		keyMiscompare  = 0x0E
		codeMiscompare = 0x1D00 // MISCOMPARE DURING VERIFY OPERATION
	)
	err := p.do(ctx, [16]byte{0: 0x89, 13: 1}, block, append(append(make([]byte, 0, len(expect)+len(b)), expect...), b...))
	if status, ok := errors.AsType[*initiator.StatusError](err); ok {
		if key, code := initiator.SenseCode(status.Sense); key == keyMiscompare && code == codeMiscompare {
			return history.ErrMiscompare
		}
	}
	return err
}

// Flush implements history.Target with SYNCHRONIZE CACHE (16).
func (p *Path) Flush(ctx context.Context) error {
	s, err := p.login(ctx)
	if err != nil {
		return err
	}
	return s.Flush(ctx, p.lun)
}

// do runs a command with data for the target. The number of blocks is in cdb.
func (p *Path) do(ctx context.Context, cdb [16]byte, block uint64, out []byte) error {
	s, err := p.login(ctx)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(cdb[2:], block)
	r, err := s.Do(ctx, p.lun, cdb[:], out, 0)
	if err != nil {
		return err
	}
	return r.Err()
}
