package nvmetcp_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"lintel.io/lintel/internal/block"
	"lintel.io/lintel/internal/initiator/nvme"
	"lintel.io/lintel/internal/initiator/nvme/nvmetest"
	controller "lintel.io/lintel/internal/nvme"
	wirenvme "lintel.io/lintel/internal/wire/nvme"
	wire "lintel.io/lintel/internal/wire/nvmetcp"
)

// These tests run the transport with the controller above it.

func start(t *testing.T) *nvmetest.Server {
	t.Helper()
	s, err := nvmetest.Start(controller.Grant{}, block.NewMem(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		await(t, "buffers to come back", func() bool { return block.BuffersInUse() == 0 })
	})
	return s
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestStress checks that data arrives unharmed over many queues while other
// associations come, break off and go (NVMe/TCP 1.0 §3.2, §3.3).
func TestStress(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var workers, vandals sync.WaitGroup
	stop := make(chan struct{})
	for v := range 2 {
		vandals.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(v)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := nvme.Dial(ctx, s.Address(), nvme.Options{Subsystem: nvmetest.NQN, IOQueues: 2, Depth: 16})
				if err != nil {
					t.Errorf("vandal: %v", err)
					return
				}
				for range 8 {
					p := make([]byte, 512<<r.IntN(9))
					q := c.Queues()[r.IntN(2)]
					go func() { _ = q.Write(ctx, 1, 100_000, 512, p, 0) }() // breaks off
				}
				time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
				c.Close()
			}
		})
	}
	for w := range 2 {
		c, err := nvme.Dial(ctx, s.Address(), nvme.Options{
			Subsystem: nvmetest.NQN, IOQueues: 2, Depth: 16, HeaderDigest: w > 0, DataDigest: w > 0, FlowControl: w > 0, MaxR2T: uint32(1 + w),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 8 {
			workers.Go(func() {
				r := rand.New(rand.NewPCG(uint64(w), uint64(i)))
				q := c.Queues()[i%2]
				base := uint64(w*8+i) * 4096
				for range 60 {
					n := 512 * (1 + r.IntN(1<<r.IntN(11)))
					want, got := make([]byte, n), make([]byte, n)
					for k := 0; k < n; k += 8 {
						binary.LittleEndian.PutUint64(want[k:], r.Uint64())
					}
					lba := base + r.Uint64N(1024)
					if err := q.Write(ctx, 1, lba, 512, want, 0); err != nil {
						t.Error(err)
						return
					}
					if err := q.Read(ctx, 1, lba, 512, got); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d bytes at %d came back changed: %v", n, lba, err)
						return
					}
				}
			})
		}
	}
	workers.Wait()
	close(stop)
	vandals.Wait()
}

// conversation is what a host sends that connects a queue, reads and writes.
func conversation(digests bool) []byte {
	s := &wire.Sender{}
	out := s.Append(nil, &wire.ICReq{HeaderDigest: digests, DataDigest: digests}, nil)
	s.HeaderDigest, s.DataDigest, s.Align = digests, digests, 4
	command := func(e wirenvme.SQE, data []byte) { out = s.Append(out, &wire.CapsuleCmd{SQE: e}, data) }

	e := make(wirenvme.SQE, wirenvme.SQESize)
	e.SetOpcode(wirenvme.FabricsCommand)
	e.SetFabricsType(wirenvme.Connect)
	e.SetSGL(0, 1024, wirenvme.SGLOffset)
	binary.LittleEndian.PutUint16(e[44:], 31)
	data := make([]byte, 1024)
	data[0] = 1
	binary.LittleEndian.PutUint16(data[16:], 0xFFFF)
	copy(data[256:], nvmetest.NQN)
	copy(data[512:], "nqn.2026-11.io.lintel.test:host")
	command(e, data)

	enable := make(wirenvme.SQE, wirenvme.SQESize)
	enable.SetOpcode(wirenvme.FabricsCommand)
	enable.SetSGL(0, 0, wirenvme.SGLTransport)
	enable.SetCDW(11, 0x14) // CC
	enable.SetCDW(12, 0x00460001)
	command(enable, nil)

	identify := make(wirenvme.SQE, wirenvme.SQESize)
	identify.SetOpcode(0x06)
	identify.SetSGL(0, 4096, wirenvme.SGLTransport)
	identify.SetCDW(10, 1)
	command(identify, nil)

	set := make(wirenvme.SQE, wirenvme.SQESize)
	set.SetOpcode(0x09)
	set.SetCDW(10, 0x81)
	set.SetSGL(0, 8, wirenvme.SGLOffset)
	command(set, make([]byte, 8))
	return out
}

