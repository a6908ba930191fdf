package nvme_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"lintel.io/lintel/internal/initiator/nvme"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// TestKeepAlive checks that Keep Alive commands are sent at half the timeout, and that the
// association ends where one is not answered (NVMe Base 2.0 §3.9).
func TestKeepAlive(t *testing.T) {
	for name, want := range map[string]error{"silent": nvme.ErrKeepAlive, "failing": &nvme.StatusError{}} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t)
			beats := 0
			d.hook = func(p *peer, e wire.SQE, _ []byte) bool {
				if e.Opcode() != wire.AdminKeepAlive {
					return false
				}
				if beats++; beats < 4 {
					p.respond(e, 0)
				} else if name == "failing" {
					p.respond(e, wire.InvalidField)
				}
				return true
			}
			tick, timeout := make(chan time.Time), make(chan time.Time)
			opts := d.options()
			opts.KeepAlive = time.Minute
			opts.After = func(d time.Duration) <-chan time.Time {
				if d == time.Minute/2 {
					return tick
				}
				return timeout
			}
			c := d.connect(opts)
			for range 4 {
				tick <- time.Time{}
			}
			if name == "silent" {
				timeout <- time.Time{}
			}
			<-c.Ended()
			if name == "silent" && !errors.Is(c.Err(), want) || name == "failing" && nvme.StatusOf(c.Err()) != wire.InvalidField {
				t.Errorf("got %v", c.Err())
			}
		})
	}
}

// TestEvents checks that asynchronous events are configured, told and asked for again (NVMe
// Base 2.0 §5.2).
func TestEvents(t *testing.T) {
	d := newTarget(t)
	asked := 0
	d.hook = func(p *peer, e wire.SQE, _ []byte) bool {
		switch e.Opcode() {
		case wire.AdminSetFeatures:
			if uint8(e.CDW(10)) != wire.FeatureAsyncEvents || e.CDW(11) != 0x900 {
				p.must(fmt.Errorf("feature %#x is %#x", e.CDW(10), e.CDW(11)))
			}
		case wire.AdminAsyncEvent:
			if asked++; asked <= 5 {
				p.respond(e, 0, wire.EventNamespaceChanged)
				return true
			}
		}
		return false
	}
	events := make(chan uint32, 10)
	opts := d.options()
	opts.OnEvent = func(event uint32) { events <- event }
	c := d.connect(opts)
	for range 5 {
		if got := <-events; got != wire.EventNamespaceChanged {
			t.Errorf("event %#x", got)
		}
	}
	c.Close()
	if len(events) > 0 {
		t.Error("an event that did not happen")
	}
}

// TestAssociationEnds checks that all queues end with the admin queue (NVMe Base 2.0 §3.3.2).
func TestAssociationEnds(t *testing.T) {
	d := newTarget(t, (*peer).drain, (*peer).drain)
	d.hook = func(p *peer, e wire.SQE, _ []byte) bool {
		if e.Opcode() == wire.AdminKeepAlive {
			p.conn.Close()
		}
		return false
	}
	c := d.connect(d.options())
	cmd := &nvme.Command{}
	cmd.SQE().SetOpcode(wire.AdminKeepAlive)
	if err := c.Do(d.context(), cmd); err == nil {
		t.Error("the command succeeded")
	}
	for _, q := range c.Queues() {
		<-q.Ended()
	}
	if _, err := c.ConnectQueue(d.context(), 9); err == nil {
		t.Error("connected a queue of an association that has ended")
	}
	if _, err := c.ConnectQueue(d.context(), 0); !errors.Is(err, nvme.ErrCommand) {
		t.Error(err)
	}
}

// TestCancel checks that a cancelled context aborts the command, and gives the queue up where
// the target does not end it (NVMe Base 2.0 §5.1).
func TestCancel(t *testing.T) {
	for _, obeys := range []bool{true, false} {
		read := make(chan wire.SQE, 1)
		aborted := make(chan uint32, 1)
		d := newTarget(t, func(p *peer) {
			e, _ := p.opcode(wire.Read)
			read <- e
			if dw := <-aborted; dw != uint32(e.CID())<<16|1 {
				p.must(fmt.Errorf("abort of %#x", dw))
			}
			if obeys {
				p.respond(e, wire.AbortRequested)
			}
			p.drain()
		})
		d.hook = func(p *peer, e wire.SQE, _ []byte) bool {
			if e.Opcode() == wire.AdminAbort {
				p.respond(e, 0)
				aborted <- e.CDW(10)
			}
			return e.Opcode() == wire.AdminAbort
		}
		opts := d.options()
		opts.Depth = 2
		opts.AbortTimeout = time.Minute
		opts.After = func(d time.Duration) <-chan time.Time {
			if obeys {
				return nil
			}
			return soon(d)
		}
		d.keepFlow = true
		q := d.connect(opts).Queues()[0]
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error), make(chan error)
		go func() { first <- q.Read(ctx, 1, 0, 512, make([]byte, 512)) }()
		<-read
		// There is no room for the second: it ends without having been sent.
		waits, giveUp := context.WithCancel(t.Context())
		go func() { second <- q.Flush(waits, 1) }()
		giveUp()
		if err := <-second; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := q.Flush(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if (q.Err() == nil) != obeys {
			t.Errorf("obeys %v: the queue has %v", obeys, q.Err())
		}
	}
}

