package nvmetcp

import "time"

// janitor looks after stuck connections once a second. Silence is no offence:
// Keep Alive is the controller's, and TCP finds out about dead hosts.
func (s *Server) janitor() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.stop:
			return
		}
		s.tick.Add(1)
		for _, c := range s.all() {
			c.watch()
		}
	}
}

// watchState is what the janitor saw last time.
type watchState struct {
	writes uint64
	wrote  int64 // the tick at which something went, or there was nothing to send
}

// watch drops a host that does not connect, does not read or does not send the
// data that it was asked for.
func (c *conn) watch() {
	cfg := &c.server.cfg
	now := c.server.tick.Load()
	seconds := func(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &c.watched
	if c.writes != w.writes || c.out.Empty() && !c.flushing || w.wrote == 0 {
		w.writes, w.wrote = c.writes, now
	}
	switch {
	case c.dead:
		return
	case !c.connected && now-c.born > seconds(cfg.ConnectTimeout):
		c.killLocked(errNoConnect)
		return
	case now-w.wrote >= seconds(cfg.SendTimeout):
		c.killLocked(errStuck)
		return
	case c.closeAfterFlush && now-w.wrote >= 2:
		c.killLocked(c.cause)
		return
	}
	for _, t := range c.tasks {
		if t.gathering && !t.waiting && now-t.asked >= seconds(cfg.DataTimeout) {
			c.killLocked(errNoData)
			return
		}
	}
}
