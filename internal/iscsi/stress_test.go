package iscsi

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lintel.io/lintel/internal/scsi"
	wire "lintel.io/lintel/internal/wire/iscsi"
)

// TestStress runs reads and writes of every kind over several connections of
// one session, with a device that completes some inline and some later, while
// task management aborts some: every command is answered or aborted.
func TestStress(t *testing.T) {
	const conns, each = 4, 400
	h := newHarness(t, Config{QueueDepth: 64, DataBudget: 16 << 20, ConnectionBudget: 64 << 10})
	d := h.array.disk
	var hold atomic.Int32
	d.hold = func(*scsi.Task) bool { return hold.Add(1)%3 == 0 }
	stop := make(chan struct{})
	var background sync.WaitGroup
	background.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			d.mu.Lock()
			held := d.held
			d.held = nil
			d.mu.Unlock()
			for _, task := range held {
				d.run(task)
			}
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	background.Go(func() { _ = h.server.Serve(l, 1) })
	var all []*client
	for i := range conns {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, nc)
		c.cid = uint16(i)
		if i > 0 {
			c.isid, c.tsih = all[0].isid, all[0].tsih
		}
		c.login(normal("MaxConnections=4", "InitialR2T=No", "FirstBurstLength=4096", "MaxBurstLength=8192", "MaxOutstandingR2T=3", "MaxRecvDataSegmentLength=2048")...)
		all = append(all, c)
	}
	var mu sync.Mutex
	cmdSN := all[0].cmdSN
	turn := func(send func(sn uint32)) { // CmdSN in the order of sending, over all connections
		mu.Lock()
		defer mu.Unlock()
		send(cmdSN)
		cmdSN++
	}
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			data := pattern(64 << 10)
			open := map[uint32]bool{} // by task tag; true for task management
			aborted := map[uint32]uint32{}
			for sent := 0; sent < each || len(open) > 0; {
				for sent < each && len(open) < 8 {
					itt := uint32(i)<<16 | uint32(sent+1)
					blocks := 1 + r.IntN(64)
					turn(func(sn uint32) {
						switch n := r.IntN(10); {
						case n < 4:
							c.send(&wire.SCSICommand{Final: true, Read: true, ITT: itt, CmdSN: sn, ExpectedLength: uint32(blocks * 512), CDB: cdb10(0x28, 0, blocks)}, nil)
						case n < 6:
							c.send(&wire.SCSICommand{Final: true, Write: true, ITT: itt, CmdSN: sn, ExpectedLength: uint32(blocks * 512), CDB: cdb10(0x2a, 0, blocks)}, data[:min(blocks*512, 4096)])
						case n < 8:
							c.send(&wire.SCSICommand{Write: true, ITT: itt, CmdSN: sn, ExpectedLength: uint32(blocks * 512), CDB: cdb10(0x2a, 0, blocks)}, data[:512])
							c.send(&wire.DataOut{Final: true, ITT: itt, TTT: wire.NoTag, BufferOffset: 512}, data[512:max(512, min(blocks*512, 4096))])
						default:
							c.send(&wire.SCSICommand{Final: true, Write: true, ITT: itt, CmdSN: sn, ExpectedLength: uint32(blocks * 512), CDB: cdb10(0x2a, 0, blocks)}, nil)
						}
						open[itt] = false
						sent++
						if r.IntN(10) == 0 {
							tag := itt | 1<<31
							c.send(&wire.TaskManagement{Immediate: true, Function: uint8(scsi.AbortTask), ITT: tag, ReferencedTaskTag: itt, CmdSN: sn + 1, RefCmdSN: sn}, nil)
							open[tag], aborted[tag] = true, itt
						}
					})
				}
				select {
				case p, ok := <-c.in:
					if !ok {
						t.Errorf("connection %d ended: %v", i, c.readErr)
						return
					}
					switch p.Opcode() {
					case wire.OpR2T:
						off, n := int(p.BufferOffset()), int(p.DesiredLength())
						c.send(&wire.DataOut{Final: true, ITT: p.ITT(), TTT: p.TTT(), BufferOffset: uint32(off)}, data[off:off+n])
					case wire.OpDataIn:
						if p.Flags()&wire.FlagStatus != 0 {
							delete(open, p.ITT())
						}
					case wire.OpSCSIResponse:
						if _, there := open[p.ITT()]; !there {
							t.Errorf("%#x is answered twice, or after its abort", p.ITT())
						}
						delete(open, p.ITT())
					case wire.OpTaskManagementResponse:
						if p.Response() == uint8(scsi.FunctionComplete) {
							delete(open, aborted[p.ITT()])
						}
						delete(open, p.ITT())
					default:
						t.Errorf("got %s", p.Opcode())
					}
				case <-time.After(20 * time.Second):
					t.Errorf("connection %d waits for %v", i, open)
					return
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	l.Close()
	background.Wait()
	if s := h.server.Sessions(); len(s) != 1 || s[0].InFlight != 0 {
		t.Errorf("sessions %+v", s)
	}
}

// TestStressEndings ends sessions in every way in the midst of their work.
func TestStressEndings(t *testing.T) {
	h := newHarness(t, Config{DataBudget: 16 << 20})
	d := h.array.disk
	d.hold = func(*scsi.Task) bool { return rand.IntN(2) == 0 }
	for round := range 60 {
		a := h.dial()
		a.login(normal("MaxConnections=2", "ImmediateData=No")...)
		b := h.second(a, 1)
		var wg sync.WaitGroup
		sn := a.cmdSN
		for i, c := range []*client{a, b} {
			wg.Go(func() {
				for n := range 20 {
					f := &wire.SCSICommand{Final: true, ITT: uint32(i*100 + n), CmdSN: sn + uint32(2*n+i), ExpectedLength: 4096, CDB: cdb10(0x28, 0, 8)}
					if f.Read = n%2 == 0; !f.Read {
						f.Write, f.CDB = true, cdb10(0x2a, 0, 8)
					}
					c.send(f, nil)
				}
			})
		}
		time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
		switch round % 6 {
		case 0:
			a.nc.Close()
		case 1:
			wg.Go(func() { a.send(&wire.Logout{Immediate: true, Reason: wire.LogoutCloseSession, ITT: 999}, nil) })
		case 2:
			wg.Go(func() {
				a.send(&wire.Logout{Immediate: true, Reason: wire.LogoutCloseConnection, CID: 1, ITT: 999}, nil)
			})
			time.Sleep(time.Millisecond)
			b.nc.Close()
			a.nc.Close()
		case 3:
			for _, s := range h.server.Sessions() {
				h.server.Drop(s.ID)
			}
		case 4:
			wg.Go(func() {
				a.send(&wire.TaskManagement{Immediate: true, Function: uint8(scsi.TargetColdReset), ITT: 999, CmdSN: sn + 50}, nil)
			})
		case 5: // reinstated by the next round
		}
		wg.Wait()
	}
	h.server.Sessions()
	for _, s := range h.server.all() {
		s.end(errDropped)
		<-s.gone
	}
}
