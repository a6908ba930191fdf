package bench

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// memTarget is a little iSCSI target with one unit in memory, to run loads
// against. It knows what the load generator sends and nothing else.
type memTarget struct {
	address   string
	blockSize int

	mu     sync.Mutex
	data   []byte
	ios    int
	attend bool // report one unit attention for each connection's first command

	// fault, where not nil, is asked about each read and write, counted from 1;
	// a status other than 0 is answered instead of doing it.
	fault func(n int, write bool, p []byte) (status byte, sense []byte)
}

func startTarget(t *testing.T, size, blockSize int) *memTarget {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &memTarget{address: l.Addr().String(), data: make([]byte, size), blockSize: blockSize, attend: true}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				m.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return m
}

func (m *memTarget) url() string { return "iscsi://" + m.address + "/iqn.2026-11.io.lintel:mem/1" }

// memConn is the state of one connection of a memTarget.
type memConn struct {
	net.Conn
	numbers wire.Numbers
	attend  bool
}

func (c *memConn) next() wire.Numbers {
	n := c.numbers
	c.numbers.StatSN++
	return n
}

func (c *memConn) send(f wire.Fields, data []byte) bool {
	_, err := c.Write(wire.AppendPDU(nil, f, data))
	return err == nil
}

func (m *memTarget) serve(conn net.Conn) {
	c := &memConn{Conn: conn, numbers: wire.Numbers{StatSN: 1, MaxCmdSN: 1 << 20}, attend: m.attend}
	for {
		h := make(wire.BHS, wire.HeaderSize)
		if _, err := io.ReadFull(c, h); err != nil {
			return
		}
		data := make([]byte, wire.Pad(h.DataLength()))
		if _, err := io.ReadFull(c, data); err != nil {
			return
		}
		ok := false
		switch h.Opcode() {
		case wire.OpLogin:
			f := wire.LoginResponse{Transit: true, CSG: h.CSG(), NSG: h.NSG(), ISID: h.ISID(), ITT: h.ITT(), Numbers: c.next()}
			var text []byte
			if h.NSG() == wire.StageFullFeature {
				f.TSIH = 1
				for _, kv := range [][2]string{{"ImmediateData", "Yes"}, {"InitialR2T", "Yes"}, {"FirstBurstLength", "262144"}, {"MaxRecvDataSegmentLength", "262144"}} {
					if h.TSIH() == 0 || kv[0] == "MaxRecvDataSegmentLength" {
						text = wire.AppendText(text, kv[0], kv[1])
					}
				}
				if bytes.Contains(data, []byte("MaxConnections=2\x00")) {
					text = wire.AppendText(text, "MaxConnections", "2")
				}
			}
			ok = c.send(&f, text)
		case wire.OpLogout:
			c.send(&wire.LogoutResponse{ITT: h.ITT(), Numbers: c.next()}, nil)
		case wire.OpSCSICommand:
			ok = m.command(c, h, data[:h.DataLength()])
		}
		if !ok {
			return
		}
	}
}

func (m *memTarget) command(c *memConn, h wire.BHS, data []byte) bool {
	status := func(status byte, sense []byte) bool {
		if sense != nil {
			sense = append([]byte{0, byte(len(sense))}, sense...)
		}
		return c.send(&wire.SCSIResponse{Status: status, ITT: h.ITT(), Numbers: c.next()}, sense)
	}
	in := func(p []byte) bool {
		f := wire.DataIn{Flags: wire.FlagFinal | wire.FlagStatus, ITT: h.ITT(), TTT: wire.NoTag}
		f.Numbers = c.next()
		return c.send(&f, p)
	}
	if c.attend {
		c.attend = false
		return status(2, []byte{0x72, 6, 0x29, 0, 0, 0, 0, 0})
	}
	cdb := h.CDB()
	var lba, count int
	switch cdb[0] {
	case 0x00:
		return status(0, nil)
	case 0x9e:
		p := make([]byte, 32)
		binary.BigEndian.PutUint64(p, uint64(len(m.data)/m.blockSize-1))
		binary.BigEndian.PutUint32(p[8:], uint32(m.blockSize))
		return in(p)
	case opRead10, opWrite10:
		lba, count = int(binary.BigEndian.Uint32(cdb[2:])), int(binary.BigEndian.Uint16(cdb[7:]))
	case opRead16, opWrite16:
		lba, count = int(binary.BigEndian.Uint64(cdb[2:])), int(binary.BigEndian.Uint32(cdb[10:]))
	default:
		return false
	}
	write := cdb[0] == opWrite10 || cdb[0] == opWrite16
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ios++
	if lba+count > len(m.data)/m.blockSize || write && len(data) != count*m.blockSize {
		return status(2, []byte{0x72, 5, 0x21, 0, 0, 0, 0, 0})
	}
	p := m.data[lba*m.blockSize : (lba+count)*m.blockSize]
	if m.fault != nil {
		if s, sense := m.fault(m.ios, write, p); s != 0 {
			return status(s, sense)
		}
	}
	if write {
		copy(p, data)
		return status(0, nil)
	}
	return in(p)
}
