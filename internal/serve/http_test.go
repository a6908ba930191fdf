package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// Who does not send the body of a request is cut off; who has sent it may wait as long as the answer takes.
func TestBodyHasToCome(t *testing.T) {
	const timeout = 50 * time.Millisecond
	silent, waited := make(chan error, 1), make(chan error, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		silent <- err
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if string(b) != "all" {
			err = errors.Join(err, errors.New("the body is "+string(b)))
		}
		select {
		case <-r.Context().Done():
			err = errors.Join(err, context.Cause(r.Context()))
		case <-time.After(4 * timeout):
		}
		waited <- err
	})
	server := httptest.NewServer(limitBody(mux, timeout))
	defer server.Close()
	for _, request := range []string{"POST /silent HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na", "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nall"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-silent; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a body that does not come: %v", err)
	}
	if err := <-waited; err != nil {
		t.Errorf("a body that came: %v", err)
	}
}
