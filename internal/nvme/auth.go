package nvme

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/nvme/dhchap"
	wire "lintel.io/lintel/internal/wire/nvme"
)

const (
	// authenticationTime is how long a host may take until it has proved itself.
	authenticationTime = 60 * time.Second
	// authenticationProtocol is SECP of the in-band authentication.
	authenticationProtocol = 0xE9
)

var errAuthenticationTime = errors.New("the host has not authenticated in time")

// authentication is the in-band authentication of a queue (NVMe Base 2.0 §8.13).
type authentication struct {
	timer *time.Timer
	end   sync.Once // of a queue whose exchange has failed

	mu   sync.Mutex // held while a command is at work: there is one at a time
	side *dhchap.Controller
}

// sequence numbers the challenges of the process: no number comes twice within
// 4 billion exchanges, and the challenge itself is random.
var sequence atomic.Uint32

func nextSequence() uint32 {
	for {
		if n := sequence.Add(1); n != 0 {
			return n
		}
	}
}

// computing bounds how many hosts make the controller compute at once: those
// who have not proved anything yet shall not take all processors.
var computing = make(chan struct{}, 2)

// newAuthentication returns what a grant demands of a host before its queue takes
// commands, nil for nothing.
func newAuthentication(grant Grant, n connect) *authentication {
	if grant.HostKey.Empty() {
		return nil
	}
	return &authentication{side: dhchap.NewController(dhchap.ControllerConfig{
		HostNQN:       n.HostNQN,
		SubNQN:        n.SubNQN,
		HostKey:       grant.HostKey,
		ControllerKey: grant.ControllerKey,
		Hashes:        grant.Hashes,
		Groups:        grant.Groups,
		Sequence:      nextSequence,
	})}
}

// demandLocked makes q wait for the authentication, nil for none. q.mu is held.
func (q *Queue) demandLocked(a *authentication) {
	q.auth = a
	q.passed.Store(a == nil)
	if a == nil {
		return
	}
	a.timer = time.AfterFunc(authenticationTime, func() {
		if !q.passed.Load() {
			q.cfg.Kill(errAuthenticationTime)
		}
	})
}

// authentication returns what an Authentication command is about, after it has
// checked the command (NVMe Base 2.0 §6.1, §6.2).
func (r *Request) authentication() (*authentication, wire.Status) {
	e, q := r.SQE, r.queue
	q.mu.Lock()
	a := q.auth
	q.mu.Unlock()
	switch {
	case a == nil:
		return nil, wire.CommandSequenceError.DNR()
	case e[43] != authenticationProtocol || e[42] != 1 || e[41] != 1: // SECP, SPSP1, SPSP0
		return nil, wire.InvalidField.DNR()
	case e.CDW(11) == 0 || e.CDW(11) != uint32(r.length): // TL, AL
		return nil, wire.SGLLengthInvalid.DNR()
	}
	return a, 0
}

// runAuthenticationSend is Authentication_Send (NVMe Base 2.0 §6.2).
func (r *Request) runAuthenticationSend(c *Controller) {
	a, s := r.authentication()
	if s == 0 && len(r.DataOut) != r.length {
		s = wire.SGLLengthInvalid.DNR()
	}
	if s != 0 {
		r.finish(s)
		return
	}
	if !a.mu.TryLock() {
		r.fail(wire.CommandSequenceError)
		return
	}
	go func() {
		computing <- struct{}{}
		if !r.isCancelled() {
			a.side.Receive(r.DataOut)
		}
		<-computing
		passed, err := a.side.Authenticated(), a.side.Err()
		a.mu.Unlock()
		r.settle(c, a, passed, err)
	}()
}

// runAuthenticationReceive is Authentication_Receive (NVMe Base 2.0 §6.1).
func (r *Request) runAuthenticationReceive(c *Controller) {
	a, s := r.authentication()
	if s != 0 {
		r.finish(s)
		return
	}
	if !a.mu.TryLock() {
		r.fail(wire.CommandSequenceError)
		return
	}
	b := a.side.Send()
	passed, err := a.side.Authenticated(), a.side.Err()
	a.mu.Unlock()
	switch {
	case b == nil:
		r.fail(wire.CommandSequenceError)
		return
	case len(b) > r.length:
		r.fail(wire.SGLLengthInvalid)
		return
	}
	in := r.allocIn(r.length)
	clear(in[copy(in, b):])
	if passed && !r.queue.passed.Load() && r.queue.ID() == 0 {
		go r.settle(c, a, passed, err) // it asks the array
		return
	}
	r.settle(c, a, passed, err)
}

// settle ends an Authentication command and does what has come out of the exchange: the
// queue takes commands, or its connection ends.
func (r *Request) settle(c *Controller, a *authentication, passed bool, err error) {
	q := r.queue
	if err != nil {
		q.passed.Store(false)
		a.end.Do(func() {
			c.sub.cfg.Logger.Warn("NVMe authentication failed", "host", c.info.HostNQN, "remote", q.cfg.Remote, "error", err)
			time.AfterFunc(authenticationGrace, func() { q.cfg.Kill(err) })
		})
	}
	if passed && !q.passed.Load() {
		a.timer.Stop()
		if q.ID() == 0 {
			if oerr := c.open(); oerr != nil {
				r.finish(wire.ConnectInvalidHost)
				c.Kill(oerr)
				return
			}
		}
		q.passed.Store(true)
	}
	r.finish(wire.Success)
}

// authenticationGrace is how long a host has to learn why its exchange has failed, until its connection ends.
const authenticationGrace = 5 * time.Second
