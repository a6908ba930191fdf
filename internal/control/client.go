package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"connectrpc.com/connect"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
)

// Times of a Client.
const (
	callTimeout = 10 * time.Second // of all calls but Apply and Reopen
	maxApply    = time.Minute      // of Apply, where the caller gives it longer
	maxReopen   = time.Minute      // of Reopen, where the caller gives it longer
	grace       = 5 * time.Second  // for the answer, after that
	firstPause  = 50 * time.Millisecond
	lookPause   = time.Second // between two looks at whether the data plane is there
	failedPause = 30 * time.Second
)

// Client is a data plane in another process. Its methods may be called concurrently, Apply only
// one at a time.
type Client struct {
	name string
	http *http.Client

	run string // another one for each Client

	mu      sync.Mutex
	number  uint64 // of the last Apply
	applied string // instance that has the last state, empty where that is not known
}

var _ agent.DataPlane = (*Client)(nil)

// NewClient returns the data plane that dial leads to; name is what messages call that. It
// need not be there yet.
func NewClient(name string, dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{name: name, run: rand.Text(), http: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true, // a connection to a process that has gone would fail the first call to the next one
	}}}
}

// refusal is why a data plane that is there does not do what it is asked for. What it does
// is as little known as where there is no answer.
type refusal struct{ error }

// Unwrap makes a refusal agent.ErrNoAnswer.
func (r refusal) Unwrap() []error { return []error{r.error, agent.ErrNoAnswer} }

func call[Req, Res any](ctx context.Context, c *Client, procedure string, req *Req) (*Res, error) {
	client := connect.NewClient[Req, Res](c.http, "http://target"+procedure,
		connect.WithCodec(codec{}), connect.WithReadMaxBytes(maxMessage), connect.WithAcceptCompression("gzip", nil, nil))
	res, err := client.CallUnary(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, c.explain(err)
	}
	return res.Msg, nil
}

// explain says what is wrong with the data plane.
func (c *Client) explain(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return fmt.Errorf("%w: %s: %s", agent.ErrNoAnswer, c.name, op.Err.Error())
	}
	known, ok := errors.AsType[*connect.Error](err)
	switch {
	case ok && known.Code() == connect.CodeUnimplemented:
		return refusal{fmt.Errorf("%s does not speak version %d of the control protocol: run the same version of target and agent", c.name, Version)}
	case ok && connect.IsWireError(err):
		return refusal{fmt.Errorf("the target refuses: %s", known.Message())}
	}
	// A connection that breaks can look like a caller who has gone: its kind is not passed on.
	return fmt.Errorf("%w: %s: %s", agent.ErrNoAnswer, c.name, err.Error())
}

func brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// Hello asks the data plane who it is, and refuses one that speaks another version.
func (c *Client) Hello(ctx context.Context) (*Hello, error) {
	ctx, cancel := brief(ctx)
	defer cancel()
	h, err := call[none, Hello](ctx, c, helloCall, &none{})
	if err != nil {
		return nil, err
	}
	if h.Version != Version {
		return nil, refusal{fmt.Errorf("the target (lintel %s) speaks version %d of the control protocol, this program version %d: run the same version of both", h.Program, h.Version, Version)}
	}
	return h, nil
}

// Ready implements agent.DataPlane.
func (c *Client) Ready(ctx context.Context) error {
	_, err := c.Hello(ctx)
	return err
}

// Apply implements agent.DataPlane.
func (c *Client) Apply(ctx context.Context, s *array.State) error {
	timeout := maxApply
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	req, err := newApplyRequest(s, timeout)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.number++
	req.Run, req.Number = c.run, c.number
	c.mu.Unlock()
	// The data plane gives up first, and says so.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout+grace)
	defer cancel()
	res, err := call[applyRequest, applyResponse](ctx, c, applyCall, req)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.applied = ""
		return err
	}
	c.applied = res.Instance
	if res.Failed != "" {
		return errors.New(res.Failed)
	}
	return nil
}

func (c *Client) has(instance string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.applied == instance
}

// Follow calls reapply, which calls Apply, whenever a data plane is there that has not the last
// state, until ctx is done.
func (c *Client) Follow(ctx context.Context, log *slog.Logger, reapply func(context.Context)) {
	pause, there := firstPause, true
	for {
		hello, err := c.Hello(ctx)
		if ctx.Err() != nil {
			return
		}
		if there != (err == nil) {
			if there = err == nil; there {
				log.Info("the target answers", "at", c.name, "pid", hello.PID, "version", hello.Program)
			} else {
				log.Error("nothing can be changed until the target is back", "error", err)
			}
		}
		switch {
		case err != nil:
			pause = min(2*pause, lookPause)
		case c.has(hello.Instance):
			pause = lookPause
		default:
			reapply(ctx)
			if c.has(hello.Instance) {
				continue
			}
			pause = min(2*pause, failedPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// CheckPortal implements agent.DataPlane.
func (c *Client) CheckPortal(ctx context.Context, at netip.AddrPort) error {
	ctx, cancel := brief(ctx)
	defer cancel()
	res, err := call[portalRequest, portalResponse](ctx, c, portalCall, &portalRequest{at})
	if err == nil && res.Failed != "" {
		err = errors.New(res.Failed)
	}
	return err
}

// Status implements agent.DataPlane.
func (c *Client) Status(ctx context.Context, volumes ...string) (*agent.Status, error) {
	ctx, cancel := brief(ctx)
	defer cancel()
	return call[statusRequest, agent.Status](ctx, c, statusCall, &statusRequest{volumes})
}

// Reopen implements agent.DataPlane.
func (c *Client) Reopen(ctx context.Context, volumeID string) error {
	timeout := maxReopen
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline))
	}
	// The data plane gives up first, and says so.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout+grace)
	defer cancel()
	res, err := call[reopenRequest, reopenResponse](ctx, c, reopenCall, &reopenRequest{volumeID, timeout})
	if err == nil && res.Failed != "" {
		err = errors.New(res.Failed)
	}
	return err
}

// Sessions implements agent.DataPlane.
func (c *Client) Sessions(ctx context.Context) ([]agent.Session, error) {
	ctx, cancel := brief(ctx)
	defer cancel()
	res, err := call[none, sessionsResponse](ctx, c, sessionCall, &none{})
	if err != nil {
		return nil, err
	}
	return res.Sessions, nil
}

// DropSession implements agent.DataPlane.
func (c *Client) DropSession(ctx context.Context, id string) (bool, error) {
	ctx, cancel := brief(ctx)
	defer cancel()
	res, err := call[dropRequest, dropResponse](ctx, c, dropCall, &dropRequest{id})
	return err == nil && res.Dropped, err
}

// Stats implements agent.DataPlane.
func (c *Client) Stats(ctx context.Context) (*agent.Stats, error) {
	ctx, cancel := brief(ctx)
	defer cancel()
	return call[none, agent.Stats](ctx, c, statsCall, &none{})
}
