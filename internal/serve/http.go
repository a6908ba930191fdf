package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"lintel.io/lintel/internal/agent"
)

// Limits of the management servers: a silent or endless client costs itself.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = time.Minute // of the request alone: its answer may take longer
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// servers are the HTTP servers of the process.
type servers struct {
	log    *slog.Logger
	list   []*http.Server
	failed chan error
}

func newServers(log *slog.Logger) *servers {
	return &servers{log: log, failed: make(chan error, 1)}
}

// serve starts answering on a listener, with HTTP/1.1 and, for gRPC clients,
// HTTP/2 without TLS.
func (s *servers) serve(listener net.Listener, handler http.Handler) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		Handler:           limitBody(handler, bodyTimeout),
		ConnContext:       agent.ConnContext,
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	s.list = append(s.list, server)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			select {
			case s.failed <- fmt.Errorf("listening on %s ended: %w", listener.Addr(), err):
			default:
			}
		}
	}()
}

// limitBody gives a client so long to send the body of its request. http.Server.ReadTimeout would also
// end the wait of a client that has sent all of it.
func limitBody(handler http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &limitedBody{ReadCloser: r.Body, set: http.NewResponseController(w).SetReadDeadline}
		if r.Body != http.NoBody && body.set(time.Now().Add(timeout)) == nil {
			r.Body = body
		}
		handler.ServeHTTP(w, r)
	})
}

// limitedBody takes the deadline back when the body has come.
type limitedBody struct {
	io.ReadCloser
	set func(time.Time) error
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		if err := b.set(time.Time{}); err != nil {
			return n, err
		}
	}
	return n, err
}

// close lets the calls under way end until ctx is done.
func (s *servers) close(ctx context.Context) {
	for _, server := range s.list {
		if err := server.Shutdown(ctx); err != nil {
			s.log.Warn("management calls were cut off", "error", errors.Join(err, server.Close()))
		}
	}
}