// TestCancelFused checks that a fused operation is given up as a whole.
func TestCancelFused(t *testing.T) {
	sent := make(chan struct{})
	d := newTarget(t, func(p *peer) {
		p.opcode(wire.Compare)
		close(sent)
		p.drain()
	})
	q := d.queue()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-sent; cancel() }()
	if err := q.CompareAndWrite(ctx, 1, 0, 512, make([]byte, 512), make([]byte, 512)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := q.CompareAndWrite(ctx, 1, 0, 512, make([]byte, 512), make([]byte, 512)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	q.Close()
	if err := q.CompareAndWrite(t.Context(), 1, 0, 512, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestBadCommands checks that what cannot be sent is refused at once.
func TestBadCommands(t *testing.T) {
	d := newTarget(t, (*peer).drain)
	opts := d.options()
	opts.Depth = 2
	d.keepFlow = true
	c := d.connect(opts)
	q := c.Queues()[0]
	done := func(*nvme.Command) {}
	for name, cmd := range map[string]*nvme.Command{
		"no callback":     {},
		"both directions": {In: make([]byte, 4), Out: make([]byte, 4), Done: done},
		"negative size":   {Discard: -1, Done: done},
		"huge":            {Discard: 1 << 40, Done: done},
	} {
		if err := q.Submit(cmd); !errors.Is(err, nvme.ErrCommand) {
			t.Errorf("%s: %v", name, err)
		}
		if err := q.SubmitFused(cmd, cmd); !errors.Is(err, nvme.ErrCommand) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := q.CompareAndWrite(t.Context(), 1, 0, 512, make([]byte, 512), make([]byte, 512)); !errors.Is(err, nvme.ErrCommand) {
		t.Errorf("a fused pair in a queue for one command: %v", err)
	}
	ctx := t.Context()
	for name, err := range map[string]error{
		"no ranges": q.Deallocate(ctx, 1), "no sources": q.Copy(ctx, 1, 0),
		"log page": c.LogPage(ctx, nvme.LogRequest{}, make([]byte, 3)),
	} {
		if !errors.Is(err, nvme.ErrCommand) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBrokenIdentify checks data structures that contradict themselves (NVMe Base 2.0 §5.17).
func TestBrokenIdentify(t *testing.T) {
	d := newTarget(t)
	var data atomic.Pointer[[]byte]
	d.hook = func(p *peer, e wire.SQE, _ []byte) bool {
		if data.Load() == nil || e.Opcode() != wire.AdminIdentify {
			return false
		}
		p.in(e, *data.Load())
		return true
	}
	c := d.connect(d.options())
	make4k := func(set func(p []byte)) {
		p := make([]byte, 4096)
		set(p)
		data.Store(&p)
	}
	ctx := d.context()
	make4k(func(p []byte) { p[0], p[130] = 1, 3 })
	if _, err := c.IdentifyNamespace(ctx, 1); !errors.Is(err, nvme.ErrProtocol) {
		t.Errorf("blocks of 8 bytes: %v", err)
	}
	make4k(func(p []byte) { p[0], p[26], p[134] = 1, 1, 9 })
	if _, err := c.IdentifyNamespace(ctx, 1); !errors.Is(err, nvme.ErrProtocol) {
		t.Errorf("an unknown format: %v", err)
	}
	make4k(func([]byte) {})
	if n, err := c.IdentifyNamespace(ctx, 1); err != nil || n.Blocks != 0 {
		t.Errorf("an inactive namespace: %+v, %v", n, err)
	}
	make4k(func(p []byte) { p[0], p[4], p[8] = 3, 9, 7 })
	if _, err := c.ActiveNamespaces(ctx, 0); !errors.Is(err, nvme.ErrProtocol) {
		t.Errorf("a list that falls: %v", err)
	}
	make4k(func(p []byte) { p[0], p[4] = 3, 9 })
	if list, err := c.ActiveNamespaces(ctx, 0); err != nil || !slices.Equal(list, []uint32{3, 9}) {
		t.Error(list, err)
	}
	make4k(func(p []byte) { p[0] = 2 })
	if _, err := c.Descriptors(ctx, 1); !errors.Is(err, nvme.ErrProtocol) {
		t.Errorf("an empty descriptor: %v", err)
	}
	make4k(func(p []byte) { p[0], p[1], p[4], p[20], p[21] = 2, 16, 0xAB, 4, 1 })
	if all, err := c.Descriptors(ctx, 1); err != nil || len(all) != 2 || all[0].ID[0] != 0xAB || all[1].Type != 4 {
		t.Error(all, err)
	}
}

// TestDiscoveryLog checks that a log page that changes while it is read is read again (NVMe Base
// 2.0 §5.16.1.23), and entries that make no sense.
func TestDiscoveryLog(t *testing.T) {
	const always = 1 << 30
	for name, c := range map[string]struct {
		changes int
		entry   func(p []byte)
		header  func(p []byte)
		ok      bool
	}{
		"at rest":     {ok: true},
		"changes":     {changes: 3, ok: true},
		"never rests": {changes: always},
		"format":      {header: func(p []byte) { p[16] = 1 }},
		"long":        {header: func(p []byte) { p[15] = 1 }},
		"type":        {entry: func(p []byte) { p[2] = 7 }},
		"no address":  {entry: func(p []byte) { clear(p[512:768]) }},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTarget(t)
			generation, changes := uint64(1), c.changes
			d.hook = func(p *peer, e wire.SQE, _ []byte) bool {
				if e.Opcode() != wire.AdminGetLogPage {
					return false
				}
				data := make([]byte, 1024)
				switch e.CDW(12) / 1024 {
				case 0:
					if changes > 0 {
						changes--
						generation++
					}
					le.PutUint64(data, generation)
					le.PutUint64(data[8:], 2)
					if c.header != nil {
						c.header(data)
					}
				default:
					data[0], data[1], data[2] = 3, 1, 2
					copy(data[32:], "4420   ")
					copy(data[256:], subsystem)
					copy(data[512:], "192.0.2.1")
					if c.entry != nil {
						c.entry(data)
					}
				}
				p.in(e, data)
				return true
			}
			log, err := nvme.Discover(d.context(), "target:8009", nvme.Options{Dial: d.dial})
			if !c.ok {
				if err == nil {
					t.Error("no error")
				}
				return
			}
			if err != nil || log.Generation != generation || len(log.Records) != 2 || log.Records[1].Endpoint() != "192.0.2.1:4420" {
				t.Errorf("%+v, %v", log, err)
			}
		})
	}
}

// TestDisconnect checks the deletion of an I/O queue (NVMe Base 2.0 §6.4).
func TestDisconnect(t *testing.T) {
	d := newTarget(t, func(p *peer) {
		e, _ := p.opcode(wire.FabricsCommand)
		if e.FabricsType() != wire.Disconnect {
			p.must(errors.New("no Disconnect"))
		}
		p.respond(e, 0)
		p.drain()
	}, func(p *peer) {
		e, _ := p.command()
		p.respond(e, wire.InvalidField)
		p.drain()
	})
	queues := d.connect(d.options()).Queues()
	if err := queues[0].Disconnect(d.context()); err != nil || !errors.Is(queues[0].Err(), nvme.ErrClosed) {
		t.Error(err, queues[0].Err())
	}
	if err := queues[1].Disconnect(d.context()); nvme.StatusOf(err) != wire.InvalidField || queues[1].ID() != 2 {
		t.Error(err)
	}
}

// TestReport checks a reservation report that is longer than was thought (NVMe Base 2.0 §7.5).
func TestReport(t *testing.T) {
	const hosts = 300
	d := newTarget(t, func(p *peer) {
		for {
			e, _ := p.opcode(wire.ReservationReport)
			data := make([]byte, 4*(e.CDW(10)+1))
			data[0], data[4], data[9] = 9, 3, 1
			le.PutUint16(data[5:], hosts)
			for i := range hosts {
				if at := 24 + 24*i; at+24 <= len(data) {
					le.PutUint16(data[at:], uint16(i))
					data[at+2] = byte(i) & 1
					le.PutUint64(data[at+16:], uint64(i)*3)
				}
			}
			p.in(e, data)
		}
	})
	r, err := d.queue().Report(d.context(), 1, false)
	if err != nil || r.Generation != 9 || r.Type != nvme.WriteExclusiveRegistrantsOnly || !r.Persist || len(r.Registrants) != hosts || r.Registrants[299].Key != 897 || !r.Registrants[299].Holder {
		t.Errorf("%d registrants, %v", len(r.Registrants), err)
	}
}