// TestDisconnectUnderController checks that a connection may end at any byte
// without anything of it being left in the controller.
func TestDisconnectUnderController(t *testing.T) {
	s := start(t)
	for _, digests := range []bool{false, true} {
		in := conversation(digests)
		for n := 0; n <= len(in); n++ {
			if n > 300 && n < 1200 && n%31 != 0 { // the data of Connect
				continue
			}
			nc, err := net.Dial("tcp", s.Address())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := nc.Write(in[:n]); err != nil {
				t.Fatal(err)
			}
			if n%2 == 0 {
				// The other half of them goes in the middle of the answers.
				_ = nc.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, nc)
			}
			nc.Close()
		}
	}
	await(t, "the end of all connections", func() bool { return len(s.Transport.Connections()) == 0 })
	await(t, "the end of all controllers", func() bool { return len(s.Subsystem.Controllers()) == 0 })
}

// stalled is a connection that from some time on lets only so many bytes more
// through, and says of the others that they were sent.
type stalled struct {
	net.Conn
	mu    sync.Mutex
	bytes int // -1 for any
}

func (c *stalled) let(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes = n
}

func (c *stalled) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes < 0 {
		return c.Conn.Write(p)
	}
	n := min(len(p), c.bytes)
	c.bytes -= n
	if _, err := c.Conn.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestKeepAliveDuringWrite checks that the keep alive timer ends an association in the
// middle of the data of a write, which then never reaches the device (NVMe Base 2.0 §3.9,
// NVMe/TCP 1.0 §3.3.2).
func TestKeepAliveDuringWrite(t *testing.T) {
	s := start(t)
	var last *stalled
	silent, err := nvme.Dial(t.Context(), s.Address(), nvme.Options{
		Subsystem: nvmetest.NQN, IOQueues: 1, KeepAlive: 300 * time.Millisecond,
		After: func(time.Duration) <-chan time.Time { return nil },
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			last = &stalled{Conn: nc, bytes: -1}
			return last, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	last.let(8 << 10) // the command, and the begin of what the R2T asks for
	if err := silent.Queues()[0].Write(t.Context(), 1, 0, 512, bytes.Repeat([]byte{0xEE}, 1<<20), 0); err == nil {
		t.Error("the write succeeded")
	}
	<-silent.Ended()
	await(t, "the end of the association", func() bool { return len(s.Subsystem.Controllers()) == 0 })
	c, err := nvme.Dial(t.Context(), s.Address(), nvme.Options{Subsystem: nvmetest.NQN, IOQueues: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make([]byte, 1<<20)
	if err := c.Queues()[0].Read(t.Context(), 1, 0, 512, got); err != nil || !bytes.Equal(got, make([]byte, 1<<20)) {
		t.Errorf("some of the write has arrived: %v", err)
	}
}

// TestManyQueues checks an association with many I/O queues of the greatest
// depth, and that the status tells of all of them (NVMe/TCP 1.0 §3.2).
func TestManyQueues(t *testing.T) {
	s := start(t)
	const queues = 16
	c, err := nvme.Dial(t.Context(), s.Address(), nvme.Options{Subsystem: nvmetest.NQN, IOQueues: queues, Depth: 1024})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var pending sync.WaitGroup
	for i, q := range c.Queues() {
		for k := range 200 {
			cmd := &nvme.Command{In: make([]byte, 4096)}
			cmd.SetIO(wirenvme.Read, 1, uint64(i*200+k)*8, 8, 0)
			pending.Add(1)
			cmd.Done = func(cmd *nvme.Command) {
				if !cmd.Good() {
					t.Error(cmd.Failure())
				}
				pending.Done()
			}
			if err := q.Submit(cmd); err != nil {
				t.Fatal(err)
			}
		}
	}
	pending.Wait()
	ids := map[uint16]bool{}
	for _, st := range s.Transport.Connections() {
		ids[st.QueueID] = true
		if st.QueueID > 0 && (st.Depth != 1024 || st.FlowControl || !st.Connected || st.Counters.BytesRead != 200*4096) {
			t.Errorf("%+v", st)
		}
	}
	if len(ids) != queues+1 {
		t.Errorf("%d queues", len(ids))
	}
}
