package bench

import (
	"context"
	"encoding/binary"
	"math"

	"lintel.io/lintel/internal/initiator/iscsi"
)

// iscsiInitiator drives iSCSI targets.
type iscsiInitiator struct {
	options     iscsi.Options
	address     string
	connections int // of a session
	lun         uint64
	long        bool // READ (16) and WRITE (16) are needed
	blockSize   int  // of the transfers
	sessions    []*iscsi.Session
}

func newISCSI(c *Config, u *URL) *iscsiInitiator {
	op := iscsi.DefaultOperational()
	op.MaxConnections = c.SessionConnections
	if u.HeaderDigest {
		op.HeaderDigest = []string{"CRC32C"}
	}
	if u.DataDigest {
		op.DataDigest = []string{"CRC32C"}
	}
	i := &iscsiInitiator{
		options: iscsi.Options{Initiator: c.Initiator, Target: u.Target, Operational: &op},
		address: u.Address, connections: c.SessionConnections, lun: iscsi.LUN(u.LUN), blockSize: c.BlockSize,
	}
	if u.User != "" {
		i.options.CHAP = &iscsi.CHAP{User: u.User, Secret: u.Password, TargetUser: u.MutualUser, TargetSecret: u.MutualPassword}
	}
	return i
}

func (i *iscsiInitiator) login(ctx context.Context) ([]connection, error) {
	s, err := iscsi.Dial(ctx, i.address, i.options)
	if err != nil {
		return nil, err
	}
	i.sessions = append(i.sessions, s)
	for range i.connections - 1 {
		if _, err := s.AddConnection(ctx, i.address); err != nil {
			return nil, err
		}
	}
	var all []connection
	for _, c := range s.Connections() {
		all = append(all, &iscsiConnection{initiator: i, conn: c})
	}
	return all, s.Ready(ctx, i.lun)
}

func (i *iscsiInitiator) capacity(ctx context.Context) (blocks uint64, blockSize int, err error) {
	if blocks, blockSize, err = i.sessions[0].Capacity(ctx, i.lun); err == nil && blockSize > 0 {
		i.long = blocks > math.MaxUint32 || i.blockSize/blockSize > math.MaxUint16
	}
	return blocks, blockSize, err
}

func (i *iscsiInitiator) close(ctx context.Context) {
	for _, s := range i.sessions {
		_ = s.Logout(ctx) // the session has ended either way
	}
	i.sessions = nil
}

type iscsiConnection struct {
	initiator *iscsiInitiator
	conn      *iscsi.Conn
}

func (c *iscsiConnection) begin(f func()) error {
	ready := &iscsi.Command{LUN: c.initiator.lun, CDB: make([]byte, 6), Attr: iscsi.AttrSimple, Done: func(*iscsi.Command) { f() }}
	return c.conn.Submit(ready)
}

func (c *iscsiConnection) newTransfer(done func()) transfer {
	t := &iscsiTransfer{conn: c.conn, long: c.initiator.long}
	t.cmd = iscsi.Command{LUN: c.initiator.lun, Attr: iscsi.AttrSimple, Done: func(*iscsi.Command) { done() }}
	return t
}

type iscsiTransfer struct {
	conn *iscsi.Conn
	long bool
	cmd  iscsi.Command
	cdb  [16]byte
}

const (
	opRead10, opRead16   = 0x28, 0x88
	opWrite10, opWrite16 = 0x2a, 0x8a

	statusCheckCondition = 0x02
	statusBusy           = 0x08
	statusTaskSetFull    = 0x28
	keyUnitAttention     = 6
)

func (t *iscsiTransfer) submit(write bool, lba, count uint64, buf []byte, size int) error {
	op := t.cdb[:10]
	if t.long {
		op = t.cdb[:16]
		op[0] = opRead16
		binary.BigEndian.PutUint64(op[2:], lba)
		binary.BigEndian.PutUint32(op[10:], uint32(count))
	} else {
		op[0] = opRead10
		binary.BigEndian.PutUint32(op[2:], uint32(lba))
		binary.BigEndian.PutUint16(op[7:], uint16(count))
	}
	t.cmd.CDB = op
	t.cmd.In, t.cmd.Out, t.cmd.Discard = nil, nil, 0
	switch {
	case write:
		op[0] += opWrite10 - opRead10
		t.cmd.Out = buf
	case buf != nil:
		t.cmd.In = buf
	default:
		t.cmd.Discard = size
	}
	return t.again()
}

func (t *iscsiTransfer) again() error   { return t.conn.Submit(&t.cmd) }
func (t *iscsiTransfer) good() bool     { return t.cmd.Good() }
func (t *iscsiTransfer) failure() error { return t.cmd.Failure() }
func (t *iscsiTransfer) received() int  { return t.cmd.Received }

func (t *iscsiTransfer) passing() bool {
	switch {
	case t.cmd.Err != nil:
		return false
	case t.cmd.Status == statusBusy || t.cmd.Status == statusTaskSetFull:
		return true
	case t.cmd.Status == statusCheckCondition:
		key, _ := iscsi.SenseCode(t.cmd.Sense())
		return key == keyUnitAttention
	}
	return false
}
