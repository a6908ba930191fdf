package nvme

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"lintel.io/lintel/internal/origin"
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// Config describes a Subsystem.
type Config struct {
	NQN          string // of the NVM subsystem
	DiscoveryNQN string // unique NQN of the discovery subsystem; the well-known one is accepted too
	Serial       string // at most 20 ASCII bytes
	Model        string // at most 40
	Firmware     string // at most 8
	// FirstController and LastController are the range of controller ids of
	// this head, 1 to 65519 by default.
	FirstController, LastController uint16
	// PortGroup is the target port group of this head, which selects its access
	// state in a unit.Group.
	PortGroup uint16
	// MaxControllers is how many controllers there are at most, 1024 by default; as many more for discovery.
	MaxControllers int
	Access         Access
	Logger         *slog.Logger
}

const (
	lastController = 0xFFEF // FFF0h to FFFFh are reserved (NVMe Base 2.0 §3.1.1)
	maxControllers = 1024
	// maxGuests is how many controllers there are at most whose host has yet to authenticate;
	// maxGuestsPerAddress how many of them from one address.
	maxGuests           = 256
	maxGuestsPerAddress = 32
	// maxDiscoveryPerAddress is how many controllers for discovery there are at most from one
	// address: those of all hosts behind it, which keep them as long as they run.
	maxDiscoveryPerAddress = 128
)

// Subsystem is the NVM subsystem of an array as one head presents it, with its
// discovery service. Its methods may be called concurrently.
type Subsystem struct {
	cfg     Config
	started time.Time

	counting sync.Mutex                 // above mu
	past     map[*unit.Unit]*unit.Stats // of queues that are gone

	nqn atomic.Pointer[string] // of the NVM subsystem

	mu          sync.Mutex // above Controller.mu
	controllers map[uint16]*Controller
	lastID      uint16
}

