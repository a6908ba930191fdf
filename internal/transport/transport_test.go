package transport

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"
)

// sink is a connection that keeps what is written, and sends what it is given.
type sink struct {
	net.Conn
	got    bytes.Buffer
	in     bytes.Reader
	closed bool
}

func (s *sink) Write(p []byte) (int, error) { return s.got.Write(p) }
func (s *sink) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *sink) Close() error                { s.closed = true; return nil }

func TestBatch(t *testing.T) {
	var b Batch[int]
	if !b.Empty() {
		t.Error("a new batch is not empty")
	}
	big := bytes.Repeat([]byte{7}, 1000)
	for round := range 3 {
		var want []byte
		put := func(n int, c byte) {
			p := b.Room(n)
			for i := range p {
				p[i] = c
			}
			want = append(want, p...)
		}
		put(10, 'a')
		put(5, 'b')
		if len(b.vec) != 1 {
			t.Errorf("%d entries for what lies together", len(b.vec))
		}
		if round > 0 {
			b.Data(big)
			b.Data(nil)
			want = append(want, big...)
			put(arenaSize, 'c') // a new arena
			put(3, 'd')
		}
		if round == 2 {
			put(300<<10, 'e')
			for range 5000 {
				b.Data(big[:1])
				want = append(want, 7)
			}
		}
		x := round
		b.Finish(&x)
		if b.Len() != len(want) || b.Empty() || len(b.Finished()) != 1 || *b.Finished()[0] != round {
			t.Errorf("the batch has %d bytes, want %d", b.Len(), len(want))
		}
		var s sink
		if err := b.Write(&s); err != nil || !bytes.Equal(s.got.Bytes(), want) {
			t.Errorf("round %d: %d bytes were written, want %d", round, s.got.Len(), len(want))
		}
		b.Reset()
		if !b.Empty() || b.Len() != 0 || len(b.Finished()) != 0 {
			t.Error("the batch is not empty after Reset")
		}
	}
	if cap(b.vec) != 0 || cap(b.arena) != 0 {
		t.Error("the memory of an unusual batch is kept")
	}
}

func TestInput(t *testing.T) {
	var s sink
	data := make([]byte, 3*receiveSize)
	for i := range data {
		data[i] = byte(i >> 8)
	}
	s.in.Reset(data)
	var in Input
	var got []byte
	for _, n := range []int{8, 100, receiveSize, receiveSize + 5, 8, 1} {
		for len(in.Bytes()) < n {
			if _, err := in.Fill(&s, n); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, in.Bytes()[:n]...)
		in.Take(n)
	}
	if !bytes.Equal(got, data[:len(got)]) {
		t.Error("something else was read than sent")
	}
	for {
		in.Take(len(in.Bytes()))
		if n, err := in.Fill(&s, 8); n == 0 || err != nil {
			break
		}
	}
	if len(in.buf) != receiveSize {
		t.Errorf("the buffer stays at %d bytes", len(in.buf))
	}
}

type waiter struct{ granted int }

func (w *waiter) Granted() { w.granted++ }

func TestBudget(t *testing.T) {
	b := NewBudget(100, 60)
	var s1, s2 Share
	claim := func(s *Share) (*Claim, *waiter) {
		w := &waiter{}
		return &Claim{Share: s, Waiter: w}, w
	}
	big, _ := claim(&s1)
	if !b.Take(big, 90, false) || !big.Holds() {
		t.Fatal("one claim of a connection may exceed its share")
	}
	second, w2 := claim(&s1)
	if b.Take(second, 5, false) || second.Holds() {
		t.Error("a second may not")
	}
	if b.Take(second, 5, true) {
		t.Error("waiting is no grant")
	}
	other, w3 := claim(&s2)
	if !b.Take(other, 5, true) {
		t.Error("a full connection does not hold others up")
	}
	late, w4 := claim(&s2)
	b.Take(late, 20, true)
	if b.Take(&Claim{Share: &Share{}}, 1, false) {
		t.Error("nobody overtakes a claim that waits for the common budget")
	}
	if !b.Leave(late) || b.Leave(late) {
		t.Error("a claim leaves the line once")
	}
	b.Release(big)
	b.Release(big)
	if w2.granted != 1 || w3.granted != 0 || w4.granted != 0 || !second.Holds() || !other.Holds() {
		t.Errorf("granted %d, %d, %d times", w2.granted, w3.granted, w4.granted)
	}
	b.Release(second)
	b.Release(other)
	if b.free != 100 || s1.held != 0 || s2.held != 0 {
		t.Errorf("%d bytes are free, %d and %d are held", b.free, s1.held, s2.held)
	}
	// A claim too large for now keeps those behind it waiting; one of a full connection does not.
	b.Take(big, 50, false)
	full, wf := claim(&s1)
	b.Take(full, 20, true)
	wide, ww := claim(&s2)
	b.Take(wide, 80, true)
	small, ws := claim(&Share{})
	b.Take(small, 10, true)
	extra, _ := claim(&s2)
	b.held(extra, 10)
	b.Release(extra)
	if wf.granted != 0 || ww.granted != 0 || ws.granted != 0 {
		t.Errorf("granted %d, %d, %d times", wf.granted, ww.granted, ws.granted)
	}
	b.Release(big)
	if wf.granted != 1 || ww.granted != 1 || ws.granted != 0 {
		t.Errorf("granted %d, %d, %d times", wf.granted, ww.granted, ws.granted)
	}
}

