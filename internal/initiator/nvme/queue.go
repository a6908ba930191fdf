package nvme

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/initiator/sendq"
	"lintel.io/lintel/internal/tlspsk"
	pdu "lintel.io/lintel/internal/wire/nvmetcp"
)

// Queue is a submission and completion queue pair: one connection. Its methods
// may be called concurrently.
type Queue struct {
	ctrl    *Controller
	id      uint16
	capsule int // how much data a command capsule may hold, in bytes
	maxH2C  int // and an H2CData PDU
	maxR2T  uint64
	send    pdu.Sender
	running sync.WaitGroup
	gone    chan struct{} // closed when the reader has ended
	handoff chan struct{} // to the writer: flight has a rest
	input
	callback sync.Mutex // held while callbacks run, never together with mu

	// mu is taken before nothing else and held for moments only.
	mu    sync.Mutex
	err   error         // why the queue has ended, nil while it lives
	ended chan struct{} // closed when err is set
	quiet sync.Cond     // a goroutine stopped sending

	opened     bool   // Connect has succeeded
	flow       bool   // SQ flow control
	size       uint16 // entries
	limit      int    // commands that may be under way
	active     int    // commands that are
	tail, head uint16 // of the submission queue, head as the target told
	slots      []slot
	free       []uint16
	waiting    list // commands without room
	done       list // commands that ended in this round

	queue    *sendq.Batch // accumulates
	flight   *sendq.Batch // being written; belongs to whoever set sending
	out      *sendq.Output
	sending  bool
	reading  bool   // the reader flushes soon
	accepted uint64 // bytes of all batches before queue
	written  atomic.Uint64
	held     list // commands that ended while their data was being sent
}

// slot is what the lower bits of a command identifier stand for.
type slot struct {
	cmd   *Command
	round uint16 // in the upper bits, so that an identifier is not soon used again
}

const (
	slotBits = 12
	slotMask = 1<<slotBits - 1
)

// input is the receiving side, which belongs to the reader.
type input struct {
	conn   net.Conn
	buf    []byte
	r, w   int // buf[r:w] has not been looked at
	recv   pdu.Receiver
	stream stream
}

// stream is a C2HData PDU whose data goes to its command as it arrives.
// Queue.mu guards cmd.
type stream struct {
	cmd    *Command
	active bool
	header [pdu.DataSize]byte
	at     int // where in cmd.In
	left   int // data bytes to come
	digest uint32
	tail   int // digest bytes to come after the data
}

const receiveBuffer = 256 << 10

// connection opens a connection and initializes it (NVMe/TCP 1.0 §3.4). The queue
// has room for the one command that makes it a queue, Connect.
func (c *Controller) connection(ctx context.Context, id uint16) (*Queue, error) {
	conn, err := c.dialTransport(ctx)
	if err != nil {
		return nil, err
	}
	q := &Queue{
		ctrl: c, id: id, capsule: adminCapsule, maxR2T: uint64(c.opts.MaxR2T),
		gone: make(chan struct{}), ended: make(chan struct{}), handoff: make(chan struct{}, 1),
		queue: new(sendq.Batch), flight: new(sendq.Batch), out: sendq.NewOutput(conn),
		flow: true, size: 2, limit: 1, slots: make([]slot, 1), free: []uint16{0},
	}
	q.quiet.L = &q.mu
	q.conn = conn
	// A cancelled context ends the initialization by closing the connection.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = q.initialize()
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	q.buf = make([]byte, receiveBuffer)
	return q, nil
}

