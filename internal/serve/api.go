package serve

import (
	"bytes"
	"fmt"
	"io"
	"net/http"

	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
)

// api is the array's own API, called without a socket: what serve does to the
// array goes the way of every other client.
type api struct {
	volumes  lintelv1connect.VolumeServiceClient
	hosts    lintelv1connect.HostServiceClient
	mappings lintelv1connect.MappingServiceClient
	target   lintelv1connect.TargetServiceClient
	system   lintelv1connect.SystemServiceClient
}

func newAPI(h http.Handler) *api {
	client := &http.Client{Transport: inProcess{h}}
	const base = "http://lintel"
	return &api{
		volumes:  lintelv1connect.NewVolumeServiceClient(client, base),
		hosts:    lintelv1connect.NewHostServiceClient(client, base),
		mappings: lintelv1connect.NewMappingServiceClient(client, base),
		target:   lintelv1connect.NewTargetServiceClient(client, base),
		system:   lintelv1connect.NewSystemServiceClient(client, base),
	}
}

// inProcess is an http.RoundTripper that calls a handler. It answers when the
// handler has ended, which is enough for unary calls.
type inProcess struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body == nil {
		req.Body = http.NoBody
	}
	w := &answer{header: http.Header{}, status: http.StatusOK}
	t.handler.ServeHTTP(w, req)
	req.Body.Close()
	return &http.Response{
		StatusCode: w.status, Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: req,
	}, nil
}

// answer collects what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
