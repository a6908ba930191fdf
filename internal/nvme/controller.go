package nvme

// Controller is one dynamic controller: an association of a host. Its methods
// may be called concurrently.
type Controller struct{ info ControllerInfo }

// ControllerInfo describes a controller.
type ControllerInfo struct {
	Peer
	ID        uint16 // CNTLID
	SubNQN    string
	Discovery bool
}

// Info returns what the controller was made of.
func (c *Controller) Info() ControllerInfo { return c.info }

// SetNamespaces replaces what the controller's host sees, and tells it where
// that differs. Commands under way on a namespace that is gone end.
func (c *Controller) SetNamespaces(m Namespaces) {}

// Kill ends the association.
func (c *Controller) Kill(err error) {}
