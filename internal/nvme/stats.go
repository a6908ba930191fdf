package nvme

import (
	"lintel.io/lintel/internal/unit"
	wire "lintel.io/lintel/internal/wire/nvme"
)

// counts are the statistics of a queue, guarded by Queue.mu: no other queue
// writes to their memory.
type counts struct {
	last  *unit.Unit // which entry of units is stats
	stats *unit.Stats
	units map[*unit.Unit]*unit.Stats
	rest  unit.Stats // of commands on no namespace, and on units that are gone
}

// add adds a finished command.
func (n *counts) add(r *Request) {
	s := &n.rest
	if r.ns != nil {
		if r.ns.unit != n.last {
			n.turnTo(r.ns.unit)
		}
		s = n.stats
	}
	switch {
	case !r.Status.OK():
		s.Errors++
	case r.ns == nil:
		s.Others++
	case r.SQE.Opcode() == wire.Read:
		s.Reads++
		s.ReadBytes += uint64(len(r.DataIn))
		s.ReadTime += r.stamp.Took()
	case r.SQE.Opcode() == wire.Write:
		s.Writes++
		s.WriteBytes += uint64(len(r.DataOut))
		s.WriteTime += r.stamp.Took()
	default:
		s.Others++
	}
}

func (n *counts) turnTo(u *unit.Unit) {
	if n.units == nil {
		n.units = make(map[*unit.Unit]*unit.Stats)
	}
	s := n.units[u]
	if s == nil {
		s = new(unit.Stats)
		n.units[u] = s
	}
	n.last, n.stats = u, s
}

// forget moves what is counted for a unit to the rest, and returns it.
func (n *counts) forget(u *unit.Unit) unit.Stats {
	s := n.units[u]
	if s == nil {
		return unit.Stats{}
	}
	delete(n.units, u)
	n.last, n.stats = nil, nil
	n.rest.Add(*s)
	return *s
}

// Stats returns the counts of the queue's commands. Those under way are counted but
// for event requests, which wait as long as there is no event.
func (q *Queue) Stats() unit.Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.counts.rest
	for _, o := range q.counts.units {
		s.Add(*o)
	}
	for r := q.requests; r != nil; r = r.next {
		if q.id != 0 || r.SQE.Opcode() != wire.AdminAsyncEvent {
			s.InFlight++
		}
	}
	return s
}

// Stats returns the counts of the controller's commands.
func (c *Controller) Stats() unit.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.past
	for _, q := range c.queues {
		s.Add(q.Stats())
	}
	return s
}

// retireLocked keeps what a queue that is gone has counted for each unit, and
// returns the counts of all its commands. counting is held.
func (s *Subsystem) retireLocked(q *Queue) unit.Stats {
	total := q.Stats()
	q.mu.Lock()
	defer q.mu.Unlock()
	for u, n := range q.counts.units {
		if s.past[u] == nil {
			s.past[u] = new(unit.Stats)
		}
		s.past[u].Add(*n)
	}
	return total
}

// UnitStats returns the counts of the commands on each unit since it was first
// used, by all hosts, those that are gone included.
func (s *Subsystem) UnitStats() map[*unit.Unit]unit.Stats {
	s.counting.Lock()
	defer s.counting.Unlock()
	all := make(map[*unit.Unit]unit.Stats, len(s.past))
	add := func(u *unit.Unit, n unit.Stats) {
		n.Add(all[u])
		all[u] = n
	}
	for u, n := range s.past {
		add(u, *n)
	}
	s.eachQueue(func(q *Queue) {
		for u, n := range q.counts.units {
			add(u, *n)
		}
		for r := q.requests; r != nil; r = r.next {
			if r.ns != nil {
				add(r.ns.unit, unit.Stats{InFlight: 1})
			}
		}
	})
	return all
}

// ForgetUnit returns the last counts of a unit that no host sees any more, and keeps
// nothing of it.
func (s *Subsystem) ForgetUnit(u *unit.Unit) unit.Stats {
	s.counting.Lock()
	defer s.counting.Unlock()
	var sum unit.Stats
	if n := s.past[u]; n != nil {
		sum.Add(*n)
		delete(s.past, u)
	}
	s.eachQueue(func(q *Queue) { sum.Add(q.counts.forget(u)) })
	return sum
}

// eachQueue calls do for every connected queue with its lock held.
func (s *Subsystem) eachQueue(do func(*Queue)) {
	for _, c := range s.Controllers() {
		c.mu.Lock()
		queues := c.queuesLocked(true)
		c.mu.Unlock()
		for _, q := range queues {
			q.mu.Lock()
			do(q)
			q.mu.Unlock()
		}
	}
}
