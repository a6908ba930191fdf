package nvme

import (
	"cmp"
	"net/netip"
	"slices"
)

// QueueStatus is a connected queue as an administrator sees it.
type QueueStatus struct {
	ID     uint16 // 0 for the admin queue
	Depth  int    // entries
	Remote netip.AddrPort
	Local  netip.AddrPort
	// HeaderDigest and DataDigest say that the transport protects its PDUs by digests.
	HeaderDigest, DataDigest bool
	InFlight                 int // commands under way, event requests left out
}

// QueueStatus lists the connected queues in order of their ids.
func (c *Controller) QueueStatus() []QueueStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]QueueStatus, 0, len(c.queues))
	for id, q := range c.queues {
		list = append(list, QueueStatus{
			ID: id, Depth: q.Depth(), Remote: q.cfg.Remote, Local: q.cfg.Local,
			HeaderDigest: q.cfg.HeaderDigest, DataDigest: q.cfg.DataDigest, InFlight: q.Stats().InFlight,
		})
	}
	slices.SortFunc(list, func(a, b QueueStatus) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Namespaces returns how many namespaces the controller's host sees.
func (c *Controller) Namespaces() int { return len(c.table.Load().all()) }

// Authenticated reports whether the host had to prove a key, and did.
func (c *Controller) Authenticated() bool {
	c.mu.Lock()
	q := c.queues[0]
	c.mu.Unlock()
	return q != nil && q.passed.Load() && !c.grant.HostKey.Empty()
}