// held lets a claim hold n bytes whatever the line.
func (b *Budget) held(c *Claim, n int64) {
	c.want = n
	b.grant(c)
}

func TestHalfOpen(t *testing.T) {
	var h HalfOpen
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	conns := make([]*sink, 6)
	for i := range conns {
		conns[i] = &sink{}
	}
	first, v := h.Add(conns[0], a, 3, 2)
	if v != nil {
		t.Error("a victim too early")
	}
	h.Add(conns[1], a, 3, 2)
	if _, v := h.Add(conns[2], a, 3, 2); v != conns[0] {
		t.Error("the oldest of the address has to go")
	}
	h.Remove(first) // is out already
	if h.Len() != 2 {
		t.Errorf("%d are in", h.Len())
	}
	x, _ := h.Add(conns[3], b, 3, 2)
	if _, v := h.Add(conns[4], b, 3, 2); v != conns[1] {
		t.Error("the oldest of all has to go")
	}
	h.Remove(x)
	h.CloseAll()
	for i, want := range []bool{false, false, true, false, true, false} {
		if conns[i].closed != want {
			t.Errorf("connection %d closed: %v", i, conns[i].closed)
		}
	}
}

// TestHalfOpenOrigin checks that the addresses of one IPv6 network take each other's places.
func TestHalfOpenOrigin(t *testing.T) {
	var h HalfOpen
	add := func(from string) (*sink, net.Conn) {
		s := &sink{}
		_, victim := h.Add(s, netip.MustParseAddr(from), 10, 1)
		return s, victim
	}
	first, _ := add("2001:db8:0:1::1")
	for _, other := range []string{"2001:db8:0:2::1", "192.0.2.1", "fe80::1%eth0", "fe80::2%eth0"} {
		if _, victim := add(other); victim != nil {
			t.Errorf("%s takes another's place", other)
		}
	}
	if _, victim := add("2001:db8:0:1:2:3:4:5"); victim != first {
		t.Error("an attacker with a network has many places")
	}
}

func TestSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	Tune(nc, 100_000)
	Tune(&sink{}, 0)
	if a := AddrPort(nc.RemoteAddr()); a.String() != l.Addr().String() {
		t.Errorf("address %s", a)
	}
	if a := AddrPort(&net.UnixAddr{}); a.IsValid() {
		t.Errorf("address %s", a)
	}
}

// whole is a connection that writes several buffers as one.
type whole struct {
	net.Conn
	writes [][]byte
}

func (w *whole) WriteBuffers(vec net.Buffers) error {
	w.writes = append(w.writes, bytes.Join(vec, nil))
	return nil
}

func TestBatchIsWrittenAsOne(t *testing.T) {
	var b Batch[int]
	var w whole
	for range 2 {
		copy(b.Room(2), "ab")
		b.Data([]byte("data"))
		copy(b.Room(1), "z")
		if err := b.Write(&w); err != nil {
			t.Fatal(err)
		}
		b.Reset()
	}
	if len(w.writes) != 2 || string(w.writes[1]) != "abdataz" || !b.Empty() {
		t.Errorf("%q", w.writes)
	}
}
