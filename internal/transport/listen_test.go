package transport

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a listener that answers Accept with what it is given.
type scripted struct {
	net.Listener
	answers chan any // an error or a net.Conn
	once    sync.Once
}

func (s *scripted) Accept() (net.Conn, error) {
	switch a := (<-s.answers).(type) {
	case net.Conn:
		return a, nil
	case error:
		return nil, a
	}
	return nil, net.ErrClosed
}

func (s *scripted) Close() error   { s.once.Do(func() { close(s.answers) }); return nil }
func (s *scripted) Addr() net.Addr { return &net.TCPAddr{} }

func TestListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listeners := NewListeners()
		log := slog.New(slog.DiscardHandler)
		one, other := &scripted{answers: make(chan any)}, &scripted{answers: make(chan any)}
		accepted, ended := make(chan net.Conn), make(chan error, 2)
		for _, l := range []net.Listener{one, other} {
			go func() { ended <- listeners.Serve(l, log, func(nc net.Conn) { accepted <- nc }) }()
		}
		// A machine without descriptors costs a pause, each time a longer one up to a second.
		start := time.Now()
		for range 12 {
			one.answers <- syscall.EMFILE
		}
		want := &sink{}
		one.answers <- want
		if got := <-accepted; got != net.Conn(want) {
			t.Errorf("accepted %v", got)
		}
		if waited := time.Since(start); waited != 5275*time.Millisecond {
			t.Errorf("waited %s", waited)
		}
		// One socket that is closed ends alone, all others with Close, also in a pause.
		other.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed listener: %v", err)
		}
		one.answers <- syscall.EMFILE
		synctest.Wait()
		listeners.Close()
		listeners.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		<-listeners.Done()
		late := &scripted{answers: make(chan any)}
		if err := listeners.Serve(late, log, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Serve after Close: %v", err)
		}
		if _, open := <-late.answers; open {
			t.Error("the late listener is left open")
		}
	})
}
