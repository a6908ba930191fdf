// Package control lets the data plane and its manager be two processes: it carries
// agent.DataPlane over a unix socket.
//
// The protocol is private to one version of the program and the next: unary
// calls of Connect with JSON, all of them versioned but Hello, which tells the
// version. The manager sends whole documents, never differences, so that
// whatever was lost on the way is made good by the next Apply.
package control

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/array"
)

// Version is the version of the protocol.
const Version = 1

// maxMessage is the longest message in bytes: the documents of some pools, each of which
// fits into a slot of its metadata.
const maxMessage = 128 << 20

// Procedures. Hello has the same name in all versions.
const (
	helloCall   = "/lintel.control/Hello"
	versioned   = "/lintel.control.v1/"
	applyCall   = versioned + "Apply"
	portalCall  = versioned + "CheckPortal"
	statusCall  = versioned + "Status"
	sessionCall = versioned + "Sessions"
	reopenCall  = versioned + "Reopen"
	dropCall    = versioned + "DropSession"
	statsCall   = versioned + "Stats"
)

// Hello is what a data plane says of itself.
type Hello struct {
	Version  int    // of the protocol
	Program  string // version of the program
	Instance string // another one for each start of the process
	PID      int
	Array    string // id of the array it serves, empty for none yet
}

type none struct{}

// applyRequest carries a state.
type applyRequest struct {
	// Run is another one for each start of the manager, and Number rises with each of its
	// requests: one that was overtaken is late, not new.
	Run    string
	Number uint64

	Array json.RawMessage
	Pools []json.RawMessage
	// Timeout is how long the data plane may wait for commands to end.
	Timeout time.Duration
}

type applyResponse struct {
	Instance string
	Failed   string // what could not be applied, empty where everything was
}

type portalRequest struct{ Address netip.AddrPort }

type portalResponse struct{ Failed string }

type statusRequest struct{ Volumes []string }

type reopenRequest struct {
	Volume string // id
	// Timeout is how long storage that hangs is waited for.
	Timeout time.Duration
}

type reopenResponse struct{ Failed string }

type sessionsResponse struct{ Sessions []agent.Session }

type dropRequest struct{ ID string }

type dropResponse struct{ Dropped bool }

// newApplyRequest encodes a state.
func newApplyRequest(s *array.State, timeout time.Duration) (*applyRequest, error) {
	r := &applyRequest{Timeout: timeout, Pools: make([]json.RawMessage, len(s.Pools))}
	var err error
	if r.Array, err = s.Document.Encode(); err != nil {
		return nil, err
	}
	for i, p := range s.Pools {
		if r.Pools[i], err = p.Encode(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// state decodes and checks the state, as one that follows before where that is not nil.
func (r *applyRequest) state(before *array.State) (*array.State, error) {
	doc, err := array.DecodeDocument(r.Array)
	if err != nil {
		return nil, err
	}
	pools := make([]*array.PoolDocument, len(r.Pools))
	for i, b := range r.Pools {
		if pools[i], err = array.DecodePoolDocument(b); err != nil {
			return nil, err
		}
		if err := pools[i].Validate(); err != nil {
			return nil, err
		}
	}
	if before == nil {
		return array.NewState(doc, pools)
	}
	if now := before.Document; doc.ID != now.ID {
		return nil, fmt.Errorf("the target serves array %s (%s), not %s (%s): start one of them on another data directory", now.Name, now.ID, doc.Name, doc.ID)
	} else if doc.Generation < now.Generation {
		return nil, fmt.Errorf("the target serves version %d of the configuration, which is newer than %d: restart both on the same data directory", now.Generation, doc.Generation)
	}
	for _, p := range pools {
		for _, now := range before.Pools {
			if p.ID == now.ID && p.Generation < now.Generation {
				return nil, fmt.Errorf("the target serves version %d of pool %s, which is newer than %d: restart both on the same data directory", now.Generation, now.Name, p.Generation)
			}
		}
	}
	return before.Follow(doc, pools)
}

// codec writes messages as JSON.
type codec struct{}

// Name is that of the codec it stands for.
func (codec) Name() string { return "json" }

// Marshal implements connect.Codec.
func (codec) Marshal(m any) ([]byte, error) { return json.Marshal(m) }

// Unmarshal implements connect.Codec.
func (codec) Unmarshal(b []byte, m any) error { return json.Unmarshal(b, m) }