// dialTransport opens a connection, with TLS where there is a key for it (NVMe/TCP 1.0 §3.6.1).
func (c *Controller) dialTransport(ctx context.Context) (net.Conn, error) {
	conn, err := c.opts.Dial(ctx, c.address)
	if err != nil || c.opts.TLS == nil {
		return conn, err
	}
	offers, err := c.opts.TLS.Offers(c.opts.HostNQN, c.opts.Subsystem)
	if err != nil {
		conn.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	secured, err := tlspsk.Client(conn, offers)
	if !stop() && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// serve starts the goroutines of the queue.
func (q *Queue) serve() {
	q.running.Add(2)
	go q.reader()
	go q.writer()
}

// initialize exchanges ICReq and ICResp (NVMe/TCP 1.0 §3.6.2.2, §3.6.2.3).
func (q *Queue) initialize() error {
	o := &q.ctrl.opts
	request := make(pdu.PDU, pdu.ICSize)
	f := pdu.ICReq{Align: o.Align, HeaderDigest: o.HeaderDigest, DataDigest: o.DataDigest, MaxR2T: o.MaxR2T - 1}
	f.Put(request)
	if _, err := q.conn.Write(request); err != nil {
		return fmt.Errorf("initialization: %w", err)
	}
	p := make(pdu.PDU, pdu.ICSize)
	if _, err := io.ReadFull(q.conn, p[:pdu.CommonSize]); err != nil {
		return fmt.Errorf("initialization: %w", eof(err))
	}
	if p.Type() == pdu.TypeC2HTermReq && p.Length() >= pdu.TermReqSize && p.Length() <= pdu.ICSize {
		if _, err := io.ReadFull(q.conn, p[pdu.CommonSize:pdu.TermReqSize]); err == nil {
			return fmt.Errorf("initialization: %w", &TerminatedError{Status: p.Status(), Info: p.Info()})
		}
	}
	if p.Type() != pdu.TypeICResp || p.HeaderLength() != pdu.ICSize || p.Length() != pdu.ICSize || p.Flags() != 0 || p.DataOffset() != 0 {
		return fmt.Errorf("initialization: %w", protocolError("%v with header of %d of %d bytes instead of ICResp", p.Type(), p.HeaderLength(), p.Length()))
	}
	if _, err := io.ReadFull(q.conn, p[pdu.CommonSize:]); err != nil {
		return fmt.Errorf("initialization: %w", eof(err))
	}
	header, data := p.Digests()
	switch {
	case p.Version() != pdu.FormatVersion:
		return fmt.Errorf("initialization: %w", protocolError("PDU format version %d", p.Version()))
	case header && !o.HeaderDigest || data && !o.DataDigest:
		return fmt.Errorf("initialization: %w", protocolError("digests that were not asked for"))
	case p.MaxH2CData() < pdu.MinH2CData || p.MaxH2CData()%4 != 0:
		return fmt.Errorf("initialization: %w", protocolError("MAXH2CDATA %d", p.MaxH2CData()))
	}
	q.maxH2C = int(min(p.MaxH2CData(), 1<<30))
	q.recv = pdu.Receiver{Host: true, HeaderDigest: header, DataDigest: data, Align: pdu.AlignBytes(o.Align)}
	q.send = pdu.Sender{HeaderDigest: header, DataDigest: data, Align: pdu.AlignBytes(p.Align())}
	return nil
}

func eof(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the target closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// noHead is the SQ head pointer where there is no flow control (NVMe Base 2.0 §6.3).
const noHead = 0xFFFF

// open gives the queue its size after a successful Connect.
func (q *Queue) open(size int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened, q.size, q.limit = true, uint16(size), size-1
	switch {
	case q.head <= 1:
	case q.head == noHead && !q.ctrl.opts.FlowControl:
		q.flow, q.limit = false, size
	default:
		return protocolError("SQ head pointer %d after Connect", q.head)
	}
	for len(q.slots) < q.limit {
		q.free = append(q.free, uint16(len(q.slots)))
		q.slots = append(q.slots, slot{})
	}
	return nil
}

// ID returns the queue identifier, 0 for the admin queue.
func (q *Queue) ID() uint16 { return q.id }

// Limit returns how many commands may be under way; more wait in the queue's memory.
func (q *Queue) Limit() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limit
}

// FlowControl reports whether SQ flow control is in use.
func (q *Queue) FlowControl() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.flow
}

// Digests reports which digests are in use.
func (q *Queue) Digests() (header, data bool) { return q.recv.HeaderDigest, q.recv.DataDigest }

// Err returns why the queue has ended, nil while it lives.
func (q *Queue) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// Ended returns a channel that is closed when the queue has ended, for whatever reason.
func (q *Queue) Ended() <-chan struct{} { return q.ended }

// Close drops the connection, ends what is under way with ErrClosed, and returns
// when every callback has run. It must not be called from one.
func (q *Queue) Close() {
	q.fail(ErrClosed)
	q.running.Wait()
}

func (q *Queue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failLocked(err)
	q.conn.Close()
}

// failLocked ends the queue, and reports whether it had not ended before.
func (q *Queue) failLocked(err error) bool {
	if q.err != nil {
		return false
	}
	q.err = err
	close(q.ended)
	return true
}

// reader takes in PDUs until the connection ends, and then ends what was
// under way on it.
func (q *Queue) reader() {
	defer q.running.Done()
	var err error
	for err == nil {
		if err = q.read(); err == nil {
			err = q.take()
		}
	}
	err = eof(err)
	q.mu.Lock()
	if f, ok := errors.AsType[*fault](err); q.failLocked(err) && ok {
		q.terminateLocked(f)
	}
	q.mu.Unlock()
	q.conn.Close()
	q.mu.Lock()
	for q.sending {
		q.quiet.Wait()
	}
	q.abandonLocked()
	done := settle(q.done.take())
	q.mu.Unlock()
	q.deliver(done)
	close(q.gone)
	if q.id == 0 {
		q.ctrl.fail(q.err)
	}
}

// terminateTime bounds the sending of a termination request.
const terminateTime = time.Second

// terminateLocked tells the target what was wrong, where that is possible
// without breaking into another PDU. Queue.mu is held, and released meanwhile.
func (q *Queue) terminateLocked(f *fault) {
	_ = q.conn.SetWriteDeadline(time.Now().Add(terminateTime))
	for q.sending {
		q.quiet.Wait()
	}
	if q.flight.Size() > 0 {
		return // the connection broke in the middle of it
	}
	q.mu.Unlock()
	_, _ = q.conn.Write(pdu.AppendTerm(nil, &pdu.H2CTermReq{Fault: f.Fault}, f.header)) // it ends in any case
	q.mu.Lock()
}

// abandonLocked moves everything under way to done.
func (q *Queue) abandonLocked() {
	q.stream.cmd = nil
	for i := range q.slots {
		if cmd := q.slots[i].cmd; cmd != nil {
			q.unregister(cmd)
			cmd.Err = q.err
			q.done.push(cmd)
		}
	}
	for q.waiting.head != nil {
		cmd := q.waiting.pop()
		cmd.Err = q.err
		q.done.push(cmd)
	}
	for q.held.head != nil {
		q.done.push(q.held.pop())
	}
}

// unregister gives the command identifier back.
func (q *Queue) unregister(cmd *Command) {
	i := cmd.cid & slotMask
	q.slots[i] = slot{round: (q.slots[i].round + 1) & (1<<(16-slotBits) - 1)}
	q.free = append(q.free, i)
	q.active--
}

// queued returns the position in the stream after everything that is queued.
func (q *Queue) queued() uint64 { return q.accepted + uint64(q.queue.Size()) }

// kickLocked sends what is queued, unless somebody else is about to. It is
// called with Queue.mu held and releases it.
func (q *Queue) kickLocked() {
	if q.reading || q.sending || q.queue.Size() == 0 || q.err != nil {
		q.mu.Unlock()
		return
	}
	q.sending = true
	q.sendLocked(false)
}

// sendLocked writes batch after batch until nothing is queued. With resume it
// first ends the one in flight, waiting for the socket. It is called with
// Queue.mu held and sending set, and releases both, or leaves sending to
// the writer.
func (q *Queue) sendLocked(resume bool) {
	for q.err == nil {
		if !resume {
			if q.queue.Size() == 0 {
				break
			}
			q.queue, q.flight = q.flight, q.queue
			q.accepted += uint64(q.flight.Size())
			q.out.Begin(q.flight)
		}
		q.mu.Unlock()
		n, done, err := q.out.Write(resume)
		q.written.Add(uint64(n))
		if err != nil {
			q.fail(fmt.Errorf("send: %w", err))
		}
		if done {
			q.flight.Reset()
		}
		q.mu.Lock()
		q.releaseLocked()
		if err == nil && !done {
			if !resume {
				q.mu.Unlock()
				q.handoff <- struct{}{}
				return
			}
			continue
		}
		resume = false
	}
	q.sending = false
	q.quiet.Broadcast()
	q.mu.Unlock()
}

// writer writes the rests of batches that the socket did not take at once.
func (q *Queue) writer() {
	defer q.running.Done()
	for {
		select {
		case <-q.handoff:
			q.mu.Lock()
			q.sendLocked(true)
		case <-q.gone:
			return
		}
	}
}

// releaseLocked ends the held commands whose data has left. Queue.mu is
// held, and released meanwhile.
func (q *Queue) releaseLocked() {
	if q.held.head == nil {
		return
	}
	var ready list
	written := q.written.Load()
	for all := q.held.take(); all != nil; {
		cmd := all
		all = cmd.next
		if cmd.sent <= written {
			ready.push(cmd)
		} else {
			q.held.push(cmd)
		}
	}
	if ready.head == nil {
		return
	}
	chain := settle(ready.take())
	q.mu.Unlock()
	q.deliver(chain)
	q.mu.Lock()
}

// settle makes a chain of ended commands idle. Queue.mu is held.
func settle(chain *Command) *Command {
	for cmd := chain; cmd != nil; cmd = cmd.next {
		cmd.state = idle
	}
	return chain
}

// deliver runs the callbacks of a list of commands.
func (q *Queue) deliver(cmd *Command) {
	if cmd == nil {
		return
	}
	q.callback.Lock()
	for cmd != nil {
		next := cmd.next
		cmd.next = nil
		cmd.Done(cmd)
		cmd = next
	}
	q.callback.Unlock()
}
