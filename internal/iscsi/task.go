package iscsi

import (
	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/scsi"
	"lintel.io/lintel/internal/transport"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// taskState is where a command is on its way.
//
//	free -> gathering -> executing -> answered -> free
//	            └───────────────────────^
type taskState uint8

const (
	taskFree      taskState = iota
	taskGathering           // waits for its turn (CmdSN) or for Data-Out
	taskExecuting           // with the nexus
	taskAnswered            // its response is in the output
)

// task is one SCSI command of a connection. Until it executes it belongs to
// the connection's reader; fields that others look at meanwhile are guarded
// by conn.mu, and the task is then on the connection's gathering list.
type task struct {
	scsi.Task
	conn  *conn
	next  *task  // in the free list or a batch
	index uint32 // in conn.tasks
	state taskState

	itt       uint32
	cmdSN     uint32
	immediate bool
	uncounted bool // its CmdSN was never taken
	read      bool
	write     bool
	readLen   uint32 // bytes that the initiator expects to get
	writeLen  uint32 // bytes that it expects to send
	cdb       [16]byte

	want int // bytes of Data-Out that the command takes
	need int // those of them that the initiator has
	got  int // received so far; may pass need where the initiator has more than the command takes
	buf  *block.Buffer

	turn        bool // its CmdSN has come
	listed      bool // on the gathering list
	unsolicited bool // unsolicited Data-Out is still to come
	filling     bool // the reader is putting data into buf
	dropped     bool // ended by task management before execution
	failure     failure
	dataSN      uint32 // expected in the sequence under way
	r2tSN       uint32
	requested   int // bytes asked for or received
	r2ts        [maxR2T]r2t
	r2tHead     int
	r2tCount    int
	claim       transport.Claim
	waiting     bool  // in line for budget
	asked       int64 // the tick of the first R2T, before it that of the command

	gatherPrev, gatherNext *task
}

// r2t is an R2T that is being answered.
type r2t struct {
	ttt      uint32
	off, end int
}

// failure is why a command fails before it is executed.
type failure uint8

const (
	failNone           failure = iota
	failUnexpectedData         // 0B/0C/0C
	failNotEnoughData          // 0B/0C/0D
	failProtocolCRC            // 0B/47/05, also for lost and misplaced Data-Out
	failBusy                   // BUSY: no memory for its data
	failFull                   // TASK SET FULL: no memory for what it reads
	failDataTooLong            // 05/24/00: more than any buffer holds
)

var failureSense = [...]struct {
	key  uint8
	code uint16
}{
	failUnexpectedData: {0x0b, 0x0c0c},
	failNotEnoughData:  {0x0b, 0x0c0d},
	failProtocolCRC:    {0x0b, 0x4705},
	failDataTooLong:    {0x05, 0x2400},
}

// apply puts the failure's status into the task (RFC 7143 §11.4.7.2).
func (t *task) apply(f failure) {
	t.DataIn = nil
	switch t.SenseLen = 0; f {
	case failBusy:
		t.Status = scsi.StatusBusy
		return
	case failFull:
		t.Status = scsi.StatusTaskSetFull
		return
	}
	s := failureSense[f]
	t.Status, t.SenseLen = scsi.StatusCheckCondition, 18
	clear(t.Sense[:18])
	t.Sense[0], t.Sense[2], t.Sense[7] = 0x70, s.key, 10
	t.Sense[12], t.Sense[13] = byte(s.code>>8), byte(s.code)
}

// TaskDone takes the finished command from the nexus.
func (t *task) TaskDone(*scsi.Task) { t.conn.taskDone(t) }

// Granted takes room in the data budget.
func (t *task) Granted() { t.conn.granted(t) }

var (
	_ scsi.Owner       = (*task)(nil)
	_ transport.Waiter = (*task)(nil)
)

// front returns the R2T whose data comes next.
func (t *task) front() *r2t { return &t.r2ts[t.r2tHead] }

// endR2T takes the R2T with this tag off the ring.
func (t *task) endR2T(ttt uint32) {
	i := 0
	for i < t.r2tCount-1 && t.r2t(i).ttt != ttt {
		i++
	}
	for ; i > 0; i-- { // those before it move up; it is the first but for errors
		*t.r2t(i) = *t.r2t(i - 1)
	}
	t.r2tHead = (t.r2tHead + 1) % maxR2T
	t.r2tCount--
	t.dataSN = 0
}

// r2t returns the R2T at place i of the ring.
func (t *task) r2t(i int) *r2t { return &t.r2ts[(t.r2tHead+i)%maxR2T] }

// owns reports whether ttt is one of the task's outstanding R2Ts.
func (t *task) owns(ttt uint32) bool {
	for i := range t.r2tCount {
		if t.r2t(i).ttt == ttt {
			return true
		}
	}
	return false
}

// reset readies a task for the next command; identity and buffers of the
// struct stay.
func (t *task) reset() {
	t.state = taskFree
	t.want, t.need, t.got = 0, 0, 0
	t.turn, t.unsolicited, t.filling, t.dropped, t.waiting = false, false, false, false, false
	t.failure, t.uncounted = failNone, false
	t.dataSN, t.r2tSN, t.requested, t.r2tHead, t.r2tCount = 0, 0, 0, 0, 0
}

// setCommand fills the task in from a SCSI Command PDU.
func (t *task) setCommand(b wire.BHS) {
	t.LUN = b.LUN()
	t.itt = b.ITT()
	t.Tag = uint64(t.itt)
	t.Attr = scsi.TaskAttribute(b.Attr())
	t.cmdSN = b.CmdSN()
	t.immediate = b.Immediate()
	copy(t.cdb[:], b[32:48])
	t.CDB = t.cdb[:]
	t.Owner = t
	t.DataOut = nil
	t.read, t.write = b.Read(), b.Write()
	t.readLen, t.writeLen = 0, 0
	if t.write {
		t.writeLen = b.ExpectedLength()
	} else if t.read {
		t.readLen = b.ExpectedLength()
	}
	t.DataOutExpected = t.writeLen
}
