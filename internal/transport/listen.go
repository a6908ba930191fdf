package transport

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// ErrClosed is what Serve returns after Close.
var ErrClosed = errors.New("the server is shut down")

// Listeners are the sockets on which a server accepts connections. The methods may be
// called concurrently.
type Listeners struct {
	quit chan struct{}

	mu     sync.Mutex // a leaf
	open   map[net.Listener]struct{}
	closed bool
}

// NewListeners returns Listeners without any socket.
func NewListeners() *Listeners {
	return &Listeners{quit: make(chan struct{}), open: map[net.Listener]struct{}{}}
}

// Serve gives the connections of a listener to accept, one after the other, until the
// listener fails or Close is called. Where the machine is out of descriptors or the like it
// goes on after a pause. It closes the listener.
func (s *Listeners) Serve(l net.Listener, log *slog.Logger, accept func(net.Conn)) error {
	defer l.Close()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.open[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.open, l)
		s.mu.Unlock()
	}()
	var delay time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			delay = 0
			accept(nc)
			continue
		}
		select {
		case <-s.quit:
			return ErrClosed
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		log.Warn("cannot accept a connection", "portal", l.Addr(), "error", err)
		select {
		case <-time.After(delay):
		case <-s.quit:
			return ErrClosed
		}
	}
}

// Done is closed when Close is called.
func (s *Listeners) Done() <-chan struct{} { return s.quit }

// Close ends all Serve. Calling it again does nothing.
func (s *Listeners) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	close(s.quit)
	for l := range s.open {
		l.Close()
	}
}
