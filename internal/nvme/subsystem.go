package nvme

import (
	"log/slog"

	"lintel.io/lintel/internal/unit"
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
	Access    Access
	Logger    *slog.Logger
}

// Subsystem is the NVM subsystem of an array as one head presents it, with its
// discovery service. Its methods may be called concurrently.
type Subsystem struct{ cfg Config }

// NewSubsystem returns a subsystem without controllers.
func NewSubsystem(c Config) (*Subsystem, error) { return &Subsystem{cfg: c}, nil }

// NewQueue returns the queue of a new connection.
func (s *Subsystem) NewQueue(c QueueConfig) *Queue { return &Queue{sub: s, cfg: c} }

// RemoveNamespace ends the commands on a unit, for every host, and forgets it.
// done is called when no command can reach the unit's device any more.
func (s *Subsystem) RemoveNamespace(u *unit.Unit, done func()) { done() }

// PortsChanged tells hosts with persistent discovery controllers that the
// discovery log has changed.
func (s *Subsystem) PortsChanged() {}