// NewSubsystem returns a subsystem without controllers.
func NewSubsystem(c Config) (*Subsystem, error) {
	if c.DiscoveryNQN == "" {
		c.DiscoveryNQN = wire.DiscoveryNQN
	}
	if !validNQN(c.DiscoveryNQN) {
		return nil, invalidNQN(c.DiscoveryNQN)
	}
	if err := checkSubsystemNQN(c.NQN, c.DiscoveryNQN); err != nil {
		return nil, err
	}
	if c.Access == nil {
		return nil, fmt.Errorf("nvme: subsystem %s has no access control", c.NQN)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.FirstController == 0 {
		c.FirstController = 1
	}
	if c.LastController == 0 {
		c.LastController = lastController
	}
	if c.LastController > lastController || c.FirstController > c.LastController {
		return nil, fmt.Errorf("nvme: controller ids %d to %d: use 1 to %d", c.FirstController, c.LastController, lastController)
	}
	if c.MaxControllers <= 0 {
		c.MaxControllers = maxControllers
	}
	s := &Subsystem{
		cfg:         c,
		started:     time.Now(),
		past:        make(map[*unit.Unit]*unit.Stats),
		controllers: make(map[uint16]*Controller),
		lastID:      c.LastController,
	}
	s.nqn.Store(&c.NQN)
	return s, nil
}

func validNQN(s string) bool {
	return len(s) >= 11 && len(s) <= wire.MaxNQN && strings.HasPrefix(s, "nqn.")
}

func invalidNQN(nqn string) error {
	return fmt.Errorf("nvme: NQN %q: 11 to %d bytes that begin with nqn. are needed", nqn, wire.MaxNQN)
}

func checkSubsystemNQN(nqn, discovery string) error {
	switch {
	case nqn == wire.DiscoveryNQN || nqn == discovery:
		return fmt.Errorf("nvme: subsystem NQN %q: the subsystem needs a name of its own", nqn)
	case !validNQN(nqn):
		return invalidNQN(nqn)
	}
	return nil
}

// NQN returns the name of the NVM subsystem.
func (s *Subsystem) NQN() string { return *s.nqn.Load() }

var errRenamed = errors.New("the subsystem has another NQN now")

// Rename gives the NVM subsystem another name. The associations that were made
// under the old one end. Whoever calls it calls DiscoveryChanged then.
func (s *Subsystem) Rename(nqn string) error {
	if err := checkSubsystemNQN(nqn, s.cfg.DiscoveryNQN); err != nil {
		return err
	}
	s.nqn.Store(&nqn)
	for _, c := range s.Controllers() {
		if !c.info.Discovery && c.info.SubNQN != nqn {
			c.Kill(errRenamed)
		}
	}
	return nil
}

// NewQueue returns the queue of a new connection.
func (s *Subsystem) NewQueue(c QueueConfig) *Queue {
	if c.InCapsule <= 0 {
		c.InCapsule = defaultInCapsule
	}
	if c.Kill == nil {
		c.Kill = func(error) {}
	}
	return &Queue{sub: s, cfg: c, lane: unit.NewLane()}
}

// isDiscovery reports whether an NQN is one of the discovery subsystem.
func (s *Subsystem) isDiscovery(nqn string) bool {
	return nqn == wire.DiscoveryNQN || nqn == s.cfg.DiscoveryNQN
}

// add gives a controller its id, false where there are too many.
func (s *Subsystem) add(c *Controller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.roomLocked(c) {
		return false
	}
	first, last := s.cfg.FirstController, s.cfg.LastController
	// An id is used again as late as possible.
	for {
		if s.lastID < first || s.lastID >= last {
			s.lastID = first
		} else {
			s.lastID++
		}
		if s.controllers[s.lastID] == nil {
			break
		}
	}
	c.info.ID = s.lastID
	s.controllers[c.info.ID] = c
	return true
}

// roomLocked reports whether there may be one more controller like c.
func (s *Subsystem) roomLocked(c *Controller) bool {
	all, guests, near := 0, 0, 0
	from := origin.Of(c.info.Remote.Addr())
	for _, o := range s.controllers {
		if o.info.Discovery != c.info.Discovery {
			continue
		}
		all++
		if !o.guest.Load() {
			continue
		}
		guests++
		if origin.Of(o.info.Remote.Addr()) == from {
			near++
		}
	}
	limit, perAddress := maxGuests, maxGuestsPerAddress
	if c.info.Discovery {
		limit, perAddress = s.cfg.MaxControllers, maxDiscoveryPerAddress
	}
	switch {
	case len(s.controllers) > int(s.cfg.LastController-s.cfg.FirstController): // no id is left
		return false
	case c.guest.Load() && (guests >= limit || near >= perAddress):
		return false
	}
	return all < s.cfg.MaxControllers
}

func (s *Subsystem) remove(c *Controller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.controllers, c.info.ID)
}

func (s *Subsystem) find(id uint16) *Controller {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.controllers[id]
}

// Controllers returns the controllers in order of their ids.
func (s *Subsystem) Controllers() []*Controller {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.controllers), func(a, b *Controller) int { return int(a.info.ID) - int(b.info.ID) })
}

// fence has the commands of a new controller wait for the changes that the host's other ones are
// making: it may have lost those, which nobody here has noticed yet.
func (s *Subsystem) fence(c *Controller) {
	for _, o := range s.Controllers() {
		if o == c || o.initiator != c.initiator {
			continue
		}
		o.mu.Lock()
		queues := o.queuesLocked(false)
		o.mu.Unlock()
		for _, q := range queues {
			q.fence()
		}
	}
}

// RemoveNamespace ends the commands on a unit, for every host, and forgets it.
// done is called when no command can reach the unit's device any more.
func (s *Subsystem) RemoveNamespace(u *unit.Unit, done func()) {
	d := unit.NewDrain(done)
	for _, c := range s.Controllers() {
		c.removeUnit(u, d)
	}
	d.Release()
}

// DiscoveryChanged tells hosts with persistent discovery controllers that the
// discovery log has changed.
func (s *Subsystem) DiscoveryChanged() {
	for _, c := range s.Controllers() {
		if c.info.Discovery {
			c.events.raise(wire.EventDiscoveryChanged)
		}
	}
}
