package iscsi

import (
	"context"
	"net"

	wire "lintel.io/lintel/internal/wire/iscsi"
)

// Server is an iSCSI target server.
type Server struct{}

// NewServer returns a Server without listeners.
func NewServer(Config) *Server { return &Server{} }

// Serve accepts connections until the listener is closed or the server shut down; group is the portal group tag.
func (s *Server) Serve(l net.Listener, group uint16) error { return nil }

// Sessions lists the sessions, oldest first.
func (s *Server) Sessions() []SessionStatus { return nil }

// Drop ends a session; it reports whether it existed.
func (s *Server) Drop(id uint64) bool { return false }

// AsyncEvent sends an asynchronous message to a session.
func (s *Server) AsyncEvent(id uint64, lun uint64, event wire.AsyncEvent, sense []byte) bool {
	return false
}

// Shutdown asks all initiators to log out, waits for them until ctx is done, and closes everything.
func (s *Server) Shutdown(ctx context.Context) error { return nil }
