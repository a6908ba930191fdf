package cli

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	"lintel.io/lintel/internal/serve"
)

// endpoint is where an array's API answers.
type endpoint struct {
	name   string // as shown to the user: unix:PATH or a URL
	base   string // the URL that requests are made for
	client *http.Client
}

// endpoint finds the array: --server, then --data-dir, then the environment's
// LINTEL_SERVER and LINTEL_DATA_DIR, then the default data directory.
func (a *app) endpoint() (endpoint, error) {
	switch {
	case a.server != "":
		return parseServer(a.server)
	case a.dataDir != "":
		return unixEndpoint(serve.SocketPath(a.dataDir)), nil
	case a.Getenv("LINTEL_SERVER") != "":
		return parseServer(a.Getenv("LINTEL_SERVER"))
	}
	return unixEndpoint(serve.SocketPath(a.dataDirectory())), nil
}

// dataDirectory returns the data directory that flags, environment and
// defaults name.
func (a *app) dataDirectory() string {
	if a.dataDir != "" {
		return a.dataDir
	}
	return serve.DefaultDataDir(a.Getenv, os.Geteuid())
}

func parseServer(s string) (endpoint, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok && path != "" {
		return unixEndpoint(path), nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return endpoint{}, usage("%q is not a server: write unix:PATH or http://HOST:PORT", s)
	}
	return endpoint{name: s, base: "http://" + u.Host, client: httpClient(nil)}, nil
}

func unixEndpoint(path string) endpoint {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return serve.DialUnix(ctx, path)
	}
	return endpoint{name: "unix:" + path, base: "http://lintel", client: httpClient(dial)}
}

func httpClient(dial func(context.Context, string, string) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:           dial,
		ResponseHeaderTimeout: 5 * time.Minute,
		IdleConnTimeout:       time.Minute,
	}}
}

// explain is the interceptor that turns a failure to reach the array into a
// sentence that says what to do.
func (e endpoint) explain() connect.Interceptor {
	return connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			res, err := next(ctx, req)
			if err == nil {
				return res, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if os.IsPermission(rootCause(err)) {
				return nil, fail(ExitDenied, "no permission to use %s: run this as the user that runs lintel serve", e.name)
			}
			if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
				return nil, fail(ExitUnreachable, "no array answers at %s: is lintel serve running? Name another one with --data-dir DIR or --server unix:PATH", e.name)
			}
			if code := connect.CodeOf(err); !connect.IsWireError(err) && (code == connect.CodeUnimplemented || code == connect.CodeUnknown) {
				return nil, fail(ExitUnreachable, "what answers at %s is not the API of an array (%s): the address is that of --api-listen", e.name, message(err))
			}
			if connect.CodeOf(err) == connect.CodeUnavailable && !connect.IsWireError(err) {
				return nil, fail(ExitUnreachable, "the array at %s broke off: %s", e.name, message(err))
			}
			return nil, err
		}
	})
}

func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
