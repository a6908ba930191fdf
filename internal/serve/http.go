package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"lintel.io/lintel/internal/agent"
)

// Limits of the management servers: a silent or endless client costs itself.
const (
	headerTimeout = 10 * time.Second
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
		Handler:           handler,
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

// close lets the calls under way end until ctx is done.
func (s *servers) close(ctx context.Context) {
	for _, server := range s.list {
		if err := server.Shutdown(ctx); err != nil {
			s.log.Warn("management calls were cut off", "error", errors.Join(err, server.Close()))
		}
	}
}
