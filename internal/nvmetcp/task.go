package nvmetcp

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/nvme"
	"lintel.io/lintel/internal/transport"
	wirenvme "lintel.io/lintel/internal/wire/nvme"
)

// task is one command of a connection. It belongs to the connection's reader
// while it gets its data, to the queue while it executes, and to the output
// from then until its answer has been written.
type task struct {
	nvme.Request
	conn  *conn
	next  *task  // in a free list
	index uint16 // in conn.tasks
	sqe   [wirenvme.SQESize]byte

	cid  uint16
	read int // bytes that the host asks for, which count against the read budget
	want int // bytes of data that the host sends
	buf  *block.Buffer

	// Guarded by conn.mu.
	gathering bool // waits for H2CData, or for budget to ask for it
	waiting   bool // in line for budget
	claim     transport.Claim
	requested int // bytes asked for
	r2ts      [maxR2T]r2t
	r2tCount  int
	r2tSeq    uint16
	asked     int64 // the tick of the first R2T
}

// r2t is an R2T that is being answered: the tag and the bytes still to come.
type r2t struct {
	tag       uint16
	next, end int
}

// The transfer tag of an R2T is the index of its task and a number that tells
// it from others of the same task, past and present.
const (
	tagShift = 5
	tagMask  = 1<<tagShift - 1
)

// RequestDone takes the finished command from the queue.
func (t *task) RequestDone(*nvme.Request) { t.conn.requestDone(t) }

// Granted takes room in the data budget.
func (t *task) Granted() { t.conn.granted(t) }

var (
	_ nvme.Owner       = (*task)(nil)
	_ transport.Waiter = (*task)(nil)
)

// findR2T returns the outstanding R2T with a tag.
func (t *task) findR2T(tag uint16) *r2t {
	for i := range t.r2tCount {
		if t.r2ts[i].tag == tag {
			return &t.r2ts[i]
		}
	}
	return nil
}

// endR2T forgets an outstanding R2T.
func (t *task) endR2T(r *r2t) {
	t.r2tCount--
	*r = t.r2ts[t.r2tCount]
}

// begin readies a task for a command whose entry it copies.
func (t *task) begin(sqe []byte) {
	copy(t.sqe[:], sqe)
	t.SQE = t.sqe[:]
	t.cid = t.SQE.CID()
	t.Refuse = 0
	t.DataOut = nil
	t.read, t.want = 0, 0
	t.requested, t.r2tCount = 0, 0
}

// readLength returns how many bytes the command asks for: opcodes say
// which way their data goes (NVMe Base 2.0 figure 88).
func (t *task) readLength() int {
	if t.sqe[0]&3 != 2 {
		return 0
	}
	_, n, _ := t.SQE.SGL()
	return int(min(n, nvme.MaxTransferBytes))
}
